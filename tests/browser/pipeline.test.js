/** The package's interface in the browser: options, cancelling, disposal, errors. Pictures are the matter of the site's tests. */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe } from "node:test";
import { browserTests, faults, root } from "./harness/index.js";
import { withWrongShape } from "./harness/safetensors.js";

const CHECKPOINT_FOLDER = join(root, "www/models/emoji64");
const UNET = "unet/diffusion_pytorch_model.safetensors";

/** The checkpoint's files, by their path in it. */
const CHECKPOINT = (await readdir(CHECKPOINT_FOLDER, { recursive: true })).filter((path) =>
  /\.(json|txt|safetensors)$/.test(path),
);

const mounts = {
  "/api/": join(root, "tests/browser/pipeline"),
  "/api/pkg/": join(root, "pkg"),
  "/api/models/emoji64/": CHECKPOINT_FOLDER,
  "/api/models/emoji-features/": join(root, "www/models/emoji-features"),
};

/**
 * Runs a function on the page, where the package's exports are global, with `settle`, `memory` and `model`.
 * @param {import("playwright-core").Page} page
 * @param {import("./harness/index.js").Site} site
 * @param {(given: any) => unknown} body
 * @param {unknown} [given]
 * @returns {Promise<any>}
 */
async function onPage(page, site, body, given) {
  await page.goto(site.url("/api/"));
  await page.waitForFunction(() => "settle" in window);
  return page.evaluate(body, given);
}

