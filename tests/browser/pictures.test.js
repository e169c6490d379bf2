/**
 * The pixels that the package takes from pictures, against the values that were put into the files: every kind of transparency, depth,
 * interlacing, orientation and profile.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { deflateSync } from "node:zlib";
import { test } from "node:test";
import { browserTests, root } from "./harness/index.js";
import { pngOf } from "./harness/png.js";
import { opaquePng } from "../../js/opaque_png.js";

/** Odd sides, so that the passes of an interlaced picture have rows of every length. */
const [WIDTH, HEIGHT] = [21, 13];

const GREY = 0;
const RGB = 2;
const PALETTE = 3;
const GREY_ALPHA = 4;
const RGBA = 6;
const SAMPLES = { [GREY]: 1, [RGB]: 3, [PALETTE]: 1, [GREY_ALPHA]: 2, [RGBA]: 4 };

/** A sample of a pixel: any value, and of alpha often 0. @param {number} x @param {number} y @param {number} of */
const sample = (x, y, of) => (of === 3 && x < 7 ? 0 : (x * 2531 + y * 7919 + of * 104729 + x * y * 31) & 0xffff);

/** Rows with filters of every kind, one after the other. @param {number[][]} rows @param {number} pixel its bytes */
function filtered(rows, pixel) {
  return rows.flatMap((row, y) => {
    const above = rows[y - 1] ?? row.map(() => 0);
    const filter = y % 5;
    const predict = (/** @type {number} */ at) => {
      const [a, b, c] = [row[at - pixel] ?? 0, above[at], above[at - pixel] ?? 0];
      const [p, q, r] = [Math.abs(b - c), Math.abs(a - c), Math.abs(a + b - 2 * c)];
      return [0, a, b, (a + b) >> 1, p <= q && p <= r ? a : q <= r ? b : c][filter];
    };
    return [filter, ...row.map((value, at) => (value - predict(at)) & 255)];
  });
}

/**
 * A PNG of a kind and the colours that are stored in it.
 * @param {number} colour @param {number} depth
 * @param {{ interlaced?: boolean, transparent?: boolean, width?: number, height?: number, extra?: { type: string, data: Buffer }[] }} [more]
 */
function picture(colour, depth, more = {}) {
  const { interlaced = false, transparent = false, width = WIDTH, height = HEIGHT, extra = [] } = more;
  const count = /** @type {Record<number, number>} */ (SAMPLES)[colour];
  // The last sample of grey with alpha is alpha too.
  const of = (/** @type {number} */ index) => (colour === GREY_ALPHA && index === 1 ? 3 : index);
  const valueAt = (/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ index) =>
    colour === PALETTE ? (x + y) % 4 : sample(x, y, of(index)) >> (16 - depth);
  const passes = interlaced
    ? [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]] // prettier-ignore
    : [[0, 0, 1, 1]];
  const bytes = passes.flatMap(([x0, y0, dx, dy]) => {
    const rows = [];
    for (let y = y0; y < height && x0 < width; y += dy) {
      const row = [];
      for (let x = x0; x < width; x += dx) {
        for (let index = 0; index < count; index++) {
          const value = valueAt(x, y, index);
          row.push(...(depth === 16 ? [value >> 8, value & 255] : [value]));
        }
      }
      rows.push(row);
    }
    return filtered(rows, (count * depth) / 8);
  });
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([depth, colour, 0, 0, Number(interlaced)], 8);
  const palette = Buffer.from([250, 3, 77, 12, 200, 99, 1, 2, 255, 128, 64, 32]);
  const colourThat = (/** @type {number} */ index) =>
    Buffer.from([valueAt(0, 0, index) >> 8, valueAt(0, 0, index) & 255]);
  const trns =
    colour === PALETTE ? Buffer.from([0, 10, 128]) : Buffer.concat([0, 1, 2].slice(0, count).map(colourThat));
  const packed = deflateSync(Buffer.from(bytes));
  const file = pngOf([
    { type: "IHDR", data: header },
    ...extra,
    ...(colour === PALETTE ? [{ type: "PLTE", data: palette }] : []),
    ...(transparent ? [{ type: "tRNS", data: trns }] : []),
    // In two pieces, as long files come.
    { type: "IDAT", data: packed.subarray(0, 40) },
    { type: "IDAT", data: packed.subarray(40) },
    { type: "IEND", data: Buffer.alloc(0) },
  ]);
  const colours = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const values = [0, 1, 2].map((index) => valueAt(x, y, count >= 3 ? index : 0) >> (depth === 16 ? 8 : 0));
      colours.push(...(colour === PALETTE ? palette.subarray(3 * values[0], 3 * values[0] + 3) : values));
    }
  }
  return { file: [...file], width, height, colours };
}

