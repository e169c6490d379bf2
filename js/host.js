// @ts-check
// The working end of the protocol: owns the WebAssembly pipeline and at most one run of it, answers requests in turn.

import { AbortError, StateError, UndiffuseError, throwIfAborted, toPlain } from "./errors.js";
import init, { Lora, LoraSet, Pipeline, start } from "./internal/undiffuse.js";
import { loadOnDevice } from "./load.js";
import { openSource, openVocabulary } from "./source.js";
import { onBreakdown, reportTrap, startCore, watchTraps } from "./wasm.js";

/** @import * as core from "./internal/undiffuse.js" */
/** @import { FeatureHost } from "./features_host.js" */
/** @import { LoadProgress, Profile } from "./index.d.ts" */
/** @import { Machine } from "./machine.js" */
/** @import { Begun, Loaded, Opened, PlainNoised, PlainPrediction, PlainStep, PlainTerm, Request, RunDescription, ToClient, ToHost, WeightedLora } from "./protocol.js" */
/** @import { SourceDescription } from "./source.js" */

/** Bundlers look for exactly this expression. */
const MODULE = {
  core: { Lora, LoraSet, Pipeline, start },
  init,
  url: () => new URL("./internal/undiffuse_bg.wasm", import.meta.url),
};

// A 2 GB checkpoint arrives in tens of thousands of chunks; nobody looks at a progress bar that often.
const PROGRESS_INTERVAL_MS = 50;

/**
 * Serves one pipeline on `port`, or one extractor of features.
 * @param {MessagePort} port
 * @param {typeof FeatureHost} [Features] what serves extractors; none where only pipelines are served
 */
export function serve(port, Features) {
  const host = new Host((message, transfer = []) => port.postMessage(message, transfer), Features);
  host.holdLock();
  port.onmessage = ({ data }) => host.receive(data);
}

class Host {
  #post;
  #Features;
  #forgetBreakdown;
  /** @type {Map<number, AbortController>} */
  #controllers = new Map();
  /** The last request's end. @type {Promise<void>} */
  #tail = Promise.resolve();
  /** @type {core.Pipeline | undefined} */
  #pipeline;
  /** The CPU, where it is the device. @type {Machine | undefined} */
  #machine;
  /** What the pipeline is in the middle of. @type {{ id: number, first?: number, task: core.Sampler | core.Bound | core.ForwardProcess } | undefined} */
  #run;
  /** The extractor of features, where it is one that is served here. @type {FeatureHost | undefined} */
  #features;
  /** The LoRAs in use. @type {Map<number, core.Lora>} */
  #loras = new Map();
  /** What is merged of them. @type {WeightedLora[]} */
  #merged = [];
  /** Lets go of the lock that says that this thread lives. */
  #unlock = () => {};

  /**
   * @param {(message: ToClient, transfer?: Transferable[]) => void} post
   * @param {typeof FeatureHost} [Features]
   */
  constructor(post, Features) {
    this.#post = post;
    this.#Features = Features;
    this.#forgetBreakdown = onBreakdown((error) => post({ failure: toPlain(error) }));
  }

