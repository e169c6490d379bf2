// @ts-check
// x_0, the picture that the views beside drawing are about: dropped, chosen, taken from the film, or drawn on the spot.

import { cover, pressed } from "./easel.js";
import { about } from "./vocabulary.js";
import { bitmapOf } from "./package.js";

const COLOURS = {
  Black: "#1d1b17",
  Red: "#e0452b",
  Orange: "#f59f1f",
  Yellow: "#f9d949",
  Green: "#4f9d53",
  Blue: "#3b82d6",
  Brown: "#8a5a3c",
  White: "#ffffff",
};

/** The figure, which the view that is shown takes to itself. */
export const element = document.createElement("figure");
element.id = "pad";
element.innerHTML = `
  <canvas id="x0" role="img"></canvas>
  <figcaption><b><i>x</i><sub>0</sub></b> <span>the picture: draw on it</span></figcaption>
  <div class="palette" role="group" aria-label="Colour">
    ${Object.entries(COLOURS)
      .map(
        ([name, colour], at) =>
          `<button type="button" data-colour="${colour}" aria-label="${name}" aria-pressed="${at === 0}"></button>`,
      )
      .join("")}
  </div>
  <div class="actions">
    <label class="button"><input id="x0-file" type="file" accept="image/*" class="spoken" />Choose</label>
    <button id="x0-clear" type="button">Blank</button>
    <button id="x0-shown" type="button" hidden>Use the one shown</button>
  </div>`;

const canvas = /** @type {HTMLCanvasElement} */ (element.querySelector("canvas"));
const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
const palette = /** @type {HTMLElement} */ (element.querySelector(".palette"));
const chooser = /** @type {HTMLInputElement} */ (element.querySelector("#x0-file"));
const shown = /** @type {HTMLButtonElement} */ (element.querySelector("#x0-shown"));

// Set from here: a policy may forbid styles in the markup.
for (const button of /** @type {NodeListOf<HTMLElement>} */ (palette.querySelectorAll("button"))) {
  button.style.setProperty("--colour", button.dataset.colour ?? "");
}

let colour = COLOURS.Black;
let name = "a drawing";
/** Told whenever the picture is another one. @type {Set<() => void>} */
const listeners = new Set();
/** Where the picture on the film is, if one is. @type {() => ImageData | undefined} */
let onFilm = () => undefined;

palette.addEventListener("click", (event) => {
  const button = /** @type {HTMLElement} */ (event.target).closest("button");
  if (!button) return;
  for (const other of palette.children) other.ariaPressed = String(other === button);
  colour = button.dataset.colour ?? COLOURS.Black;
});
pressed(canvas, (at, from) => {
  Object.assign(context, { strokeStyle: colour, lineCap: "round", lineJoin: "round" });
  context.lineWidth = 0.07 * Math.max(canvas.width, canvas.height);
  context.beginPath();
  context.moveTo(...(from ?? at));
  context.lineTo(...at);
  context.stroke();
  changed();
});
element.querySelector("#x0-clear")?.addEventListener("click", () => {
  blank();
  name = "a drawing";
  changed();
});
shown.addEventListener("click", () => {
  const image = onFilm();
  if (!image) return;
  draw(image);
  name = "the one that was shown";
  changed();
});

/** Calls `listener` whenever the picture has become another one. @param {() => void} listener */
export function onChange(listener) {
  listeners.add(listener);
}

/**
 * Puts the pad up in a view.
 * @param {Element} host
 * @param {object} page
 * @param {() => ImageData | undefined} page.film the picture on the film, if there is one
 * @param {(name: string, error: unknown) => void} page.refuse is told of a file that is no picture
 */
export function show(host, { film, refuse }) {
  host.prepend(element);
  onFilm = film;
  shown.hidden = film() === undefined;
  chooser.onchange = async () => {
    const [file] = chooser.files ?? [];
    chooser.value = "";
    if (file) await put(file, file.name).catch((error) => refuse(file.name, error));
  };
}

