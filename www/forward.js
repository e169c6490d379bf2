// @ts-check
// The forward process: a picture dissolves as t is dragged, beside the schedule that says how; the network's guess at one t,
// and the way back from there.

import * as film from "./film.js";
import * as pad from "./pad.js";
import { optionsOf, readParameters } from "./parameters.js";
import { scaffold } from "./scaffold.js";
import { SCHEDULE, ScheduleChart } from "./schedule_chart.js";
import { SPACINGS } from "./solver_keys.js";
import { StateError } from "./package.js";

/** @import { Page, View } from "./views.js" */
/** @import { ForwardOptions, ForwardProcess, Pipeline, Schedule } from "./pkg/index.js" */

/** What is said of the noise that the network sees, before it has looked. */
const NOT_ASKED = "epsilon hat, the noise that the network sees: not asked";

/** What of the form the schedule depends on. */
const OF_SCHEDULE = /** @type {const} */ (["solver", "steps", ...SPACINGS, "algorithmType", "solverOrder", "eta"]);

/** How long the picture takes to dissolve when nobody drags, in milliseconds. */
const DISSOLVES = 5000;

const INNER = `
  <div class="scrubber">
    <label for="t" class="spoken">Timestep t</label>
    <input id="t" type="range" min="-1" max="999" value="-1" step="1" />
    <div aria-hidden="true"><span>picture</span><span>noise</span></div>
  </div>
  <p id="mixture"></p>
  <div class="actions">
    <button id="dissolve" type="button">Dissolve</button>
    <button id="guess" type="button">Show the network’s guess</button>
    <fieldset id="space" class="choice">
      <legend class="spoken">Where the noise is added</legend>
      <label><input type="radio" name="space" value="latents" checked />in latents</label
      ><label><input type="radio" name="space" value="pixels" />in pixels</label>
    </fieldset>
    <label class="check"><input id="prompted" type="checkbox" checked />Follow the prompt</label>
    <label class="check"><input id="guided" type="checkbox" />Guess with guidance</label>
  </div>
  <p id="space-hint" class="hint"></p>`;

/**
 * @param {Page} page
 * @returns {View}
 */
