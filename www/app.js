// @ts-check
// The page: loads a checkpoint, runs it with the form's values, shows every step.

import { affords, isOwn, mayOpen, nameOf } from "./consent.js";
import { acceptFiles } from "./drop.js";
import * as easel from "./easel.js";
import * as film from "./film.js";
import * as loras from "./loras.js";
import * as model from "./model.js";
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
import * as solvers from "./solvers.js";
import { dismiss, say, state } from "./state.js";
import { arrange, end, progressTo, work } from "./task.js";
import * as views from "./views.js";
import { learn } from "./vocabulary.js";

/** @import { ModelInfo, SampleOptions } from "./pkg/index.js" */
/** @import { Made } from "./metadata.js" */
/** @import { Parameters } from "./parameters.js" */
/** @import { Asked } from "./state.js" */

const BUILTIN = { source: "models/emoji64/", name: "emoji64" };
const ABOUT = "models/emoji64.json";

/** For a checkpoint that says nothing of how to use it: diffusers' own guidance, half its steps. */
const USUAL = { steps: "25", guidanceScale: "7.5", solver: "", preview: "" };

/** A profile takes as long as some tens of steps. */
const MEASURED_STEPS = 30;

const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const button = (/** @type {string} */ id) => /** @type {HTMLButtonElement} */ (document.getElementById(id));
const form = /** @type {HTMLFormElement} */ (element("form"));
const more = /** @type {HTMLDetailsElement} */ (element("more"));

/** What the pictures on each view's film were made with, and the scheduler that drew them. @type {Record<string, { made: Made, scheduler: string }>} */
const drawings = {};

/**
 * What is to be drawn, by the form and, where it is shown, the easel.
 * @param {ModelInfo} info
 * @param {string} view
 */
function readForm(info, view) {
  const parameters = readParameters();
  fitPicture();
  const image = view === "reverse" && info.takesImage ? easel.picture() : undefined;
  const mask = image && info.takesMask ? easel.mask() : undefined;
  return { parameters, image, options: { ...optionsOf(parameters), image, mask } };
}

/**
 * Runs the reverse process with the form's values, onto the film of a view.
 * @param {string} view
 * @param {SampleOptions} [given] what goes before the form and the easel
 * @param {Partial<Made>} [about] what the picture is to say of that
 */
async function draw(view, given = {}, about = {}) {
  const opened = state.pipeline;
  if (!opened || !views.canRead()) return;
  const { info } = opened;
  const { parameters, image, options } = readForm(info, view);
  /** @type {Made} */
  const made = {
    ...Object.fromEntries(Object.entries(parameters).filter(([, value]) => value !== "")),
    model: nameOfModel(),
    variant: state.opened?.variant,
  };
  // As the model is told it.
  if (made.prompt) made.prompt = String(options.prompt);
  if (image) made.image = easel.pictureName();
  if (loras.named().length > 0) made.loras = loras.named();
  let count = 0;
  let spent = 0;
  const task = async (/** @type {AbortSignal} */ signal) => {
    await opened.setLoras(loras.chosen(), { signal });
    const { seconds } = await opened.estimate({ ...options, ...given, signal });
    if (!(await affords(seconds, signal))) return undefined;
    history.replaceState(history.state, "", linkHere(parameters));
    film.begin(
      Number(parameters.steps),
      seedsOf(parameters).map((seed) => `seed ${seed}`),
    );
    drawings[view] = { made: Object.assign(made, about), scheduler: info.scheduler };
    bringIntoView();
    const steps = opened.sample({ ...options, ...given, includeInitial: true, signal });
    for await (const step of steps) {
      if (count === 0) warn(view, [...opened.loraNotes, steps.warning].filter(Boolean).join(". "));
      film.add(step);
      if (step.index < 0) continue;
      count += 1;
      spent += step.milliseconds;
      progressTo(count / step.total);
      say(view, { status: `Step ${count} of ${step.total}, ${Math.round(spent / count)} ms a step` });
    }
    return `${count} ${count === 1 ? "step" : "steps"} in ${(spent / 1000).toFixed(1)} s, ${Math.round(spent / count)} ms a step`;
  };
  await work(view, "Preparing", task, {
    then: "done",
    cancelled: () => `Cancelled after ${count} ${count === 1 ? "step" : "steps"}`,
  });
}

