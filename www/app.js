// @ts-check
// The page: loads a checkpoint, runs it with the form's values, shows every step.

import { acceptFiles } from "./drop.js";
import * as easel from "./easel.js";
import * as film from "./film.js";
import * as loras from "./loras.js";
import * as profile from "./profile.js";
import { readMade, withMade } from "./metadata.js";
import {
  anySeed,
  isParameter,
  linkTo,
  optionsOf,
  readAddress,
  readParameters,
  restoreParameters,
  seedsOf,
  showFieldsFor,
  writeParameters,
} from "./parameters.js";
import { AbortError, Pipeline, UndiffuseError } from "./pkg/index.js";

/** @import { LoadOptions, LoadProgress, SampleOptions, Source } from "./pkg/index.js" */

/**
 * A view beside drawing. It has the part of the page that is its own, and shares the model and the form.
 * @typedef {object} View
 * @property {string} start  what the form's button says
 * @property {() => void} enter  it is looked at from now on
 * @property {() => void} leave  it no longer is
 * @property {() => Promise<void>} release  lets go of the pipeline, which something else needs; what it shows stays
 * @property {() => void} modelChanged
 * @property {() => Promise<void>} submit  what the form's button does
 * @property {(files: File[]) => Promise<void>} takePictures
 */

/**
 * What a view may ask of the page.
 * @typedef {object} Page
 * @property {() => Pipeline | undefined} pipeline  what is open
 * @property {HTMLElement} stage  where views show what is their own, beside the form
 * @property {HTMLElement} below  likewise, below it
 * @property {typeof loras.chosen} loras  those that the form asks for
 * @property {typeof work} work
 * @property {typeof draw} draw
 * @property {typeof say} say
 * @property {typeof showError} showError
 * @property {typeof showNotice} showNotice
 * @property {typeof refuse} refuse  says that a file cannot be read
 * @property {() => Promise<void>} idle  ends what is under way
 * @property {(share: number) => void} setProgress
 */

const BUILTIN = { name: "emoji64", base: "models/emoji64/", about: "models/emoji64.json" };

/** For a checkpoint that says nothing of how to use it: diffusers' own guidance, half its steps. */
const USUAL = { steps: "25", guidanceScale: "7.5", solver: "", preview: "" };

/** Errors after which the pipeline can still be used. */
const HARMLESS = ["invalid-option", "busy"];

/** The views beside drawing, each loaded when it is first looked at. @type {Record<string, () => Promise<{ open(page: Page): View }>>} */
const VIEWS = {
  forward: () => import("./forward.js"),
  bound: () => import("./bound.js"),
  fid: () => import("./fid.js"),
};

/** What the form's button says where noise becomes a picture. */
const START = "Start from noise";

const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const button = (/** @type {string} */ id) => /** @type {HTMLButtonElement} */ (document.getElementById(id));
const form = /** @type {HTMLFormElement} */ (element("form"));
const progress = /** @type {HTMLProgressElement} */ (element("progress"));

/** What the page shows: drawing, or another view. */
let shownView = "reverse";
/** The view beside drawing that is shown, if one is, and those that were. @type {View | undefined} */
let view;
/** @type {Record<string, View>} */
const views = {};
/** @type {Pipeline | undefined} */
let pipeline;
/** Ends the newest load; an older one that finds another here has been overtaken, and keeps silent. @type {AbortController | undefined} */
let loading;
/** Ends the newest run, likewise. @type {AbortController | undefined} */
let running;
/** The end of what takes time. @type {Promise<void> | undefined} */
let working;
/** What is open, or was asked for last; `address` of what others can open too. @type {{ source: Source, name: string, address?: string, variant?: string }} */
let model = { source: BUILTIN.base, name: BUILTIN.name };
/** What the pictures on the film were made with. @type {import("./metadata.js").Made | undefined} */
let made;
/** The scheduler of the model that drew them, which may no longer be the one that is open. */
let drawnBy = "";

/** @type {Page} */
const page = {
  pipeline: () => pipeline,
  stage: element("stage"),
  below: element("below"),
  loras: loras.chosen,
  work,
  draw,
  say,
  showError,
  showNotice,
  refuse,
  async idle() {
    if (document.body.dataset.state === "sampling") running?.abort();
    await working;
  },
  setProgress(value) {
    progress.value = value;
  },
};