/** Takes the pad out of the view that it is in, which is left. */
export function hide() {
  element.remove();
}

/**
 * Makes the pad as large as a model's pictures. What was on it is brought to that size; at first there is a small landscape.
 * @param {number} width
 * @param {number} height
 */
export function resize(width, height) {
  if (canvas.width === width && canvas.height === height && isDrawn) return;
  const before = isDrawn ? context.getImageData(0, 0, canvas.width, canvas.height) : undefined;
  canvas.width = width;
  canvas.height = height;
  const wasFirst = isFirst();
  if (before) draw(before);
  else landscape();
  changed();
  hasFirst = wasFirst || !isDrawn;
  isDrawn = true;
}

let isDrawn = false;
let hasFirst = false;

/** Whether the picture is the one to begin with, which the visitor has not touched. */
export function isFirst() {
  return hasFirst;
}

/**
 * Puts a picture up: the middle of it, as large as the pad; one of the pad's own size as it is, to the last bit.
 * @param {Blob} picture
 * @param {string} called
 * @param {{ first?: boolean }} [options] first: only in place of the one to begin with
 */
export async function put(picture, called, { first = false } = {}) {
  const bitmap = await bitmapOf(picture);
  if (first && !isFirst()) return;
  cover(canvas, bitmap);
  bitmap.close();
  name = called;
  changed();
}

/** Begins with a picture that the model knows, if one is known and the visitor has brought none. */
export async function showExample() {
  const address = isFirst() ? about()?.picture : undefined;
  const response = address ? await fetch(address).catch(() => undefined) : undefined;
  if (response?.ok) await put(await response.blob(), "an example", { first: true });
}

/** @returns {ImageData} the picture */
export function picture() {
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** What to call the picture. */
export function pictureName() {
  return name;
}

function changed() {
  hasFirst = false;
  canvas.setAttribute("aria-label", `x 0, the picture: ${name}`);
  for (const listener of listeners) listener();
}

/** @param {ImageData} image */
function draw(image) {
  const scratch = new OffscreenCanvas(image.width, image.height);
  scratch.getContext("2d")?.putImageData(image, 0, 0);
  cover(canvas, scratch);
}

/** White, as the paper of what models are trained on. */
function blank() {
  context.fillStyle = COLOURS.White;
  context.fillRect(0, 0, canvas.width, canvas.height);
}

/** Something to begin with: a house on a hill, under the sun. */
function landscape() {
  const { width: w, height: h } = canvas;
  const shape = (/** @type {string} */ colour, /** @type {(path: Path2D) => void} */ outline) => {
    const path = new Path2D();
    outline(path);
    context.fillStyle = colour;
    context.fill(path);
  };
  const polygon = (/** @type {[number, number][]} */ corners) => (/** @type {Path2D} */ path) =>
    corners.forEach(([x, y]) => path.lineTo(x * w, y * h));
  shape("#bfe3f5", (path) => path.rect(0, 0, w, h));
  shape(COLOURS.Yellow, (path) => path.arc(0.78 * w, 0.22 * h, 0.12 * w, 0, 2 * Math.PI));
  shape(COLOURS.Green, (path) => path.ellipse(0.45 * w, 1.05 * h, 0.8 * w, 0.42 * h, 0, 0, 2 * Math.PI));
  const left = 0.24;
  shape(
    "#f4ead6",
    polygon([
      [left, 0.45],
      [left + 0.36, 0.45],
      [left + 0.36, 0.76],
      [left, 0.76],
    ]),
  );
  shape(
    COLOURS.Red,
    polygon([
      [left - 0.06, 0.46],
      [left + 0.18, 0.24],
      [left + 0.42, 0.46],
    ]),
  );
  shape(
    COLOURS.Brown,
    polygon([
      [left + 0.13, 0.56],
      [left + 0.24, 0.56],
      [left + 0.24, 0.76],
      [left + 0.13, 0.76],
    ]),
  );
}
