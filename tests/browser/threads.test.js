/**
 * The CPU's kernels in the browser: which are fetched, on how many threads they run, and that none is left behind.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe } from "node:test";
import { browserTests, faults, root } from "./harness/index.js";

/** @import { LoadOptions } from "../../js/index.js" */
/** @import { Page } from "playwright-core" */
/** @import { Site } from "./harness/index.js" */

const mounts = {
  "/": join(root, "tests/browser/pipeline"),
  "/pkg/": join(root, "pkg"),
  "/models/emoji64/": join(root, "www/models/emoji64"),
};

/** @param {Page} page @param {Site} site */
async function open(page, site) {
  await page.goto(site.url("/"));
  await page.waitForFunction(() => "settle" in window);
}

/**
 * Loads the model, draws with it and disposes of it; how many threads there were, and the picture.
 * @param {Page} page @param {LoadOptions} load
 * @returns {Promise<{ threads: number | undefined, pixels: number[] }>}
 */
const draw = (page, load) =>
  page.evaluate(async (load) => {
    const pipeline = await window.Pipeline.load(window.model, load);
    const { data } = await pipeline.sample({ prompt: "fox, noto style", seed: 7, steps: 3, guidanceScale: 4.5 });
    await pipeline.dispose();
    return { threads: pipeline.device.threads, pixels: [...data] };
  }, load);

/** The builds of the kernels that were fetched. @param {Site} site */
const fetched = (site) => site.requests.flatMap(({ path }) => /\/kernels_(\w+)\.wasm$/.exec(path)?.[1] ?? []);

describe("a page that is cross-origin isolated", () => {
  const test = browserTests({ graphics: "webgpu", mounts, isolated: true });

  test("has as many threads as it asks for, and the same picture with each", async ({ page, site }) => {
    await open(page, site);
    const runs = [];
    for (const threads of [1, 2, 3]) runs.push(await draw(page, { device: "cpu", cpu: { threads } }));
    assert.deepEqual(
      runs.map(({ threads }) => threads),
      [1, 2, 3],
    );
    for (const { pixels } of runs) assert.deepEqual(pixels, runs[0].pixels);
    assert.deepEqual(fetched(site), ["relaxed", "relaxed_shared", "relaxed_shared"]);
  });

  test("has as many threads as cores, up to eight, if it asks for none", async ({ page, site }) => {
    await open(page, site);
    const cores = await page.evaluate(() => navigator.hardwareConcurrency);
    assert.equal((await draw(page, { device: "cpu" })).threads, Math.min(cores, 8));
  });

  test("has one thread where the pipeline runs on the page’s own", async ({ page, site }) => {
    await open(page, site);
    const { threads } = await draw(page, { device: "cpu", worker: false, cpu: { threads: 2, simd: "portable" } });
    assert.equal(threads, 1);
    assert.deepEqual(fetched(site), ["simd"]);
  });

  test("goes on with one thread where no other can be started, and says so", async ({ page, site, expectError }) => {
    expectError(/404/);
    site.break("kernels_worker.js", faults.missing());
    /** @type {string[]} */
    const warnings = [];
    page.on("console", (message) => void (message.type() === "warning" && warnings.push(message.text())));
    await open(page, site);
    const { threads, pixels } = await draw(page, { device: "cpu", cpu: { threads: 3 } });
    assert.equal(threads, 1);
    assert.equal(pixels.length, 4 * 64 * 64);
    assert.match(warnings.join("\n"), /undiffuse: 1 of 3 threads, because a worker could not be started/);
  });

  test("fetches no kernels for WebGPU", async ({ page, site }) => {
    await open(page, site);
    assert.equal((await draw(page, { device: "webgpu" })).threads, undefined);
    assert.deepEqual(fetched(site), []);
  });

  test("leaves no thread behind, however a pipeline ends", async ({ page, site, expectError }) => {
    expectError(/404/);
    await open(page, site);
    const counts = await page.evaluate(async () => {
      const { Pipeline, settle, model } = window;
      const worker = new Worker("counted.js", { type: "module" });
      const load = /** @type {const} */ ({ device: "cpu", worker, cpu: { threads: 3 } });
      /** @returns {Promise<number>} */
      const count = () =>
        new Promise((resolve) => {
          worker.addEventListener("message", ({ data }) => resolve(data), { once: true });
          worker.postMessage("count");
        });
      const counts = /** @type {Record<string, number>} */ ({});
      const pipeline = await Pipeline.load(model, load);
      counts.loaded = await count();
      await pipeline.dispose();
      counts.disposed = await count();
      const running = await Pipeline.load(model, load);
      for await (const step of running.sample({ steps: 3, guidanceScale: 4.5 })) if (step.index === 0) break;
      await running.dispose();
      counts.left = await count();
      const missing = await settle(Pipeline.load("nowhere/", load));
      counts[missing.error?.code ?? "none"] = await count();
      const controller = new AbortController();
      const { signal } = controller;
      const onProgress = () => controller.abort();
      const aborted = await settle(Pipeline.load(model, { ...load, signal, onProgress }));
      counts[aborted.error?.code ?? "none"] = await count();
      worker.terminate();
      return counts;
    });
    assert.deepEqual(counts, { loaded: 2, disposed: 0, left: 0, "file-missing": 0, aborted: 0 });
  });
});

describe("a page as any host serves it", () => {
  const test = browserTests({ graphics: "webgpu", mounts });

  test("has one thread, however many are asked for", async ({ page, site }) => {
    await open(page, site);
    assert.equal((await draw(page, { device: "cpu", cpu: { threads: 2 } })).threads, 1);
    assert.equal((await draw(page, { device: "cpu", cpu: { simd: "portable" } })).threads, 1);
    assert.deepEqual(fetched(site), ["relaxed", "simd"]);
  });

  test("is told where the kernels are missing", async ({ page, site, expectError }) => {
    expectError(/404/);
    site.break("kernels_relaxed.wasm", faults.missing());
    await open(page, site);
    const { error } = await page.evaluate(() => window.settle(window.Pipeline.load(window.model, { device: "cpu" })));
    assert.deepEqual([error?.code, error?.class], ["file-missing", "SourceError"]);
    assert.match(error?.message ?? "", /kernels_relaxed\.wasm does not exist/);
  });
});