/** @param {"loading" | "ready" | "sampling" | "done" | "error"} state */
function setState(state) {
  const busy = state === "loading" || state === "sampling";
  document.body.dataset.state = state;
  button("start").disabled = busy || !pipeline;
  button("cancel").disabled = !busy;
  button("measure").disabled = busy || !pipeline;
  progress.hidden = !busy;
}

/**
 * @param {string} text
 * @param {{ aloud?: boolean }} [options] aloud: for those who listen, too; not for what changes many times a second
 */
function say(text, { aloud = false } = {}) {
  element("status").textContent = text;
  if (aloud) element("announcement").textContent = text;
}

/** @param {unknown} error */
function showError(error) {
  const known = error instanceof UndiffuseError;
  element("error").dataset.code = known ? error.code : "internal";
  element("error").textContent = error instanceof Error ? error.message : String(error);
  button("retry").hidden = known && HARMLESS.includes(error.code);
  setState("error");
  say("");
  element("error").scrollIntoView({ block: "nearest" });
  // A defect belongs into the console too, with its stack.
  if (!known || error.code === "internal") console.error(error);
}

/** @param {string} [text] what is good to know, and no error */
function showNotice(text = "") {
  element("notice").textContent = text;
  element("notice").hidden = text === "";
}

function clearMessages() {
  showNotice();
  delete element("error").dataset.code;
  element("error").textContent = "";
  button("retry").hidden = true;
}

/**
 * Loads {@link model}, in place of what is open.
 * @returns {Promise<boolean>} whether it was loaded
 */
async function load() {
  const { source, name, variant } = model;
  loading?.abort();
  running = undefined;
  const { signal } = (loading = new AbortController());
  const overtaken = () => loading?.signal !== signal;
  clearMessages();
  setState("loading");
  say(`Loading ${name}`, { aloud: true });
  progress.removeAttribute("value");
  try {
    await pipeline?.dispose();
    pipeline = undefined;
    if (overtaken()) return false;
    const device = /** @type {LoadOptions["device"]} */ (new URLSearchParams(location.search).get("device") ?? "auto");
    const onProgress = (/** @type {LoadProgress} */ { loaded, total }) => {
      if (overtaken()) return;
      progress.value = loaded / total;
      say(`Loading ${name}: ${megabytes(loaded)} of ${megabytes(total)} MB`);
    };
    const opened = await Pipeline.load(source, { device, variant, onProgress, signal });
    if (overtaken()) {
      await opened.dispose();
      return false;
    }
    pipeline = opened;
  } catch (error) {
    if (!overtaken())
      showError(error instanceof AbortError ? new AbortError("aborted", "Loading was cancelled.") : error);
    return false;
  }
  showFieldsFor(pipeline.info);
  showNotice(pipeline.info.notes.join("; "));
  loras.clear();
  profile.clear();
  if (pipeline.info.needsImage) /** @type {HTMLDetailsElement} */ (element("more")).open = true;
  showDevice(pipeline.device);
  setState("ready");
  say(`${name} is ready`, { aloud: true });
  for (const view of Object.values(views)) view.modelChanged();
  return true;
}

/**
 * What is to be drawn, by the form and the easel.
 * @param {import("./pkg/index.js").ModelInfo} info
 */
function readForm(info) {
  const image = info.takesImage ? easel.picture() : undefined;
  const parameters = readParameters();
  // It says something of a picture only.
  if (!image) parameters.strength = "";
  const mask = image && info.takesMask ? easel.mask() : undefined;
  return { parameters, image, options: { ...optionsOf(parameters), image, mask } };
}

/**
 * What takes time: with the progress bar, the button that ends it, and the pipeline to itself.
 * @param {string} what what is said at first
 * @param {(signal: AbortSignal) => Promise<string>} task comes to what is said in the end
 * @param {object} [options]
 * @param {"ready" | "done"} [options.then] the page's state after it
 * @param {() => string} [options.cancelled] what is said if it was cancelled
 * @param {boolean} [options.keeps] whether the view keeps what it holds of the pipeline
 * @returns {Promise<void>}
 */
function work(what, task, options) {
  return (working = perform(what, task, options));
}

/** @type {typeof work} */
async function perform(what, task, { then = "ready", cancelled = () => "Cancelled", keeps = false } = {}) {
  const { signal } = (running = new AbortController());
  const overtaken = () => running?.signal !== signal;
  clearMessages();
  progress.removeAttribute("value");
  setState("sampling");
  say(what, { aloud: true });
  let said;
  try {
    if (!keeps) await view?.release();
    said = await task(signal);
    if (overtaken()) return;
  } catch (error) {
    if (overtaken()) return;
    if (!(error instanceof AbortError)) {
      showError(error);
      return;
    }
    setState("ready");
    say(cancelled(), { aloud: true });
    return;
  }
  setState(then);
  say(said, { aloud: true });
}

