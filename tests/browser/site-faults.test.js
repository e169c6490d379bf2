/** The site where something goes wrong, or somebody does what was not thought of: there always is a way on, and what worked still does. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe } from "node:test";
import { browserTests, faults, root, SITE } from "./harness/index.js";
import { chunksOf, pngOf } from "./harness/png.js";
import { agree, draw, drop, open, pixels, reach, start } from "./harness/site.js";

/** @import { Page } from "playwright-core" */

const shown = async (/** @type {Page} */ page) => (await pixels(page, "#canvas"))[0];

/** What a visitor has set up, and must not lose. @param {Page} page */
function settings(page) {
  return page.evaluate(() => {
    const fields = /** @type {NodeListOf<HTMLInputElement>} */ (
      document.querySelectorAll("#form :is(input:not([type=file]), select, textarea)")
    );
    const chips = [...document.querySelectorAll("#examples button")].filter((chip) => chip.checkVisibility());
    return {
      values: Object.fromEntries([...fields].map(({ id, value, disabled }) => [id, `${value} ${disabled}`])),
      chips: chips.map(({ textContent }) => textContent),
      frames: document.querySelectorAll("#filmstrip [data-step]").length,
    };
  });
}

/** Waits until something is said where errors are. @param {Page} page @param {RegExp} words */
async function refused(page, words) {
  await page.waitForFunction(() => document.getElementById("error")?.textContent !== "", undefined, {
    timeout: 150_000,
  });
  assert.match(await page.getByRole("alert").innerText(), words);
}

/** Somebody has a way on: a button that can be pressed is in sight of the words. @param {Page} page */
async function waysOn(page) {
  return page
    .locator("#remedies button:visible:enabled, #start:visible:enabled, #cancel:visible:enabled")
    .allInnerTexts();
}

