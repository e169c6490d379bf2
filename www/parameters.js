// @ts-check
// The form's values: read for a run, kept in the address and in pictures, restored from both.

import { isUsed } from "./fields.js";
import { refresh } from "./solvers.js";
import { remark, sent } from "./vocabulary.js";

/** @import { ModelInfo, SampleOptions } from "./pkg/index.js" */

/** @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Field */

/**
 * The field of each parameter: `data-option` names an option of the package's, or several rivals, of which the field says which one is
 * true; or it is `pictures`, as many seeds. A link has the same names.
 */
const FIELDS = new Map(
  [.../** @type {NodeListOf<Field>} */ (document.querySelectorAll("[data-option]"))].flatMap((field) =>
    (field.dataset.option ?? "").split(" ").map((name) => /** @type {const} */ ([name, field])),
  ),
);

const NAMES = /** @type {(keyof Parameters)[]} */ ([...FIELDS.keys()]);

/** Options that are no text in a field. @typedef {"image" | "mask" | "scheduler" | "seeds" | "includeInitial" | "signal"} NotTyped */

/** Parameters as they are typed: one that is left to the model is empty. @typedef {Record<Exclude<keyof SampleOptions, NotTyped> | "pictures", string>} Parameters */

/**
 * @param {string} name
 * @returns {name is keyof Parameters}
 */
export function isParameter(name) {
  return FIELDS.has(name);
}

/** @param {keyof Parameters} name */
function field(name) {
  return /** @type {Field} */ (FIELDS.get(name));
}

/** Whether the field is one for several parameters. @param {string} name */
function hasRivals(name) {
  return FIELDS.get(name)?.dataset.option !== name;
}

/** @param {keyof Parameters} name */
function valueOf(name) {
  const { value } = field(name);
  if (!hasRivals(name)) return value.trim();
  return value === name ? "true" : value === "none" ? "false" : "";
}

/**
 * @param {keyof Parameters} name
 * @param {string} value
 */
function setValue(name, value) {
  const part = field(name);
  if (!hasRivals(name)) part.value = value;
  else if (value === "true") part.value = name;
  // What is said of one of them leaves another one's truth alone.
  else if (part.value === name || !FIELDS.has(part.value)) part.value = value === "false" ? "none" : "";
}

/**
 * What a run is to be made with. What means nothing to the model, or to the view, is kept in its field, but not read.
 * @returns {Parameters}
 */
export function readParameters() {
  const read = (/** @type {keyof Parameters} */ name) => (isUsed(field(name)) ? valueOf(name) : "");
  return /** @type {Parameters} */ (Object.fromEntries(NAMES.map((name) => [name, read(name)])));
}

/**
 * @param {Partial<Parameters>} parameters
 * @returns {(keyof Parameters)[]} those whose fields do not take the value, and are empty
 */
export function writeParameters(parameters) {
  const given = /** @type {[keyof Parameters, string][]} */ (Object.entries(parameters));
  for (const [name, value] of given) setValue(name, value);
  const lost = given.filter(([name, value]) => value.trim() !== "" && valueOf(name) === "").map(([name]) => name);
  // A choice that there is not leaves none at all: what is left to the model takes its place.
  for (const name of lost) setValue(name, "");
  remark();
  refresh();
  return lost;
}

/**
 * Writes what somebody else's run was made with, and empties what it was made without. Fields that cannot be empty keep
 * what they have.
 * @param {Partial<Parameters>} parameters
 */
export function restoreParameters(parameters) {
  writeParameters(Object.fromEntries(NAMES.filter((name) => !field(name).required).map((name) => [name, ""])));
  return writeParameters(parameters);
}

/**
 * The parameters as the package's options.
 * @param {Parameters} parameters
 * @returns {SampleOptions}
 */
export function optionsOf(parameters) {
  const { prompt, negativePrompt, seed, pictures: _, ...others } = parameters;
  const given = Object.entries(others).filter(([, value]) => value !== "");
  const seeds = seedsOf(parameters);
  return {
    ...Object.fromEntries(given.map(([name, value]) => [name, typed(name, value)])),
    prompt: sent(prompt),
    negativePrompt: sent(negativePrompt) || undefined,
    ...(seeds.length > 1 ? { seeds, numImagesPerPrompt: seeds.length } : { seed: BigInt(seed) }),
  };
}

/**
 * A value as the package takes it.
 * @param {string} name
 * @param {string} value
 */
function typed(name, value) {
  const field = FIELDS.get(name);
  if (field?.type === "number") return Number(value);
  // A choice between these is one of yes and no; a text is a text.
  return field instanceof HTMLSelectElement && ["true", "false"].includes(value) ? value === "true" : value;
}

/**
 * The seeds of the pictures that are drawn at once: one after the other, so that each can be drawn again by itself.
 * @param {Pick<Parameters, "seed" | "pictures">} parameters
 */
export function seedsOf({ seed, pictures }) {
  const last = 2n ** 64n - 1n;
  const seeds = Array.from({ length: Number(pictures || 1) }, (_, at) => BigInt(seed) + BigInt(at));
  // After the largest comes 0.
  return seeds.map((seed) => seed & last);
}

/**
 * What the address carries: parameters, the address of a checkpoint and the variant of its files, the view, and whether a
 * run is asked for at once.
 * @returns {{ parameters: Partial<Parameters>, model?: string, variant?: string, view: string, run: boolean }}
 */
export function readAddress() {
  const carried = new URLSearchParams(location.hash.slice(1));
  const known = [...carried].filter(([name]) => isParameter(name));
  const text = (/** @type {string} */ name) => carried.get(name) || undefined;
  return {
    parameters: Object.fromEntries(known),
    model: text("model"),
    variant: text("variant"),
    view: text("view") ?? "reverse",
    run: carried.has("run"),
  };
}

/**
 * A link to this page that carries the parameters.
 * @param {Parameters} parameters
 * @param {{ address?: string, variant?: string }} model the checkpoint, with an address if it is not the page's own
 * @param {{ run: "1" } | { view: string }} then what the page is to do when it is opened: run them at once, or show a view
 */
export function linkTo(parameters, { address, variant }, then) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "");
  const model = address ? [["model", address], ...(variant ? [["variant", variant]] : [])] : [];
  const link = new URL(location.href);
  link.hash = new URLSearchParams([...model, ...given, ...Object.entries(then)]).toString();
  return link.href;
}

/** A seed that nobody chose. Small, so that it can be read out. */
export function anySeed() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000);
}

/**
 * Shows the fields that mean something to a model, and hides the others: `data-needs` names what the model has to take.
 * @param {ModelInfo} info
 */
export function showFieldsFor(info) {
  // An autoencoder makes sides smaller; a model without one takes any.
  const hasLatents = info.sizeMultiple > 1;
  const takes = {
    ...info,
    takesStrength: info.takesImage && !info.takesNoiseLevel,
    hasLatents,
    hasPixels: !hasLatents,
  };
  for (const part of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-needs]"))) {
    part.hidden = !takes[/** @type {keyof typeof takes} */ (part.dataset.needs)];
  }
  for (const name of NAMES) field(name).disabled = field(name).closest("[data-needs][hidden]") !== null;
  const [width, height] = [field("width"), field("height")].map((side) => /** @type {HTMLInputElement} */ (side));
  for (const side of [width, height]) side.step = side.min = String(info.sizeMultiple);
  width.placeholder = String(info.width);
  height.placeholder = String(info.height);
}
