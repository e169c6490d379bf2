/**
 * Every call of the package settles: at once when it is aborted, whatever is under way and however large, and when what should answer it
 * is gone. What comes after it is as if it had not been.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe } from "node:test";
import { browserTests, root } from "./harness/index.js";

/** @import { LoadOptions } from "../../js/index.js" */

const mounts = {
  "/": join(root, "tests/browser/pipeline"),
  "/pkg/": join(root, "pkg"),
  "/models/emoji64/": join(root, "www/models/emoji64"),
  "/models/emoji-features/": join(root, "www/models/emoji-features"),
};

/**
 * The longest that an aborted call may take, in milliseconds. It is less than 300 even where what should answer it is busy; the rest is
 * for a machine with too much to do.
 */
const AT_ONCE = 1000;

/** The longest after which what was aborted may still be computed. It is some 100 ms; it would have taken a minute. */
const SOON = 4000;

/** Opens the page, whose `window.abortAfter` runs something and aborts it. @param {import("playwright-core").Page} page @param {import("./harness/index.js").Site} site */
async function open(page, site) {
  await page.goto(site.url("/"));
  await page.waitForFunction(() => "settle" in window);
  await page.evaluate(() => {
    Object.assign(window, {
      /** What a call comes to that is aborted after so many milliseconds, and how long after that. */
      async abortAfter(/** @type {number} */ milliseconds, /** @type {(signal: AbortSignal) => unknown} */ call) {
        const controller = new AbortController();
        let aborted = Infinity;
        setTimeout(() => {
          aborted = performance.now();
          controller.abort();
        }, milliseconds);
        const { value, error } = await window.settle(call(controller.signal));
        return { code: error?.code ?? `done: ${value}`, milliseconds: performance.now() - aborted, aborted };
      },
      /** The bits of a small picture. */
      async draw(/** @type {import("../../js/index.js").Pipeline} */ pipeline) {
        const { data } = await pipeline.sample({ prompt: "fox, noto style", seed: 7, steps: 2, guidanceScale: 4.5 });
        return data.join();
      },
    });
  });
}

/** @type {{ isolated: boolean, load: LoadOptions & { worker?: boolean } }[]} */
const WAYS = [
  { isolated: false, load: { worker: true } },
  { isolated: false, load: { worker: false } },
  { isolated: true, load: { worker: true, cpu: { threads: 2 } } },
];