/** Fills a field and reports it, as a visitor leaves it. @param {Page} page @param {string} field @param {string} value */
async function type(page, field, value) {
  await page.locator(field).evaluate((element, value) => {
    const input = /** @type {HTMLInputElement} */ (element);
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, value);
}

/** Files that are no checkpoint, or are none any more. @type {[name: string, content: Buffer][]} */
const WRONG = [
  ["paper.pdf", Buffer.from("%PDF-1.7\n1 0 obj\n")],
  ["notes.txt", Buffer.from("buy milk\n")],
  [
    "pointer.safetensors",
    Buffer.from("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167540\n"),
  ],
  ["page.safetensors", Buffer.from("<!doctype html><title>404</title>")],
  ["old.ckpt", Buffer.from("PK\x03\x04archive/data.pkl")],
  ["empty.safetensors", Buffer.alloc(0)],
  ["noise.gguf", Buffer.from(Array.from({ length: 999 }, (_, at) => (at * 73) % 256))],
];

describe("a file that is refused", () => {
  const test = browserTests({ graphics: "no-adapter" });

  test("leaves the model, its settings, the film and the prompt as they were", async ({ page, site }) => {
    await open(page, site);
    await draw(page, { steps: 3, seed: 11 });
    const picture = await shown(page);
    const before = await settings(page);
    for (const [name, content] of WRONG) {
      await drop(page, name, content, "");
      await refused(page, /emoji64 is still open\.$/);
      assert.deepEqual(await settings(page), before, name);
      assert.deepEqual((await waysOn(page)).sort(), ["OK", "Start from noise"], name);
      assert.equal(await shown(page), picture, name);
      await page.getByRole("button", { name: "OK" }).click();
      await reach(page, "done");
    }
    await draw(page, { steps: 3, seed: 11 });
    assert.equal(await shown(page), picture);
  });

  test("at an address, in half a folder, is one as well, and loading again is offered where it helps", async ({
    page,
    site,
    expectError,
  }) => {
    expectError(/404/);
    await open(page, site);
    const before = await settings(page);
    await page.getByLabel("Address of a checkpoint").fill(site.url(`${SITE}models/none/`));
    await page.getByRole("button", { name: "Open", exact: true }).click();
    await refused(page, /emoji64 is still open/);
    assert.deepEqual(await settings(page), before);
    assert.deepEqual((await waysOn(page)).sort(), ["Load again", "OK", "Start from noise"]);
    // Half a folder: an index, and little of what it names.
    await page.evaluate(async () => {
      const items = ["model_index.json", "scheduler/scheduler_config.json"].map(async (path) => {
        const content = new File([await (await fetch(`models/emoji64/${path}`)).blob()], path);
        const file = (/** @type {(file: File) => void} */ take) => take(content);
        const entry = { isFile: true, name: "half", fullPath: `/half/${path}`, file };
        return { webkitGetAsEntry: () => entry };
      });
      const dataTransfer = { items: await Promise.all(items) };
      dispatchEvent(Object.defineProperty(new Event("drop"), "dataTransfer", { value: dataTransfer }));
    });
    await refused(page, /not among the chosen files.*emoji64 is still open/s);
    assert.deepEqual(await settings(page), before);
    assert.deepEqual((await waysOn(page)).sort(), ["OK", "Start from noise"]);
    await draw(page, { steps: 1 });
  });

  test("lets a run go on, and a load", async ({ page, site }) => {
    site.break("unet/diffusion_pytorch_model.safetensors", faults.slow(4_000_000));
    await page.goto(site.url(SITE));
    await page.waitForFunction(() => document.querySelector("#status")?.textContent?.includes("of"));
    await drop(page, ...WRONG[0], "");
    await refused(page, /paper\.pdf/);
    assert.equal(await page.locator("#error").getAttribute("data-code"), "file-corrupt");
    await page.getByRole("button", { name: "OK" }).click();
    await reach(page, "ready");
    await start(page, { steps: 40 });
    await page.locator('[data-step="1"]').waitFor();
    await drop(page, ...WRONG[0], "");
    await refused(page, /paper\.pdf.*still open/s);
    await page.locator('[data-step="39"]').waitFor();
    await page.getByRole("button", { name: "OK" }).click();
    await reach(page, "done");
  });

  test("where there is no room for two models, the open one makes way, and comes back", async ({ page, site }) => {
    // A device with room for one: while a pipeline is open, no other can be.
    site.break(
      "pkg/site.js",
      faults.changed((script) => {
        const text = script.toString();
        const local = (/** @type {string} */ name) => new RegExp(`([\\w$]+) as ${name}\\b`).exec(text)?.[1] ?? name;
        const name = local("Pipeline");
        const room = `{
          const { load } = ${name};
          let open = 0;
          ${name}.load = async (...given) => {
            if (open > 0) throw new ${local("UndiffuseError")}("out-of-memory", "There is no room.");
            const pipeline = await load(...given);
            open += 1;
            const { dispose } = pipeline;
            pipeline.dispose = () => ((open -= 1), dispose.call(pipeline));
            return pipeline;
          };
        }`;
        return Buffer.from(`${text}\n;${room}`);
      }),
    );
    await open(page, site);
    await draw(page, { steps: 2, seed: 5 });
    const picture = await shown(page);
    await drop(page, ...WRONG[0], "");
    await refused(page, /paper\.pdf.*emoji64 is still open/s);
    await draw(page, { steps: 2, seed: 5 });
    assert.equal(await shown(page), picture);
    await page
      .locator("input[webkitdirectory]")
      .setInputFiles(join(root, "tests/reference/pipelines/models/ddpm_uncond"));
    await page.waitForFunction(() => document.querySelector("#status")?.textContent?.startsWith("ddpm_uncond is"));
    await draw2(page);
  });

  /** Draws with a model without prompts. @param {Page} page */
  async function draw2(page) {
    await page.locator("#steps").fill("2");
    await page.locator("#start").click();
    await reach(page, "done");
  }

  test("has the way back beside it, when another model is open", async ({ page, site }) => {
    await open(page, site);
    await page
      .locator("input[webkitdirectory]")
      .setInputFiles(join(root, "tests/reference/pipelines/models/ddpm_uncond"));
    await page.waitForFunction(() => document.querySelector("#status")?.textContent?.startsWith("ddpm_uncond is"));
    assert.equal(await page.locator("#steps").inputValue(), "25");
    await drop(page, ...WRONG[1], "");
    await refused(page, /notes\.txt.*ddpm_uncond is still open/s);
    await page.locator("#remedies").getByRole("button", { name: "Back to emoji64" }).click();
    await page.waitForFunction(() => document.querySelector("#status")?.textContent?.startsWith("emoji64 is ready"));
    assert.equal(await page.locator("#steps").inputValue(), "20");
    assert.ok(await page.locator("#examples").isVisible());
    await draw(page, { steps: 1 });
  });
});

describe("a field that cannot be read", () => {
  const test = browserTests({ graphics: "no-adapter" });

  test("is opened, named and in focus, wherever it is, and mending it takes the complaint away", async ({
    page,
    site,
  }) => {
    await open(page, site);
    for (const [field, value, words] of /** @type {const} */ ([
      ["#width", "70", /“Width” is 70, and has to be a multiple of 4/],
      ["#height", "99999", /“Height” is 99999, and has to be a number from 4 to 8192/],
      ["#steps", "", /“Steps” is empty/],
      ["#steps", "0", /“Steps” is 0, and has to be a number from 1/],
      ["#seed", "-1", /“Seed” has to be a whole number/],
      ["#seed", "99999999999999999999", /“Seed” has to be at most 18446744073709551615/],
      ["#pictures", "1.5", /“Pictures at once” is 1.5, and has to be a whole number/],
      ["#eta", "2", /“η, fresh noise in DDIM” is 2, and has to be a number from 0 to 1/],
    ])) {
      const before = await page.locator(field).inputValue();
      await page.locator("#more").evaluate((more) => more.removeAttribute("open"));
      await type(page, field, value);
      for (const press of ["#start", "#measure"]) {
        await page.locator(press).evaluate((button) => /** @type {HTMLElement} */ (button).click());
        await reach(page, "error");
        assert.match(await page.getByRole("alert").innerText(), words, press);
        assert.ok(await page.locator(`${field}:focus`).isVisible(), `${field} is not in focus`);
        assert.ok(await page.locator("#retry").isHidden(), "loading again mends no field");
      }
      await type(page, field, before);
      await reach(page, "ready");
    }
    await draw(page, { steps: 1 });
  });

  test("does not count where it is not used", async ({ page, site }) => {
    await open(page, site);
    await type(page, "#steps", "");
    await type(page, "#width", "70");
    await page.getByRole("link", { name: "The bound" }).click();
    await page.locator("#terms").selectOption("25");
    await page.locator("#start").click();
    await reach(page, "done");
    await page.getByRole("link", { name: "FID" }).click();
    await type(page, "#count", "1");
    await page.locator("#start").click();
    await reach(page, "error");
    assert.match(await page.getByRole("alert").innerText(), /“Steps” is empty/);
    await type(page, "#steps", "2");
    await page.locator("#start").click();
    assert.match(await page.getByRole("alert").innerText(), /“Pictures” is 1, and has to be a number from 2/);
    await page.getByRole("link", { name: "Picture to noise" }).click();
    await page.locator("#t").fill("500");
    await page.waitForFunction(() => document.getElementById("forward")?.dataset.shown === "500");
    await page.locator("#start").click();
    await reach(page, "done");
    await page.getByRole("link", { name: "Noise to picture" }).click();
    await page.locator("#start").click();
    assert.match(await page.getByRole("alert").innerText(), /“Width” is 70/);
    await type(page, "#width", "");
    await draw(page, { steps: 1 });
  });

  test("of the view of the forward process is named while t is dragged", async ({ page, site }) => {
    await open(page, site, "#view=forward");
    await page.waitForFunction(() => document.getElementById("forward")?.dataset.shown === "null");
    await type(page, "#seed", "seven");
    await page.locator("#t").fill("300");
    await refused(page, /“Seed” has to be a whole number/);
    await type(page, "#seed", "7");
    await page.locator("#t").fill("301");
    await page.waitForFunction(() => document.getElementById("forward")?.dataset.shown === "301");
    assert.equal(await page.locator("#error").innerText(), "");
  });

  for (const [values, words] of /** @type {const} */ ([
    ["width=7", /“Width” is 7/],
    ["steps=", /“Steps” is empty/],
    ["solver=magic", /solver “magic”, which is unknown/],
    ["solver=flow_euler", /solver “flow_euler”, which is unknown/],
    ["steps=many", /steps “many”, which is unknown/],
  ])) {
    test(`of a link (${values}) is named, and nothing is drawn`, async ({ page, site }) => {
      await page.goto(site.url(`${SITE}#prompt=fox&${values}&run=1`));
      await refused(page, words);
      assert.equal(await page.locator("[data-step]").count(), 0);
      // Likewise on a page with an open model.
      await open(page, site);
      await page.evaluate((hash) => (location.hash = hash), `prompt=fox&${values}&run=1`);
      await refused(page, words);
      assert.equal(await page.locator("[data-step]").count(), 0);
    });
  }

  test("of a picture is named, and what is left to the model takes its place", async ({ page, site }) => {
    await open(page, site);
    const [header, ...rest] = chunksOf(await readFile(join(root, "tests/pictures/fox.png"))).filter(
      ({ type }) => !/TXt|tEXt/.test(type),
    );
    for (const solver of ["flow_euler", "magic"]) {
      const made = JSON.stringify({ prompt: "panda", solver, model: "emoji64" });
      const file = pngOf([header, { type: "tEXt", data: Buffer.from(`undiffuse\0${made}`) }, ...rest]);
      await drop(page, "other.png", file, "image/png");
      await page.getByText(`this model cannot take solver = ${solver}`, { exact: false }).waitFor();
      assert.equal(await page.locator("#solver").inputValue(), "");
      assert.equal(await page.locator("#error").innerText(), "");
    }
    await page.locator("#steps").fill("2");
    await page.locator("#start").click();
    await reach(page, "done");
  });
});

describe("cancelling", () => {
  const test = browserTests({ graphics: "no-adapter" });

  for (const by of ["Cancel", "Escape"]) {
    test(`by ${by} takes no longer than a blink, however large the picture is`, async ({ page, site }) => {
      await open(page, site);
      for (const field of ["#width", "#height"]) await type(page, field, "1024");
      await start(page, { steps: 50 });
      const anyway = page.getByRole("button", { name: "Start anyway" });
      await anyway.click({ timeout: 60_000 });
      assert.ok(await page.locator("#cancel").isEnabled());
      await page.waitForTimeout(1500);
      const took = await page.evaluate(async (by) => {
        const begun = performance.now();
        if (by === "Escape") dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
        else document.getElementById("cancel")?.click();
        if (document.getElementById("status")?.textContent !== "Cancelling") return "it did not say so";
        while (document.body.dataset.state === "sampling") await new Promise((resolve) => setTimeout(resolve, 10));
        return performance.now() - begun;
      }, by);
      assert.ok(Number(took) < 1000, `it took ${took}`);
      assert.match(await page.locator("#status").innerText(), /^Cancelled after 0 steps$/);
      for (const field of ["#width", "#height"]) await type(page, field, "");
      await draw(page, { steps: 1 });
    });
  }

  test("a load, a profile and a bound", async ({ page, site }) => {
    site.break("unet/diffusion_pytorch_model.safetensors", faults.slow(100_000));
    await page.goto(site.url(SITE));
    await page.waitForFunction(() => document.querySelector("#status")?.textContent?.includes("of"));
    await page.locator("#cancel").click();
    await reach(page, "error");
    assert.match(await page.getByRole("alert").innerText(), /Loading was cancelled/);
    site.reset();
    await page.getByRole("button", { name: "Load again" }).click();
    await reach(page, "ready");
    await page.locator("#profile summary").click();
    await page.locator("#measure").click();
    await page.locator("#cancel").click();
    await reach(page, "ready");
    await page.getByRole("link", { name: "The bound" }).click();
    await page.locator("#terms").selectOption("");
    await page.locator("#start").click();
    await agree(page, "[data-views=bound] tbody tr");
    await page.locator("[data-views=bound] tbody tr").first().waitFor({ state: "attached" });
    await page.keyboard.press("Escape");
    await reach(page, "ready");
    await draw3(page);
  });

  /** The pipeline is free again. @param {Page} page */
  async function draw3(page) {
    await page.getByRole("link", { name: "Noise to picture" }).click();
    await draw(page, { steps: 1 });
  }

  test("works where the classifier does not arrive, and so do the other views", async ({ page, site }) => {
    await open(page, site, "#view=fid");
    site.break("emoji-features/model.safetensors", faults.slow(1));
    for (const press of ["#start", "#classify"]) {
      await page.locator(press).click();
      if (press === "#start")
        await page
          .getByRole("button", { name: "Start anyway" })
          .click({ timeout: 3000 })
          .catch(() => {});
      await reach(page, "sampling");
      await page.locator("#cancel").click();
      await reach(page, "ready");
    }
    await page.locator("#classify").click();
    await reach(page, "sampling");
    await page.getByRole("link", { name: "Noise to picture" }).click();
    await draw(page, { steps: 1 });
    site.reset();
    await page.getByRole("link", { name: "FID" }).click();
    // Pressed again at once, it waits for a load of its own and not for the one that is ending.
    await page.evaluate(async () => {
      const [classify, cancel] = ["classify", "cancel"].map(
        (id) => /** @type {HTMLButtonElement} */ (document.getElementById(id)),
      );
      classify.click();
      cancel.click();
      while (classify.disabled) await new Promise((resolve) => setTimeout(resolve));
      classify.click();
    });
    await page.locator("#answers li").first().waitFor();
    assert.equal(await page.locator("#status").innerText(), "Looked");
  });
});

describe("the focus", () => {
  const test = browserTests({ graphics: "no-adapter" });

  /** Waits until an element has the focus. @param {Page} page @param {string} id */
  const focused = (page, id) =>
    page.waitForFunction((id) => document.activeElement?.id === id, id, { timeout: 60_000 });

  test("goes to a question, and from there and back to what goes on", async ({ page, site }) => {
    await open(page, site);
    for (const field of ["#width", "#height"]) await type(page, field, "1024");
    await page.locator("#steps").fill("50");
    await page.locator("#start").press("Enter");
    await focused(page, "yes");
    await page.keyboard.press("Enter");
    await focused(page, "cancel");
    await page.keyboard.press("Enter");
    await focused(page, "start");
    await page.keyboard.press("Enter");
    await focused(page, "yes");
    await page.getByRole("button", { name: "Not now" }).press("Enter");
    await focused(page, "start");
  });

  test("is never dropped by a button that is switched off or goes away", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#profile summary").click();
    await page.locator("#measure").press("Enter");
    await focused(page, "cancel");
    await reach(page, "ready");
    await focused(page, "measure");
    await drop(page, ...WRONG[0], "");
    await refused(page, /paper\.pdf/);
    await page.locator("#dismiss").press("Enter");
    await focused(page, "start");
    await page.locator("#steps").fill("1");
    await page.getByLabel("Prompt", { exact: true }).fill("fox ".repeat(100));
    await page.locator("#start").press("Enter");
    await page.locator("#cure").waitFor();
    await page.locator("#cure").press("Enter");
    await reach(page, "done");
    await focused(page, "start");
    await page.getByRole("link", { name: "FID" }).click();
    await page.locator("#classify").press("Enter");
    await page.locator("#answers li").first().waitFor();
    await focused(page, "classify");
    await page.getByRole("link", { name: "Noise to picture" }).click();
    await page.getByRole("button", { name: "Use the one shown" }).press("Enter");
    await page.getByRole("button", { name: "Remove", exact: true }).press("Enter");
    await focused(page, "start");
  });
});