for (const load of [
  { device: "webgpu", worker: true },
  { device: "webgpu", worker: false },
  { device: "cpu", worker: true },
  { device: "cpu", worker: false },
]) {
  describe(`with ${JSON.stringify(load)}`, () => {
    const test = browserTests({ graphics: "webgpu", mounts });

    test("a run is a row of steps, and awaiting it gives the last picture", async ({ page, site }) => {
      const report = await onPage(
        page,
        site,
        async (load) => {
          const { Pipeline, model } = window;
          /** @type {import("../../js/index.js").LoadProgress[]} */
          const progress = [];
          const pipeline = await Pipeline.load(model, { ...load, onProgress: (one) => progress.push(one) });
          /** @type {import("../../js/index.js").Step[]} */
          const steps = [];
          const options = { prompt: "a happy cat", seed: 3n, steps: 3 };
          for await (const step of pipeline.sample(options)) steps.push(step);
          const image = await pipeline.sample(options);
          const { kind } = pipeline.device;
          await pipeline.dispose();
          const same = (/** @type {ImageData} */ one, /** @type {ImageData} */ other) =>
            one.data.every((value, index) => value === other.data[index]);
          return {
            kind,
            indices: steps.map((step) => step.index),
            totals: steps.map((step) => step.total),
            descends: steps.every((step, index) => index === 0 || step.timestep < steps[index - 1].timestep),
            size: [image.width, image.height],
            isLast: same(image, steps[2].image),
            differ: !same(steps[0].image, steps[1].image) && !same(steps[0].denoised, steps[0].image),
            opaque: image.data.every((value, index) => index % 4 !== 3 || value === 255),
            progress: progress.at(-1),
            rises: progress.every((one, index) => index === 0 || one.loaded >= progress[index - 1].loaded),
          };
        },
        load,
      );
      const { progress, ...rest } = report;
      assert.deepEqual(rest, {
        kind: load.device,
        indices: [0, 1, 2],
        totals: [3, 3, 3],
        descends: true,
        size: [64, 64],
        isLast: true,
        differ: true,
        opaque: true,
        rises: true,
      });
      assert.equal(progress.loaded, progress.total);
    });

    test("a run that is aborted, or left, ends within a step and leaves the pipeline free", async ({ page, site }) => {
      const report = await onPage(
        page,
        site,
        async (load) => {
          const { Pipeline, settle, model } = window;
          const pipeline = await Pipeline.load(model, load);
          const controller = new AbortController();
          let count = 0;
          const aborted = await settle(
            (async () => {
              for await (const step of pipeline.sample({ steps: 50, signal: controller.signal })) {
                count += 1;
                if (step.index === 1) controller.abort();
              }
            })(),
          );
          for await (const step of pipeline.sample({ steps: 50 })) if (step.index === 1) break;
          const image = await pipeline.sample({ steps: 1 });
          const early = await settle(pipeline.sample({ signal: AbortSignal.abort() }));
          await pipeline.dispose();
          return { count, aborted: aborted.error?.code, early: early.error?.code, width: image.width };
        },
        load,
      );
      assert.deepEqual(report, { count: 2, aborted: "aborted", early: "aborted", width: 64 });
    });

    test("a profile has the time and the cost of every node, and leaves the pipeline free", async ({ page, site }) => {
      const report = await onPage(
        page,
        site,
        async (load) => {
          const { Pipeline, settle, model } = window;
          const pipeline = await Pipeline.load(model, load);
          const options = { prompt: "a happy cat", guidanceScale: 5 };
          const profile = await pipeline.profile(options);
          const again = await pipeline.profile(options);
          const wrong = await settle(pipeline.profile({ steps: 0 }));
          const run = pipeline.sample({ steps: 3 })[Symbol.asyncIterator]();
          await run.next();
          const busy = await settle(pipeline.profile(options));
          await run.return();
          const image = await pipeline.sample({ steps: 1 });
          await pipeline.dispose();
          return { profile, again, codes: [wrong.error?.code, busy.error?.code], width: image.width };
        },
        load,
      );
      assert.deepEqual(report.codes, ["invalid-option", "busy"]);
      assert.equal(report.width, 64);
      /** @type {import("../../js/index.js").Profile} */
      const profile = report.profile;
      assert.equal(profile.clock, load.device === "cpu" ? "processor" : "timestamps");
      assert.deepEqual(report.again.ceilings, profile.ceilings, "the device was measured again");
      assert.ok(profile.ceilings.flopPerSecond > 1e8 && profile.ceilings.bytesPerSecond > 1e8, "no device is so slow");
      const sum = (/** @type {"multiplyAdds" | "milliseconds"} */ field) =>
        profile.nodes.reduce((sum, node) => sum + node[field], 0);
      // 0.520 of the whole network, less the keys and values of the text, which are made once for a run.
      assert.equal((sum("multiplyAdds") / 1e9).toFixed(2), "0.51");
      // Other programs take the processor meanwhile: only the magnitude is sure.
      const ratio = sum("milliseconds") / profile.milliseconds;
      assert.ok(ratio > 0.1 && ratio < 10, `nodes take ${ratio} of the step`);
      const slowest = profile.nodes.reduce((a, b) => (a.milliseconds > b.milliseconds ? a : b));
      assert.ok(["conv2d", "linear"].includes(slowest.op), `${slowest.path} is the slowest`);
      for (const node of profile.nodes) assert.ok(node.path && node.kernel && node.shape.length > 0, node.path);
    });

    test("a pipeline that is busy or disposed says so, and can be disposed twice", async ({ page, site }) => {
      const report = await onPage(
        page,
        site,
        async (load) => {
          const { Pipeline, settle, model } = window;
          const pipeline = await Pipeline.load(model, load);
          const first = pipeline.sample({ steps: 20 })[Symbol.asyncIterator]();
          await first.next();
          const busy = await settle(pipeline.sample({ steps: 1 }));
          const under_way = settle(first.next());
          await Promise.all([pipeline.dispose(), pipeline.dispose()]);
          await pipeline.dispose();
          const disposed = await settle(pipeline.sample({ steps: 1 }));
          const { error, value } = await under_way;
          return { busy: busy.error?.code, disposed: disposed.error?.code, under_way: error?.code ?? typeof value };
        },
        load,
      );
      assert.equal(report.busy, "busy");
      assert.equal(report.disposed, "disposed");
      assert.ok(["disposed", "object"].includes(report.under_way), report.under_way);
    });

    test("no option makes it panic", async ({ page, site }) => {
      const wrong = [
        { steps: 0 },
        { steps: -1 },
        { steps: 1.5 },
        { steps: 1e9 },
        { steps: "many" },
        { seed: -1 },
        { seed: 2 ** 64 },
        { seed: 0.5 },
        { guidanceScale: null },
        { guidanceScale: "high" },
        { solver: "magic" },
        { eta: -1 },
        { width: 0 },
        { width: 63 },
        { height: 1e9 },
        { width: 8192, height: 8192 },
        { prompt: 7 },
        { negativePrompt: {} },
        { guidance: 5 },
        { prompt: ["a", 7] },
        { prompt: ["a", "b"], negativePrompt: ["c", "d", "e"] },
        { seeds: [1, -1] },
        { seeds: [1, 2, 3] },
        { seeds: 7 },
        { generator: "mps" },
        { numImagesPerPrompt: 0 },
        { numImagesPerPrompt: 1e9 },
        { timesteps: [1, "2"] },
        { timesteps: [] },
        { sigmas: [0] },
        { guidanceRescale: 2 },
        { strength: 0.5 },
        { noiseLevel: 20 },
        { clipSkip: -1 },
        { clipSkip: 99 },
        { longPrompts: "wrap" },
        { originalSize: [64, 64] },
        { originalSize: [64] },
        { preview: "some" },
        { image: 7 },
        { image: {} },
        { mask: true },
      ];
      const codes = await onPage(
        page,
        site,
        async ([load, wrong]) => {
          const { Pipeline, settle, model } = window;
          const pipeline = await Pipeline.load(model, load);
          const codes = [];
          for (const options of [
            ...wrong,
            { guidanceScale: NaN },
            { guidanceScale: Infinity },
            { eta: NaN },
            { seed: -1n },
            { seed: 2n ** 64n },
            { solver: "ddim", scheduler: { _class_name: "DDIMScheduler" } },
            { scheduler: "DDIMScheduler" },
            { scheduler: {} },
            { scheduler: [] },
            { scheduler: { _class_name: "NoSuchScheduler" } },
            { scheduler: { _class_name: "DDIMScheduler", num_train_timesteps: 1e300 } },
            { scheduler: { _class_name: "DDIMScheduler", beta_end: NaN } },
            { scheduler: { _class_name: "DDIMScheduler", size: 1n } },
          ]) {
            codes.push(
              (await settle(pipeline.sample({ steps: 1, ...options }))).error?.code ??
                `accepted ${Object.entries(options)}`,
            );
          }
          // After all that it still draws.
          codes.push((await pipeline.sample({ steps: 1, prompt: "\u{1F98A} fox \0 ".repeat(200) })).width);
          await pipeline.dispose();
          return codes;
        },
        [load, wrong],
      );
      assert.deepEqual(codes, [...Array(wrong.length + 13).fill("invalid-option"), 64]);
    });
  });
}

