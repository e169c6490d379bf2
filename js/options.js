// @ts-check
// Options as a caller wrote them: names and JavaScript types are checked here, values where they are used.

import { OptionError } from "./errors.js";
import { isPicture } from "./picture.js";
import { BOUND, FORWARD, OF_SCHEDULE, SAMPLE } from "./rules.js";
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
  vocabulary: [isUrl, "a URL"],
  shaders: [isUrl, "a URL"],
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
  shaders: LOAD.shaders,
};

/** @type {Rules} */
const CPU = {
  threads: [isCount, "a positive integer"],
  simd: oneOf("auto", "portable"),
  kernels: [isUrl, "the URL of a folder"],
};

/** @type {Rules} */
const LORA = {
  source: [(value) => value !== null, "a URL, a File, a list of them or a handle"],
  weight: [Number.isFinite, "a finite number"],
};

const SEED = "an integer from 0 to 2^64 - 1, as a number or a bigint";

/** The rule for each kind of value. @type {Rules} */
const KINDS = {
  text: [isString, "a string"],
  texts: [isText, "a string, or a list with one for each picture"],
  seed: [isSeed, SEED],
  seeds: [isListOf(isSeed), `a list, each ${SEED}`],
  count: [isCount, "a positive integer"],
  whole: [isWhole, "a whole number"],
  wholes: [isListOf(isWhole), "a list of whole numbers"],
  number: [Number.isFinite, "a finite number"],
  numbers: [isListOf(Number.isFinite), "a list of finite numbers"],
  pair: [isPair, "two whole numbers, vertical before horizontal"],
  flag: [(value) => typeof value === "boolean", "true or false"],
  solver: [isString, "a solver's name"],
  config: [isObject, "an object, the content of a scheduler_config.json"],
  picture: [isPicture, "a Blob, ImageData, ImageBitmap, an image, a canvas or a URL"],
  pictures: [(value) => isListOf(isPicture)(value) && value.length > 0, "a list of pictures"],
};

const [SAMPLE_RULES, FORWARD_RULES, BOUND_RULES] = [{ ...SAMPLE, includeInitial: "flag" }, FORWARD, BOUND].map(rulesOf);
const SCHEDULE_RULES = rulesOf(
  Object.fromEntries(Object.entries(SAMPLE).filter(([name]) => OF_SCHEDULE.includes(name))),
);

/**
 * @param {LoadOptions} options
 */
export function checkLoadOptions(options) {
  check(options, LOAD, "Pipeline.load");
  const { device = "auto", cpu = {}, worker = true, wasm, vocabulary, shaders, loras = [], ...rest } = options;
  check(cpu, CPU, "cpu");
  checkLoras(loras);
  return {
    ...rest,
    device,
    cpu: { ...cpu, kernels: cpu.kernels && absoluteUrl(cpu.kernels, "kernels").replace(/[/]?$/, "/") },
    worker,
    wasm: isUrl(wasm) ? absoluteUrl(wasm, "wasm") : wasm,
    vocabulary: vocabulary && absoluteUrl(vocabulary, "vocabulary"),
    shaders: shaders && absoluteUrl(shaders, "shaders"),
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
  check(options, { count: KINDS.count, signal: SIGNAL }, "classify");
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
 * @param {SampleOptions} [instead]  what overrides them
 */
export function checkSampleOptions(options, instead) {
  check(options, SAMPLE_RULES, "sample");
  const { signal, image, mask, includeInitial = false, ...rest } = options;
  return { signal, image, mask, includeInitial, json: toJson({ ...rest, ...instead }) };
}

/**
 * @param {ScheduleOptions} options
 */
export function checkScheduleOptions(options) {
  check(options, SCHEDULE_RULES, "schedule");
  const { signal, ...rest } = options;
  return { signal, json: toJson(rest) };
}

/**
 * @param {ForwardOptions} options
 */
export function checkForwardOptions(options) {
  check(options, FORWARD_RULES, "forwardProcess");
  const { signal, image, ...rest } = options;
  if (image === undefined) throw wrong("image", "forwardProcess needs an image.");
  return { signal, image, json: toJson(rest) };
}

/**
 * @param {BoundOptions} options
 */
export function checkBoundOptions(options) {
  check(options, BOUND_RULES, "bound");
  const { signal, image, images = image && [image], ...rest } = options;
  if (!images) throw wrong("image", "bound needs an image, or a list of images.");
  refuseBoth(options, "image", "images");
  refuseBoth(options, "timesteps", "terms");
  return { signal, images, json: toJson(rest) };
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
 * The options as the module reads them, in JSON: seeds as strings, since its numbers are exact to 2^53 alone, and so are those that are
 * not finite, which Python's configs have.
 * @param {{ seed?: number | bigint, seeds?: readonly (number | bigint)[], solver?: string, scheduler?: object, steps?: number, terms?: number }} options
 */
function toJson({ seed, seeds, scheduler, ...rest }) {
  refuseBoth(
    { solver: rest.solver, scheduler },
    "solver",
    "scheduler",
    "; a scheduler's config names its solver itself",
  );
  const plain = { ...rest, seed: seed === undefined ? seed : String(seed), seeds: seeds?.map(String) };
  try {
    return JSON.stringify({ ...plain, scheduler }, (_, value) =>
      typeof value === "number" && !Number.isFinite(value) ? String(value) : value,
    );
  } catch (cause) {
    // All else has been checked.
    const option = "scheduler";
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

/**
 * The rules of options by their kinds. Any of them can be ended.
 * @param {Record<string, string | string[]>} kinds
 * @returns {Rules}
 */
function rulesOf(kinds) {
  const rules = Object.entries(kinds).map(([name, kind]) => [name, Array.isArray(kind) ? oneOf(...kind) : KINDS[kind]]);
  return { ...Object.fromEntries(rules), signal: SIGNAL };
}

/** @param {unknown} value */
function isString(value) {
  return typeof value === "string";
}

/**
 * @param {unknown} value
 * @returns {value is string | URL}
 */
function isUrl(value) {
  return isString(value) || value instanceof URL;
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
    isUrl(value) || value instanceof ArrayBuffer || ArrayBuffer.isView(value) || value instanceof WebAssembly.Module
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
