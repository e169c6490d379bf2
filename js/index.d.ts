/**
 * Runs the reverse process of diffusion models in the browser: a checkpoint in diffusers' folder layout is opened as it
 * is, and every x_t on the way from noise to the picture can be seen.
 *
 * ```js
 * const pipeline = await Pipeline.load("models/emoji64/");
 * for await (const step of pipeline.sample({ prompt: "panda, fluent flat style", seed: 7 })) {
 *   context.putImageData(step.image, 0, 0);
 * }
 * await pipeline.dispose();
 * ```
 */

/**
 * Where a checkpoint's files are.
 * - A URL (relative to the page): of its folder, of a single `.safetensors` or `.gguf` file, or of its page on
 *   huggingface.co (`https://huggingface.co/org/name`, also with `/tree/<revision>` or `/blob/<revision>/<file>`).
 * - What the user picked: a file, the files of a folder (`<input webkitdirectory>`), or a handle of either.
 * - Blobs by their path in the folder (`unet/config.json`).
 */
export type Source =
  string | URL | File | Iterable<File> | Map<string, Blob> | FileSystemDirectoryHandle | FileSystemFileHandle;

/**
 * A picture in any form that a browser has for one. A URL is fetched, under the rules for other sites' files.
 *
 * A file (a URL too, whose file is fetched) gives the colours that it stores, also where they are transparent: alpha, gamma and colour
 * profiles are left out of account, and it is turned as its orientation in EXIF or XMP says. That is what Pillow's `exif_transpose` and
 * `convert("RGB")` make of it. A transparent file that is no PNG needs WebGL, and a transparent GIF is refused. An image element gives
 * what the browser shows, which of a PNG of 16 bits may be a level beside that; only where it is transparent is its file fetched.
 * A canvas or an ImageBitmap has no more than the browser left of its transparent colours.
 */
export type PictureSource =
  Blob | ImageData | ImageBitmap | HTMLImageElement | HTMLCanvasElement | OffscreenCanvas | string | URL;

export interface LoadOptions {
  /**
   * `"auto"` (the default) takes WebGPU where there is a real adapter for it, and else the CPU: see
   * {@link Pipeline.device}. `"webgpu"` insists, even on a software adapter, and fails where there is none.
   */
  device?: "auto" | "webgpu" | "cpu" | undefined;
  /** How the CPU computes, where it is the device. */
  cpu?: CpuOptions | undefined;
  /** Called while weights arrive, about twenty times a second, and where they have to be waited for. */
  onProgress?: ((progress: LoadProgress) => void) | undefined;
  /**
   * Ends the load and its downloads; the promise then rejects with an {@link AbortError}, whose `cause` is the signal's reason.
   */
  signal?: AbortSignal | undefined;
  /**
   * `true` (the default): a worker of the pipeline's own, so that the page stays responsive. `false`: this very thread.
   * A `Worker` that runs this package's `worker.js` can be passed where a bundler or a policy wants to make it itself.
   */
  worker?: boolean | Worker | undefined;
  /**
   * Where the WebAssembly module comes from, if not from `internal/undiffuse_bg.wasm` (for a {@link FeatureExtractor},
   * `internal/undiffuse_features_bg.wasm`) beside this package: its URL,
   * its bytes, or the compiled module. The first load on a thread decides for all later ones.
   */
  wasm?: string | URL | BufferSource | WebAssembly.Module | undefined;
  /**
   * The URL of CLIP's `merges.txt`, if not of `internal/merges.txt` beside this package. It is fetched for checkpoints
   * in one file only, which bring no tokenizer.
   */
  vocabulary?: string | URL | undefined;
  /**
   * The URL of the kernels of WebGPU, if not of `internal/shaders.txt` beside this package. They are fetched only if the device is a
   * GPU.
   */
  shaders?: string | URL | undefined;
  /**
   * Which of several sets of weights: with `"fp16"`, `diffusion_pytorch_model.fp16.safetensors` is read in place of
   * `diffusion_pytorch_model.safetensors`. Default: the plain ones, or the only ones that are there.
   */
  variant?: string | undefined;
  /**
   * The file of the UNet's weights in place of the folder's own, by its path in the folder (`"unet-q8_0.gguf"`); under
   * diffusers' names or those of the original code.
   */
  unet?: string | undefined;
  /**
   * An autoencoder in place of the checkpoint's own, or where it has none: a file of weights, under diffusers' names or those of the
   * original code; a folder with one; or another checkpoint, whose autoencoder is taken.
   */
  vae?: Source | undefined;
  /** What the network of a checkpoint in one file predicts, where the file does not say so. */
  predictionType?: "epsilon" | "v_prediction" | undefined;
  /** An AutoencoderTiny (such as TAESD) for previews, a folder with its `config.json` and weights. */
  tinyVae?: Source | undefined;
  /**
   * Which matrix kernels a GPU runs, to compare them: with tiles in registers, or tiled in workgroup memory, the tile given or
   * not. Default: those that suit the adapter.
   */
  kernels?:
    | "registers"
    | "tiled"
    | "tiled-128x64"
    | "tiled-64x64"
    | "tiled-64x32"
    | "tiled-64x64-lean"
    | "tiled-64x32-lean"
    | undefined;
  /** LoRAs to begin with; {@link Pipeline.setLoras} changes them. */
  loras?: readonly Lora[] | undefined;
}

