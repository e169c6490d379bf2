// @ts-check
// The WebAssembly modules, one for pipelines and one for features: each fetched, compiled and started once per thread, when it is needed.

import { SourceError, UndiffuseError, throwIfAborted } from "./errors.js";
import { fetchFile, readFile, unlessStalled } from "./http.js";

/** @import { LoadOptions } from "./index.d.ts" */

/**
 * A module: what wasm-bindgen has written for it, and where it lies.
 * @template {{ start(onBreakdown: (reason: string) => void): void }} Core
 * @typedef {{ core: Core, init(options: { module_or_path: WebAssembly.Module }): Promise<unknown>, url(): URL }} Module
 */

/** The modules that have been asked for. @type {Map<Module<any>, Promise<any>>} */
const started = new Map();

/** Why this thread's modules can no longer be called: memory may be in any state. @type {UndiffuseError | undefined} */
let breakdown;

/** @type {Set<(error: UndiffuseError) => void>} */
const listeners = new Set();

/**
 * A started module. The first call of a thread decides where it comes from, and all calls share its start: an aborted
 * `signal` ends only the wait of its own caller.
 * @template {{ start(onBreakdown: (reason: string) => void): void }} Core
 * @param {Module<Core>} module
 * @param {LoadOptions["wasm"]} wasm
 * @param {AbortSignal} signal
 * @returns {Promise<Core>}
 */
export async function startCore(module, wasm, signal) {
  throwIfAborted(signal);
  if (breakdown) throw breakdown;
  const starting =
    started.get(module) ??
    start(module, wasm).catch((error) => {
      started.delete(module);
      throw error;
    });
  started.set(module, starting);
  await Promise.race([starting, new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }))]);
  throwIfAborted(signal);
  return starting;
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
  // A page has this thread for good; a worker of the package's own ends with what was loaded in it.
  const cure = globalThis.document ? "Reload the page to use it again" : "Load it again, in a new worker";
  breakdown = new UndiffuseError("internal", `undiffuse broke down (${reason}). ${cure}.`);
  for (const listener of listeners) listener(breakdown);
  listeners.clear();
}

/**
 * @template {{ start(onBreakdown: (reason: string) => void): void }} Core
 * @param {Module<Core>} module
 * @param {LoadOptions["wasm"]} wasm
 * @returns {Promise<Core>}
 */
async function start({ core, init, url }, wasm) {
  await init({ module_or_path: await compile(wasm ?? url()) });
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
  try {
    if (isUrl) return await compileFrom(file);
    return await WebAssembly.compile(/** @type {BufferSource} */ (wasm));
  } catch (cause) {
    if (!(cause instanceof WebAssembly.CompileError)) throw cause;
    const hint = /CSP|Content Security Policy|unsafe-eval/.test(cause.message)
      ? "the page's Content-Security-Policy forbids WebAssembly; add 'wasm-unsafe-eval' to its script-src"
      : /magic/.test(cause.message)
        ? "it is no WebAssembly module, but perhaps a pointer of git-lfs or a message of the server"
        : "the file is damaged, or this browser is too old for WebAssembly SIMD";
    const message = `${file} could not be compiled: ${hint} (${cause.message}).`;
    throw new SourceError("file-corrupt", message, { file, cause });
  }
}

/**
 * Compiles a module while it is downloaded. If that breaks or takes too long, it is read once more, as a file that can be resumed.
 * @param {string} url
 */
async function compileFrom(url) {
  const controller = new AbortController();
  /** @type {Response | undefined} */
  let response = await fetchFile(url, url, { signal: controller.signal });
  // Browsers do so only under this type; a server that sends another costs time, not function.
  if (response.headers.get("content-type") === "application/wasm") {
    try {
      return await unlessStalled(WebAssembly.compileStreaming(response));
    } catch (error) {
      if (error instanceof WebAssembly.CompileError) throw error;
      controller.abort();
      response = undefined;
    }
  }
  return WebAssembly.compile(await (await readFile(url, url, {}, response)).arrayBuffer());
}
