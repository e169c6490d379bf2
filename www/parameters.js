// @ts-check
// The form's values: read for a run, kept in the address, restored from a shared link.

/** @typedef {{ prompt: string, negativePrompt: string, seed: string, steps: string, guidanceScale: string, solver: string }} Parameters */

/** Which element holds which parameter. The names in a link are the package's own option names. */
const FIELDS = {
  prompt: "prompt",
  negativePrompt: "negative-prompt",
  seed: "seed",
  steps: "steps",
  guidanceScale: "guidance",
  solver: "solver",
};

/**
 * @param {keyof typeof FIELDS} name
 * @returns {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement}
 */
function field(name) {
  return /** @type {any} */ (document.getElementById(FIELDS[name]));
}

/**
 * What a run is to be made with. A prompt that means nothing to the model is kept in its field, but not read.
 * @returns {Parameters}
 */
export function readParameters() {
  const names = /** @type {(keyof Parameters)[]} */ (Object.keys(FIELDS));
  const read = (/** @type {keyof Parameters} */ name) => (field(name).disabled ? "" : field(name).value.trim());
  return /** @type {Parameters} */ (Object.fromEntries(names.map((name) => [name, read(name)])));
}

/** @param {Partial<Parameters>} parameters */
export function writeParameters(parameters) {
  for (const [name, value] of Object.entries(parameters)) field(/** @type {keyof Parameters} */ (name)).value = value;
}

/**
 * What the address carries: parameters, and whether they ask to be run at once.
 * @returns {{ parameters: Partial<Parameters>, run: boolean }}
 */
export function readAddress() {
  const carried = new URLSearchParams(location.hash.slice(1));
  const known = [...carried].filter(([name]) => Object.hasOwn(FIELDS, name));
  return { parameters: Object.fromEntries(known), run: carried.has("run") };
}

/**
 * A link to this page that carries the parameters, and runs them when it is opened.
 * @param {Parameters} parameters
 */
export function linkTo(parameters) {
  const link = new URL(location.href);
  link.hash = new URLSearchParams({ ...parameters, run: "1" }).toString();
  return link.href;
}

/** A seed that nobody chose. Small, so that it can be read out. */
export function anySeed() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000);
}

/** @param {boolean} enabled whether a prompt means anything to the model */
export function enablePrompts(enabled) {
  field("prompt").disabled = field("negativePrompt").disabled = !enabled;
}