export function open(page) {
  const view = scaffold(page, "forward", {
    stage: { id: "forward", label: "The forward process", html: INNER },
    below: { label: "The schedule and the solver", html: SCHEDULE },
  });
  const { stage, element } = view;
  const slider = /** @type {HTMLInputElement} */ (element("t"));
  const guess = /** @type {HTMLButtonElement} */ (element("guess"));
  const dissolve = /** @type {HTMLButtonElement} */ (element("dissolve"));
  const prompted = /** @type {HTMLInputElement} */ (element("prompted"));
  const guided = /** @type {HTMLInputElement} */ (element("guided"));
  const spaces = /** @type {HTMLInputElement[]} */ ([...stage.querySelectorAll("[name=space]")]);

  const plates = /** @type {HTMLElement} */ (document.querySelector(".plates"));
  const sample = /** @type {HTMLCanvasElement} */ (document.getElementById("canvas"));
  const denoised = /** @type {HTMLCanvasElement} */ (document.getElementById("denoised"));
  const noise = document.createElement("figure");
  noise.dataset.views = "forward";
  noise.innerHTML = `
    <canvas id="noise" width="64" height="64" role="img" aria-label="${NOT_ASKED}"></canvas>
    <figcaption><b><i>ε̂</i></b> the noise the network sees<span data-needs="hasLatents">, decoded</span></figcaption>`;
  denoised.parentElement?.before(noise);

  const chart = new ScheduleChart(view.below, (x) => turnTo(Math.min(Math.max(Math.round(x), 0), last())));

  /** @type {Schedule | undefined} */
  let schedule;
  /** What the process is of, in the order of its options. */
  let openedFor = "";
  /** @type {ForwardProcess | undefined} */
  let forward;
  /** The number of the picture on the pad. */
  let edition = 0;
  /** Whether the network's guess is on the plates. */
  let isGuessed = false;
  /** The t that is asked for while another one is computed: only the newest counts. @type {{ t: number | null } | undefined} */
  let wanted;
  /** @type {Promise<void> | undefined} */
  let serving;
  /** The animation that is running. */
  let dissolving = 0;

  const last = () => (schedule?.numTrainTimesteps || 1) - 1;
  /** t, or null for the picture itself. */
  const time = () => (slider.valueAsNumber < 0 ? null : slider.valueAsNumber);
  /** @returns {"pixels" | "latents"} */
  const space = () => (spaces.find((input) => input.checked)?.value === "pixels" ? "pixels" : "latents");

  /** What the way back is made with. */
  function conditions() {
    const { prompt, negativePrompt, guidanceScale, seed, solver, preview } = optionsOf(readParameters());
    const asked = prompted.checked ? { prompt, negativePrompt, guidanceScale } : { prompt: "", guidanceScale: 1 };
    return /** @type {Omit<ForwardOptions, "image">} */ ({
      ...asked,
      seed,
      solver,
      preview: preview === "none" ? undefined : preview,
    });
  }

  /** What the process is of, and what the network is told: guided only if that is asked for, since it was not trained so. */
  function asked() {
    const { guidanceScale, ...rest } = conditions();
    return { ...rest, guidanceScale: guided.checked ? guidanceScale : 1, space: space() };
  }

  /** @param {number} t -1 for the picture itself */
  function turnTo(t) {
    slider.value = String(t);
    showPlace();
    request();
  }

  /** Says where t stands, everywhere it is to be seen. */
  function showPlace() {
    const t = time();
    const words = t === null ? "x 0, the picture itself" : `t = ${t}`;
    slider.setAttribute("aria-valuetext", words);
    chart.mark(t);
    const alphaBar = t === null ? 1 : schedule?.alphasCumprod[t];
    element("mixture").innerHTML = alphaBar === undefined ? "" : mixture(t, alphaBar, isOfLatents());
    /** @type {HTMLElement} */ (document.getElementById("noised")).textContent = isOfLatents()
      ? `the latent${t === null ? "" : " with noise"}, decoded`
      : `the picture${t === null ? "" : " with noise"}`;
    setButtons();
  }

  function setButtons() {
    const isOpen = page.pipeline() !== undefined && (schedule?.numTrainTimesteps ?? 0) > 0;
    const takesStart = page.pipeline()?.info.takesStartTimestep ?? false;
    const runsThere = takesStart && (space() === "latents" || !takesLatents());
    slider.disabled = dissolve.disabled = !isOpen;
    /** @type {HTMLElement} */ (guided.parentElement).hidden = !prompted.checked || !page.pipeline()?.info.takesPrompt;
    guess.disabled = !isOpen || time() === null || !runsThere;
    element("space-hint").textContent =
      runsThere || !isOpen
        ? ""
        : takesStart
          ? "The network lives in the latents: there it can guess, and go back to a picture."
          : "This model begins with noise beside a picture: its network cannot be asked for one alone.";
  }

  /** Whether the model has latents that are not pixels. */
  function takesLatents() {
    return (page.pipeline()?.info.sizeMultiple ?? 1) > 1;
  }

  /** Whether it is in them that the noise is added. */
  function isOfLatents() {
    return takesLatents() && space() === "latents";
  }

  /** Has x_t shown as soon as the one before it is. */
  function request() {
    if (!page.canRead({ points: false })) return;
    wanted = { t: time() };
    stage.dataset.waits = "";
    serving ??= serve().finally(() => {
      serving = undefined;
      if (wanted && view.isShown) request();
      else delete stage.dataset.waits;
    });
  }

  async function serve() {
    await page.idle();
    while (wanted && view.isShown) {
      const { t } = wanted;
      wanted = undefined;
      const pipeline = page.pipeline();
      if (!pipeline || !schedule) return;
      try {
        const process = await opened(pipeline);
        const { image } = await process.at(t);
        // The plates are another view's by now.
        if (!view.isShown) return;
        film.unshow();
        fill(sample, image, t === null ? "x 0, the picture itself" : `x t, the picture at t = ${t}`);
        fill(denoised, undefined, "x hat 0, the prediction: not asked yet");
        unguess();
        stage.dataset.shown = String(t);
      } catch (error) {
        // The model that it was of has been replaced.
        if (error instanceof StateError && error.code === "disposed") return;
        page.showError(error);
        return;
      }
    }
  }

  const noiseCanvas = /** @type {HTMLCanvasElement} */ (noise.querySelector("canvas"));

  /** Takes back what the network saw, and what was said of it: its guess is no longer on the plate. */
  function unguess() {
    fill(noiseCanvas, undefined, NOT_ASKED);
    if (isGuessed) page.unsay();
    isGuessed = false;
  }

  /**
   * The process of what is on the page, which is opened anew where that has changed.
   * @param {Pipeline} pipeline
   */
  async function opened(pipeline) {
    const options = asked();
    const loras = page.loras();
    const weights = loras.map(({ source, weight }) => `${source instanceof File ? source.name : source} ${weight}`);
    const key = JSON.stringify([edition, ...Object.values(options), ...weights].map(String));
    if (forward && openedFor === key) return forward;
    await close();
    await pipeline.setLoras(loras);
    forward = await pipeline.forwardProcess({ ...options, image: pad.picture() });
    openedFor = key;
    return forward;
  }

  async function close() {
    const closed = forward;
    forward = undefined;
    await closed?.dispose();
  }

  /** One call of the network at this t. */
  async function ask() {
    const t = time();
    const pipeline = page.pipeline();
    if (t === null || !pipeline || !page.canRead()) return;
    stop();
    await serving;
    await page.work(
      "Asking the network",
      async (signal) => {
        const process = await opened(pipeline);
        const { image } = await process.at(t);
        const { noise, denoised: guessed, error } = await process.predict(t, { signal });
        film.unshow();
        fill(sample, image, `x t, the picture at t = ${t}`);
        fill(noiseCanvas, noise, `epsilon hat, the noise that the network sees at t = ${t}`);
        fill(denoised, guessed, `x hat 0, the network's guess at t = ${t}`);
        stage.dataset.error = String(error);
        isGuessed = true;
        const found = `At t = ${t} the mean of (ε − ε̂)² is ${error.toPrecision(3)}.`;
        const { guidanceScale } = asked();
        return guidanceScale === 1
          ? `${found} That is what training made small; a network that sees no noise would have 1.`
          : `${found} But with guidance ${guidanceScale} it is not the network’s own guess, which is what was trained.`;
      },
      { keeps: true },
    );
  }

  async function showSchedule() {
    const pipeline = page.pipeline();
    if (!pipeline || !page.canRead({ points: false })) return;
    const options = optionsOf(readParameters());
    try {
      schedule = await pipeline.schedule(Object.fromEntries(OF_SCHEDULE.map((name) => [name, options[name]])));
    } catch (error) {
      if (!(error instanceof StateError)) page.showError(error);
      return;
    }
    slider.max = String(last());
    chart.show(schedule);
    showPlace();
  }

  function stop() {
    cancelAnimationFrame(dissolving);
    dissolving = 0;
    dissolve.textContent = "Dissolve";
  }

  slider.addEventListener("input", () => {
    stop();
    turnTo(slider.valueAsNumber);
  });
  dissolve.addEventListener("click", () => {
    if (dissolving) return stop();
    dissolve.textContent = "Stop";
    const from = slider.valueAsNumber >= last() ? -1 : slider.valueAsNumber;
    const begun = performance.now();
    const next = () => {
      const t = Math.round(from + ((performance.now() - begun) / DISSOLVES) * last());
      turnTo(Math.min(t, last()));
      if (t < last()) dissolving = requestAnimationFrame(next);
      else stop();
    };
    dissolving = requestAnimationFrame(next);
  });
  guess.addEventListener("click", ask);
  // A step of the way back takes the plates.
  film.onTurn(() => view.isShown && film.shownStep() && unguess());
  pad.onChange(() => {
    edition += 1;
    if (view.isShown) request();
  });
  for (const input of [...spaces, prompted, guided]) {
    input.addEventListener("change", () => {
      showPlace();
      request();
    });
  }
  for (const id of ["solver", "steps", "spacing", "algorithm", "order", "eta", "seed"]) {
    document.getElementById(id)?.addEventListener("change", () => {
      if (!view.isShown) return;
      if (id !== "seed") showSchedule();
      request();
    });
  }

  async function enter() {
    view.isShown = true;
    pad.show(plates, { film: film.lastPicture, refuse: page.refuse });
    await begin();
  }

  /** Shows x_t of a model that has just come into view. */
  async function begin() {
    const info = page.pipeline()?.info;
    if (!info) return;
    pad.resize(info.width, info.height);
    element("space").hidden = !takesLatents() || !info.takesStartTimestep;
    if (!info.takesStartTimestep) for (const input of spaces) input.checked = input.value === "pixels";
    /** @type {HTMLElement} */ (prompted.parentElement).hidden = !info.takesPrompt;
    await pad.showExample();
    await showSchedule();
    if (schedule?.alphasCumprod.length === 0) {
      page.showNotice("this model was trained with rectified flow, which has no ᾱ to chart");
    }
    request();
  }

  return {
    start: "Denoise from here",
    enter,
    leave() {
      view.isShown = false;
      stop();
      unguess();
      pad.hide();
    },
    async release() {
      stop();
      wanted = undefined;
      await serving;
      await close();
    },
    modelChanged() {
      forward = undefined;
      schedule = undefined;
      chart.clear();
      if (view.isShown) begin();
    },
    async submit() {
      const t = time();
      if (t === null) {
        page.showNotice("x 0 is the picture itself, and there is nothing to remove: drag t to the right first");
        return;
      }
      stop();
      unguess();
      await page.draw(
        { ...conditions(), image: pad.picture(), startTimestep: t },
        { image: pad.pictureName(), startTimestep: String(t) },
      );
    },
    async takePictures([file]) {
      await pad.put(file, file.name);
      return `${file.name} is on the pad`;
    },
  };
}