describe("GPU memory", () => {
  const test = browserTests({ graphics: "webgpu", mounts });

  test("comes back after every run, however it ended, and entirely after disposal", async ({ page, site }) => {
    const live = await onPage(page, site, async () => {
      const { Pipeline, memory, settle, model } = window;
      const live = [];
      const pipeline = await Pipeline.load(model, { device: "webgpu", worker: false });
      for (const end of ["whole", "break", "abort", "whole"]) {
        const controller = new AbortController();
        await settle(
          (async () => {
            for await (const step of pipeline.sample({ steps: 3, signal: controller.signal })) {
              if (end === "break" && step.index === 0) break;
              if (end === "abort" && step.index === 0) controller.abort();
            }
          })(),
        );
        // What an abort has ended is freed before whatever is asked next.
        await pipeline.schedule();
        live.push(memory.live);
      }
      await pipeline.dispose();
      live.push(memory.live);
      return live;
    });
    const [first, ...rest] = live;
    assert.ok(first > 0);
    assert.deepEqual(rest, [first, first, first, 0]);
  });

  test("comes back from a forward process, a bound and an extractor of features", async ({ page, site }) => {
    const live = await onPage(page, site, async () => {
      const { FeatureExtractor, Pipeline, memory, settle, model } = window;
      const live = [];
      const pipeline = await Pipeline.load(model, { device: "webgpu", worker: false });
      // With a preview, whose map to colours is kept from then on.
      let image = new ImageData(64, 64);
      for await (const step of pipeline.sample({ steps: 2 })) image = step.image;
      for (let round = 0; round < 2; round++) {
        live.push(memory.live);
        const forward = await pipeline.forwardProcess({ image });
        await forward.predict(500);
        const opened = memory.live;
        await forward.dispose();
        live.push(Math.sign(opened - memory.live), memory.live);
        await pipeline.bound({ image, timesteps: [0, 500] });
        for await (const { index } of pipeline.bound({ image })) if (index === 1) break;
        await settle(pipeline.bound({ image, signal: AbortSignal.timeout(100) }));
        await pipeline.schedule();
        live.push(memory.live);
        const extractor = await FeatureExtractor.load("models/emoji-features/", { device: "webgpu", worker: false });
        await (await extractor.statistics()).add(image);
        await extractor.dispose();
        live.push(memory.live);
      }
      await pipeline.dispose();
      live.push(memory.live);
      return live;
    });
    const [first] = live;
    assert.ok(first > 0);
    const round = [first, 1, first, first, first];
    assert.deepEqual(live, [...round, ...round, 0]);
  });

  test("is not held by a load that failed or was aborted", async ({ page, site, expectError }) => {
    expectError(/ERR_/);
    site.break("vae/diffusion_pytorch_model.safetensors", faults.truncated(1000));
    const [failed, live] = await onPage(page, site, async () => {
      const { Pipeline, memory, settle, model } = window;
      const failed = await settle(Pipeline.load(model, { device: "webgpu", worker: false }));
      return [failed.error?.code, memory.live];
    });
    assert.deepEqual([failed, live], ["file-truncated", 0]);
  });

  test("that runs out while loading is reported with the weight for which there was none", async ({ page, site }) => {
    const [error, live] = await onPage(page, site, async () => {
      const { Pipeline, memory, settle, model } = window;
      // The tenth buffer with room for a matrix is refused, as a GPU would.
      let buffers = 0;
      /** @type {{ filter: string, failed: boolean }[]} */
      const scopes = [];
      const { createBuffer, pushErrorScope, popErrorScope } = GPUDevice.prototype;
      Object.assign(GPUDevice.prototype, {
        /** @this {GPUDevice} @param {GPUBufferDescriptor} descriptor */
        createBuffer(descriptor) {
          if (descriptor.size > 10_000 && ++buffers === 10) scopes.forEach((scope) => (scope.failed = true));
          return createBuffer.call(this, descriptor);
        },
        /** @this {GPUDevice} @param {GPUErrorFilter} filter */
        pushErrorScope(filter) {
          scopes.push({ filter, failed: false });
          return pushErrorScope.call(this, filter);
        },
        /** @this {GPUDevice} */
        async popErrorScope() {
          const scope = scopes.pop();
          const error = await popErrorScope.call(this);
          return scope?.failed && scope.filter === "out-of-memory" ? new GPUOutOfMemoryError("no memory") : error;
        },
      });
      const { error } = await settle(Pipeline.load(model, { device: "webgpu", worker: false }));
      return [error, memory.live];
    });
    assert.equal(error.code, "out-of-memory");
    assert.match(error.tensor, /\.weight$/);
    assert.match(error.message, /out of GPU memory/);
    assert.equal(live, 0);
  });
});