/**
 * Says what a run warns of, with what helps.
 * @param {string} view
 * @param {string} [warning]
 */
function warn(view, warning = "") {
  const act = () => {
    writeParameters({ longPrompts: "chunks" });
    more.open = true;
    form.requestSubmit();
  };
  const isTooLong = warning.includes("too long");
  say(view, { notice: warning, cure: isTooLong ? { label: "Read all of it, in chunks", act } : undefined });
}

/** On a phone the pictures are below the form: what is drawn is to be seen, with the button that ends it. */
function bringIntoView() {
  const { bottom } = element("filmstrip").getBoundingClientRect();
  if (bottom <= innerHeight) return;
  const isNarrow = matchMedia("(max-width: 56rem)").matches;
  if (isNarrow) button("cancel").scrollIntoView({ block: "start" });
  else element("canvas").scrollIntoView({ block: "nearest" });
}

/** What the open model is called. */
function nameOfModel() {
  return state.opened?.name ?? "";
}

/** Opens the built-in model. */
function openBuiltin() {
  return state.opened === BUILTIN && state.pipeline ? Promise.resolve(true) : model.load(BUILTIN);
}

/**
 * Opens what is at an address.
 * @param {string} address
 * @param {string | undefined} variant
 */
function openAddress(address, variant) {
  return model.load({ source: address, name: nameOf(address), address, variant });
}

/**
 * What a new pipeline changes on the page.
 * @param {Asked} opened
 * @param {boolean} isOther whether it is of another model than before
 */
function modelOpened(opened, isOther) {
  const info = /** @type {ModelInfo} */ (state.pipeline?.info);
  showFieldsFor(info);
  const isLeft = solvers.show(/** @type {import("./pkg/index.js").Pipeline} */ (state.pipeline));
  if (!isLeft && pending.linked.has("solver")) pending.unread.add("solver");
  showDevice(/** @type {import("./pkg/index.js").Pipeline} */ (state.pipeline).device);
  if (isOther) {
    loras.clear();
    profile.clear();
    const isBuiltin = opened === BUILTIN;
    button("builtin").hidden = isBuiltin;
    element("examples").hidden = element("vocabulary").hidden = !isBuiltin || !builtin.about;
    learn(isBuiltin ? builtin.about?.vocabulary : undefined);
    suggest(isBuiltin ? (builtin.about?.settings ?? {}) : USUAL);
    if (info.needsImage) more.open = true;
    element("trained").textContent = `This model was trained at ${info.width} × ${info.height}.`;
  }
  fitPicture();
  views.showStart();
  views.modelChanged();
}

/** Brings the picture to start from to the size that a run has. A model that enlarges takes a picture of any size. */
function fitPicture() {
  if (state.view !== "reverse") return;
  const info = state.pipeline?.info;
  if (!info || info.takesNoiseLevel) return easel.fit();
  const { width, height } = readParameters();
  const side = (/** @type {string} */ typed, /** @type {number} */ usual) =>
    Number(typed) % info.sizeMultiple === 0 && Number(typed) > 0 ? Math.min(Number(typed), 8192) : usual;
  easel.fit({ width: side(width, info.width), height: side(height, info.height) });
}

/** The built-in model's examples. */
const builtin = {
  /** Their arrival. @type {Promise<void> | undefined} */
  offered: undefined,
  /** The settings that suit the model and what it knows, once they are there. @type {{ settings: Partial<Parameters>, vocabulary: import("./vocabulary.js").Vocabulary } | undefined} */
  about: undefined,
};

/** The model that was asked for last, and the form that it is to find. */
const pending = {
  /** @type {Asked | undefined} */
  asked: undefined,
  /** What the form held when the load began. @type {Parameters | undefined} */
  before: undefined,
  /** The parameters that the link came with which the page was opened by. @type {Set<string>} */
  linked: new Set(),
  /** Those of them that the page, or the model that was opened, cannot take. @type {Set<keyof Parameters>} */
  unread: new Set(),
};

/**
 * Writes what suits a model into the form, but for what the visitor, or a link, has written since the load began.
 * @param {Partial<Parameters>} settings
 */
function suggest(settings) {
  const now = readParameters();
  const untouched = Object.entries(settings).filter(([name]) => {
    const parameter = /** @type {keyof Parameters} */ (name);
    return now[parameter] === pending.before?.[parameter] && !pending.linked.has(name);
  });
  writeParameters(Object.fromEntries(untouched));
}

