// @ts-check
// Text in PNG files: written into files of our own, read from files of anybody's.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Where the chunk after the header, which comes first and is always as long, begins. */
const AFTER_HEADER = 8 + 12 + 13;

/** Longest text that is read, in bytes, packed or not: nobody's settings are as long. */
const MAX_TEXT = 1 << 20;

/** How many letters are made of bytes at once. */
const AT_ONCE = 1 << 13;

/** The CRC-32 of each byte. */
const CHECKSUMS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  return crc;
});

/**
 * The file with texts by keyword: as `tEXt` where Latin-1 has all their letters, and otherwise as `iTXt`.
 * @param {Uint8Array} png a file as the browser makes it
 * @param {Record<string, string>} texts
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function withTexts(png, texts) {
  const chunks = Object.entries(texts).map(([keyword, text]) =>
    /^[\n\x20-\x7e\xa0-\xff]*$/.test(text)
      ? chunk("tEXt", latin1(`${keyword}\0${text}`))
      : // Neither compressed nor translated: both flags, language and translated keyword are empty.
        chunk("iTXt", concatenated([latin1(`${keyword}\0\0\0\0\0`), new TextEncoder().encode(text)])),
  );
  return concatenated([png.subarray(0, AFTER_HEADER), ...chunks, png.subarray(AFTER_HEADER)]);
}

/**
 * The texts of a file by keyword, of `tEXt`, `zTXt` and `iTXt` chunks. Those that are longer than a mebibyte, and those that break
 * the rules of their form, are passed over.
 * @param {Uint8Array} bytes
 * @returns {Promise<Map<string, string>>}
 * @throws {Error} where the file is no PNG or is damaged
 */
export async function readTexts(bytes) {
  if (!SIGNATURE.every((value, at) => bytes[at] === value)) throw new Error("it is not a PNG");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  /** @type {Map<string, string>} */
  const texts = new Map();
  for (let at = SIGNATURE.length; ;) {
    if (at + 12 > bytes.length) throw new Error("the file ends early");
    const length = view.getUint32(at);
    if (length > bytes.length - at - 12) throw new Error("the file ends early");
    const type = fromLatin1(bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (type === "IEND") return texts;
    const read = Object.hasOwn(READERS, type) ? READERS[type] : undefined;
    if (read && length <= MAX_TEXT) {
      if (view.getUint32(at + 8 + length) !== checksum(bytes.subarray(at + 4, at + 8 + length))) {
        throw new Error(`its ${type} chunk is damaged`);
      }
      const keyword = data.indexOf(0);
      const text = keyword < 0 ? undefined : await read(data.subarray(keyword + 1));
      if (text !== undefined) texts.set(fromLatin1(data.subarray(0, keyword)), text);
    }
    at += 12 + length;
  }
}

/**
 * How each kind of text is read, from what comes after its keyword and a zero.
 * @type {Record<string, (data: Uint8Array) => string | undefined | Promise<string | undefined>>}
 */
const READERS = {
  /** Latin-1. */
  tEXt: fromLatin1,
  /** How it is compressed, Latin-1. */
  async zTXt(data) {
    const text = data[0] === 0 ? await inflated(data.subarray(1)) : undefined;
    return text && fromLatin1(text);
  },
  /** Whether it is compressed and how, language, a zero, translated keyword, a zero, UTF-8. */
  async iTXt(data) {
    const language = data.indexOf(0, 2);
    const translated = data.indexOf(0, language + 1);
    if (language < 0 || translated < 0 || data[0] > 1 || data[1] !== 0) return undefined;
    const stored = data.subarray(translated + 1);
    const text = data[0] === 1 ? await inflated(stored) : stored;
    return text && new TextDecoder().decode(text);
  },
};

/**
 * What zlib has compressed; undefined where it has not, or where it is longer than a text may be.
 * @param {Uint8Array} data
 * @returns {Promise<Uint8Array<ArrayBuffer> | undefined>}
 */
async function inflated(data) {
  const stream = new Blob([new Uint8Array(data)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const reader = stream.getReader();
  /** @type {Uint8Array[]} */
  const parts = [];
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return concatenated(parts);
      parts.push(value);
      length += value.length;
      if (length > MAX_TEXT) {
        await reader.cancel();
        return undefined;
      }
    }
  } catch {
    return undefined;
  }
}

/**
 * @param {string} type
 * @param {Uint8Array} data
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
  let text = "";
  for (let at = 0; at < bytes.length; at += AT_ONCE) {
    text += String.fromCharCode(...bytes.subarray(at, at + AT_ONCE));
  }
  return text;
}

/**
 * CRC-32 as PNG and zlib have it.
 * @param {Uint8Array} bytes
 */
function checksum(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = (crc >>> 8) ^ CHECKSUMS[(crc ^ byte) & 0xff];
  return ~crc >>> 0;
}