describe("loading", () => {
  const test = browserTests({ graphics: "webgpu", mounts });

  test("ends when it is aborted, and fetches nothing more", async ({ page, site, expectError }) => {
    expectError(/ERR_ABORTED/);
    site.break(UNET, faults.slow(200_000));
    const code = await onPage(page, site, async () => {
      const { Pipeline, settle, model } = window;
      const controller = new AbortController();
      const onProgress = (/** @type {{ file: string }} */ { file }) => file.startsWith("unet/") && controller.abort();
      return (await settle(Pipeline.load(model, { device: "cpu", onProgress, signal: controller.signal }))).error?.code;
    });
    assert.equal(code, "aborted");
    const count = site.requests.length;
    await page.waitForTimeout(500);
    assert.equal(site.requests.length, count);
  });

  test("goes on where another caller aborts the start of the module that they share", async ({
    page,
    site,
    expectError,
  }) => {
    expectError(/ERR_ABORTED/);
    site.break("undiffuse_bg.wasm", faults.slow(400_000));
    const report = await onPage(page, site, async () => {
      const { Pipeline, settle, model } = window;
      const controller = new AbortController();
      const load = /** @type {const} */ ({ device: "cpu", worker: false });
      const aborted = settle(Pipeline.load(model, { ...load, signal: controller.signal }));
      const other = Pipeline.load(model, load);
      setTimeout(() => controller.abort(), 200);
      const code = (await aborted).error?.code;
      const { width } = await (await other).sample({ steps: 1 });
      return [code, width];
    });
    assert.deepEqual(report, ["aborted", 64]);
  });

  test("fails when the module traps, then and ever after", async ({ page, site, expectError }) => {
    expectError(/unreachable/);
    site.break(UNET, faults.slow(2_000_000));
    const errors = await onPage(page, site, async () => {
      const { Pipeline, settle, model } = window;
      const trap = () =>
        queueMicrotask(() => {
          throw new WebAssembly.RuntimeError("unreachable");
        });
      const onProgress = (/** @type {{ file: string }} */ { file }) => file.startsWith("unet/") && trap();
      const load = /** @type {const} */ ({ device: "cpu", worker: false });
      const first = await settle(Pipeline.load(model, { ...load, onProgress }));
      const second = await settle(Pipeline.load(model, load));
      // A worker is a thread of its own, with a module of its own.
      const third = await settle(Pipeline.load(model, { device: "cpu" }).then((pipeline) => pipeline.dispose()));
      return [first, second, third].map(({ error }) => [error?.code, error?.message]);
    });
    for (const [code, message] of errors.slice(0, 2)) {
      assert.equal(code, "internal");
      assert.match(message, /unreachable.*Reload the page/);
    }
    assert.equal(errors[2][0], undefined);
  });

  test("takes the module as a URL, as bytes and compiled", async ({ page, site }) => {
    const widths = await onPage(page, site, async () => {
      const { Pipeline, model } = window;
      const url = new URL("pkg/internal/undiffuse_bg.wasm", location.href);
      const bytes = await (await fetch(url)).arrayBuffer();
      const widths = [];
      for (const wasm of [url, String(url), bytes, new Uint8Array(bytes), await WebAssembly.compile(bytes)]) {
        const pipeline = await Pipeline.load(model, { device: "cpu", wasm });
        widths.push((await pipeline.sample({ steps: 1 })).width);
        await pipeline.dispose();
      }
      return widths;
    });
    assert.deepEqual(widths, [64, 64, 64, 64, 64]);
  });

  test("reads what the user picked: a list of files, blobs by their path, a directory", async ({ page, site }) => {
    const report = await onPage(
      page,
      site,
      async (files) => {
        const { Pipeline, model } = window;
        /** @type {Map<string, Blob>} */
        const blobs = new Map();
        for (const path of files) blobs.set(path, await (await fetch(model + path)).blob());
        const list = [...blobs].map(([path, blob]) => {
          const file = new File([blob], path.split("/").at(-1) ?? "");
          // As the browser sets it for a chosen folder.
          return Object.defineProperty(file, "webkitRelativePath", { value: `emoji64/${path}` });
        });
        const directory = await navigator.storage.getDirectory();
        for (const [path, blob] of blobs) {
          let folder = directory;
          const [name, ...above] = path.split("/").reverse();
          for (const part of above.reverse()) folder = await folder.getDirectoryHandle(part, { create: true });
          const out = await (await folder.getFileHandle(name, { create: true })).createWritable();
          await out.write(blob);
          await out.close();
        }
        /** @type {string[]} */
        const pictures = [];
        for (const source of [model, list, blobs, directory]) {
          const pipeline = await Pipeline.load(source, { device: "cpu" });
          pictures.push(String((await pipeline.sample({ prompt: "fox", steps: 1 })).data));
          await pipeline.dispose();
        }
        return pictures.map((picture) => picture === pictures[0]);
      },
      CHECKPOINT,
    );
    assert.deepEqual(report, [true, true, true, true]);
  });

  test("takes a worker that the page made", async ({ page, site }) => {
    const [width, answers] = await onPage(page, site, async () => {
      const { Pipeline, model } = window;
      const worker = new Worker(new URL("pkg/worker.js", location.href), { type: "module" });
      const pipeline = await Pipeline.load(model, { device: "cpu", worker });
      const { width } = await pipeline.sample({ steps: 1 });
      await pipeline.dispose();
      // The worker is the page's, and serves another pipeline.
      const next = await Pipeline.load(model, { device: "cpu", worker });
      const answers = (await next.sample({ steps: 1 })).width;
      worker.terminate();
      return [width, answers];
    });
    assert.deepEqual([width, answers], [64, 64]);
  });

  /** @type {[string, import("./harness/server.js").Fault, object][]} */
  const damages = [
    ["file-missing", faults.missing(), { name: "SourceError", file: UNET }],
    ["file-truncated", faults.truncated(100_000), { name: "SourceError", file: UNET }],
    [
      "shape-mismatch",
      faults.changed(withWrongShape("conv_in.weight")),
      { name: "ModelError", file: UNET, tensor: "conv_in.weight" },
    ],
    ["network", faults.cutWithoutResume(100_000), { name: "SourceError", file: UNET }],
  ];
  for (const [code, fault, details] of damages) {
    test(`rejects with ${code}, the class and the file`, async ({ page, site, expectError }) => {
      expectError(/404|ERR_/);
      site.break(UNET, fault);
      const { error } = await onPage(page, site, async () => {
        const { Pipeline, settle, model } = window;
        return settle(Pipeline.load(model, { device: "cpu" }));
      });
      const { message, option, limit, class: _, ...rest } = error;
      assert.match(message, /unet\/diffusion_pytorch_model\.safetensors/);
      // A truncated file breaks off in some tensor.
      if (code === "file-truncated") delete rest.tensor;
      assert.deepEqual(JSON.parse(JSON.stringify(rest)), { code, ...details });
    });
  }

  test("fails with a code where the module is missing or the options are wrong", async ({
    page,
    site,
    expectError,
  }) => {
    expectError(/404/);
    const codes = await onPage(page, site, async () => {
      const { Pipeline, UndiffuseError, settle, model } = window;
      const codes = [];
      for (const [source, options] of /** @type {[any, object][]} */ ([
        [model, { wasm: "nowhere.wasm" }],
        [model, { shaders: 7 }],
        [model, { device: "tpu" }],
        [model, { divice: "cpu" }],
        [model, { cpu: { threads: 0 } }],
        [model, { cpu: { thread: 2 } }],
        [model, { cpu: { simd: "avx" } }],
        [undefined, {}],
        ["nowhere/", {}],
        [[], {}],
        [model, { predictionType: "v" }],
        // A folder says itself what is predicted.
        [model, { predictionType: "epsilon" }],
        [model, { unet: "unet/nowhere.gguf" }],
      ])) {
        const { error } = await settle(Pipeline.load(source, options));
        codes.push(error?.code);
      }
      return [codes, typeof UndiffuseError];
    });
    assert.deepEqual(codes, [
      [
        ...["file-missing", "invalid-option"],
        ...["invalid-option", "invalid-option", "invalid-option", "invalid-option", "invalid-option"],
        ...["invalid-option", "file-missing", "file-missing", "invalid-option", "invalid-option", "file-missing"],
      ],
      "function",
    ]);
  });
});

