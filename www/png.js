// @ts-check
// Text in PNG files: written into files of our own, read from files of anybody's.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Where the chunk after the header, which comes first and is always as long, begins. */
const AFTER_HEADER = 8 + 12 + 13;

/**
 * The file with texts by keyword: as `tEXt` where Latin-1 has all their letters, and otherwise as `iTXt`.
 * @param {Uint8Array} png a file as the browser makes it
 * @param {Record<string, string>} texts
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function withTexts(png, texts) {
  const chunks = Object.entries(texts).map(([keyword, text]) =>
    /^[\n\x20-\x7e\xa0-\xff]*$/.test(text)
      ? chunk("tEXt", [...latin1(`${keyword}\0${text}`)])
      : // Neither compressed nor translated: both flags, language and translated keyword are empty.
        chunk("iTXt", [...latin1(`${keyword}\0\0\0\0\0`), ...new TextEncoder().encode(text)]),
  );
  return concatenated([png.subarray(0, AFTER_HEADER), ...chunks, png.subarray(AFTER_HEADER)]);
}

/**
 * The texts of a file by keyword; compressed ones, which no tool writes for what we look for, are passed over.
 * @param {Uint8Array} bytes
 * @returns {Map<string, string>}
 * @throws {Error} where the file is no PNG or is damaged
 */
export function readTexts(bytes) {
  if (!SIGNATURE.every((value, at) => bytes[at] === value)) throw new Error("it is not a PNG");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  /** @type {Map<string, string>} */
  const texts = new Map();
  for (let at = SIGNATURE.length; ;) {
    if (at + 12 > bytes.length) throw new Error("the file ends early");
    const length = view.getUint32(at);
    if (length > bytes.length - at - 12) throw new Error("the file ends early");
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (type === "IEND") return texts;
    if (type === "tEXt" || type === "iTXt") {
      if (view.getUint32(at + 8 + length) !== checksum(bytes.subarray(at + 4, at + 8 + length))) {
        throw new Error(`its ${type} chunk is damaged`);
      }
      const entry = type === "tEXt" ? readPlain(data) : readInternational(data);
      if (entry) texts.set(...entry);
    }
    at += 12 + length;
  }
}

/**
 * `tEXt`: keyword, a zero, Latin-1.
 * @param {Uint8Array} data
 * @returns {[string, string] | undefined}
 */
function readPlain(data) {
  const end = data.indexOf(0);
  return end < 0 ? undefined : [fromLatin1(data.subarray(0, end)), fromLatin1(data.subarray(end + 1))];
}

/**
 * `iTXt`: keyword, a zero, whether it is compressed and how, language, a zero, translated keyword, a zero, UTF-8.
 * @param {Uint8Array} data
 * @returns {[string, string] | undefined}
 */
function readInternational(data) {
  const keyword = data.indexOf(0);
  const language = data.indexOf(0, keyword + 3);
  const translated = data.indexOf(0, language + 1);
  if (keyword < 0 || language < 0 || translated < 0 || data[keyword + 1] !== 0) return undefined;
  return [fromLatin1(data.subarray(0, keyword)), new TextDecoder().decode(data.subarray(translated + 1))];
}

/**
 * @param {string} type
 * @param {number[]} data
 */
function chunk(type, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(latin1(type), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, checksum(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

/** @param {Uint8Array[]} parts */
function concatenated(parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** @param {string} text of letters that Latin-1 has */
function latin1(text) {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

/** @param {Uint8Array} bytes */
function fromLatin1(bytes) {
  // Not a TextDecoder: what the web calls latin1 is windows-1252.
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

/**
 * CRC-32 as PNG and zlib have it.
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
