/** In place of kernels: what is done, and when. */
import { JOB_BYTES } from "../../../js/crew.js";

/** The most parts of a job here. */
export const PARTS = 64;

/** The job that traps. */
export const TRAP = 1000;

/**
 * Does a part by writing into `record` the position of it among all, for each job in a row of its own; the position is the first word.
 * @param {Int32Array<SharedArrayBuffer>} record
 * @returns {import("../../../js/crew.js").Run}
 */
export const recorder = (record) => (job, part) => {
  if (job / JOB_BYTES === TRAP) throw new WebAssembly.RuntimeError("unreachable");
  const index = 1 + (job / JOB_BYTES) * PARTS + part;
  // Long enough that other threads come in between.
  for (let wait = 0; wait < 300; wait++) Atomics.load(record, 0);
  const twice = Atomics.exchange(record, index, Atomics.add(record, 0, 1) + 1);
  if (twice !== 0) throw new Error(`part ${part} was done twice`);
};
