// @ts-check
// What takes time: one thing at a time has the pipeline to itself, and whoever waits for it can be called off.

import { MODEL, say, show, state, unsay } from "./state.js";
import { AbortError, StateError } from "./package.js";

/** @import { Problem, Task, Words } from "./state.js" */

/** How long something that was cancelled may take to let go before the page goes on without it, in milliseconds. */
const GRACE = 250;

/** How long the next thing waits for that, before the visitor is told that it waits in vain. */
const PATIENCE = 10_000;

/** The end of everything that has used the pipeline: what was cancelled may still be at it. @type {Promise<unknown>} */
let used = Promise.resolve();

/**
 * What the page adds: how the view that is shown lets go of the pipeline, and what an error means to the visitor.
 * @type {{ release(): Promise<void> | undefined, problemOf(error: unknown): Problem }}
 */
let page;

/** @param {typeof page} given */
export function arrange(given) {
  page = given;
}

/**
 * Waits for a promise, but not longer than until the signal is aborted and some time more.
 * @template T
 * @param {PromiseLike<T>} promise
 * @param {AbortSignal} signal
 * @param {number} [grace] milliseconds
 * @returns {Promise<T>}
 */
export function unlessAborted(promise, signal, grace = 0) {
  return new Promise((resolve, reject) => {
    const give = () => reject(new AbortError("aborted", "It was cancelled."));
    const abort = () => (grace > 0 ? setTimeout(give, grace) : give());
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
    const done = () => signal.removeEventListener("abort", abort);
    promise.then(
      (value) => (done(), resolve(value)),
      (error) => (done(), reject(error)),
    );
  });
}

/** Ends what is under way, if anything is. */
export function end() {
  state.running?.controller.abort();
  show();
}

/** Says how much is done of what is under way. @param {number} share 0 to 1 */
export function progressTo(share) {
  if (state.running) state.running.share = share;
  show();
}

/** Ends what is under way without a word: what it was about is gone. */
export function forget() {
  end();
  if (state.running) state.running.isForgotten = true;
  state.running = undefined;
}

/** Ends what is under way; settles when the pipeline is free. */
export async function idle() {
  end();
  await used;
}

/** Counts something among what uses the pipeline. @param {Promise<unknown>} use */
export function using(use) {
  used = Promise.allSettled([used, use]);
}

/**
 * What takes time: with the progress bar, the button that ends it, and the pipeline to itself. What was under way ends.
 * @param {string} view whose words it changes
 * @param {string} what what is said at first
 * @param {(signal: AbortSignal) => Promise<string | undefined>} task comes to what is said in the end; undefined: it was not begun
 * @param {object} [options]
 * @param {"ready" | "done"} [options.then] the page's state after it
 * @param {() => string} [options.cancelled] what is said if it was cancelled
 * @param {boolean} [options.keeps] whether the view keeps what it holds of the pipeline
 * @returns {Promise<void>}
 */
export function work(view, what, task, options = {}) {
  end();
  const run = (state.running = { view, controller: new AbortController() });
  const former = used;
  unsay(view, MODEL);
  say(view, { status: what }, { aloud: true });
  const { signal } = run.controller;
  const prepared = (async () => {
    await patiently(former, signal);
    if (!options.keeps) await page.release();
    return task(signal);
  })();
  using(prepared);
  return finish(run, unlessAborted(prepared, signal, GRACE), options);
}

/**
 * Says how a task ended.
 * @param {Task} run
 * @param {Promise<string | undefined>} ending
 * @param {{ then?: "ready" | "done", cancelled?: () => string }} options
 */
async function finish(run, ending, { then = "ready", cancelled = () => "Cancelled" }) {
  /** @type {Partial<Words>} */
  let words;
  try {
    const status = await ending;
    words = status === undefined ? { status: "Not started" } : { status, isDone: then === "done" };
  } catch (error) {
    // Whatever comes after the end that was asked for is no fault.
    const isCancelled = run.controller.signal.aborted || error instanceof AbortError;
    words = isCancelled ? { status: cancelled() } : { status: "", problem: page.problemOf(error) };
  }
  if (run.isForgotten) return;
  const next = state.running;
  if (next === run) state.running = undefined;
  // What has begun in its place in the same view has the word.
  if (next === run || next?.view !== run.view) say(run.view, words, { aloud: true });
}

/**
 * Waits until the pipeline is free. If something in it cannot be stopped, that is an error: the model can be loaded again.
 * @param {Promise<unknown>} former
 * @param {AbortSignal} signal
 */
async function patiently(former, signal) {
  let timer;
  const tooLong = new Promise((_, reject) => {
    const message = "What was cancelled is still being computed. Try again in a while, or load the model again.";
    timer = setTimeout(() => reject(new StateError("worker-failed", message)), PATIENCE);
  });
  try {
    await unlessAborted(Promise.race([former, tooLong]), signal);
  } finally {
    clearTimeout(timer);
  }
}
