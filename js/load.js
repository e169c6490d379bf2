// @ts-check
// Loads something onto a device: the one that is asked for, or the best there is.

import { chooseDevice, cpu } from "./device.js";
import { throwIfAborted, toPlain } from "./errors.js";
import { readFile } from "./http.js";
import { Machine } from "./machine.js";

/** @import { CpuOptions, DeviceInfo } from "./index.d.ts" */

/**
 * @template {{ free(): void }} T
 * @param {{ device: "auto" | "webgpu" | "cpu", cpu: CpuOptions, shaders?: string }} request
 * @param {AbortSignal} signal
 * @param {(machine: Machine | undefined, adapter: string, shaders: string | undefined) => Promise<T>} load onto the CPU, if it is there
 *     as a machine, else onto WebGPU's adapter of this name, with kernels made of the shaders
 * @returns {Promise<{ loaded: T, device: DeviceInfo, machine: Machine | undefined }>} the machine is to be closed after what was loaded
 */
export async function loadOnDevice(request, signal, load) {
  /** @type {Machine | undefined} */
  let machine;
  const loadOn = async (/** @type {DeviceInfo} */ device) => {
    if (device.kind === "cpu") machine = await Machine.open(request.cpu, signal);
    const shaders = device.kind === "webgpu" ? await readShaders(signal, request.shaders) : undefined;
    throwIfAborted(signal);
    return load(machine, device.name, shaders);
  };
  try {
    let device = await chooseDevice(request.device);
    let loaded;
    try {
      loaded = await loadOn(device);
    } catch (error) {
      // An adapter may be offered and still refuse to open a device.
      const { code, message } = toPlain(error);
      if (request.device !== "auto" || code !== "no-gpu") throw error;
      device = cpu(message);
      loaded = await loadOn(device);
    }
    await machine?.ready;
    if (signal.aborted) loaded.free();
    throwIfAborted(signal);
    return { loaded, machine, device: { ...device, threads: machine?.threads } };
  } catch (error) {
    machine?.close();
    throw error;
  }
}

/**
 * The text of all kernels of WebGPU.
 * @param {AbortSignal} signal
 * @param {string} [url] where it is, if not beside the package
 */
export async function readShaders(signal, url) {
  // Bundlers look for exactly this expression.
  const { href } = new URL("./internal/shaders.txt", import.meta.url);
  return (await readFile(url ?? href, url ?? "shaders.txt", { signal })).text();
}
