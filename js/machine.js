// @ts-check
// The CPU as the WebAssembly side sees it: memory apart from its own, and jobs that are done there, by one thread or several.

import { BATCH_LIMIT, JOB_BYTES, emptyState, lead } from "./crew.js";
import { DeviceError, throwIfAborted } from "./errors.js";
import { Heap } from "./heap.js";
import { instantiate, kernelsUrl } from "./kernels_module.js";
import { compile } from "./wasm.js";

/** @import { CpuOptions } from "./index.d.ts" */
/** @import { Run } from "./crew.js" */

const PAGE = 1 << 16;
/** Pages that the modules ask for: their constants and their stack are in them. */
const FIRST_PAGES = 16;
/** Pages that a module's memory can have: 4 GiB. */
const MOST_PAGES = 1 << 16;
/** What a browser that will not promise all of that to a shared memory is asked for in the end: 256 MiB. */
const LEAST_PAGES = 1 << 12;
/** Bytes of a worker's stack: kernels keep little there. */
const STACK = 1 << 16;
/** More threads than this find too little to do in the layers of a small network. */
const USUAL_THREADS = 8;
/** Workers that have not begun by then are not waited for. */
const START_MS = 10_000;

/**
 * How long the thread is kept from whoever else waits for it: on a page's own it would not scroll, in a worker it would not hear of
 * an abort.
 */
const SLICE_MS = typeof document === "undefined" ? 50 : 12;

/** The position of `parts` in a job, in words. */
const PARTS = 1;
const JOB_WORDS = JOB_BYTES / 4;

export class Machine {
  #heap;
  #run;
  /** Where the jobs of a batch are put. */
  #jobs;
  /** Threads besides this one. @type {Worker[]} */
  #workers = [];
  /** What they share. @type {Int32Array<SharedArrayBuffer> | undefined} */
  #state;
  #batch = 0;
  #isClosed = false;
  /** When others are to have their turn on this thread. */
  #pauseAt = 0;
  /** Of the request that is being worked on: what it computes is wanted until then. @type {AbortSignal | undefined} */
  signal;
  /** How many threads there are. Workers are counted as they begin. */
  threads = 1;
  /** Settles once every worker has begun or is known not to, or has had the time for it. @type {Promise<unknown>} */
  ready = Promise.resolve();