/** How networks run on the CPU. */
export interface CpuOptions {
  /**
   * The most threads, the pipeline's own worker among them. Default: as many as the machine has cores, up to 8. More than one
   * needs a page that is cross-origin isolated, that is, served with the headers `Cross-Origin-Opener-Policy: same-origin`
   * and `Cross-Origin-Embedder-Policy: require-corp`, and a pipeline in a worker; else there is one. Results do not depend
   * on the number. See {@link DeviceInfo.threads}.
   */
  threads?: number | undefined;
  /**
   * `"auto"` (the default) takes fused multiply-adds where the browser has them (relaxed SIMD), which is faster and rounds
   * as this machine does. `"portable"`: the same bits on every machine and in every browser.
   */
  simd?: "auto" | "portable" | undefined;
  /**
   * The URL of the folder with the kernels' modules (`kernels_simd.wasm` and its siblings), if not `internal/` beside this package.
   */
  kernels?: string | URL | undefined;
}

/** A small change to a model's weights, in a file of its own: as kohya's scripts, peft or diffusers write it. */
export interface Lora {
  /**
   * The file, or the folder that PEFT or diffusers has saved it in. An `adapter_config.json` beside the file is read where the
   * file does not say its alpha; pass both where these are files that were picked.
   */
  source: Source;
  /** How much of it is added, 1 by default; below 0 it is subtracted. */
  weight?: number | undefined;
}

export interface LoadProgress {
  /** The file that is being read, by its path in the checkpoint. */
  file: string;
  /** Bytes read so far, of all weight files. */
  loaded: number;
  /** Bytes of all weight files. */
  total: number;
  /** Why nothing arrives at the moment, in words: the server is busy, or the connection broke and is taken up again. */
  waiting?: string | undefined;
}

/**
 * What to draw and how, under diffusers' names. An option that means nothing to the model that is loaded is refused.
 */
