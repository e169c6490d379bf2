/** What pictures of other programs say that they were made with, and what of it the page restores. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { deflateSync } from "node:zlib";
import { readGraph, readParametersText } from "../../www/foreign.js";
import { readMade } from "../../www/metadata.js";
import { chunksOf, pngOf } from "./harness/png.js";
import { browserTests, root, SITE } from "./harness/index.js";

const NOISE = { "the noise that another program draws from its seed": "" };

/** The nodes of a run in ComfyUI, as it writes them. */
const GRAPH = {
  3: {
    class_type: "KSampler",
    inputs: {
      seed: 156680208700286,
      steps: 20,
      cfg: 8,
      sampler_name: "euler_ancestral",
      scheduler: "karras",
      denoise: 1,
      model: ["10", 0],
      positive: ["6", 0],
      negative: ["7", 0],
      latent_image: ["5", 0],
    },
  },
  4: { class_type: "CheckpointLoaderSimple", inputs: { ckpt_name: "v1-5.safetensors" } },
  10: { class_type: "LoraLoader", inputs: { lora_name: "x.safetensors", model: ["4", 0], clip: ["4", 1] } },
  5: { class_type: "EmptyLatentImage", inputs: { width: 512, height: 640, batch_size: 1 } },
  6: { class_type: "CLIPTextEncode", inputs: { text: ["12", 0], clip: ["10", 1] } },
  7: { class_type: "CLIPTextEncode", inputs: { text: "text, watermark", clip: ["10", 1] } },
  12: { class_type: "PrimitiveNode", inputs: { value: "beautiful scenery" } },
  8: { class_type: "VAEDecode", inputs: { samples: ["3", 0], vae: ["4", 2] } },
  9: { class_type: "SaveImage", inputs: { images: ["8", 0] } },
};

test("the parameters of a web UI are read, and what has no place here keeps its name", () => {
  const text =
    "masterpiece, (fox:1.2)\nsecond line\nNegative prompt: blurry\nugly\n" +
    "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 18446744073709551615, Size: 512x768, " +
    'Model hash: 6ce0161689, Model: v1-5, Denoising strength: 0.4, Clip skip: 2, Lora hashes: "a: b, c: d", Version: v1.5.1';
  assert.deepEqual(readParametersText(text), {
    prompt: "masterpiece, (fox:1.2)\nsecond line",
    negativePrompt: "blurry\nugly",
    steps: "20",
    solver: "dpmpp_2m",
    useKarrasSigmas: "true",
    guidanceScale: "7",
    seed: "18446744073709551615",
    width: "512",
    height: "768",
    model: "v1-5",
    strength: "0.4",
    clipSkip: "1",
    "Model hash": "6ce0161689",
    "Lora hashes": "a: b, c: d",
    ...NOISE,
  });
  assert.deepEqual(
    readParametersText("fox\nSteps: 9, Sampler: DPM++ SDE, Schedule type: Automatic, CFG scale: 7, Seed: 1"),
    { prompt: "fox", steps: "9", "Sampler: DPM++ SDE": "", guidanceScale: "7", seed: "1", ...NOISE },
  );
  // What a name says besides the solver, and what this solver, or any here, cannot be told.
  for (const [sampler, schedule, keys] of /** @type {const} */ ([
    ["DPM++ 2M SDE", "Karras", { solver: "dpmpp_2m", algorithmType: "sde-dpmsolver++", useKarrasSigmas: "true" }],
    [
      "DPM++ 3M SDE Exponential",
      undefined,
      { solver: "dpmpp_2m", algorithmType: "sde-dpmsolver++", solverOrder: "3", useExponentialSigmas: "true" },
    ],
    ["Euler a", "Karras", { solver: "euler_ancestral", "Schedule type: Karras": "" }],
    ["DPM++ SDE", "Karras", { "Sampler: DPM++ SDE": "", "Schedule type: Karras": "" }],
    ["Euler", "Beta", { solver: "euler", "Schedule type: Beta": "" }],
  ])) {
    const line = `Steps: 9, Sampler: ${sampler}${schedule ? `, Schedule type: ${schedule}` : ""}, Seed: 1`;
    assert.deepEqual(readParametersText(`fox\n${line}`), { prompt: "fox", steps: "9", seed: "1", ...keys, ...NOISE });
  }
  for (const other of ["", "a fox", "Steps", "Steps:\n"]) assert.equal(readParametersText(other), undefined);
});

test("the graph of a run is followed from its sampler, and nodes that it does not know are named", () => {
  const expected = {
    prompt: "beautiful scenery",
    negativePrompt: "text, watermark",
    seed: "156680208700286",
    steps: "20",
    guidanceScale: "8",
    width: "512",
    height: "640",
    model: "v1-5.safetensors",
    solver: "euler_ancestral",
    "scheduler: karras": "",
    "the node LoraLoader": "",
    ...NOISE,
  };
  assert.deepEqual(readGraph(GRAPH), expected);
  // A graph that is only drawn.
  const workflow = {
    nodes: [
      {
        id: 3,
        type: "KSampler",
        inputs: [
          { name: "positive", link: 1 },
          { name: "latent_image", link: 2 },
        ],
        widgets_values: [5, "randomize", 20, 8, "dpmpp_2m", "normal", 1],
      },
      { id: 6, type: "CLIPTextEncode", inputs: [{ name: "clip", link: null }], widgets_values: ["fox"] },
      { id: 5, type: "EmptyLatentImage", widgets_values: [512, 640, 1] },
      { id: 7, type: "Note", widgets_values: { text: "hello" } },
    ],
    links: [
      [1, 6, 0, 3, 1, "CONDITIONING"],
      [2, 5, 0, 3, 3, "LATENT"],
    ],
  };
  const { prompt, seed, steps, solver, width } = readGraph(undefined, workflow) ?? {};
  assert.deepEqual([prompt, seed, steps, solver, width], ["fox", "5", "20", "dpmpp_2m", "512"]);
});

