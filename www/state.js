// @ts-check
// What the page is in the middle of and what it has to say, in one object; buttons, progress and words follow from it.

/** @import { Pipeline } from "./pkg/index.js" */

/**
 * A checkpoint that was asked for; `address` of one that others can open too.
 * @typedef {{ source: import("./pkg/index.js").Source, name: string, address?: string, variant?: string }} Asked
 */

/**
 * What went wrong, in words, and what the visitor may do about it.
 * @typedef {object} Problem
 * @property {string} code
 * @property {string} message
 * @property {boolean} [isOfSettings]  editing a field may mend it
 * @property {{ label: string, act: () => void }} [again]  what may go well another time
 */

/**
 * What is said of one view, or of the model in all of them. `cure` is what can be done about the notice.
 * @typedef {{ status: string, notice: string, cure?: { label: string, act: () => void }, problem?: Problem, isDone?: boolean }} Words
 */

/**
 * Something that takes time. `share` of it is done, 0 to 1, where that is known.
 * @typedef {{ controller: AbortController, share?: number }} Activity
 */

/** @typedef {Activity & { asked: Asked }} Loading */

/** @typedef {Activity & { view: string, isForgotten?: boolean }} Task something done for a view; nobody hears how a forgotten one ends */

/** What ends with a problem or well is said by its view alone: other views have words of their own. */
export const state = {
  /** The view that is shown. */
  view: "reverse",
  /** What the form's button says; it cannot be pressed without a label. @type {string | undefined} */
  start: undefined,
  /** @type {Pipeline | undefined} */
  pipeline: undefined,
  /** What the pipeline is of. @type {Asked | undefined} */
  opened: undefined,
  /** @type {Loading | undefined} */
  loading: undefined,
  /** @type {Task | undefined} */
  running: undefined,
  /** What the visitor is asked. @type {{ text: string, yes: string, answer: (yes: boolean) => void } | undefined} */
  question: undefined,
  /** @type {Record<string, Words>} */
  words: {},
};

/** Where the model's words are kept, beside those of the views. */
export const MODEL = "model";

const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const button = (/** @type {string} */ id) => /** @type {HTMLButtonElement} */ (document.getElementById(id));
const progress = /** @type {HTMLProgressElement} */ (element("progress"));

/** @param {string} place a view, or {@link MODEL} */
export function wordsOf(place) {
  return (state.words[place] ??= { status: "", notice: "" });
}

/**
 * @param {string} place
 * @param {Partial<Words>} words
 * @param {{ aloud?: boolean }} [options] aloud: for those who listen, too; not for what changes many times a second
 */
export function say(place, words, { aloud = false } = {}) {
  Object.assign(wordsOf(place), words);
  if (aloud && words.status && (place === state.view || place === MODEL)) {
    element("announcement").textContent = words.status;
  }
  show();
}

/** Forgets what was said in a place. @param {string[]} places all of them if there is none */
export function unsay(...places) {
  for (const place of places.length > 0 ? places : Object.keys(state.words)) delete state.words[place];
  show();
}

/** Brings the page up to what {@link state} says. */
export function show() {
  const { loading, running, question } = state;
  const [own, ofModel] = [wordsOf(state.view), wordsOf(MODEL)];
  const problem = ofModel.problem ?? own.problem;
  const busy = loading !== undefined || running !== undefined;
  document.body.dataset.state = loading
    ? "loading"
    : running
      ? "sampling"
      : problem
        ? "error"
        : !state.pipeline
          ? "loading"
          : own.isDone
            ? "done"
            : "ready";

  const isCancelled = !loading && running?.controller.signal.aborted === true;
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  if (state.start) button("start").textContent = state.start;
  button("start").disabled = busy || !state.pipeline || !state.start;
  button("cancel").disabled = !busy;
  for (const idle of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("[data-idle]"))) {
    idle.disabled = busy || !state.pipeline;
  }

  progress.hidden = !busy;
  const share = (loading ?? running)?.share;
  if (share === undefined) progress.removeAttribute("value");
  else progress.value = share;

  element("status").textContent = loading ? ofModel.status : isCancelled ? "Cancelling" : own.status || ofModel.status;
  const notice = own.notice || ofModel.notice;
  element("notice").textContent = notice;
  element("notice").hidden = notice === "";
  button("cure").hidden = notice === "" || !own.cure;
  button("cure").textContent = own.cure?.label ?? "";
  showProblem(problem);
  element("question").hidden = question === undefined;
  element("asked").textContent = question?.text ?? "";
  button("yes").textContent = question?.yes ?? "";
  keepFocus(focused);
}

/** What had the focus before the button that ends things. @type {HTMLElement | undefined} */
let origin;

/**
 * What is switched off or hidden drops the focus. Whatever goes on in its place gets it: the button that ends what has begun, and
 * after that what it was begun with.
 * @param {HTMLElement | null} focused what had it before
 */
function keepFocus(focused) {
  const takesFocus = (/** @type {HTMLElement} */ part) =>
    !part.matches(":disabled") && part.getClientRects().length > 0;
  if (!focused || focused === document.body || (focused === document.activeElement && takesFocus(focused))) return;
  const [cancel, start, retry] = ["cancel", "start", "retry"].map(button);
  const next = [cancel, focused === cancel ? origin : undefined, start, retry].find((part) => part && takesFocus(part));
  if (next === cancel) origin = focused;
  next?.focus({ preventScroll: true });
}

/** What is shown of problems. @type {Problem | undefined} */
let shown;

/** @param {Problem | undefined} problem */
function showProblem(problem) {
  button("dismiss").hidden = !state.pipeline;
  // Where there is a problem, the way back stands beside it, and else with the other ways to open something.
  const place = element(problem ? "remedies" : "openers");
  if (button("builtin").parentElement !== place) place.append(button("builtin"));
  if (problem === shown) return;
  shown = problem;
  if (problem) element("error").dataset.code = problem.code;
  else delete element("error").dataset.code;
  element("error").textContent = problem?.message ?? "";
  button("retry").hidden = !problem?.again;
  button("retry").textContent = problem?.again?.label ?? "";
  if (problem) element("error").scrollIntoView({ block: "nearest" });
}

/**
 * Asks the visitor, on the page. A newer question takes the place of an older one, whose answer is then no.
 * @param {string} text
 * @param {string} yes what the button says
 * @returns {Promise<boolean>}
 */
export function ask(text, yes) {
  dismiss();
  return new Promise((resolve) => {
    const answer = (/** @type {boolean} */ said) => {
      state.question = undefined;
      show();
      resolve(said);
    };
    state.question = { text, yes, answer };
    element("announcement").textContent = text;
    show();
    button("yes").focus({ preventScroll: true });
    element("question").scrollIntoView({ block: "nearest" });
  });
}

/** Takes a question back that nobody has answered. */
export function dismiss() {
  state.question?.answer(false);
}

button("cure").addEventListener("click", () => wordsOf(state.view).cure?.act());
button("retry").addEventListener("click", () => shown?.again?.act());
button("dismiss").addEventListener("click", () => {
  delete wordsOf(MODEL).problem;
  delete wordsOf(state.view).problem;
  show();
});
button("yes").addEventListener("click", () => state.question?.answer(true));
button("no").addEventListener("click", dismiss);
// A key that is held down on "Start" must not go on to press what has taken its place.
for (const next of [button("cancel"), button("yes")]) {
  next.addEventListener("keydown", (event) => event.repeat && event.preventDefault());
}
