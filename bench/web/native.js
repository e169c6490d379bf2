/**
 * onnxruntime's CPU provider natively: `node native.js FOLDER THREADS STEPS`, with a folder that `undiffuse-bench prepare` wrote. Prints one
 * line of JSON.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import ort from "onnxruntime-node";

const [folder, threads, steps] = process.argv.slice(2);
const floats = async (/** @type {string} */ tensor) => {
  const bytes = await readFile(join(folder, `${tensor}.bin`));
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
};
const model = JSON.parse(await readFile(join(folder, "model.json"), "utf8"));
const session = await ort.InferenceSession.create(join(folder, "model.onnx"), {
  executionProviders: ["cpu"],
  intraOpNumThreads: Number(threads),
  interOpNumThreads: 1,
});

/** @type {Record<string, import("onnxruntime-node").Tensor>} */
const inputs = {};
for (const [input, shape] of Object.entries(model.inputs)) {
  inputs[input] = new ort.Tensor("float32", await floats(input), shape);
}
/** One step: its milliseconds and its output. */
async function step() {
  const start = performance.now();
  const { out } = await session.run(inputs);
  return { milliseconds: performance.now() - start, output: /** @type {Float32Array} */ (out.data) };
}

const { milliseconds: first, output } = await step();
const expected = await floats("out");
const largest = (/** @type {Float32Array} */ values) =>
  values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const error = largest(expected.map((value, index) => value - output[index])) / largest(expected);
const times = [];
for (let index = 0; index < Number(steps); index += 1) times.push((await step()).milliseconds);
console.log(
  JSON.stringify({
    device: "onnxruntime CPU",
    first_ms: first,
    steps_ms: times,
    peak_mib: process.resourceUsage().maxRSS / 1024,
    error,
  }),
);
