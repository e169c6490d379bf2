// @ts-check
// The working end of an extractor of features: owns the WebAssembly one and the sets of pictures.

import { StateError, UndiffuseError, throwIfAborted } from "./errors.js";
import init, { FeatureExtractor, PictureSet, start } from "./internal/undiffuse_features.js";
import { loadOnDevice } from "./load.js";
import { openSource } from "./source.js";
import { startCore } from "./wasm.js";

/** @import * as core from "./internal/undiffuse_features.js" */
/** @import { Machine } from "./machine.js" */
/** @import { FeatureRequest } from "./protocol.js" */

/** Bundlers look for exactly this expression. */
const MODULE = {
  core: { FeatureExtractor, PictureSet, start },
  init,
  url: () => new URL("./internal/undiffuse_features_bg.wasm", import.meta.url),
};

export class FeatureHost {
  /** @type {core.FeatureExtractor | undefined} */
  #extractor;
  /** @type {Machine | undefined} */
  #machine;
  /** @type {Map<number, core.PictureSet>} */
  #sets = new Map();

  /**
   * @param {FeatureRequest} request
   * @param {AbortSignal} signal
   * @returns {Promise<[result: unknown, transfer?: Transferable[]]>}
   */
  async perform(request, signal) {
    if (this.#machine) this.#machine.signal = signal;
    switch (request.type) {
      case "load":
        return [await this.#load(request, signal)];
      case "set": {
        const { PictureSet } = await startCore(MODULE, undefined, signal);
        const { set, source } = request;
        const made = source ? await PictureSet.open(openSource(source, signal)) : new PictureSet(this.#loaded());
        this.#sets.set(set, made);
        return [made.pictures];
      }
      case "add":
        return [await this.#add(request, signal)];
      case "distance":
        return [JSON.parse(this.#set(request.set).distance(this.#set(request.real), request.errors))];
      case "free":
        this.#sets.get(request.set)?.free();
        this.#sets.delete(request.set);
        return [undefined];
      case "classify":
        return [JSON.parse(await this.#loaded().classify(request.images, request.count))];
    }
  }

  /**
   * @param {FeatureRequest & { type: "load" }} request
   * @param {AbortSignal} signal
   */
  async #load(request, signal) {
    const starting = startCore(MODULE, request.wasm, signal);
    // Awaited below. If the device fails first, nobody asks for the module any more.
    starting.catch(() => {});
    const source = openSource(request.source, signal);
    try {
      const { loaded, machine, device } = await loadOnDevice(request, signal, async (machine, adapter, shaders) =>
        (await starting).FeatureExtractor.load(source, machine, adapter, shaders),
      );
      this.#extractor = loaded;
      this.#machine = machine;
      return { info: JSON.parse(loaded.info()), device };
    } finally {
      source.forget();
    }
  }

  /**
   * Adds pictures, as many at a time as the network takes; all of them, or if it is aborted none.
   * @param {FeatureRequest & { type: "add" }} request
   * @param {AbortSignal} signal
   * @returns {Promise<number>} how many the set now holds
   */
  async #add({ set, images }, signal) {
    const extractor = this.#loaded();
    const { batch } = JSON.parse(extractor.info());
    const features = [];
    for (let first = 0; first < images.length; first += batch) {
      features.push(await extractor.extract(images.slice(first, first + batch)));
      throwIfAborted(signal);
    }
    const into = this.#set(set);
    for (const some of features) into.add(some);
    return into.pictures;
  }

  #loaded() {
    if (!this.#extractor) {
      throw new UndiffuseError("internal", "The extractor was asked for something before it was loaded.");
    }
    return this.#extractor;
  }

  /** @param {number} set */
  #set(set) {
    const found = this.#sets.get(set);
    if (!found) throw new StateError("disposed", "These statistics were disposed of.");
    return found;
  }

  dispose() {
    for (const set of this.#sets.values()) set.free();
    this.#sets.clear();
    this.#extractor?.free();
    this.#extractor = undefined;
    this.#machine?.close();
    this.#machine = undefined;
  }
}
