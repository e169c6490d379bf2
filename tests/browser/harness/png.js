/** PNG files by the book, apart from the page's own reader: chunks with their checksums, and the texts among them. */
import { crc32 } from "node:zlib";

/** @param {Buffer} file @returns {{ type: string, data: Buffer }[]} */
export function chunksOf(file) {
  if (file.toString("latin1", 0, 8) !== "\x89PNG\r\n\x1a\n") throw new Error("no PNG");
  const chunks = [];
  for (let at = 8; at < file.length;) {
    const end = at + 8 + file.readUInt32BE(at);
    const type = file.toString("latin1", at + 4, at + 8);
    if (file.readUInt32BE(end) !== crc32(file.subarray(at + 4, end)))
      throw new Error(`the checksum of ${type} is wrong`);
    chunks.push({ type, data: file.subarray(at + 8, end) });
    at = end + 4;
  }
  return chunks;
}

/** The texts of a file by keyword. @param {Buffer} file */
export function textsOf(file) {
  /** @type {Record<string, string>} */
  const texts = {};
  for (const { type, data } of chunksOf(file)) {
    const end = data.indexOf(0);
    const keyword = data.toString("latin1", 0, end);
    if (type === "tEXt") texts[keyword] = data.toString("latin1", end + 1);
    // Uncompressed, without a language and a translated keyword: four zeros more.
    if (type === "iTXt") texts[keyword] = data.toString("utf8", end + 5);
  }
  return texts;
}

/** A file of chunks. @param {{ type: string, data: Buffer }[]} chunks */
export function pngOf(chunks) {
  const parts = [Buffer.from("\x89PNG\r\n\x1a\n", "latin1")];
  for (const { type, data } of chunks) {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const [length, checksum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    checksum.writeUInt32BE(crc32(body));
    parts.push(length, body, checksum);
  }
  return Buffer.concat(parts);
}
