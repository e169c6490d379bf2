/** Texts in PNG files, as the page writes and reads them, held against a parser of the tests' own. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { readTexts, withTexts } from "../../www/png.js";
import { chunksOf, pngOf, textsOf } from "./harness/png.js";
import { root } from "./harness/index.js";

const isText = (/** @type {{ type: string }} */ { type }) => type === "tEXt" || type === "iTXt";
const PLAIN = await readFile(join(root, "docs/images/page.png"));

test("texts are written by the book, before the pixels, and nothing else changes", () => {
  const texts = { parameters: "a fox,\nétude — 狐 🦊", undiffuse: "plain: äöü" };
  const file = Buffer.from(withTexts(PLAIN, texts));
  assert.deepEqual(textsOf(file), { ...textsOf(PLAIN), ...texts });
  const types = chunksOf(file).map(({ type }) => type);
  assert.deepEqual(types.slice(0, 3), ["IHDR", "iTXt", "tEXt"]);
  assert.deepEqual(
    chunksOf(file).filter((chunk) => !isText(chunk)),
    chunksOf(PLAIN).filter((chunk) => !isText(chunk)),
  );
  assert.deepEqual(Object.fromEntries(readTexts(file)), textsOf(file));
});

test("texts of every form are read, and what cannot be is passed over", () => {
  const [header, ...rest] = chunksOf(PLAIN).filter((chunk) => !isText(chunk));
  const chunk = (/** @type {string} */ type, /** @type {string} */ text) => ({ type, data: Buffer.from(text) });
  const file = pngOf([
    header,
    chunk("iTXt", "named\0\0\0de\0benannt\0wörtlich"),
    chunk("iTXt", "compressed\0\x01\0\0\0\x78\x9c"),
    chunk("iTXt", "cut short\0\0"),
    chunk("tEXt", "without an end"),
    chunk("tEXt", "empty\0"),
    chunk("tEXt", ""),
    ...rest,
  ]);
  assert.deepEqual(
    [...readTexts(file)],
    [
      ["named", "wörtlich"],
      ["empty", ""],
    ],
  );
});

test("a damaged file is refused in words, wherever it is damaged", () => {
  const small = pngOf([
    ...chunksOf(Buffer.from(withTexts(PLAIN, { parameters: "a fox", undiffuse: "{}" }))).slice(0, 3),
    { type: "IEND", data: Buffer.alloc(0) },
  ]);
  for (let length = 0; length < small.length; length++) {
    assert.throws(
      () => readTexts(small.subarray(0, length)),
      /it is not a PNG|ends early/,
      `cut after ${length} bytes`,
    );
  }
  let refused = 0;
  for (let at = 0; at < small.length; at++) {
    const damaged = Buffer.from(small);
    damaged[at] ^= 0x55;
    try {
      readTexts(damaged);
    } catch (error) {
      assert.match(String(error), /it is not a PNG|ends early|is damaged/, `damaged at ${at}`);
      refused += 1;
    }
  }
  assert.ok(refused > 60, `${refused} of ${small.length}`);
  assert.throws(() => readTexts(Buffer.from("GIF89a")), /not a PNG/);
});
