// @ts-check
// Features of pictures, and distances between sets of them.

import { Connection, asyncDispose } from "./client.js";
import { requireBrowser } from "./device.js";
import { OptionError, StateError, throwIfAborted } from "./errors.js";
import { checkClassifyOptions, checkFeatureLoadOptions } from "./options.js";
import { pixelsOf } from "./picture.js";
import { describeFile, describeSource } from "./source.js";

/** @import * as Public from "./index.d.ts" */
/** @import { FeatureRequest, LoadedFeatures } from "./protocol.js" */

/** @implements {Public.FeatureExtractor} */
export class FeatureExtractor {
  #connection;
  #loaded;
  #lastSet = 0;

  /**
   * @param {Public.Source} source
   * @param {Public.FeatureLoadOptions} [options]
   */
  static async load(source, options = {}) {
    requireBrowser();
    const { device, cpu, signal, worker, wasm, shaders } = checkFeatureLoadOptions(options);
    const ask = { type: /** @type {const} */ ("load"), source: describeSource(source), device, cpu, wasm, shaders };
    throwIfAborted(signal);
    const connection = new Connection(worker);
    try {
      return new FeatureExtractor(connection, await connection.request({ type: "features", ask }, { signal }));
    } catch (error) {
      await connection.close(new StateError("disposed", "The load of this extractor failed."));
      throw error;
    }
  }

  /**
   * @param {Connection} connection
   * @param {LoadedFeatures} loaded
   */
  constructor(connection, loaded) {
    if (!(connection instanceof Connection)) {
      throw new OptionError("invalid-option", "Use `await FeatureExtractor.load(source)` to make an extractor.");
    }
    this.#connection = connection;
    this.#loaded = loaded;
  }

  get info() {
    return this.#loaded.info;
  }

  get device() {
    return this.#loaded.device;
  }

  statistics() {
    return Statistics.make(this.#connection, { type: "set", set: ++this.#lastSet });
  }

  /**
   * @param {string | URL | File | FileSystemFileHandle} source
   * @param {{ signal?: AbortSignal }} [options]
   */
  async openStatistics(source, { signal } = {}) {
    const described = describeFile(source, "source");
    return Statistics.make(this.#connection, { type: "set", set: ++this.#lastSet, source: described }, signal);
  }

  /**
   * @param {Public.PictureSource} image
   * @param {{ count?: number, signal?: AbortSignal }} [options]
   * @returns {Promise<Public.Classification>}
   */
  async classify(image, options = {}) {
    const { count = 5, signal } = checkClassifyOptions(options);
    const images = [await pixelsOf(image, "image", signal)];
    const ask = { type: /** @type {const} */ ("classify"), images, count };
    const [answer] = await this.#connection.request({ type: "features", ask }, { signal });
    return answer;
  }

  dispose() {
    return this.#connection.close(new StateError("disposed", "This extractor was disposed. Load it again to go on."));
  }

  [asyncDispose]() {
    return this.dispose();
  }
}

/** @implements {Public.Statistics} */
class Statistics {
  #connection;
  #set;
  #count;
  #isDisposed = false;

  /**
   * @param {Connection} connection
   * @param {FeatureRequest & { type: "set" }} ask
   * @param {AbortSignal} [signal]
   */
  static async make(connection, ask, signal) {
    return new Statistics(connection, ask.set, await connection.request({ type: "features", ask }, { signal }));
  }

  /**
   * @param {Connection} connection
   * @param {number} set
   * @param {number} count
   */
  constructor(connection, set, count) {
    this.#connection = connection;
    this.#set = set;
    this.#count = count;
  }

  get count() {
    return this.#count;
  }

  /**
   * @param {Public.PictureSource | readonly Public.PictureSource[]} images
   * @param {{ signal?: AbortSignal }} [options]
   */
  async add(images, { signal } = {}) {
    /** @type {import("./protocol.js").Pixels[]} */
    const pixels = [];
    const list = Array.isArray(images) ? images : [images];
    for (const [index, image] of list.entries()) pixels.push(await pixelsOf(image, `images[${index}]`, signal));
    this.#count = await this.#ask({ type: "add", set: this.#set, images: pixels }, signal);
  }

  /**
   * @param {Public.Statistics} real
   * @param {{ errors?: boolean }} [options]
   * @returns {Promise<Public.Distance>}
   */
  distance(real, { errors = true } = {}) {
    if (!(real instanceof Statistics) || real.#connection !== this.#connection) {
      const message = "real has to be statistics of the same extractor; open or add them there.";
      return Promise.reject(new OptionError("invalid-option", message, { option: "real" }));
    }
    return this.#ask({ type: "distance", set: this.#set, real: real.#set, errors });
  }

  async dispose() {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    // Where the connection itself has failed, there is nothing left to free.
    await this.#ask({ type: "free", set: this.#set }).catch(() => {});
  }

  [asyncDispose]() {
    return this.dispose();
  }

  /**
   * @param {FeatureRequest} ask
   * @param {AbortSignal} [signal]
   * @returns {Promise<any>}
   */
  #ask(ask, signal) {
    return this.#connection.request({ type: "features", ask }, { signal });
  }
}
