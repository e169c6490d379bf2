// @ts-check
// FID: pictures are drawn and compared with real ones, as features of a small classifier; and what that one sees on a picture.

import { affords } from "./consent.js";
import * as film from "./film.js";
import * as pad from "./pad.js";
import { optionsOf, readParameters } from "./parameters.js";
import { Chart, withError } from "./plot.js";
import { scaffold } from "./scaffold.js";
import { unlessAborted } from "./task.js";
import { FeatureExtractor } from "./pkg/features.js";

/** @import { Page, View } from "./views.js" */
/** @import { Distance, Label, SampleOptions, Statistics } from "./pkg/index.js" */

const EXTRACTOR = "models/emoji-features/";

/** Pictures that are drawn at once. */
const AT_ONCE = 8;

/** How many answers are shown to what is on a picture. */
const ANSWERS = 5;

const INNER = `
  <div class="figures">
    <p class="figure"><output id="fid">–</output> <span><abbr title="Fréchet inception distance">FID</abbr></span></p>
    <p class="figure"><output id="kid">–</output> <span><abbr title="kernel inception distance">KID</abbr></span></p>
  </div>
  <p id="compared" class="hint"></p>
  <div class="fields">
    <div class="field wide">
      <label for="prompts">Prompts, one a line; each is drawn in its turn</label>
      <textarea id="prompts" rows="5" spellcheck="false"></textarea>
    </div>
    <div class="field">
      <label for="count">Pictures</label>
      <input id="count" type="number" min="2" max="50000" step="1" value="128" required form="form" />
    </div>
    <div class="field">
      <label for="real">Compared with</label>
      <select id="real">
        <option value="train">the 163 emoji it learned from</option>
        <option value="held-out">3914 emoji that it never saw</option>
        <option value="own" disabled>your own pictures</option>
      </select>
    </div>
  </div>
  <div class="actions">
    <label class="button"
      ><input id="real-files" type="file" accept="image/*" multiple class="spoken" />Choose real pictures</label
    ><span class="hint">or drop a folder of them</span>
  </div>
  <div id="sheet" role="img"></div>`;

const BELOW = `
  <div class="words">
    <section aria-label="What FID is">
      <h3>A distance between clouds</h3>
      <p>
        A network that was trained to name emoji turns every picture into 64 numbers, its features. So a picture is a point in
        a space of 64 dimensions. The pictures drawn are one cloud of points, the real ones another. FID takes each cloud as a
        Gaussian, with mean <i>μ</i> and covariance <i>Σ</i>. The Fréchet distance of two Gaussians is ‖<i>μ</i><sub>1</sub> − <i>μ</i><sub>2</sub>‖² + tr(<i>Σ</i><sub>1</sub> + <i>Σ</i><sub>2</sub> −
        2(<i>Σ</i><sub>1</sub><i>Σ</i><sub>2</sub>)<sup>½</sup>).
      </p>
    </section>
    <section aria-label="What to mind">
      <h3>How far to trust it</h3>
      <p>
        0 would be the same cloud. With few pictures FID is too large, and falls as they become more: compare it at equal
        numbers. KID compares the points themselves, by a kernel, and has no such bias. It is around 0 for pictures of one
        kind, and can be below 0 by chance. Each ± says how far the figure would move with other seeds. Published FIDs use
        another network, Inception: these here cannot be compared with them.
      </p>
    </section>
    <section id="classifier" aria-label="What the classifier sees">
      <h3>What the classifier sees</h3>
      <div class="beside">
        <div>
          <button id="classify" type="button" data-idle>What is it?</button>
          <ol id="answers"></ol>
        </div>
      </div>
    </section>
  </div>`;

/**
 * @param {Page} page
 * @returns {View}
 */