/** Offers the built-in model's examples, with the settings that suit it. The page works without them. */
async function showAbout() {
  const response = await fetch(ABOUT).catch(() => undefined);
  if (!response?.ok) {
    builtin.offered = undefined;
    return;
  }
  /** @type {{ steps: number, guidanceScale: number, solver: string, preview: string, prompts: string[] } & import("./vocabulary.js").Vocabulary} */
  const { steps, guidanceScale, solver, preview, prompts, ...vocabulary } = await response.json();
  builtin.about = {
    vocabulary,
    settings: { prompt: prompts[0], steps: String(steps), guidanceScale: String(guidanceScale), solver, preview },
  };

  const examples = element("examples");
  examples.replaceChildren(...prompts.map((prompt) => chip(prompt, () => prompt)));

  const list = element("vocabulary");
  const { styles } = vocabulary;
  const glyphs = Object.keys(vocabulary.glyphs);
  const styleNow = () => styles.find((style) => readParameters().prompt.endsWith(style)) ?? styles[0];
  list.children[0].textContent = `All ${glyphs.length} things it knows, in ${styles.length} styles`;
  list.children[1].replaceChildren(...glyphs.map((glyph) => chip(glyph, () => `${glyph}, ${styleNow()}`)));

  // The model may still be on its way. Another one has no use for them.
  if ((state.opened ?? pending.asked) !== BUILTIN) return;
  examples.hidden = list.hidden = false;
  learn(vocabulary);
  suggest(builtin.about.settings);
}

/**
 * @param {string} text
 * @param {() => string} prompt what a press puts into the prompt, and draws
 */
function chip(text, prompt) {
  const chip = document.createElement("button");
  chip.type = "button";
  chip.textContent = text;
  chip.addEventListener("click", () => {
    writeParameters({ prompt: prompt() });
    if (state.view === "reverse") form.requestSubmit();
  });
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
  const opened = state.pipeline;
  if (!opened || !views.canRead()) return;
  const { options } = readForm(opened.info, "reverse");
  await work("reverse", "Measuring", async (signal) => {
    await opened.setLoras(loras.chosen(), { signal });
    const { seconds, calls } = await opened.estimate({ ...options, signal });
    if (!(await affords(seconds && (MEASURED_STEPS * seconds) / calls, signal))) return undefined;
    profile.show(await opened.profile({ ...options, signal }));
    return "Measured";
  });
}

/** Says something in the view that is shown, also to those who listen. @param {string} status */
function tell(status) {
  say(state.view, { status }, { aloud: true });
}

/** Says something that is good to know in the view that is shown. @param {string} notice */
function notify(notice) {
  say(state.view, { notice });
  element("notice").scrollIntoView({ block: "nearest" });
}

/**
 * What is open stays open, and what is under way goes on.
 * @param {string} name
 * @param {unknown} error
 */
function refuse(name, error) {
  notify(views.refusal(name, error));
}

/**
 * Pictures are for the view that is shown.
 * @param {File[]} files
 */
async function takePictures(files) {
  const [first] = files;
  const view = views.current();
  try {
    if (!view && state.view !== "reverse") throw new Error("this view is still on its way");
    const done = view ? await view.takePictures(files) : await takePicture(first);
    notify(files.length > 1 && !view?.takesMany ? `${done}. Of the ${files.length} pictures it is the first` : done);
  } catch (error) {
    refuse(first.name, error);
  }
}

/**
 * A picture that says what it was made with is taken at its word. Any other is one to start from.
 * @param {File} file
 * @returns {Promise<string>} what was done with it
 */
async function takePicture(file) {
  const found = file.type === "image/png" ? await readMade(file) : undefined;
  if (found) return restore(found, file.name);
  if (state.pipeline?.info.takesImage) return startFrom(file);
  return `${file.name} does not say what it was made with, and ${nameOfModel() || "no model"} can start from a picture`;
}

/**
 * @param {Record<string, unknown>} found
 * @param {string} file
 */
