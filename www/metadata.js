// @ts-check
// What a picture was made with, inside its PNG: once as the tools for such pictures read it, once for this page.

import { readTexts, withTexts } from "./png.js";

/** @import { Parameters } from "./parameters.js" */

/** The text that holds the options under the package's names, as JSON. */
const OWN = "undiffuse";

/**
 * What a picture was made with: the parameters that were given, and the names of what else there was.
 * @typedef {Partial<Parameters> & { model: string, variant?: string, image?: string, startTimestep?: string, loras?: { name: string, weight: number }[] }} Made
 */

/**
 * The picture's file with what it was made with.
 * @param {Blob} png
 * @param {Made} made
 * @param {{ width: number, height: number, scheduler: string }} drawn the picture's size, and the scheduler that drew it
 * @returns {Promise<Blob>}
 */
export async function withMade(png, made, drawn) {
  const texts = { parameters: parametersText(made, drawn), [OWN]: JSON.stringify(made) };
  return new Blob([withTexts(new Uint8Array(await png.arrayBuffer()), texts)], { type: "image/png" });
}

/**
 * What a PNG says that it was made with: under the names of {@link Parameters} what they have a place for, and under the writer's
 * own names the rest. Undefined where it says nothing that this page understands.
 * @param {Blob} png
 * @returns {Promise<Record<string, unknown> | undefined>}
 * @throws {Error} where the file is no PNG or is damaged
 */
export async function readMade(png) {
  const texts = await readTexts(new Uint8Array(await png.arrayBuffer()));
  const own = parsed(texts.get(OWN));
  if (own) return own;
  const { readParametersText, readGraph } = await import("./foreign.js");
  const [graph, workflow] = [texts.get("prompt"), texts.get("workflow")].map(parsed);
  return readParametersText(texts.get("parameters") ?? "") ?? readGraph(graph, workflow);
}

/**
 * An object from JSON, as Python writes it too; undefined where it is none.
 * @param {string | undefined} text
 * @returns {Record<string, any> | undefined}
 */
function parsed(text = "") {
  // A seed may be larger than a number can tell.
  const exact = (
    /** @type {string} */ _,
    /** @type {unknown} */ value,
    /** @type {{ source?: string }} */ { source } = {},
  ) => (Number.isInteger(value) && !Number.isSafeInteger(value) ? source : value);
  for (const json of [text, text.replace(/\bNaN\b/g, "null")]) {
    try {
      const value = JSON.parse(json, exact);
      return typeof value === "object" && value !== null ? value : undefined;
    } catch {
      // Perhaps the other reading is JSON.
    }
  }
  return undefined;
}

/**
 * The convention of the web UIs: the prompt, the negative one after its name, and a line of `Name: value`.
 * @param {Made} made
 * @param {{ width: number, height: number, scheduler: string }} drawn
 */
function parametersText(made, { width, height, scheduler }) {
  /** @type {[string, string | undefined][]} */
  const values = [
    ["Steps", made.steps],
    ["Sampler", made.solver || scheduler],
    ["CFG scale", made.guidanceScale],
    ["Seed", made.seed],
    ["Size", `${width}x${height}`],
    ["Model", made.model],
    ["Denoising strength", made.strength],
    // There, 1 is the last layer itself.
    ["Clip skip", made.clipSkip && String(Number(made.clipSkip) + 1)],
    ["Version", OWN],
  ];
  const line = values.flatMap(([name, value]) => (value ? [`${name}: ${quoted(value)}`] : [])).join(", ");
  return [made.prompt, made.negativePrompt && `Negative prompt: ${made.negativePrompt}`, line]
    .filter(Boolean)
    .join("\n");
}

/** @param {string} value a comma, a colon or a new line would end it */
function quoted(value) {
  return /[,:\n]/.test(value) ? JSON.stringify(value) : value;
}
