/**
 * Every pipeline through the package, in the browser: the pictures of the runs that diffusers recorded. They are those of `UNDIFFUSE_REFERENCE`,
 * or of the copy beside the tests; the crate is held to the same ones, tensor by tensor, in `tests/pipelines.rs`.
 */
import assert from "node:assert/strict";
import { access, readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { describe } from "node:test";
import { browserTests, root } from "./harness/index.js";

/**
 * A recorded run: `run.json`.
 * @typedef {object} Recorded
 * @property {string} name
 * @property {string} pipeline_class
 * @property {string} model  a folder of models, in words where its weights were changed
 * @property {Record<string, unknown>} call_arguments
 * @property {number} seed
 * @property {string | string[]} generator
 */

const folder = join(
  process.env.UNDIFFUSE_REFERENCE ? resolve(process.env.UNDIFFUSE_REFERENCE) : join(root, "tests/reference"),
  "pipelines",
);

/** Python writes infinities bare, which is not JSON. @param {string} path */
const readJson = async (path) =>
  JSON.parse((await readFile(path, "utf8")).replaceAll(/: (-?Infinity|NaN)\b/g, ': "$1"'));

/** @type {Recorded[]} */
const runs = await Promise.all(
  (await readdir(join(folder, "runs"))).sort().map((name) => readJson(join(folder, "runs", name, "run.json"))),
);

/** What the package calls an argument where it is not the same in camel case. */
const OPTIONS = /** @type {Record<string, string>} */ ({
  num_inference_steps: "steps",
  batch_size: "numImagesPerPrompt",
  prompt_2: "prompt2",
  negative_prompt_2: "negativePrompt2",
});

/** @param {string} argument */
const optionOf = (argument) => OPTIONS[argument] ?? argument.replaceAll(/_(\w)/g, (_, letter) => letter.toUpperCase());

/**
 * What a run needs on the page: the model with what is changed about it, the options, the addresses of its pictures.
 * @param {Recorded} run
 */
async function described(run) {
  const at = join(folder, "runs", run.name);
  const has = (/** @type {string} */ file) =>
    access(join(at, file)).then(
      () => true,
      () => false,
    );
  const arguments_ = Object.entries(run.call_arguments).filter(([, value]) => value !== null);
  const [, model, lora] = /** @type {RegExpExecArray} */ (/^(\w+)(?: \+ (\S+))?/.exec(run.model));
  const scale = /scale(\d+(?:\.\d+)?)$/.exec(run.name);
  return {
    model,
    variant: /variant (\w+)/.exec(run.model)?.[1],
    loras: lora ? [{ source: lora, weight: Number(scale?.[1] ?? 1) }] : [],
    options: {
      ...Object.fromEntries(arguments_.map(([argument, value]) => [optionOf(argument), value])),
      ...(Array.isArray(run.generator)
        ? { seeds: run.generator.map((text) => Number(/\d+/.exec(text)?.[0])) }
        : { seed: run.seed }),
      scheduler: await readJson(join(at, "scheduler_config.json")),
      ...((await has("init_image.png")) && { image: `runs/${run.name}/init_image.png` }),
      ...((await has("mask.png")) && { mask: `runs/${run.name}/mask.png` }),
    },
    expected: (await readdir(at)).filter((file) => /^image_\d+\.png$/.test(file)).sort(),
  };
}

/**
 * Makes a run on the page and compares its pictures; what is wrong with them, if anything is.
 * @param {import("playwright-core").Page} page
 * @param {Recorded} run
 * @param {"cpu" | "webgpu"} device
 * @returns {Promise<string | undefined>}
 */
async function check(page, run, device) {
  return page.evaluate(
    async ({ name, device, model, variant, loras, options, expected }) => {
      // One model at a time: it is kept for the next run.
      const wanted = JSON.stringify([device, model, variant]);
      if (window.opened?.wanted !== wanted) {
        await window.opened?.pipeline.dispose();
        window.opened = undefined;
        const pipeline = await window.Pipeline.load(`models/${model}/`, { device, variant });
        window.opened = { wanted, pipeline };
      }
      const { pipeline } = window.opened;
      await pipeline.setLoras(loras);
      const images = await pipeline.sample(options).images();
      if (images.length !== expected.length) return `${images.length} pictures, expected ${expected.length}`;
      for (const [index, file] of expected.entries()) {
        const bitmap = await createImageBitmap(await (await fetch(`runs/${name}/${file}`)).blob());
        const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
        context?.drawImage(bitmap, 0, 0);
        const wanted = context?.getImageData(0, 0, bitmap.width, bitmap.height);
        const image = images[index];
        if (image.width !== wanted?.width || image.height !== wanted.height) {
          return `${file} is ${image.width}×${image.height}, expected ${wanted?.width}×${wanted?.height}`;
        }
        // The tolerance of the reference: at most one level on 99.5 % of the values.
        const off = image.data.filter((value, at) => Math.abs(value - wanted.data[at]) > 1).length;
        if (off > 0.005 * image.width * image.height * 3) return `${file}: ${off} values are off by more than a level`;
      }
      return undefined;
    },
    { name: run.name, device, ...(await described(run)) },
  );
}

describe("runs recorded from diffusers", () => {
  const test = browserTests({
    graphics: "webgpu",
    mounts: {
      "/": join(root, "tests/browser/pipeline"),
      "/pkg/": join(root, "pkg"),
      "/models/": join(folder, "models"),
      "/lora/": join(folder, "lora"),
      "/runs/": join(folder, "runs"),
    },
  });

  /** @param {Recorded[]} chosen @param {"cpu" | "webgpu"} device */
  const reproduce =
    (chosen, device) =>
    async (/** @type {import("./harness/index.js").Fixture} */ { page, site, context }) => {
      await page.goto(site.url("/"));
      await page.waitForFunction(() => "settle" in window);
      /** @type {string[]} */
      const failures = [];
      for (const run of chosen) {
        const failure = await check(page, run, device).catch((error) => String(error.message));
        if (failure) failures.push(`${run.name}: ${failure}`);
      }
      context.diagnostic(`pipelines on ${device}: ${chosen.length} ran, ${failures.length} failed, 0 skipped`);
      assert.deepEqual(failures, []);
      assert.ok(chosen.length > 0, "no run was made");
    };

  // Those of a model one after the other: it is loaded once.
  const byModel = [...runs].sort((one, other) => (one.model < other.model ? -1 : one.model > other.model ? 1 : 0));
  test("each is reproduced on cpu", reproduce(byModel, "cpu"), 60_000 * (1 + runs.length));

  // A software adapter compiles each network for seconds.
  const kinds = new Map(byModel.map((run) => [`${run.pipeline_class} of ${run.model}`, run]));
  test("one of each kind is reproduced on webgpu", reproduce([...kinds.values()], "webgpu"), 60_000 * (1 + kinds.size));
});
