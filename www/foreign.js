// @ts-check
// What pictures of other programs were made with, under this page's names: the `parameters` of the web UIs after AUTOMATIC1111's,
// and the graphs of ComfyUI. Fetched when such a picture comes.

import { hasSpacing } from "./solver_keys.js";

/** What a picture was made with: this page's parameters, and what it has no place for under the writer's own names. @typedef {Record<string, string>} Found */

/** What the programs call the methods that there are here too. */
const SOLVERS = {
  ddim: ["DDIM", "ddim"],
  ddpm: ["DDPM", "ddpm"],
  deis: ["DEIS", "deis"],
  dpm2: ["DPM2", "dpm_2"],
  dpm2_ancestral: ["DPM2 a", "dpm_2_ancestral"],
  dpmpp_2m: ["DPM++ 2M", "dpmpp_2m"],
  euler: ["Euler", "euler"],
  euler_ancestral: ["Euler a", "euler_ancestral"],
  heun: ["Heun", "heun"],
  lcm: ["LCM", "lcm"],
  lms: ["LMS", "lms"],
  unipc: ["UniPC", "uni_pc"],
};

/** Other programs' names for a solver with settings, and the keys that such a name says. @type {[names: string[], keys: Found][]} */
const VARIANTS = [
  [["DPM++ 2M SDE", "dpmpp_2m_sde"], { solver: "dpmpp_2m", algorithmType: "sde-dpmsolver++" }],
  [["DPM++ 3M SDE", "dpmpp_3m_sde"], { solver: "dpmpp_2m", algorithmType: "sde-dpmsolver++", solverOrder: "3" }],
];

/** Schedules of noise levels that there are here too. Theirs by the name of beta is one of timesteps. */
const SCHEDULES = new Map([
  ["karras", "useKarrasSigmas"],
  ["exponential", "useExponentialSigmas"],
]);

/** Schedules of noise levels that are what a solver takes by itself. */
const USUAL_SCHEDULES = ["automatic", "normal", "uniform", ""];

/** Names of the `parameters` that have a place here. @type {Record<string, string>} */
const NAMES = {
  Steps: "steps",
  "CFG scale": "guidanceScale",
  Seed: "seed",
  "Denoising strength": "strength",
  Model: "model",
};

/** What nobody can write down. */
const NOISE = "the noise that another program draws from its seed";

/** One of them: a name, a colon and a value, in quotes where it has a comma. */
const ENTRY = /\s*([\w][\w /-]*):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)/g;

/**
 * The prompt, the negative one after its name, and a line of `Name: value`.
 * @param {string} text
 * @returns {Found | undefined} nothing where it is something else
 */
export function readParametersText(text) {
  const lines = text.trim().split("\n");
  const last = lines.pop() ?? "";
  if (!/(^|,\s*)Steps: \d+/.test(last)) return undefined;
  const [prompt, ...negative] = lines.join("\n").split(/^Negative prompt: ?/m);
  /** @type {Found} */
  const found = { prompt: prompt.trim() };
  if (negative.length > 0) found.negativePrompt = negative.join("").trim();
  const left = new Map([...last.matchAll(ENTRY)].map(([, name, value]) => [name.trim(), unquoted(value.trim())]));
  for (const [name, ours] of Object.entries(NAMES)) {
    const value = left.get(name);
    if (value !== undefined) found[ours] = value;
    left.delete(name);
  }
  const size = /^(\d+)x(\d+)$/.exec(left.get("Size") ?? "");
  if (size) {
    [found.width, found.height] = [size[1], size[2]];
    left.delete("Size");
  }
  // There, 1 is the last layer itself, which is what there is without a word.
  const clipSkip = Number(left.get("Clip skip"));
  if (clipSkip >= 1) {
    if (clipSkip > 1) found.clipSkip = String(clipSkip - 1);
    left.delete("Clip skip");
  }
  // Older versions name the schedule with the sampler.
  const sampler = left.get("Sampler") ?? "";
  const [, name, inName = ""] = /^(.*?)(?: (Karras|Exponential|Polyexponential))?$/.exec(sampler) ?? [];
  place(found, ["Sampler", name], ["Schedule type", left.get("Schedule type") ?? inName]);
  for (const read of ["Sampler", "Schedule type", "Version"]) left.delete(read);
  return { ...found, ...Object.fromEntries(left), [NOISE]: "" };
}

/**
 * A node of a graph: its inputs are values, or the number of another node and which of its outputs.
 * @typedef {{ class_type: string, inputs: Record<string, unknown> }} Node
 */

/** Nodes whose settings have a place here, or that only pass on what they get. */
const UNDERSTOOD =
  /^(KSampler(Advanced)?|CLIPTextEncode|EmptyLatentImage|CheckpointLoaderSimple|VAE(Decode|Loader)|(Save|Preview)Image|Reroute|PrimitiveNode|Note)$/;

/** Which setting each of a node's fields on the screen is, where only the drawing of a graph is at hand. @type {Record<string, string[]>} */
const FIELDS = {
  KSampler: ["seed", "control", "steps", "cfg", "sampler_name", "scheduler", "denoise"],
  KSamplerAdvanced: ["add_noise", "noise_seed", "control", "steps", "cfg", "sampler_name", "scheduler"],
  CLIPTextEncode: ["text"],
  EmptyLatentImage: ["width", "height", "batch_size"],
  CheckpointLoaderSimple: ["ckpt_name"],
};

