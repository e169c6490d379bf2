// @ts-check
// PNG files without their transparency. Browsers keep a picture multiplied by its alpha, from which colours cannot be had back.
// Of an opaque PNG they give every colour as it is stored, on every machine and without a GPU.

/** Bytes of the signature; and of a chunk besides its data: length and type before it, checksum behind it. */
const [SIGNATURE, FRAME] = [8, 12];

/** Longest text that is read, in bytes. */
const MAX_TEXT = 1 << 20;

/** Where each pass of an interlaced picture begins, and how far its pixels lie apart: x, y, Δx, Δy. */
const PASSES = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
];

/** EXIF data that say how a picture is turned and nothing else, up to the number. */
const TURNED = [77, 77, 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0];

/** The most pixels that the largest canvas has. */
const MOST_PIXELS = 2 ** 28;

/**
 * Takes out of a PNG file all that would change its colours: the alpha channel, transparent colours, gamma and colour profile; and
 * of 16 bits the lower 8, which browsers round each in its own way.
 * @param {Blob} file
 * @returns {Promise<Blob>} the opaque PNG
 * @throws {Error} if it is damaged
 */
export async function opaquePng(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const view = new DataView(bytes.buffer);
  // What a picture needs besides header and pixels: its palette and its orientation. Neither gamma nor profile changes a colour.
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const kept = [];
  /** @type {Uint8Array<ArrayBuffer> | undefined} */
  let exif;
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const texts = [];
  /** @type {Uint8Array<ArrayBuffer>[]} */
  let pixels = [];
  for (let at = SIGNATURE, type = ""; type !== "IEND";) {
    const end = at + FRAME <= bytes.length ? at + FRAME + view.getUint32(at) : Infinity;
    if (end > bytes.length) throw new Error("the file ends early");
    type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (type === "PLTE") kept.push(bytes.subarray(at, end));
    if (type === "eXIf") exif ??= bytes.subarray(at + 8, end - 4);
    if (/TXt|tEXt/.test(type)) texts.push(bytes.subarray(at + 4, end - 4));
    if (type === "IDAT") pixels.push(bytes.subarray(at, end));
    at = end;
  }
  // The header is the first chunk, and always as long. It is the one that is written anew, so that nobody else checks it.
  const header = bytes.slice(SIGNATURE + 8, SIGNATURE + 8 + 13);
  const sum = checksum(bytes.subarray(SIGNATURE + 4, SIGNATURE + 8 + 13));
  if (sum !== view.getUint32(SIGNATURE + 8 + 13)) throw new Error("its header is damaged");
  const [depth, colour] = [header[8], header[9]];
  const hasAlpha = colour === 4 || colour === 6;
  if (hasAlpha || depth === 16) {
    const samples = (colour & 2 ? 3 : 1) + (hasAlpha ? 1 : 0);
    const data = new Blob(pixels.map((whole) => whole.subarray(8, -4)));
    pixels = [chunk("IDAT", await withoutBytes(data, header, samples, depth / 8, hasAlpha))];
    header[8] = 8;
    header[9] &= 2;
  }
  // It is looked for where Pillow does.
  const orientation =
    orientationOf(exif ?? hexadecimal(await textOf(texts, "Raw profile type exif"))) ??
    Number(/tiff:Orientation(?:="|>)(\d)/.exec(await textOf(texts, "XML:com.adobe.xmp"))?.[1] ?? 1);
  if (orientation > 1 && orientation < 9) {
    kept.push(chunk("eXIf", Uint8Array.from([...TURNED, orientation, ...Array(6).fill(0)])));
  }
  const signature = bytes.subarray(0, SIGNATURE);
  return new Blob([signature, chunk("IHDR", header), ...kept, ...pixels, chunk("IEND")]);
}

/**
 * The text by a keyword, as far as it is ASCII; empty where there is none.
 * @param {Uint8Array<ArrayBuffer>[]} texts chunks of all three kinds, from their types on
 * @param {string} keyword
 */
async function textOf(texts, keyword) {
  // Behind the keyword an `iTXt` says whether it is packed and how, its language, and its keyword in that.
  const start = new RegExp(
    `^(?:tEXt${keyword}\0|(z)TXt${keyword}\0\0|iTXt${keyword}\0(?:(\x01)|\0)\0[^\0]*\0[^\0]*\0)`,
  );
  for (const bytes of texts) {
    const [whole, z, i] = start.exec(latin1(bytes)) ?? [];
    if (!whole) continue;
    const text = bytes.subarray(whole.length);
    if (!z && !i) return latin1(text);
    const unpacked = new Uint8Array(MAX_TEXT);
    // One that fills it is longer than any that is read.
    return inflate(new Blob([text]), unpacked).then(
      () => "",
      () => latin1(unpacked),
    );
  }
  return "";
}

/** The bytes that stand as hexadecimal digits behind the first three lines of a text. @param {string} text */
function hexadecimal(text) {
  const digits = text
    .split("\n")
    .slice(3)
    .join("")
    .replace(/[^\da-f]/gi, "");
  return Uint8Array.from(digits.match(/../g) ?? [], (byte) => parseInt(byte, 16));
}

/**
 * The tag `Orientation` of the first directory of EXIF data, which is a TIFF file without a picture.
 * @param {Uint8Array<ArrayBuffer>} exif
 */
function orientationOf(exif) {
  const [start, prefix, isLittle] = /^(Exif\0\0)?(?:(II[*]\0)|MM\0[*])/.exec(latin1(exif)) ?? [];
  if (!start) return undefined;
  const number = (/** @type {number} */ at, /** @type {number} */ length) => {
    const from = at + (prefix ?? "").length;
    const bytes = [...exif.subarray(from, from + length)];
    return (isLittle ? bytes.reverse() : bytes).reduce((number, byte) => 256 * number + byte, 0);
  };
  const directory = number(4, 4);
  for (let left = number(directory, 2), at = directory + 2; left > 0 && at < exif.length; left--, at += 12) {
    // A byte, two or four, of which there is one.
    const length = [0, 1, 0, 2, 4][number(at + 2, 2)];
    if (number(at, 2) === 0x0112) return length && number(at + 4, 4) === 1 ? number(at + 8, length) : undefined;
  }
  return undefined;
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
function latin1(bytes) {
  return new TextDecoder("latin1").decode(bytes);
}

/**
 * The compressed rows with fewer bytes for each pixel. Nothing is decoded: a filter works on each byte of a pixel by itself, so
 * that bytes can be left out of filtered rows.
 * @param {Blob} compressed
 * @param {Uint8Array<ArrayBuffer>} header
 * @param {number} samples of a pixel
 * @param {number} size of a sample, of which the first byte stays
 * @param {boolean} hasAlpha whether the last sample goes
 */
async function withoutBytes(compressed, header, samples, size, hasAlpha) {
  const view = new DataView(header.buffer);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  if (width * height > MOST_PIXELS) throw new Error(`it has ${width}×${height} pixels, which are too many`);
  const rows = (header[12] ? PASSES : [[0, 0, 1, 1]]).flatMap(([x, y, dx, dy]) => {
    const [across, down] = [Math.ceil((width - x) / dx), Math.ceil((height - y) / dy)];
    return across > 0 && down > 0 ? Array(down).fill(across) : [];
  });
  const colours = samples - (hasAlpha ? 1 : 0);
  const long = new Uint8Array(rows.reduce((sum, across) => sum + 1 + across * samples * size, 0));
  await inflate(compressed, long);
  const short = new Uint8Array(rows.reduce((sum, across) => sum + 1 + across * colours, 0));
  let [from, to] = [0, 0];
  for (const across of rows) {
    short[to++] = long[from++];
    for (let column = 0; column < across; column++, from += samples * size) {
      for (let sample = 0; sample < colours; sample++) short[to++] = long[from + sample * size];
    }
  }
  const deflated = new Blob([short]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(deflated).arrayBuffer());
}

/**
 * Fills `bytes`; what would be too much is not even unpacked.
 * @param {Blob} compressed
 * @param {Uint8Array} bytes
 */
async function inflate(compressed, bytes) {
  const reader = compressed.stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  for (let at = 0; at < bytes.length;) {
    const { value } = await reader.read();
    if (!value) throw new Error("its pixels end early");
    bytes.set(value.subarray(0, bytes.length - at), at);
    at += value.length;
  }
  reader.cancel().catch(() => {});
}

/**
 * @param {string} type
 * @param {Uint8Array<ArrayBuffer>} [data]
 */
function chunk(type, data = new Uint8Array()) {
  const bytes = new Uint8Array(FRAME + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, checksum(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

/**
 * CRC-32.
 * @param {Uint8Array} bytes
 */
function checksum(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
