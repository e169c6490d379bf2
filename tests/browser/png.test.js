/** Texts in PNG files, as the page writes and reads them, held against a parser of the tests' own. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { readTexts, withTexts } from "../../www/png.js";
import { chunksOf, pngOf, textsOf } from "./harness/png.js";
import { root } from "./harness/index.js";

const isText = (/** @type {{ type: string }} */ { type }) => type === "tEXt" || type === "iTXt";
const PLAIN = await readFile(join(root, "docs/images/page.png"));
const [HEADER, ...REST] = chunksOf(PLAIN).filter((chunk) => !isText(chunk));

/** @param {string} type @param {string} head @param {Buffer | string} [text] */
const chunk = (type, head, text = "") => ({ type, data: Buffer.concat([Buffer.from(head), Buffer.from(text)]) });

test("texts are written by the book, before the pixels, and nothing else changes", async () => {
  const texts = { parameters: "a fox,\nétude — 狐 🦊", undiffuse: "plain: äöü" };
  const file = Buffer.from(withTexts(PLAIN, texts));
  assert.deepEqual(textsOf(file), { ...textsOf(PLAIN), ...texts });
  const types = chunksOf(file).map(({ type }) => type);
  assert.deepEqual(types.slice(0, 3), ["IHDR", "iTXt", "tEXt"]);
  assert.deepEqual(
    chunksOf(file).filter((chunk) => !isText(chunk)),
    chunksOf(PLAIN).filter((chunk) => !isText(chunk)),
  );
  assert.deepEqual(Object.fromEntries(await readTexts(file)), textsOf(file));
});

test("texts of every form are read, compressed or not, and what cannot be is passed over", async () => {
  const file = pngOf([
    HEADER,
    chunk("iTXt", "named\0\0\0de\0benannt\0wörtlich"),
    chunk("iTXt", "packed\0\x01\0\0\0", deflateSync("Straße, 夜")),
    chunk("zTXt", "short\0\0", deflateSync(Buffer.from("caf\xe9", "latin1"))),
    chunk("iTXt", "torn\0\x01\0\0\0\x78\x9c"),
    chunk("zTXt", "torn too\0\0", "nothing of zlib's"),
    chunk("zTXt", "by other means\0\x01", deflateSync("text")),
    chunk("iTXt", "cut short\0\0"),
    chunk("tEXt", "without an end"),
    chunk("tEXt", "empty\0"),
    chunk("tEXt", ""),
    ...REST,
  ]);
  assert.deepEqual(
    [...(await readTexts(file))],
    [
      ["named", "wörtlich"],
      ["packed", "Straße, 夜"],
      ["short", "café"],
      ["empty", ""],
    ],
  );
});

test("texts of a mebibyte are read in time in proportion, and longer ones not, however small they are packed", async () => {
  const [long, longer] = [2 ** 20 - 16, 2 ** 20 + 1].map((length) => "a".repeat(length));
  const file = pngOf([
    HEADER,
    chunk("tEXt", "long\0", long),
    chunk("zTXt", "packed\0\0", deflateSync(long)),
    chunk("tEXt", "longer\0", longer),
    chunk("tEXt", "longest\0", Buffer.alloc(32 << 20, "a")),
    chunk("zTXt", "packed longer\0\0", deflateSync(longer)),
    chunk("iTXt", "a bomb\0\x01\0\0\0", deflateSync(Buffer.alloc(64 << 20))),
    chunk("tEXt", "last\0", "one"),
    ...REST,
  ]);
  // Of the processor, which other tests want too.
  const start = process.cpuUsage();
  const texts = await readTexts(file);
  const { user } = process.cpuUsage(start);
  assert.deepEqual([...texts.keys()], ["long", "packed", "last"]);
  assert.ok(texts.get("long") === long && texts.get("packed") === long);
  assert.ok(user < 2e6, `${user} µs`);
});

test("a damaged file is refused in words, wherever it is damaged", async () => {
  const small = pngOf([
    ...chunksOf(Buffer.from(withTexts(PLAIN, { parameters: "a fox", undiffuse: "{}" }))).slice(0, 3),
    { type: "IEND", data: Buffer.alloc(0) },
  ]);
  for (let length = 0; length < small.length; length++) {
    await assert.rejects(
      readTexts(small.subarray(0, length)),
      /it is not a PNG|ends early/,
      `cut after ${length} bytes`,
    );
  }
  let refused = 0;
  for (let at = 0; at < small.length; at++) {
    const damaged = Buffer.from(small);
    damaged[at] ^= 0x55;
    try {
      await readTexts(damaged);
    } catch (error) {
      assert.match(String(error), /it is not a PNG|ends early|is damaged/, `damaged at ${at}`);
      refused += 1;
    }
  }
  assert.ok(refused > 60, `${refused} of ${small.length}`);
  await assert.rejects(readTexts(Buffer.from("GIF89a")), /not a PNG/);
});
