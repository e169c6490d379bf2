/** The site as a visitor meets it: from a path of some host, with a GPU and without. */
import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe } from "node:test";
import { browserTests, faults, root, SITE } from "./harness/index.js";
import { textsOf } from "./harness/png.js";
import { withWrongShape } from "./harness/safetensors.js";
import { draw, drop, open, pixels, reach, start } from "./harness/site.js";

/** @import { Page } from "playwright-core" */

const UNET = "unet/diffusion_pytorch_model.safetensors";

/** Presses the button that keeps the picture. @param {Page} page */
async function download(page) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#download").click()]);
  const chunks = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk);
  return { name: download.suggestedFilename(), content: Buffer.concat(chunks) };
}

const shown = async (/** @type {Page} */ page) => (await pixels(page, "#canvas"))[0];
const samples = (/** @type {Page} */ page) => pixels(page, "#filmstrip [data-step] canvas:first-of-type");
const predictions = (/** @type {Page} */ page) => pixels(page, "#filmstrip [data-step] canvas:last-of-type");

/** One way to run: the browser's graphics, the page's query, the device it must land on, and what the page says of it. */
for (const { graphics, query, kind, words } of /** @type {const} */ ([
  { graphics: "webgpu", query: "?device=webgpu", kind: "webgpu", words: /GPU: .*SwiftShader/i },
  { graphics: "webgpu", query: "", kind: "cpu", words: /processor: .*adapter here is software/ },
  { graphics: "no-adapter", query: "", kind: "cpu", words: /processor: .*no adapter/ },
  { graphics: "no-webgpu", query: "", kind: "cpu", words: /processor: .*only to pages served over https/ },
])) {
  describe(`on the ${kind} of a browser with ${graphics}${query}`, () => {
    const test = browserTests({ graphics });

    test("it loads, and says where it runs", async ({ page, site }) => {
      await open(page, site, query);
      assert.equal(await page.locator("#device").getAttribute("data-kind"), kind);
      assert.match(await page.locator("#device").innerText(), words);
      const outside = site.requests.filter(({ path }) => !path.startsWith(SITE));
      assert.deepEqual(outside, []);
    });

    test("it draws as many different x_t and predictions as steps, and ends on the last", async ({ page, site }) => {
      await open(page, site, query);
      await draw(page, { steps: 4 });
      const frames = await samples(page);
      assert.equal(frames.length, 4);
      assert.equal(new Set(frames).size, 4);
      assert.equal(new Set(await predictions(page)).size, 4);
    });
  });
}

for (const query of ["?device=webgpu", "?device=cpu"]) {
  describe(`with ${query}`, () => {
    const test = browserTests({ graphics: "webgpu" });

    test("it shows where the time of a step goes, the slowest first", async ({ page, site }) => {
      await open(page, site, query);
      await page.getByText("Where the time of a step goes").click();
      await page.getByRole("button", { name: "Measure a step" }).click();
      await page.locator("#profile tbody tr").first().waitFor({ timeout: 150_000 });
      assert.match(await page.locator("#profile output").innerText(), /A step takes .* GFLOP to do/);
      const [kinds, slowest] = await page
        .locator("#profile table")
        .evaluateAll((tables) =>
          tables.map((table) =>
            [...table.querySelectorAll("tbody tr")].map((row) => [
              row.children[0].textContent,
              Number(row.children[2].textContent),
            ]),
          ),
        );
      assert.match(String(kinds[0][0]), /^convolution × \d+$/);
      assert.equal(slowest.length, 8);
      const times = slowest.map(([, milliseconds]) => Number(milliseconds));
      assert.deepEqual(
        times,
        times.toSorted((a, b) => b - a),
      );
    });

    test("a seed gives its picture again, and another seed another", async ({ page, site }) => {
      await open(page, site, query);
      const pictures = [];
      for (const seed of [7, 8, 7]) {
        await draw(page, { seed, steps: 3 });
        pictures.push(await shown(page));
      }
      assert.equal(pictures[0], pictures[2]);
      assert.notEqual(pictures[0], pictures[1]);
    });

    test("cancel ends a run within one step, and the next run is whole", async ({ page, site }) => {
      await open(page, site, query);
      await start(page, { steps: 50 });
      await page.locator('[data-step="1"]').waitFor();
      // At one go: a step may take less time than a message between the test and the page.
      const before = await page.evaluate(() => {
        const count = document.querySelectorAll("[data-step]").length;
        document.getElementById("cancel")?.click();
        return count;
      });
      await reach(page, "ready");
      const after = await page.locator("[data-step]").count();
      assert.ok(after - before <= 1, `${after - before} steps came after the click`);
      await draw(page, { steps: 2 });
      assert.equal(await page.locator("[data-step]").count(), 2);
    });
  });
}

