// @ts-check
// How threads share the work of one batch of jobs. Every thread, the one that asks for the work among them, runs the same loop:
// it takes the next part that nobody has taken, does it, and counts it as done. No thread is waited for that has not taken
// a part, so that workers may come late, or never.
//
// Parts are numbered through the batch. A part may be taken once all parts of the jobs before its own are done. When the time of the
// thread that leads is over it takes all that are left at once and does none of them: what was taken before is still done.

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

/** How often, in seconds, a thread that is in the middle of a part is waited for before it is given up: no part takes so long. */
const PATIENCE = 15;

/** A state in which nothing is to do. */
export function emptyState() {
  const words = new SharedArrayBuffer(4 * (STARTS + BATCH_LIMIT + 1));
  return new Int32Array(words);
}

/**
 * A batch of jobs: its number, another one than of the batch before, and not 0; the address of the first job; the parts of each; how
 * many parts of the first are done; and the moment, of `performance.now()`, at which to stop.
 * @typedef {{ batch: number, address: number, parts: Uint32Array, done: number, until: number }} Batch
 */

/**
 * Does a batch of jobs with all workers that there are, to its end or until its time is over; nobody is at work on it then.
 * @param {Int32Array<SharedArrayBuffer>} state
 * @param {Batch} batch
 * @param {Run} run
 * @param {number} patience seconds without any progress after which a worker counts as dead
 * @returns {number} how many parts are done, those that were done before among them
 */
export function lead(state, { batch, address, parts, done, until }, run, patience = PATIENCE) {
  let total = 0;
  parts.forEach((count, job) => {
    state[STARTS + job] = total;
    total += count;
  });
  state[STARTS + parts.length] = total;
  state[COUNT] = parts.length;
  state[JOBS] = address;
  state[FAILED] = 0;
  state[NEXT] = state[DONE] = done;
  Atomics.store(state, OPEN, batch);
  Atomics.notify(state, OPEN);
  work(state, run, until, patience);
  const taken = Math.min(Atomics.exchange(state, NEXT, total), total);
  waitUntil(state, DONE, (count) => count >= taken, patience);
  // The next batch may be written once nobody can be reading this one.
  Atomics.store(state, OPEN, 0);
  waitUntil(state, ACTIVE, (count) => count === 0, patience);
  if (state[FAILED] !== 0) throw new WebAssembly.RuntimeError("a kernel trapped");
  return taken;
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
      sleepWhile(state, OPEN, batch, Infinity);
      continue;
    }
    Atomics.add(state, ACTIVE, 1);
    // The batch may have ended meanwhile. If not, it cannot before this thread has left it.
    if (Atomics.load(state, OPEN) === batch) work(state, run, Infinity, Infinity);
    Atomics.sub(state, ACTIVE, 1);
    Atomics.notify(state, ACTIVE);
    last = batch;
  }
}

/**
 * Takes parts and does them until all are taken or a moment has come.
 * @param {Int32Array<SharedArrayBuffer>} state
 * @param {Run} run
 * @param {number} until the moment
 * @param {number} patience as of {@link lead}
 */
function work(state, run, until, patience) {
  const count = state[COUNT];
  const address = state[JOBS];
  const total = state[STARTS + count];
  for (let job = 0; ;) {
    const part = Atomics.load(state, NEXT);
    while (job < count && part >= state[STARTS + job + 1]) job++;
    if (job === count) return;
    const start = state[STARTS + job];
    if (Atomics.load(state, DONE) < start) waitUntil(state, DONE, (done) => done >= start, patience);
    else if (Atomics.compareExchange(state, NEXT, part, part + 1) === part) {
      try {
        run(address + job * JOB_BYTES, part - start);
      } catch {
        Atomics.store(state, FAILED, 1);
      }
      const done = Atomics.add(state, DONE, 1) + 1;
      // Others wait for the end of a job, and the thread that leads for the last part that was taken.
      if (done === state[STARTS + job + 1] || Atomics.load(state, NEXT) === total) Atomics.notify(state, DONE);
      if (performance.now() >= until) return;
    }
  }
}

/**
 * Returns when a word is as it should be, which others make it.
 * @param {Int32Array<SharedArrayBuffer>} state
 * @param {number} word
 * @param {(value: number) => boolean} isReached
 * @param {number} patience seconds without a change after which nobody will
 */
function waitUntil(state, word, isReached, patience) {
  for (let value, idle = 0, last = -1; !isReached((value = Atomics.load(state, word))); last = value) {
    idle = value === last ? idle + 1 : 0;
    if (idle > patience) throw new Error("a thread ended in the middle of its work");
    // Second by second: a machine that was suspended meanwhile has lost one of them at most.
    sleepWhile(state, word, value, 1000);
  }
}

/**
 * Returns when a word is no longer what it was, when so many milliseconds are over, or at times before that.
 * @param {Int32Array<SharedArrayBuffer>} state
 * @param {number} word
 * @param {number} value
 * @param {number} milliseconds
 */
function sleepWhile(state, word, value, milliseconds) {
  for (let spin = 0; spin < SPINS; spin++) if (Atomics.load(state, word) !== value) return;
  Atomics.wait(state, word, value, milliseconds);
}
