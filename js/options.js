// @ts-check
// Options as a caller wrote them: names and JavaScript types are checked here, values where they are used.

import { OptionError } from "./errors.js";
import { isPicture } from "./picture.js";
import { absoluteUrl } from "./source.js";

/** @import { BoundOptions, FeatureLoadOptions, ForwardOptions, LoadOptions, Lora, SampleOptions, ScheduleOptions, Source } from "./index.d.ts" */

const MAX_SEED = 2n ** 64n - 1n;

/**
 * Each option's name with the test it has to pass and the words for that test.
 * @typedef {Record<string, [test: (value: any) => boolean, expected: string]>} Rules
 */

const SIGNAL = /** @type {Rules[string]} */ ([(value) => value instanceof AbortSignal, "an AbortSignal"]);

/** @type {Rules} */
const LOAD = {
  device: oneOf("auto", "webgpu", "cpu"),
  cpu: [isObject, "an object, { threads, simd }"],
  onProgress: [(value) => typeof value === "function", "a function"],
  signal: SIGNAL,
  worker: [(value) => typeof value === "boolean" || value instanceof Worker, "true, false or a Worker"],
  wasm: [isWasm, "a URL, the module's bytes or a WebAssembly.Module"],
  variant: [isString, 'the variant\'s name, such as "fp16"'],
  unet: [isString, "the path of a file in the checkpoint"],
  predictionType: oneOf("epsilon", "v_prediction"),
  vae: [(value) => value !== null, "a source, as of the checkpoint"],
  tinyVae: [(value) => value !== null, "a source, as of the checkpoint"],
  vocabulary: [(value) => isString(value) || value instanceof URL, "a URL"],
  kernels: oneOf(
    "registers",
    "tiled",
    "tiled-128x64",
    "tiled-64x64",
    "tiled-64x32",
    "tiled-64x64-lean",
    "tiled-64x32-lean",
  ),
  loras: [Array.isArray, "a list of { source, weight }"],
};

/** @type {Rules} */
const FEATURES = {
  device: LOAD.device,
  cpu: LOAD.cpu,
  signal: LOAD.signal,
  worker: LOAD.worker,
  wasm: LOAD.wasm,
};

/** @type {Rules} */
const CPU = {
  threads: [isCount, "a positive integer"],
  simd: oneOf("auto", "portable"),
  kernels: [(value) => isString(value) || value instanceof URL, "the URL of a folder"],
};

/** @type {Rules} */
const LORA = {
  source: [(value) => value !== null, "a URL, a File, a list of them or a handle"],
  weight: [Number.isFinite, "a finite number"],
};

const STRING = /** @type {Rules[string]} */ ([isString, "a string"]);
const TEXT = /** @type {Rules[string]} */ ([isText, "a string, or a list with one for each picture"]);
const PICTURE = /** @type {Rules[string]} */ ([
  isPicture,
  "a Blob, ImageData, ImageBitmap, an image, a canvas or a URL",
]);
const NUMBER = /** @type {Rules[string]} */ ([Number.isFinite, "a finite number"]);
const BOOLEAN = /** @type {Rules[string]} */ ([(value) => typeof value === "boolean", "true or false"]);
const COUNT = /** @type {Rules[string]} */ ([isCount, "a positive integer"]);
const WHOLE = /** @type {Rules[string]} */ ([isWhole, "a whole number"]);
const PAIR = /** @type {Rules[string]} */ ([isPair, "two whole numbers, vertical before horizontal"]);
const NUMBERS = /** @type {Rules[string]} */ ([isListOf(Number.isFinite), "a list of finite numbers"]);
const SEED = "an integer from 0 to 2^64 - 1, as a number or a bigint";