describe("the kernels of WebGPU", () => {
  const test = browserTests({ graphics: "webgpu", mounts });

  test("are fetched from where the caller says, and only for a GPU", async ({ page, site, expectError }) => {
    expectError(/404/);
    const report = await onPage(page, site, async () => {
      const { Pipeline, settle, model } = window;
      const load = async (/** @type {"webgpu" | "cpu"} */ device, /** @type {string} */ shaders) => {
        const { value, error } = await settle(Pipeline.load(model, { device, shaders, worker: false }));
        await value?.dispose();
        return error ? [error.code, error.file?.replace(/.*[/]/, "")] : [];
      };
      const own = new URL("pkg/internal/shaders.txt?own", location.href).href;
      const loads = [await load("webgpu", own), await load("webgpu", "nowhere.txt"), await load("cpu", "nowhere.txt")];
      const fetched = performance.getEntriesByType("resource").map(({ name }) => name);
      return {
        loads,
        isFetched: fetched.includes(own),
        isBuiltInFetched: fetched.some((name) => name.endsWith("shaders.txt")),
      };
    });
    assert.deepEqual(report.loads, [[], ["file-missing", "nowhere.txt"], []]);
    assert.deepEqual([report.isFetched, report.isBuiltInFetched], [true, false]);
  });
});