  /**
   * Fetches the kernels and starts them; threads follow.
   * @param {CpuOptions} options
   * @param {AbortSignal} signal
   */
  static async open({ threads = usualThreads(), simd = "auto" }, signal) {
    const memory = canShare() && threads > 1 ? sharedMemory() : undefined;
    const module = await compile(kernelsUrl(simd, memory !== undefined));
    throwIfAborted(signal);
    const machine = new Machine(
      module,
      memory ?? new WebAssembly.Memory({ initial: FIRST_PAGES, maximum: MOST_PAGES }),
    );
    machine.signal = signal;
    if (memory) machine.ready = Promise.race([machine.#hire(threads - 1, module), sleep(START_MS)]);
    return machine;
  }

  /**
   * @param {WebAssembly.Module} module
   * @param {WebAssembly.Memory} memory
   */
  constructor(module, memory) {
    /** @readonly */
    this.memory = memory;
    const { run, heapBase } = instantiate(module, memory);
    /** @type {Run} */
    this.#run = run;
    this.#heap = new Heap(heapBase, memory.buffer.byteLength, (bytes) => {
      const pages = Math.ceil(bytes / PAGE);
      try {
        memory.grow(pages);
      } catch {
        return 0;
      }
      return pages * PAGE;
    });
    // Once, for the largest batch: where memory runs out, it is not in the middle of a run.
    this.#jobs = this.allocate(BATCH_LIMIT * JOB_BYTES);
    if (this.#jobs === 0) throw new DeviceError("out-of-memory", "There is no memory for the CPU's kernels.");
  }

  /**
   * The address of a region; 0 if there is no memory for it.
   * @param {number} bytes
   */
  allocate(bytes) {
    return this.#heap.allocate(bytes) ?? 0;
  }

  /** @param {number} address */
  free(address) {
    this.#heap.free(address);
  }

  /**
   * @param {number} address
   * @param {Uint8Array} bytes
   */
  write(address, bytes) {
    this.#bytes(address, bytes.length).set(bytes);
  }

  /**
   * Fills `bytes` from the memory.
   * @param {number} address
   * @param {Uint8Array} bytes
   */
  read(address, bytes) {
    bytes.set(this.#bytes(address, bytes.length));
  }

  /**
   * Goes on with jobs, one after the other, for as long as a slice of time takes.
   * @param {Uint8Array} jobs any number of `Job`s
   * @param {number} done how many of their parts are done, counted through all
   * @returns {number} how many are done then
   */
  run(jobs, done) {
    const until = performance.now() + SLICE_MS;
    const words = new Uint32Array(jobs.buffer, jobs.byteOffset, jobs.length / 4);
    let [word, part] = [PARTS, done];
    for (; word < words.length && part >= words[word]; word += JOB_WORDS) part -= words[word];
    const first = (word - PARTS) / JOB_WORDS;
    const batch = jobs.subarray(first * JOB_BYTES, (first + BATCH_LIMIT) * JOB_BYTES);
    const parts = new Uint32Array(batch.length / JOB_BYTES);
    for (let job = 0; job < parts.length; job++) parts[job] = words[(first + job) * JOB_WORDS + PARTS];
    this.write(this.#jobs, batch);
    return done - part + this.#work(parts, part, until);
  }

  /**
   * Gives whoever else waits for this thread a turn, if it is due.
   * @returns {Promise<boolean> | undefined} whether what is being computed is still wanted; undefined if it is not due
   */
  pause() {
    if (performance.now() < this.#pauseAt) return undefined;
    return turn().then(() => {
      this.#pauseAt = performance.now() + SLICE_MS;
      return !this.signal?.aborted;
    });
  }

  /** Ends the threads. The memory goes with the last reference to this. */
  close() {
    this.#isClosed = true;
    this.#dismiss();
  }

  /**
   * Does the batch of jobs that was written, until it is done or a moment has come.
   * @param {Uint32Array} parts of each job
   * @param {number} done how many parts of the first are done
   * @param {number} until the moment
   * @returns {number} how many parts are done, counted through the batch
   */
  #work(parts, done, until) {
    const address = this.#jobs;
    if (this.#state && this.threads > 1) {
      this.#batch = (this.#batch % 0x7fffffff) + 1;
      try {
        return lead(this.#state, { batch: this.#batch, address, parts, done, until }, this.#run);
      } catch (error) {
        // Whatever a thread is still writing, nothing is computed with. A single thread is enough for what is asked next.
        this.#dismiss();
        throw error;
      }
    }
    for (let job = 0, start = 0; job < parts.length; start += parts[job++]) {
      while (done < start + parts[job]) {
        this.#run(address + job * JOB_BYTES, done++ - start);
        if (performance.now() >= until) return done;
      }
    }
    return done;
  }

  #dismiss() {
    for (const worker of this.#workers) worker.terminate();
    this.#workers = [];
    this.#state = undefined;
    this.threads = 1;
  }

  /**
   * Starts workers. Where one cannot be, there is one thread less.
   * @param {number} count
   * @param {WebAssembly.Module} module
   */
  async #hire(count, module) {
    this.#state = emptyState();
    const shared = { module, memory: this.memory, state: this.#state };
    const started = await Promise.allSettled(
      Array.from({ length: count }, async () => {
        const stack = this.allocate(STACK);
        if (stack === 0) throw new Error("there is no memory for its stack");
        // Bundlers look for exactly this expression.
        const worker = new Worker(new URL("./kernels_worker.js", import.meta.url), { type: "module" });
        this.#workers.push(worker);
        worker.postMessage({ ...shared, stack: stack + STACK });
        await beginning(worker);
        this.threads += 1;
      }),
    );
    const failure = started.find((outcome) => outcome.status === "rejected");
    if (failure && !this.#isClosed) {
      console.warn(
        `undiffuse: ${this.threads} of ${count + 1} threads, because a worker could not be started: ${failure.reason.message}`,
      );
    }
  }

  /**
   * A view of the memory, good until it grows.
   * @param {number} address
   * @param {number} length
   */
  #bytes(address, length) {
    return new Uint8Array(this.memory.buffer, address, length);
  }
}

/**
 * Whether threads can share a memory here, and this one may wait for them: a page's own thread may not.
 */
function canShare() {
  return globalThis.crossOriginIsolated === true && typeof document === "undefined" && typeof Worker === "function";
}

function usualThreads() {
  return Math.min(navigator.hardwareConcurrency ?? 1, USUAL_THREADS);
}

/** As large a shared memory as the browser promises, because its end has to be known in advance; undefined if it gives none. */
function sharedMemory() {
  for (let maximum = MOST_PAGES; maximum >= LEAST_PAGES; maximum /= 2) {
    try {
      return new WebAssembly.Memory({ initial: FIRST_PAGES, maximum, shared: true });
    } catch {
      // Half of it, then.
    }
  }
  return undefined;
}

/**
 * Settles when a worker says that it has begun.
 * @param {Worker} worker
 * @returns {Promise<void>}
 */
function beginning(worker) {
  return new Promise((resolve, reject) => {
    worker.onmessage = () => resolve();
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message || "its script could not be loaded"));
    };
  });
}

/** Settles when the events that wait for this thread have had their turn. A timer would take longer each time. */
function turn() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve(undefined);
    };
    port2.postMessage(undefined);
  });
}

/** @param {number} milliseconds */
function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
