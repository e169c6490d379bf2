// @ts-check
// What passes between the client (the page) and the host (usually a worker), over one MessagePort per pipeline.
// The host answers requests one after the other, in order; `abort` alone does not wait for its turn, nor does its answer.

/** @import { CpuOptions, DeviceInfo, FeatureInfo, LoadOptions, LoadProgress, ModelInfo, Profile } from "./index.d.ts" */
/** @import { PlainError } from "./errors.js" */
/** @import { SourceDescription } from "./source.js" */

/**
 * A LoRA with its weight. The host keeps the files of those that are in use: one that it has is not sent again.
 * @typedef {{ id: number, source?: SourceDescription, weight: number }} WeightedLora
 */

/**
 * A run that is to be made, by its number; `options` are JSON; `first` is the index of its first step, -1 where that is to be x_T itself.
 * @typedef {{ run: number, first: number, options: string, image?: Pixels, mask?: Pixels }} RunDescription
 */

/**
 * @typedef {{ type: "load", source: SourceDescription, device: "auto" | "webgpu" | "cpu", cpu: CpuOptions, wasm: LoadOptions["wasm"],
 *       variant?: string, unet?: string, predictionType?: string,
 *       vae: SourceDescription | undefined, tinyVae: SourceDescription | undefined, vocabulary?: string, shaders?: string,
 *       kernels?: LoadOptions["kernels"] }
 *   | { type: "loras", loras: WeightedLora[] }
 *   | { type: "sample" } & RunDescription
 *   | { type: "profile" } & RunDescription
 *   | { type: "estimate" } & RunDescription
 *   | { type: "schedule", options: string }
 *   | { type: "forward", run: number, options: string, image: Pixels }
 *   | { type: "noised", run: number, timestep: number | null }
 *   | { type: "predict", run: number, timestep: number | null }
 *   | { type: "bound", run: number, options: string, images: Pixels[] }
 *   | { type: "step", run: number }
 *   | { type: "stop", run: number }
 *   | { type: "features", ask: FeatureRequest }
 *   | { type: "dispose" }} Request
 */

/**
 * What is asked of an extractor of features, which has a host of its own; sets of pictures go by their numbers.
 * @typedef {{ type: "load", source: SourceDescription, device: "auto" | "webgpu" | "cpu", cpu: CpuOptions, wasm: LoadOptions["wasm"], shaders?: string }
 *   | { type: "set", set: number, source?: SourceDescription }
 *   | { type: "add", set: number, images: Pixels[] }
 *   | { type: "distance", set: number, real: number, errors: boolean }
 *   | { type: "free", set: number }
 *   | { type: "classify", images: Pixels[], count: number }} FeatureRequest
 */

/** @typedef {{ id: number } & (Request | { type: "abort" })} ToHost `abort` repeats the id of the request it ends */

/**
 * @typedef {{ id: number, result: unknown }
 *   | { id: number, error: PlainError }
 *   | { id: number, progress: LoadProgress }
 *   | { lock: string }
 *   | { failure: PlainError }} ToClient `lock`: the name of a lock that is held while the host's thread lives; `failure`: the host is
 *       beyond use, and everything that waits has failed
 */

/**
 * Pixels as they travel: the buffer changes hands instead of being copied.
 * @typedef {{ width: number, height: number, data: Uint8ClampedArray<ArrayBuffer> }} Pixels
 */

/** @typedef {{ info: ModelInfo, device: DeviceInfo }} Loaded the answer to `load` */

/** @typedef {{ info: FeatureInfo, device: DeviceInfo }} LoadedFeatures the answer to `load` of an extractor */

/**
 * @typedef {{ class: string, numTrainTimesteps: number, betas: Float32Array<ArrayBuffer>, alphasCumprod: Float32Array<ArrayBuffer>,
 *       table: string }} PlainSchedule the answer to `schedule`: the table as JSON, under the command's names
 */

/**
 * @typedef {{ numTrainTimesteps: number, shape: number[] }} Opened the answer to `forward`, which is a run
 *   too until it is stopped
 */

/** @typedef {{ sample: Float32Array<ArrayBuffer>, image: Pixels }} PlainNoised the answer to `noised` */

/** @typedef {{ noise: Pixels, denoised: Pixels, error: number, warning: string | undefined }} PlainPrediction the answer to `predict` */

/**
 * @typedef {{ first?: number, total: number, warning: string | undefined }} Begun the answer to `sample` and `bound`: steps go from
 *   `first`, or else from 0; `profile` is answered by a {@link Profile}
 */

/**
 * @typedef {{ index: number, total: number, timestep: number, milliseconds: number, images: Pixels[], denoised: Pixels[] }} PlainStep
 *   the answer to `step`, with the pictures that were asked for; undefined for a run that was stopped
 */

/**
 * @typedef {{ index: number, total: number, milliseconds: number, term: string, summary?: string }} PlainTerm the answer to `step` of
 *   a bound; the term and, with the last one, the whole, as JSON
 */

export {};