describe("views", () => {
  const test = browserTests({ graphics: "no-adapter" });

  test("keep what they have found for as long as it is of the picture and the model that are there", async ({
    page,
    site,
  }) => {
    await open(page, site, "#view=bound");
    await page.locator("#terms").selectOption("25");
    await page.locator("#start").click();
    await reach(page, "done");
    const found = async () => [
      await page.locator("#bits").innerText(),
      await page.locator("[data-views=bound] tbody tr").count(),
      await page.locator("#status").innerText(),
      await page.locator("body").getAttribute("data-state"),
      await page.locator("#terms").inputValue(),
    ];
    const before = await found();
    assert.match(String(before[2]), /^26 terms in /);
    for (const name of ["Noise to picture", "The bound"]) await page.getByRole("link", { name }).click();
    assert.deepEqual(await found(), before);
    await page.getByRole("button", { name: "Blank" }).click();
    assert.deepEqual(await found(), ["–", 0, "", "ready", "25"]);
    // The guess at one t is not that at another.
    await page.getByRole("link", { name: "Picture to noise" }).click();
    const turn = async (/** @type {string} */ t) => {
      await page.locator("#t").fill(t);
      await page.waitForFunction((t) => document.getElementById("forward")?.dataset.shown === t, t);
    };
    const guess = async () => {
      await page.locator("#guess").click();
      await page.getByText("At t = 500 the mean of", { exact: false }).first().waitFor();
      assert.match(String(await page.locator("#noise").getAttribute("aria-label")), /t = 500/);
    };
    const isGone = async () => {
      assert.equal(await page.locator("#status").innerText(), "");
      assert.match(String(await page.locator("#noise").getAttribute("aria-label")), /not asked/);
      assert.match(String(await page.locator("#denoised").getAttribute("aria-label")), /not (asked|begun)/);
    };
    await turn("500");
    await guess();
    await turn("100");
    await isGone();
    await turn("500");
    await guess();
    for (const name of ["Noise to picture", "Picture to noise"]) await page.getByRole("link", { name }).click();
    await isGone();
  });

  test("leave nothing of themselves behind, and find their own again", async ({ page, site }) => {
    await open(page, site);
    await draw(page, { steps: 3, seed: 7 });
    const fox = await shown(page);
    const said = await page.locator("#status").innerText();
    assert.match(said, /^3 steps/);
    const visible = () =>
      page.evaluate(() =>
        [...document.querySelectorAll("main :is(button, canvas, input, select, textarea, output, summary)")]
          .filter((part) => part.checkVisibility())
          .map((part) => part.id || part.ariaLabel || part.textContent),
      );
    const before = await visible();
    for (const name of ["Picture to noise", "The bound", "FID"]) {
      await page.getByRole("link", { name }).click();
      await page.locator("#pad").waitFor();
      assert.notEqual(await page.locator("#status").innerText(), said, name);
      assert.equal(await page.locator("#filmstrip [data-step]:visible").count(), 0, "the film is of another view");
      await page.getByRole("link", { name: "Noise to picture" }).click();
      assert.deepEqual(await visible(), before, name);
      assert.equal(await shown(page), fox, name);
      assert.equal(await page.locator("#status").innerText(), said);
      assert.ok(await page.locator("#download").isEnabled());
    }
    await page.getByRole("link", { name: "Picture to noise" }).click();
    await page.locator("#t").fill("400");
    await page.waitForFunction(() => document.getElementById("forward")?.dataset.shown === "400");
    await page.locator("#start").click();
    await reach(page, "done");
    await page.getByRole("link", { name: "Noise to picture" }).click();
    assert.equal(await shown(page), fox);
    assert.equal(await page.locator("#filmstrip [data-step]").count(), 3);
  });

  test("are where Back leads, and the model, the film and the drawing remain", async ({ page, site }) => {
    await open(page, site);
    await draw(page, { steps: 2 });
    const fox = await shown(page);
    site.requests.length = 0;
    await page.getByRole("link", { name: "Picture to noise" }).click();
    await page.locator("#pad").waitFor();
    await page.getByRole("button", { name: "Blank" }).click();
    const drawing = await pixels(page, "#x0");
    await page.getByRole("link", { name: "FID" }).click();
    await page.locator("#sheet").waitFor({ state: "attached" });
    await page.goBack();
    await page.locator("#forward").waitFor();
    assert.deepEqual(await pixels(page, "#x0"), drawing);
    await page.goBack();
    assert.equal(await page.locator("body").getAttribute("data-view"), "reverse");
    assert.equal(await shown(page), fox);
    await page.goForward();
    await page.locator("#forward").waitFor();
    const isOfModel = (/** @type {string} */ path) => path.includes("/emoji64/") && path.endsWith(".safetensors");
    assert.ok(!site.requests.some(({ path }) => isOfModel(path)), "the model was loaded again");
  });

  test("one that does not arrive says so, can be tried again, and draws nothing of another", async ({
    page,
    site,
    expectError,
  }) => {
    expectError(/404|Failed to fetch dynamically/);
    await open(page, site);
    site.break("bound.js", faults.missing());
    await page.getByRole("link", { name: "The bound" }).click();
    await reach(page, "error");
    assert.ok(await page.locator("#start").isDisabled());
    site.reset();
    await page.getByRole("button", { name: "Try again" }).click();
    await page.locator("#terms option").first().waitFor({ state: "attached" });
    await reach(page, "ready");
    await page.getByRole("link", { name: "Noise to picture" }).click();
    await draw(page, { steps: 1 });
  });
});

