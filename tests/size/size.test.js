/**
 * A checkpoint of real size in the browser: Stable Diffusion 1.5's UNet with the random weights that `tests/size.rs` leaves in
 * `target/size`. Run by `cargo xtask test --only size` alone.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe } from "node:test";
import { browserTests, root } from "../browser/harness/index.js";

/** What the module's own memory may grow to. */
const MOST_HEAP = 200e6;
const SIDE = 128;

describe("a UNet of 1.7 GB", () => {
  const test = browserTests({
    graphics: "webgpu",
    mounts: {
      "/": join(root, "tests/browser/pipeline"),
      "/pkg/": join(root, "pkg"),
      "/model/": join(root, "target/size"),
    },
  });

  test(`loads and makes a step within ${MOST_HEAP / 1e6} MB of wasm memory and the default limits`, async ({
    page,
    site,
    context,
  }) => {
    await page.addInitScript(() => {
      // The package keeps its memory to itself; what instantiates it shows it.
      const { instantiate, instantiateStreaming } = WebAssembly;
      const keep = (/** @type {any} */ result) => {
        window.heap = (result.instance ?? result).exports.memory;
        return result;
      };
      Object.assign(WebAssembly, {
        instantiate: (/** @type {[any, any]} */ ...given) => instantiate(...given).then(keep),
        instantiateStreaming: (/** @type {[any, any]} */ ...given) => instantiateStreaming(...given).then(keep),
      });
      // Default limits only: a buffer beyond them is then a validation error.
      const { requestDevice } = GPUAdapter.prototype;
      GPUAdapter.prototype.requestDevice = function (descriptor) {
        return requestDevice.call(this, { ...descriptor, requiredLimits: {} });
      };
    });
    await page.goto(site.url("/"));
    await page.waitForFunction(() => "settle" in window);
    const figures = await page.evaluate(async (side) => {
      const start = performance.now();
      const pipeline = await window.Pipeline.load("/model/", { device: "webgpu", worker: false });
      const [load, weights] = [performance.now() - start, window.memory.live];
      const run = pipeline.sample({ prompt: "a fox", steps: 1, width: side, height: side, preview: "none" });
      const steps = [];
      for await (const step of run) steps.push(step.milliseconds);
      const total = performance.now() - start - load;
      const heap = window.heap?.buffer.byteLength ?? 0;
      return { load, total, steps, heap, weights, buffers: window.memory.peak };
    }, SIDE);
    const megabytes = (/** @type {number} */ bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
    context.diagnostic(
      `load ${(figures.load / 1000).toFixed(1)} s, a step with guidance at ${SIDE}×${SIDE} pixels ` +
        `${(figures.steps[0] / 1000).toFixed(1)} s, with prompt and kernels ${(figures.total / 1000).toFixed(1)} s; ` +
        `wasm memory ${megabytes(figures.heap)}, weights ${megabytes(figures.weights)}, ` +
        `all buffers at most ${megabytes(figures.buffers)}`,
    );
    assert.equal(figures.steps.length, 1);
    assert.ok(figures.heap > 0, "the module's memory was not seen");
    assert.ok(figures.heap < MOST_HEAP, `the module's memory has grown to ${megabytes(figures.heap)}`);
  }, 1_200_000);
});
