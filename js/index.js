// @ts-check
// The public face of the package. Its types, with the documentation, are in index.d.ts.

import { Connection } from "./client.js";
import { chooseDevice } from "./device.js";
import { AbortError, OptionError, StateError, throwIfAborted } from "./errors.js";
import { checkLoadOptions, checkSampleOptions } from "./options.js";
import { describeSource } from "./source.js";

/** @import * as Public from "./index.d.ts" */
/** @import { Begun, Loaded, Pixels, PlainStep } from "./protocol.js" */

export { AbortError, DeviceError, ModelError, OptionError, SourceError, StateError, UndiffuseError } from "./errors.js";

/** @implements {Public.Pipeline} */
export class Pipeline {
  #connection;
  #loaded;
  #lastRun = 0;

  /**
   * @param {Public.Source} source
   * @param {Public.LoadOptions} [options]
   */
  static async load(source, options = {}) {
    const { device, onProgress, signal, worker, wasm } = checkLoadOptions(options);
    const description = describeSource(source);
    throwIfAborted(signal);
    const connection = new Connection(worker);
    try {
      const request = { type: /** @type {const} */ ("load"), source: description, device, wasm };
      return new Pipeline(connection, await connection.request(request, { signal, onProgress }));
    } catch (error) {
      await connection.close(new StateError("disposed", "The load of this pipeline failed."));
      throw error;
    }
  }

  /** @returns {Promise<Public.Capabilities>} */
  static async capabilities() {
    const webgpu = chooseDevice("webgpu").then(
      () => true,
      () => false,
    );
    return { auto: await chooseDevice("auto"), webgpu: await webgpu };
  }

  /**
   * @param {Connection} connection
   * @param {Loaded} loaded
   */
  constructor(connection, loaded) {
    if (!(connection instanceof Connection)) {
      throw new OptionError("invalid-option", "Use `await Pipeline.load(source)` to make a pipeline.");
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

  /** @param {Public.SampleOptions} [options] */
  sample(options = {}) {
    return new Run(this.#connection, ++this.#lastRun, options);
  }

  dispose() {
    return this.#connection.close(new StateError("disposed", "This pipeline was disposed. Load it again to go on."));
  }
}

/** @implements {Public.Run} */
class Run {
  #steps;
  /** Whether anybody looks at the steps: if not, only the last one is decoded. */
  #isWatched = false;
  /** @type {string | undefined} */
  #warning;
  /** @type {Public.Step | undefined} */
  #last;
  /** @type {unknown} */
  #failure;
  /** @type {Promise<ImageData> | undefined} */
  #image;

  /**
   * @param {Connection} connection
   * @param {number} run
   * @param {Public.SampleOptions} options
   */
  constructor(connection, run, options) {
    this.#steps = this.#walk(connection, run, options);
  }

  get warning() {
    return this.#warning;
  }

  [Symbol.asyncIterator]() {
    this.#isWatched = true;
    return this.#steps;
  }

  /**
   * @template [T=ImageData]
   * @template [F=never]
   * @param {((image: ImageData) => T | PromiseLike<T>) | null} [onFulfilled]
   * @param {((error: any) => F | PromiseLike<F>) | null} [onRejected]
   */
  then(onFulfilled, onRejected) {
    this.#image ??= this.#finish();
    return this.#image.then(onFulfilled, onRejected);
  }

  /**
   * The steps, one at a time and only when asked for. However the walk ends, the host has freed the run by then.
   * @param {Connection} connection
   * @param {number} run
   * @param {Public.SampleOptions} options
   * @returns {AsyncGenerator<Public.Step, void, void>}
   */
  async *#walk(connection, run, options) {
    // Where the connection itself has failed, there is nothing left to free.
    const stop = () => connection.request({ type: "stop", run }).catch(() => {});
    try {
      const { signal, seed, rest } = checkSampleOptions(options);
      const request = {
        type: /** @type {const} */ ("sample"),
        run,
        seed,
        options: { ...rest, everyImage: this.#isWatched },
      };
      throwIfAborted(signal);
      // The caller may abort between two steps and never ask for the next one: the memory must not wait for that.
      signal?.addEventListener("abort", stop);
      try {
        /** @type {Begun} */
        const { total, warning } = await connection.request(request);
        this.#warning = warning;
        for (let index = 0; index < total; index++) {
          throwIfAborted(signal);
          const step = await connection.request({ type: "step", run });
          throwIfAborted(signal);
          if (!step.image) continue;
          this.#last = fromPlain(step);
          yield this.#last;
        }
      } finally {
        signal?.removeEventListener("abort", stop);
        await stop();
      }
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  async #finish() {
    while (!(await this.#steps.next()).done);
    if (this.#failure) throw this.#failure;
    const last = this.#last;
    if (last && last.index + 1 === last.total) return last.image;
    throw new AbortError("aborted", "This run was left before its last step, so it has no final image.");
  }
}

/**
 * @param {Required<PlainStep>} step
 * @returns {Public.Step}
 */
function fromPlain(step) {
  return { ...step, image: toImageData(step.image), denoised: toImageData(step.denoised) };
}

/** @param {Pixels} pixels */
function toImageData({ data, width, height }) {
  return new ImageData(data, width, height);
}
