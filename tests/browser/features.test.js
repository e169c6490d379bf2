/** Features of pictures and the distances between sets of them, through the package and on the page. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe } from "node:test";
import { browserTests, faults, root, SITE } from "./harness/index.js";
import { agree } from "./harness/site.js";

/** @import { Distance } from "../../js/index.js" */
/** @import { Page } from "playwright-core" */
/** @import { Site } from "./harness/index.js" */

/** Eight pictures of emoji64. */
const PICTURES = (await readdir(join(root, "tests/trajectories"))).filter((name) => name.endsWith(".png")).toSorted();

/**
 * What the command makes of them:
 * `undiffuse fid --real www/models/emoji-features/statistics/train.safetensors --generated tests/trajectories --json`
 */
const NATIVE = {
  fid: 246.61477885648316,
  fidStandardError: 16.217441740413964,
  kid: 25.896033721196236,
  kidStandardError: 34.130298098291476,
};

/**
 * And of pictures that it draws: likewise with `--generated www/models/emoji64 --count 20 --seed 7 --steps 4 --solver ddim
 * --guidance-scale 4.5` and a `--prompt` for each of these.
 */
const PROMPTS = [
  "fox, noto style",
  "panda, fluent flat style",
  "rocket, twemoji style",
  "octopus, twemoji style",
  "robot, noto style",
];
const DRAWN = { fid: 219.97136299518277, kid: 151.61302807653627 };

const mounts = {
  "/api/": join(root, "tests/browser/pipeline"),
  "/api/pkg/": join(root, "pkg"),
  "/api/models/": join(root, "www/models"),
  "/api/pictures/": join(root, "tests/trajectories"),
};

/** @param {Page} page @param {Site} site @param {(given: any) => unknown} body @param {unknown} [given] @returns {Promise<any>} */
async function onPage(page, site, body, given) {
  await page.goto(site.url("/api/"));
  await page.waitForFunction(() => "settle" in window);
  return page.evaluate(body, given);
}

/** @param {number} found @param {number | null} expected @param {number} relative */
function assertClose(found, expected, relative) {
  assert.ok(Math.abs(found - (expected ?? NaN)) <= relative * Math.abs(found), `${found} in place of ${expected}`);
}