/** What an orientation does to a picture: 6 is a quarter turn to the right. @param {ReturnType<typeof picture>} upright */
function turned({ file, width, height, colours }) {
  const pixel = (/** @type {number} */ x, /** @type {number} */ y) =>
    colours.slice(3 * (y * width + x), 3 * (y * width + x) + 3);
  const out = [];
  for (let y = 0; y < width; y++) for (let x = 0; x < height; x++) out.push(...pixel(y, height - 1 - x));
  return { file, width: height, height: width, colours: out };
}

/** Orientation 6 as EXIF has it, with the higher byte first and with the lower. */
const EXIF = Buffer.from("4d4d002a00000008000101120003000000010006000000000000", "hex");
const LITTLE_EXIF = Buffer.from("49492a0008000000010012010300010000000600000000000000", "hex");
const TURN = { type: "eXIf", data: EXIF };

/** EXIF data that say nothing of it. */
const SILENT = { type: "eXIf", data: Buffer.from("4d4d002a00000008000000000000", "hex") };

/** The text in which other tools write EXIF data. @param {Buffer} exif */
const raw = (exif) => {
  const digits = Buffer.concat([Buffer.from("Exif\0\0"), exif]).toString("hex");
  return `\nexif\n${String(exif.length + 6).padStart(8)}\n${digits.slice(0, 40)}\n${digits.slice(40)}\n`;
};
const RAW = "Raw profile type exif";
const XMP = "XML:com.adobe.xmp";
const XMP_TURN = '<x:xmpmeta é tiff:Orientation="6"/>';

/** Texts of each kind. @param {string} keyword @param {string} text @returns {{ type: string, data: Buffer }} */
const tEXt = (keyword, text) => ({ type: "tEXt", data: Buffer.from(`${keyword}\0${text}`, "latin1") });
/** @type {typeof tEXt} */
const zTXt = (keyword, text) => ({
  type: "zTXt",
  data: Buffer.concat([Buffer.from(`${keyword}\0\0`), deflateSync(text)]),
});
/** @type {typeof tEXt} */
const iTXt = (keyword, text) => ({ type: "iTXt", data: Buffer.from(`${keyword}\0\0\0en\0ä\0${text}`) });
/** @type {typeof tEXt} */
const packed = (keyword, text) => ({
  type: "iTXt",
  data: Buffer.concat([Buffer.from(`${keyword}\0\x01\0\0\0`), deflateSync(text)]),
});
const LINEAR = { type: "gAMA", data: Buffer.from([0, 1, 0x86, 0xa0]) };

const PICTURES = {
  "red, green, blue and alpha": picture(RGBA, 8),
  "grey and alpha": picture(GREY_ALPHA, 8),
  "red, green, blue and alpha in 16 bits": picture(RGBA, 16),
  "grey and alpha in 16 bits": picture(GREY_ALPHA, 16),
  "opaque in 16 bits": picture(RGB, 16),
  "grey in 16 bits": picture(GREY, 16),
  opaque: picture(RGB, 8),
  "a palette with transparent colours": picture(PALETTE, 8, { transparent: true }),
  "a transparent colour": picture(RGB, 8, { transparent: true }),
  "a transparent grey": picture(GREY, 8, { transparent: true }),
  "a transparent colour in 16 bits": picture(RGB, 16, { transparent: true }),
  "interlaced, with alpha": picture(RGBA, 8, { interlaced: true }),
  "interlaced, with alpha in 16 bits": picture(RGBA, 16, { interlaced: true }),
  "interlaced, grey and alpha": picture(GREY_ALPHA, 8, { interlaced: true }),
  "interlaced, two pixels": picture(RGBA, 8, { interlaced: true, width: 2, height: 1 }),
  "interlaced, one pixel": picture(GREY_ALPHA, 16, { interlaced: true, width: 1, height: 1 }),
  "with a gamma of 1": picture(RGB, 8, { extra: [LINEAR] }),
  "with alpha and a gamma of 1": picture(RGBA, 8, { extra: [LINEAR] }),
  "turned, opaque": turned(picture(RGB, 8, { extra: [TURN] })),
  "turned, with alpha": turned(picture(RGBA, 8, { extra: [TURN] })),
};

