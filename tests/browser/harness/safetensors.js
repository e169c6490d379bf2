/** Safetensors files: read, and damaged on purpose. A file is: the header's length (u64, little endian), the JSON header, the tensors. */

/** @typedef {{ shape: number[], data: number[] }} Tensor */

/**
 * How the bytes of each type are read.
 * @type {Record<string, (bytes: ArrayBuffer) => number[]>}
 */
const NUMBERS = {
  F64: (bytes) => [...new Float64Array(bytes)],
  F32: (bytes) => [...new Float32Array(bytes)],
  I32: (bytes) => [...new Int32Array(bytes)],
  I64: (bytes) => [...new BigInt64Array(bytes)].map(Number),
};

/**
 * All tensors of a file.
 * @param {Buffer} file
 * @returns {Record<string, Tensor>}
 */
export function readTensors(file) {
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, start));
  delete header.__metadata__;
  return Object.fromEntries(
    Object.entries(header).map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [from, to],
        },
      ]) => {
        if (!(dtype in NUMBERS)) throw new Error(`tensor ${name} is of type ${dtype}`);
        const bytes = Uint8Array.from(file.subarray(start + from, start + to));
        return [name, { shape, data: NUMBERS[dtype](bytes.buffer) }];
      },
    ),
  );
}

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