describe("links", () => {
  const host = browserTests({
    graphics: "no-adapter",
    mounts: { [SITE]: join(root, "dist"), "/elsewhere/": join(root, "www/models") },
  });

  host("to a model elsewhere ask before they fetch it", async ({ page, site }) => {
    const model = site.url("/elsewhere/emoji64/");
    const link = site.url(`${SITE}#${new URLSearchParams({ model, prompt: "panda", steps: "2", run: "1" })}`);
    await page.goto(link);
    await page.getByText(/This link opens emoji64 \(\d+ MB\) from 127\.0\.0\.1:\d+/).waitFor();
    await reach(page, "ready");
    const fetched = () =>
      site.requests.filter(({ method, path }) => method === "GET" && /elsewhere.*safetensors/.test(path));
    assert.deepEqual(fetched(), []);
    // In the meantime there is the page's own.
    await page.getByRole("button", { name: "Not now" }).click();
    assert.ok(await page.locator("#question").isHidden());
    assert.equal(await page.locator("[data-step]").count(), 0);
    await draw(page, { steps: 1 });
    assert.deepEqual(fetched(), []);
    await page.goto("about:blank");
    await page.goto(link);
    await page.locator("#question").getByRole("button", { name: "Open" }).click();
    await page.waitForFunction(() => document.body.dataset.state === "done", undefined, { timeout: 150_000 });
    assert.equal(await page.locator("#prompt").inputValue(), "panda");
    assert.equal(await page.locator("[data-step]").count(), 2);
    assert.ok(fetched().length > 0);
  });

  const test = browserTests({ graphics: "no-adapter" });

  test("to a model of the site that is not there open the page's own in its place", async ({
    page,
    site,
    expectError,
  }) => {
    expectError(/404/);
    await page.goto(site.url(`${SITE}#model=models/none/&run=1`));
    await refused(page, /models\/none.*emoji64 is open\.$/s);
    assert.deepEqual((await waysOn(page)).sort(), ["Load again", "OK", "Start from noise"]);
    assert.ok(await page.locator("#examples").isVisible());
    await draw(page, { steps: 1 });
  });

  test("draw without waiting for examples that do not arrive", async ({ page, site }) => {
    site.break("models/emoji64.json", faults.slow(1));
    await page.goto(site.url(`${SITE}#prompt=panda&seed=3&steps=2&guidanceScale=4&solver=ddim&run=1`));
    await reach(page, "done");
    assert.equal(await page.locator("#prompt").inputValue(), "panda");
    assert.equal(await page.locator("[data-step]").count(), 2);
  });
});

