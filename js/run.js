// @ts-check
// A run of the reverse process.

import { AbortError, throwIfAborted } from "./errors.js";
import { checkSampleOptions } from "./options.js";
import { pixelsOf, toImageData } from "./picture.js";
import { Walk } from "./walk.js";

/** @import * as Public from "./index.d.ts" */
/** @import { Connection } from "./client.js" */
/** @import { Begun, PlainStep, RunDescription } from "./protocol.js" */

/**
 * @extends {Walk<PlainStep, Public.BareStep>}
 * @implements {Public.Run<Public.BareStep>}
 */
export class Run extends Walk {
  #options;
  /** Whether anybody looks at the steps: if not, only the last one is decoded. */
  #isWatched = false;
  /** @type {string | undefined} */
  #warning;
  /** @type {Public.BareStep | undefined} */
  #last;
  /** @type {Promise<readonly ImageData[]> | undefined} */
  #images;

  /**
   * @param {Connection} connection
   * @param {number} run
   * @param {Public.SampleOptions} options
   */
  constructor(connection, run, options) {
    super(connection, run);
    this.#options = options;
  }

  get warning() {
    return this.#warning;
  }

  [Symbol.asyncIterator]() {
    this.#isWatched = true;
    return super[Symbol.asyncIterator]();
  }

  images() {
    return (this.#images ??= this.#finish());
  }

  /**
   * @template [T=ImageData]
   * @template [F=never]
   * @param {((image: ImageData) => T | PromiseLike<T>) | null} [onFulfilled]
   * @param {((error: any) => F | PromiseLike<F>) | null} [onRejected]
   */
  then(onFulfilled, onRejected) {
    return this.images()
      .then(([image]) => image)
      .then(onFulfilled, onRejected);
  }

  /** @param {number} run */
  async describe(run) {
    const { signal, description } = await describeRun(run, this.#options);
    if (!this.#isWatched)
      Object.assign(description, { options: { ...description.options, preview: "none" }, first: 0 });
    return { signal, request: { type: /** @type {const} */ ("sample"), ...description } };
  }

  /** @param {Begun} begun */
  begun({ warning }) {
    this.#warning = warning;
  }

  /** @param {PlainStep} step */
  receive({ images, denoised, ...step }) {
    const [pictures, predictions] = [images.map(toImageData), denoised.map(toImageData)];
    this.#last = {
      ...step,
      image: pictures[0],
      denoised: predictions[0],
      images: pictures,
      denoisedImages: predictions,
    };
    return this.#last;
  }

  async #finish() {
    await this.finish();
    const last = this.#last;
    if (last && last.index + 1 === last.total) return last.images;
    throw new AbortError("aborted", "This run was left before its last step, so it has no final image.");
  }
}

/**
 * What the host is told of a run.
 * @param {number} run
 * @param {Public.SampleOptions} options
 * @returns {Promise<{ signal?: AbortSignal, description: RunDescription }>}
 */
export async function describeRun(run, options) {
  const { signal, seed, seeds, image, mask, includeInitial, rest } = checkSampleOptions(options);
  throwIfAborted(signal);
  const description = {
    run,
    first: includeInitial ? -1 : 0,
    seed,
    seeds,
    options: rest,
    image: image === undefined ? undefined : await pixelsOf(image, "image", signal),
    mask: mask === undefined ? undefined : await pixelsOf(mask, "mask", signal),
  };
  throwIfAborted(signal);
  return { signal, description };
}