/** @type {Rules} */
const SCHEDULE = {
  steps: COUNT,
  timesteps: NUMBERS,
  sigmas: NUMBERS,
  originalInferenceSteps: COUNT,
  solver: [isString, "a solver's name"],
  scheduler: [isObject, "an object, the content of a scheduler_config.json"],
  useKarrasSigmas: BOOLEAN,
  useExponentialSigmas: BOOLEAN,
  useBetaSigmas: BOOLEAN,
  algorithmType: STRING,
  solverOrder: COUNT,
  eta: NUMBER,
  useClippedModelOutput: BOOLEAN,
  signal: SIGNAL,
};

/** @type {Rules} */
const SAMPLE = {
  ...SCHEDULE,
  prompt: TEXT,
  negativePrompt: TEXT,
  prompt2: TEXT,
  negativePrompt2: TEXT,
  seed: [isSeed, SEED],
  seeds: [isListOf(isSeed), `a list, each ${SEED}`],
  generator: oneOf("cpu", "cuda"),
  numImagesPerPrompt: COUNT,
  guidanceScale: NUMBER,
  guidanceRescale: NUMBER,
  width: COUNT,
  height: COUNT,
  image: PICTURE,
  mask: PICTURE,
  strength: NUMBER,
  startTimestep: WHOLE,
  noiseLevel: WHOLE,
  clipSkip: WHOLE,
  longPrompts: oneOf("cut", "chunks"),
  originalSize: PAIR,
  cropsCoordsTopLeft: PAIR,
  targetSize: PAIR,
  negativeOriginalSize: PAIR,
  negativeCropsCoordsTopLeft: PAIR,
  negativeTargetSize: PAIR,
  preview: oneOf("auto", "decode", "tiny", "linear", "none"),
  vaeTiling: BOOLEAN,
  includeInitial: BOOLEAN,
};

/** @type {Rules} */
const FORWARD = {
  image: PICTURE,
  space: oneOf("latents", "pixels"),
  seed: SAMPLE.seed,
  generator: SAMPLE.generator,
  prompt: STRING,
  negativePrompt: STRING,
  guidanceScale: NUMBER,
  solver: SCHEDULE.solver,
  scheduler: SCHEDULE.scheduler,
  width: COUNT,
  height: COUNT,
  preview: oneOf("auto", "decode", "tiny", "linear"),
  signal: SIGNAL,
};

/** @type {Rules} */
const BOUND = {
  image: PICTURE,
  images: [(value) => isListOf(isPicture)(value) && value.length > 0, "a list of pictures"],
  prompt: TEXT,
  negativePrompt: TEXT,
  guidanceScale: NUMBER,
  timesteps: [isListOf(isWhole), "a list of whole numbers"],
  terms: COUNT,
  random: BOOLEAN,
  variance: oneOf("fixed_small", "fixed_large", "learned", "learned_range"),
  clipDenoised: BOOLEAN,
  samplePosterior: BOOLEAN,
  seed: SAMPLE.seed,
  width: COUNT,
  height: COUNT,
  signal: SIGNAL,
};

/**
 * @param {LoadOptions} options
 */
export function checkLoadOptions(options) {
  check(options, LOAD, "Pipeline.load");
  const { device = "auto", cpu = {}, worker = true, wasm, vocabulary, loras = [], ...rest } = options;
  check(cpu, CPU, "cpu");
  checkLoras(loras);
  const isUrl = typeof wasm === "string" || wasm instanceof URL;
  return {
    ...rest,
    device,
    cpu: { ...cpu, kernels: cpu.kernels && absoluteUrl(cpu.kernels, "kernels").replace(/[/]?$/, "/") },
    worker,
    wasm: isUrl ? absoluteUrl(wasm, "wasm") : wasm,
    vocabulary: vocabulary && absoluteUrl(vocabulary, "vocabulary"),
    loras,
  };
}

/**
 * @param {FeatureLoadOptions} options
 */
export function checkFeatureLoadOptions(options) {
  check(options, FEATURES, "FeatureExtractor.load");
  return checkLoadOptions(options);
}

/**
 * @param {{ count?: number, signal?: AbortSignal }} options
 */
export function checkClassifyOptions(options) {
  check(options, { count: COUNT, signal: SIGNAL }, "classify");
  return options;
}