export interface SampleOptions {
  // <SampleOptions: written by `cargo xtask generate` from src/pipeline/options/table.rs>
  /**
   * Prompt: a text that says what to draw, or several, which are drawn at once. Models without a text encoder take the
   * empty one only. Default `""`.
   */
  prompt?: string | readonly string[] | undefined;
  /** SDXL: prompt for the second text encoder; the same as the first's if absent. */
  prompt2?: string | readonly string[] | undefined;
  /**
   * Negative prompt: a text that says what to stay away from, or one for each prompt; without effect at a
   * `guidanceScale` of 1 or below. Absent is not empty to SDXL, which then takes an embedding of zeros.
   */
  negativePrompt?: string | readonly string[] | undefined;
  /** SDXL: negative prompt for the second text encoder; the same as the first's if absent. */
  negativePrompt2?: string | readonly string[] | undefined;
  /** Number of pictures of each prompt, which are drawn all at once. Default 1. */
  numImagesPerPrompt?: number | undefined;
  /**
   * Seed of the one random stream that all pictures of the run share. The same seed and options give the same pictures,
   * the ones that diffusers draws with `torch.Generator("cpu").manual_seed(seed)`. Default 0.
   */
  seed?: number | bigint | undefined;
  /**
   * A seed for each picture in place of one for all, as many as there are pictures. Each draws from a stream of its
   * own, and is the picture that it would be alone.
   */
  seeds?: readonly (number | bigint)[] | undefined;
  /**
   * Random stream of torch's that the seeds are for.
   * - `"cpu"`, the default: `torch.Generator("cpu")`.
   * - `"cuda"`: `torch.Generator("cuda")`.
   */
  generator?: "cpu" | "cuda" | undefined;
  /**
   * Number of steps, diffusers' `num_inference_steps`. Where the scheduler's `steps_offset` has no room in so many, as
   * with all T steps of DDPM, as much of it is left out as does not fit: diffusers cannot run these. From and to how
   * many, {@link ModelInfo.solverSteps} says. Default 25.
   */
  steps?: number | undefined;
  /** Timesteps to visit in place of `steps`, descending, for solvers that take them. */
  timesteps?: readonly number[] | undefined;
  /**
   * Noise levels σ to visit in place of `steps`, descending, for solvers that take them; Euler's with the one where it
   * arrives.
   */
  sigmas?: readonly number[] | undefined;
  /**
   * LCM: steps of the schedule that the model was distilled from; what its scheduler says if absent. TCD: the most
   * steps of a run that may visit any timestep.
   */
  originalInferenceSteps?: number | undefined;
  /**
   * Guidance scale, how strongly the prompt is followed: g in ε_u + g·(ε_c − ε_u). At 1 or below there is no guidance,
   * and a step takes half the time. Default 7.5.
   */
  guidanceScale?: number | undefined;
  /**
   * Share, from 0 to 1, by which the guided prediction is brought back to the spread of the one that the prompt gives.
   * Lin et al. 2023, arXiv 2305.08891. Default 0.
   */
  guidanceRescale?: number | undefined;
  /**
   * Solver that walks from noise to picture, with the checkpoint's settings; the one that the checkpoint was saved with
   * if absent. A name such as "DPM++ 2M SDE Karras" says settings, too. {@link ModelInfo.solvers} lists plain names.
   */
  solver?: Solver | (string & {}) | undefined;
  /**
   * Scheduler as a `scheduler_config.json` has it, used as it is in place of the checkpoint's own: `_class_name` names
   * the solver. Not together with `solver`.
   */
  scheduler?: Readonly<Record<string, unknown>> | undefined;
  /**
   * Karras' spacing: true if σ is spaced evenly in σ^(1/7), false if not, whatever the checkpoint says. Its scheduler's
   * config decides if absent.
   */
  useKarrasSigmas?: boolean | undefined;
  /**
   * Exponential spacing: true if σ is spaced evenly in log σ, false if not, whatever the checkpoint says. Its
   * scheduler's config decides if absent.
   */
  useExponentialSigmas?: boolean | undefined;
  /**
   * Beta spacing: true if σ is spaced by quantiles of a Beta distribution, false if not, whatever the checkpoint says.
   * Its scheduler's config decides if absent.
   */
  useBetaSigmas?: boolean | undefined;
  /** Equation that dpmpp_2m and dpmpp_2s solve: dpmsolver++, sde-dpmsolver++, dpmsolver or sde-dpmsolver. */
  algorithmType?: "dpmsolver++" | "sde-dpmsolver++" | "dpmsolver" | "sde-dpmsolver" | (string & {}) | undefined;
  /** Number of predictions that a step of dpmpp_2m, dpmpp_2s, unipc or deis takes into account. */
  solverOrder?: number | undefined;
  /**
   * DDIM's and TCD's η: the share of DDPM's noise that each step adds, from 0 (deterministic) to 1 (ancestral). Other
   * solvers pay no heed to it. Default 0.
   */
  eta?: number | undefined;
  /** DDIM: true if ε is computed anew from the clipped x̂_0. Default false. */
  useClippedModelOutput?: boolean | undefined;
  /**
   * Width in pixels; if absent that of `image` where there is one and no `mask`, or else the model's own. A multiple of
   * {@link ModelInfo.sizeMultiple}.
   */
  width?: number | undefined;
  /**
   * Height in pixels; if absent that of `image` where there is one and no `mask`, or else the model's own. A multiple
   * of {@link ModelInfo.sizeMultiple}.
   */
  height?: number | undefined;
  /** Picture to begin with, to fill or to enlarge. See {@link ModelInfo.takesImage}. */
  image?: PictureSource | undefined;
  /** Mask of `image`: white is drawn anew, black stays. As large as `image`, or brought to its size. */
  mask?: PictureSource | undefined;
  /**
   * Share of the schedule to walk, from a little above 0 to 1, which forgets `image`. If absent 0.8, or 1 if there is a
   * `mask`; for SDXL 0.3, or 0.9999 if there is one.
   */
  strength?: number | undefined;
  /**
   * Timestep of training to begin at in place of `strength`, whether or not a run would visit it: x_t of `image` there,
   * √ᾱ_t·x_0 + √(1−ᾱ_t)·ε in the scale of the solver, and then the timesteps below it that a run would visit. Draws are
   * those of `strength`, and where that begins at the same timestep the run is the same. Models without an autoencoder
   * take a picture for this alone. The run begins at the x_t that {@link ForwardProcess.at} shows of `image` and
   * `seed`.
   */
  startTimestep?: number | undefined;
  /** Upscaler: level of the noise that is added to `image` before it is enlarged; 20 if absent. */
  noiseLevel?: number | undefined;
  /** Number of the text encoder's last layers to leave out; as the model was trained if absent. */
  clipSkip?: number | undefined;
  /**
   * Treatment of a prompt that is longer than the text encoder. {@link Run.warning} is that warning.
   * - `"cut"`, the default: The rest is dropped, and named in a warning.
   * - `"chunks"`: The prompt is encoded in several parts.
   */
  longPrompts?: "cut" | "chunks" | undefined;
  /** SDXL: size that the picture is said to have had before it was scaled; the run's if absent. */
  originalSize?: readonly [height: number, width: number] | undefined;
  /** SDXL: distance from the top and the left at which the picture is said to have been cropped. Default [0, 0]. */
  cropsCoordsTopLeft?: readonly [top: number, left: number] | undefined;
  /** SDXL: size that the picture is said to have been made for; the run's if absent. */
  targetSize?: readonly [height: number, width: number] | undefined;
  /**
   * SDXL: `originalSize` for the negative prompt; a run from noise takes it together with `negativeTargetSize` only.
   */
  negativeOriginalSize?: readonly [height: number, width: number] | undefined;
  /**
   * SDXL: `cropsCoordsTopLeft` for the negative prompt, where both its sizes are given. A run that begins with a
   * picture has one crop for both prompts, as in diffusers. Default [0, 0].
   */
  negativeCropsCoordsTopLeft?: readonly [top: number, left: number] | undefined;
  /**
   * SDXL: `targetSize` for the negative prompt; a run from noise takes it together with `negativeOriginalSize` only.
   */
  negativeTargetSize?: readonly [height: number, width: number] | undefined;
  /**
   * Pictures of a step that are shown; those of the last are always decoded.
   * - `"auto"`, the default: `"tiny"` where there is a tiny autoencoder, or else `"linear"`.
   * - `"decode"`: By the model's own decoder, which may take longer than the step.
   * - `"tiny"`: By {@link LoadOptions.tinyVae}.
   * - `"linear"`: By a map from latents to colours, fitted to the decoder: soft, and next to free.
   * - `"none"`: No pictures before the last.
   */
  preview?: PreviewMode | undefined;
  /**
   * True if pictures pass through the autoencoder in tiles even where the whole would fit the device, which takes less
   * memory and gives a slightly different picture. Default false.
   */
  vaeTiling?: boolean | undefined;
  // </SampleOptions>
  /**
   * Whether the run begins with x_T itself (from a picture, with the x_t that it begins at), as a {@link BareStep} with index -1
   * and no x̂_0. Default false.
   */
  includeInitial?: boolean | undefined;
  /** Stops the run, on the CPU also in the middle of a step, and frees its memory. */
  signal?: AbortSignal | undefined;
}

export type PreviewMode = "auto" | "decode" | "tiny" | "linear" | "none";

export type Solver =
  | "ddpm"
  | "ddim"
  | "pndm"
  | "lms"
  | "euler"
  | "euler_ancestral"
  | "heun"
  | "dpm2"
  | "dpm2_ancestral"
  | "dpmpp_2m"
  | "dpmpp_2s"
  | "unipc"
  | "deis"
  | "lcm"
  | "tcd"
  | "flow_euler";