/**
 * The sampler of a graph, and what it is given.
 * @param {Record<string, any>} [graph] as it was run
 * @param {Record<string, any>} [workflow] as it is drawn
 * @returns {Found | undefined} nothing where there is no sampler
 */
export function readGraph(graph, workflow) {
  /** @type {Record<string, Node>} */
  const nodes = graph ?? asRun(workflow);
  const all = Object.values(nodes).filter((node) => typeof node?.class_type === "string");
  const samplers = all.filter(({ class_type }) => /^KSampler(Advanced)?$/.test(class_type));
  if (samplers.length === 0) return undefined;
  const sampler = samplers[0].inputs ?? {};
  /** @type {Found} */
  const found = {};
  const put = (/** @type {string} */ name, /** @type {unknown} */ value) => {
    if (typeof value === "string" || typeof value === "number") found[name] = String(value);
  };
  const from = (/** @type {unknown} */ link) => (Array.isArray(link) ? nodes[String(link[0])] : undefined);
  /** The first node of a class that a value comes from. @param {unknown} link @param {string} wanted the class */
  const origin = (link, wanted) => {
    // A graph may be a circle.
    const seen = new Set();
    for (const left = [from(link)]; left.length > 0;) {
      const node = left.shift();
      if (!node || seen.has(node)) continue;
      if (node.class_type === wanted) return node.inputs ?? {};
      seen.add(node);
      left.push(...Object.values(node.inputs ?? {}).map(from));
    }
    return undefined;
  };
  /** A value, or what it is linked to. @param {unknown} value @returns {unknown} */
  const valueOf = (value) => {
    const node = from(value);
    return node ? (node.inputs?.value ?? node.inputs?.text ?? node.inputs?.string ?? node.inputs?.seed) : value;
  };

  put("prompt", valueOf(origin(sampler.positive, "CLIPTextEncode")?.text));
  put("negativePrompt", valueOf(origin(sampler.negative, "CLIPTextEncode")?.text));
  put("seed", valueOf(sampler.seed ?? sampler.noise_seed));
  put("steps", valueOf(sampler.steps));
  put("guidanceScale", valueOf(sampler.cfg));
  const latent = origin(sampler.latent_image, "EmptyLatentImage");
  if (latent) {
    put("width", valueOf(latent.width));
    put("height", valueOf(latent.height));
  } else put("strength", valueOf(sampler.denoise));
  put("model", origin(sampler.model, "CheckpointLoaderSimple")?.ckpt_name);
  place(found, ["sampler_name", String(sampler.sampler_name ?? "")], ["scheduler", String(sampler.scheduler ?? "")]);
  const others = new Set(all.map(({ class_type }) => class_type).filter((name) => !UNDERSTOOD.test(name)));
  if (samplers.length > 1) others.add(`${samplers.length - 1} more KSampler`);
  return { ...found, ...Object.fromEntries([...others].map((name) => [`the node ${name}`, ""])), [NOISE]: "" };
}

/**
 * A graph as it is run, of one as it is drawn.
 * @param {Record<string, any>} [workflow]
 * @returns {Record<string, Node>}
 */
function asRun(workflow) {
  const list = (/** @type {unknown} */ value) => (Array.isArray(value) ? value : []).filter(Boolean);
  // A link: its number, the node and output where it begins, and where it ends.
  const begins = new Map(list(workflow?.links).map((link) => [link[0], [String(link[1]), link[2]]]));
  const nodes = list(workflow?.nodes).map(({ id, type, inputs, widgets_values: values }) => {
    const fields = Array.isArray(values) ? values.map((value, at) => [FIELDS[type]?.[at] ?? "value", value]) : [];
    const linked = list(inputs).flatMap(({ name, link }) => (begins.has(link) ? [[name, begins.get(link)]] : []));
    return [String(id), { class_type: type, inputs: Object.fromEntries([...fields, ...linked]) }];
  });
  return Object.fromEntries(nodes);
}

/**
 * The solver that a sampler with a schedule is here. What does not do the same here keeps its own name.
 * @param {Found} found
 * @param {[string, string]} sampler
 * @param {[string, string]} schedule
 */
function place(found, [nameOfSampler, sampler], [nameOfSchedule, schedule]) {
  const solver = Object.entries(SOLVERS).find(([, names]) => names.includes(sampler))?.[0];
  const keys = solver ? { solver } : VARIANTS.find(([names]) => names.includes(sampler))?.[1];
  if (keys) Object.assign(found, keys);
  else if (sampler) found[`${nameOfSampler}: ${sampler}`] = "";
  const spacing = SCHEDULES.get(schedule.toLowerCase());
  if (spacing && hasSpacing(keys?.solver ?? "")) found[spacing] = "true";
  else if (!USUAL_SCHEDULES.includes(schedule.toLowerCase())) found[`${nameOfSchedule}: ${schedule}`] = "";
}

/** @param {string} value */
function unquoted(value) {
  if (!value.startsWith('"')) return value;
  try {
    return String(JSON.parse(value));
  } catch {
    return value;
  }
}
