/** The numbers behind the pictures, which the package itself keeps to itself: its module, in a worker as the package has it. */
import init, { Pipeline, start } from "./pkg/internal/undiffuse.js";
import { readShaders } from "./pkg/load.js";
import { Machine } from "./pkg/machine.js";
import { openSource, openVocabulary } from "./pkg/source.js";

const base = new URL("models/emoji64/", location.href).href;
const { signal } = new AbortController();
const files = { vocabulary: openVocabulary(undefined, signal), shaders: await readShaders(signal) };
const { memory } = await init({ module_or_path: new URL("pkg/internal/undiffuse_bg.wasm", location.href) });
start(() => {});

let machine;
let pipeline;

/**
 * Loads the model in place of the one before, onto the CPU if there are options for it, or else WebGPU, to run with these kernels or the
 * usual ones; the threads of the CPU.
 */
async function load({ cpu, kernels }) {
  pipeline?.free();
  machine?.close();
  machine = cpu && (await Machine.open(cpu, signal));
  pipeline = await Pipeline.load(openSource({ kind: "url", base }, signal), machine, { ...files, kernels }, () => {});
  await machine?.ready;
  return machine?.threads;
}

const tokenize = (prompt) => [...pipeline.tokenize(prompt)];

const begin = (seed, options) => pipeline.sample(JSON.stringify({ ...options, seed: String(seed) }));

/** All of a run, with tensors as plain arrays. */
async function sample(seed, options) {
  const sampler = await begin(seed, { ...options, preview: "none" });
  const numbers = async (promise) => [...(await promise)];
  const run = { initialLatents: await numbers(sampler.initial_latents()), timesteps: [], latents: [] };
  for (let step; (step = await sampler.step());) {
    run.timesteps.push(step.timestep);
    run.latents.push(await numbers(sampler.latents()));
  }
  run.image = await numbers(sampler.image());
  sampler.dispose();
  return run;
}

/** Begins a run, leaves it after some steps; the bytes of the modules' memories then. */
async function leave(steps) {
  const sampler = await begin(0, { prompt: "a happy cat", preview: "decode" });
  for (let index = 0; index < steps; index++) await sampler.step();
  sampler.dispose();
  return memory.buffer.byteLength + (machine?.memory.buffer.byteLength ?? 0);
}

const calls = { load, tokenize, sample, leave };

self.addEventListener("message", async ({ data: { id, name, args } }) => {
  try {
    self.postMessage({ id, result: await calls[name](...args) });
  } catch (error) {
    self.postMessage({ id, error: String(error) });
  }
});
self.postMessage({ id: "ready" });