/**
 * x_t as a mixture, in numbers.
 * @param {number | null} t
 * @param {number} alphaBar
 * @param {boolean} isOfLatents
 */
function mixture(t, alphaBar, isOfLatents) {
  if (t === null) {
    return isOfLatents
      ? "<span><i>x</i><sub>0</sub>: no noise yet. Encoded and decoded, the picture has lost a little.</span>"
      : "<span><i>x</i><sub>0</sub>: the picture itself</span>";
  }
  const [signal, noise] = [Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar)].map((value) => value.toFixed(3));
  const ratio = alphaBar / (1 - alphaBar);
  const decibels = ratio > 0 ? `${(10 * Math.log10(ratio)).toFixed(1).replace("-", "−")} dB` : "no signal";
  return (
    `<span><i>t</i> = ${t}</span> <span><i>x<sub>t</sub></i> = ${signal} <i>x</i><sub>0</sub> + ${noise} <i>ε</i></span> ` +
    `<span><i>ᾱ<sub>t</sub></i> = ${Number(alphaBar.toPrecision(3))}</span> <span>SNR ${Number(ratio.toPrecision(3))}, ${decibels}</span>`
  );
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ImageData} [image] nothing is shown without one
 * @param {string} [label]
 */
function fill(canvas, image, label) {
  if (image) {
    canvas.width = image.width;
    canvas.height = image.height;
    canvas.getContext("2d")?.putImageData(image, 0, 0);
  } else canvas.getContext("2d")?.clearRect(0, 0, canvas.width, canvas.height);
  if (label) canvas.setAttribute("aria-label", label);
}
