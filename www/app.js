// @ts-check
// The page: loads a checkpoint, runs it with the form's values, shows every step.

import { acceptFolders } from "./checkpoint.js";
import * as film from "./film.js";
import { anySeed, enablePrompts, linkTo, readAddress, readParameters, writeParameters } from "./parameters.js";
import { AbortError, Pipeline, UndiffuseError } from "./pkg/index.js";

/** @import { LoadOptions, LoadProgress, Source } from "./pkg/index.js" */

const BUILTIN = { name: "emoji64", base: "models/emoji64/", about: "models/emoji64.json" };

/** For a checkpoint that says nothing of how to use it: diffusers' own guidance, half its steps. */
const USUAL = { steps: "25", guidanceScale: "7.5", solver: "" };

/** Errors after which the pipeline can still be used. */
const HARMLESS = ["invalid-option", "busy"];

const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const button = (/** @type {string} */ id) => /** @type {HTMLButtonElement} */ (document.getElementById(id));
const form = /** @type {HTMLFormElement} */ (element("form"));
const progress = /** @type {HTMLProgressElement} */ (element("progress"));

/** @type {Pipeline | undefined} */
let pipeline;
/** Ends the newest load; an older one that finds another here has been overtaken, and keeps silent. @type {AbortController | undefined} */
let loading;
/** Ends the newest run, likewise. @type {AbortController | undefined} */
let running;
/** Loads again what was asked for last. */
let reload = loadBuiltin;

/** @param {"loading" | "ready" | "sampling" | "done" | "error"} state */
function setState(state) {
  const busy = state === "loading" || state === "sampling";
  document.body.dataset.state = state;
  button("start").disabled = busy || !pipeline;
  button("cancel").disabled = !busy;
  button("download").disabled = !film.shownStep();
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
 * @param {Source} source
 * @param {string} name
 * @returns {Promise<boolean>} whether it was loaded
 */
async function load(source, name) {
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
    const opened = await Pipeline.load(source, { device, onProgress, signal });
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
  enablePrompts(pipeline.info.takesPrompt);
  showDevice(pipeline.device);
  setState("ready");
  say(`${name} is ready`, { aloud: true });
  return true;
}

async function run() {
  if (!pipeline) return;
  const parameters = readParameters();
  const { prompt, negativePrompt, solver } = parameters;
  const { signal } = (running = new AbortController());
  const overtaken = () => running?.signal !== signal;
  history.replaceState(null, "", linkTo(parameters));
  clearMessages();
  film.begin(Number(parameters.steps));
  // On a phone the pictures are below the form.
  element("canvas").scrollIntoView({ block: "nearest" });
  progress.value = 0;
  setState("sampling");
  say("Preparing", { aloud: true });
  let count = 0;
  let spent = 0;
  try {
    const steps = pipeline.sample({
      prompt,
      negativePrompt,
      seed: BigInt(parameters.seed),
      steps: Number(parameters.steps),
      guidanceScale: Number(parameters.guidanceScale),
      solver: solver || undefined,
      signal,
    });
    for await (const step of steps) {
      if (count === 0) showNotice(steps.warning);
      film.add(step);
      count += 1;
      spent += step.milliseconds;
      progress.value = count / step.total;
      say(`Step ${count} of ${step.total}, ${Math.round(spent / count)} ms a step`);
    }
  } catch (error) {
    if (overtaken()) return;
    if (!(error instanceof AbortError)) {
      showError(error);
      return;
    }
    setState("ready");
    say(`Cancelled after ${count} ${count === 1 ? "step" : "steps"}`, { aloud: true });
    return;
  }
  setState("done");
  say(`${count} steps in ${(spent / 1000).toFixed(1)} s, ${Math.round(spent / count)} ms a step`, { aloud: true });
}

function loadBuiltin() {
  return load(BUILTIN.base, BUILTIN.name);
}

/** The built-in model, in place of the one that is open. */
function openBuiltin() {
  reload = loadBuiltin;
  button("builtin").hidden = true;
  return Promise.all([loadBuiltin(), showAbout()]);
}

/**
 * @param {Map<string, File>} files
 * @param {string} name
 */
function openFolder(files, name) {
  reload = () => load(files, name);
  button("builtin").hidden = false;
  element("examples").hidden = true;
  element("vocabulary").hidden = true;
  writeParameters(USUAL);
  return reload();
}

/**
 * What is open stays open, and what is under way goes on.
 * @param {string} name
 * @param {unknown} error
 */
function refuseFolder(name, error) {
  showNotice(`${name} could not be read: ${error instanceof Error ? error.message : error}`);
}

/** Offers the built-in model's examples, with the settings that suit it. The page works without them. */
async function showAbout() {
  const response = await fetch(BUILTIN.about).catch(() => undefined);
  if (!response?.ok) return;
  /** @type {{ steps: number, guidanceScale: number, solver: string, prompts: string[], styles: string[], glyphs: string[] }} */
  const { steps, guidanceScale, solver, prompts, styles, glyphs } = await response.json();
  writeParameters({ prompt: prompts[0], steps: String(steps), guidanceScale: String(guidanceScale), solver });

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
function showDevice({ kind, name, reason }) {
  const where = document.createElement("strong");
  where.textContent = kind === "webgpu" ? `On the GPU: ${name}` : "On the processor";
  element("device").dataset.kind = kind;
  element("device").replaceChildren(where, kind === "webgpu" ? ", through WebGPU." : `: ${reason}.`);
}

async function share() {
  const link = linkTo(readParameters());
  history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(link);
    say("The link is copied", { aloud: true });
  } catch {
    say("The link is in the address bar", { aloud: true });
  }
}

async function download() {
  const step = film.shownStep();
  if (!step) return;
  const { prompt, seed } = readParameters();
  const words = prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["picture"];
  const state = step.index + 1 === step.total ? [] : ["step", step.index + 1];
  const blob = await new Promise((resolve) =>
    /** @type {HTMLCanvasElement} */ (element("canvas")).toBlob(resolve, "image/png"),
  );
  if (!blob) {
    say("This browser could not make a PNG of the picture", { aloud: true });
    return;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
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
  run();
});
element("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!button("start").disabled) form.requestSubmit();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") button("cancel").click();
});
addEventListener("hashchange", () => {
  const { parameters, run } = readAddress();
  writeParameters(parameters);
  if (run && !button("start").disabled) form.requestSubmit();
});
button("cancel").addEventListener("click", () =>
  (document.body.dataset.state === "loading" ? loading : running)?.abort(),
);
button("dice").addEventListener("click", () => writeParameters({ seed: anySeed() }));
button("share").addEventListener("click", share);
button("download").addEventListener("click", download);
button("retry").addEventListener("click", () => reload());
button("builtin").addEventListener("click", () => openBuiltin());
acceptFolders(openFolder, refuseFolder);

// What the visitor types while the model loads is kept; a link's values come before that.
const address = readAddress();
writeParameters({ ...USUAL, seed: anySeed() });
const [isLoaded] = await Promise.all([loadBuiltin(), showAbout().then(() => writeParameters(address.parameters))]);
// Through the form, so that a link's values are checked like typed ones.
if (isLoaded && address.run) form.requestSubmit();