export function open(page) {
  const view = scaffold(page, "fid", {
    stage: { id: "fid-view", label: "FID", html: INNER },
    below: { label: "FID by the number of pictures", html: BELOW },
  });
  const { below, element } = view;
  const chart = new Chart("FID by the number of pictures", { x: { name: "pictures" }, height: 220, from: 0 });
  below.prepend(chart.element);
  const prompts = /** @type {HTMLTextAreaElement} */ (element("prompts"));
  const count = /** @type {HTMLInputElement} */ (element("count"));
  const choice = /** @type {HTMLSelectElement} */ (element("real"));
  const files = /** @type {HTMLInputElement} */ (element("real-files"));
  clearSheet();

  /** @type {Promise<FeatureExtractor> | undefined} */
  let loading;
  /** Those that have been opened. @type {Map<string, Statistics>} */
  const real = new Map();
  /** The visitor's own real pictures. @type {File[]} */
  let own = [];
  /** @type {[number, number, number | undefined][]} */
  let values = [];

  /**
   * The classifier, which is loaded when it is first needed. A load that is called off is nobody else's: the next one begins anew.
   * @param {AbortSignal} signal
   */
  function extractor(signal) {
    if (!loading) {
      const worker = new Worker(new URL("./pkg/features_worker.js", import.meta.url), { type: "module" });
      const begun = (loading = FeatureExtractor.load(EXTRACTOR, { signal, worker }));
      const forget = () => {
        if (loading === begun) loading = undefined;
        begun.catch(() => {}).finally(() => worker.terminate());
      };
      signal.addEventListener("abort", forget, { once: true });
      begun.then((loaded) => {
        signal.removeEventListener("abort", forget);
        if (signal.aborted) loaded.dispose();
      }, forget);
    }
    return unlessAborted(loading, signal);
  }

  /**
   * What is compared with.
   * @param {AbortSignal} signal
   */
  async function realSet(signal) {
    const which = choice.value;
    const known = real.get(which);
    if (known) return known;
    const loaded = await extractor(signal);
    let set;
    if (which === "own") {
      set = await loaded.statistics();
      for (const [at, file] of own.entries()) {
        page.say(`Real picture ${at + 1} of ${own.length}`);
        await set.add(file, { signal });
      }
    } else set = await loaded.openStatistics(`${EXTRACTOR}statistics/${which}.safetensors`, { signal });
    real.set(which, set);
    return set;
  }

  /** @param {Distance} [distance] */
  function showDistance(distance) {
    element("fid").textContent = distance ? withError(distance.fid, distance.fidStandardError) : "–";
    element("kid").textContent =
      distance && distance.kid !== null ? withError(distance.kid, distance.kidStandardError) : "–";
    element("compared").textContent = distance
      ? `${distance.count} pictures drawn, against ${distance.realCount}` +
        (distance.count <= 64 ? "; fewer than 65 fill no space of 64 dimensions, and FID is far too large" : "")
      : "";
    if (!distance) values = [];
    else values.push([distance.count, distance.fid, distance.fidStandardError ?? undefined]);
    chart.show(
      { lines: [{ name: "FID", points: values, dots: true }] },
      distance && `${element("fid").textContent} with ${distance.count} pictures`,
    );
  }

  function clearSheet() {
    const sheet = element("sheet");
    sheet.replaceChildren();
    sheet.setAttribute("aria-label", "No pictures yet");
  }

  /**
   * @param {readonly ImageData[]} images
   * @param {string[]} names what each was drawn of
   */
  function addToSheet(images, names) {
    const sheet = element("sheet");
    for (const [at, image] of images.entries()) {
      const canvas = document.createElement("canvas");
      canvas.title = names[at];
      canvas.width = image.width;
      canvas.height = image.height;
      canvas.getContext("2d")?.putImageData(image, 0, 0);
      sheet.append(canvas);
    }
    sheet.setAttribute("aria-label", `${sheet.childElementCount} pictures`);
  }

  async function run(/** @type {AbortSignal} */ signal) {
    const pipeline = page.pipeline();
    if (!pipeline) return undefined;
    const { info } = pipeline;
    const { seed = 0, negativePrompt, steps, guidanceScale, solver } = optionsOf(readParameters());
    const lines = prompts.value
      .split("\n")
      .map((line) => line.trim())
      .filter(Boolean);
    const texts = info.takesPrompt && lines.length > 0 ? lines : [""];
    const total = count.valueAsNumber;
    await pipeline.setLoras(page.loras(), { signal });
    /** Pictures from the one of this number on, each with a stream of its own, so that it is the one that its seed draws alone. */
    const portion = (/** @type {number} */ from) => {
      const numbers = Array.from({ length: Math.min(AT_ONCE, total - from) }, (_, at) => from + at);
      return /** @type {SampleOptions} */ ({
        prompt: info.takesPrompt ? numbers.map((number) => texts[number % texts.length]) : "",
        negativePrompt,
        seeds: numbers.map((number) => (BigInt(seed) + BigInt(number)) & (2n ** 64n - 1n)),
        ...(info.takesPrompt ? {} : { numImagesPerPrompt: numbers.length }),
        steps,
        guidanceScale,
        solver,
        preview: "none",
        signal,
      });
    };
    const { seconds } = await pipeline.estimate(portion(0));
    if (!(await affords(seconds && (seconds * total) / Math.min(AT_ONCE, total), signal))) return undefined;
    showDistance();
    clearSheet();
    const reference = await realSet(signal);
    const drawn = await (await extractor(signal)).statistics();
    try {
      while (drawn.count < total) {
        const first = drawn.count;
        const run = pipeline.sample(portion(first));
        const images = await run.images();
        await drawn.add(images, { signal });
        addToSheet(
          images,
          images.map((_, at) => texts[(first + at) % texts.length]),
        );
        if (drawn.count > 1) showDistance(await drawn.distance(reference));
        page.setProgress(drawn.count / total);
        page.say(`${drawn.count} of ${total} pictures`);
      }
    } finally {
      await drawn.dispose();
    }
    return `${total} pictures, compared with ${choice.selectedOptions[0].textContent?.trim()}`;
  }

  /**
   * What the classifier sees on the pad.
   * @param {AbortSignal} signal
   */
  async function classify(signal) {
    const seen = (await extractor(signal)).classify(pad.picture(), { count: ANSWERS, signal });
    const { glyphs, styles } = await seen;
    const row = (/** @type {Label} */ { name, probability }) => {
      const item = document.createElement("li");
      item.style.setProperty("--length", `${100 * probability}%`);
      item.textContent = `${name}, ${Math.round(100 * probability)} %`;
      return item;
    };
    const [best] = styles;
    const style = document.createElement("li");
    style.className = "hint";
    style.textContent = `drawn like ${best.name}, ${Math.round(100 * best.probability)} %`;
    element("answers").replaceChildren(...glyphs.map(row), style);
    return "Looked";
  }

  /** @param {File[]} pictures */
  function take(pictures) {
    own = pictures;
    real.get("own")?.dispose();
    real.delete("own");
    const option = choice.options[choice.options.length - 1];
    option.disabled = false;
    option.textContent = `your own ${pictures.length} ${pictures.length === 1 ? "picture" : "pictures"}`;
    choice.value = "own";
  }

  files.addEventListener("change", () => {
    const chosen = [...(files.files ?? [])];
    files.value = "";
    if (chosen.length > 0) take(chosen);
  });
  element("classify").addEventListener("click", () => page.work("Looking", classify));
  // What it saw was on the picture before.
  pad.onChange(() => element("answers").replaceChildren());

  /** Prompts to begin with: what the page's own model knows, in no order. */
  function suggest() {
    const glyphs = [...document.querySelectorAll("#vocabulary .examples button")].map((chip) => chip.textContent);
    if (prompts.value !== "" || glyphs.length === 0) return;
    const styles = ["noto style", "twemoji style", "fluent flat style"];
    prompts.value = glyphs.map((glyph, at) => `${glyph}, ${styles[at % styles.length]}`).join("\n");
  }

  function begin() {
    const info = page.pipeline()?.info;
    if (!info) return;
    pad.resize(info.width, info.height);
    pad.showExample();
    /** @type {HTMLElement} */ (prompts.closest(".field")).hidden = !info.takesPrompt;
  }

  return {
    start: "Draw and compare",
    enter() {
      view.isShown = true;
      pad.show(/** @type {Element} */ (below.querySelector(".beside")), {
        film: film.lastPicture,
        refuse: page.refuse,
      });
      suggest();
      begin();
    },
    leave() {
      view.isShown = false;
      pad.hide();
    },
    async release() {},
    modelChanged() {
      showDistance();
      clearSheet();
      if (view.isShown) begin();
    },
    async submit() {
      await page.work("Preparing", run, {
        then: "done",
        cancelled: () => `Cancelled after ${element("sheet").childElementCount} pictures`,
      });
    },
    takesMany: true,
    async takePictures(pictures) {
      take(pictures);
      return `${choice.selectedOptions[0].textContent} will be compared with`;
    },
  };
}
