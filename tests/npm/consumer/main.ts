/** What a page that uses the package looks like: `run` loads a checkpoint, samples from it, and reports what a test can look at. */
import { Pipeline, UndiffuseError, type LoadOptions, type SampleOptions, type Step } from "undiffuse";
import wasm from "undiffuse/undiffuse.wasm?url";

interface Report {
  device: string;
  steps: Pick<Step, "index" | "total" | "timestep">[];
  /** The bytes of every x_t and, last, of the awaited picture. */
  images: number[][];
}

async function run(source: string, load: LoadOptions, sample: SampleOptions): Promise<Report> {
  const pipeline = await Pipeline.load(source, load);
  try {
    const report: Report = { device: pipeline.device.kind, steps: [], images: [] };
    for await (const { index, total, timestep, image } of pipeline.sample(sample)) {
      report.steps.push({ index, total, timestep });
      report.images.push([...image.data]);
    }
    const image: ImageData = await pipeline.sample(sample);
    report.images.push([...image.data]);
    return report;
  } finally {
    await pipeline.dispose();
  }
}

/** The code of the error that loading from `source` ends with. */
async function failure(source: string): Promise<string> {
  return Pipeline.load(source).then(
    () => "none",
    (error: unknown) => (error instanceof UndiffuseError ? error.code : String(error)),
  );
}

Object.assign(window, { consumer: { run, failure, wasm: new URL(wasm, location.href).href } });
