// @ts-check
// What costs much is not begun unasked: minutes of computing, and somebody's gigabytes.

import { ask, dismiss, state, show } from "./state.js";
import { describeSource } from "./package.js";

/** A run that takes longer, in seconds, is begun only if the visitor wants it to be. */
const LONG = 60;

/** More bytes than this are not fetched at an address that was typed without saying how many they are. */
const LARGE = 100e6;

/** How long an address may take to say how large its files are, in milliseconds. */
const PATIENCE = 4000;

/** The parts of a checkpoint that have weights, and what the files of these are called. */
const PARTS = {
  unet: "diffusion_pytorch_model",
  vae: "diffusion_pytorch_model",
  text_encoder: "model",
  text_encoder_2: "model",
};

/**
 * Asks whether to begin something that takes minutes.
 * @param {number | undefined} seconds how long it will take, if that is known
 * @param {AbortSignal} signal ends the asking
 * @returns {Promise<boolean>}
 */
export async function affords(seconds, signal) {
  if (seconds === undefined || seconds < LONG) return true;
  signal.addEventListener("abort", dismiss, { once: true });
  const agreed = await ask(`This will take about ${duration(seconds)} on this device.`, "Start anyway");
  signal.removeEventListener("abort", dismiss);
  return agreed;
}

/**
 * Asks whether to open what is at an address. What lies on this site, below this page, is the site's own offer.
 * @param {string} address
 * @param {string | undefined} variant
 * @param {{ isTyped: boolean }} how isTyped: by the visitor, who thus knows the address, if not the size
 */
export async function mayOpen(address, variant, { isTyped }) {
  if (isOwn(address)) return true;
  const url = new URL(address, document.baseURI);
  const host = url.host || url.protocol;
  const name = nameOf(address);
  const question = (/** @type {string} */ size) =>
    isTyped
      ? `${name} at ${host} has ${size}.`
      : `This link opens ${name} (${size}) from ${host}. It is fetched to this device and runs here.`;
  if (isTyped) {
    const bytes = await sizeOf(address, variant).catch(() => undefined);
    return bytes === undefined || bytes < LARGE || ask(question(sized(bytes)), "Open");
  }
  const answer = ask(question("of a size that is not known yet"), "Open");
  const asked = state.question;
  sizeOf(address, variant)
    .catch(() => undefined)
    .then((bytes) => {
      if (!asked || state.question !== asked) return;
      asked.text = question(bytes === undefined ? "of unknown size" : sized(bytes));
      show();
    });
  return answer;
}

/** Whether an address lies on this site, below this page. @param {string} address */
export function isOwn(address) {
  return URL.canParse(address, document.baseURI)
    ? new URL(address, document.baseURI).href.startsWith(new URL("./", document.baseURI).href)
    : true;
}

/**
 * What to call what is at an address.
 * @param {string} address
 */
export function nameOf(address) {
  const path = address.replace(/[?#].*$/, "").split("/");
  return path.filter(Boolean).at(-1) ?? address;
}

/**
 * The bytes of a checkpoint's weights, as far as its server says.
 * @param {string} address
 * @param {string} [variant]
 * @returns {Promise<number | undefined>}
 */
async function sizeOf(address, variant) {
  const described = describeSource(address);
  if (described.kind !== "url") return undefined;
  const signal = AbortSignal.timeout(PATIENCE);
  const at = (/** @type {string} */ path) => new URL(path, described.base.replace(/\/?$/, "/"));
  if (described.file !== undefined) return lengthOf(at(encodeURIComponent(described.file)), signal);
  const index = await (await fetch(at("model_index.json"), { signal })).json();
  const suffix = variant ? `.${variant}` : "";
  const parts = Object.entries(PARTS).filter(([part]) => part in index);
  const lengths = await Promise.all(
    parts.map(([part, file]) => lengthOf(at(`${part}/${file}${suffix}.safetensors`), signal)),
  );
  const known = lengths.filter((length) => length !== undefined);
  return known.length > 0 ? known.reduce((sum, length) => sum + length) : undefined;
}

/**
 * @param {URL} url
 * @param {AbortSignal} signal
 */
async function lengthOf(url, signal) {
  const response = await fetch(url, { method: "HEAD", signal });
  return response.ok ? Number(response.headers.get("content-length")) || undefined : undefined;
}

/** @param {number} bytes */
function sized(bytes) {
  return bytes < 1e9 ? `${Math.max(1, Math.round(bytes / 1e6))} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** @param {number} seconds a minute or more */
function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (minutes === 1) return "a minute";
  return minutes < 90 ? `${minutes} minutes` : `${Math.round(minutes / 60)} hours`;
}
