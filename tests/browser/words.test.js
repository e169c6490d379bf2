/** What the page says of a prompt and of a solver, before anything is drawn. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe } from "node:test";
import { browserTests, root, SITE } from "./harness/index.js";

/** @import { Page } from "playwright-core" */
/** @import { Site } from "./harness/index.js" */

const ABOUT = JSON.parse(await readFile(join(root, "www/models/emoji64.json"), "utf8"));

/** @param {Page} page @param {Site} site */
async function open(page, site) {
  await page.goto(site.url(`${SITE}?device=cpu`));
  await page.waitForFunction(() => document.body.dataset.state === "ready");
  await page.locator("#examples button").first().waitFor();
}

/** What is said of a prompt. @param {Page} page @param {string} prompt */
async function remark(page, prompt) {
  await page.getByLabel("Prompt", { exact: true }).fill(prompt);
  return (await page.locator("#prompt-hint").textContent()) ?? "";
}

describe("of a prompt", () => {
  const test = browserTests({ graphics: "no-adapter" });

  test("what the model knows is passed in silence, in every style", async ({ page, site }) => {
    await open(page, site);
    for (const prompt of ABOUT.prompts) assert.equal(await remark(page, prompt), "", prompt);
    for (const [index, name] of Object.keys(ABOUT.glyphs).entries()) {
      const prompt = `${name}, ${ABOUT.styles[index % 3]}`;
      assert.equal(await remark(page, prompt), "", prompt);
    }
    for (const prompt of ["", "noto style", "a Panda", "robots", "jack o lantern", "cat"]) {
      assert.equal(await remark(page, prompt), "", prompt);
    }
  });

  test("what it does not know is said, with what is nearest", async ({ page, site }) => {
    await open(page, site);
    const nearest = async (/** @type {string} */ prompt) => {
      const words = await remark(page, prompt);
      assert.match(
        words,
        /emoji64 knows 58 things, and “.+” is not one of them: it will draw something that it knows\./,
      );
      return /Nearest: (.*)\.$/.exec(words)?.[1].split(", ");
    };
    assert.deepEqual(await nearest("pandda, noto style"), ["panda"]);
    assert.equal((await nearest("a red car on the moon"))?.[0], "automobile");
    assert.deepEqual(await nearest("blue apple"), ["blue heart", "green apple", "red apple"]);
    assert.ok((await nearest("elephant"))?.includes("panda"));
    assert.deepEqual(await nearest("fox and panda"), ["fox", "panda"]);
    assert.equal(await nearest("quantum mechanics"), undefined);
    assert.match(await remark(page, "quantum"), /All of them are listed below\.$/);
    const long = await remark(page, "lorem ipsum ".repeat(500));
    assert.ok(long.length < 300, `${long.length} letters`);
  });

  test("an emoji is sent by its name, which is said, and draws what the name draws", async ({ page, site }) => {
    await open(page, site);
    for (const [name, { emoji }] of Object.entries(ABOUT.glyphs)) {
      assert.equal(await remark(page, `${emoji}, noto style`), `Sent to the model as “${name}, noto style”.`);
    }
    assert.match(await remark(page, "❤️"), /“red heart”/);
    assert.match(await remark(page, "🐘"), /“🐘” is not one of them.*Nearest:.*panda/);
    assert.match(await remark(page, "👍🏽"), /“👍🏽” is not one of them/);
    const pictures = [];
    for (const prompt of ["🐼, fluent flat style", "panda, fluent flat style"]) {
      await page.getByLabel("Prompt", { exact: true }).fill(prompt);
      await page.getByLabel("Seed", { exact: true }).fill("7");
      await page.getByLabel("Steps", { exact: true }).fill("2");
      await page.locator("#start").click();
      await page.waitForFunction(() => document.body.dataset.state === "sampling");
      await page.waitForFunction(() => ["done", "error"].includes(document.body.dataset.state ?? ""));
      assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), prompt);
      pictures.push(
        await page.locator("#canvas").evaluate((canvas) => /** @type {HTMLCanvasElement} */ (canvas).toDataURL()),
      );
    }
    assert.equal(pictures[0], pictures[1]);
  });

  test("of another model nothing is said", async ({ page, site }) => {
    await open(page, site);
    assert.notEqual(await remark(page, "elephant"), "");
    const sd = join(root, "tests/reference/pipelines/models/sd");
    await page.locator("input[webkitdirectory]").setInputFiles(sd);
    await page.waitForFunction(() => document.querySelector("#status")?.textContent?.startsWith("sd is ready"));
    assert.equal(await remark(page, "🐼"), "");
  });

  test("too much is named by its ends, and read in chunks at a press", async ({ page, site }) => {
    await open(page, site);
    await page.getByLabel("Prompt", { exact: true }).fill("panda ".repeat(1000));
    await page.getByLabel("Steps", { exact: true }).fill("1");
    await page.locator("#start").click();
    await page.getByText("too long for this model").waitFor();
    const notice = await page.locator("#notice").innerText();
    assert.match(notice, / … and \d+ more, to … /);
    assert.ok(notice.length < 250, notice);
    await page.waitForFunction(() => document.body.dataset.state === "done");
    await page.getByLabel("Prompt", { exact: true }).fill("panda ".repeat(60));
    await page.locator("#start").click();
    await page.getByRole("button", { name: "Read all of it, in chunks" }).click();
    await page.waitForFunction(() => document.body.dataset.state === "done" && document.querySelector("#cure[hidden]"));
    assert.equal(await page.locator("#long-prompts").inputValue(), "chunks");
  });
});

describe("of a solver", () => {
  const test = browserTests({ graphics: "no-adapter" });

  test("only those are offered that the model can be run with, with the steps that they take", async ({
    page,
    site,
  }) => {
    await open(page, site);
    const info = await page.evaluate(async () => {
      // @ts-ignore: the page's own package
      const { Pipeline } = await import("./pkg/site.js");
      const pipeline = await Pipeline.load("models/emoji64/", { device: "cpu" });
      const { info } = pipeline;
      await pipeline.dispose();
      return info;
    });
    const offered = await page
      .locator("#solver option")
      .evaluateAll((options) => options.map((option) => option.getAttribute("value") ?? ""));
    assert.deepEqual(offered.filter(Boolean).toSorted(), [...info.solvers].toSorted());
    assert.ok(!offered.includes("flow_euler"));
    const steps = page.getByLabel("Steps", { exact: true });
    for (const solver of info.solvers) {
      await page.getByLabel("Solver", { exact: true }).selectOption(solver);
      const { min, max } = info.solverSteps[solver];
      assert.deepEqual([await steps.getAttribute("min"), await steps.getAttribute("max")], [String(min), String(max)]);
      assert.match(await page.locator("#solver-hint").innerText(), /\.$/, solver);
      await steps.fill(String(max + 1));
      assert.match(await page.locator("#solver-hint").innerText(), new RegExp(`takes .*${max} steps here`));
      await steps.fill("20");
    }
    await page.getByLabel("Solver", { exact: true }).selectOption("heun");
    await page.getByText("20 steps ask the network 39 times.").waitFor();
    await page.getByLabel("Solver", { exact: true }).selectOption("ddim");
    await page.waitForFunction(() => !document.querySelector("#solver-hint")?.textContent?.includes("ask the network"));
  });
});
