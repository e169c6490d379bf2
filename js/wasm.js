// @ts-check
// The WebAssembly module: fetched, compiled and started once per thread.

import { SourceError } from "./errors.js";
import { fetchFile } from "./http.js";
import init, * as core from "./internal/undiffuse.js";

/** @import { LoadOptions } from "./index.d.ts" */

/** @type {Promise<typeof core> | undefined} */
let started;

/** @type {Set<(message: string) => void>} */
const panicListeners = new Set();

/**
 * The started module. The first call of a thread decides where it comes from.
 * @param {LoadOptions["wasm"]} wasm
 * @param {AbortSignal} signal
 */
export function startCore(wasm, signal) {
  started ??= start(wasm, signal).catch((error) => {
    started = undefined;
    throw error;
  });
  return started;
}

/**
 * Calls `listener` if the module panics; no call into it can be trusted after that.
 * @param {(message: string) => void} listener
 * @returns {() => void} ends that
 */
export function onPanic(listener) {
  panicListeners.add(listener);
  return () => panicListeners.delete(listener);
}

/**
 * @param {LoadOptions["wasm"]} wasm
 * @param {AbortSignal} signal
 */
async function start(wasm, signal) {
  await init({ module_or_path: await compile(wasm ?? new URL("./internal/undiffuse_bg.wasm", import.meta.url), signal) });
  core.start((/** @type {string} */ message) => {
    for (const listener of panicListeners) listener(message);
  });
  return core;
}

/**
 * @param {NonNullable<LoadOptions["wasm"]>} wasm
 * @param {AbortSignal} signal
 * @returns {Promise<WebAssembly.Module>}
 */
async function compile(wasm, signal) {
  if (wasm instanceof WebAssembly.Module) return wasm;
  const isUrl = typeof wasm === "string" || wasm instanceof URL;
  const file = isUrl ? String(wasm) : "the WebAssembly module";
  const response = isUrl ? await fetchFile(file, file, signal) : undefined;
  try {
    if (!response) return await WebAssembly.compile(/** @type {BufferSource} */ (wasm));
    // Browsers compile while they download only under this type; a server that sends another costs time, not function.
    const streams = response.headers.get("content-type") === "application/wasm";
    return await (streams ? WebAssembly.compileStreaming(response) : WebAssembly.compile(await response.arrayBuffer()));
  } catch (cause) {
    if (!(cause instanceof WebAssembly.CompileError)) {
      throw new SourceError("network", `${file}: the connection broke while it was read.`, { file, cause });
    }
    const hint = "the file is damaged, or this browser is too old for WebAssembly SIMD";
    throw new SourceError("file-corrupt", `${file} could not be compiled: ${hint} (${cause.message}).`, { file, cause });
  }
}
