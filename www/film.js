// @ts-check
// A run as it is looked at: x_T and then every step, two plates for the one shown, a filmstrip of all, a scrubber; of one picture
// at a time, where several are drawn at once.

/** @import { BareStep } from "./pkg/index.js" */

const THUMBNAIL = 128;

const plates = {
  image: /** @type {HTMLCanvasElement} */ (document.getElementById("canvas")),
  denoised: /** @type {HTMLCanvasElement} */ (document.getElementById("denoised")),
};
const strip = /** @type {HTMLElement} */ (document.getElementById("filmstrip"));
const frames = /** @type {HTMLOListElement} */ (strip.querySelector("ol"));
const scrub = /** @type {HTMLInputElement} */ (document.getElementById("scrub"));
const caption = /** @type {HTMLElement} */ (document.getElementById("frame"));
const choice = /** @type {HTMLElement} */ (document.getElementById("pictures-drawn"));
const scratch = document.createElement("canvas");

/** @type {BareStep[]} */
let steps = [];
let shown = -1;
/** Which of the pictures that are drawn at once is looked at. */
let picture = 0;
/** Are told when another step is shown. @type {Set<() => void>} */
const listeners = new Set();

scrub.addEventListener("input", () => show(scrub.valueAsNumber));

strip.addEventListener("keydown", (event) => {
  // Where noise is on the right, so are the earlier steps.
  const right = owner === "forward" ? -1 : 1;
  const to = { ArrowLeft: shown - right, ArrowRight: shown + right, Home: 0, End: steps.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  show(to);
});

for (const type of /** @type {const} */ (["pointerdown", "pointermove"])) {
  frames.addEventListener(type, (event) => {
    // A finger that moves scrolls the strip; a pressed mouse drags through the steps.
    if (type === "pointermove" && (event.buttons !== 1 || event.pointerType === "touch")) return;
    const frame = /** @type {Element} */ (event.target).closest("li");
    if (frame) show([...frames.children].indexOf(frame));
  });
}

/**
 * Clears the film for a run.
 * @param {number} total how many steps it will have
 * @param {string[]} names what to call the pictures that are drawn at once
 */
export function begin(total, names) {
  steps = [];
  shown = -1;
  picture = 0;
  choice.hidden = names.length < 2;
  choice.replaceChildren(...names.map(chooser));
  frames.replaceChildren();
  strip.style.setProperty("--frames", String(total + 1));
  scrub.max = scrub.value = "0";
  scrub.disabled = true;
  caption.textContent = "";
  turned();
  empty();
}

/** Takes everything off the plates. */
function empty() {
  clear(plates.image, "x t, the sample: not begun");
  clear(plates.denoised, "x hat 0, the prediction: not begun");
}

/**
 * Adds x_T, or the next step, and shows it unless the viewer has gone back to an earlier one.
 * @param {BareStep} step
 */
export function add(step) {
  const follows = shown === steps.length - 1;
  steps.push(step);
  // A run from a picture has fewer than were asked for.
  strip.style.setProperty("--frames", String(step.total + 1));
  const frame = document.createElement("li");
  if (step.index < 0) frame.dataset.initial = "";
  else frame.dataset.step = String(step.index);
  fill(frame, step);
  frames.append(frame);
  scrub.max = String(steps.length - 1);
  scrub.disabled = false;
  if (follows) show(steps.length - 1);
}

/** Calls `listener` whenever another step is on the plates, or none. @param {() => void} listener */
export function onTurn(listener) {
  listeners.add(listener);
}

function turned() {
  for (const listener of listeners) listener();
}

/** Takes the step that is shown off the plates, for something else to be shown there. */
export function unshow() {
  frames.children[shown]?.removeAttribute("aria-current");
  shown = -1;
  caption.textContent = "";
  turned();
}

/** @returns {ImageData | undefined} the picture that the run came to, or else one of another view */
export function lastPicture() {
  const others = [...kept.values()].map(({ steps, picture }) => steps.at(-1)?.images[picture]);
  return steps.at(-1)?.images[picture] ?? others.find((image) => image !== undefined);
}

/** The films of the views that are not shown. @type {Map<string, { steps: BareStep[], shown: number, picture: number, frames: Node[], names: Node[] }>} */
const kept = new Map();
let owner = "reverse";

/** Puts the film of another view in: each has its own. @param {string} view */
export function turnTo(view) {
  kept.set(owner, { steps, shown, picture, frames: [...frames.childNodes], names: [...choice.childNodes] });
  const film = kept.get(view) ?? { steps: [], shown: -1, picture: 0, frames: [], names: [] };
  kept.delete(view);
  owner = view;
  steps = film.steps;
  picture = film.picture;
  frames.replaceChildren(...film.frames);
  choice.replaceChildren(...film.names);
  choice.hidden = film.names.length < 2;
  strip.style.setProperty("--frames", String((steps.at(-1)?.total ?? 20) + 1));
  scrub.max = String(Math.max(steps.length - 1, 0));
  scrub.disabled = steps.length === 0;
  empty();
  shown = film.shown;
  if (shown >= 0) show(shown);
  else unshow();
}

/** @returns {{ step: BareStep, picture: number } | undefined} the step on the plates, and of which picture */
export function shownStep() {
  const step = steps[shown];
  return step && { step, picture };
}

/**
 * A button that turns the film to one of the pictures.
 * @param {string} name
 * @param {number} index
 */
function chooser(name, index) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.ariaPressed = String(index === picture);
  button.addEventListener("click", () => {
    picture = index;
    [...choice.children].forEach((other, at) => (other.ariaPressed = String(at === index)));
    steps.forEach((step, at) => fill(frames.children[at], step));
    show(shown);
  });
  return button;
}

