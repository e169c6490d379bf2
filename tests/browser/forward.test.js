/** The forward process and the schedule, through the package and on the page. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe } from "node:test";
import { browserTests, root, SITE } from "./harness/index.js";
import { agree } from "./harness/site.js";
import { readTensors } from "./harness/safetensors.js";

/** @import { Noised, Schedule } from "../../js/index.js" */
/** @import { Page } from "playwright-core" */
/** @import { Site } from "./harness/index.js" */

/** As large as emoji64's own, so that nothing is resized. */
const PICTURE = join(root, "tests/trajectories/public-0-ddim20.png");
const CASES = join(root, "tests/reference/schedulers/cases");

const mounts = {
  "/api/": join(root, "tests/browser/pipeline"),
  "/api/pkg/": join(root, "pkg"),
  "/api/models/emoji64/": join(root, "www/models/emoji64"),
  "/api/models/ddpm/": join(root, "tests/reference/pipelines/models/ddpm_uncond"),
  "/api/picture.png": PICTURE,
};

/** @param {Page} page @param {Site} site @param {(given: any) => unknown} body @param {unknown} [given] @returns {Promise<any>} */
async function onPage(page, site, body, given) {
  await page.goto(site.url("/api/"));
  await page.waitForFunction(() => "settle" in window);
  return page.evaluate(body, given);
}

/** Mean and variance. @param {number[]} values */
function moments(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return { mean, variance: values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length };
}

/**
 * That values look like N(mean, variance) as far as so many of them can tell: within five standard errors.
 * @param {number[]} values
 * @param {number} mean
 * @param {number} variance
 */
function assertNormal(values, mean, variance) {
  const found = moments(values);
  const [ofMean, ofVariance] = [Math.sqrt(variance / values.length), variance * Math.sqrt(2 / values.length)];
  assert.ok(Math.abs(found.mean - mean) < 5 * ofMean, `mean ${found.mean} in place of ${mean} ± ${ofMean}`);
  assert.ok(
    Math.abs(found.variance - variance) < 5 * ofVariance,
    `variance ${found.variance} in place of ${variance} ± ${ofVariance}`,
  );
}

describe("the schedule", () => {
  const test = browserTests({ graphics: "no-adapter", mounts });

  test("is the reference's, and its table the one that a run walks", async ({ page, site }) => {
    const names = ["ddim_linear_eta05_clipped_10", "ddim_sd15_10"];
    const configs = await Promise.all(
      names.map(async (name) => JSON.parse(await readFile(join(CASES, name, "scheduler_config.json"), "utf8"))),
    );
    const report = await onPage(
      page,
      site,
      async (configs) => {
        const { Pipeline, settle, model } = window;
        const pipeline = await Pipeline.load(model, { device: "cpu" });
        const plain = (/** @type {Schedule} */ { betas, alphasCumprod, ...rest }) => ({
          ...rest,
          betas: [...betas],
          alphasCumprod: [...alphasCumprod],
        });
        const schedules = [];
        for (const scheduler of configs) schedules.push(plain(await pipeline.schedule({ scheduler, steps: 10 })));
        const own = plain(await pipeline.schedule({ steps: 7, solver: "dpmpp_2m" }));
        const timesteps = [];
        for await (const step of pipeline.sample({ steps: 7, solver: "dpmpp_2m" })) timesteps.push(step.timestep);
        // It asks no network, and so it is in nobody's way.
        const run = pipeline.sample({ steps: 3 })[Symbol.asyncIterator]();
        await run.next();
        const meanwhile = await pipeline.schedule({ solver: "euler" });
        await run.return();
        const wrong = [];
        for (const options of [
          { steps: 0 },
          { solver: "magic" },
          { prompt: "fox" },
          { scheduler: {} },
          { solver: "ddim", scheduler: { _class_name: "DDIMScheduler" } },
          { eta: -1 },
        ])
          wrong.push((await settle(pipeline.schedule(/** @type {any} */ (options)))).error?.code);
        await pipeline.dispose();
        return { schedules, own, timesteps, meanwhile: meanwhile.class, wrong };
      },
      configs,
    );
    for (const [index, name] of names.entries()) {
      const expected = readTensors(await readFile(join(CASES, name, "tensors.safetensors"))).alphas_cumprod.data;
      /** @type {Schedule} */
      const schedule = report.schedules[index];
      assert.equal(schedule.numTrainTimesteps, expected.length);
      expected.forEach((alphaBar, t) => {
        const found = schedule.alphasCumprod[t];
        assert.ok(Math.abs(found - alphaBar) <= 3e-7 * alphaBar, `ᾱ at ${t}: ${found} in place of ${alphaBar}`);
      });
    }
    /** @type {Schedule} */
    const own = report.own;
    assert.equal(own.class, "DPMSolverMultistepScheduler");
    assert.deepEqual(
      own.steps.map(({ timestep }) => timestep),
      report.timesteps,
    );
    // √ᾱ and √(1−ᾱ) where the network is asked, and x̂_0 = (x_t − √(1−ᾱ)·ε̂)/√ᾱ.
    for (const { timestep, forward, x0, prevSample } of own.steps) {
      const alphaBar = own.alphasCumprod[timestep];
      assert.ok(Math.abs(forward[0] - Math.sqrt(alphaBar)) < 1e-6);
      assert.ok(Math.abs(forward[1] - Math.sqrt(1 - alphaBar)) < 1e-6);
      assert.ok(Math.abs(x0[0] * forward[0] - 1) < 1e-9 && Math.abs(x0[1] * forward[0] + forward[1]) < 1e-9);
      assert.equal(prevSample.noise, 0);
      assert.equal(prevSample.history.length, 5);
    }
    assert.equal(own.steps.at(-1)?.prevSample.x0, 1, "the last step does not arrive at x̂_0");
    assert.equal(report.meanwhile, "EulerDiscreteScheduler");
    assert.deepEqual(report.wrong, Array(6).fill("invalid-option"));
  });
});