describe("the page", () => {
  const test = browserTests({ graphics: "webgpu" });

  test("goes back and forth through the steps by keys, on the scrubber and on the filmstrip", async ({
    page,
    site,
  }) => {
    await open(page, site);
    await draw(page, { steps: 3 });
    const last = await shown(page);
    await page.locator("#scrub").focus();
    await page.keyboard.press("Home");
    // Before the first step there is x_T, and nothing that was predicted.
    const initial = await shown(page);
    assert.match(await page.locator("#frame").innerText(), /^before step 1 of 3/);
    assert.match(String(await page.locator("#denoised").getAttribute("aria-label")), /not asked yet/);
    await page.keyboard.press("ArrowRight");
    const first = await shown(page);
    await page.keyboard.press("ArrowRight");
    const second = await shown(page);
    assert.equal(new Set([initial, first, second, last]).size, 4);
    await page.locator("#filmstrip").focus();
    await page.keyboard.press("End");
    assert.equal(await shown(page), last);
    await page.locator('[data-step="0"]').click();
    assert.equal(await shown(page), first);
  });

  test("a link carries the parameters and draws the same picture for whoever opens it", async ({ page, site }) => {
    await open(page, site);
    await draw(page, { seed: 11, steps: 3, solver: "euler" });
    const picture = await shown(page);
    const link = page.url();
    await page.goto("about:blank");
    await page.goto(link);
    await reach(page, "done");
    assert.equal(await page.locator("#seed").inputValue(), "11");
    assert.equal(await page.locator("#solver").inputValue(), "euler");
    assert.equal(await shown(page), picture);
  });

  test("the picture can be kept as a PNG, which says what it was made with", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#more summary").click();
    await page.getByLabel("Negative prompt", { exact: true }).fill("Straße, 夜");
    await page.getByLabel("Pictures at once").fill("2");
    await draw(page, { seed: 7, steps: 2 });
    await page.getByRole("button", { name: "seed 8" }).click();
    const file = await download(page);
    const { parameters, undiffuse, ...others } = textsOf(file.content);
    assert.deepEqual(others, {});
    assert.equal(
      parameters,
      "a happy cat\nNegative prompt: Straße, 夜\n" +
        "Steps: 2, Sampler: ddim, CFG scale: 4.5, Seed: 8, Size: 64x64, Model: emoji64, Version: undiffuse",
    );
    assert.deepEqual(JSON.parse(undiffuse), {
      prompt: "a happy cat",
      negativePrompt: "Straße, 夜",
      seed: "8",
      steps: "2",
      guidanceScale: "4.5",
      solver: "ddim",
      preview: "decode",
      model: "emoji64",
    });
    assert.equal(file.name, "a-happy-cat-8.png");
  });

  test("a PNG of its own that comes back restores every field, and draws the same picture", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#more summary").click();
    const given = /** @type {const} */ ([
      ["#negative-prompt", "a dog"],
      ["#width", "48"],
      ["#height", "32"],
      ["#eta", "0.5"],
    ]);
    for (const [field, value] of given) await page.locator(field).fill(value);
    await draw(page, { seed: 2 ** 40, steps: 3 });
    const picture = await shown(page);
    const { content } = await download(page);
    await page.goto("about:blank");
    await open(page, site);
    await drop(page, "mine.png", content, "image/png");
    await page.getByText("the settings of mine.png are restored", { exact: false }).waitFor();
    for (const [field, value] of given) assert.equal(await page.locator(field).inputValue(), value, field);
    assert.equal(await page.locator("#seed").inputValue(), String(2 ** 40));
    await page.locator("#start").click();
    await reach(page, "done");
    assert.equal(await shown(page), picture);
  });

  test("noise levels, equation and order of a solver change the picture, and come back with a PNG and a link", async ({
    page,
    site,
  }) => {
    await open(page, site);
    const given = /** @type {const} */ ([
      ["#spacing", "useKarrasSigmas"],
      ["#algorithm", "sde-dpmsolver++"],
      ["#order", "1"],
    ]);
    await draw(page, { steps: 3, solver: "dpmpp_2m" });
    const pictures = [await shown(page)];
    await page.locator("#more summary").click();
    for (const [field, value] of given) {
      if (field === "#order") await page.locator(field).fill(value);
      else await page.locator(field).selectOption(value);
      await draw(page, { steps: 3, solver: "dpmpp_2m" });
      pictures.push(await shown(page));
    }
    assert.equal(new Set(pictures).size, 4);
    const link = page.url();
    assert.match(link, /useKarrasSigmas=true&algorithmType=sde-dpmsolver%2B%2B&solverOrder=1/);
    const { content } = await download(page);
    const { undiffuse } = textsOf(content);
    const { useKarrasSigmas, algorithmType, solverOrder } = JSON.parse(undiffuse);
    assert.deepEqual([useKarrasSigmas, algorithmType, solverOrder], ["true", "sde-dpmsolver++", "1"]);
    const isBack = async () => {
      for (const [field, value] of given) assert.equal(await page.locator(field).inputValue(), value, field);
    };
    for (const [field] of given) {
      if (field === "#order") await page.locator(field).fill("");
      else await page.locator(field).selectOption("");
    }
    await drop(page, "mine.png", content, "image/png");
    await page.getByText("the settings of mine.png are restored", { exact: true }).waitFor();
    await isBack();
    await page.goto("about:blank");
    await page.goto(link);
    await reach(page, "done");
    await isBack();
    assert.equal(await shown(page), pictures[3]);
    // As the command writes them.
    const restored = (/** @type {string} */ hash) =>
      page.evaluate((hash) => {
        location.hash = hash;
        return new Promise((resolve) =>
          setTimeout(() => resolve(/** @type {HTMLSelectElement} */ (document.getElementById("spacing")).value), 500),
        );
      }, hash);
    assert.equal(
      await restored("solver=dpmpp_2m&useExponentialSigmas=true&useKarrasSigmas=false"),
      "useExponentialSigmas",
    );
    assert.equal(await restored("solver=dpmpp_2m&useKarrasSigmas=false"), "none");
    assert.equal(await restored("solver=dpmpp_2m"), "");
  });

  test("a PNG of the command restores what it was made with, to the same pixels", async ({ page, site }) => {
    // It was drawn with --portable; a browser that fuses products and sums may round a level otherwise.
    const portable = await readFile(join(root, "dist/pkg/internal/kernels_simd.wasm"));
    site.break(
      "internal/kernels_relaxed.wasm",
      faults.changed(() => portable),
    );
    await open(page, site, "?device=cpu");
    await drop(page, "fox.png", await readFile(join(root, "tests/pictures/fox.png")), "image/png");
    await page.getByText("the settings of fox.png are restored", { exact: false }).waitFor();
    assert.equal(await page.locator("#prompt").inputValue(), "fox, noto style");
    await page.locator("#start").click();
    await reach(page, "done");
    const same = await page.evaluate(
      async (file) => {
        const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${file}`)).blob());
        const canvas = /** @type {HTMLCanvasElement} */ (document.getElementById("canvas"));
        const drawn = canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data ?? [];
        const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
        context?.drawImage(bitmap, 0, 0);
        const stored = context?.getImageData(0, 0, bitmap.width, bitmap.height).data;
        return drawn.length > 0 && drawn.every((value, at) => value === stored?.[at]);
      },
      (await readFile(join(root, "tests/pictures/fox.png"))).toString("base64"),
    );
    assert.ok(same, "the picture is another");
  });

  test("a damaged PNG is refused in words, and changes nothing", async ({ page, site }) => {
    await open(page, site);
    const prompt = await page.locator("#prompt").inputValue();
    const file = await readFile(join(root, "tests/pictures/fox.png"));
    await drop(page, "half.png", file.subarray(0, 100), "image/png");
    await page.getByText("half.png could not be read: the file ends early").waitFor();
    assert.equal(await page.locator("#prompt").inputValue(), prompt);
  });

  test("starts from the picture shown, and draws anew only where it is painted", async ({ page, site }) => {
    await open(page, site);
    await draw(page, { seed: 7, steps: 4 });
    const first = await shown(page);
    await page.locator("#more summary").click();
    await page.getByRole("button", { name: "Use the one shown" }).click();
    await page.locator("#start-picture").waitFor();
    await page.getByLabel("Strength").fill("0.5");
    await draw(page, { seed: 8, steps: 4 });
    assert.equal((await samples(page)).length, 2, "half of the steps");
    const changed = await shown(page);
    assert.notEqual(changed, first);
    await page.locator("#mask").scrollIntoViewIfNeeded();
    const board = await page.locator("#mask").boundingBox();
    assert.ok(board);
    await page.mouse.move(board.x + 0.2 * board.width, board.y + 0.2 * board.height);
    await page.mouse.down();
    await page.mouse.move(board.x + 0.4 * board.width, board.y + 0.4 * board.height, { steps: 4 });
    await page.mouse.up();
    await draw(page, { seed: 8, steps: 4 });
    const painted = await shown(page);
    assert.ok(![first, changed].includes(painted));
    await page.getByRole("button", { name: "Clear the mask" }).click();
    await draw(page, { seed: 8, steps: 4 });
    assert.equal(await shown(page), changed);
    await page.getByRole("button", { name: "Remove", exact: true }).click();
    await draw(page, { seed: 7, steps: 4 });
    assert.equal(await shown(page), first);
  });

  test("a mask stays where it was painted on the picture, whatever the size is on the way", async ({ page, site }) => {
    await open(page, site);
    await draw(page, { seed: 7, steps: 2 });
    await page.locator("#more summary").click();
    await page.getByRole("button", { name: "Use the one shown" }).click();
    await page.locator("#mask").scrollIntoViewIfNeeded();
    const board = await page.locator("#mask").boundingBox();
    assert.ok(board);
    await page.mouse.move(board.x + 0.5 * board.width, board.y + 0.5 * board.height);
    await page.mouse.down();
    await page.mouse.move(board.x + 0.6 * board.width, board.y + 0.6 * board.height, { steps: 4 });
    await page.mouse.up();
    const [painted] = await pixels(page, "#mask");
    for (const size of ["4", "40", "400", "4", "64"]) {
      await page.getByLabel("Width").fill(size);
      await page.getByLabel("Height").fill("64");
      await page.keyboard.press("Tab");
    }
    assert.equal((await pixels(page, "#mask"))[0], painted);
    // Twice as wide, the board shows the middle half of the picture, and of the mask the same.
    await page.getByLabel("Width").fill("128");
    await page.keyboard.press("Tab");
    const box = await page.locator("#mask").evaluate((canvas) => {
      const { width, height } = /** @type {HTMLCanvasElement} */ (canvas);
      const data = /** @type {HTMLCanvasElement} */ (canvas).getContext("2d")?.getImageData(0, 0, width, height).data;
      const at = [...(data ?? [])].flatMap((value, index) => (index % 4 === 3 && value > 128 ? [(index - 3) / 4] : []));
      const [xs, ys] = [at.map((pixel) => pixel % width), at.map((pixel) => Math.floor(pixel / width))];
      return [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    });
    // Its middle line goes from 0.5 to 0.6 of 128 pixels, which of the height begin 32 further up, and the brush is 12 % wide of 64.
    const [left, right, top, bottom] = [64 - 7.7, 76.8 + 7.7, 64 - 32 - 7.7, 76.8 - 32 + 7.7];
    for (const [at, expected] of [left, right, top, bottom].entries()) {
      assert.ok(Math.abs(box[at] - expected) <= 2, `${box} in place of ${[left, right, top, bottom]}`);
    }
  });

  test("draws several pictures at once, each as it would be alone", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#more summary").click();
    await page.getByLabel("Pictures at once").fill("3");
    await draw(page, { seed: 5, steps: 2 });
    const together = [];
    for (const seed of [5, 6, 7]) {
      await page.getByRole("button", { name: `seed ${seed}` }).click();
      together.push(await shown(page));
    }
    await page.getByLabel("Pictures at once").fill("");
    const alone = [];
    for (const seed of [5, 6, 7]) {
      await draw(page, { seed, steps: 2 });
      alone.push(await shown(page));
    }
    assert.equal(new Set(alone).size, 3);
    assert.deepEqual(together, alone);
  });

  test("shows steps as the preview says, and always the last", async ({ page, site }) => {
    await open(page, site);
    await page.locator("#more summary").click();
    /** @type {Record<string, string>} */
    const first = {};
    const last = new Set();
    for (const preview of ["", "linear", "decode", "none"]) {
      await page.getByLabel("Preview").selectOption(preview);
      await draw(page, { steps: 2 });
      last.add(await shown(page));
      await page.locator("#scrub").focus();
      await page.keyboard.press("Home");
      first[preview] = await shown(page);
      const label = await page.locator("#canvas").getAttribute("aria-label");
      assert.equal(label?.endsWith("no preview"), preview === "none");
    }
    assert.equal(last.size, 1);
    assert.equal(first[""], first.linear);
    assert.equal(new Set(Object.values(first)).size, 3);
  });

  test("shows the fields that the model takes, and no others", async ({ page, site }) => {
    await open(page, site, "?device=cpu");
    await page.locator("#more summary").click();
    const fields = async () => {
      const visible = await page
        .locator("#form :is(input, select, textarea)")
        .evaluateAll((fields) =>
          fields.filter((field) => field.checkVisibility() && !field.closest(".button")).map(({ id }) => id),
        );
      return visible.sort().join(" ");
    };
    const common = ["eta", "height", "pictures", "preview", "seed", "solver", "steps", "width"];
    // Of what a solver has.
    const keys = ["spacing", "algorithm", "order"];
    const text = ["clip-skip", "guidance", "guidance-rescale", "long-prompts", "negative-prompt", "prompt"];
    assert.equal(await fields(), [...common, ...keys, ...text, "vae-tiling"].sort().join(" "));
    for (const [solver, has] of /** @type {const} */ ([
      ["ddim", []],
      ["euler", ["spacing"]],
      ["unipc", ["spacing", "order"]],
    ])) {
      await page.getByLabel("Solver", { exact: true }).selectOption(solver);
      assert.equal(await fields(), [...common, ...has, ...text, "vae-tiling"].sort().join(" "), solver);
    }
    await page
      .locator("input[webkitdirectory]")
      .setInputFiles(join(root, "tests/reference/pipelines/models/ddpm_uncond"));
    await page.waitForFunction(() => document.querySelector("#prompt:disabled"));
    await reach(page, "ready");
    assert.equal(await fields(), common.sort().join(" "));
  });

  test("a checkpoint is opened by its address, which a link then carries", async ({ page, site }) => {
    await open(page, site);
    await page.getByLabel("Address of a checkpoint").fill(site.url(`${SITE}models/emoji64/`));
    await page.getByRole("button", { name: "Open", exact: true }).click();
    await page.waitForFunction(() => document.querySelector("#status")?.textContent?.startsWith("emoji64 is ready"));
    await page.getByRole("button", { name: "Back to emoji64" }).waitFor();
    await draw(page, { seed: 3, steps: 2 });
    const picture = await shown(page);
    const link = page.url();
    assert.match(link, /model=http/);
    await page.goto("about:blank");
    await page.goto(link);
    await reach(page, "done");
    assert.equal(await shown(page), picture);

    // A link that is followed on the open page opens its model, too.
    const missing = site.url(`${SITE}models/none/`);
    await page.evaluate((model) => (location.hash = new URLSearchParams({ model, run: "1" }).toString()), missing);
    await reach(page, "error");
    await page.evaluate((hash) => (location.hash = hash), new URL(link).hash);
    await page.waitForFunction(() => document.body.dataset.state !== "error");
    await reach(page, "done");
    assert.equal(await shown(page), picture);
  });

  test("a LoRA that is dropped changes the picture by its weight, and can be taken out", async ({ page, site }) => {
    await open(page, site, "?device=cpu");
    const reference = join(root, "tests/reference/pipelines");
    await page.locator("input[webkitdirectory]").setInputFiles(join(reference, "models/sd"));
    await page.waitForFunction(() => document.querySelector("#status")?.textContent?.startsWith("sd is ready"));
    await page.locator("#more summary").click();
    await draw(page, { steps: 2 });
    const without = await shown(page);
    const lora = "kohya_unet_te.safetensors";
    await drop(page, lora, await readFile(join(reference, "lora", lora)), "");
    await page.getByRole("slider", { name: "kohya_unet_te" }).fill("0.5");
    await draw(page, { steps: 2 });
    const half = await shown(page);
    await page.getByRole("slider", { name: "kohya_unet_te" }).fill("0");
    await draw(page, { steps: 2 });
    assert.equal(await shown(page), without);
    await page.getByRole("slider", { name: "kohya_unet_te" }).fill("0.5");
    await draw(page, { steps: 2 });
    assert.equal(await shown(page), half);
    assert.notEqual(half, without);
    await page.getByRole("button", { name: "Remove kohya_unet_te" }).click();
    await draw(page, { steps: 2 });
    assert.equal(await shown(page), without);
  });

  test("a model that enlarges takes a small picture, and says so where it has none", async ({ page, site }) => {
    const reference = join(root, "tests/reference");
    const folder = await mkdtemp(join(tmpdir(), "upscaler-"));
    await cp(join(reference, "models/unet_x4_upscaler_like"), join(folder, "unet"), { recursive: true });
    for (const [part, from] of [
      ["vae", "sdxl/vae"],
      ["text_encoder", "sdxl/text_encoder"],
      ["tokenizer", "sdxl/tokenizer"],
      ["scheduler", "sd2_v/scheduler"],
      ["low_res_scheduler", "ddpm_uncond/scheduler"],
    ]) {
      await cp(join(reference, "pipelines/models", from), join(folder, part), { recursive: true });
    }
    const index = {
      _class_name: "StableDiffusionUpscalePipeline",
      max_noise_level: 350,
      text_encoder: ["transformers", "CLIPTextModel"],
      tokenizer: ["transformers", "CLIPTokenizer"],
      unet: ["diffusers", "UNet2DConditionModel"],
      vae: ["diffusers", "AutoencoderKL"],
      scheduler: ["diffusers", "DDIMScheduler"],
      low_res_scheduler: ["diffusers", "DDPMScheduler"],
    };
    await writeFile(join(folder, "model_index.json"), JSON.stringify(index));
    await open(page, site, "?device=cpu");
    await page.locator("input[webkitdirectory]").setInputFiles(folder);
    await page.getByLabel("Noise level").waitFor();
    await reach(page, "ready");
    assert.ok(!(await page.locator("#strength, #mask").first().isVisible()));
    await page.getByLabel("Noise level").fill("7");
    await start(page, { steps: 2 });
    await reach(page, "error");
    assert.match(await page.getByRole("alert").innerText(), /`image`/);
    await page.getByLabel("Choose a picture").setInputFiles(join(root, "tests/pictures/fox.png"));
    await page.locator("#start-picture").waitFor();
    await draw(page, { steps: 2 });
    const { width, height } = await page.locator("#canvas").evaluate((canvas) => {
      const { width, height } = /** @type {HTMLCanvasElement} */ (canvas);
      return { width, height };
    });
    assert.deepEqual([width, height], [256, 192]);
    await rm(folder, { recursive: true });
  });

  test("a pickle that is dropped is refused with the reason and the way out", async ({ page, site }) => {
    await open(page, site);
    await drop(page, "old.ckpt", Buffer.from("PK\x03\x04"), "");
    await reach(page, "error");
    assert.match(await page.getByRole("alert").innerText(), /old\.ckpt.*pickle.*convert it/s);
  });

  test("the dice chooses another seed", async ({ page, site }) => {
    await open(page, site);
    const seed = await page.locator("#seed").inputValue();
    await page.locator("#dice").click();
    assert.notEqual(await page.locator("#seed").inputValue(), seed);
  });

  test("a folder that the visitor picks is read without asking the host for any of it", async ({ page, site }) => {
    await open(page, site);
    site.requests.length = 0;
    await page.locator("input[webkitdirectory]").setInputFiles(join(root, "www/models/emoji64"));
    await reach(page, "ready");
    await draw(page, { steps: 2 });
    assert.deepEqual(
      site.requests.filter(({ path }) => path.includes("/models/")),
      [],
    );
  });

  test("a model without prompts runs, whatever its disabled fields hold", async ({ page, site }) => {
    await open(page, site, "?device=cpu");
    await page.getByLabel("Prompt", { exact: true }).fill("a happy cat");
    const folder = join(root, "tests/reference/pipelines/models/ddpm_uncond");
    await page.locator("input[webkitdirectory]").setInputFiles(folder);
    await page.waitForFunction(() => document.querySelector("#prompt:disabled"));
    await reach(page, "ready");
    await page.getByLabel("Steps", { exact: true }).fill("3");
    await page.locator("#start").click();
    await reach(page, "done");
    assert.equal(new Set(await samples(page)).size, 3);
    assert.equal(await page.locator("#prompt").inputValue(), "a happy cat");
  });

  test("a drop that cannot be read is said, and leaves what is open", async ({ page, site }) => {
    await open(page, site);
    await page.evaluate(() => {
      const file = (/** @type {unknown} */ _, /** @type {(error: unknown) => void} */ refuse) =>
        refuse(new DOMException("It is gone.", "NotFoundError"));
      const entry = { isFile: true, name: "mine", fullPath: "/mine", file };
      const dataTransfer = { items: [{ webkitGetAsEntry: () => entry }] };
      dispatchEvent(Object.defineProperty(new Event("drop"), "dataTransfer", { value: dataTransfer }));
    });
    await page.getByText("mine could not be read: It is gone.").waitFor();
    await draw(page, { steps: 1 });
  });

  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    test(`fits a phone without sideways scrolling, ${colorScheme}`, async ({ page, site }) => {
      await page.setViewportSize({ width: 360, height: 740 });
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await open(page, site);
      await draw(page, { steps: 3 });
      const overflow = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      assert.equal(overflow, 0);
    });
  }
});

describe("what goes wrong is said on the page", () => {
  const test = browserTests({ graphics: "webgpu" });

  /** @type {[string, string, import("./harness/server.js").Fault, string, RegExp][]} */
  const damages = [
    ["a missing file", UNET, faults.missing(), "file-missing", /unet\/diffusion_pytorch_model\.safetensors/],
    [
      "a start page in place of a file",
      UNET,
      faults.htmlInstead(),
      "file-missing",
      /unet\/diffusion_pytorch_model\.safetensors/,
    ],
    [
      "a truncated file",
      UNET,
      faults.truncated(100_000),
      "file-truncated",
      /unet\/diffusion_pytorch_model\.safetensors/,
    ],
    ["a wrong shape", UNET, faults.changed(withWrongShape("conv_in.weight")), "shape-mismatch", /conv_in\.weight/],
    ["a connection that breaks for good", UNET, faults.cutWithoutResume(100_000), "network", /unet/],
    [
      "a configuration that is not JSON",
      "unet/config.json",
      faults.truncated(20),
      "file-corrupt",
      /unet\/config\.json/,
    ],
  ];
  for (const [name, file, fault, code, words] of damages) {
    test(name, async ({ page, site, expectError }) => {
      expectError(/404|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONTENT_LENGTH_MISMATCH|ERR_CONNECTION/);
      site.break(file, fault);
      await page.goto(site.url(SITE));
      await reach(page, "error");
      assert.equal(await page.locator("#error").getAttribute("data-code"), code);
      assert.match(await page.getByRole("alert").innerText(), words);
      // And there is a way on.
      site.reset();
      await page.locator("#retry").click();
      await reach(page, "ready");
    });
  }

  test("a connection that breaks once is resumed, and nothing is said", async ({ page, site, expectError }) => {
    expectError(/ERR_CONTENT_LENGTH_MISMATCH|ERR_CONNECTION/);
    site.break(UNET, faults.cut(100_000, 1));
    await open(page, site);
    const ranges = site.requests.filter(({ path, range }) => path.endsWith(UNET) && range !== undefined);
    assert.equal(ranges.length, 1);
  });
});

describe("a GPU that goes away", () => {
  // A browser of its own: Chromium gives no adapter after its GPU process has crashed twice.
  const test = browserTests({ graphics: "webgpu" });

  test("is said in words, and the model can be loaded again", async ({ page, site }) => {
    await open(page, site, "?device=webgpu");
    await start(page, { steps: 50 });
    await page.locator('[data-step="0"]').waitFor();
    const browser = await page.context().browser()?.newBrowserCDPSession();
    await browser?.send("Browser.crashGpuProcess");
    await reach(page, "error");
    assert.equal(await page.locator("#error").getAttribute("data-code"), "device-lost");
    await page.locator("#retry").click();
    await reach(page, "ready");
  });
});

describe("where there is no GPU", () => {
  const test = browserTests({ graphics: "no-adapter" });

  test("insisting on one is refused in words", async ({ page, site }) => {
    await page.goto(site.url(`${SITE}?device=webgpu`));
    await reach(page, "error");
    assert.equal(await page.locator("#error").getAttribute("data-code"), "no-gpu");
  });
});