/**
 * Runs the reverse process with the form's values, onto the film.
 * @param {SampleOptions} [given] what goes before the form and the easel
 * @param {Partial<import("./metadata.js").Made>} [about] what the picture is to say of that
 */
async function draw(given = {}, about = {}) {
  if (!pipeline) return;
  const opened = pipeline;
  const { info } = opened;
  const { parameters, image, options } = readForm(info);
  history.replaceState(null, "", linkHere(parameters));
  const seeds = seedsOf(parameters);
  film.begin(
    Number(parameters.steps),
    seeds.map((seed) => `seed ${seed}`),
  );
  // On a phone the pictures are below the form.
  element("canvas").scrollIntoView({ block: "nearest" });
  made = { ...Object.fromEntries(Object.entries(parameters).filter(([, value]) => value !== "")), model: model.name };
  if (image) made.image = easel.pictureName();
  if (loras.named().length > 0) made.loras = loras.named();
  Object.assign(made, about);
  drawnBy = info.scheduler;
  let count = 0;
  let spent = 0;
  const draw = async (/** @type {AbortSignal} */ signal) => {
    progress.value = 0;
    await opened.setLoras(loras.chosen(), { signal });
    const steps = opened.sample({ ...options, ...given, signal });
    for await (const step of steps) {
      if (count === 0) showNotice(steps.warning);
      film.add(step);
      count += 1;
      spent += step.milliseconds;
      progress.value = count / step.total;
      say(`Step ${count} of ${step.total}, ${Math.round(spent / count)} ms a step`);
    }
    return `${count} steps in ${(spent / 1000).toFixed(1)} s, ${Math.round(spent / count)} ms a step`;
  };
  await work("Preparing", draw, {
    then: "done",
    cancelled: () => `Cancelled after ${count} ${count === 1 ? "step" : "steps"}`,
  });
}

/** The built-in model, in place of the one that is open. */
function openBuiltin() {
  model = { source: BUILTIN.base, name: BUILTIN.name };
  button("builtin").hidden = true;
  return Promise.all([load(), showAbout()]);
}

/**
 * A checkpoint of the visitor's own, or at an address of theirs.
 * @param {typeof model} opened
 */
function open(opened) {
  model = opened;
  button("builtin").hidden = false;
  element("examples").hidden = true;
  element("vocabulary").hidden = true;
  writeParameters(USUAL);
  return load();
}

/**
 * @param {string} address
 * @param {string} [variant]
 */