describe("pictures that are passed in", () => {
  const test = browserTests({ graphics: "webgpu", mounts });

  test("are taken in every form, and change the run alike", async ({ page, site, expectError }) => {
    expectError(/404/);
    const report = await onPage(page, site, async () => {
      const { Pipeline, settle, model } = window;
      const pipeline = await Pipeline.load(model, { device: "cpu" });
      const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
      const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
      context.fillStyle = "rgb(200 40 90)";
      context.fillRect(0, 0, 64, 48);
      context.fillStyle = "rgb(10 200 90)";
      context.fillRect(8, 8, 30, 20);
      /** @type {Blob} */
      const blob = await new Promise((resolve) => canvas.toBlob((blob) => resolve(/** @type {Blob} */ (blob))));
      const url = URL.createObjectURL(blob);
      const element = Object.assign(new Image(), { src: url });
      await element.decode();
      const offscreen = new OffscreenCanvas(64, 48);
      offscreen.getContext("2d")?.drawImage(canvas, 0, 0);
      const data = context.getImageData(0, 0, 64, 48);
      /** @type {string[]} */
      const pictures = [];
      const draw = async (/** @type {object} */ options) => {
        const picture = await pipeline.sample({ prompt: "fox", steps: 3, strength: 0.7, ...options });
        pictures.push(`${picture.width}×${picture.height} ${picture.data}`);
      };
      for (const image of [blob, url, new URL(url), element, canvas, offscreen, data, await createImageBitmap(blob)]) {
        await draw({ image });
      }
      const mask = new ImageData(64, 48);
      mask.data.fill(255, 0, 64 * 24 * 4);
      await draw({ image: data, mask });
      const errors = [];
      for (const image of [new Blob(["x"]), "nowhere.png", new Image(), new OffscreenCanvas(0, 4)]) {
        errors.push((await settle(pipeline.sample({ image, steps: 1 }))).error?.code);
      }
      await pipeline.dispose();
      return {
        size: pictures[0].split(" ")[0],
        same: pictures.map((picture) => pictures.indexOf(picture)),
        errors,
      };
    });
    assert.deepEqual(report, {
      size: "64×48",
      same: [0, 0, 0, 0, 0, 0, 0, 0, 8],
      errors: ["invalid-option", "file-missing", "invalid-option", "invalid-option"],
    });
  });
});

