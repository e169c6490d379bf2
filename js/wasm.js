// @ts-check
// The WebAssembly module: fetched, compiled and started once per thread.

import { SourceError, UndiffuseError, throwIfAborted } from "./errors.js";
import { fetchFile } from "./http.js";
import init, * as core from "./internal/undiffuse.js";

/** @import { LoadOptions } from "./index.d.ts" */

/** @type {Promise<typeof core> | undefined} */
let started;

/** Why the module can no longer be called: a thread has only the one, and its memory may be in any state. @type {UndiffuseError | undefined} */
let breakdown;

/** @type {Set<(error: UndiffuseError) => void>} */
const listeners = new Set();

/**
 * The started module. The first call of a thread decides where it comes from, and all calls share its start: an aborted
 * `signal` ends only the wait of its own caller.
 * @param {LoadOptions["wasm"]} wasm
 * @param {AbortSignal} signal
 */
export async function startCore(wasm, signal) {
  throwIfAborted(signal);
  if (breakdown) throw breakdown;
  started ??= start(wasm).catch((error) => {
    started = undefined;
    throw error;
  });
  await Promise.race([started, new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }))]);
  throwIfAborted(signal);
  return started;
}

/**
 * Calls `listener` once the module has broken down; no call into it can be trusted after that.
 * @param {(error: UndiffuseError) => void} listener
 * @returns {() => void} ends that
 */
export function onBreakdown(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/**
 * Watches for a trap that no caller sees: the module's futures run in microtasks of their own, so what they throw settles
 * no promise. To be watched only while the module is at work, because another module's trap on this thread looks the same.
 * @returns {() => void} ends that
 */
export function watchTraps() {
  const onError = (/** @type {ErrorEvent} */ event) => reportTrap(event.error);
  const onRejection = (/** @type {PromiseRejectionEvent} */ event) => reportTrap(event.reason);
  globalThis.addEventListener("error", onError);
  globalThis.addEventListener("unhandledrejection", onRejection);
  return () => {
    globalThis.removeEventListener("error", onError);
    globalThis.removeEventListener("unhandledrejection", onRejection);
  };
}

/**
 * Takes note of what was thrown, if it was a trap. A panic was told before it trapped; what traps without one is
 * usually an allocation that failed.
 * @param {unknown} thrown
 */
export function reportTrap(thrown) {
  if (thrown instanceof WebAssembly.RuntimeError) breakDown(`${thrown.message}; probably memory ran out`);
}

/** @param {string} reason */
function breakDown(reason) {
  if (breakdown) return;
  // In a worker, whoever loads again gets another one.
  const cure = typeof document === "undefined" ? "Load again, in a new worker" : "Reload the page";
  breakdown = new UndiffuseError("internal", `undiffuse broke down (${reason}). ${cure} to use it again.`);
  for (const listener of listeners) listener(breakdown);
  listeners.clear();
}

/** @param {LoadOptions["wasm"]} wasm */
async function start(wasm) {
  await init({ module_or_path: await compile(wasm ?? new URL("./internal/undiffuse_bg.wasm", import.meta.url)) });
  core.start(breakDown);
  return core;
}

/**
 * @param {NonNullable<LoadOptions["wasm"]>} wasm
 * @returns {Promise<WebAssembly.Module>}
 */
export async function compile(wasm) {
  if (wasm instanceof WebAssembly.Module) return wasm;
  const isUrl = typeof wasm === "string" || wasm instanceof URL;
  const file = isUrl ? String(wasm) : "the WebAssembly module";
  const response = isUrl ? await fetchFile(file, file) : undefined;
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
    throw new SourceError("file-corrupt", `${file} could not be compiled: ${hint} (${cause.message}).`, {
      file,
      cause,
    });
  }
}
