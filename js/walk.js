// @ts-check
// What is computed step by step, when a step is asked for: runs of the reverse process, and bounds.

import { AbortError, throwIfAborted } from "./errors.js";
import { checkBoundOptions, checkSampleOptions } from "./options.js";
import { pixelsOf, toImageData } from "./picture.js";

/** @import * as Public from "./index.d.ts" */
/** @import { Connection } from "./client.js" */
/** @import { Begun, PlainStep, PlainTerm, Request, RunDescription } from "./protocol.js" */

/**
 * Goes through something once. It starts when it is first iterated or finished.
 * @template Plain what the host answers to a step
 * @template Step what the caller gets of it
 * @template Options what the caller asks for
 * @template Result what it comes to in the end
 */
class Walk {
  #steps;
  /** @type {unknown} */
  #failure;
  /** @type {string | undefined} */
  #warning;
  /** @type {Promise<Result> | undefined} */
  #finished;

  /**
   * @param {Connection} connection
   * @param {number} run its number
   * @param {Options} options
   */
  constructor(connection, run, options) {
    this.#steps = this.#walk(connection, run, options);
  }

  get warning() {
    return this.#warning;
  }

  [Symbol.asyncIterator]() {
    return this.#steps;
  }

  /**
   * What the host is told to begin.
   * @param {number} _run
   * @param {Options} _options
   * @returns {Promise<{ signal?: AbortSignal, request: Request }>}
   */
  describe(_run, _options) {
    throw new Error("a walk describes itself");
  }

  /**
   * @param {Plain} _plain
   * @returns {Step}
   */
  receive(_plain) {
    throw new Error("a walk knows its steps");
  }

  /** @returns {Result | undefined} what it has come to, once its last step is made */
  result() {
    return undefined;
  }

  /**
   * @template [F=never]
   * @param {((error: any) => F | PromiseLike<F>) | null} [onRejected]
   * @returns {Promise<any>}
   */
  catch(onRejected) {
    return Promise.resolve(this).catch(onRejected);
  }

  /**
   * @param {(() => void) | null} [onFinally]
   * @returns {Promise<any>}
   */
  finally(onFinally) {
    return Promise.resolve(this).finally(onFinally);
  }

  /** Makes the steps that are left. */
  finish() {
    return (this.#finished ??= this.#finish());
  }

  async #finish() {
    while (!(await this.#steps.next()).done);
    if (this.#failure) throw this.#failure;
    const result = this.result();
    if (result) return result;
    throw new AbortError("aborted", "This was left before its last step, so it has no result.");
  }

  /**
   * The steps, one at a time and only when asked for. However the walk ends but by an abort, the host has freed what it held by then.
   * @param {Connection} connection
   * @param {number} run
   * @param {Options} options
   * @returns {AsyncGenerator<Step, void, void>}
   */
  async *#walk(connection, run, options) {
    // Where the connection itself has failed, there is nothing left to free.
    const stop = () => connection.request({ type: "stop", run }).catch(() => {});
    try {
      const { signal, request } = await this.describe(run, options);
      // The caller may abort between two steps and never ask for the next one: the memory must not wait for that.
      signal?.addEventListener("abort", stop);
      try {
        /** @type {Begun} */
        const begun = await connection.request(request, { signal });
        this.#warning = begun.warning;
        for (let index = begun.first ?? 0; index < begun.total; index++) {
          throwIfAborted(signal);
          const step = await connection.request({ type: "step", run }, { signal });
          throwIfAborted(signal);
          yield this.receive(step);
        }
      } finally {
        signal?.removeEventListener("abort", stop);
        // What an abort has ended is freed before anything else that is asked for; the caller need not wait for that.
        const stopped = stop();
        if (!signal?.aborted) await stopped;
      }
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }
}

/**
 * A run of the reverse process.
 * @extends {Walk<PlainStep, Public.BareStep, Public.SampleOptions, readonly ImageData[]>}
 * @implements {Public.Run<Public.BareStep>}
 */
export class Run extends Walk {
  /** Whether anybody looks at the steps: if not, only the last one is decoded. */
  #isWatched = false;
  /** @type {Public.BareStep | undefined} */
  #last;

  [Symbol.asyncIterator]() {
    this.#isWatched = true;
    return super[Symbol.asyncIterator]();
  }

  images() {
    return this.finish();
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

  /**
   * @param {number} run
   * @param {Public.SampleOptions} options
   */
  async describe(run, options) {
    const { signal, description } = await describeRun(run, options, this.#isWatched ? {} : { preview: "none" });
    if (!this.#isWatched) description.first = 0;
    return { signal, request: { type: /** @type {const} */ ("sample"), ...description } };
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

  result() {
    const last = this.#last;
    return last && last.index + 1 === last.total ? last.images : undefined;
  }
}

/**
 * What the host is told of a run.
 * @param {number} run
 * @param {Public.SampleOptions} options
 * @param {Public.SampleOptions} [instead]  what overrides them
 * @returns {Promise<{ signal?: AbortSignal, description: RunDescription }>}
 */
export async function describeRun(run, options, instead) {
  const { signal, image, mask, includeInitial, json } = checkSampleOptions(options, instead);
  throwIfAborted(signal);
  const description = {
    run,
    first: includeInitial ? -1 : 0,
    options: json,
    image: image === undefined ? undefined : await pixelsOf(image, "image", signal),
    mask: mask === undefined ? undefined : await pixelsOf(mask, "mask", signal),
  };
  throwIfAborted(signal);
  return { signal, description };
}

/**
 * The variational bound of pictures, term by term.
 * @extends {Walk<PlainTerm, Public.BoundTerm, Public.BoundOptions, Public.BoundSummary>}
 * @implements {Public.Bound}
 */
export class Bound extends Walk {
  /** @type {Public.BoundSummary | undefined} */
  #summary;

  /**
   * @template [T=Public.BoundSummary]
   * @template [F=never]
   * @param {((summary: Public.BoundSummary) => T | PromiseLike<T>) | null} [onFulfilled]
   * @param {((error: any) => F | PromiseLike<F>) | null} [onRejected]
   */
  then(onFulfilled, onRejected) {
    return this.finish().then(onFulfilled, onRejected);
  }

  /**
   * @param {number} run
   * @param {Public.BoundOptions} options
   */
  async describe(run, options) {
    const { signal, images, json } = checkBoundOptions(options);
    const pixels = [];
    for (const image of images) pixels.push(await pixelsOf(image, "images", signal));
    return { signal, request: { type: /** @type {const} */ ("bound"), run, options: json, images: pixels } };
  }

  /** @param {PlainTerm} plain */
  receive({ term, summary, ...step }) {
    if (summary) this.#summary = JSON.parse(summary);
    return { ...step, ...JSON.parse(term) };
  }

  result() {
    return this.#summary;
  }
}
