// @ts-check
// A loaded checkpoint, and what it is asked for.

import { Connection, asyncDispose } from "./client.js";
import { chooseDevice, requireBrowser } from "./device.js";
import { OptionError, StateError, throwIfAborted, unloaded } from "./errors.js";
import { checkLoadOptions, checkLoras, checkScheduleOptions } from "./options.js";
import { describeSource } from "./source.js";
import { Bound, Run, describeRun } from "./walk.js";

/** @import * as Public from "./index.d.ts" */
/** @import { Loaded, PlainSchedule } from "./protocol.js" */

/** @implements {Public.Pipeline} */
export class Pipeline {
  #connection;
  #loaded;
  #lastRun = 0;
  /** The LoRAs in use, by what the caller named them with. @type {Map<unknown, number>} */
  #loras = new Map();
  #lastLora = 0;
  /** @type {readonly string[]} */
  #loraNotes = [];
  /** @type {Promise<void>} */
  #lorasSet = Promise.resolve();

  /**
   * @param {Public.Source} source
   * @param {Public.LoadOptions} [options]
   */
  static async load(source, options = {}) {
    requireBrowser();
    const { device, cpu, onProgress, signal, worker, wasm, vae, tinyVae, loras, ...files } = checkLoadOptions(options);
    const request = {
      type: /** @type {const} */ ("load"),
      source: describeSource(source),
      device,
      cpu,
      wasm,
      ...files,
      vae: vae === undefined ? undefined : describeSource(vae),
      tinyVae: tinyVae === undefined ? undefined : describeSource(tinyVae),
    };
    throwIfAborted(signal);
    const connection = new Connection(worker);
    try {
      const pipeline = new Pipeline(connection, await connection.request(request, { signal, onProgress }));
      if (loras.length > 0) await pipeline.setLoras(loras, { signal });
      return pipeline;
    } catch (error) {
      await connection.close(new StateError("disposed", "The load of this pipeline failed."));
      throw error;
    }
  }

  /** @returns {Promise<Public.Capabilities>} */
  static async capabilities() {
    requireBrowser();
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

  /**
   * @param {Public.SampleOptions} [options]
   * @returns {any} a run of bare steps, or of whole ones where every step has its pictures
   */
  sample(options = {}) {
    return new Run(this.#connection, ++this.#lastRun, options);
  }

  /** @param {Public.BoundOptions} options */
  bound(options) {
    return new Bound(this.#connection, ++this.#lastRun, options);
  }

  /**
   * @param {Public.ForwardOptions} options
   * @returns {Promise<Public.ForwardProcess>}
   */
  async forwardProcess(options) {
    const { ForwardProcess } = await import("./forward_process.js").catch(unloaded("forward_process.js"));
    return ForwardProcess.open(this.#connection, ++this.#lastRun, options);
  }

  /**
   * @param {Public.ScheduleOptions} [options]
   * @returns {Promise<Public.Schedule>}
   */
  async schedule(options = {}) {
    const { signal, json } = checkScheduleOptions(options);
    /** @type {PlainSchedule} */
    const { table, ...schedule } = await this.#connection.request({ type: "schedule", options: json }, { signal });
    return { ...schedule, ...camelCased(JSON.parse(table)) };
  }

  /**
   * @param {Public.SampleOptions} [options]
   * @returns {Promise<Public.Profile>}
   */
  async profile(options = {}) {
    const { signal, description } = await describeRun(++this.#lastRun, options);
    return this.#connection.request({ type: "profile", ...description }, { signal });
  }

  get loraNotes() {
    return this.#loraNotes;
  }

  /**
   * @param {Public.SampleOptions} [options]
   * @returns {Promise<Public.RunEstimate>}
   */
  async estimate(options = {}) {
    const { signal, description } = await describeRun(++this.#lastRun, options);
    return this.#connection.request({ type: "estimate", ...description }, { signal });
  }

  /**
   * @param {readonly Public.Lora[]} loras
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<void>}
   */
  setLoras(loras, { signal } = {}) {
    // One after the other: which files the host has is known once it has answered.
    const set = this.#lorasSet.then(() => this.#setLoras(loras, signal));
    this.#lorasSet = set.catch(() => {});
    return set;
  }

  /**
   * @param {readonly Public.Lora[]} loras
   * @param {AbortSignal} [signal]
   */
  async #setLoras(loras, signal) {
    checkLoras(loras);
    if (loras.length === 0 && this.#loras.size === 0) return;
    /** @type {Map<unknown, number>} */
    const inUse = new Map();
    const weighted = loras.map(({ source, weight = 1 }) => {
      const description = describeSource(source);
      const key = description.kind === "url" ? `${description.base} ${description.file}` : source;
      const known = this.#loras.get(key) ?? inUse.get(key);
      const id = known ?? ++this.#lastLora;
      inUse.set(key, id);
      return { id, source: known === undefined ? description : undefined, weight };
    });
    this.#loraNotes = await this.#connection.request({ type: "loras", loras: weighted }, { signal });
    this.#loras = inUse;
  }

  dispose() {
    return this.#connection.close(new StateError("disposed", "This pipeline was disposed. Load it again to go on."));
  }

  [asyncDispose]() {
    return this.dispose();
  }
}

/**
 * JSON of the command with its names as JavaScript writes them.
 * @param {any} value
 * @returns {any}
 */
function camelCased(value) {
  if (Array.isArray(value)) return value.map(camelCased);
  if (typeof value !== "object" || value === null) return value;
  const renamed = (/** @type {string} */ key) => key.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(value).map(([key, value]) => [renamed(key), camelCased(value)]));
}
