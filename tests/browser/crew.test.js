/** How threads share work, and how the kernels' memory is shared out: apart from a browser, where neither can be looked at. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { BATCH_LIMIT, emptyState, lead } from "../../js/crew.js";
import { ALIGNMENT, Heap } from "../../js/heap.js";
import { PARTS, TRAP, recorder } from "./harness/recorder.js";

/** Numbers that look random and are the same in every run. @param {number} seed */
function random(seed) {
  return (/** @type {number} */ below) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return Math.floor((seed / 0x80000000) * below);
  };
}

describe("a crew", () => {
  const JOBS = 400;
  const record = new Int32Array(new SharedArrayBuffer(4 * (1 + JOBS * PARTS)));
  const state = emptyState();
  /** @type {Worker[]} */
  const workers = [];
  let batch = 0;
  /** A batch that is not interrupted. @param {number} address @param {Uint32Array} parts */
  const whole = (address, parts) => ({ batch: ++batch, address, parts, done: 0, until: Infinity });
  after(() => Promise.all(workers.map((worker) => worker.terminate())));

  /**
   * Does jobs of so many parts, and checks that each was done once, and after all of the job before it; how many workers did.
   * @param {number[]} parts
   * @param {boolean} [isSliced]
   */
  function run(parts, isSliced = false) {
    record.fill(0);
    let own = 0;
    const run = recorder(record);
    const jobs = { address: 0, parts: Uint32Array.from(parts) };
    const total = parts.reduce((sum, count) => sum + count, 0);
    const count = (/** @type {number} */ job, /** @type {number} */ part) => {
      own++;
      run(job, part);
    };
    // In slices that are over before they begin, so that each has a part of this thread's at most, or at once.
    for (let done = 0, until = isSliced ? 0 : Infinity; done < total;) {
      const before = done;
      done = lead(state, { batch: ++batch, ...jobs, done, until }, count);
      assert.ok(done > before, `nothing was done after ${before} parts`);
      assert.equal(record[0], done, "somebody is still at work");
    }
    let position = 0;
    parts.forEach((count, job) => {
      const row = 1 + job * PARTS;
      const positions = [...record.subarray(row, row + count)].sort((a, b) => a - b);
      assert.deepEqual(
        positions,
        positions.map((_, index) => position + index + 1),
        `job ${job} of batch ${batch}`,
      );
      position += count;
    });
    assert.equal(record[0], position);
    return position - own;
  }

  const next = random(7);
  const batchOf = (/** @type {number} */ length) => Array.from({ length }, () => next(4) && next(PARTS + 1));

  for (const count of [0, 1, 3]) {
    test(`with ${count} workers does every part once, each job after the one before`, async () => {
      while (workers.length < count) {
        const worker = new Worker(new URL("./harness/follower.js", import.meta.url), { workerData: { state, record } });
        workers.push(worker);
        await once(worker, "online");
      }
      let helped = 0;
      for (let round = 0; round < 30; round++) {
        helped += run(batchOf(1 + next(JOBS)), round % 3 === 0);
        // Now and then long enough for the workers to fall asleep.
        if (round % 5 === 0) await sleep(20);
      }
      run([]);
      run([0, 0, 3, 0]);
      run([0, 0, 3, 0], true);
      assert.equal(helped > 0, count > 0, `workers did ${helped} parts`);
    });
  }

  test("says that a kernel trapped, and does the next batch", () => {
    assert.throws(
      () => lead(state, whole(TRAP * 128, Uint32Array.of(4)), recorder(record)),
      (error) => error instanceof WebAssembly.RuntimeError,
    );
    run([4, 1]);
  });

  test("takes as many jobs at once as it says", () => {
    let done = 0;
    lead(emptyState(), whole(0, new Uint32Array(BATCH_LIMIT).fill(1)), () => void done++);
    assert.equal(done, BATCH_LIMIT);
  });

  test("gives up a thread that has ended in the middle of a part, and does not wait for one that is slow", async () => {
    const record = new Int32Array(new SharedArrayBuffer(4 * (1 + JOBS * PARTS)));
    const state = emptyState();
    const follower = new URL("./harness/follower.js", import.meta.url);
    const worker = new Worker(follower, { workerData: { state, record, sleeps: 1500 } });
    await once(worker, "online");
    let own = 0;
    const part = () => {
      // Until the worker has taken one.
      for (const end = Date.now() + 5000; own === 0 && Atomics.load(record, 0) === 0 && Date.now() < end;);
      own++;
    };
    assert.equal(lead(state, whole(0, Uint32Array.of(2)), part, 10), 2);
    assert.equal(own, 1);
    worker.terminate();
    await once(worker, "exit");

    const dead = emptyState();
    own = record[0] = 0;
    const other = new Worker(follower, { workerData: { state: dead, record, sleeps: 1e9 } });
    await once(other, "online");
    const start = Date.now();
    assert.throws(() => lead(dead, whole(0, Uint32Array.of(2)), part, 1), /ended in the middle of its work/);
    assert.ok(Date.now() - start < 15_000);
    await other.terminate();
  });
});

describe("the heap", () => {
  /** A heap that can grow to so many bytes. @param {number} limit */
  function heapUpTo(limit) {
    let end = 4096;
    return new Heap(1000, end, (bytes) => {
      const grown = Math.ceil(bytes / 4096) * 4096;
      if (end + grown > limit) return 0;
      end += grown;
      return grown;
    });
  }

  test("gives regions that are aligned and apart, and takes all of them back", () => {
    const next = random(3);
    const heap = heapUpTo(1 << 20);
    /** @type {[start: number, end: number][]} */
    let regions = [];
    let refused = 0;
    for (let round = 0; round < 5000; round++) {
      if (next(3) > 0 || regions.length === 0) {
        const bytes = next(round % 7 === 0 ? 100_000 : 3000);
        const start = heap.allocate(bytes);
        if (start === undefined) {
          refused++;
          for (const [address] of regions.splice(0, regions.length / 2)) heap.free(address);
          continue;
        }
        assert.equal(start % ALIGNMENT, 0);
        assert.ok(start >= 1000 && start + bytes <= 1 << 20);
        const clash = regions.find(([from, to]) => start < to && from < start + bytes);
        assert.equal(clash, undefined, `[${start}, ${start + bytes}] lies over another region`);
        regions.push([start, start + bytes]);
      } else {
        const [[address]] = regions.splice(next(regions.length), 1);
        heap.free(address);
      }
    }
    assert.ok(refused > 0, "the limit was never met");
    for (const [address] of regions) heap.free(address);
    // In one piece again: all that there is but for what alignment takes.
    assert.equal(heap.allocate((1 << 20) - 1024), 1024);
  });

  test("refuses to take back what it did not give", () => {
    const heap = heapUpTo(1 << 20);
    const address = heap.allocate(10) ?? 0;
    assert.throws(() => heap.free(address + ALIGNMENT), /no region begins/);
    heap.free(address);
    assert.throws(() => heap.free(address), /no region begins/);
  });
});