describe("the beginning of a run", () => {
  const test = browserTests({ graphics: "webgpu", mounts });

  test("is a step before the first where it is asked for, and changes none of the others", async ({ page, site }) => {
    const report = await onPage(page, site, async () => {
      const { Pipeline, settle, model } = window;
      const reports = [];
      for (const load of /** @type {const} */ ([{ device: "cpu" }, { device: "cpu", worker: false }])) {
        const pipeline = await Pipeline.load(model, load);
        /** @type {(options: import("../../js/index.js").SampleOptions) => Promise<any[]>} */
        const steps = async (options) => {
          const steps = [];
          for await (const step of pipeline.sample({ prompt: "panda", seed: 7, steps: 2, ...options })) {
            const { index, total, timestep, images, denoisedImages } = step;
            const data = [...images, ...denoisedImages].map(({ data }) => String(data));
            steps.push({ index, total, timestep, counts: [images.length, denoisedImages.length], data });
          }
          return steps;
        };
        const plain = await steps({ preview: "decode" });
        const [initial, ...rest] = await steps({ preview: "decode", includeInitial: true });
        const [other] = await steps({ preview: "decode", solver: "ddim", includeInitial: true });
        const [linear] = await steps({ includeInitial: true });
        const [none] = await steps({ preview: "none", includeInitial: true });
        const two = await steps({ numImagesPerPrompt: 2, includeInitial: true });
        const awaited = await pipeline.sample({ prompt: "panda", seed: 7, steps: 2, includeInitial: true });
        const wrong = (await settle(pipeline.sample(/** @type {any} */ ({ includeInitial: 1 })))).error?.code;
        await pipeline.dispose();
        reports.push({
          same: JSON.stringify(rest) === JSON.stringify(plain),
          initial: [initial.index, initial.total, initial.timestep === plain[0].timestep, initial.counts],
          isNoise: !plain.some(({ data }) => data[0] === initial.data[0]),
          ofSeed: other.data[0] === initial.data[0],
          linear: [linear.counts, linear.data[0] === initial.data[0]],
          none: none.counts,
          two: two.map(({ counts }) => counts),
          awaited: String(awaited.data) === plain[1].data[0],
          wrong,
        });
      }
      return reports;
    });
    const expected = {
      same: true,
      initial: [-1, 2, true, [1, 0]],
      isNoise: true,
      ofSeed: true,
      linear: [[1, 0], false],
      none: [0, 0],
      two: [
        [2, 0],
        [2, 2],
        [2, 2],
      ],
      awaited: true,
      wrong: "invalid-option",
    };
    assert.deepEqual(report, [expected, expected]);
  });
});

describe("several pictures", () => {
  const test = browserTests({ graphics: "webgpu", mounts });

  test("come together, as often as asked of each prompt, and their seeds make them what they are alone", async ({
    page,
    site,
  }) => {
    const report = await onPage(page, site, async () => {
      const { Pipeline, model } = window;
      const pipeline = await Pipeline.load(model, { device: "cpu" });
      const options = { prompt: ["fox", "panda"], numImagesPerPrompt: 2, seeds: [1, 2n, 3, 4], steps: 2 };
      const counts = [];
      const run = pipeline.sample({ ...options, preview: "linear" });
      for await (const { images, denoisedImages, image } of run) {
        counts.push([images.length, denoisedImages.length, images[0] === image]);
      }
      const together = (await run.images()).map(({ data }) => String(data));
      /** @type {string[]} */
      const alone = [];
      for (const [index, seed] of options.seeds.entries()) {
        const { data } = await pipeline.sample({ prompt: options.prompt[index >> 1], seed, steps: 2 });
        alone.push(String(data));
      }
      /** @type {(number | undefined)[][]} */
      const bare = [];
      for await (const { images, image } of pipeline.sample({ steps: 3, preview: "none" })) {
        bare.push([images.length, image?.width]);
      }
      await pipeline.dispose();
      return { counts, same: together.map((picture, index) => picture === alone[index]), bare };
    });
    assert.deepEqual(report, {
      counts: Array(2).fill([4, 4, true]),
      same: [true, true, true, true],
      bare: [
        [0, undefined],
        [0, undefined],
        [1, 64],
      ],
    });
  });
});