  /** @param {ToHost} message */
  receive(message) {
    if (message.type === "abort") {
      this.#controllers.get(message.id)?.abort();
      return;
    }
    const controller = new AbortController();
    const { signal } = controller;
    const { id } = message;
    this.#controllers.set(id, controller);
    let isAnswered = false;
    const answer = (/** @type {ToClient} */ message, /** @type {Transferable[]} */ transfer = []) => {
      if (!isAnswered) this.#post(message, transfer);
      isAnswered = true;
    };
    const fail = (/** @type {unknown} */ error) => answer({ id, error: toPlain(error) });
    // At once, whoever's turn it is. What is under way ends as soon as it can, and what is asked next waits for that.
    signal.addEventListener("abort", () => fail(new AbortError("aborted", "Stopped, as was asked.")));
    this.#tail = this.#tail.then(async () => {
      const unwatch = watchTraps();
      if (this.#machine) this.#machine.signal = signal;
      try {
        throwIfAborted(signal);
        const [result, transfer] = await this.#perform(message, id, signal);
        answer({ id, result }, transfer);
      } catch (error) {
        reportTrap(error);
        fail(error);
      } finally {
        unwatch();
        this.#controllers.delete(id);
      }
    });
  }

  /**
   * In a worker, holds a lock for as long as that lives, and tells the client its name: a worker may be terminated, or close itself,
   * without an event that says so.
   */
  holdLock() {
    if (typeof document !== "undefined" || !navigator.locks) return;
    const lock = `undiffuse ${crypto.randomUUID()}`;
    const hold = () => {
      this.#post({ lock });
      return new Promise((resolve) => (this.#unlock = () => resolve(undefined)));
    };
    // Documents without an origin have none.
    navigator.locks.request(lock, hold).catch(() => {});
  }

  /**
   * @param {Request} request
   * @param {number} id
   * @param {AbortSignal} signal
   * @returns {Promise<[result: unknown, transfer?: Transferable[]]>}
   */
  async #perform(request, id, signal) {
    switch (request.type) {
      case "load":
        return [await this.#load(request, id, signal)];
      case "loras":
        return [await this.#setLoras(request, signal)];
      case "sample": {
        const { total, warning } = await this.#sample(request);
        return [{ first: request.first, total, warning }];
      }
      case "schedule": {
        const schedule = this.#loaded().schedule(request.options);
        return [schedule, [schedule.betas.buffer, schedule.alphasCumprod.buffer]];
      }
      case "estimate": {
        const { options, image, mask } = request;
        return [this.#loaded().estimate(options, image, mask)];
      }
      case "profile":
        return [await this.#profile(request, signal)];
      case "bound":
        return [await this.#bound(request)];
      case "step": {
        const step = await this.#step(request.run);
        const pictures = step && "images" in step ? [...step.images, ...step.denoised] : [];
        return [step, pictures.map(({ data }) => data.buffer)];
      }
      case "forward":
        return [await this.#forward(request, signal)];
      case "noised": {
        /** @type {PlainNoised} */
        const noised = await this.#process(request.run).at(request.timestep ?? undefined);
        throwIfAborted(signal);
        return [noised, [noised.sample.buffer, noised.image.data.buffer]];
      }
      case "predict": {
        /** @type {PlainPrediction} */
        const prediction = await this.#process(request.run).predict(Number(request.timestep));
        throwIfAborted(signal);
        return [prediction, [prediction.noise.data.buffer, prediction.denoised.data.buffer]];
      }
      case "stop":
        this.#stop(request.run);
        return [undefined];
      case "features":
        if (!this.#Features) throw new UndiffuseError("internal", "This worker serves pipelines only.");
        this.#features ??= new this.#Features();
        return await this.#features.perform(request.ask, signal);
      case "dispose":
        this.#forgetBreakdown();
        this.#stop();
        for (const lora of this.#loras.values()) lora.free();
        this.#loras.clear();
        this.#pipeline?.free();
        this.#pipeline = undefined;
        this.#machine?.close();
        this.#machine = undefined;
        this.#features?.dispose();
        this.#unlock();
        return [undefined];
    }
  }

  /**
   * @param {Request & { type: "load" }} request
   * @param {number} id
   * @param {AbortSignal} signal
   * @returns {Promise<Loaded>}
   */
  async #load(request, id, signal) {
    const starting = startCore(MODULE, request.wasm, signal);
    // Awaited below. If the device fails first, nobody asks for the module any more.
    starting.catch(() => {});
    /** What was last told. @type {LoadProgress | undefined} */
    let reached;
    const onWait = (/** @type {string} */ waiting) => {
      if (reached) this.#post({ id, progress: { ...reached, waiting } });
    };
    const source = openSource(request.source, signal, onWait);
    // What is read first, whatever comes after it: it need not wait for the module.
    source.prefetch(source.files?.length === 1 ? source.files : ["model_index.json"]);
    const files = {
      variant: request.variant,
      unet: request.unet,
      predictionType: request.predictionType,
      vae: request.vae && openSource(request.vae, signal),
      tinyVae: request.tinyVae && openSource(request.tinyVae, signal),
      vocabulary: openVocabulary(request.vocabulary, signal),
      kernels: request.kernels,
    };
    let posted = -Infinity;
    const onProgress = (/** @type {string} */ file, /** @type {number} */ loaded, /** @type {number} */ total) => {
      reached = { file, loaded, total };
      const now = performance.now();
      if (now - posted < PROGRESS_INTERVAL_MS && loaded !== total) return;
      posted = now;
      this.#post({ id, progress: reached });
    };
    try {
      const { loaded, machine, device } = await loadOnDevice(request, signal, async (machine, adapter, shaders) =>
        (await starting).Pipeline.load(source, machine, { ...files, adapter, shaders }, onProgress),
      );
      this.#pipeline = loaded;
      this.#machine = machine;
      return { info: JSON.parse(loaded.info()), device };
    } finally {
      source.forget();
    }
  }

  /**
   * Reads the LoRAs that are new, merges all that are asked for, and forgets the others. If a file is refused or the request is
   * aborted, all is as before; if the device refuses, none is merged.
   * @param {Request & { type: "loras" }} request
   * @param {AbortSignal} signal
   */
  async #setLoras({ loras }, signal) {
    const pipeline = this.#idle();
    const { Lora } = await startCore(MODULE, undefined, signal);
    /** @type {Map<number, core.Lora>} */
    const inUse = new Map();
    const free = (/** @type {Map<number, core.Lora>} */ loras, /** @type {Map<number, core.Lora>} */ except) => {
      for (const [id, lora] of loras) if (!except.has(id)) lora.free();
    };
    try {
      for (const { id, source } of loras) {
        const known = inUse.get(id) ?? this.#loras.get(id);
        inUse.set(id, known ?? (await Lora.open(openSource(/** @type {SourceDescription} */ (source), signal))));
      }
      throwIfAborted(signal);
      try {
        await merge(pipeline, loras, inUse);
        throwIfAborted(signal);
      } catch (error) {
        if (signal.aborted) {
          // What was merged before comes back, whoever wants it or not.
          if (this.#machine) this.#machine.signal = undefined;
          await merge(pipeline, this.#merged, this.#loras);
        }
        throw error;
      }
    } catch (error) {
      free(inUse, this.#loras);
      throw error;
    }
    free(this.#loras, inUse);
    this.#loras = inUse;
    this.#merged = loras;
    return [...inUse.values()].flatMap((lora) => lora.notes);
  }

  /** @param {RunDescription} description */
  async #sample({ run, first, options, image, mask }) {
    const sampler = await this.#idle().sample(options, image, mask);
    this.#run = { id: run, first, task: sampler };
    return sampler;
  }

  /**
   * @param {Request & { type: "bound" }} request
   * @returns {Promise<Begun>}
   */
  async #bound({ run, options, images }) {
    const bound = await this.#idle().bound(options, images);
    this.#run = { id: run, task: bound };
    return { total: bound.total, warning: bound.warning };
  }

  /**
   * @param {Request & { type: "forward" }} request
   * @param {AbortSignal} signal
   * @returns {Promise<Opened>}
   */
  async #forward({ run, options, image }, signal) {
    const process = await this.#idle().forward_process(options, image);
    if (signal.aborted) process.dispose();
    throwIfAborted(signal);
    this.#run = { id: run, task: process };
    return { numTrainTimesteps: process.num_train_timesteps, shape: [...process.shape] };
  }

  /** @param {number} run */
  #process(run) {
    if (this.#run?.id === run && "at" in this.#run.task) return this.#run.task;
    throw new StateError("disposed", "This forward process was disposed of.");
  }

  /**
   * Measures the first step of a run, which is made for that alone.
   * @param {RunDescription} description
   * @param {AbortSignal} signal
   * @returns {Promise<Profile>}
   */
  async #profile(description, signal) {
    const sampler = await this.#sample(description);
    try {
      await sampler.step();
      throwIfAborted(signal);
      return JSON.parse(await sampler.profile());
    } finally {
      this.#stop(description.run);
    }
  }

  #loaded() {
    if (!this.#pipeline)
      throw new UndiffuseError("internal", "The pipeline was asked for something before it was loaded.");
    return this.#pipeline;
  }

  /** The pipeline, which nothing but the request at hand may be using. */
  #idle() {
    const pipeline = this.#loaded();
    if (this.#run) {
      throw new StateError(
        "busy",
        "This pipeline is in the middle of a run. End that one first, or load a second pipeline.",
      );
    }
    return pipeline;
  }

  /**
   * @param {number} run
   * @returns {Promise<PlainStep | PlainTerm | undefined>}
   */
  async #step(run) {
    if (this.#run?.id !== run || !("step" in this.#run.task)) return undefined;
    const { first, task } = this.#run;
    this.#run.first = 0;
    const start = performance.now();
    const step = await (first === -1 && "initial" in task ? task.initial() : task.step());
    const milliseconds = performance.now() - start;
    if (!step || step.index + 1 === step.total) this.#stop(run);
    return step && { ...step, milliseconds };
  }

  /** Frees the run, unless it is another one than `run`. @param {number} [run] */
  #stop(run = this.#run?.id) {
    if (this.#run === undefined || this.#run.id !== run) return;
    this.#run.task.dispose();
    this.#run = undefined;
  }
}

/**
 * Merges LoRAs in place of those that were.
 * @param {core.Pipeline} pipeline
 * @param {WeightedLora[]} loras
 * @param {Map<number, core.Lora>} files
 */
async function merge(pipeline, loras, files) {
  const { LoraSet } = await startCore(MODULE, undefined, new AbortController().signal);
  const set = new LoraSet();
  for (const { id, weight } of loras) set.add(/** @type {core.Lora} */ (files.get(id)), weight);
  await pipeline.set_loras(set);
}