for (const load of [{ device: "webgpu" }, { device: "cpu" }, { device: "cpu", worker: false }]) {
  describe(`the forward process with ${JSON.stringify(load)}`, () => {
    const test = browserTests({ graphics: "webgpu", mounts });

    for (const space of /** @type {const} */ (["pixels", "latents"])) {
      test(`in ${space} goes from the picture to unit noise, with one ε for all t`, async ({ page, site }) => {
        const report = await onPage(
          page,
          site,
          async ([load, space]) => {
            const { Pipeline, model } = window;
            const pipeline = await Pipeline.load(model, load);
            const picture = await createImageBitmap(await (await fetch("picture.png")).blob());
            const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
            context?.drawImage(picture, 0, 0);
            const expected = [...(context?.getImageData(0, 0, picture.width, picture.height).data ?? [])];
            const { alphasCumprod } = await pipeline.schedule({ solver: "ddim" });
            const forward = await pipeline.forwardProcess({ image: "picture.png", seed: 7, space, solver: "ddim" });
            const { shape, numTrainTimesteps } = forward;
            const plain = (/** @type {Noised} */ { timestep, image, sample }) => ({
              timestep,
              image: [...image.data],
              sample: [...sample],
            });
            const at = [];
            for (const t of [null, 0, 500, numTrainTimesteps - 1]) at.push(plain(await forward.at(t)));
            const again = plain(await forward.at(500));
            await forward.dispose();
            await pipeline.dispose();
            return { expected, at, again, shape, alphaBars: [1, ...[0, 500, 999].map((t) => alphasCumprod[t])] };
          },
          [load, space],
        );
        const { expected, at, again, shape, alphaBars } = report;
        assert.deepEqual(shape, space === "pixels" ? [1, 3, 64, 64] : [1, 4, 16, 16]);
        assert.deepEqual(
          at.map((/** @type {{ timestep: number }} */ { timestep }) => timestep),
          [null, 0, 500, 999],
        );
        assert.deepEqual(again, at[2], "the noise was drawn anew");
        /** @type {number[][]} */
        const [x0, first, middle, last] = at.map((/** @type {{ sample: number[] }} */ { sample }) => sample);
        if (space === "pixels") {
          assert.deepEqual(at[0].image, expected, "x_0 is not the picture");
          x0.forEach((value, index) => {
            const level = expected[4 * (index % 4096) + Math.floor(index / 4096)];
            assert.ok(Math.abs(value - (2 * level) / 255 + 1) < 1e-6);
          });
          // Rounded to levels, and clipped where it leaves them.
          const sigma = 127.5 * Math.sqrt(1 - alphaBars[1]);
          at[1].image.forEach((/** @type {number} */ level, /** @type {number} */ index) => {
            assert.ok(Math.abs(level - expected[index]) <= 6 * sigma + 1, "more than the noise of t = 0");
          });
        }
        const noise = (/** @type {number[]} */ sample, /** @type {number} */ alphaBar) =>
          sample.map((value, index) => (value - Math.sqrt(alphaBar) * x0[index]) / Math.sqrt(1 - alphaBar));
        assertNormal(noise(first, alphaBars[1]), 0, 1);
        const { mean, variance } = moments(x0);
        assertNormal(last, Math.sqrt(alphaBars[3]) * mean, alphaBars[3] * variance + 1 - alphaBars[3]);
        const [one, other] = [noise(middle, alphaBars[2]), noise(last, alphaBars[3])];
        one.forEach((value, index) => assert.ok(Math.abs(value - other[index]) < 1e-5, "another ε at another t"));
      });
    }

    test("is asked for its noise in one call, and the guess is better than none", async ({ page, site }) => {
      const report = await onPage(
        page,
        site,
        async (load) => {
          const { Pipeline, settle, model } = window;
          const pipeline = await Pipeline.load(model, load);
          const options = { image: "picture.png", seed: 7, prompt: "a happy cat" };
          const forward = await pipeline.forwardProcess(options);
          const guesses = [];
          for (const t of [50, 500, 999, 500]) {
            const { timestep, error, noise, denoised, warning } = await forward.predict(t);
            guesses.push({ timestep, error, noise: [...noise.data], denoised: [...denoised.data], warning });
          }
          await forward.dispose();
          const pixels = await pipeline.forwardProcess({ ...options, space: "pixels" });
          const refused = (await settle(pixels.predict(500))).error;
          // A refusal leaves it in order.
          const { image } = await pixels.at(500);
          await pixels.dispose();
          await pipeline.dispose();
          return { guesses, refused, width: image.width };
        },
        load,
      );
      const [early, middle, late, again] = report.guesses;
      assert.deepEqual(again, middle);
      for (const { error } of [early, middle, late]) assert.ok(error > 0 && error < 1, `${error}`);
      assert.ok(early.error > middle.error && middle.error > late.error, "little noise is as easy to see as much");
      assert.notDeepEqual(early.denoised, late.denoised);
      assert.equal(report.refused?.code, "invalid-option");
      assert.match(report.refused?.message, /latents/);
      assert.equal(report.width, 64);
    });

    test("is where a run from a timestep begins, which is the run with the strength that begins there", async ({
      page,
      site,
    }) => {
      const report = await onPage(
        page,
        site,
        async (load) => {
          const { Pipeline, model } = window;
          const pipeline = await Pipeline.load(model, load);
          const options = { image: "picture.png", prompt: "fox, noto style", seed: 3, steps: 10, guidanceScale: 4.5 };
          const pictures = [];
          for (const solver of ["ddim", "dpmpp_2m", "euler_ancestral"]) {
            const { steps } = await pipeline.schedule({ solver, steps: 10 });
            const startTimestep = steps[5].timestep;
            const [there, here] = [
              await pipeline.sample({ ...options, solver, strength: 0.5 }),
              await pipeline.sample({ ...options, solver, startTimestep }),
            ];
            pictures.push({ solver, startTimestep, there: [...there.data], here: [...here.data] });
          }
          // Between two steps of the table, and without a prompt; the run shows where it begins, if it is asked to.
          const timesteps = [];
          const from = { ...options, prompt: "", solver: "ddim", preview: /** @type {const} */ ("decode") };
          const forward = await pipeline.forwardProcess({ image: "picture.png", seed: 3, preview: "decode" });
          const begins = [[...(await forward.at(437)).image.data]];
          await forward.dispose();
          for await (const step of pipeline.sample({ ...from, startTimestep: 437, includeInitial: true })) {
            if (step.index < 0) begins.push([...(step.image?.data ?? [])]);
            else timesteps.push(step.timestep);
          }
          const { timesteps: all } = await pipeline.schedule({ solver: "ddim", steps: 10 });
          await pipeline.dispose();
          return { pictures, timesteps, all, begins };
        },
        load,
      );
      for (const { solver, there, here } of report.pictures) assert.deepEqual(here, there, solver);
      assert.equal(report.begins.length, 2);
      assert.deepEqual(report.begins[1], report.begins[0]);
      const below = report.all.filter((/** @type {number} */ t) => t < 437);
      assert.deepEqual(report.timesteps, [437, ...below]);
    });

    test("is in the way of runs until it is disposed of, and refuses in words", async ({ page, site }) => {
      const report = await onPage(
        page,
        site,
        async (load) => {
          const { Pipeline, settle, model } = window;
          const pipeline = await Pipeline.load(model, load);
          const image = "picture.png";
          const forward = await pipeline.forwardProcess({ image });
          const busy = [
            await settle(pipeline.sample({ steps: 1 })),
            await settle(pipeline.forwardProcess({ image })),
            await settle(pipeline.bound({ image })),
            await settle(pipeline.setLoras([{ source: "nothing.safetensors" }])),
          ].map(({ error }) => error?.code);
          const wrong = [];
          for (const t of [1000, -1, 0.5, NaN, "5", undefined, 2 ** 40])
            wrong.push((await settle(forward.at(/** @type {any} */ (t)))).error?.code);
          wrong.push((await settle(forward.predict(/** @type {any} */ (null)))).error?.code);
          const controller = new AbortController();
          const aborted = settle(forward.predict(500, { signal: controller.signal }));
          controller.abort();
          const codes = [(await aborted).error?.code];
          const { timestep } = await forward.at(3);
          await Promise.all([forward.dispose(), forward.dispose()]);
          codes.push((await settle(forward.at(3))).error?.code);
          codes.push((await settle(forward.predict(3))).error?.code);
          codes.push((await settle(pipeline.forwardProcess({ image, signal: AbortSignal.abort() }))).error?.code);
          const options = [];
          for (const one of [
            {},
            { image: {} },
            { image, space: "air" },
            { image, seed: -1 },
            { image, prompt: ["a"] },
            { image, solver: "magic" },
            { image, guidanceScale: NaN },
            { image, width: 63 },
            { image, steps: 3 },
            { image: new Blob(["no picture"]) },
          ])
            options.push((await settle(pipeline.forwardProcess(/** @type {any} */ (one)))).error?.code);
          for (const one of [
            { startTimestep: 500 },
            { image, startTimestep: 1000 },
            { image, startTimestep: 5, strength: 0.5 },
          ])
            options.push((await settle(pipeline.sample({ ...one, steps: 2 }))).error?.code);
          const picture = await pipeline.sample({ steps: 1 });
          const left = await pipeline.forwardProcess({ image });
          await pipeline.dispose();
          const disposed = (await settle(left.at(5))).error?.code;
          await left.dispose();
          return { busy, wrong, codes, options, timestep, width: picture.width, disposed };
        },
        load,
      );
      assert.deepEqual(report.busy, Array(4).fill("busy"));
      assert.deepEqual(report.wrong, Array(8).fill("invalid-option"));
      assert.deepEqual(report.codes, ["aborted", "disposed", "disposed", "aborted"]);
      assert.deepEqual(report.options, Array(13).fill("invalid-option"));
      assert.deepEqual([report.timestep, report.width, report.disposed], [3, 64, "disposed"]);
    });
  });
}