for (const load of [{ device: "webgpu" }, { device: "cpu" }, { device: "cpu", worker: false }]) {
  describe(`an extractor of features with ${JSON.stringify(load)}`, () => {
    const test = browserTests({ graphics: "webgpu", mounts });

    test("gives the command's distances of the same pictures, in any portions", async ({ page, site }) => {
      const report = await onPage(
        page,
        site,
        async ([load, pictures]) => {
          const { FeatureExtractor } = window;
          const extractor = await FeatureExtractor.load("models/emoji-features/", load);
          const real = await extractor.openStatistics("models/emoji-features/statistics/train.safetensors");
          const urls = pictures.map((/** @type {string} */ name) => `pictures/${name}`);
          const drawn = await extractor.statistics();
          await drawn.add(urls);
          const other = await extractor.statistics();
          for (const url of urls) await other.add(url);
          const counts = [real.count, drawn.count, other.count];
          const distances = [
            await drawn.distance(real),
            await other.distance(real),
            await drawn.distance(real, { errors: false }),
            await drawn.distance(other),
          ];
          const { info, device } = extractor;
          await extractor.dispose();
          return { info, kind: device.kind, counts, distances };
        },
        [load, PICTURES],
      );
      assert.equal(report.kind, load.device);
      const { fingerprint, ...info } = report.info;
      assert.deepEqual(info, { name: "emoji", dimension: 64, side: 64, batch: 32 });
      assert.match(fingerprint, /^[0-9a-f]{16}$/);
      assert.deepEqual(report.counts, [163, 8, 8]);
      /** @type {Distance[]} */
      const [first, second, quick, none] = report.distances;
      for (const { fid, fidStandardError, kid, kidStandardError, count, realCount } of [first, second]) {
        assertClose(NATIVE.fid, fid, 1e-4);
        assertClose(NATIVE.fidStandardError, fidStandardError, 1e-3);
        assertClose(NATIVE.kid, kid, 1e-3);
        assertClose(NATIVE.kidStandardError, kidStandardError, 1e-3);
        assert.deepEqual([count, realCount], [8, 163]);
      }
      // The same sums in another order, of covariances without full rank.
      assertClose(first.fid, quick.fid, 1e-6);
      assert.deepEqual([quick.kid, quick.fidStandardError], [null, null]);
      assert.ok(none.fid < 1e-3 * first.fid, `a set is ${none.fid} from itself`);
    });

    test("says what is on a picture and how it is drawn", async ({ page, site }) => {
      const report = await onPage(
        page,
        site,
        async ([load, picture]) => {
          const { FeatureExtractor } = window;
          const extractor = await FeatureExtractor.load("models/emoji-features/", load);
          const answer = await extractor.classify(`pictures/${picture}`, { count: 3 });
          const all = await extractor.classify(`pictures/${picture}`, { count: 10_000 });
          await extractor.dispose();
          return { answer, all };
        },
        [load, PICTURES[0]],
      );
      const { glyphs, styles } = report.answer;
      assert.deepEqual([glyphs.length, styles.length], [3, 3]);
      assert.match(glyphs[0].name, /cat/);
      assert.ok(glyphs[0].probability >= glyphs[1].probability && glyphs[1].probability >= glyphs[2].probability);
      const sum = (/** @type {{ probability: number }[]} */ labels) =>
        labels.reduce((sum, { probability }) => sum + probability, 0);
      assertClose(1, sum(report.all.glyphs), 1e-4);
      assertClose(1, sum(report.all.styles), 1e-4);
      assert.deepEqual(report.all.glyphs.slice(0, 3), glyphs);
    });

    test("refuses in words, and what has failed or was aborted has added nothing", async ({
      page,
      site,
      expectError,
    }) => {
      expectError(/404/);
      const report = await onPage(
        page,
        site,
        async ([load, pictures]) => {
          const { FeatureExtractor, settle } = window;
          const code = async (/** @type {unknown} */ promise) => (await settle(promise)).error?.code;
          const loads = [
            await code(FeatureExtractor.load("models/nothing/", load)),
            await code(FeatureExtractor.load("models/emoji64/unet/", load)),
            await code(FeatureExtractor.load("models/emoji-features/statistics/train.safetensors", load)),
            await code(FeatureExtractor.load("models/emoji-features/", { ...load, signal: AbortSignal.abort() })),
            await code(FeatureExtractor.load("models/emoji-features/", /** @type {any} */ ({ ...load, loras: [] }))),
          ];
          const extractor = await FeatureExtractor.load("models/emoji-features/", load);
          const another = await FeatureExtractor.load("models/emoji-features/", load);
          const real = await extractor.openStatistics("models/emoji-features/statistics/train.safetensors");
          const drawn = await extractor.statistics();
          const url = `pictures/${pictures[0]}`;
          const controller = new AbortController();
          const adding = code(drawn.add(Array(200).fill(url), { signal: controller.signal }));
          setTimeout(() => controller.abort(), 20);
          const aborted = [await adding, drawn.count];
          const adds = [
            await code(drawn.add([url, new Blob(["no picture"])])),
            await code(drawn.add(/** @type {any} */ (7))),
            await code(drawn.distance(real)),
            await code(drawn.add(url)),
            await code(drawn.distance(real)),
            await code(drawn.distance(await another.statistics())),
            await code(drawn.distance(/** @type {any} */ ({}))),
            await code(extractor.openStatistics("models/emoji-features/model.safetensors")),
            await code(extractor.openStatistics("models/emoji-features/config.json")),
            await code(extractor.openStatistics("models/nothing.safetensors")),
            await code(extractor.classify(url, { count: 0 })),
            await code(extractor.classify(new Blob(["no picture"]))),
          ];
          const { count } = drawn;
          await drawn.dispose();
          await drawn.dispose();
          const gone = [await code(drawn.add(url)), await code(drawn.distance(real))];
          await Promise.all([extractor.dispose(), extractor.dispose(), another.dispose()]);
          gone.push(await code(real.add(url)), await code(extractor.classify(url)), await code(extractor.statistics()));
          return { loads, aborted, adds, count, gone };
        },
        [load, PICTURES],
      );
      assert.deepEqual(report.loads, ["unsupported", "unsupported", "unsupported", "aborted", "invalid-option"]);
      assert.deepEqual(report.aborted, ["aborted", 0]);
      assert.deepEqual(report.adds, [
        "invalid-option",
        "invalid-option",
        "invalid-option",
        undefined,
        "invalid-option",
        "invalid-option",
        "invalid-option",
        "file-corrupt",
        "invalid-option",
        "file-missing",
        "invalid-option",
        "invalid-option",
      ]);
      assert.equal(report.count, 1);
      assert.deepEqual(report.gone, Array(5).fill("disposed"));
    });
  });
}

