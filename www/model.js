// @ts-check
// The model that is open. Another one takes its place only when it is loaded: a file that is refused changes nothing.

import { MODEL, say, show, state, unsay } from "./state.js";
import { forget, unlessAborted } from "./task.js";
import { AbortError, Pipeline, UndiffuseError } from "./package.js";

/** @import { LoadOptions, LoadProgress } from "./pkg/index.js" */
/** @import { Asked, Loading, Problem } from "./state.js" */

/** Errors after which the pipeline is beyond use. After any other it is the settings, or the files, that have to change. */
const FATAL = ["device-lost", "gpu", "worker-failed", "disposed", "internal"];

/** Errors of a load that the same files would only bring again. */
const OF_CONTENT = [
  "file-missing",
  "file-truncated",
  "file-corrupt",
  "shape-mismatch",
  "unsupported",
  "invalid-option",
];

/**
 * What the page does about it: `begins` is told of every load, `opened` of every new pipeline, and whether it is of another model.
 * `own` is opened where nothing else can be.
 * @type {{ own: Asked, begins(asked: Asked): void, opened(asked: Asked, isOther: boolean): void }}
 */
let page;

/** What was loading when something else was asked for, while nothing was open. @type {Asked | undefined} */
let overtaken;

/** @param {typeof page} given */
export function arrangeModel(given) {
  page = given;
}

/**
 * Loads a checkpoint, which takes the place of what is open when it is ready.
 * @param {Asked} asked
 * @returns {Promise<boolean>} whether it was loaded
 */
export async function load(asked) {
  if (state.loading && !state.opened) overtaken ??= state.loading.asked;
  state.loading?.controller.abort();
  const loading = (state.loading = { asked, controller: new AbortController() });
  page.begins(asked);
  unsay(MODEL);
  say(MODEL, { status: `Loading ${asked.name}` }, { aloud: true });
  try {
    const pipeline = await replacing(asked, loading);
    if (state.loading !== loading) {
      await pipeline.dispose();
      return false;
    }
    take(pipeline, asked);
    say(MODEL, { status: `${asked.name} is ready`, notice: pipeline.info.notes.join(". ") }, { aloud: true });
    return true;
  } catch (error) {
    if (state.loading === loading) await refused(asked, error);
    return false;
  }
}

/** Loads anew what is open, which is beyond use. */
export async function reload() {
  const asked = state.opened;
  await letGo();
  return asked && load(asked);
}

/**
 * A pipeline for what was asked for. What is open is let go of beforehand only if there is no room for both.
 * @param {Asked} asked
 * @param {Loading} loading
 */
async function replacing(asked, loading) {
  try {
    return await open(asked, loading);
  } catch (error) {
    const noRoom = error instanceof UndiffuseError && error.code === "out-of-memory" && state.loading === loading;
    if (!noRoom || !state.pipeline) throw error;
    await letGo();
    return open(asked, loading);
  }
}

/**
 * @param {Asked} asked
 * @param {Loading} loading
 * @returns {Promise<Pipeline>}
 */
async function open({ source, name, variant }, loading) {
  const device = /** @type {LoadOptions["device"]} */ (new URLSearchParams(location.search).get("device") ?? "auto");
  const { signal } = loading.controller;
  const onProgress = (/** @type {LoadProgress} */ { loaded, total, waiting }) => {
    if (signal.aborted) return;
    loading.share = loaded / total;
    say(MODEL, { status: `Loading ${name}: ${waiting ?? `${megabytes(loaded)} of ${megabytes(total)} MB`}` });
  };
  const opening = Pipeline.load(source, { device, variant, onProgress, signal });
  try {
    return await unlessAborted(opening, signal);
  } catch (error) {
    // It may come all the same, for nobody.
    opening.then(
      (pipeline) => pipeline.dispose(),
      () => {},
    );
    throw error;
  }
}

/**
 * Puts a pipeline in the place of what is open.
 * @param {Pipeline} pipeline
 * @param {Asked} asked
 */
function take(pipeline, asked) {
  letGo();
  const isOther = asked !== state.opened;
  Object.assign(state, { pipeline, opened: asked, loading: undefined });
  overtaken = undefined;
  // What was said was of the one before.
  unsay();
  page.opened(asked, isOther);
}

/** Frees what is open. */
async function letGo() {
  forget();
  const pipeline = state.pipeline;
  state.pipeline = undefined;
  await pipeline?.dispose();
}

/**
 * Says that a checkpoint was not opened, and sees to it that what was open is.
 * @param {Asked} asked
 * @param {unknown} error
 */
async function refused(asked, error) {
  const loading = state.loading;
  const former = state.opened ?? overtaken ?? page.own;
  const wasOpen = state.opened !== undefined;
  if (!state.pipeline && former !== asked) {
    page.begins(former);
    say(MODEL, { status: `Loading ${former.name}` });
    const again = { asked: former, controller: new AbortController() };
    state.loading = again;
    const pipeline = await open(former, again).catch(() => undefined);
    if (state.loading !== again) return void pipeline?.dispose();
    if (pipeline) take(pipeline, former);
  } else if (state.loading !== loading) return;
  state.loading = undefined;
  const stays = state.pipeline && state.opened ? `${state.opened.name} is ${wasOpen ? "still " : ""}open.` : "";
  if (error instanceof AbortError && stays) {
    unsay(MODEL);
    say(MODEL, { status: `${asked.name} was cancelled. ${stays}` }, { aloud: true });
    return;
  }
  say(MODEL, { status: "", problem: problemOfLoad(asked, error, stays) });
}

/**
 * @param {Asked} asked
 * @param {unknown} error
 * @param {string} stays what is open all the same, if anything is
 * @returns {Problem}
 */
function problemOfLoad(asked, error, stays) {
  const { code, message } = described(error);
  const words = error instanceof AbortError ? "Loading was cancelled." : message;
  // The same file says the same again; at an address there may be another one by then. With nothing open there has to be a way.
  const isVain = code === "unsupported" || (typeof asked.source !== "string" && OF_CONTENT.includes(code));
  return {
    code,
    message: stays ? `${words.replace(/([^.!?])$/, "$1.")} ${stays}` : words,
    again: isVain && stays ? undefined : { label: "Load again", act: () => load(asked) },
  };
}

/**
 * What an error of something other than a load means to the visitor.
 * @param {unknown} error
 * @returns {Problem}
 */
export function problemOf(error) {
  const { code, message } = described(error);
  const isFatal = FATAL.includes(code);
  return { code, message, isOfSettings: !isFatal, again: isFatal ? { label: "Load again", act: reload } : undefined };
}

/** @param {unknown} error */
function described(error) {
  const code = error instanceof UndiffuseError ? error.code : "internal";
  // A defect belongs into the console too, with its stack.
  if (code === "internal") console.error(error);
  return { code, message: error instanceof Error ? error.message : String(error) };
}

/** @param {number} bytes */
function megabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}
