// @ts-check
// The views: drawing, which is there from the start, and the others, each fetched when it is first looked at.

import * as film from "./film.js";
import * as loras from "./loras.js";
import { complaint, firstInvalid, reveal } from "./fields.js";
import { problemOf } from "./model.js";
import { linkTo, readParameters } from "./parameters.js";
import { MODEL, dismiss, say, show as showState, state, unsay } from "./state.js";
import { end, idle, progressTo, using, work } from "./task.js";

/**
 * A view beside drawing. It has the part of the page that is its own, and shares the model and the form.
 * @typedef {object} View
 * @property {string} start  what the form's button says
 * @property {() => void} enter  it is looked at from now on
 * @property {() => void} leave  it no longer is, and takes what is its own along
 * @property {() => Promise<void>} release  lets go of the pipeline, which something else needs; what it shows stays
 * @property {() => void} modelChanged
 * @property {() => Promise<void>} submit  what the form's button does
 * @property {(files: File[]) => Promise<string>} takePictures  says what it did with them
 * @property {boolean} [takesMany]  whether it takes more than the first
 */

/** Draws with the form's values, for a view. @typedef {(view: string, given?: import("./pkg/index.js").SampleOptions, about?: Partial<import("./metadata.js").Made>) => Promise<void>} Draw */

/**
 * What a view may ask of the page. What it says is said while it is shown, and again when the visitor comes back to it.
 * @typedef {ReturnType<typeof pageOf>} Page
 */

/** The views beside drawing. @type {Record<string, () => Promise<{ open(page: Page): View }>>} */
const VIEWS = {
  forward: () => import("./forward.js"),
  bound: () => import("./bound.js"),
  fid: () => import("./fid.js"),
};

const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** Those that were looked at. @type {Record<string, View>} */
const opened = {};

/** @type {Draw} */
let draw;
/** What the form's button says where noise becomes a picture. @type {() => string} */
let startOfDrawing;

/**
 * Tells what the views need of drawing.
 * @param {{ draw: Draw, start: typeof startOfDrawing }} drawing
 */
export function arrangeViews(drawing) {
  draw = drawing.draw;
  startOfDrawing = drawing.start;
}

/** The view beside drawing that is shown, if one is and it has arrived. */
export function current() {
  return /** @type {View | undefined} */ (opened[state.view]);
}

/** Whether a name is a view's. @param {string} name */
function isView(name) {
  return name === "reverse" || Object.hasOwn(VIEWS, name);
}

/**
 * Whether all fields of the view that is shown can be read. If not, the first that cannot is named.
 * @param {{ points?: boolean }} [options] points: the field is brought into sight, too
 */
export function canRead({ points = true } = {}) {
  const field = firstInvalid();
  if (!field) return true;
  say(state.view, { problem: { code: "invalid-option", message: complaint(field), isOfSettings: true } });
  if (points) reveal(field);
  return false;
}

/** @param {string} name a view's */
function pageOf(name) {
  return {
    pipeline: () => state.pipeline,
    /** Where views show what is their own, beside the form. */
    stage: element("stage"),
    /** Where views show what is their own, below the form. */
    below: element("below"),
    /** The LoRAs that the form asks for. */
    loras: loras.chosen,
    canRead,
    /** @type {(what: string, task: (signal: AbortSignal) => Promise<string | undefined>, options?: Parameters<typeof work>[3]) => Promise<void>} */
    work: (what, task, options) => work(name, what, task, options),
    /** @type {(given: import("./pkg/index.js").SampleOptions, about: Partial<import("./metadata.js").Made>) => Promise<void>} */
    draw: (given, about) => draw(name, given, about),
    say: (/** @type {string} */ status) => say(name, { status }),
    /** Takes back how something ended that is no longer shown. */
    unsay: () => say(name, { status: "", isDone: false }),
    showNotice: (/** @type {string} */ notice = "") => say(name, { notice }),
    showError: (/** @type {unknown} */ error) => say(name, { status: "", problem: problemOf(error) }),
    /** Says that a file cannot be read. @type {(file: string, error: unknown) => void} */
    refuse: (file, error) => say(name, { notice: refusal(file, error) }),
    /** Ends what is under way. */
    idle,
    setProgress: progressTo,
  };
}

/**
 * @param {string} file
 * @param {unknown} error
 */
export function refusal(file, error) {
  return `${file} could not be read: ${error instanceof Error ? error.message : error}`;
}

/**
 * Turns the page to a view. What is under way in another one ends; nobody waits for that here.
 * @param {string} name
 * @param {{ isNew?: boolean }} [options] isNew: "Back" is to lead to where the page is now
 */
export async function turnTo(name, { isNew = true } = {}) {
  if (name === state.view || !isView(name)) return;
  const left = current();
  dismiss();
  end();
  // What was refused elsewhere is no affair of this view, as long as there is a model.
  if (state.pipeline) unsay(MODEL);
  left?.leave();
  if (left) using(left.release());
  state.view = document.body.dataset.view = name;
  film.turnTo(name);
  for (const link of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("#views a"))) {
    link.ariaCurrent = link.dataset.view === name ? "page" : null;
    // On a phone the row is wider than the screen.
    if (link.ariaCurrent) link.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  if (isNew) history.pushState({ view: name }, "", linkTo(readParameters(), state.opened ?? {}, { view: name }));
  await enter(name);
}

/** Counts the turns: a view that arrives when the page has turned on is not entered. */
let turns = 0;

/** @param {string} name */
async function enter(name) {
  const turn = ++turns;
  showStart();
  if (name === "reverse") return;
  try {
    await styled();
    const view = await fetched(name);
    if (turn !== turns) return;
    showStart();
    view.enter();
  } catch (error) {
    const again = { label: "Try again", act: () => (unsay(name), enter(name)) };
    say(name, { status: "", problem: { ...problemOf(error), again } });
  }
}

/** @type {Record<string, Promise<View>>} */
const arriving = {};

/** @param {string} name */
function fetched(name) {
  return (arriving[name] ??= VIEWS[name]().then(
    ({ open }) => (opened[name] = open(pageOf(name))),
    (error) => {
      delete arriving[name];
      throw error;
    },
  ));
}

/** Brings the label of the form's button up to date: a view that has not arrived has none. */
export function showStart() {
  state.start = state.view === "reverse" ? startOfDrawing() : current()?.start;
  showState();
}

/** Lets the view that is shown let go of the pipeline. */
export function release() {
  return current()?.release();
}

/** Tells all views of another model. */
export function modelChanged() {
  for (const view of Object.values(opened)) view.modelChanged();
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

addEventListener("popstate", ({ state: entry }) => {
  // Without an entry of the page's own it is a link that was followed.
  if (entry?.view) turnTo(entry.view, { isNew: false });
});