/**
 * @param {Element} frame
 * @param {BareStep} step
 */
function fill(frame, step) {
  const t = document.createElement("span");
  t.textContent = step.index < 0 ? "start" : String(Math.round(step.timestep));
  frame.replaceChildren(thumbnail(step.images[picture]), thumbnail(step.denoisedImages[picture]), t);
}

/** @param {number} index */
function show(index) {
  const step = steps[index];
  if (!step) return;
  frames.children[shown]?.removeAttribute("aria-current");
  shown = index;
  const frame = /** @type {HTMLElement} */ (frames.children[index]);
  frame.setAttribute("aria-current", "step");
  keepInView(frame);

  const t = `t = ${Number(step.timestep.toFixed(1))}`;
  const isInitial = step.index < 0;
  const place = isInitial
    ? `before step 1 of ${step.total}, ${t}`
    : `after step ${step.index + 1} of ${step.total}, which asked at ${t}`;
  draw(plates.image, step.images[picture], `x t, the sample ${place}`);
  if (isInitial) clear(plates.denoised, "x hat 0, the prediction: not asked yet");
  else draw(plates.denoised, step.denoisedImages[picture], `x hat 0, the prediction at ${t}`);
  caption.textContent = place;
  scrub.value = String(index);
  scrub.setAttribute("aria-valuetext", place);
  turned();
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ImageData | undefined} image
 * @param {string} label
 */
function draw(canvas, image, label) {
  // Setting the size clears it too: of a step without pictures nothing is to be seen.
  canvas.width = image?.width ?? canvas.width;
  canvas.height = image?.height ?? canvas.height;
  if (image) canvas.getContext("2d")?.putImageData(image, 0, 0);
  canvas.setAttribute("aria-label", image ? label : `${label}: no preview`);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {string} label
 */
function clear(canvas, label) {
  canvas.getContext("2d")?.clearRect(0, 0, canvas.width, canvas.height);
  canvas.setAttribute("aria-label", label);
}

/**
 * A copy that is small also where the pictures are not: a film of large ones would hold every pixel twice.
 * @param {ImageData} [image]
 */
function thumbnail(image) {
  if (!image) return document.createElement("canvas");
  const scale = Math.min(1, THUMBNAIL / Math.max(image.width, image.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(image.width * scale);
  canvas.height = Math.round(image.height * scale);
  scratch.width = image.width;
  scratch.height = image.height;
  scratch.getContext("2d")?.putImageData(image, 0, 0);
  canvas.getContext("2d")?.drawImage(scratch, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/**
 * Scrolls the strip, and only the strip: scrollIntoView would move the page under the reader's hands.
 * @param {HTMLElement} frame
 */
function keepInView(frame) {
  const { left, right } = frame.getBoundingClientRect();
  const view = strip.getBoundingClientRect();
  const start = frames.previousElementSibling?.getBoundingClientRect().right ?? view.left;
  if (right > view.right) strip.scrollLeft += right - view.right;
  else if (left < start) strip.scrollLeft -= start - left;
}