function openAddress(address, variant) {
  const name =
    address
      .replace(/[?#].*$/, "")
      .split("/")
      .filter(Boolean)
      .at(-1) ?? address;
  return open({ source: address, name, address, variant });
}

/**
 * What is open stays open, and what is under way goes on.
 * @param {string} name
 * @param {unknown} error
 */
function refuse(name, error) {
  showNotice(`${name} could not be read: ${error instanceof Error ? error.message : error}`);
}

/**
 * Pictures are for the view that is shown.
 * @param {File[]} files
 */
async function takePictures(files) {
  try {
    if (view) await view.takePictures(files);
    else for (const file of files) await takePicture(file);
  } catch (error) {
    refuse(files[0].name, error);
  }
}

/**
 * A picture that says what it was made with is taken at its word. Any other is one to start from.
 * @param {File} file
 */
async function takePicture(file) {
  try {
    const found = file.type === "image/png" ? await readMade(file) : undefined;
    if (found) restore(found, file.name);
    else if (pipeline?.info.takesImage) await startFrom(file);
    else showNotice(`${file.name} does not say what it was made with, and ${model.name} cannot start from a picture`);
  } catch (error) {
    refuse(file.name, error);
  }
}

/**
 * @param {Record<string, unknown>} found
 * @param {string} file
 */
function restore(found, file) {
  const { model: madeBy, ...rest } = found;
  const fits = (/** @type {unknown} */ value) => typeof value === "string" || typeof value === "number";
  const [known, other] = [true, false].map((wanted) =>
    Object.entries(rest).filter(([name, value]) => (isParameter(name) && fits(value)) === wanted),
  );
  restoreParameters(Object.fromEntries(known.map(([name, value]) => [name, String(value)])));
  const notes = [`the settings of ${file} are restored`];
  if (madeBy !== undefined && madeBy !== model.name) notes.push(`it was made by ${madeBy}`);
  if (other.length > 0)
    notes.push(`what else it was made with is up to you: ${other.map(([name]) => name).join(", ")}`);
  showNotice(notes.join("; "));
}

/** @param {Blob} picture @param {string} [name] */
async function startFrom(picture, name = picture instanceof File ? picture.name : "the one that was shown") {
  await easel.put(picture, name);
  /** @type {HTMLDetailsElement} */ (element("more")).open = true;
}

/** Offers the built-in model's examples, with the settings that suit it. The page works without them. */
async function showAbout() {
  const response = await fetch(BUILTIN.about).catch(() => undefined);
  if (!response?.ok) return;
  /** @type {{ steps: number, guidanceScale: number, solver: string, preview: string, prompts: string[], styles: string[], glyphs: string[] }} */
  const { steps, guidanceScale, solver, preview, prompts, styles, glyphs } = await response.json();
  writeParameters({ prompt: prompts[0], steps: String(steps), guidanceScale: String(guidanceScale), solver, preview });

  const examples = element("examples");
  examples.replaceChildren(...prompts.map((prompt) => chip(prompt, () => prompt)));
  examples.hidden = false;

  const vocabulary = element("vocabulary");
  const styleNow = () => styles.find((style) => readParameters().prompt.endsWith(style)) ?? styles[0];
  vocabulary.children[0].textContent = `All ${glyphs.length} things it knows, in ${styles.length} styles`;
  vocabulary.children[1].replaceChildren(...glyphs.map((glyph) => chip(glyph, () => `${glyph}, ${styleNow()}`)));
  vocabulary.hidden = false;
}

/**
 * @param {string} text
 * @param {() => string} prompt what a press puts into the prompt
 */
function chip(text, prompt) {
  const chip = document.createElement("button");
  chip.type = "button";
  chip.textContent = text;
  chip.addEventListener("click", () => writeParameters({ prompt: prompt() }));
  return chip;
}

/** @param {import("./pkg/index.js").DeviceInfo} device */
function showDevice({ kind, name, reason, threads = 1 }) {
  const where = document.createElement("strong");
  where.textContent =
    kind === "webgpu"
      ? `On the GPU: ${name}`
      : threads > 1
        ? `On ${threads} threads of the processor`
        : "On the processor";
  element("device").dataset.kind = kind;
  element("device").replaceChildren(where, kind === "webgpu" ? ", through WebGPU." : `: ${reason}.`);
}

/** Profiles a step with the form's values. */
async function measure() {
  if (!pipeline) return;
  const opened = pipeline;
  const { options } = readForm(opened.info);
  await work("Measuring", async (signal) => {
    await opened.setLoras(loras.chosen(), { signal });
    profile.show(await opened.profile({ ...options, signal }));
    return "Measured";
  });
}

/**
 * Turns the page to a view. What is under way in another one ends.
 * @param {string} name
 */
async function show(name) {
  if (name === shownView || !(name === "reverse" || Object.hasOwn(VIEWS, name))) return;
  const left = view;
  view = undefined;
  shownView = document.body.dataset.view = name;
  for (const link of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("#views a"))) {
    link.ariaCurrent = link.dataset.view === name ? "page" : null;
    // On a phone the row is wider than the screen.
    if (link.ariaCurrent) link.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  history.replaceState(null, "", linkTo(readParameters(), model, { view: name }));
  button("start").textContent = START;
  try {
    if (document.body.dataset.state === "sampling") running?.abort();
    await working;
    left?.leave();
    await left?.release();
    if (name !== "reverse") await styled();
    const opened = name === "reverse" ? undefined : (views[name] ??= (await VIEWS[name]()).open(page));
    if (shownView !== name) return;
    view = opened;
    button("start").textContent = view?.start ?? START;
    view?.enter();
  } catch (error) {
    showError(error);
  }
}

/** The style of the views beside drawing, fetched with the first of them. @type {Promise<unknown> | undefined} */
let style;

function styled() {
  return (style ??= new Promise((resolve) => {
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href: "views.css", onload: resolve, onerror: resolve });
    document.head.append(link);
  }));
}

