/**
 * Runs the reverse process of diffusion models in the browser: a checkpoint in diffusers' folder layout is opened as it
 * is, and every x_t on the way from noise to the picture can be seen.
 *
 * ```js
 * const pipeline = await Pipeline.load("models/emoji64/");
 * for await (const step of pipeline.sample({ prompt: "fox, noto style", seed: 7 })) {
 *   context.putImageData(step.image, 0, 0);
 * }
 * await pipeline.dispose();
 * ```
 */

/**
 * Where a checkpoint's files are: the URL of its folder (relative to the page), files that the user picked
 * (`<input webkitdirectory>`), blobs by their path (`unet/config.json`), or a directory handle.
 */
export type Source = string | URL | Iterable<File> | Map<string, Blob> | FileSystemDirectoryHandle;

export interface LoadOptions {
  /**
   * `"auto"` (the default) takes WebGPU where there is a real adapter for it, and else the CPU: see
   * {@link Pipeline.device}. `"webgpu"` insists, even on a software adapter, and fails where there is none.
   */
  device?: "auto" | "webgpu" | "cpu";
  /** Called while weights arrive, about twenty times a second. */
  onProgress?: (progress: LoadProgress) => void;
  /** Ends the load and its downloads; the promise then rejects with an {@link AbortError}. */
  signal?: AbortSignal;
  /**
   * `true` (the default): a worker of the pipeline's own, so that the page stays responsive. `false`: this very thread.
   * A `Worker` that runs this package's `worker.js` can be passed where a bundler or a policy wants to make it itself.
   */
  worker?: boolean | Worker;
  /**
   * Where the WebAssembly module comes from, if not from `internal/undiffuse_bg.wasm` beside this package: its URL,
   * its bytes, or the compiled module. The first load on a thread decides for all later ones.
   */
  wasm?: string | URL | BufferSource | WebAssembly.Module;
}

export interface LoadProgress {
  /** The file that is being read, by its path in the checkpoint. */
  file: string;
  /** Bytes read so far, of all weight files. */
  loaded: number;
  /** Bytes of all weight files. */
  total: number;
}

export interface SampleOptions {
  /** What to draw. Default `""`. */
  prompt?: string;
  /** What to steer away from; used where `guidanceScale` is above 1. Default `""`. */
  negativePrompt?: string;
  /**
   * An integer from 0 to 2^64 - 1 (above 2^53, as a bigint). The same seed and options give the same picture,
   * the one that diffusers draws with `torch.Generator("cpu").manual_seed(seed)`. Default 0.
   */
  seed?: number | bigint;
  /** How many times the network is asked (diffusers' `num_inference_steps`). Default 25. */
  steps?: number;
  /** Weight g of classifier-free guidance, ε_u + g·(ε_c − ε_u). At 1 and below there is none. Default 7.5. */
  guidanceScale?: number;
  /** One of {@link ModelInfo.solvers}. Default: the one in the checkpoint's `scheduler_config.json`. */
  solver?: Solver | (string & {});
  /**
   * The content of a `scheduler_config.json`, used as it is in place of the checkpoint's own: `_class_name` says which
   * solver. Not together with `solver`, which keeps the checkpoint's settings.
   */
  scheduler?: Readonly<Record<string, unknown>>;
  /** Share of fresh noise in each DDIM step: 0 (the default) is deterministic, 1 is DDPM. */
  eta?: number;
  /** Pixels, a multiple of {@link ModelInfo.sizeMultiple}. Default: the model's own width. */
  width?: number;
  /** Pixels, likewise. Default: the model's own height. */
  height?: number;
  /** Stops the run after at most one more step and frees its memory. */
  signal?: AbortSignal;
}

export type Solver = "ddpm" | "ddim" | "euler" | "euler_ancestral" | "dpmpp_2m";

/** One step of the reverse process. */
export interface Step {
  /** 0 for the first step. */
  readonly index: number;
  /** How many steps the run has. */
  readonly total: number;
  /** t, the noise level that the network was told. */
  readonly timestep: number;
  /** The sample after this step, decoded. After the last step this is the picture. */
  readonly image: ImageData;
  /** x̂_0, the picture that the network expected in the end when it looked at this step's input, decoded. */
  readonly denoised: ImageData;
  /** How long the step took, decoding included. */
  readonly milliseconds: number;
}

/**
 * A run of the reverse process. It starts when it is first iterated or awaited, computes a step when one is asked for,
 * and can be gone through once. `for await` gives its steps, `await` its final picture (of the steps that are left, if
 * it was iterated before). Leaving the loop early frees the run. A run that is only awaited decodes only its last step.
 */
export interface Run extends AsyncIterable<Step>, PromiseLike<ImageData> {
  /** What the caller may want to know once the run has begun: words of the prompt that the model has no room for. */
  readonly warning: string | undefined;
  [Symbol.asyncIterator](): AsyncGenerator<Step, void, void>;
}

