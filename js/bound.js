// @ts-check
// The variational bound of pictures, term by term.

import { AbortError } from "./errors.js";
import { checkBoundOptions } from "./options.js";
import { pixelsOf } from "./picture.js";
import { Walk } from "./walk.js";

/** @import * as Public from "./index.d.ts" */
/** @import { Connection } from "./client.js" */
/** @import { Begun, PlainTerm } from "./protocol.js" */

/**
 * @extends {Walk<PlainTerm, Public.BoundTerm>}
 * @implements {Public.Bound}
 */
export class Bound extends Walk {
  #options;
  /** @type {string | undefined} */
  #warning;
  /** @type {Public.BoundSummary | undefined} */
  #summary;
  /** @type {Promise<Public.BoundSummary> | undefined} */
  #finished;

  /**
   * @param {Connection} connection
   * @param {number} run
   * @param {Public.BoundOptions} options
   */
  constructor(connection, run, options) {
    super(connection, run);
    this.#options = options;
  }

  get warning() {
    return this.#warning;
  }

  /**
   * @template [T=Public.BoundSummary]
   * @template [F=never]
   * @param {((summary: Public.BoundSummary) => T | PromiseLike<T>) | null} [onFulfilled]
   * @param {((error: any) => F | PromiseLike<F>) | null} [onRejected]
   */
  then(onFulfilled, onRejected) {
    return (this.#finished ??= this.#finish()).then(onFulfilled, onRejected);
  }

  /** @param {number} run */
  async describe(run) {
    const { seed, signal, images, rest } = checkBoundOptions(this.#options);
    const pixels = [];
    for (const image of images) pixels.push(await pixelsOf(image, "images", signal));
    return { signal, request: { type: /** @type {const} */ ("bound"), run, seed, options: rest, images: pixels } };
  }

  /** @param {Begun} begun */
  begun({ warning }) {
    this.#warning = warning;
  }

  /** @param {PlainTerm} plain */
  receive({ term, summary, ...step }) {
    if (summary) this.#summary = JSON.parse(summary);
    return { ...step, ...JSON.parse(term) };
  }

  async #finish() {
    await this.finish();
    if (this.#summary) return this.#summary;
    throw new AbortError("aborted", "This bound was left before its last term.");
  }
}
