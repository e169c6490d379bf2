/** Damage to safetensors files, for tests of what reads them. A file is: the header's length (u64, little endian), the JSON header, the tensors. */

/**
 * The file with another header.
 * @param {Buffer} file
 * @param {(header: Record<string, { dtype: string, shape: number[], data_offsets: [number, number] }>) => void} change
 */
export function withHeader(file, change) {
  const end = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, end));
  change(header);
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, file.subarray(end)]);
}

/**
 * The file with one tensor's axes in another order: the same bytes, a wrong shape.
 * @param {string} tensor
 */
export const withWrongShape = (tensor) => (/** @type {Buffer} */ file) =>
  withHeader(file, (header) => void header[tensor].shape.reverse());
