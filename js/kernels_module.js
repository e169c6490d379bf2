// @ts-check
// The WebAssembly module of the CPU's kernels: which build of it suits this browser, and how it is started over a memory.

/**
 * Of each build, the module and its twin whose memory threads can share. Two of everything, because the builds differ in
 * instructions and the twins in how they declare their memory. Bundlers look for exactly these expressions.
 * @type {Record<"simd" | "relaxed", { single: () => URL, shared: () => URL }>}
 */
const BUILDS = {
  simd: {
    single: () => new URL("./internal/kernels_simd.wasm", import.meta.url),
    shared: () => new URL("./internal/kernels_simd_shared.wasm", import.meta.url),
  },
  relaxed: {
    single: () => new URL("./internal/kernels_relaxed.wasm", import.meta.url),
    shared: () => new URL("./internal/kernels_relaxed_shared.wasm", import.meta.url),
  },
};

/**
 * The address of the build that this browser can run best.
 * @param {"auto" | "portable"} simd portable: the one whose results have the same bits everywhere
 * @param {boolean} isShared
 * @param {string} [folder] where the builds are, if not beside this script
 */
export function kernelsUrl(simd, isShared, folder) {
  const name = simd === "auto" && hasRelaxedSimd() ? "relaxed" : "simd";
  if (folder) return new URL(`kernels_${name}${isShared ? "_shared" : ""}.wasm`, folder);
  return isShared ? BUILDS[name].shared() : BUILDS[name].single();
}

/**
 * Starts the kernels on this thread.
 * @param {WebAssembly.Module} module
 * @param {WebAssembly.Memory} memory
 * @param {number} [stack] where this thread's stack begins, which grows downwards; absent: the module's own
 */
export function instantiate(module, memory, stack) {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  const { run, __stack_pointer, __heap_base } =
    /** @type {{ run(job: number, part: number): void, __stack_pointer: WebAssembly.Global, __heap_base: WebAssembly.Global }} */ (
      /** @type {unknown} */ (exports)
    );
  if (stack !== undefined) __stack_pointer.value = stack;
  return { run, heapBase: /** @type {number} */ (__heap_base.value) };
}

/** Whether this browser has fused multiply-adds: relaxed SIMD, of which the instruction's presence is asked. */
function hasRelaxedSimd() {
  const body = [
    ...[0x41, 0, 0xfd, 0x11], // i32.const 0, i32x4.splat, three times
    ...[0x41, 0, 0xfd, 0x11],
    ...[0x41, 0, 0xfd, 0x11],
    ...[0xfd, 0x85, 0x02, 0x0b], // f32x4.relaxed_madd, end
  ];
  return WebAssembly.validate(
    Uint8Array.of(
      ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      ...[1, 5, 1, 0x60, 0, 1, 0x7b], // a type: () → v128
      ...[3, 2, 1, 0], // a function of it
      ...[10, body.length + 3, 1, body.length + 1, 0, ...body], // its body, without locals
    ),
  );
}
