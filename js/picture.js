// @ts-check
// Pictures that a caller passes in, in any form that browsers have for one, as pixels.

import { OptionError, SourceError, UndiffuseError, throwIfAborted, unloaded } from "./errors.js";
import { readFile } from "./http.js";
import { absoluteUrl } from "./source.js";

/** @import { PictureSource } from "./index.d.ts" */
/** @import { Pixels } from "./protocol.js" */

/** Why colours below transparency are not to be had. */
const MULTIPLIED =
  "this browser cannot tell the colours of this transparent picture; save it as PNG, or without transparency.";

/** No colour is changed on the way to a bitmap. @type {ImageBitmapOptions} */
const AS_STORED = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

/**
 * Whether a value is of a kind that {@link pixelsOf} takes.
 * @param {unknown} value
 */
export function isPicture(value) {
  return typeof value === "string" || value instanceof URL || value instanceof Blob || isDrawn(value);
}

/**
 * The pixels of a picture, as they are stored: no colour profile is applied and no transparency, as by Pillow's `convert("RGB")`.
 * What a canvas or an ImageBitmap holds has been multiplied by its alpha already, and is taken as the browser divides it again.
 * @param {PictureSource} picture
 * @param {string} option what errors call it
 * @param {AbortSignal} [signal]
 * @returns {Promise<Pixels>}
 */
export async function pixelsOf(picture, option, signal) {
  try {
    throwIfAborted(signal);
    if (picture instanceof ImageData) return ownPixels(picture);
    if (typeof picture === "string" || picture instanceof URL) picture = await fetched(picture, option, signal);
    if (picture instanceof Blob) return await stored(picture);
    return "currentSrc" in picture ? await shown(picture, option, signal) : drawn(picture);
  } catch (cause) {
    throwIfAborted(signal);
    if (cause instanceof UndiffuseError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new OptionError("invalid-option", `${option} could not be read as a picture: ${reason}`, { option, cause });
  }
}

/**
 * A picture's file as a bitmap that canvases draw without changing it: opaque, in the colours that are stored.
 * @param {Blob} file
 */
export async function bitmapOf(file) {
  return createImageBitmap(toImageData(await pixelsOf(file, "image")));
}

/**
 * @param {string | URL} address
 * @param {string} option
 * @param {AbortSignal} [signal]
 */
function fetched(address, option, signal) {
  const url = absoluteUrl(address, option);
  return readFile(url, url, { signal });
}

/**
 * The pixels of an element as the browser shows it; its file, which may be another one by now, is asked for only where there is no
 * seeing the colours.
 * @param {HTMLImageElement} image
 * @param {string} option
 * @param {AbortSignal} [signal]
 */
async function shown(image, option, signal) {
  const { currentSrc } = image;
  // SVG stores no colours: it is drawn.
  const isDrawing = /[.]svg([?#]|$)|^data:image.svg/i.test(currentSrc);
  let reason = new Error(MULTIPLIED);
  try {
    const pixels = drawn(isDrawing ? image : await createImageBitmap(image, AS_STORED));
    if (isDrawing || isOpaque(pixels)) return pixels;
  } catch (error) {
    // Another site's picture, which may not be looked at, or one that is not there yet.
    reason = /** @type {Error} */ (error);
  }
  try {
    if (currentSrc && !isDrawing) return await stored(await fetched(currentSrc, option, signal));
  } catch (error) {
    throwIfAborted(signal);
    if (!(error instanceof SourceError)) throw error;
  }
  throw reason;
}

/**
 * The pixels of a picture's file, opaque.
 * @param {Blob} file
 * @returns {Promise<Pixels>}
 */
async function stored(file) {
  const start = await file.slice(0, 23).text();
  if (start === "version https://git-lfs") {
    throw new Error("it is a pointer of git-lfs; get the picture itself with `git lfs pull`.");
  }
  // What reads PNG is fetched for the first one.
  const png = start.slice(1, 4) === "PNG" && (await import("./opaque_png.js").catch(unloaded("opaque_png.js")));
  const bitmap = await createImageBitmap(png ? await png.opaquePng(file) : file, AS_STORED);
  const pixels = drawn(bitmap);
  if (isOpaque(pixels)) {
    bitmap.close();
    return pixels;
  }
  // GIF's transparent colour is lost, and a picture that a browser turns has been multiplied on the way.
  if (/^GIF|EXIF|irot|imir/.test(await file.text())) throw new Error(MULTIPLIED);
  return unmultiplied(bitmap);
}

/** @param {Pixels} pixels */
function isOpaque({ data }) {
  for (let at = 3; at < data.length; at += 4) if (data[at] !== 255) return false;
  return true;
}

/**
 * The pixels of a bitmap that was made without multiplying by alpha, opaque: a texture keeps them so, and a 2D canvas does not.
 * @param {ImageBitmap} bitmap
 * @returns {Pixels}
 */
function unmultiplied(bitmap) {
  const { width, height } = bitmap;
  const data = new Uint8ClampedArray(4 * width * height);
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (gl) {
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
  }
  if (gl?.getError() !== 0) {
    throw new Error(MULTIPLIED);
  }
  // A page has room for a few of these only.
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  for (let at = 3; at < data.length; at += 4) data[at] = 255;
  return { width, height, data };
}

/** What a canvas can draw: the classes that this browser, or this worker, has of them. */
function isDrawn(/** @type {unknown} */ value) {
  const names = ["ImageData", "ImageBitmap", "OffscreenCanvas", "HTMLCanvasElement", "HTMLImageElement"];
  return names.some((name) => {
    const type = /** @type {any} */ (globalThis)[name];
    return type !== undefined && value instanceof type;
  });
}

/** @param {ImageBitmap | OffscreenCanvas | HTMLCanvasElement | HTMLImageElement} picture */
function drawn(picture) {
  const [width, height] =
    "naturalWidth" in picture ? [picture.naturalWidth, picture.naturalHeight] : [picture.width, picture.height];
  if (width === 0 || height === 0) throw new Error("it is empty, or has not been loaded");
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser has no room for another canvas");
  context.drawImage(picture, 0, 0);
  return ownPixels(context.getImageData(0, 0, width, height));
}

/** @param {ImageData} image */
function ownPixels({ width, height, data }) {
  return { width, height, data: new Uint8ClampedArray(data) };
}

/** @param {Pixels} pixels */
export function toImageData({ data, width, height }) {
  return new ImageData(data, width, height);
}
