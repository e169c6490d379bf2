/** What the pages under test put on `window` for the functions that tests run there. */
import type * as undiffuse from "../../js/index.js";

type Package = Pick<typeof undiffuse, "FeatureExtractor" | "Pipeline" | "UndiffuseError">;

interface Settled {
  value?: any;
  error?: {
    name: string;
    code: string;
    message: string;
    file?: string;
    tensor?: string;
    option?: string;
    limit?: string;
    class: string;
  };
}

/** `trajectories/index.html`: one pipeline, with the numbers that the package does not show. */
export interface Core {
  load(options: { cpu?: undiffuse.CpuOptions; kernels?: string }): Promise<number | undefined>;
  tokenize(prompt: string): Promise<number[]>;
  sample(
    seed: number,
    options: object,
  ): Promise<{ initialLatents: number[]; timesteps: number[]; latents: number[][]; image: number[] }>;
  leave(steps: number): Promise<number>;
}

declare global {
  interface Window extends Package {
    /** `pipeline/index.html`: what a promise comes to, in a form that can leave the page. */
    settle(promise: unknown): Promise<Settled>;
    /** `pipeline/index.html`: bytes in GPU buffers of the page's own thread, now and at most. */
    memory: { live: number; peak: number };
    /** `pipeline/index.html`: the URL of a checkpoint. */
    model: string;
    /** `abort.test.js`: what a call comes to that is aborted, when it was, and how long after that. */
    abortAfter(
      milliseconds: number,
      call: (signal: AbortSignal) => unknown,
    ): Promise<{ code: string; milliseconds: number; aborted: number }>;
    /** `abort.test.js`: the bits of a picture. */
    draw(pipeline: undiffuse.Pipeline): Promise<string>;
    /** `pipelines.test.js`: the pipeline that is open, and what for. */
    opened?: { wanted: string; pipeline: undiffuse.Pipeline };
    /** `size.test.js`: the module's own memory. */
    heap?: WebAssembly.Memory;
    core: Core;
    /** `webgpu/index.html` */
    probePage(): Promise<{ state: string }>;
    /** `webgpu/index.html` */
    probeWorker(): Promise<{ state: string }>;
    /** The consumers in `tests/npm`. */
    consumer: {
      run(source: string, load: object, sample: object): Promise<any>;
      failure(source: string): Promise<string>;
      wasm: string;
    };
  }
}
