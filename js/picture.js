// @ts-check
// Pictures that a caller passes in, in any form that browsers have for one, as pixels.

import { OptionError, UndiffuseError, throwIfAborted } from "./errors.js";
import { fetchFile } from "./http.js";
import { absoluteUrl } from "./source.js";

/** @import { PictureSource } from "./index.d.ts" */
/** @import { Pixels } from "./protocol.js" */

/**
 * Whether a value is of a kind that {@link pixelsOf} takes.
 * @param {unknown} value
 */
export function isPicture(value) {
  return typeof value === "string" || value instanceof URL || value instanceof Blob || isDrawn(value);
}

/**
 * The pixels of a picture, as they are stored: no colour profile is applied, as by Pillow.
 * @param {PictureSource} picture
 * @param {string} option what errors call it
 * @param {AbortSignal} [signal]
 * @returns {Promise<Pixels>}
 */
export async function pixelsOf(picture, option, signal) {
  try {
    if (picture instanceof ImageData) return ownPixels(picture);
    if (typeof picture === "string" || picture instanceof URL) {
      const url = absoluteUrl(picture, option);
      picture = await (await fetchFile(url, url, signal)).blob();
    }
    if (!(picture instanceof Blob)) return drawn(picture);
    const bitmap = await createImageBitmap(picture, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    throwIfAborted(signal);
    const pixels = drawn(bitmap);
    bitmap.close();
    return pixels;
  } catch (cause) {
    throwIfAborted(signal);
    if (cause instanceof UndiffuseError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new OptionError("invalid-option", `${option} could not be read as a picture: ${reason}`, { option, cause });
  }
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
