/** The variational bound, through the package and on the page. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe } from "node:test";
import { browserTests, root, SITE } from "./harness/index.js";
import { agree } from "./harness/site.js";

/** @import { BoundSummary, BoundTerm } from "../../js/index.js" */
/** @import { Page } from "playwright-core" */
/** @import { Site } from "./harness/index.js" */

const mounts = {
  "/api/": join(root, "tests/browser/pipeline"),
  "/api/pkg/": join(root, "pkg"),
  "/api/models/emoji64/": join(root, "www/models/emoji64"),
  "/api/models/ddpm/": join(root, "tests/reference/pipelines/models/ddpm_uncond"),
  "/api/fox.png": join(root, "tests/pictures/fox.png"),
};

/** @param {Page} page @param {Site} site @param {(given: any) => unknown} body @param {unknown} [given] @returns {Promise<any>} */
async function onPage(page, site, body, given) {
  await page.goto(site.url("/api/"));
  await page.waitForFunction(() => "settle" in window);
  return page.evaluate(body, given);
}

for (const load of [{ device: "webgpu" }, { device: "cpu" }, { device: "cpu", worker: false }]) {
  describe(`the bound with ${JSON.stringify(load)}`, () => {
    const test = browserTests({ graphics: "webgpu", mounts });

    test("is a row of terms, L_T first and then by descending t, and awaiting it gives their sum", async ({
      page,
      site,
    }) => {
      const report = await onPage(
        page,
        site,
        async (load) => {
          const { Pipeline, model } = window;
          const pipeline = await Pipeline.load(model, load);
          const image = "fox.png";
          const bound = pipeline.bound({ image, prompt: "fox, noto style", seed: 5, timesteps: [0, 900, 500, 20] });
          const terms = [];
          for await (const term of bound) terms.push(term);
          const summary = await bound;
          const again = await pipeline.bound({
            image,
            prompt: "fox, noto style",
            seed: 5,
            timesteps: [0, 900, 500, 20],
          });
          const other = await pipeline.bound({
            image,
            prompt: "fox, noto style",
            seed: 6,
            timesteps: [0, 900, 500, 20],
          });
          await pipeline.dispose();
          return { terms, summary, again, other };
        },
        load,
      );
      /** @type {BoundTerm[]} */
      const terms = report.terms;
      /** @type {BoundSummary} */
      const summary = report.summary;
      assert.deepEqual(
        terms.map(({ index, total, term, timestep }) => [index, total, term, timestep]),
        [
          [0, 5, "L_T", null],
          [1, 5, "L_t", 900],
          [2, 5, "L_t", 500],
          [3, 5, "L_t", 20],
          [4, 5, "L_0", 0],
        ],
      );
      assert.ok(summary.ofLatents);
      assert.deepEqual([summary.dimensions, summary.numTrainTimesteps], [1024, 1000]);
      assert.deepEqual(
        summary.terms.map(({ mean }) => mean),
        terms.map(({ mean }) => mean),
      );
      const sum = terms.reduce((sum, { mean, standsFor }) => sum + mean * standsFor, 0);
      assert.ok(Math.abs((summary.total?.mean ?? NaN) - sum) < 1e-9 * Math.abs(sum));
      assert.ok((summary.total?.errorOfTimesteps ?? 0) > 0, "three of 999 steps leave no doubt");
      assert.ok(
        terms.every(({ milliseconds, bitsPerDim }) => milliseconds >= 0 && bitsPerDim.length === 1),
        "a term is of one picture",
      );
      assert.ok(
        terms[1].mean < terms[2].mean && terms[2].mean < terms[3].mean,
        "a late step costs as much as an early one",
      );
      assert.deepEqual(report.again, summary);
      assert.notDeepEqual(report.other, summary);
    });

    test("of pixels has a term for every level, and every timestep leaves no error", async ({ page, site }) => {
      /** @type {BoundSummary} */
      const summary = await onPage(
        page,
        site,
        async (load) => {
          const { Pipeline } = window;
          const pipeline = await Pipeline.load("models/ddpm/", load);
          const { alphasCumprod } = await pipeline.schedule();
          const timesteps = [...alphasCumprod.keys()].filter((t) => t % 100 === 0);
          const summary = await pipeline.bound({ images: ["fox.png", "fox.png"], timesteps });
          await pipeline.dispose();
          return summary;
        },
        load,
      );
      assert.equal(summary.ofLatents, false);
      assert.equal(summary.terms.at(-1)?.term, "L_0");
      assert.ok(summary.terms.every(({ bitsPerDim: [one, other] }) => one >= 0 && other >= 0));
      assert.equal(summary.total?.bitsPerDim.length, 2);
    });

    test("that is aborted, or left, ends within a term and leaves the pipeline free", async ({ page, site }) => {
      const report = await onPage(
        page,
        site,
        async (load) => {
          const { Pipeline, settle, model } = window;
          const pipeline = await Pipeline.load(model, load);
          const image = "fox.png";
          const controller = new AbortController();
          let count = 0;
          const aborted = await settle(
            (async () => {
              for await (const { index } of pipeline.bound({ image, signal: controller.signal })) {
                count += 1;
                if (index === 2) controller.abort();
              }
            })(),
          );
          const left = pipeline.bound({ image });
          for await (const { index } of left) if (index === 1) break;
          const unfinished = await settle(left);
          const held = pipeline.bound({ image })[Symbol.asyncIterator]();
          await held.next();
          const busy = [await settle(pipeline.bound({ image })), await settle(pipeline.sample({ steps: 1 }))];
          await held.return();
          const early = await settle(pipeline.bound({ image, signal: AbortSignal.abort() }));
          const picture = await pipeline.sample({ steps: 1 });
          await pipeline.dispose();
          const codes = [aborted, unfinished, ...busy, early].map(({ error }) => error?.code);
          return { count, codes, width: picture.width };
        },
        load,
      );
      assert.deepEqual(report, { count: 3, codes: ["aborted", "aborted", "busy", "busy", "aborted"], width: 64 });
    });

    test("refuses what it does not take in words", async ({ page, site }) => {
      const errors = await onPage(
        page,
        site,
        async (load) => {
          const { Pipeline, settle, model } = window;
          const pipeline = await Pipeline.load(model, load);
          const image = "fox.png";
          const errors = [];
          for (const options of [
            {},
            { image: 7 },
            { images: [] },
            { image, images: [image] },
            { image, timesteps: [1000] },
            { image, timesteps: [-1] },
            { image, timesteps: [] },
            { image, terms: 0 },
            { image, terms: 1001 },
            { image, terms: 5, timesteps: [0] },
            { image, variance: "small" },
            { image, variance: "learned" },
            { image, prompt: ["a", "b"] },
            { image, width: 63 },
            { image, seed: -1 },
            { image, steps: 5 },
            { image: new Blob(["no picture"], { type: "image/png" }) },
          ])
            errors.push((await settle(pipeline.bound(/** @type {any} */ (options)))).error);
          const picture = await pipeline.sample({ steps: 1 });
          await pipeline.dispose();
          return { errors, width: picture.width };
        },
        load,
      );
      assert.equal(errors.width, 64);
      for (const error of errors.errors) {
        assert.equal(error?.code, "invalid-option", error?.message);
        assert.equal(error.class, "OptionError");
      }
    });
  });
}

