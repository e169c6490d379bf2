// @ts-check
// The picture that a run starts from, and the mask that the visitor paints on it.

import { bitmapOf } from "./package.js";

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
/** A mask that was made elsewhere, for the whole picture. @type {OffscreenCanvas | undefined} */
let given;
/**
 * What is painted besides: strokes in the coordinates of the whole picture, so that they stay where they are on it at any size.
 * @type {{ from: [x: number, y: number], to: [x: number, y: number], width: number }[]}
 */
let strokes = [];
/** Told whenever there is another picture, or none, or a mask on it. */
let changed = () => {};

/** Calls `listener` whenever there is another picture, or none, or a mask on it. @param {() => void} listener */
export function onChange(listener) {
  changed = listener;
}

pressed(paint, (at, from) => {
  if (name === undefined) return;
  const { x, y, scale } = covering(paint, whole);
  const onWhole = (/** @type {[number, number]} */ [left, top]) =>
    /** @type {[number, number]} */ ([(left - x) / scale, (top - y) / scale]);
  const width = ((brush.valueAsNumber / 100) * Math.max(paint.width, paint.height)) / scale;
  strokes.push({ from: onWhole(from ?? at), to: onWhole(at), width });
  draw(strokes.slice(-1));
  show();
});

/** Paints strokes on the board. @param {typeof strokes} some */
function draw(some) {
  const context = contextOf(paint);
  const { x, y, scale } = covering(paint, whole);
  context.setTransform(scale, 0, 0, scale, x, y);
  Object.assign(context, { strokeStyle: `rgb(${PAINT})`, lineCap: "round", lineJoin: "round" });
  for (const { from, to, width } of some) {
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
  }
  context.resetTransform();
}

/** Whether there is a mask. */
function isMasked() {
  return given !== undefined || strokes.length > 0;
}

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
  unmask();
  place();
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
  for (const canvas of [base, paint]) Object.assign(canvas, { width, height });
  cover(base, whole);
  const isCut = Math.abs(whole.width * height - whole.height * width) > Math.max(whole.width, whole.height);
  const isResized = width !== fileWidth || height !== fileHeight;
  words.textContent =
    `${name}, ${fileWidth} × ${fileHeight}` +
    (isResized ? `: ${isCut ? "its middle" : "all of it"}, at ${width} × ${height}` : "");
  base.setAttribute("aria-label", `The picture to start from: ${words.textContent}`);
  drawMask();
}

/** Puts the mask onto the board. */
function drawMask() {
  contextOf(paint).clearRect(0, 0, paint.width, paint.height);
  if (given) cover(paint, given);
  draw(strokes);
  show();
}

/**
 * Draws the middle of a picture, as large as a canvas; one of the canvas's own size as it is, to the last bit.
 * @param {HTMLCanvasElement | OffscreenCanvas} canvas
 * @param {HTMLCanvasElement | OffscreenCanvas | ImageBitmap} picture without transparency
 */
export function cover(canvas, picture) {
  const context = contextOf(canvas);
  const { x, y, scale } = covering(canvas, picture);
  context.imageSmoothingEnabled = scale !== 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, x, y, picture.width * scale, picture.height * scale);
}

/**
 * Where on a canvas a picture begins whose middle covers it, and how much larger it is there.
 * @param {{ width: number, height: number }} canvas
 * @param {{ width: number, height: number }} picture
 */
function covering(canvas, picture) {
  const scale = Math.max(canvas.width / picture.width, canvas.height / picture.height);
  const [x, y] = [(canvas.width - picture.width * scale) / 2, (canvas.height - picture.height * scale) / 2];
  return { x, y, scale };
}

/**
 * A mask that was made elsewhere, for the whole picture: white is drawn anew.
 * @param {Blob} picture
 */
export async function putMask(picture) {
  const bitmap = await bitmapOf(picture);
  unmask();
  given = new OffscreenCanvas(whole.width, whole.height);
  cover(given, bitmap);
  bitmap.close();
  // Painted is what is opaque: the mask's brightness becomes that.
  const context = contextOf(given);
  const pixels = context.getImageData(0, 0, given.width, given.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const [red, green, blue] = pixels.data.subarray(at, at + 3);
    pixels.data.set([...PAINT, Math.round(0.299 * red + 0.587 * green + 0.114 * blue)], at);
  }
  context.putImageData(pixels, 0, 0);
  drawMask();
}

function unmask() {
  given = undefined;
  strokes = [];
}

export function clearMask() {
  unmask();
  drawMask();
  changed();
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
  if (!isMasked()) return undefined;
  const pixels = contextOf(paint).getImageData(0, 0, paint.width, paint.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    pixels.data.fill(pixels.data[at + 3], at, at + 3);
    pixels.data[at + 3] = 255;
  }
  return pixels;
}

function show() {
  easel.dataset.state = name === undefined ? "empty" : isMasked() ? "painted" : "picture";
}

/**
 * @template {HTMLCanvasElement | OffscreenCanvas} Canvas
 * @param {Canvas} canvas
 */
function contextOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
}