describe("of a model that works on pixels", () => {
  const test = browserTests({ graphics: "no-adapter", mounts });

  test("the forward process, the guess and the way back are of pixels", async ({ page, site }) => {
    const report = await onPage(page, site, async () => {
      const { Pipeline } = window;
      const pipeline = await Pipeline.load("models/ddpm/", { device: "cpu" });
      const { width, takesStartTimestep } = pipeline.info;
      const forward = await pipeline.forwardProcess({ image: "picture.png" });
      const { shape } = forward;
      const { image } = await forward.at(null);
      const { error } = await forward.predict(500);
      await forward.dispose();
      const picture = await pipeline.sample({ image: "picture.png", startTimestep: 300, steps: 10 });
      await pipeline.dispose();
      return { width, takesStartTimestep, shape, sides: [image.width, picture.width], error };
    });
    assert.ok(report.takesStartTimestep);
    assert.deepEqual(report.sides, [report.width, report.width]);
    assert.equal(report.shape[2], report.width);
    assert.ok(report.error > 0);
  });
});

describe("the page's forward view", () => {
  const test = browserTests({ graphics: "no-adapter" });

  /** Opens the view with a picture. @param {Page} page @param {Site} site @param {string} [space] */
  async function open(page, site, space = "pixels") {
    await page.goto(site.url(`${SITE}?device=cpu#view=forward&seed=7`));
    await page.waitForFunction(() => document.body.dataset.state === "ready");
    await page.locator("#x0-file").setInputFiles(PICTURE);
    await page.getByRole("img", { name: "x 0, the picture: public-0-ddim20.png" }).waitFor();
    if (space === "pixels") await page.getByText("in pixels").click();
    await shown(page, "null");
  }

  /** Waits until x_t of a timestep is on the plate. @param {Page} page @param {string} t */
  async function shown(page, t) {
    await page.waitForFunction((t) => {
      const section = /** @type {HTMLElement} */ (document.getElementById("forward"));
      return section.dataset.shown === t && section.dataset.waits === undefined;
    }, t);
  }

  /** @param {Page} page @param {number} t */
  async function turnTo(page, t) {
    await page.locator("#t").fill(String(t));
    await shown(page, t < 0 ? "null" : String(t));
  }

  /** What is on a canvas. @param {Page} page @param {string} selector @returns {Promise<number[]>} */
  function pixels(page, selector) {
    return page.locator(selector).evaluate((canvas) => {
      const { width, height } = /** @type {HTMLCanvasElement} */ (canvas);
      const context = /** @type {HTMLCanvasElement} */ (canvas).getContext("2d");
      return [...(context?.getImageData(0, 0, width, height).data ?? [])];
    });
  }

  /**
   * Calls the page's own package, with the picture as a blob.
   * @param {Page} page
   * @param {(given: { Pipeline: typeof import("../../js/index.js").Pipeline, image: Blob }) => Promise<unknown>} body
   * @returns {Promise<any>}
   */
  async function withPackage(page, body) {
    const picture = (await readFile(PICTURE)).toString("base64");
    return page.evaluate(
      async ([picture, body]) => {
        // @ts-ignore: the page's own package
        const { Pipeline } = await import("./pkg/site.js");
        const image = await (await fetch(`data:image/png;base64,${picture}`)).blob();
        return new Function(`return ${body}`)()({ Pipeline, image });
      },
      [picture, String(body)],
    );
  }

  test("x_0 is the picture to the last bit, t = 0 the picture within the noise, and the end is noise", async ({
    page,
    site,
  }) => {
    await open(page, site);
    const picture = await pixels(page, "#x0");
    assert.deepEqual(await pixels(page, "#canvas"), picture);
    await turnTo(page, 0);
    const alphaBars = await withPackage(page, async ({ Pipeline }) => {
      const pipeline = await Pipeline.load("models/emoji64/", { device: "cpu" });
      const { alphasCumprod } = await pipeline.schedule();
      await pipeline.dispose();
      return [alphasCumprod[0], alphasCumprod[alphasCumprod.length - 1]];
    });
    const sigma = 127.5 * Math.sqrt(1 - alphaBars[0]);
    const first = await pixels(page, "#canvas");
    assert.notDeepEqual(first, picture);
    first.forEach((level, at) => assert.ok(Math.abs(level - picture[at]) <= 6 * sigma + 1));
    await turnTo(page, 999);
    const last = (await pixels(page, "#canvas")).filter((_, at) => at % 4 !== 3);
    // Levels are clipped at ±1: of a standard normal 0.3173 lies beyond.
    const clipped = last.filter((level) => level === 0 || level === 255).length / last.length;
    const expected = 0.3173;
    const error = Math.sqrt((expected * (1 - expected)) / last.length);
    // What is left of the picture, and a level's width at either end, move it by a little.
    assert.ok(Math.abs(clipped - expected) < 5 * error + 0.01, `${clipped} of the levels are clipped`);
    const { mean } = moments(last);
    assert.ok(Math.abs(mean - 127.5) < 127.5 * (5 / Math.sqrt(last.length) + Math.sqrt(alphaBars[1])), `mean ${mean}`);
  });

  test("t is one for the slider, the charts, the table and those who listen", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#t").focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    await shown(page, "1");
    assert.equal(await page.locator("#t").getAttribute("aria-valuetext"), "t = 1");
    await page.keyboard.press("End");
    await shown(page, "999");
    await page.locator("#coefficients summary").click();
    await turnTo(page, 500);
    assert.match(await page.locator("#mixture").innerText(), /t = 500.*SNR/s);
    const markers = page.locator("[data-views=forward] .chart .marker line");
    assert.equal(await markers.count(), 3);
    const current = Number(await page.locator("#coefficients [aria-current] th").innerText());
    const steps = (await page.locator("#coefficients tbody th").allInnerTexts()).map(Number);
    assert.equal(current, Math.max(...steps.filter((t) => t <= 500)));
    // Pressed in its middle, a chart turns to the middle of the schedule.
    const chart = page.locator("[data-views=forward] .chart svg").first();
    await chart.scrollIntoViewIfNeeded();
    const box = await chart.boundingBox();
    assert.ok(box);
    await page.mouse.click(box.x + box.width * 0.25, box.y + 60);
    const t = Number(await page.locator("#t").inputValue());
    assert.ok(t > 100 && t < 300, `t = ${t}`);
    await shown(page, String(t));
    await page.locator("#t").focus();
    await page.keyboard.press("Home");
    await shown(page, "null");
    assert.deepEqual(await pixels(page, "#canvas"), await pixels(page, "#x0"));
    assert.equal(await markers.count(), 0);
  });

  test("of a slider that is dragged only the newest place counts", async ({ page, site }) => {
    await open(page, site, "latents");
    const served = await page.evaluate(async () => {
      const slider = /** @type {HTMLInputElement} */ (document.getElementById("t"));
      const section = /** @type {HTMLElement} */ (document.getElementById("forward"));
      const seen = new Set();
      new MutationObserver(() => seen.add(section.dataset.shown)).observe(section, { attributeFilter: ["data-shown"] });
      for (let t = 0; t < 300; t++) {
        slider.value = String(t);
        slider.dispatchEvent(new Event("input"));
      }
      while (section.dataset.shown !== "299") await new Promise((resolve) => setTimeout(resolve, 10));
      return seen.size;
    });
    assert.ok(served <= 3, `${served} places were computed`);
  });

  test("the network's guess at one t is the package's", async ({ page, site }) => {
    await open(page, site, "latents");
    await page.getByLabel("Prompt", { exact: true }).fill("a happy cat");
    assert.ok(await page.locator("#guess").isDisabled(), "there is nothing to guess about the picture itself");
    await turnTo(page, 600);
    await page.locator("#guess").click();
    await page.waitForFunction(() => document.getElementById("forward")?.dataset.error);
    const guesses = await withPackage(page, async ({ Pipeline, image }) => {
      const pipeline = await Pipeline.load("models/emoji64/", { device: "cpu" });
      const options = /** @type {const} */ ({ prompt: "a happy cat", seed: 7, solver: "dpmpp_2m", preview: "decode" });
      const found = [];
      for (const guidanceScale of [1, 4.5]) {
        const forward = await pipeline.forwardProcess({ ...options, image, guidanceScale });
        const { error, noise, denoised } = await forward.predict(600);
        found.push({ error, noise: [...noise.data], denoised: [...denoised.data] });
        await forward.dispose();
      }
      await pipeline.dispose();
      return found;
    });
    // As it was trained: guidance is for those who ask for it.
    for (const [at, words] of [
      /is what training made small/,
      /with guidance 4.5 it is not the network’s own guess/,
    ].entries()) {
      assert.equal(Number(await page.locator("#forward").getAttribute("data-error")), guesses[at].error);
      assert.deepEqual(await pixels(page, "#noise"), guesses[at].noise);
      assert.deepEqual(await pixels(page, "#denoised"), guesses[at].denoised);
      assert.match(await page.locator("#status").innerText(), words);
      if (at > 0) break;
      await page.getByLabel("Guess with guidance").check();
      await shown(page, "600");
      await page.locator("#guess").click();
      const error = String(guesses[0].error);
      await page.waitForFunction((error) => document.getElementById("forward")?.dataset.error !== error, error);
    }
    // And it is of that t: elsewhere the plates are empty again.
    await turnTo(page, 601);
    assert.ok((await pixels(page, "#noise")).every((value) => value === 0));
    await page.getByText("in pixels").click();
    await shown(page, "601");
    assert.ok(await page.locator("#guess").isDisabled());
    assert.match(await page.locator("#space-hint").innerText(), /latents/);
  });

  test("it begins with a picture that the model knows by its prompt, whose noise the network sees", async ({
    page,
    site,
  }) => {
    await page.goto(site.url(`${SITE}?device=cpu#view=forward&seed=7`));
    await page.getByRole("img", { name: "x 0, the picture: an example" }).waitFor();
    const { prompts } = JSON.parse(await readFile(join(root, "www/models/emoji64.json"), "utf8"));
    assert.equal(await page.locator("#prompt").inputValue(), prompts[0]);
    await turnTo(page, 500);
    await page.locator("#guess").click();
    await page.waitForFunction(() => document.getElementById("forward")?.dataset.error);
    const error = Number(await page.locator("#forward").getAttribute("data-error"));
    assert.ok(error > 0 && error < 0.05, `${error}`);
    assert.match(await page.locator("#noised").innerText(), /latent with noise, decoded/);
    await page.getByText("in pixels").click();
    await shown(page, "500");
    assert.equal(await page.locator("#noised").innerText(), "the picture with noise");
    // What the visitor brings stays.
    await page.locator("#x0-file").setInputFiles(PICTURE);
    await page.getByRole("img", { name: "x 0, the picture: public-0-ddim20.png" }).waitFor();
    await page.getByRole("link", { name: "The bound" }).click();
    await page.getByRole("link", { name: "Picture to noise" }).click();
    await shown(page, "500");
    assert.match(String(await page.locator("#x0").getAttribute("aria-label")), /public-0-ddim20/);
  });

  for (const prompted of [true, false]) {
    test(`denoising from here is the run of the same strength, ${prompted ? "with" : "without"} a prompt`, async ({
      page,
      site,
    }) => {
      await open(page, site, "latents");
      await page.getByLabel("Prompt", { exact: true }).fill("fox, noto style");
      await page.getByLabel("Steps", { exact: true }).fill("10");
      await page.getByLabel("Solver", { exact: true }).selectOption("ddim");
      if (!prompted) await page.getByLabel("Follow the prompt").uncheck();
      await page.locator("#start").click();
      await page.getByText("nothing to remove", { exact: false }).waitFor();
      const { t, picture, frames } = await withPackage(
        page,
        prompted
          ? async ({ Pipeline, image }) => {
              const pipeline = await Pipeline.load("models/emoji64/", { device: "cpu" });
              const options = { prompt: "fox, noto style", guidanceScale: 4.5, seed: 7, steps: 10, solver: "ddim" };
              const t = (await pipeline.schedule({ steps: 10, solver: "ddim" })).timesteps[4];
              const picture = await pipeline.sample({ ...options, image, strength: 0.6 });
              await pipeline.dispose();
              return { t, picture: [...picture.data], frames: 6 };
            }
          : async ({ Pipeline, image }) => {
              const pipeline = await Pipeline.load("models/emoji64/", { device: "cpu" });
              const options = { guidanceScale: 1, seed: 7, steps: 10, solver: "ddim" };
              const t = (await pipeline.schedule({ steps: 10, solver: "ddim" })).timesteps[4];
              const picture = await pipeline.sample({ ...options, image, strength: 0.6 });
              await pipeline.dispose();
              return { t, picture: [...picture.data], frames: 6 };
            },
      );
      await turnTo(page, t);
      await page.locator("#start").click();
      await page.waitForFunction(() => ["done", "error"].includes(document.body.dataset.state ?? ""));
      assert.equal(await page.locator("#error").innerText(), "");
      assert.equal(await page.locator("#filmstrip [data-step]").count(), frames);
      assert.deepEqual(await pixels(page, "#canvas"), picture);
      // The film stays to be looked at, and the slider takes the plate back.
      await turnTo(page, 100);
      assert.equal(await page.locator("#filmstrip [data-step]").count(), frames);
      assert.ok(await page.locator("#download").isDisabled());
      await page.locator("#filmstrip [data-step]").last().click();
      assert.deepEqual(await pixels(page, "#canvas"), picture);
    });
  }

  test("a drag ends a run that is under way, and cancel does too", async ({ page, site }) => {
    await open(page, site, "latents");
    await page.getByLabel("Steps", { exact: true }).fill("500");
    await turnTo(page, 900);
    for (const end of ["drag", "cancel"]) {
      await page.locator("#start").click();
      await agree(page, "#filmstrip [data-step]");
      await page.locator('[data-step="2"]').waitFor();
      if (end === "drag") await turnTo(page, 300);
      else await page.locator("#cancel").click();
      await page.waitForFunction(() => document.body.dataset.state === "ready");
      assert.match(await page.locator("#status").innerText(), /^Cancelled after \d+ steps$/);
    }
    await turnTo(page, 301);
    assert.equal(await page.locator("#error").innerText(), "");
  });

  test("what is drawn on the picture dissolves with it, and other pictures are brought to its size", async ({
    page,
    site,
  }) => {
    await open(page, site);
    await page.getByRole("button", { name: "Blank" }).click();
    await page.getByRole("button", { name: "Blue" }).click();
    const board = await page.locator("#x0").boundingBox();
    assert.ok(board);
    await page.mouse.move(board.x + 0.3 * board.width, board.y + 0.5 * board.height);
    await page.mouse.down();
    await page.mouse.move(board.x + 0.7 * board.width, board.y + 0.5 * board.height, { steps: 5 });
    await page.mouse.up();
    const drawn = await pixels(page, "#x0");
    const [red, green, blue] = drawn.slice(4 * (32 * 64 + 32));
    assert.ok(blue > 200 && red < 80 && green < 160, `${[red, green, blue]} is not blue`);
    await turnTo(page, 10);
    await turnTo(page, -1);
    assert.deepEqual(await pixels(page, "#canvas"), drawn);
    await page.locator("#x0-file").setInputFiles(join(root, "tests/pictures/fox.png"));
    await page.getByRole("img", { name: "x 0, the picture: fox.png" }).waitFor();
    await page
      .locator("#x0-file")
      .setInputFiles({ name: "torn.png", mimeType: "image/png", buffer: Buffer.from("torn") });
    await page.getByText("torn.png could not be read").waitFor();
    assert.equal((await pixels(page, "#x0")).length, 4 * 64 * 64);
  });

  test("dissolves by itself, and stops where it is told to", async ({ page, site }) => {
    await open(page, site);
    await page.getByRole("button", { name: "Dissolve" }).click();
    await page.waitForFunction(() => Number(/** @type {HTMLInputElement} */ (document.getElementById("t")).value) > 50);
    await page.getByRole("button", { name: "Stop" }).click();
    const t = await page.locator("#t").inputValue();
    assert.ok(Number(t) < 999);
    await shown(page, t);
  });

  test("leaving it gives the model back to drawing, and the address brings the view back", async ({ page, site }) => {
    await open(page, site);
    await turnTo(page, 500);
    assert.match(page.url(), /view=forward/);
    await page.getByRole("link", { name: "Noise to picture" }).click();
    await page.getByLabel("Steps", { exact: true }).fill("2");
    await page.locator("#start").click();
    await page.waitForFunction(() => ["done", "error"].includes(document.body.dataset.state ?? ""));
    assert.equal(await page.locator("#error").innerText(), "");
    await page.getByRole("link", { name: "Picture to noise" }).click();
    await shown(page, "500");
    await page.getByRole("button", { name: "Use the one shown" }).click();
    await turnTo(page, -1);
    assert.deepEqual(await pixels(page, "#canvas"), await pixels(page, "#x0"));
  });

  for (const view of ["forward", "bound", "fid"]) {
    for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
      test(`the ${view} view fits a phone without sideways scrolling, ${colorScheme}`, async ({ page, site }) => {
        await page.setViewportSize({ width: 360, height: 740 });
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        await page.goto(site.url(`${SITE}#view=${view}`));
        await page.waitForFunction(
          (view) =>
            document.body.dataset.state === "ready" &&
            document.querySelector(`#stage [data-views="${view}"] *`) !== null,
          view,
        );
        const overflow = await page.evaluate(
          () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
        );
        assert.equal(overflow, 0);
      });
    }
  }

  test("nothing of the views is fetched before one is looked at", async ({ page, site }) => {
    await page.goto(site.url(SITE));
    await page.waitForFunction(() => document.body.dataset.state === "ready");
    const fetched = () =>
      site.requests.filter(({ path }) => /(forward|bound|fid|pad|plot)\.js$|views\.css$/.test(path));
    const own = () => fetched().filter(({ path }) => !path.includes("/pkg/"));
    assert.deepEqual(own(), []);
    await page.getByRole("link", { name: "Picture to noise" }).click();
    await page.locator("#t").waitFor();
    assert.ok(own().length >= 4);
  });
});