describe("the page's bound", () => {
  const test = browserTests({ graphics: "no-adapter" });
  /** As large as the model's own, so that the page takes it as it is. */
  const PICTURE = join(root, "tests/trajectories/public-0-ddim20.png");

  /** Opens the view with the model loaded. @param {Page} page @param {Site} site */
  async function open(page, site) {
    await page.goto(site.url(`${SITE}#view=bound&seed=7`));
    await page.waitForFunction(
      () => document.body.dataset.state === "ready" && document.querySelector("#terms option"),
    );
    await page.locator("#x0-file").setInputFiles(PICTURE);
    await page.getByRole("img", { name: "x 0, the picture: public-0-ddim20.png" }).waitFor();
    await page.getByLabel("Prompt", { exact: true }).fill("fox, noto style");
  }

  const bars = (/** @type {Page} */ page) =>
    page
      .locator("[data-views=bound] .chart .marks > rect title")
      .evaluateAll((titles) => titles.map((title) => title.textContent));

  test("the chart fills in with the package's own values", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#terms").selectOption("100");
    await page.locator("#start").click();
    await page.waitForFunction(() => {
      const count = document.querySelectorAll("[data-views=bound] .chart .marks > rect").length;
      return count > 5 && count < 90 && document.body.dataset.state === "sampling";
    });
    assert.match(await page.locator("#bits").innerText(), /so far$/);
    await page.waitForFunction(() => document.body.dataset.state === "done");
    const fox = (await readFile(PICTURE)).toString("base64");
    /** @type {BoundSummary} */
    const summary = await page.evaluate(async (fox) => {
      // @ts-ignore: the page's own package
      const { Pipeline } = await import("./pkg/site.js");
      const pipeline = await Pipeline.load("models/emoji64/", { device: "cpu" });
      const image = await (await fetch(`data:image/png;base64,${fox}`)).blob();
      const summary = await pipeline.bound({ image, prompt: "fox, noto style", seed: 7, terms: 100 });
      await pipeline.dispose();
      return summary;
    }, fox);
    const rows = await page
      .locator("[data-views=bound] tbody tr")
      .evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent ?? "")));
    assert.equal(rows.length, 101);
    const read = (/** @type {string} */ text) =>
      Number(text.replaceAll("−", "-").replace("·10⁻", "e-").replace("·10-", "e-"));
    rows.forEach(([t, term, bits, standsFor], at) => {
      const expected = summary.terms[at];
      assert.equal(t, expected.timestep === null ? "–" : String(expected.timestep));
      assert.equal(term.replace(" ", "_"), expected.term);
      assert.ok(Math.abs(read(bits) - expected.mean) <= 0.05 * Math.abs(expected.mean), `${bits} at t = ${t}`);
      assert.ok(Math.abs(Number(standsFor) - expected.standsFor) <= 0.05);
    });
    const positive = summary.terms.filter(({ timestep, mean }) => timestep !== null && mean > 0);
    assert.equal((await bars(page)).length, positive.length);
    await page.getByLabel("Logarithmic").uncheck();
    assert.equal((await bars(page)).length, 100);
    const [value, error] = (await page.locator("#bits").innerText()).split(" ± ").map(Number);
    const total = summary.total;
    assert.ok(total && Math.abs(value - total.mean) <= 0.01 * total.mean, `${value} in place of ${total?.mean}`);
    assert.ok(Math.abs(error - (total.errorOfTimesteps ?? NaN)) <= 0.05 * error + 0.05);
    assert.match(await page.locator("#bound-of").innerText(), /of the latents/);
  });

  test("a link that starts it computes as many terms as the page says", async ({ page, site }) => {
    await page.goto(site.url(`${SITE}#view=bound&run=1`));
    await page.waitForFunction(() => /Term \d+ of \d+/.test(document.getElementById("status")?.textContent ?? ""));
    const status = await page.locator("#status").innerText();
    assert.equal(await page.locator("#terms").inputValue(), "100");
    assert.match(status, /of 101\b/);
    await page.locator("#cancel").click();
  });

  test("cancel ends it within a term, and what has come stays", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#terms").selectOption("");
    await page.locator("#start").click();
    await agree(page, "[data-views=bound] tbody tr");
    await page.locator("[data-views=bound] tbody tr").nth(3).waitFor({ state: "attached" });
    const before = await page.evaluate(() => {
      const count = document.querySelectorAll("[data-views=bound] tbody tr").length;
      document.getElementById("cancel")?.click();
      return count;
    });
    await page.waitForFunction(() => document.body.dataset.state === "ready");
    const rows = await page.locator("[data-views=bound] tbody tr").count();
    assert.ok(rows - before <= 1, `${rows - before} terms came after the click`);
    assert.match(await page.locator("#status").innerText(), new RegExp(`Cancelled after ${rows} terms`));
    assert.equal((await bars(page)).length, rows - 1);
  });

  test("a drop that is no picture is said, and another picture begins anew", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#terms").selectOption("25");
    await page.locator("#start").click();
    await page.waitForFunction(() => document.body.dataset.state === "done");
    await page
      .locator("#x0-file")
      .setInputFiles({ name: "torn.png", mimeType: "image/png", buffer: Buffer.from("torn") });
    await page.getByText("torn.png could not be read").waitFor();
    assert.equal((await bars(page)).length > 0, true);
    await page.getByRole("button", { name: "Blank" }).click();
    assert.equal((await bars(page)).length, 0);
    assert.equal(await page.locator("#bits").innerText(), "–");
  });
});