function restore(found, file) {
  const { model: madeBy, variant, ...rest } = found;
  const fits = (/** @type {unknown} */ value) => ["string", "number", "boolean"].includes(typeof value);
  const [known, other] = [true, false].map((wanted) =>
    Object.entries(rest).filter(([name, value]) => (isParameter(name) && fits(value)) === wanted),
  );
  const refused = restoreParameters(Object.fromEntries(known.map(([name, value]) => [name, String(value)])));
  fieldsChanged();
  const notes = [`the settings of ${file} are restored`];
  if (madeBy !== undefined && madeBy !== nameOfModel()) notes.push(`it was made by ${madeBy}`);
  if (variant !== state.opened?.variant) notes.push(`it was made with the variant ${variant ?? "that has no name"}`);
  if (refused.length > 0)
    notes.push(`this model cannot take ${refused.map((name) => `${name} = ${rest[name]}`).join(", ")}`);
  if (other.length > 0)
    notes.push(`what else it was made with is up to you: ${other.map(([name]) => name).join(", ")}`);
  return notes.join("; ");
}

/**
 * @param {Blob} picture
 * @param {string} [name]
 * @returns {Promise<string>} what was done with it
 */
async function startFrom(picture, name = picture instanceof File ? picture.name : "the one that was shown") {
  await easel.put(picture, name);
  more.open = true;
  return `${name} is what the next picture starts from: see “More”`;
}

/** @param {File} file */
function addLora(file) {
  const info = state.pipeline?.info;
  if (!info?.takesPrompt) {
    notify(
      `${file.name} is a LoRA, and ${info ? `${nameOfModel()} takes none` : "there is no model yet to add it to"}`,
    );
    return;
  }
  loras.add(file);
  more.open = true;
  notify(`${file.name} is added to ${nameOfModel()}: its weight is under “More”`);
}

/** A complaint about a field is dropped as soon as one is edited. */
function fieldsEdited() {
  if (state.words[state.view]?.problem?.isOfSettings) say(state.view, { problem: undefined });
}

/** And a picture follows the size that is asked for, once that is written. */
function fieldsChanged() {
  fieldsEdited();
  fitPicture();
}

/** A link to what is shown. A view beside drawing is of a picture, which a link cannot carry. */
function linkHere(parameters = readParameters()) {
  return linkTo(parameters, state.opened ?? {}, state.view === "reverse" ? { run: "1" } : { view: state.view });
}

async function share() {
  const link = linkHere();
  history.replaceState(history.state, "", link);
  try {
    await navigator.clipboard.writeText(link);
    tell("The link is copied");
  } catch {
    tell("The link is in the address bar");
  }
}

/** The picture on the plate as a PNG that says what it was made with. */
async function shownPicture() {
  const shown = film.shownStep();
  const drawing = drawings[state.view];
  if (!shown || !drawing) return undefined;
  const canvas = /** @type {HTMLCanvasElement} */ (element("canvas"));
  /** @type {Blob | null} */
  const png = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!png) {
    tell("This browser could not make a PNG of the picture");
    return undefined;
  }
  // Each of several pictures has a seed of its own, and is drawn again by it alone.
  const { pictures, ...one } = drawing.made;
  const seed = String(seedsOf({ seed: "0", pictures: "1", ...drawing.made })[shown.picture]);
  const { width, height } = canvas;
  const file = await withMade(png, { ...one, seed }, { width, height, scheduler: drawing.scheduler });
  return { file, step: shown.step, seed, prompt: drawing.made.prompt };
}

async function download() {
  const shown = await shownPicture();
  if (!shown) return;
  const { file, step, seed, prompt } = shown;
  const words = prompt?.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["picture"];
  const state = step.index + 1 === step.total ? [] : ["step", step.index + 1];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = `${[...words, seed, ...state].join("-")}.png`;
  link.click();
  URL.revokeObjectURL(link.href);
}

/** Ends what is under way, be it a question, a load or a task. */
function cancel() {
  dismiss();
  if (state.loading) state.loading.controller.abort();
  else end();
}

/**
 * Does what a link asks for.
 * @param {ReturnType<typeof readAddress>} address
 * @param {{ isFirst?: boolean }} [options] isFirst: the page is opened by it
 */