/** One step of the reverse process, where it may come without pictures (`preview: "none"`). */
export interface BareStep {
  /** 0 for the first step; -1 for x_T, see {@link SampleOptions.includeInitial}. */
  readonly index: number;
  /** How many steps the run has: a solver that asks the network twice takes two. */
  readonly total: number;
  /** t, the noise level that the network was told. */
  readonly timestep: number;
  /** The sample after this step, of every picture that is drawn. After the last step these are the pictures. */
  readonly images: readonly ImageData[];
  /**
   * x̂_0, the pictures that the network expected in the end when it looked at this step's input.
   */
  readonly denoisedImages: readonly ImageData[];
  /** The first of `images`. */
  readonly image: ImageData | undefined;
  /** The first of `denoisedImages`. */
  readonly denoised: ImageData | undefined;
  /** How long the step took, decoding included. */
  readonly milliseconds: number;
}

/** One step of the reverse process. */
export interface Step extends BareStep {
  readonly image: ImageData;
  readonly denoised: ImageData;
}

/**
 * A run of the reverse process. It starts when it is first iterated or awaited, computes a step when one is asked for,
 * and can be gone through once. `for await` gives its steps, `await` its final picture, the first if it draws several
 * (of the steps that are left, if it was iterated before). Leaving the loop early frees the run. A run that is only
 * awaited decodes only its last step.
 */