describe("the page's FID", () => {
  const test = browserTests({ graphics: "no-adapter" });

  /** Opens the view with few pictures to draw. @param {Page} page @param {Site} site */
  async function open(page, site) {
    await page.goto(site.url(`${SITE}?device=cpu#view=fid&seed=7&steps=4&solver=ddim&guidanceScale=4.5`));
    await page.waitForFunction(() => document.body.dataset.state === "ready");
    await page.locator("#prompts").fill(PROMPTS.join("\n"));
    await page.locator("#count").fill("20");
  }

  const number = async (/** @type {Page} */ page, /** @type {string} */ selector) =>
    Number((await page.locator(selector).innerText()).split(" ± ")[0].replace("−", "-"));

  test("draws, compares and ends on the command's figures", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#start").click();
    await page.waitForFunction(() => ["done", "error"].includes(document.body.dataset.state ?? ""), undefined, {
      timeout: 120_000,
    });
    assert.equal(await page.locator("#error").innerText(), "");
    assert.equal(await page.locator("#sheet canvas").count(), 20);
    assert.equal(await page.locator("#sheet canvas").nth(6).getAttribute("title"), PROMPTS[1]);
    // Kernels of browsers and of processors round apart: a level here and there.
    assertClose(DRAWN.fid, await number(page, "#fid"), 0.01);
    assertClose(DRAWN.kid, await number(page, "#kid"), 0.02);
    assert.match(await page.locator("#fid").innerText(), / ± /);
    assert.match(await page.locator("#compared").innerText(), /20 pictures drawn, against 163.*far too large/);
    assert.equal(await page.locator("[data-views=fid] .chart circle").count(), 3, "a value for each portion");
    // And they are those of the very pictures on the page.
    const fid = await page.evaluate(async () => {
      // @ts-ignore: the page's own package
      const { FeatureExtractor } = await import("./pkg/features.js");
      const worker = new Worker("pkg/features_worker.js", { type: "module" });
      const extractor = await FeatureExtractor.load("models/emoji-features/", { device: "cpu", worker });
      const real = await extractor.openStatistics("models/emoji-features/statistics/train.safetensors");
      const shown = await extractor.statistics();
      await shown.add([...document.querySelectorAll("#sheet canvas")]);
      const { fid } = await shown.distance(real);
      await extractor.dispose();
      return fid;
    });
    assertClose(fid, await number(page, "#fid"), 0.002);
  });

  test("compares with the visitor's own pictures, and cancel keeps what has come", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#real-files").setInputFiles(PICTURES.map((name) => join(root, "tests/trajectories", name)));
    assert.equal(await page.locator("#real").inputValue(), "own");
    await page.locator("#count").fill("500");
    await page.locator("#start").click();
    await agree(page, "#sheet canvas");
    await page.waitForFunction(() => document.querySelectorAll("#sheet canvas").length >= 8);
    await page.locator("#cancel").click();
    await page.waitForFunction(() => document.body.dataset.state === "ready");
    assert.match(await page.locator("#compared").innerText(), /against 8/);
    assert.match(await page.locator("#status").innerText(), /^Cancelled after \d+ pictures$/);
    assert.ok((await number(page, "#fid")) > 0);
  });

  test("real pictures that are none, and a classifier that is not there, are said", async ({
    page,
    site,
    expectError,
  }) => {
    expectError(/404/);
    await open(page, site);
    await page
      .locator("#real-files")
      .setInputFiles({ name: "torn.png", mimeType: "image/png", buffer: Buffer.from("torn") });
    await page.locator("#start").click();
    await page.waitForFunction(() => document.body.dataset.state === "error");
    assert.match(await page.getByRole("alert").innerText(), /could not be read as a picture/);
    await page.reload();
    await open(page, site);
    site.break("emoji-features/model.safetensors", faults.missing());
    await page.locator("#start").click();
    await page.waitForFunction(() => document.body.dataset.state === "error");
    assert.match(await page.getByRole("alert").innerText(), /emoji-features.*model\.safetensors/);
    // It is there the next time.
    site.reset();
    await page.locator("#count").fill("2");
    await page.locator("#start").click();
    await page.waitForFunction(() => document.body.dataset.state === "done");
  });

  test("what is on the picture is said", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#x0-file").setInputFiles(join(root, "tests/trajectories", PICTURES[0]));
    await page.getByRole("img", { name: `x 0, the picture: ${PICTURES[0]}` }).waitFor();
    await page.getByRole("button", { name: "What is it?" }).click();
    await page.locator("#answers li").first().waitFor();
    assert.match(await page.locator("#answers li").first().innerText(), /cat.*%/);
    assert.match(await page.locator("#answers li").last().innerText(), /^drawn like /);
  });
});