async function follow({ parameters, model: asked, variant, run, view }, { isFirst = false } = {}) {
  const turned = views.turnTo(view, { isNew: false });
  // While the visitor thinks about somebody else's model, there is the page's own.
  if (isFirst && asked && !isOwn(asked)) openBuiltin();
  // What the visitor types while the page's own model loads is kept: the link's values come before that.
  const isWritten = isFirst && !asked;
  if (isWritten) writeLinked(parameters);
  const { opened, pipeline } = state;
  const isOpen = pipeline !== undefined && asked === opened?.address && variant === opened?.variant;
  if (!isOpen && asked) {
    if (!(await mayOpen(asked, variant, { isTyped: false })) || !(await openAddress(asked, variant))) return;
  } else if (!isOpen && !(await openBuiltin())) return;
  await turned;
  // Examples that do not arrive hold nothing up.
  if (state.opened === BUILTIN)
    await Promise.race([builtin.offered, new Promise((resolve) => setTimeout(resolve, 1000))]);
  const [lost] = isWritten ? pending.unread : restoreParameters(parameters);
  fieldsChanged();
  if (lost) {
    const message = `The link asks for ${lost} “${parameters[lost]}”, which is unknown here.`;
    say(state.view, { problem: { code: "invalid-option", message, isOfSettings: true } });
  } else if (run) form.requestSubmit();
}

/** @param {Partial<Parameters>} parameters */
function writeLinked(parameters) {
  for (const name of Object.keys(parameters)) pending.linked.add(name);
  for (const name of writeParameters(parameters)) pending.unread.add(name);
}

arrange({ release: views.release, problemOf: model.problemOf });
views.arrangeViews({
  draw,
  start: () =>
    easel.pictureName() !== undefined && state.pipeline?.info.takesImage
      ? "Start from the picture"
      : "Start from noise",
});
model.arrangeModel({
  own: BUILTIN,
  begins(asked) {
    pending.before = readParameters();
    pending.asked = asked;
    if (state.opened) pending.linked.clear();
    if (asked === BUILTIN) builtin.offered ??= showAbout();
    else if (!state.opened) button("builtin").hidden = false;
  },
  opened: modelOpened,
});
easel.onChange(views.showStart);
film.onTurn(() => {
  const isShown = film.shownStep() !== undefined;
  button("download").disabled = !isShown;
  button("start-shown").disabled = !isShown;
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (state.loading || !state.pipeline || !views.canRead()) return;
  if (state.view === "reverse") draw("reverse");
  else views.current()?.submit();
});
for (const part of [form, element("stage"), element("below")]) {
  // Before the field's own listeners, which may find something else to complain about.
  part.addEventListener("input", fieldsEdited, { capture: true });
  part.addEventListener("change", () => fitPicture(), { capture: true });
}
element("views").addEventListener("click", (event) => {
  const link = /** @type {HTMLElement} */ (event.target).closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  views.turnTo(link.dataset.view ?? "");
});
element("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!button("start").disabled) form.requestSubmit();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") cancel();
});
addEventListener("hashchange", () => {
  // An entry of the page's own is one that "Back" came to.
  if (history.state?.view) return;
  follow(readAddress());
  history.replaceState({ view: state.view }, "");
});
// Whatever else goes wrong is said as well.
addEventListener("unhandledrejection", ({ reason }) => say(state.view, { problem: model.problemOf(reason) }));
button("cancel").addEventListener("click", cancel);
button("dice").addEventListener("click", () => {
  writeParameters({ seed: anySeed() });
  fieldsChanged();
});
button("measure").addEventListener("click", measure);
button("share").addEventListener("click", share);
button("download").addEventListener("click", download);
button("builtin").addEventListener("click", openBuiltin);
button("start-shown").addEventListener("click", async () => {
  const shown = await shownPicture();
  if (shown) notify(await startFrom(shown.file));
});
button("start-remove").addEventListener("click", easel.remove);
button("mask-clear").addEventListener("click", easel.clearMask);
for (const [id, take] of /** @type {const} */ ([
  ["start-file", async (/** @type {File} */ file) => notify(await startFrom(file))],
  ["mask-file", easel.putMask],
  ["lora-file", addLora],
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
element("opener").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = Object.fromEntries(new FormData(/** @type {HTMLFormElement} */ (element("opener"))));
  const [address, variant] = [String(given.address).trim(), String(given.variant).trim() || undefined];
  element("form").scrollIntoView({ block: "nearest" });
  if (await mayOpen(address, variant, { isTyped: true })) openAddress(address, variant);
});
acceptFiles({
  checkpoint: (source, name) => model.load({ source, name }),
  lora: addLora,
  pictures: takePictures,
  unreadable: refuse,
});

writeParameters({ ...USUAL, seed: anySeed() });
follow(readAddress(), { isFirst: true });
history.replaceState({ view: state.view }, "");
