// @ts-check
// How threads share the work of one batch of jobs. Every thread, the one that asks for the work among them, runs the same loop:
// it takes the next part that nobody has taken, does it, and counts it as done. No thread is waited for that has not taken
// a part, so that workers may come late, or never.
//
// Parts are numbered through the batch. A part may be taken once all parts of the jobs before its own are done.

/**
 * What all threads of a crew have.
 * @typedef {{ module: WebAssembly.Module, memory: WebAssembly.Memory, state: Int32Array<SharedArrayBuffer> }} Shared
 */

/** Does one part of the job at an address. @typedef {(job: number, part: number) => void} Run */

/** Bytes of a job: `Job` of the kernels, 32 words. */
export const JOB_BYTES = 128;

/** The most jobs in one batch. */
export const BATCH_LIMIT = 4096;

// The words of the state. Those that threads write at the same time lie in cache lines of their own.
/** The number of the batch that is being worked on, or 0. */
const OPEN = 0;
/** Workers that are at work in it. */
const ACTIVE = 16;
/** The next part to be taken. */
const NEXT = 32;
/** Parts that are done. */
const DONE = 48;
/** Whether a part trapped. */
const FAILED = 64;
/** Jobs in the batch. */
const COUNT = 65;
/** The address of the first; the others follow it. */
const JOBS = 66;
/** The number of the first part of each job; behind the last, the number of all parts. */
const STARTS = 80;

/**
 * How often a thread looks again before it goes to sleep: about as long as waking it takes, some 50 µs. Jobs follow each other
 * faster than that; steps do not, so that workers sleep between them.
 */
const SPINS = 20_000;

/** A state in which nothing is to do. */
export function emptyState() {
  const words = new SharedArrayBuffer(4 * (STARTS + BATCH_LIMIT + 1));
  return new Int32Array(words);
}

/**
 * Does a batch of jobs with all workers that there are; returns when every part is done.
 * @param {Int32Array<SharedArrayBuffer>} state
 * @param {number} batch its number, another one than of the batch before, and not 0
 * @param {number} address of the first job
 * @param {Uint32Array} parts of each job
 * @param {Run} run
 */
export function lead(state, batch, address, parts, run) {
  let total = 0;
  parts.forEach((count, job) => {
    state[STARTS + job] = total;
    total += count;
  });
  state[STARTS + parts.length] = total;
  state[COUNT] = parts.length;
  state[JOBS] = address;
  state[NEXT] = state[DONE] = state[FAILED] = 0;
  Atomics.store(state, OPEN, batch);
  Atomics.notify(state, OPEN);
  work(state, run);
  for (let done; (done = Atomics.load(state, DONE)) < total;) waitWhile(state, DONE, done);
  // The next batch may be written once nobody can be reading this one.
  Atomics.store(state, OPEN, 0);
  for (let active; (active = Atomics.load(state, ACTIVE)) > 0;) waitWhile(state, ACTIVE, active);
  if (state[FAILED] !== 0) throw new WebAssembly.RuntimeError("a kernel trapped");
}

/**
 * Helps with every batch, for ever.
 * @param {Int32Array<SharedArrayBuffer>} state
 * @param {Run} run
 */
export function follow(state, run) {
  for (let last = 0; ;) {
    const batch = Atomics.load(state, OPEN);
    if (batch === 0 || batch === last) {
      waitWhile(state, OPEN, batch);
      continue;
    }
    Atomics.add(state, ACTIVE, 1);
    // The batch may have ended meanwhile. If not, it cannot before this thread has left it.
    if (Atomics.load(state, OPEN) === batch) work(state, run);
    Atomics.sub(state, ACTIVE, 1);
    Atomics.notify(state, ACTIVE);
    last = batch;
  }
}

/**
 * Takes parts and does them until all are taken.
 * @param {Int32Array<SharedArrayBuffer>} state
 * @param {Run} run
 */
function work(state, run) {
  const count = state[COUNT];
  const address = state[JOBS];
  for (let job = 0; ;) {
    const part = Atomics.load(state, NEXT);
    while (job < count && part >= state[STARTS + job + 1]) job++;
    if (job === count) return;
    const start = state[STARTS + job];
    const done = Atomics.load(state, DONE);
    if (done < start) waitWhile(state, DONE, done);
    else if (Atomics.compareExchange(state, NEXT, part, part + 1) === part) {
      try {
        run(address + job * JOB_BYTES, part - start);
      } catch {
        Atomics.store(state, FAILED, 1);
      }
      if (Atomics.add(state, DONE, 1) + 1 === state[STARTS + job + 1]) Atomics.notify(state, DONE);
    }
  }
}

/**
 * Returns when a word is no longer what it was, or at times before that.
 * @param {Int32Array<SharedArrayBuffer>} state
 * @param {number} word
 * @param {number} value
 */
function waitWhile(state, word, value) {
  for (let spin = 0; spin < SPINS; spin++) if (Atomics.load(state, word) !== value) return;
  Atomics.wait(state, word, value);
}