for (const { isolated, load } of WAYS) {
  describe(`with ${JSON.stringify(load)}`, () => {
    const test = browserTests({ graphics: "webgpu", mounts, isolated });

    test("an abort ends whatever the CPU computes at once, and leaves no trace", async ({ page, site, context }) => {
      await open(page, site);
      const { report, isSame } = await page.evaluate(async (load) => {
        const { Pipeline, abortAfter, draw, model } = window;
        const pipeline = await Pipeline.load(model, { device: "cpu", ...load });
        const before = await draw(pipeline);
        const size = { width: 1024, height: 1024 };
        const image = new ImageData(1024, 1024);
        const small = await pipeline.forwardProcess({ image: new ImageData(512, 512), preview: "decode" });
        /** @type {Record<string, { code: string, milliseconds: number, free: number }>} */
        const report = {};
        /** As `abortAfter`, and how long after it something else has had its turn. @type {(what: string, ...rest: Parameters<typeof abortAfter>) => Promise<void>} */
        const abort = async (what, ...rest) => {
          const { aborted, ...answer } = await abortAfter(...rest);
          await pipeline.schedule();
          report[what] = { ...answer, free: performance.now() - aborted };
        };
        await abort("predict", 500, (signal) => small.predict(500, { signal }));
        await abort("at", 100, (signal) => small.at(500, { signal }));
        await small.dispose();
        await abort("step", 1500, (signal) => pipeline.sample({ ...size, steps: 2, signal }));
        await abort("encoder", 500, (signal) => pipeline.sample({ image, strength: 0.5, signal }));
        await abort("forward", 500, (signal) => pipeline.forwardProcess({ image, signal }));
        await abort("bound", 1500, (signal) => pipeline.bound({ image, ...size, terms: 3, signal }));
        await abort("profile", 1500, (signal) => pipeline.profile({ ...size, signal }));
        const isSame = (await draw(pipeline)) === before;
        await pipeline.dispose();
        return { report, isSame };
      }, load);
      context.diagnostic(JSON.stringify(report));
      for (const [what, { code, milliseconds, free }] of Object.entries(report)) {
        assert.equal(code, "aborted", what);
        assert.ok(milliseconds < AT_ONCE, `${what} was answered after ${milliseconds} ms`);
        assert.ok(free < SOON, `${what} went on for ${free} ms`);
      }
      assert.ok(isSame, "the next run has other bits");
    });

    test("an abort ends the features of pictures at once, and none of them is added", async ({ page, site }) => {
      await open(page, site);
      const report = await page.evaluate(async (load) => {
        const { FeatureExtractor, abortAfter } = window;
        const extractor = await FeatureExtractor.load("models/emoji-features/", { device: "cpu", ...load });
        const set = await extractor.statistics();
        const images = Array.from({ length: 2000 }, () => new ImageData(64, 64));
        const aborted = await abortAfter(500, (signal) => set.add(images, { signal }));
        await set.add(images.slice(0, 3));
        const { glyphs } = await extractor.classify(images[0]);
        await extractor.dispose();
        return { aborted, count: set.count, glyphs: glyphs.length };
      }, load);
      assert.equal(report.aborted.code, "aborted");
      assert.ok(report.aborted.milliseconds < AT_ONCE, `it went on for ${report.aborted.milliseconds} ms`);
      assert.deepEqual([report.count, report.glyphs], [3, 5]);
    });

    test("an abort of the merging of LoRAs leaves those that were", async ({ page, site }) => {
      await open(page, site);
      const report = await page.evaluate(async (load) => {
        const { Pipeline, abortAfter, draw, model } = window;
        /** A LoRA of the first convolution. */
        const lora = (/** @type {number} */ seed) => {
          const header = {
            "lora_unet_conv_in.lora_down.weight": { dtype: "F32", shape: [1, 4, 3, 3], data_offsets: [0, 144] },
            "lora_unet_conv_in.lora_up.weight": { dtype: "F32", shape: [64, 1, 1, 1], data_offsets: [144, 400] },
          };
          const json = new TextEncoder().encode(JSON.stringify(header));
          const numbers = new Float32Array(100).map((_, index) => Math.sin(seed + index));
          return new File([new BigUint64Array([BigInt(json.length)]), json, numbers], `${seed}.safetensors`);
        };
        const pipeline = await Pipeline.load(model, { device: "cpu", ...load });
        const [first, second] = [[{ source: lora(1) }], [{ source: lora(2), weight: 0.5 }]];
        await pipeline.setLoras(second);
        const other = await draw(pipeline);
        await pipeline.setLoras(first);
        const one = await draw(pipeline);
        const wrong = [];
        /** @type {Record<string, number>} */
        const codes = {};
        for (let milliseconds = 0; milliseconds < 12; milliseconds++) {
          const { code } = await abortAfter(milliseconds, (signal) => pipeline.setLoras(second, { signal }));
          codes[code] = (codes[code] ?? 0) + 1;
          if ((await draw(pipeline)) !== (code === "aborted" ? one : other)) wrong.push(milliseconds);
          await pipeline.setLoras(first);
        }
        await pipeline.dispose();
        return { wrong, codes, differ: one !== other };
      }, load);
      assert.deepEqual(report.wrong, [], JSON.stringify(report.codes));
      assert.ok(report.differ);
    });
  });
}