/** A link to what is shown. A view beside drawing is of a picture, which a link cannot carry. */
function linkHere(parameters = readParameters()) {
  return linkTo(parameters, model, shownView === "reverse" ? { run: "1" } : { view: shownView });
}

async function share() {
  const link = linkHere();
  history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(link);
    say("The link is copied", { aloud: true });
  } catch {
    say("The link is in the address bar", { aloud: true });
  }
}

/** The picture on the plate as a PNG that says what it was made with. */
async function shownPicture() {
  const shown = film.shownStep();
  if (!shown || !made) return undefined;
  const canvas = /** @type {HTMLCanvasElement} */ (element("canvas"));
  /** @type {Blob | null} */
  const png = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!png) {
    say("This browser could not make a PNG of the picture", { aloud: true });
    return undefined;
  }
  // Each of several pictures has a seed of its own, and is drawn again by it alone.
  const { pictures, ...one } = made;
  const seed = String(seedsOf({ seed: "0", pictures: "1", ...made })[shown.picture]);
  const { width, height } = canvas;
  const file = await withMade(png, { ...one, seed }, { width, height, scheduler: drawnBy });
  return { file, step: shown.step, seed };
}

async function download() {
  const shown = await shownPicture();
  if (!shown) return;
  const { file, step, seed } = shown;
  const words = made?.prompt?.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["picture"];
  const state = step.index + 1 === step.total ? [] : ["step", step.index + 1];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = `${[...words, seed, ...state].join("-")}.png`;
  link.click();
  URL.revokeObjectURL(link.href);
}

/** @param {number} bytes */
function megabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (view) view.submit();
  else draw();
});
element("views").addEventListener("click", (event) => {
  const link = /** @type {HTMLElement} */ (event.target).closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  show(link.dataset.view ?? "");
});
element("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!button("start").disabled) form.requestSubmit();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") button("cancel").click();
});
addEventListener("hashchange", async () => {
  const { parameters, model: asked, variant, run, view } = readAddress();
  await show(view);
  // Opening a model sets what suits it; the link's values come after that.
  const isOpen = asked === model.address && variant === model.variant;
  if (!isOpen && !(asked ? await openAddress(asked, variant) : (await openBuiltin())[0])) return;
  restoreParameters(parameters);
  if (run && !button("start").disabled) form.requestSubmit();
});
button("cancel").addEventListener("click", () =>
  (document.body.dataset.state === "loading" ? loading : running)?.abort(),
);
button("dice").addEventListener("click", () => writeParameters({ seed: anySeed() }));
button("measure").addEventListener("click", measure);
button("share").addEventListener("click", share);
button("download").addEventListener("click", download);
film.onTurn(() => (button("download").disabled = !film.shownStep()));
button("retry").addEventListener("click", load);
button("builtin").addEventListener("click", openBuiltin);
button("start-shown").addEventListener("click", async () => {
  const shown = await shownPicture();
  if (shown) await startFrom(shown.file);
});
button("start-remove").addEventListener("click", easel.remove);
button("mask-clear").addEventListener("click", easel.clearMask);
for (const [id, take] of /** @type {const} */ ([
  ["start-file", startFrom],
  ["mask-file", easel.putMask],
  ["lora-file", loras.add],
])) {
  const input = /** @type {HTMLInputElement} */ (element(id));
  input.addEventListener("change", async () => {
    const [file] = input.files ?? [];
    input.value = "";
    if (!file) return;
    try {
      await take(file);
    } catch (error) {
      refuse(file.name, error);
    }
  });
}
element("opener").addEventListener("submit", (event) => {
  event.preventDefault();
  const { address, variant } = Object.fromEntries(new FormData(/** @type {HTMLFormElement} */ (element("opener"))));
  openAddress(String(address).trim(), String(variant).trim() || undefined);
  element("form").scrollIntoView({ block: "nearest" });
});
acceptFiles({
  checkpoint: (source, name) => open({ source, name }),
  lora: loras.add,
  pictures: takePictures,
  unreadable: refuse,
});

// What the visitor types while the model loads is kept; a link's values come before that.
const address = readAddress();
writeParameters({ ...USUAL, seed: anySeed() });
const opening = address.model ? openAddress(address.model, address.variant) : load();
const about = address.model ? undefined : showAbout();
await about;
writeParameters(address.parameters);
if (address.view !== "reverse") await show(address.view);
// Through the form, so that a link's values are checked like typed ones.
if ((await opening) && address.run) form.requestSubmit();