/**
 * @param {readonly Lora[]} loras
 */
export function checkLoras(loras) {
  if (!Array.isArray(loras)) {
    throw wrong("loras", "The LoRAs have to be a list of { source, weight }.");
  }
  for (const lora of loras) check(lora, LORA, "a LoRA");
}

/**
 * @param {SampleOptions} options
 */
export function checkSampleOptions(options) {
  check(options, SAMPLE, "sample");
  const { seed = 0, seeds = [], signal, image, mask, includeInitial = false, ...rest } = options;
  return {
    seed: BigInt(seed),
    seeds: BigUint64Array.from(seeds, BigInt),
    signal,
    image,
    mask,
    includeInitial,
    rest: withSchedulerAsText(rest),
  };
}

/**
 * @param {ScheduleOptions} options
 */
export function checkScheduleOptions(options) {
  check(options, SCHEDULE, "schedule");
  const { signal, ...rest } = options;
  return { signal, rest: withSchedulerAsText(rest) };
}

/**
 * @param {ForwardOptions} options
 */
export function checkForwardOptions(options) {
  check(options, FORWARD, "forwardProcess");
  const { seed = 0, signal, image, ...rest } = options;
  if (image === undefined) throw wrong("image", "forwardProcess needs an image.");
  return { seed: BigInt(seed), signal, image, rest: withSchedulerAsText(rest) };
}

/**
 * @param {BoundOptions} options
 */
export function checkBoundOptions(options) {
  check(options, BOUND, "bound");
  const { seed = 0, signal, image, images = image && [image], ...rest } = options;
  if (!images) throw wrong("image", "bound needs an image, or a list of images.");
  refuseBoth(options, "image", "images");
  refuseBoth(options, "timesteps", "terms");
  return { seed: BigInt(seed), signal, images, rest };
}

/**
 * @param {unknown} timestep
 * @param {boolean} orNone whether null will do, for the picture itself
 */
export function checkTimestep(timestep, orNone) {
  if (isWhole(timestep) || (orNone && timestep === null)) return;
  const expected = orNone ? "a whole number, or null for the picture itself" : "a whole number";
  throw wrong("timestep", `timestep has to be ${expected}; it is ${shown(timestep)}.`);
}

/**
 * @template {Pick<ScheduleOptions, "solver" | "scheduler">} O
 * @param {O} options
 */
function withSchedulerAsText({ scheduler, ...rest }) {
  refuseBoth(
    { solver: rest.solver, scheduler },
    "solver",
    "scheduler",
    "; a scheduler's config names its solver itself",
  );
  return { ...rest, scheduler: scheduler && toJson(scheduler, "scheduler") };
}

/**
 * @param {string} option
 * @param {string} message
 */
function wrong(option, message) {
  return new OptionError("invalid-option", message, { option });
}

/**
 * @template {object} O
 * @param {O} options
 * @param {keyof O & string} one
 * @param {keyof O & string} other
 * @param {string} [why]
 */
function refuseBoth(options, one, other, why = "") {
  if (options[one] === undefined || options[other] === undefined) return;
  throw wrong(other, `${one} and ${other} were both given${why}. Leave one of them out.`);
}

/**
 * @param {object} value
 * @param {string} option
 */
function toJson(value, option) {
  try {
    // JSON has no infinities, and Python's configs do.
    return JSON.stringify(value, (_, inner) =>
      typeof inner === "number" && !Number.isFinite(inner) ? String(inner) : inner,
    );
  } catch (cause) {
    throw new OptionError("invalid-option", `${option} cannot be written as JSON: ${cause}.`, { option, cause });
  }
}

/**
 * @param {object} options
 * @param {Rules} rules
 * @param {string} method
 */
