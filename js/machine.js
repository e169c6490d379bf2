// @ts-check
// The CPU as the WebAssembly side sees it: memory apart from its own, and jobs that are done there, by one thread or several.

import { BATCH_LIMIT, JOB_BYTES, emptyState, lead } from "./crew.js";
import { DeviceError, throwIfAborted } from "./errors.js";
import { Heap } from "./heap.js";
import { instantiate, kernelsUrl } from "./kernels_module.js";
import { compile } from "./wasm.js";
import { failedScript, startWorker } from "./worker_script.js";

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

/** The position of `parts` in a job, in words. */
const PARTS = 1;

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
  /** How many threads there are. Workers are counted as they begin. */
  threads = 1;
  /** Settles once every worker has begun or is known not to, or has had the time for it. @type {Promise<unknown>} */
  ready = Promise.resolve();

  /**
   * Fetches the kernels and starts them; threads follow.
   * @param {CpuOptions} options
   * @param {AbortSignal} signal
   */
  static async open({ threads = usualThreads(), simd = "auto", kernels }, signal) {
    const memory = canShare() && threads > 1 ? sharedMemory() : undefined;
    const module = await compile(kernelsUrl(simd, memory !== undefined, kernels?.toString()));
    throwIfAborted(signal);
    if (memory) {
      const threaded = new Machine(module, memory);
      threaded.ready = Promise.race([threaded.#hire(threads - 1, module), pause(START_MS)]);
      return threaded;
    }
    return new Machine(module, new WebAssembly.Memory({ initial: FIRST_PAGES, maximum: MOST_PAGES }));
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
   * Does jobs, one after the other.
   * @param {Uint8Array} jobs any number of `Job`s
   */
  run(jobs) {
    const most = BATCH_LIMIT * JOB_BYTES;
    for (let start = 0; start < jobs.length; start += most) this.#runBatch(jobs.subarray(start, start + most));
  }

  /**
   * Does jobs, and says how many seconds each took.
   * @param {Uint8Array} jobs
   * @returns {Float64Array}
   */
  runTimed(jobs) {
    return Float64Array.from({ length: jobs.length / JOB_BYTES }, (_, index) => {
      const start = performance.now();
      this.#runBatch(jobs.subarray(index * JOB_BYTES, (index + 1) * JOB_BYTES));
      return (performance.now() - start) / 1000;
    });
  }

  /** Ends the threads. The memory goes with the last reference to this. */
  close() {
    this.#isClosed = true;
    for (const worker of this.#workers) worker.terminate();
    this.#workers = [];
    this.#state = undefined;
  }

  /** @param {Uint8Array} jobs */
  #runBatch(jobs) {
    const count = jobs.length / JOB_BYTES;
    const address = this.#jobs;
    this.write(address, jobs);
    const words = new Uint32Array(this.memory.buffer, address, jobs.length / 4);
    const parts = Uint32Array.from({ length: count }, (_, index) => words[(index * JOB_BYTES) / 4 + PARTS]);
    if (this.#state && this.threads > 1) {
      this.#batch = (this.#batch % 0x7fffffff) + 1;
      lead(this.#state, this.#batch, address, parts, this.#run);
      return;
    }
    for (let index = 0; index < count; index++) {
      for (let part = 0; part < parts[index]; part++) this.#run(address + index * JOB_BYTES, part);
    }
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
        const start = () => new Worker(new URL("./kernels_worker.js", import.meta.url), { type: "module" });
        const worker = startWorker("kernels_worker.js", start);
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
      reject(new Error(event.message || failedScript("kernels_worker.js")));
    };
  });
}

/** @param {number} milliseconds */
function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
