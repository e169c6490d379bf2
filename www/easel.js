// @ts-check
// The picture that a run starts from, and the mask that the visitor paints on it.

import { bitmapOf } from "./pkg/picture.js";

const easel = /** @type {HTMLElement} */ (document.getElementById("easel"));
const base = /** @type {HTMLCanvasElement} */ (document.getElementById("start-picture"));
const paint = /** @type {HTMLCanvasElement} */ (document.getElementById("mask"));
const brush = /** @type {HTMLInputElement} */ (document.getElementById("brush"));

/** Longest side of a picture as it is kept: models draw none that is larger. */
const LONGEST = 2048;

/** What paint looks like here. To the model a mask is white where there is any. */
const PAINT = [255, 90, 31];

/** What to call the picture. @type {string | undefined} */
let name;
let isPainted = false;

pressed(paint, (at, from) => {
  if (name === undefined) return;
  const context = contextOf(paint);
  Object.assign(context, { strokeStyle: `rgb(${PAINT})`, lineCap: "round", lineJoin: "round" });
  context.lineWidth = (brush.valueAsNumber / 100) * Math.max(paint.width, paint.height);
  context.beginPath();
  context.moveTo(...(from ?? at));
  context.lineTo(...at);
  context.stroke();
  isPainted = true;
  show();
});

/**
 * Follows a pointer that is pressed on a canvas.
 * @param {HTMLCanvasElement} canvas
 * @param {(at: [x: number, y: number], from?: [x: number, y: number]) => void} move gets where it is in the canvas's pixels, and
 *     where it was, unless it was put down there
 */
export function pressed(canvas, move) {
  /** @type {[number, number] | undefined} */
  let from;
  for (const type of /** @type {const} */ (["pointerdown", "pointermove"])) {
    canvas.addEventListener(type, (event) => {
      if (event.buttons !== 1) return;
      event.preventDefault();
      if (type === "pointerdown") canvas.setPointerCapture(event.pointerId);
      const view = canvas.getBoundingClientRect();
      const scale = canvas.width / view.width;
      /** @type {[number, number]} */
      const at = [(event.clientX - view.left) * scale, (event.clientY - view.top) * scale];
      move(at, type === "pointerdown" ? undefined : from);
      from = at;
    });
  }
}

/**
 * Puts a picture up, without a mask.
 * @param {Blob} picture
 * @param {string} called
 */
export async function put(picture, called) {
  const bitmap = await bitmapOf(picture);
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  for (const canvas of [base, paint]) {
    canvas.width = Math.round(bitmap.width * scale);
    canvas.height = Math.round(bitmap.height * scale);
  }
  contextOf(base).drawImage(bitmap, 0, 0, base.width, base.height);
  bitmap.close();
  name = called;
  isPainted = false;
  base.setAttribute("aria-label", `The picture to start from: ${called}`);
  show();
}

/**
 * A mask that was made elsewhere: white is drawn anew.
 * @param {Blob} picture
 */
export async function putMask(picture) {
  const bitmap = await bitmapOf(picture);
  const context = contextOf(paint);
  context.drawImage(bitmap, 0, 0, paint.width, paint.height);
  bitmap.close();
  // Painted is what is opaque: the mask's brightness becomes that.
  const pixels = context.getImageData(0, 0, paint.width, paint.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const [red, green, blue] = pixels.data.subarray(at, at + 3);
    pixels.data.set([...PAINT, Math.round(0.299 * red + 0.587 * green + 0.114 * blue)], at);
  }
  context.putImageData(pixels, 0, 0);
  isPainted = true;
  show();
}

export function clearMask() {
  contextOf(paint).clearRect(0, 0, paint.width, paint.height);
  isPainted = false;
  show();
}

export function remove() {
  name = undefined;
  clearMask();
}

/** What the picture is called, if there is one. */
export function pictureName() {
  return name;
}

/** @returns {ImageData | undefined} the picture */
export function picture() {
  return name === undefined ? undefined : contextOf(base).getImageData(0, 0, base.width, base.height);
}

/** @returns {ImageData | undefined} what is painted, white on black; undefined if nothing is */
export function mask() {
  if (!isPainted) return undefined;
  const pixels = contextOf(paint).getImageData(0, 0, paint.width, paint.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    pixels.data.fill(pixels.data[at + 3], at, at + 3);
    pixels.data[at + 3] = 255;
  }
  return pixels;
}

function show() {
  easel.dataset.state = name === undefined ? "empty" : isPainted ? "painted" : "picture";
}

/** @param {HTMLCanvasElement} canvas */
function contextOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
}
