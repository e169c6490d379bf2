// @ts-check
// The forward process of one picture, which the host holds until it is disposed of.

import { asyncDispose } from "./client.js";
import { StateError, throwIfAborted } from "./errors.js";
import { checkForwardOptions, checkTimestep } from "./options.js";
import { pixelsOf, toImageData } from "./picture.js";

/** @import * as Public from "./index.d.ts" */
/** @import { Connection } from "./client.js" */
/** @import { Opened, PlainNoised, PlainPrediction } from "./protocol.js" */

/** @implements {Public.ForwardProcess} */
export class ForwardProcess {
  #connection;
  #run;
  #isDisposed = false;

  /**
   * @param {Connection} connection
   * @param {number} run
   * @param {Public.ForwardOptions} options
   */
  static async open(connection, run, options) {
    const { signal, image, json } = checkForwardOptions(options);
    const request = {
      type: /** @type {const} */ ("forward"),
      run,
      options: json,
      image: await pixelsOf(image, "image", signal),
    };
    try {
      const opened = await connection.request(request, { signal });
      throwIfAborted(signal);
      return new ForwardProcess(connection, run, opened);
    } catch (error) {
      // The host may have been too busy to hear of an abort.
      connection.request({ type: "stop", run }).catch(() => {});
      throw error;
    }
  }

  /**
   * @param {Connection} connection
   * @param {number} run
   * @param {Opened} opened
   */
  constructor(connection, run, { numTrainTimesteps, shape }) {
    this.#connection = connection;
    this.#run = run;
    this.numTrainTimesteps = numTrainTimesteps;
    this.shape = shape;
  }

  /**
   * @param {number | null} timestep
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<Public.Noised>}
   */
  async at(timestep, options) {
    /** @type {PlainNoised} */
    const { image, sample } = await this.#ask("noised", timestep, options);
    return { timestep, image: toImageData(image), sample };
  }

  /**
   * @param {number} timestep
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<Public.Prediction>}
   */
  async predict(timestep, options) {
    /** @type {PlainPrediction} */
    const { noise, denoised, ...rest } = await this.#ask("predict", timestep, options);
    return { timestep, noise: toImageData(noise), denoised: toImageData(denoised), ...rest };
  }

  async dispose() {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    // Where the connection itself has failed, there is nothing left to free.
    await this.#connection.request({ type: "stop", run: this.#run }).catch(() => {});
  }

  [asyncDispose]() {
    return this.dispose();
  }

  /**
   * @param {"noised" | "predict"} type
   * @param {number | null} timestep
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<any>}
   */
  async #ask(type, timestep, { signal } = {}) {
    if (this.#isDisposed) throw new StateError("disposed", "This forward process was disposed of.");
    checkTimestep(timestep, type === "noised");
    const answer = await this.#connection.request({ type, run: this.#run, timestep }, { signal });
    throwIfAborted(signal);
    return answer;
  }
}
