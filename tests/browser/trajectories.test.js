/**
 * The shipped model, whole runs in the browser: the same tokens, x_t after every step, and picture as diffusers. The runs are those of
 * `UNDIFFUSE_TRAJECTORIES`, or of the copy beside the tests; the command line is held to the same ones in `tests/trajectories.rs`.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { describe } from "node:test";
import { browserTests, root } from "./harness/index.js";
import { readTensors } from "./harness/safetensors.js";

/** @import { Tensor } from "./harness/safetensors.js" */
/** @import { CpuOptions } from "../../js/index.js" */
/** @import { Core } from "./window.js" */

/**
 * A run of `index.json`.
 * @typedef {object} Recorded
 * @property {string} id
 * @property {string} prompt
 * @property {string} [negative_prompt]
 * @property {number} seed
 * @property {number} steps
 * @property {number} guidance_scale
 * @property {number} [eta]
 * @property {string} scheduler_class
 * @property {Record<string, unknown>} scheduler_config
 * @property {number[]} token_ids
 * @property {number[]} negative_token_ids
 */

const folder = process.env.UNDIFFUSE_TRAJECTORIES
  ? resolve(process.env.UNDIFFUSE_TRAJECTORIES)
  : join(root, "tests/trajectories");

/** @type {{ runs: Recorded[] }} */
const { runs } = JSON.parse(
  // Python writes infinities bare, which is not JSON.
  (await readFile(join(folder, "index.json"), "utf8")).replaceAll(/: (-?Infinity|NaN)\b/g, ': "$1"'),
);

/** @param {Tensor} tensor */
const maxAbs = ({ data }) => data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

/**
 * Refuses values of which one is farther from the expected than `tolerance`; says which is the farthest.
 * @param {string} what @param {number[]} actual @param {Tensor} expected @param {number} tolerance
 */
function assertNear(what, actual, expected, tolerance) {
  assert.equal(actual.length, expected.data.length, `${what}: the number of elements`);
  let [worst, distance] = [0, -1];
  actual.forEach((value, at) => {
    const off = Math.abs(value - expected.data[at]);
    // A value that is not a number is the farthest of all.
    if (!(off <= distance)) [worst, distance] = [at, Number.isNaN(off) ? Infinity : off];
  });
  if (distance <= tolerance) return;
  const index = [];
  for (let rest = worst, axis = expected.shape.length - 1; axis >= 0; axis--) {
    index.unshift(rest % expected.shape[axis]);
    rest = Math.floor(rest / expected.shape[axis]);
  }
  assert.fail(
    `${what}: worst at [${index}]: ${actual[worst]}, expected ${expected.data[worst]}: ` +
      `off by ${distance.toExponential(3)}, allowed ${tolerance.toExponential(3)}`,
  );
}

/** The bits of f32 values: 32-bit FNV-1a of their little-endian bytes. @param {number[]} values */
function checksum(values) {
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  const hash = bytes.reduce((hash, byte) => Math.imul(hash ^ byte, 0x01000193), 0x811c9dc5);
  return (hash >>> 0).toString(16).padStart(8, "0");
}

/**
 * One part of a tensor along its first axis.
 * @param {Tensor} tensor @param {number} index @returns {Tensor}
 */
function part({ shape, data }, index) {
  const length = shape.slice(1).reduce((product, side) => product * side, 1);
  return { shape: shape.slice(1), data: data.slice(index * length, (index + 1) * length) };
}

/**
 * Makes a recorded run on the page, and compares; the reason if the run needs what is not implemented.
 * @param {import("playwright-core").Page} page @param {Recorded} run
 * @returns {Promise<string | undefined>}
 */
async function check(page, run) {
  const expected = readTensors(await readFile(join(folder, `${run.id}.safetensors`)));
  const negativePrompt = run.negative_prompt ?? "";
  for (const [text, ids] of /** @type {const} */ ([
    [run.prompt, run.token_ids],
    [negativePrompt, run.negative_token_ids],
  ])) {
    assert.deepEqual(await page.evaluate((text) => window.core.tokenize(text), text), ids, `the tokens of "${text}"`);
  }
  const options = {
    prompt: run.prompt,
    negativePrompt,
    steps: run.steps,
    guidanceScale: run.guidance_scale,
    eta: run.eta,
    scheduler: { ...run.scheduler_config, _class_name: run.scheduler_class },
  };
  /** @type {Awaited<ReturnType<Core["sample"]>>} */
  let actual;
  try {
    actual = await page.evaluate(
      ([seed, options]) => window.core.sample(seed, options),
      /** @type {const} */ ([run.seed, options]),
    );
  } catch (error) {
    const unsupported = /class \w+ is not supported/.exec(String(error));
    if (unsupported) return unsupported[0];
    throw error;
  }
  const { initial_latents, latents, timesteps, image } = expected;
  assertNear("initial latents", actual.initialLatents, initial_latents, 5e-6 * maxAbs(initial_latents));
  assert.deepEqual(actual.timesteps.map(Math.fround), timesteps.data, "timesteps");
  actual.latents.forEach((values, index) => {
    const wanted = part(latents, index);
    assertNear(`after step ${index}`, values, wanted, 1e-3 * maxAbs(wanted));
  });
  const [height, width, channels] = image.shape;
  const interleaved = actual.image.map(
    (_, at) => actual.image[(at % channels) * height * width + Math.floor(at / channels)],
  );
  assertNear("image", interleaved, image, 2e-3);
  return undefined;
}