test("a graph that is none, or a circle, or broken, ends all the same", () => {
  for (const graph of [{}, { 1: null }, { 1: { class_type: 7 } }, { a: [] }]) assert.equal(readGraph(graph), undefined);
  for (const workflow of [{ nodes: 5 }, { nodes: [null, {}] }, { nodes: [], links: [null, 3] }])
    assert.equal(readGraph(undefined, workflow), undefined);
  const circle = {
    1: { class_type: "KSampler", inputs: { positive: ["2", 0], steps: 3, sampler_name: "euler", scheduler: "normal" } },
    2: { class_type: "ConditioningCombine", inputs: { a: ["3", 0], b: ["2", 0] } },
    3: { class_type: "ConditioningCombine", inputs: { a: ["2", 0], b: ["9", 0] } },
  };
  assert.deepEqual(readGraph(circle), { steps: "3", solver: "euler", "the node ConditioningCombine": "", ...NOISE });
  const bare = { 1: { class_type: "KSampler" } };
  assert.deepEqual(readGraph(bare), NOISE);
});

test("Python's way to write numbers is read", async () => {
  const [header, ...rest] = chunksOf(await readFile(join(root, "tests/pictures/fox.png"))).filter(
    ({ type }) => !/^[tiz][TE]Xt$|^iTXt$/.test(type),
  );
  const json = JSON.stringify(GRAPH).replace('"denoise":1', '"denoise":1,"is_changed":[NaN]');
  const text = Buffer.concat([Buffer.from("prompt\0\0"), deflateSync(json)]);
  const found = await readMade(new Blob([pngOf([header, { type: "zTXt", data: text }, ...rest])]));
  assert.equal(found?.prompt, "beautiful scenery");
});

describe("on the page", () => {
  const test = browserTests({ graphics: "no-adapter" });

  test("a picture of another program fills the fields, and says what it leaves", async ({ page, site }) => {
    await page.goto(site.url(`${SITE}?device=cpu`));
    await page.waitForFunction(() => document.body.dataset.state === "ready");
    const [header, ...rest] = chunksOf(await readFile(join(root, "tests/pictures/fox.png"))).filter(
      ({ type }) => type !== "tEXt" && type !== "iTXt",
    );
    const text =
      "panda\nSteps: 12, Sampler: Euler, CFG scale: 3, Seed: 18446744073709551615, Size: 64x64, Hires upscale: 2";
    const file = pngOf([header, { type: "tEXt", data: Buffer.from(`parameters\0${text}`) }, ...rest]);
    await page
      .locator("input.arrivals[multiple]")
      .setInputFiles({ name: "theirs.png", mimeType: "image/png", buffer: file });
    await page.getByText("the settings of theirs.png are restored").waitFor();
    const values = await page.evaluate(() =>
      ["prompt", "steps", "solver", "guidance", "seed", "width"].map(
        (id) => /** @type {HTMLInputElement} */ (document.getElementById(id)).value,
      ),
    );
    assert.deepEqual(values, ["panda", "12", "euler", "3", "18446744073709551615", "64"]);
    assert.match(await page.locator("#notice").innerText(), /up to you: Hires upscale, the noise that another program/);
    // What its name says of the noise levels has a field here.
    const karras = "fox\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1";
    await page.locator("input.arrivals[multiple]").setInputFiles({
      name: "dpm.png",
      mimeType: "image/png",
      buffer: pngOf([header, { type: "tEXt", data: Buffer.from(`parameters\0${karras}`) }, ...rest]),
    });
    await page.getByText("the settings of dpm.png are restored").waitFor();
    assert.equal(await page.locator("#solver").inputValue(), "dpmpp_2m");
    assert.equal(await page.locator("#spacing").inputValue(), "useKarrasSigmas");
    assert.doesNotMatch(await page.locator("#notice").innerText(), /Karras/i);
    // A seed that no number holds, in a graph.
    const graph = JSON.stringify(GRAPH).replace("156680208700286", "18446744073709551557");
    const other = pngOf([header, { type: "tEXt", data: Buffer.from(`prompt\0${graph}`) }, ...rest]);
    await page
      .locator("input.arrivals[multiple]")
      .setInputFiles({ name: "graph.png", mimeType: "image/png", buffer: other });
    await page.getByText("the settings of graph.png are restored").waitFor();
    assert.equal(await page.locator("#seed").inputValue(), "18446744073709551557");
    assert.match(await page.locator("#notice").innerText(), /made by v1-5\.safetensors.*LoraLoader/);
  });
});