export interface Run<S extends BareStep = Step> extends AsyncIterable<S>, PromiseLike<ImageData> {
  /**
   * What the caller may want to know once the run has begun: words of the prompt that the model has no room for, and sees with
   * `longPrompts: "chunks"`, and timesteps that are not quite those of the scheduler.
   */
  readonly warning: string | undefined;
  /** All final pictures, as `await` gives the first: prompt after prompt. */
  images(): Promise<readonly ImageData[]>;
  /** As of a promise for the final picture: like `await`, it makes the steps that are left. */
  catch<F = never>(onRejected?: ((error: any) => F | PromiseLike<F>) | null): Promise<ImageData | F>;
  /** As of a promise for the final picture: like `await`, it makes the steps that are left. */
  finally(onFinally?: (() => void) | null): Promise<ImageData>;
  [Symbol.asyncIterator](): AsyncGenerator<S, void, void>;
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
  sample(options: SampleOptions & { includeInitial: true }): Run<BareStep>;
  sample(options?: SampleOptions & { preview?: Exclude<PreviewMode, "none"> | undefined }): Run;
  sample(options: SampleOptions): Run<BareStep>;
  /**
   * Prepares the forward process of a picture. Fails with code `"busy"` in the middle of a run.
   */
  forwardProcess(options: ForwardOptions): Promise<ForwardProcess>;
  /**
   * Prepares the variational bound of pictures. Like a run, it takes the pipeline for itself, and every error comes when it is
   * iterated or awaited.
   */
  bound(options: BoundOptions): Bound;
  /**
   * The noise schedule, and the steps that a run with these options makes if it begins with noise. No network is asked.
   */
  schedule(options?: ScheduleOptions): Promise<Schedule>;
  /**
   * Measures the first step of a run with these options: where its time goes, next to what this device can do at most.
   * Takes as long as some tens of steps, and the device's own measurement the first time. Fails with code `"busy"` in
   * the middle of a run.
   */
  profile(options?: SampleOptions): Promise<Profile>;
  /**
   * Says what a run with these options takes before it is made: nothing is compiled or computed for it. Waits for its turn behind
   * what the pipeline is computing; can be asked in the middle of a run.
   */
  estimate(options?: SampleOptions): Promise<RunEstimate>;
  /**
   * Merges LoRAs into the weights, in place of those that were. `[]` takes all out again, to the last bit. A file that
   * is in use already is not read again. Fails with code `"busy"` in the middle of a run; then, and if it is aborted, nothing has
   * changed.
   */
  setLoras(loras: readonly Lora[], options?: { signal?: AbortSignal | undefined }): Promise<void>;
  /** What of the LoRAs in use is not used, and what of them had to be guessed, in sentences. */
  readonly loraNotes: readonly string[];
  /** Frees everything. What is under way is stopped and fails with code `"disposed"`. Can be called again without harm. */
  dispose(): Promise<void>;
  /** `dispose`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What a run takes. */
export interface RunEstimate {
  /** How often the network is asked: as often as {@link Schedule.steps} are, of which some solvers have two for a step. */
  readonly calls: number;
  /** Floating point operations of the whole run, its pictures included. */
  readonly flop: number;
  /**
   * How long that takes on this device, by its last step; on a CPU before the first one by a short measurement, which is right
   * to a factor of about two. Undefined on a GPU that has not made a step with a picture yet.
   */
  readonly seconds: number | undefined;
}

/** What the forward process is of, and what the network is told where it is asked. */
export interface ForwardOptions {
  // <ForwardOptions: written by `cargo xtask generate` from src/pipeline/options/table.rs>
  /** The picture x_0, before it is encoded. Alpha is dropped, and colours too where the model is grey. */
  image: PictureSource;
  /**
   * Space in which noise is added.
   * - `"latents"`, the default: The space that the model works in: latents where it has an autoencoder, else pixels.
   * - `"pixels"`: The pixels of the picture, whatever the model works on.
   */
  space?: "latents" | "pixels" | undefined;
  /**
   * Seed of ε, which is the same for every t, and before it of the draw from what the autoencoder makes of the picture:
   * those of a run. Default 0.
   */
  seed?: number | bigint | undefined;
  /**
   * Random stream of torch's that the seed is for.
   * - `"cpu"`, the default: `torch.Generator("cpu")`.
   * - `"cuda"`: `torch.Generator("cuda")`.
   */
  generator?: "cpu" | "cuda" | undefined;
  /** Solver whose scale x_t has, as of a run: some hold x_0 + σ·ε. The checkpoint's own if absent. */
  solver?: Solver | (string & {}) | undefined;
  /** Scheduler as a `scheduler_config.json` has it, in place of the checkpoint's own. */
  scheduler?: Readonly<Record<string, unknown>> | undefined;
  /** Prompt that the network is told; models without a text encoder take the empty one only. Default `""`. */
  prompt?: string | undefined;
  /** Negative prompt, the other side of guidance. Absent is not empty to SDXL, as in a run. */
  negativePrompt?: string | undefined;
  /** Guidance scale: g in ε_u + g·(ε_c − ε_u). At 1 or below the network is shown as it was trained. Default 1. */
  guidanceScale?: number | undefined;
  /**
   * Width in pixels. If absent that of the picture, and for a model that works on pixels its own: as in a run from a
   * picture. That of the picture is rounded down to a multiple of {@link ModelInfo.sizeMultiple}.
   */
  width?: number | undefined;
  /**
   * Height in pixels. If absent that of the picture, and for a model that works on pixels its own: as in a run from a
   * picture. That of the picture is rounded down to a multiple of {@link ModelInfo.sizeMultiple}.
   */
  height?: number | undefined;
  /**
   * Way by which latents become pictures; there always is a picture.
   * - `"auto"`, the default: `"tiny"` where there is a tiny autoencoder, or else `"linear"`.
   * - `"decode"`: By the model's own decoder.
   * - `"tiny"`: By {@link LoadOptions.tinyVae}.
   * - `"linear"`: By a map from latents to colours, fitted to the decoder: soft, and next to free.
   */
  preview?: Exclude<PreviewMode, "none"> | undefined;
  // </ForwardOptions>
  signal?: AbortSignal | undefined;
}

/**
 * The forward process of one picture, x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε, at any t, with one ε for all. It is in the way of runs
 * (code `"busy"`) until it is disposed.
 */
export interface ForwardProcess {
  /** T: timesteps are 0 to T - 1. */
  readonly numTrainTimesteps: number;
  /** `[1, channels, height, width]` of x_t. */
  readonly shape: readonly number[];
  /** x_t; or with null x_0, which in pixels is the picture itself, to the last bit. */
  at(timestep: number | null, options?: { signal?: AbortSignal | undefined }): Promise<Noised>;
  /** Asks the network once, at x_t. Fails with code `"invalid-option"` in the pixels of a model that lives in latents. */
  predict(timestep: number, options?: { signal?: AbortSignal | undefined }): Promise<Prediction>;
  /** Frees what it holds. Can be called again without harm. */
  dispose(): Promise<void>;
  /** `dispose`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A picture with noise. */
export interface Noised {
  /** t, or null for x_0. */
  readonly timestep: number | null;
  /** x_t as a picture; decoded, where it is one of latents. */
  readonly image: ImageData;
  /** x_t itself, `[channels, height, width]`. */
  readonly sample: Float32Array;
}

/** What the network makes of an x_t. */
export interface Prediction {
  readonly timestep: number;
  /** ε̂, the noise that it sees, as a picture. */
  readonly noise: ImageData;
  /** x̂_0, the picture that it expects. */
  readonly denoised: ImageData;
  /** The mean of (ε - ε̂)² over all values: what it was trained to make small. */
  readonly error: number;
  /** What the caller may want to know: words of the prompt that the model has no room for. */
  readonly warning: string | undefined;
}

/** Whose variational bound to compute, and how. */
export interface BoundOptions {
  // <BoundOptions: written by `cargo xtask generate` from src/pipeline/options/table.rs>
  /** Picture, which is brought to the model's own size, or to `width` and `height`. */
  image?: PictureSource | undefined;
  /** Several pictures, in place of `image`: each gets a bound. */
  images?: readonly PictureSource[] | undefined;
  /**
   * Prompt that the network is told, one for all pictures or one for each; models without a text encoder take the empty
   * one only. Default `""`.
   */
  prompt?: string | readonly string[] | undefined;
  /**
   * Negative prompt, the other side of guidance; used at a `guidanceScale` above 1. Absent is not empty to SDXL, as in
   * a run.
   */
  negativePrompt?: string | readonly string[] | undefined;
  /**
   * Guidance scale: g in ε_u + g·(ε_c − ε_u). At 1 or below there is no guidance, and the bound is that of the model as
   * it was trained. Default 1.
   */
  guidanceScale?: number | undefined;
  /**
   * Timesteps whose terms are computed; all of them if absent, which is the bound itself. Without 0 it is not
   * estimated.
   */
  timesteps?: readonly number[] | undefined;
  /**
   * Number of terms to compute in place of all: that of t = 0, and others the farther apart the larger t is, since
   * terms fall about as 1/t. The bound is estimated from these, with a standard error that is rather too large than too
   * small.
   */
  terms?: number | undefined;
  /**
   * True if each of the `terms` is drawn from its part of the timesteps by the seed, in place of the part's middle: the
   * estimate is then right on average over seeds. Default false.
   */
  random?: boolean | undefined;
  /**
   * Variance σ_t² of the model's step; if absent the one that the checkpoint's scheduler names, or else that of
   * `"fixed_small"`.
   * - `"fixed_small"`: The variance of the true step, which knows the picture.
   * - `"fixed_large"`: β_t.
   * - `"learned"`: The network's own.
   * - `"learned_range"`: The network's, between the first two.
   */
  variance?: "fixed_small" | "fixed_large" | "learned" | "learned_range" | undefined;
  /**
   * True if x̂_0 is clamped to −1..1, where pixels lie, before the mean is formed. Latents lie anywhere and are never
   * clamped. Default true.
   */
  clipDenoised?: boolean | undefined;
  /**
   * Seed of the noise. That of the term at t is `torch.randn((pictures, channels, height, width),
   * generator=manual_seed(seed + t))`. Default 0.
   */
  seed?: number | bigint | undefined;
  /**
   * True if latents are drawn from the distribution that the autoencoder makes of a picture, by the noise of
   * `manual_seed(seed + T)`, rather than its mean. Default false.
   */
  samplePosterior?: boolean | undefined;
  /**
   * Width in pixels that every picture is brought to; that of the model if absent. A multiple of
   * {@link ModelInfo.sizeMultiple}.
   */
  width?: number | undefined;
  /**
   * Height in pixels that every picture is brought to; that of the model if absent. A multiple of
   * {@link ModelInfo.sizeMultiple}.
   */
  height?: number | undefined;
  // </BoundOptions>
  /** Ends it, on the CPU also in the middle of a term, and frees its memory. */
  signal?: AbortSignal | undefined;
}

/** One term of the bound, in bits per dimension. */
export interface BoundTerm {
  /** 0 for the first that is computed, which is L_T; the others follow by descending t. */
  readonly index: number;
  /** How many are computed. */
  readonly total: number;
  /**
   * `"L_T"`, what is left of the picture in x_T; `"L_t"`, how far the model's step is from the true one; or `"L_0"`, what it
   * costs to tell the data from the last sample.
   */
  readonly term: "L_T" | "L_t" | "L_0";
  /** t of the call of the network; null for L_T, which asks none. */
  readonly timestep: number | null;
  /** How many terms of the bound it stands for: 1, or more where not all are computed. */
  readonly standsFor: number;
  /** Of each picture. */
  readonly bitsPerDim: readonly number[];
  /** The mean over the pictures. */
  readonly mean: number;
  /** The standard error of that mean; null with one picture. */
  readonly errorOfPictures: number | null;
  /** How long it took. */
  readonly milliseconds: number;
}

/** The whole bound. */
export interface BoundSummary {
  /**
   * Whether it is the bound of the latents, in which the network lives, rather than of pixels: then L_0 is by a density, and
   * neither it nor the whole can be compared with those of pixels, or need be above 0.
   */
  readonly ofLatents: boolean;
  /** Dimensions of the data: channels · height · width. */
  readonly dimensions: number;
  /** T. */
  readonly numTrainTimesteps: number;
  /** The variance of the model's step. */
  readonly variance: NonNullable<BoundOptions["variance"]>;
  /** Whether x̂_0 was clamped. */
  readonly clipDenoised: boolean;
  /** All terms that were computed, in their order. */
  readonly terms: readonly Omit<BoundTerm, "index" | "total" | "milliseconds">[];
  /** Their sum; null where L_0 was not asked for, which no other term says anything about. */
  readonly total: BoundTotal | null;
}

/** L_T + L_0 + Σ L_t in bits per dimension, where each term that was computed stands for those that were not. */
export interface BoundTotal {
  /** Of each picture. */
  readonly bitsPerDim: readonly number[];
  /** The mean over the pictures. */
  readonly mean: number;
  /** The standard error because not every term was computed: 0 where all were, null where it cannot be known. */
  readonly errorOfTimesteps: number | null;
  /** The standard error of the mean, as one of all pictures that these could be; null with one picture. */
  readonly errorOfPictures: number | null;
}

/**
 * A bound that is computed term by term, like a {@link Run}: it starts when it is first iterated or awaited, `for await` gives
 * its terms, `await` the whole. It can be gone through once. Leaving the loop early frees it.
 */
export interface Bound extends AsyncIterable<BoundTerm>, PromiseLike<BoundSummary> {
  /** What the caller may want to know once it has begun: words of the prompt that the model has no room for. */
  readonly warning: string | undefined;
  /** As of a promise for the whole: like `await`, it computes the terms that are left. */
  catch<F = never>(onRejected?: ((error: any) => F | PromiseLike<F>) | null): Promise<BoundSummary | F>;
  /** As of a promise for the whole: like `await`, it computes the terms that are left. */
  finally(onFinally?: (() => void) | null): Promise<BoundSummary>;
  [Symbol.asyncIterator](): AsyncGenerator<BoundTerm, void, void>;
}

/** What of {@link SampleOptions} says which solver it is and which steps it makes. */
// <ScheduleOptions: written by `cargo xtask generate` from src/pipeline/options/table.rs>
export type ScheduleOptions = Pick<
  SampleOptions,
  | "steps"
  | "timesteps"
  | "sigmas"
  | "originalInferenceSteps"
  | "solver"
  | "scheduler"
  | "useKarrasSigmas"
  | "useExponentialSigmas"
  | "useBetaSigmas"
  | "algorithmType"
  | "solverOrder"
  | "eta"
  | "useClippedModelOutput"
  | "signal"
>;
// </ScheduleOptions>

/** The noise schedule of a model, and a solver's way through it: the reverse process as a table. */
export interface Schedule {
  /** The solver's class in diffusers, such as `"DDIMScheduler"`. */
  readonly class: string;
  /** T: the timesteps that the network was trained with are 0 to T - 1. */
  readonly numTrainTimesteps: number;
  /** β_t for t = 0 … T - 1, the variance that one training timestep adds. Empty for rectified flow. */
  readonly betas: Float32Array;
  /**
   * ᾱ_t = ∏ (1 - β_s) for t = 0 … T - 1, the share of the picture's variance that is left in
   * x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε; its ratio of signal to noise is ᾱ_t / (1 - ᾱ_t). Empty for rectified flow.
   */
  readonly alphasCumprod: Float32Array;
  /** One for each call of the network, from noise to picture. */
  readonly steps: readonly SolverStep[];
  /** How many calls of the network make one of the steps that `steps` asks for: 1, or 2 in Heun's method and DPM2. */
  readonly order: number;
  /** x_T is this times a standard normal. */
  readonly initNoiseSigma: number;
  /** The timestep of every call. */
  readonly timesteps: readonly number[];
  /** σ at every call, and where the last one arrives; empty for solvers that have none. */
  readonly sigmas: readonly number[];
}

/** One call of the network and the update after it: every tensor is a sum of others, with these coefficients. */
export interface SolverStep {
  /** What the network is told; a fraction in some solvers. */
  readonly timestep: number;
  /** The network's input is this times x_t. */
  readonly inputScale: number;
  /** x̂_0 as a sum of x_t and the network's output, before it is clipped. */
  readonly x0: readonly [sample: number, modelOutput: number];
  /** What happens to x̂_0: it is clamped to ± `range`, or thresholded as Imagen does. */
  readonly clip: "none" | { readonly range: number } | { readonly threshold: { ratio: number; maxValue: number } };
  /** The next sample, x_{t-1}. */
  readonly prevSample: Terms;
  /** What each slot of the solver's memory holds after this step. */
  readonly history: readonly Terms[];
  /** Whether fresh noise is drawn. */
  readonly drawsNoise: boolean;
  /** How the network's second half becomes the deviation of the noise, in models that have learned it. */
  readonly learnedVariance?: "learned" | { readonly learnedRange: { minLog: number; maxLog: number } };
  /** The forward process here: x_t as a sum of x_0 and ε. */
  readonly forward: readonly [signal: number, noise: number];
}

/** The coefficients of a sum of what a step has at hand. */
export interface Terms {
  /** Of x_t. */
  readonly sample: number;
  /** Of the network's output, after guidance. */
  readonly modelOutput: number;
  /** Of x̂_0, after clipping. */
  readonly x0: number;
  /** Of this step's fresh noise. */
  readonly noise: number;
  /** Of each slot of the solver's memory, as it was before this step. */
  readonly history: readonly number[];
}

/** How an extractor of features is loaded: as a pipeline is. */
export type FeatureLoadOptions = Pick<LoadOptions, "device" | "cpu" | "signal" | "worker" | "wasm" | "shaders">;

/**
 * A network that turns pictures into vectors of numbers, by which two sets of pictures are compared.
 *
 * ```js
 * const extractor = await FeatureExtractor.load("models/emoji-features/");
 * const real = await extractor.openStatistics("models/emoji-features/real.safetensors");
 * const drawn = await extractor.statistics();
 * for (let seed = 0; seed < 200; seed++) await drawn.add(await pipeline.sample({ prompt: "panda", seed }));
 * const { fid, fidStandardError } = await drawn.distance(real);
 * ```
 */
export class FeatureExtractor {
  private constructor();
  /**
   * Loads a network: a folder with the `config.json` and `model.safetensors` of an `EmojiClassifier`; or the InceptionV3 of
   * `pytorch-fid`, as `inception.safetensors` in a folder or alone.
   */
  static load(source: Source, options?: FeatureLoadOptions): Promise<FeatureExtractor>;
  readonly info: FeatureInfo;
  readonly device: DeviceInfo;
  /** A set of no pictures yet. */
  statistics(): Promise<Statistics>;
  /** A set that the command `undiffuse fid` has saved. */
  openStatistics(
    source: string | URL | File | FileSystemFileHandle,
    options?: { signal?: AbortSignal | undefined },
  ): Promise<Statistics>;
  /**
   * What is on a picture and how it is drawn, the most probable first. Fails with code `"unsupported"` for a network that was
   * made for features alone, as Inception is here.
   * @param options count: how many answers; default 5.
   */
  classify(
    image: PictureSource,
    options?: { count?: number | undefined; signal?: AbortSignal | undefined },
  ): Promise<Classification>;
  /** Frees everything, its statistics too. Can be called again without harm. */
  dispose(): Promise<void>;
  /** `dispose`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What an extractor is. Distances exist between sets of one extractor only. */
export interface FeatureInfo {
  /** `"emoji"` or `"inception-v3-fid"`. */
  readonly name: string;
  /** Tells its weights from others. */
  readonly fingerprint: string;
  /** Numbers that it makes of a picture. */
  readonly dimension: number;
  /** Height and width to which it brings pictures. */
  readonly side: number;
  /** How many pictures it takes at a time. */
  readonly batch: number;
}

/** A set of pictures as its extractor's features, in the extractor's worker. */
export interface Statistics {
  /** How many pictures it holds. */
  readonly count: number;
  /** Adds pictures; all of them, or if it fails or is aborted none. */
  add(images: PictureSource | readonly PictureSource[], options?: { signal?: AbortSignal | undefined }): Promise<void>;
  /**
   * How far these pictures are from real ones, of the same extractor. Takes two at least, and says little before there are
   * several times as many as {@link FeatureInfo.dimension}.
   * @param options errors: whether standard errors and KID are computed too, which takes some twenty times as long; default
   * true.
   */
  distance(real: Statistics, options?: { errors?: boolean | undefined }): Promise<Distance>;
  /** Frees it. Can be called again without harm. */
  dispose(): Promise<void>;
  /** `dispose`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** How far two sets of pictures are from one another. */
export interface Distance {
  /**
   * The Fréchet distance of their features, 0 or more. It is too large by an amount that falls with the number of pictures:
   * compare it at equal numbers.
   */
  readonly fid: number;
  /**
   * How far it would move with other generated pictures; null where they are too few to tell, or were not kept one by one.
   */
  readonly fidStandardError: number | null;
  /** The kernel distance, of which that is not so: around 0 for sets of one kind. Null where features were not kept. */
  readonly kid: number | null;
  readonly kidStandardError: number | null;
  /** Pictures in this set. */
  readonly count: number;
  /** Pictures in the real one. */
  readonly realCount: number;
}

/** What a classifier sees on a picture. */
export interface Classification {
  /** What is shown. */
  readonly glyphs: readonly Label[];
  /** Who may have drawn it. */
  readonly styles: readonly Label[];
}

export interface Label {
  readonly name: string;
  /** 0 to 1; those of all answers add up to 1. */
  readonly probability: number;
}

export interface DeviceInfo {
  readonly kind: "webgpu" | "cpu";
  /** The adapter's name, as far as the browser tells it. */
  readonly name: string;
  /** Why this device, as the end of a sentence: "this browser has no WebGPU". */
  readonly reason: string;
  /** Of the CPU, how many threads compute. */
  readonly threads?: number;
}

export interface Capabilities {
  /** What `device: "auto"` takes. */
  readonly auto: DeviceInfo;
  /** Whether `device: "webgpu"` can work. */
  readonly webgpu: boolean;
}

/** Where the time of a step goes: the network and the solver's update, without what becomes of the pictures. */
export interface Profile {
  /**
   * How the nodes were timed: by the GPU's own timestamps (which browsers round: short nodes are repeated until that no
   * longer counts); by waiting for each, where the adapter has none; or by the processor's clock.
   */
  readonly clock: "timestamps" | "waits" | "processor";
  /** The whole step as it usually runs: the mean of several, but for the slowest. */
  readonly milliseconds: number;
  /** What this very device can do at most, measured on it when it was first asked for. */
  readonly ceilings: {
    /** Floating point operations a second in f32: multiply-adds, two each, without memory traffic. */
    readonly flopPerSecond: number;
    /** Floating point operations a second in f16; null if the device does not compute in it. */
    readonly halfFlopPerSecond: number | null;
    /** Bytes read and written a second by a large copy. */
    readonly bytesPerSecond: number;
  };
  /** What is computed, in order. */
  readonly nodes: readonly ProfiledNode[];
}

/** A node of the network: a layer, with what was folded into it. */
export interface ProfiledNode {
  /** Its module in the checkpoint, such as `down_blocks.1.resnets.0.conv1`. */
  readonly path: string;
  /** What it does, such as `conv2d`. */
  readonly op: string;
  /** Shape of its result, channels last. */
  readonly shape: readonly number[];
  /** The kernels that compute it, with their variants. */
  readonly kernel: string;
  /** How long this node alone usually takes: the mean of several runs, but for the slowest. */
  readonly milliseconds: number;
  /** Products of convolutions, linear layers and attention. */
  readonly multiplyAdds: number;
  /** All operations, two for each multiply-add. */
  readonly flop: number;
  /** Bytes of its operands, its weights as stored, and its result, each once. */
  readonly bytes: number;
  /**
   * The least time that it could take under the ceilings as a share of the time that it takes; above 1 where its
   * operands are in a cache.
   */
  readonly roofline: number;
}

/** What a checkpoint is. */
export interface ModelInfo {
  /** The pipeline's `_class_name`, such as `"StableDiffusionPipeline"`. */
  readonly class: string;
  /** The `_class_name` of its own scheduler. */
  readonly scheduler: string;
  /** What can be asked for in its place: the solvers that this model can be run with. */
  readonly solvers: readonly Solver[];
  /**
   * For each of {@link solvers} the least and the most {@link SampleOptions.steps} that it takes with this model, at most as many as there
   * are timesteps of training. An error says so where a solver does not take a single number between them.
   */
  readonly solverSteps: Readonly<Record<string, { readonly min: number; readonly max: number }>>;
  /** Whether a prompt means anything to it. */
  readonly takesPrompt: boolean;
  /** Whether it can start from a picture. */
  readonly takesImage: boolean;
  /** Whether a run can begin with a picture at {@link SampleOptions.startTimestep}, and a forward process be one of latents. */
  readonly takesStartTimestep: boolean;
  /** Whether it can paint into a part of a picture. */
  readonly takesMask: boolean;
  /** Whether it cannot do without a picture (and, where it takes one, a mask): it was made to enlarge or to inpaint. */
  readonly needsImage: boolean;
  /** Whether the picture is enlarged by this model, so that `noiseLevel` means something to it. */
  readonly takesNoiseLevel: boolean;
  /** Whether a second text encoder reads `prompt2`, and sizes are told to the network, as in SDXL. */
  readonly takesSizes: boolean;
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
  /** What the checkpoint's files do not say, or say otherwise, and what was made of it: a sentence each. */
  readonly notes: readonly string[];
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
  /**
   * A file could not be fetched: its server refused it, was busy for longer than it was waited for, or the connection broke or brought
   * nothing for 30 seconds, and could not be resumed.
   */
  | "network"
  /** A weight is missing, or has another shape than the model's configuration calls for. */
  | "shape-mismatch"
  /** The checkpoint asks for something that this version does not do; or this JavaScript is no browser's, such as Node's. */
  | "unsupported"
  /** An option's name, type or value. */
  | "invalid-option"
  /** There is no WebGPU adapter, or it would not open a device. */
  | "no-gpu"
  /** The GPU went away, or the kernels of the CPU failed. Load the pipeline again. */
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
  /** The worker could not be started, crashed, has ended, or did not hear of an abort for seconds. Load the pipeline again. */
  | "worker-failed"
  /** The signal was aborted, or the run was left. */
  | "aborted"
  /** A defect of this package. */
  | "internal";

declare global {
  interface SymbolConstructor {
    /** Declared here for those whose `lib` has no `ESNext.Disposable`. */
    readonly asyncDispose: unique symbol;
  }
}

export interface ErrorDetails {
  /** The file concerned, by its path in the checkpoint. */
  file?: string | undefined;
  /** The tensor concerned, or the layer. */
  tensor?: string | undefined;
  /** The option concerned. */
  option?: string | undefined;
  /** The device's limit that was exceeded, in bytes. */
  limit?: number | undefined;
  cause?: unknown | undefined;
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
/**
 * Code `aborted`; `cause` is the reason that the signal was given. `name` is `"AbortError"`, as of the platform's own, or
 * `"TimeoutError"` if the signal was one of `AbortSignal.timeout`.
 */
export class AbortError extends UndiffuseError {}
/** Codes `busy`, `disposed` and `worker-failed`. */
export class StateError extends UndiffuseError {}