function check(options, rules, method) {
  if (typeof options !== "object" || options === null) {
    throw new OptionError("invalid-option", `${method}: the options have to be an object.`);
  }
  for (const [option, value] of Object.entries(options)) {
    if (!Object.hasOwn(rules, option)) {
      const names = Object.keys(rules);
      const meant = nearest(option, names);
      const hint = meant ? `Did you mean ${meant}?` : `It has ${names.join(", ")}.`;
      throw wrong(option, `${method} has no option ${JSON.stringify(option)}. ${hint}`);
    }
    const [test, expected] = rules[option];
    if (value !== undefined && !test(value)) {
      const hint = expected.endsWith(SEED) ? seedHint(value) : "";
      throw wrong(option, `${option} has to be ${expected}; it is ${shown(value)}.${hint}`);
    }
  }
}

/** @param {unknown} value */
function isString(value) {
  return typeof value === "string";
}

/** @param {unknown} value */
function isText(value) {
  return isString(value) || isListOf(isString)(value);
}

/** @param {(value: unknown) => boolean} test */
function isListOf(test) {
  return (/** @type {unknown} */ value) => Array.isArray(value) && value.every(test);
}

/**
 * @param {...string} values
 * @returns {Rules[string]}
 */
function oneOf(...values) {
  return [(value) => values.includes(value), values.map((value) => `"${value}"`).join(" or ")];
}

/** @param {unknown} value */
function isObject(value) {
  return typeof value === "object" && value !== null;
}

/** @param {unknown} value */
function isWhole(value) {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 0xffffffff;
}

/** @param {unknown} value */
function isCount(value) {
  return isWhole(value) && value !== 0;
}

/** @param {unknown} value */
function isPair(value) {
  return Array.isArray(value) && value.length === 2 && value.every(isWhole);
}

/** @param {unknown} value */
function isSeed(value) {
  return (
    (Number.isSafeInteger(value) && Number(value) >= 0) ||
    (typeof value === "bigint" && value >= 0n && value <= MAX_SEED)
  );
}

/**
 * What to write in place of a seed, or of the first among several, that is too large for a number, or is text.
 * @param {unknown} value
 */
function seedHint(value) {
  const wrong = [value].flat().find((seed) => !isSeed(seed));
  if (typeof wrong === "string" && /^\d+$/.test(wrong) && isSeed(BigInt(wrong)))
    return ` Pass a bigint: ${BigInt(wrong)}n.`;
  if (!Number.isInteger(wrong) || !isSeed(BigInt(Number(wrong)))) return "";
  return ` A number this large has lost its last digits; pass a bigint, with an n behind all of its digits: ${BigInt(Number(wrong))}n.`;
}

/** @param {unknown} value */
function isWasm(value) {
  return (
    typeof value === "string" ||
    value instanceof URL ||
    value instanceof ArrayBuffer ||
    ArrayBuffer.isView(value) ||
    value instanceof WebAssembly.Module
  );
}

/**
 * @param {unknown} value
 * @returns {string}
 */
function shown(value) {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "number" || typeof value === "boolean") return `${value}`;
  if (Array.isArray(value)) return `[${value.map(shown).join(", ")}]`;
  return value === null ? "null" : `of type ${typeof value}`;
}

/**
 * The known name that is meant by an unknown one, if any is near: the same but for its spelling (`negative_prompt`), one
 * that contains it or is contained in it (`guidance`, `num_inference_steps`), or one that is a few edits away.
 * @param {string} unknown
 * @param {string[]} known
 */
function nearest(unknown, known) {
  const name = unknown.toLowerCase().replaceAll(/[_-]/g, "");
  const distance = (/** @type {string} */ candidate) => {
    const lower = candidate.toLowerCase();
    if (lower === name) return 0;
    return lower.includes(name) || name.includes(lower) ? 1 : 1 + edits(name, lower);
  };
  const best = known.reduce((best, candidate) => (distance(candidate) < distance(best) ? candidate : best));
  return distance(best) <= 1 + name.length / 3 ? best : undefined;
}

/**
 * Levenshtein's distance.
 * @param {string} a
 * @param {string} b
 */
function edits(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}