/** A loaded checkpoint. */
export class Pipeline {
  private constructor();
  /** Opens the checkpoint, which stays in the memory of its device until it is disposed. */
  static load(source: Source, options?: LoadOptions): Promise<Pipeline>;
  /** What this browser offers. Costs no download. */
  static capabilities(): Promise<Capabilities>;
  readonly info: ModelInfo;
  readonly device: DeviceInfo;
  /**
   * Prepares a run. A pipeline does one run at a time: starting a second one before the first has ended fails with
   * code `"busy"`. Every error, also that of a wrong option, comes when the run is iterated or awaited.
   */
  sample(options?: SampleOptions): Run;
  /** Frees everything. What is under way then fails with code `"disposed"`. Can be called again without harm. */
  dispose(): Promise<void>;
}

export interface DeviceInfo {
  readonly kind: "webgpu" | "cpu";
  /** The adapter's name, as far as the browser tells it. */
  readonly name: string;
  /** Why this device, as the end of a sentence: "this browser has no WebGPU". */
  readonly reason: string;
}

export interface Capabilities {
  /** What `device: "auto"` takes. */
  readonly auto: DeviceInfo;
  /** Whether `device: "webgpu"` can work. */
  readonly webgpu: boolean;
}

/** What a checkpoint is. */
export interface ModelInfo {
  /** The pipeline's `_class_name`, such as `"StableDiffusionPipeline"`. */
  readonly class: string;
  /** The `_class_name` of its own scheduler. */
  readonly scheduler: string;
  /** What can be asked for in its place. */
  readonly solvers: readonly Solver[];
  /** Whether a prompt means anything to it. */
  readonly takesPrompt: boolean;
  /** The most tokens that a prompt can have, with the two that open and close it. */
  readonly maxTokens: number;
  /** Pixels that it was trained at. */
  readonly width: number;
  /** Pixels that it was trained at. */
  readonly height: number;
  /** Both sides of a picture have to be multiples of this. */
  readonly sizeMultiple: number;
  /** Bytes of all weight files. */
  readonly bytes: number;
}

export type ErrorCode =
  /** A file of the checkpoint is not there. */
  | "file-missing"
  /** A file ends too early. */
  | "file-truncated"
  /** A file's contents break the rules of its format. */
  | "file-corrupt"
  /** A chosen file cannot be read (any more). */
  | "file-unreadable"
  /** A file could not be fetched, or its connection broke and could not be resumed. */
  | "network"
  /** A weight is missing, or has another shape than the model's configuration calls for. */
  | "shape-mismatch"
  /** The checkpoint asks for something that this version does not do. */
  | "unsupported"
  /** An option's name, type or value. */
  | "invalid-option"
  /** There is no WebGPU adapter, or it would not open a device. */
  | "no-gpu"
  /** The GPU went away. Load the pipeline again. */
  | "device-lost"
  /** The GPU's memory, or a limit of its, is too small. */
  | "out-of-memory"
  /** The GPU refused a kernel. */
  | "gpu"
  /** The network computed an infinity or something that is not a number. */
  | "non-finite"
  /** Another run of this pipeline has not ended. */
  | "busy"
  /** The pipeline was disposed. */
  | "disposed"
  /** The worker could not be started, or crashed. */
  | "worker-failed"
  /** The signal was aborted, or the run was left. */
  | "aborted"
  /** A defect of this package. */
  | "internal";

export interface ErrorDetails {
  /** The file concerned, by its path in the checkpoint. */
  file?: string;
  /** The tensor concerned, or the layer. */
  tensor?: string;
  /** The option concerned. */
  option?: string;
  /** The device's limit that was exceeded, in bytes. */
  limit?: number;
  cause?: unknown;
}

/** Every error of this package. Its message says what happened and what can be done. */
export class UndiffuseError extends Error {
  constructor(code: ErrorCode, message: string, details?: ErrorDetails);
  readonly code: ErrorCode;
  readonly file: string | undefined;
  readonly tensor: string | undefined;
  readonly option: string | undefined;
  readonly limit: number | undefined;
}

/** Codes `file-*` and `network`: a file could not be read, or is not what it should be. */
export class SourceError extends UndiffuseError {}
/** Codes `shape-mismatch` and `unsupported`: the checkpoint cannot be run. */
export class ModelError extends UndiffuseError {}
/** Codes `no-gpu`, `device-lost`, `out-of-memory`, `gpu` and `non-finite`. */
export class DeviceError extends UndiffuseError {}
/** Code `invalid-option`. */
export class OptionError extends UndiffuseError {}
/** Code `aborted`; `name` is `"AbortError"`, as of the platform's own. */
export class AbortError extends UndiffuseError {}
/** Codes `busy`, `disposed` and `worker-failed`. */
export class StateError extends UndiffuseError {}