/** What says elsewhere that a picture is turned, or says it in vain: as `undiffuse` reads it too. */
const ORIENTED = {
  "EXIF of the other order": { extra: [{ type: "eXIf", data: LITTLE_EXIF }], isTurned: true },
  "EXIF in a text": { extra: [tEXt(RAW, raw(EXIF))], isTurned: true },
  "EXIF in a packed text": { extra: [zTXt(RAW, raw(LITTLE_EXIF))], isTurned: true },
  "EXIF in an international text": { extra: [iTXt(RAW, raw(EXIF))], isTurned: true },
  "XMP as an attribute": { extra: [iTXt(XMP, XMP_TURN)], isTurned: true },
  "XMP as an element, packed": {
    extra: [packed(XMP, "<tiff:Orientation>6</tiff:Orientation>")],
    isTurned: true,
  },
  "XMP beside EXIF that says nothing": { extra: [SILENT, iTXt(XMP, XMP_TURN)], isTurned: true },
  "EXIF that goes before XMP": { extra: [iTXt(XMP, XMP_TURN.replace("6", "1")), TURN], isTurned: true },
  "another text": { extra: [tEXt("Comment", raw(EXIF)), tEXt("Comment", XMP_TURN)], isTurned: false },
  "a number that there is not": { extra: [iTXt(XMP, XMP_TURN.replace("6", "9"))], isTurned: false },
  "EXIF that ends early": { extra: [{ type: "eXIf", data: EXIF.subarray(0, 17) }], isTurned: false },
  "a text that is not packed as it says": {
    extra: [{ ...tEXt(RAW, `\0${raw(EXIF)}`), type: "zTXt" }],
    isTurned: false,
  },
  "a text that is too long": { extra: [zTXt(XMP, " ".repeat(1 << 20) + XMP_TURN)], isTurned: false },
};

/** Files that Pillow has written: of one row, the first with `lossless=True, exact=True`. */
const WEBP = "UklGRjwAAABXRUJQVlA4TDAAAAAvAwAAEB8gFEBu/jQJRJWIkDaR758Vz4QCyE4govwNchHIJjtN/oQF+BL5ockR/Q8=";
const WEBP_COLOURS = [250, 3, 77, 1, 200, 99, 7, 8, 9, 255, 128, 64];
/** The same with EXIF, which turns it; and two colours, one of them transparent. */
const WEBP_TURNED =
  "UklGRnAAAABXRUJQVlA4WAoAAAAYAAAAAwAAAAAAVlA4TDAAAAAvAwAAEB8gFEBu/jQJRJWIkDaR758Vz4QCyE4govwNchHIJjtN/oQF+BL5ockR/Q9FWElGGgAAAE1NACoAAAAIAAEBEgADAAAAAQADAAAAAAAA";
const GIF = "R0lGODlhAgABAIEAAPoDTQzIYwAAAAAAACH5BAEAAAEALAAAAAACAAEAAAgFAAEECAgAOw==";

const browserTest = browserTests({
  graphics: "no-adapter",
  mounts: { "/": join(root, "pkg"), "/page/": join(root, "tests/npm/plain") },
});
const glTest = browserTests({
  graphics: "webgpu",
  mounts: { "/": join(root, "pkg"), "/page/": join(root, "tests/browser/webgpu") },
});

/** @param {import('playwright-core').Page} page @param {import("./harness/index.js").Site} site */
async function open(page, site) {
  await page.goto(site.url("/page/"));
  await page.evaluate(async () => {
    const { pixelsOf } = await import(/** @type {any} */ ("/picture.js"));
    const form = async (/** @type {Blob} */ blob, /** @type {string} */ as) => {
      if (as === "Blob") return blob;
      const url = URL.createObjectURL(blob);
      if (as === "URL") return url;
      const image = new Image();
      image.src = url;
      await image.decode();
      return image;
    };
    Object.assign(window, {
      pixels: async (/** @type {number[]} */ file, as = "Blob") => {
        const blob = new Blob([Uint8Array.from(file)]);
        const { width, height, data } = await pixelsOf(await form(blob, as), "image");
        const colours = [...data].filter((_, at) => at % 4 < 3);
        return {
          width,
          height,
          colours,
          opaque: data.every((/** @type {number} */ value, /** @type {number} */ at) => at % 4 < 3 || value === 255),
        };
      },
    });
  });
}

browserTest(
  "the colours of every kind of PNG are those that are stored, to the last level",
  async ({ page, site, expectError }) => {
    expectError(/404/);
    await open(page, site);
    for (const [name, { file, ...expected }] of Object.entries(PICTURES)) {
      for (const as of ["Blob", "URL", "image"]) {
        const pixels = await page.evaluate(
          ([file, as]) => /** @type {any} */ (window).pixels(file, as),
          /** @type {const} */ ([file, as]),
        );
        // Browsers round the lower bits of what they show, each in its own way.
        const most = as === "image" && name.includes("16 bits") ? 1 : 0;
        const isNear = pixels.colours.every(
          (/** @type {number} */ level, /** @type {number} */ at) => Math.abs(level - expected.colours[at]) <= most,
        );
        const colours = isNear ? expected.colours : pixels.colours;
        assert.deepEqual({ ...pixels, colours }, { ...expected, opaque: true }, `${name}, as ${as}`);
      }
    }
  },
);

