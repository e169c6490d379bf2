// @ts-check
// The picture that a run starts from, and the mask that the visitor paints on it.

import { bitmapOf } from "./pkg/picture.js";

const easel = /** @type {HTMLElement} */ (document.getElementById("easel"));
const base = /** @type {HTMLCanvasElement} */ (document.getElementById("start-picture"));
const paint = /** @type {HTMLCanvasElement} */ (document.getElementById("mask"));
const brush = /** @type {HTMLInputElement} */ (document.getElementById("brush"));

const words = /** @type {HTMLElement} */ (document.getElementById("easel-words"));

/** Longest side of a picture as it is kept: models draw none that is larger. */
const LONGEST = 2048;

/** What paint looks like here. To the model a mask is white where there is any. */
const PAINT = [255, 90, 31];

/** What to call the picture. @type {string | undefined} */
let name;
/** The whole of it, and the size that its file has. */
const whole = new OffscreenCanvas(1, 1);
let [fileWidth, fileHeight] = [1, 1];
/** The size that a run needs; its own where a model takes pictures of any size. @type {{ width: number, height: number } | undefined} */
let wanted;
let isPainted = false;
/** Told whenever there is another picture, or none. */
let changed = () => {};

/** Calls `listener` whenever there is another picture, or none. @param {() => void} listener */
export function onChange(listener) {
  changed = listener;
}

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
 * Puts a picture up, without a mask: as much of its middle as has the shape that is wanted, at that size.
 * @param {Blob} picture
 * @param {string} called
 */
export async function put(picture, called) {
  const bitmap = await bitmapOf(picture);
  [fileWidth, fileHeight] = [bitmap.width, bitmap.height];
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  whole.width = Math.round(bitmap.width * scale);
  whole.height = Math.round(bitmap.height * scale);
  cover(whole, bitmap);
  bitmap.close();
  name = called;
  isPainted = false;
  place();
  contextOf(paint).clearRect(0, 0, paint.width, paint.height);
  changed();
}

/**
 * Brings the picture to the size of a run, now and from now on.
 * @param {{ width: number, height: number }} [size] its own, if there is none
 */
export function fit(size) {
  wanted = size;
  if (name !== undefined) place();
}

/** Puts the picture onto the board in the size that is wanted; a mask goes with it. */
function place() {
  const { width, height } = wanted ?? whole;
  if (width !== base.width || height !== base.height) {
    const painted = new OffscreenCanvas(paint.width, paint.height);
    painted.getContext("2d")?.drawImage(paint, 0, 0);
    for (const canvas of [base, paint]) Object.assign(canvas, { width, height });
    contextOf(paint).drawImage(painted, 0, 0, width, height);
  }
  cover(base, whole);
  const isCut = Math.abs(whole.width * height - whole.height * width) > Math.max(whole.width, whole.height);
  const isResized = width !== fileWidth || height !== fileHeight;
  words.textContent =
    `${name}, ${fileWidth} × ${fileHeight}` +
    (isResized ? `: ${isCut ? "its middle" : "all of it"}, at ${width} × ${height}` : "");
  base.setAttribute("aria-label", `The picture to start from: ${words.textContent}`);
  show();
}

/**
 * Draws the middle of a picture, as large as a canvas; one of the canvas's own size as it is, to the last bit.
 * @param {HTMLCanvasElement | OffscreenCanvas} canvas
 * @param {HTMLCanvasElement | OffscreenCanvas | ImageBitmap} picture without transparency
 */
export function cover(canvas, picture) {
  const context = contextOf(canvas);
  const scale = Math.max(canvas.width / picture.width, canvas.height / picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale];
  context.imageSmoothingEnabled = scale !== 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
}

/**
 * A mask that was made elsewhere, for the whole picture: white is drawn anew.
 * @param {Blob} picture
 */
export async function putMask(picture) {
  const bitmap = await bitmapOf(picture);
  const context = contextOf(paint);
  cover(paint, bitmap);
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
  changed();
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

/**
 * @template {HTMLCanvasElement | OffscreenCanvas} Canvas
 * @param {Canvas} canvas
 */
function contextOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
}