describe("a call", () => {
  const test = browserTests({ graphics: "webgpu", mounts });

  test("leaves the page its own thread while it computes there", async ({ page, site, context }) => {
    await open(page, site);
    const report = await page.evaluate(async () => {
      const { Pipeline, model } = window;
      const pipeline = await Pipeline.load(model, { device: "cpu", worker: false });
      // The first step has more to prepare than kernels.
      const run = pipeline.sample({ width: 256, height: 256, steps: 2 })[Symbol.asyncIterator]();
      await run.next();
      const start = performance.now();
      let [last, longest] = [start, 0];
      const tick = () => {
        const now = performance.now();
        longest = Math.max(longest, now - last);
        last = now;
      };
      const timer = setInterval(tick, 5);
      await run.next();
      tick();
      clearInterval(timer);
      const step = performance.now() - start;
      await pipeline.dispose();
      return { longest, step };
    });
    context.diagnostic(JSON.stringify(report));
    assert.ok(report.longest < report.step / 4, `a click waits for up to ${report.longest} of ${report.step} ms`);
  });

  test("fails when a worker ends without a word", async ({ page, site }) => {
    await open(page, site);
    const report = await page.evaluate(async () => {
      const { Pipeline, settle, model } = window;
      const code = async (/** @type {unknown} */ call) => (await settle(call)).error?.code;
      const load = async () => {
        const worker = new Worker("pkg/worker.js", { type: "module" });
        return { worker, pipeline: await Pipeline.load(model, { device: "cpu", worker }) };
      };
      const { worker, pipeline } = await load();
      let count = 0;
      const run = async () => {
        for await (const _ of pipeline.sample({ steps: 100 })) if (++count === 3) worker.terminate();
      };
      const [running, later] = [await code(run()), await code(pipeline.schedule())];
      await pipeline.dispose();
      const other = await load();
      other.worker.terminate();
      await other.pipeline.dispose();
      return { running, later, count };
    });
    assert.deepEqual(report, { running: "worker-failed", later: "worker-failed", count: 3 });
  });

  test("of dispose stops what is under way before it waits for it", async ({ page, site }) => {
    // Never answered.
    await page.route("**/stalled.safetensors", () => {});
    await open(page, site);
    const report = await page.evaluate(async () => {
      const { Pipeline, settle, model } = window;
      const worker = new Worker("pkg/worker.js", { type: "module" });
      const report = [];
      for (const where of [worker, false]) {
        const pipeline = await Pipeline.load(model, { device: "cpu", worker: where });
        const setting = settle(pipeline.setLoras([{ source: "stalled.safetensors" }]));
        await new Promise((resolve) => setTimeout(resolve, 500));
        const start = performance.now();
        await pipeline.dispose();
        report.push([(await setting).error?.code, performance.now() - start < 1000]);
      }
      worker.terminate();
      return report;
    });
    assert.deepEqual(report, [
      ["disposed", true],
      ["disposed", true],
    ]);
  });

  test("that is aborted settles when its worker is stuck, which is ended", async ({ page, site }) => {
    await open(page, site);
    const report = await page.evaluate(async () => {
      const { Pipeline, abortAfter, settle, model } = window;
      /** @type {Worker[]} */
      const workers = [];
      const { Worker } = window;
      window.Worker = class extends Worker {
        /** @param {string | URL} _url @param {WorkerOptions} [options] */
        constructor(_url, options) {
          super("stuck.js", options);
          workers.push(this);
        }
      };
      const stick = (/** @type {number} */ stuckFor) => workers.at(-1)?.postMessage({ stuckFor });
      const pipeline = await Pipeline.load(model, { device: "cpu" });
      // Not for so long that it would be given up.
      stick(1000);
      const once = await abortAfter(100, (signal) => pipeline.sample({ signal }));
      const { width } = await pipeline.sample({ steps: 1 });
      stick(60_000);
      const run = await abortAfter(100, (signal) => pipeline.sample({ signal }));
      const later = await settle(pipeline.sample());
      await pipeline.dispose();
      const load = await abortAfter(300, (signal) => {
        const loading = Pipeline.load(model, { device: "cpu", signal });
        stick(60_000);
        return loading;
      });
      return { aborted: [once, run, load], width, later: later.error };
    });
    for (const { code, milliseconds } of report.aborted) {
      assert.equal(code, "aborted");
      assert.ok(milliseconds < AT_ONCE, `it was answered after ${milliseconds} ms`);
    }
    assert.equal(report.width, 64);
    assert.equal(report.later?.code, "worker-failed");
    assert.match(
      report.later?.message ?? "",
      /was too busy to hear of an abort, and was ended. Load the pipeline again/,
    );
  });

  test("that asks what a run takes is answered before it is made", async ({ page, site, context }) => {
    await open(page, site);
    const report = await page.evaluate(async () => {
      const { Pipeline, settle, model } = window;
      const pipeline = await Pipeline.load(model, { device: "cpu" });
      const options = { prompt: "fox, noto style", steps: 10, guidanceScale: 4.5 };
      const guess = await pipeline.estimate(options);
      const start = performance.now();
      await pipeline.sample(options);
      const took = (performance.now() - start) / 1000;
      const known = await pipeline.estimate(options);
      const asked = performance.now();
      const large = await pipeline.estimate({ ...options, width: 1024, height: 1024 });
      const milliseconds = performance.now() - asked;
      const wrong = await settle(pipeline.estimate({ ...options, width: 70 }));
      await pipeline.dispose();
      return { guess, known, large, took, milliseconds, wrong: wrong.error };
    });
    context.diagnostic(JSON.stringify(report));
    const { guess, known, large, took, milliseconds, wrong } = report;
    assert.deepEqual([guess.calls, guess.flop], [known.calls, known.flop]);
    assert.equal(guess.calls, 10);
    assert.ok(large.flop > 256 * known.flop && (large.seconds ?? 0) > 256 * (known.seconds ?? Infinity));
    assert.ok(milliseconds < AT_ONCE, `the answer took ${milliseconds} ms`);
    // Other programs take the processor meanwhile, of which a short measurement sees less than a run: only the magnitude is sure.
    const [guessed, measured] = [guess, known].map(({ seconds = 0 }) => seconds / took);
    assert.ok(guessed > 0.01 && guessed < 10, `${guessed} times what the run took was guessed`);
    assert.ok(measured > 0.1 && measured < 10, `${measured} times what the run took was measured`);
    assert.deepEqual([wrong?.code, wrong?.option], ["invalid-option", "width"]);
  });
});