browserTest("a PNG is turned wherever it says that it is", async ({ page, site, expectError }) => {
  expectError(/404/);
  await open(page, site);
  for (const [name, { extra, isTurned }] of Object.entries(ORIENTED)) {
    for (const colour of [RGB, RGBA]) {
      const upright = picture(colour, 8, { extra });
      const { file, ...expected } = isTurned ? turned(upright) : upright;
      const pixels = await page.evaluate((file) => /** @type {any} */ (window).pixels(file), file);
      assert.deepEqual(pixels, { ...expected, opaque: true }, `${name}, of kind ${colour}`);
    }
  }
});

browserTest(
  "an image element is the picture that is shown, and only a transparent one is asked for again",
  async ({ page, site, expectError }) => {
    expectError(/404/);
    await open(page, site);
    const shown = picture(RGB, 8);
    const later = picture(RGB, 8, { width: 3, height: 2 });
    let requests = 0;
    await page.route("**/changing.png", (route) => {
      requests += 1;
      const body = Buffer.from(requests === 1 ? shown.file : later.file);
      return route.fulfill({ body, headers: { "content-type": "image/png", "cache-control": "no-store" } });
    });
    const colours = await page.evaluate(async () => {
      const { pixelsOf } = await import(/** @type {any} */ ("/picture.js"));
      const image = new Image();
      image.src = "/changing.png";
      await image.decode();
      const { data } = await pixelsOf(image, "image");
      return [...data].filter((_, at) => at % 4 < 3);
    });
    assert.deepEqual(colours, shown.colours);
    assert.equal(requests, 1);
  },
);

glTest(
  "a transparent WebP gives its colours by WebGL, and what no browser can tell is refused",
  async ({ page, site, expectError }) => {
    expectError(/404/);
    await open(page, site);
    const pixels = (/** @type {string} */ base64, as = "Blob") =>
      page.evaluate(
        ([file, as]) =>
          /** @type {any} */ (window)
            .pixels(file, as)
            .catch((/** @type {any} */ error) => `${error.code}: ${error.message}`),
        /** @type {const} */ ([[...Buffer.from(base64, "base64")], as]),
      );
    for (let times = 0; times < 20; times++) assert.deepEqual((await pixels(WEBP)).colours, WEBP_COLOURS);
    assert.deepEqual((await pixels(WEBP, "image")).colours, WEBP_COLOURS);
    for (const file of [GIF, WEBP_TURNED]) {
      assert.match(await pixels(file), /^invalid-option: image could not be read as a picture: .* save it as PNG/);
    }
  },
);

browserTest(
  "a transparent WebP is refused where there is no WebGL, and no picture is named as what it is",
  async ({ page, site, expectError }) => {
    expectError(/404|WebGL/);
    await open(page, site);
    const message = (/** @type {Buffer} */ file) =>
      page.evaluate(
        (file) =>
          /** @type {any} */ (window).pixels(file).then(
            () => "none",
            (/** @type {Error} */ error) => error.message,
          ),
        [...file],
      );
    assert.match(await message(Buffer.from(WEBP, "base64")), /save it as PNG/);
    const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    assert.match(
      await message(Buffer.from(pointer)),
      /image could not be read as a picture: it is a pointer of git-lfs/,
    );
    const file = Buffer.from(PICTURES["red, green, blue and alpha"].file);
    for (const length of [3, 20, 33, 60, file.length - 20, file.length - 1]) {
      assert.match(
        await message(file.subarray(0, length)),
        /image could not be read as a picture: /,
        `cut at ${length}`,
      );
    }
    for (const kind of ["opaque", "red, green, blue and alpha"]) {
      for (const at of [19, 60]) {
        const damaged = Buffer.from(PICTURES[/** @type {"opaque"} */ (kind)].file);
        damaged[at] ^= 0x55;
        assert.match(await message(damaged), /image could not be read as a picture: /, `${kind}, damaged at ${at}`);
      }
    }
  },
);

test("what a PNG unpacks to is no more than its pixels", async () => {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(2, 0);
  header.writeUInt32BE(1, 4);
  header.set([8, RGBA, 0, 0, 0], 8);
  const data = deflateSync(Buffer.alloc(1 << 24, 1));
  const bomb = pngOf([
    { type: "IHDR", data: header },
    { type: "IDAT", data },
    { type: "IEND", data: Buffer.alloc(0) },
  ]);
  const opaque = await opaquePng(new Blob([bomb]));
  assert.ok(opaque && opaque.size < 100, `${opaque?.size} bytes`);
  header.writeUInt32BE(65535, 0);
  header.writeUInt32BE(65535, 4);
  const large = pngOf([
    { type: "IHDR", data: header },
    { type: "IDAT", data },
    { type: "IEND", data: Buffer.alloc(0) },
  ]);
  await assert.rejects(opaquePng(new Blob([large])), /65535×65535 pixels, which are too many/);
});