/**
 * Where the runs are made: WebGPU, and the CPU as each of its builds computes, on one thread and on several.
 * @type {{ what: string, cpu?: CpuOptions }[]}
 */
const WAYS = [
  { what: "webgpu" },
  { what: "the CPU", cpu: { threads: 1 } },
  { what: "the CPU, portably", cpu: { threads: 1, simd: "portable" } },
  { what: "two threads", cpu: { threads: 2 } },
  { what: "two threads, portably", cpu: { threads: 2, simd: "portable" } },
];

describe("runs recorded from diffusers", () => {
  const test = browserTests({
    graphics: "webgpu",
    mounts: {
      "/": join(root, "tests/browser/trajectories"),
      "/pkg/": join(root, "pkg"),
      "/models/emoji64/": join(root, "www/models/emoji64"),
    },
    isolated: true,
  });

  for (const { what, ...load } of WAYS) {
    const reproduce = async (/** @type {import("./harness/index.js").Fixture} */ { page, site, context }) => {
      await page.goto(site.url("/"));
      await page.waitForFunction(() => "core" in window);
      assert.equal(await page.evaluate((load) => window.core.load(load), load), load.cpu?.threads);
      /** @type {Record<string, string[]>} */
      const skipped = {};
      /** @type {string[]} */
      const failures = [];
      for (const run of runs) {
        try {
          const reason = await check(page, run);
          if (reason) (skipped[reason] ??= []).push(run.id);
        } catch (error) {
          failures.push(`${run.id}: ${error instanceof Error ? error.message : error}`);
        }
      }
      const without = Object.values(skipped).flat().length;
      const ran = runs.length - without;
      context.diagnostic(`trajectories on ${what}: ${ran} ran, ${failures.length} failed, ${without} skipped`);
      for (const [reason, ids] of Object.entries(skipped)) {
        context.diagnostic(`  skipped ${ids.length}: ${reason}: ${ids.join(", ")}`);
      }
      assert.deepEqual(failures, []);
      assert.ok(ran > 0, "no run was made");
    };
    test(`every one is reproduced on ${what}`, reproduce, 60_000 * (1 + runs.length));
  }

  test("the CPU makes the same bits on two threads as on one, and portably those of any machine", async ({
    page,
    site,
  }) => {
    await page.goto(site.url("/"));
    await page.waitForFunction(() => "core" in window);
    const { latents, seed, prompt, steps, guidance_scale } = JSON.parse(
      await readFile(join(root, "tests/portable.json"), "utf8"),
    );
    const options = { prompt, steps, guidanceScale: guidance_scale };
    for (const simd of /** @type {const} */ (["auto", "portable"])) {
      const [one, two] = await page.evaluate(async ([simd, seed, options]) => {
        const runs = [];
        for (const threads of [1, 2]) {
          await window.core.load({ cpu: { threads, simd } });
          runs.push(await window.core.sample(seed, options));
        }
        return runs;
      }, /** @type {const} */ ([simd, seed, options]));
      assert.deepEqual(one, two, simd);
      // `tests/portable.rs` holds native runs to the same.
      if (simd === "portable") assert.deepEqual(one.latents.map(checksum), latents);
    }
  });

  // What only real GPUs choose by themselves is slow here: a step is enough to see every pipeline compile and compute.
  for (const kernels of ["tiled-128x64", "tiled-64x64", "tiled-64x32", "tiled-64x64-lean", "tiled-64x32-lean"]) {
    test(`a step with ${kernels} kernels is the step with the usual ones`, async ({ page, site }) => {
      await page.goto(site.url("/"));
      await page.waitForFunction(() => "core" in window);
      const [usual, tiled] = await page.evaluate(async (kernels) => {
        const latents = [];
        for (const load of [{}, { kernels }]) {
          await window.core.load(load);
          latents.push((await window.core.sample(3, { prompt: "a happy cat", steps: 1 })).latents[0]);
        }
        return latents;
      }, kernels);
      const expected = { shape: [usual.length], data: usual };
      assertNear("latents", tiled, expected, 1e-4 * maxAbs(expected));
    });
  }

  test("a letter with its accent apart is the accented letter", async ({ page, site }) => {
    await page.goto(site.url("/"));
    await page.waitForFunction(() => "core" in window);
    const [apart, together, without] = await page.evaluate(async () => {
      await window.core.load({ cpu: {} });
      return Promise.all(["cafe\u0301", "caf\u00e9", "cafe"].map(window.core.tokenize));
    });
    assert.deepEqual(apart, together);
    assert.notDeepEqual(apart, without);
  });

  test("runs that are left in the middle give back the memory of the modules", async ({ page, site }) => {
    await page.goto(site.url("/"));
    await page.waitForFunction(() => "core" in window);
    const sizes = await page.evaluate(async () => {
      await window.core.load({ cpu: {} });
      const sizes = [];
      for (let run = 0; run < 6; run++) sizes.push(await window.core.leave(3));
      return sizes;
    });
    // A module's memory cannot shrink; what one run gave back, the next takes.
    assert.deepEqual(sizes.slice(1), Array(5).fill(sizes[1]));
  });
});
