/** onnxruntime-web's side: a session is made, its first output read, then steps are timed. */
import { bytesOf, report } from "./page.js";

report(async ({ device, threads, steps, model }) => {
  const bundle = device === "webgpu" ? "ort.webgpu.bundle.min.mjs" : "ort.wasm.bundle.min.mjs";
  const ort = await import(`./runtime/${bundle}`);
  ort.env.wasm.wasmPaths = new URL("runtime/", location.href).href;
  ort.env.wasm.numThreads = threads ?? 1;
  if ((threads ?? 1) > 1 && !crossOriginIsolated) throw new Error("threads need a page that is cross-origin isolated");
  const session = await ort.InferenceSession.create("model/model.onnx", {
    executionProviders: [device === "webgpu" ? "webgpu" : "wasm"],
  });
  const ready = performance.now();

  const inputs = await Promise.all(
    Object.entries(model.inputs).map(async ([name, shape]) => [
      name,
      new ort.Tensor("float32", new Float32Array(await bytesOf(`model/${name}.bin`)), shape),
    ]),
  );
  const step = async () => (await session.run(Object.fromEntries(inputs))).out.data;
  const output = await step();
  const first = performance.now();

  // The largest difference, against the largest value.
  const expected = new Float32Array(await bytesOf("model/out.bin"));
  const largest = (/** @type {Float32Array} */ values) =>
    values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const error = largest(expected.map((value, index) => value - output[index])) / largest(expected);

  /** @type {number[]} */
  const times = [];
  for (let index = 0; index < steps; index += 1) {
    const start = performance.now();
    await step();
    times.push(performance.now() - start);
  }
  return { ready, first, steps: times, device, error };
});
