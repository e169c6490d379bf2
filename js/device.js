// @ts-check
// Which device runs a pipeline, and why, in words. This is the one place that decides.

import { DeviceError, UndiffuseError } from "./errors.js";

/** @import { DeviceInfo } from "./index.d.ts" */

/**
 * Refuses a JavaScript that is no browser's: pictures are ImageData, and Node, for one, has none.
 */
export function requireBrowser() {
  if (typeof ImageData === "function") return;
  const message =
    "This package runs in browsers, in pages and workers; there is no ImageData here. In Node, run the command `undiffuse`.";
  throw new UndiffuseError("unsupported", message);
}

/**
 * @param {"auto" | "webgpu" | "cpu"} wanted
 * @returns {Promise<DeviceInfo>}
 * @throws {DeviceError} where "webgpu" is wanted and there is none
 */
export async function chooseDevice(wanted) {
  if (wanted === "cpu") return cpu("it was asked for");
  const adapter = await requestAdapter();
  if (typeof adapter === "string") {
    if (wanted === "auto") return cpu(adapter);
    throw new DeviceError("no-gpu", `WebGPU cannot be used: ${adapter}. Use device "auto" or "cpu" to run on the CPU.`);
  }
  const name = nameOf(adapter);
  if (wanted === "webgpu") return { kind: "webgpu", name, reason: "it was asked for" };
  if (isSoftware(adapter)) return cpu(`the only WebGPU adapter here is software (${name}), which is slower`);
  return { kind: "webgpu", name, reason: "this browser offers a WebGPU adapter" };
}

/**
 * @param {string} reason
 * @returns {DeviceInfo}
 */
export function cpu(reason) {
  return { kind: "cpu", name: "WebAssembly", reason };
}

/** An adapter, or the reason why there is none. */
async function requestAdapter() {
  const gpu = globalThis.navigator?.gpu;
  if (!gpu) {
    return globalThis.isSecureContext === false
      ? "browsers offer WebGPU only to pages served over https or from localhost"
      : "this browser has no WebGPU";
  }
  // A null adapter is the specified way to say no; some drivers make the call itself fail.
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
  return adapter ?? "this browser has WebGPU, but no adapter for it on this machine";
}

/** @param {GPUAdapter} adapter */
function isSoftware(adapter) {
  // The attribute moved from the adapter to its info; browsers have one or the other. Firefox has neither set for
  // Mesa's software renderer, which can only be told by its name.
  const flagged = adapter.info?.isFallbackAdapter ?? /** @type {any} */ (adapter).isFallbackAdapter;
  return flagged || /swiftshader|llvmpipe|lavapipe|microsoft basic render/i.test(nameOf(adapter));
}

/** @param {GPUAdapter} adapter */
function nameOf(adapter) {
  // The first browsers with WebGPU had no `info`.
  const { vendor, architecture, description } = adapter.info ?? {};
  return description || [vendor, architecture].filter(Boolean).join(" ") || "an adapter that does not give its name";
}