describe("LoRAs", () => {
  const reference = join(root, "tests/reference/pipelines");
  const test = browserTests({
    graphics: "webgpu",
    mounts: {
      ...mounts,
      "/api/models/sd/": join(reference, "models/sd"),
      "/api/lora/": join(reference, "lora"),
    },
  });

  test("are read once, weighed, taken out, and refused without a trace", async ({ page, site, expectError }) => {
    expectError(/404/);
    const report = await onPage(page, site, async () => {
      const { Pipeline, settle } = window;
      const source = "lora/kohya_unet_te.safetensors";
      const pipeline = await Pipeline.load("models/sd/", { device: "cpu", loras: [{ source, weight: 0.5 }] });
      /** @type {string[]} */
      const pictures = [];
      const draw = async () => pictures.push(String((await pipeline.sample({ prompt: "a cat", steps: 1 })).data));
      await draw();
      await pipeline.setLoras([]);
      await draw();
      await pipeline.setLoras([{ source }, { source: new URL(source, location.href), weight: -0.5 }]);
      await draw();
      const file = new File([await (await fetch(source)).blob()], "mine.safetensors");
      await pipeline.setLoras([{ source: file, weight: 0.5 }]);
      await draw();
      const notes = [pipeline.loraNotes.length];
      const adapter = new File(
        [await (await fetch("lora/peft_unet_attn.safetensors")).blob()],
        "adapter_model.safetensors",
      );
      const config = new File([JSON.stringify({ r: 4, lora_alpha: 8 })], "adapter_config.json");
      for (const lora of [{ source: [adapter, config] }, { source: adapter, weight: 2 }]) {
        await pipeline.setLoras([lora]);
        await draw();
        notes.push(pipeline.loraNotes.length);
      }
      await pipeline.setLoras([{ source: file, weight: 0.5 }]);
      const errors = [];
      for (const loras of /** @type {any[]} */ ([
        [{ source: "lora/none.safetensors" }],
        [{ source: "models/sd/unet/diffusion_pytorch_model.safetensors" }],
        [{ source: "models/sd/" }],
        [{ source: file, weight: NaN }],
        [{ file }],
        7,
      ])) {
        errors.push((await settle(pipeline.setLoras(loras))).error?.code);
      }
      await draw();
      const run = pipeline.sample({ steps: 2 })[Symbol.asyncIterator]();
      await run.next();
      errors.push((await settle(pipeline.setLoras([]))).error?.code);
      await pipeline.dispose();
      return { same: pictures.map((picture) => pictures.indexOf(picture)), notes, errors };
    });
    // The adapter at an alpha of twice its rank is itself at a weight of 2, and only without its config has to be guessed at.
    assert.deepEqual(report.same, [0, 1, 0, 0, 4, 4, 0]);
    assert.deepEqual(report.notes, [0, 0, 1]);
    const [missing, other, ...rest] = report.errors;
    assert.equal(missing, "file-missing");
    assert.ok(["file-corrupt", "unsupported", "shape-mismatch"].includes(other), other);
    assert.deepEqual(rest, [...Array(4).fill("invalid-option"), "busy"]);
    const reads = site.requests.filter(({ path }) => path.endsWith("kohya_unet_te.safetensors"));
    // At load; again after it had been taken out, where both entries are one address; for the test's own file.
    assert.equal(reads.length, 3, JSON.stringify(reads));
  });
});

describe("a scheduler of the caller’s own", () => {
  const test = browserTests({ graphics: "webgpu", mounts });

  test("takes the place of the checkpoint’s, infinities included", async ({ page, site }) => {
    const own = JSON.parse(await readFile(join(CHECKPOINT_FOLDER, "scheduler/scheduler_config.json"), "utf8"));
    const pictures = await onPage(
      page,
      site,
      async (own) => {
        const { Pipeline, model } = window;
        const pipeline = await Pipeline.load(model, { device: "cpu" });
        const dpm = { ...own, _class_name: "DPMSolverMultistepScheduler" };
        /** @type {string[]} */
        const pictures = [];
        for (const options of [
          {},
          { scheduler: own },
          { solver: "dpmpp_2m" },
          { scheduler: { ...dpm, lambda_min_clipped: -Infinity } },
          { scheduler: { ...own, timestep_spacing: "trailing" } },
        ]) {
          pictures.push(String((await pipeline.sample({ prompt: "fox", seed: 5, steps: 3, ...options })).data));
        }
        await pipeline.dispose();
        return pictures.map((picture) => pictures.indexOf(picture));
      },
      own,
    );
    assert.deepEqual(pictures, [0, 0, 2, 2, 4]);
  });
});

describe("a GPU that goes away", () => {
  // A browser of its own: Chromium gives no adapter after its GPU process has crashed twice.
  const test = browserTests({ graphics: "webgpu", mounts });

  test("ends the run and every later one with device-lost", async ({ page, site }) => {
    const run = onPage(page, site, async () => {
      const { Pipeline, settle, model } = window;
      const pipeline = await Pipeline.load(model, { device: "webgpu" });
      const first = await settle(
        (async () => {
          for await (const { index } of pipeline.sample({ steps: 50 })) if (index === 0) document.title = "crash";
        })(),
      );
      const second = await settle(pipeline.sample({ steps: 1 }));
      await pipeline.dispose();
      return [first, second].map(({ error }) => [error?.name, error?.code]);
    });
    await page.waitForFunction(() => document.title === "crash");
    await (await page.context().browser()?.newBrowserCDPSession())?.send("Browser.crashGpuProcess");
    assert.deepEqual(await run, Array(2).fill(["DeviceError", "device-lost"]));
  });
});
