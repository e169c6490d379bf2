// @ts-check
// The entry of a thread that helps with the CPU's work: it starts the kernels over the shared memory, says so, and then only works.

import { follow } from "./crew.js";
import { instantiate } from "./kernels_module.js";

/** @import { Shared } from "./crew.js" */

self.addEventListener("message", ({ data }) => {
  /** @type {Shared & { stack: number }} */
  const { module, memory, state, stack } = data;
  const { run } = instantiate(module, memory, stack);
  self.postMessage("ready");
  follow(state, run);
});