describe("pictures and files", () => {
  const test = browserTests({ graphics: "no-adapter" });

  /** A photo, as large as phones make them. @param {Page} page @param {number} width @param {number} height */
  async function photo(page, width, height) {
    const url = await page.evaluate(
      async ([width, height]) => {
        const canvas = new OffscreenCanvas(width, height);
        const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
        // Three stripes: the middle one is what a square keeps of it.
        for (const [at, colour] of ["#ff0000", "#00ff00", "#0000ff"].entries()) {
          context.fillStyle = colour;
          context.fillRect((at * width) / 3, 0, width / 3, height);
        }
        const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer());
        return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
      },
      [width, height],
    );
    return Buffer.from(url, "base64");
  }

  test("a photo is brought to the size that the model was trained at, and it is said", async ({ page, site }) => {
    await open(page, site);
    await drop(page, "photo.png", await photo(page, 3000, 1000), "image/png");
    await page.getByText("photo.png is what the next picture starts from", { exact: false }).waitFor();
    assert.equal(await page.locator("#start").innerText(), "Start from the picture");
    assert.equal(await page.locator("#easel-words").innerText(), "photo.png, 3000 × 1000: its middle, at 64 × 64");
    assert.match(await page.locator("#trained").innerText(), /trained at 64 × 64/);
    const middle = await page.locator("#start-picture").evaluate((canvas) => {
      const context = /** @type {HTMLCanvasElement} */ (canvas).getContext("2d");
      return [...(context?.getImageData(32, 32, 1, 1).data ?? [])];
    });
    assert.deepEqual(middle, [0, 255, 0, 255]);
    await draw(page, { steps: 2 });
    const size = () => page.locator("#canvas").evaluate((canvas) => /** @type {HTMLCanvasElement} */ (canvas).width);
    assert.equal(await size(), 64);
    await page.locator("#width").fill("96");
    await page.keyboard.press("Tab");
    assert.match(await page.locator("#easel-words").innerText(), /its middle, at 96 × 64/);
    await draw(page, { steps: 2 });
    assert.equal(await size(), 96);
    await page.getByRole("button", { name: "Remove", exact: true }).click();
    assert.equal(await page.locator("#start").innerText(), "Start from noise");
  });

  test("an empty folder, a folder of pictures, words, and a LoRA that does not fit are each said", async ({
    page,
    site,
  }) => {
    await open(page, site);
    const dropEntry = (/** @type {string} */ kind) =>
      page.evaluate((kind) => {
        const picture = new File([], "one.jpg", { type: "image/jpeg" });
        const files = kind === "pictures" ? [picture] : [];
        let read = false;
        const entries = files.map((file) => ({
          isFile: true,
          name: file.name,
          fullPath: `/album/${file.name}`,
          file: (/** @type {(file: File) => void} */ take) => take(file),
        }));
        const reader = {
          readEntries: (/** @type {(entries: unknown[]) => void} */ take) => take(read ? [] : ((read = true), entries)),
        };
        const folder = { isFile: false, name: "album", fullPath: "/album", createReader: () => reader };
        const items = kind === "words" ? [] : [{ webkitGetAsEntry: () => folder }];
        dispatchEvent(Object.defineProperty(new Event("drop"), "dataTransfer", { value: { items } }));
      }, kind);
    await dropEntry("empty");
    await page.getByText("album could not be read: there is no file in it").waitFor();
    await dropEntry("pictures");
    await page.getByText("one.jpg could not be read").waitFor();
    await dropEntry("words");
    await page.getByText("What was dropped could not be read: it is no file").waitFor();
    assert.ok(await page.locator("#start-shown").isDisabled());
    await page
      .locator("input[webkitdirectory]")
      .setInputFiles(join(root, "tests/reference/pipelines/models/ddpm_uncond"));
    await page.waitForFunction(() => document.querySelector("#status")?.textContent?.startsWith("ddpm_uncond is"));
    const lora = "kohya_unet_te.safetensors";
    await drop(page, lora, await readFile(join(root, "tests/reference/pipelines/lora", lora)), "");
    await page.getByText("kohya_unet_te.safetensors is a LoRA, and ddpm_uncond takes none").waitFor();
  });

  test("a header that is made to be slow is read at once", async ({ page, site }) => {
    await open(page, site);
    const name = `"lora_up${"lora_up".repeat(400_000)}`;
    const header = Buffer.from(`{${name}`);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    const begun = performance.now();
    await drop(page, "slow.safetensors", Buffer.concat([length, header]), "");
    await refused(page, /emoji64 is still open/);
    assert.ok(performance.now() - begun < 30_000);
  });

  test("a chip draws what it names", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#steps").fill("2");
    await page.locator("#examples button").nth(1).click();
    await reach(page, "done");
    assert.equal(await page.locator("#prompt").inputValue(), await page.locator("#examples button").nth(1).innerText());
  });
});

describe("a page that cannot begin", () => {
  const test = browserTests({ graphics: "no-adapter" });

  test("from a file says how to serve it", async ({ page, expectError }) => {
    expectError(/CORS|file:|ERR_FAILED/);
    await page.goto(`file://${join(root, "dist/index.html")}`);
    assert.match(await page.getByRole("alert").innerText(), /python3 -m http\.server.*localhost:8000/);
  });

  test("without one of its scripts says so", async ({ page, site, expectError }) => {
    expectError(/404/);
    site.break("/easel.js", faults.missing());
    await page.goto(site.url(SITE));
    await refused(page, /could not be fetched.*reload/s);
  });
});
