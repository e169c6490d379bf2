/** What a page that uses the package looks like: `run` loads a checkpoint, samples from it, and reports what a test can look at. */
import { Pipeline, UndiffuseError, type LoadOptions, type Lora, type SampleOptions, type Step } from "undiffuse";
import wasm from "undiffuse/undiffuse.wasm?url";

interface Report {
  device: string;
  threads: number | undefined;
  steps: Pick<Step, "index" | "total" | "timestep">[];
  /** The bytes of every x_t and, last, of the awaited picture. */
  images: number[][];
}

type Shown = SampleOptions & { preview?: "auto" | "decode" };

async function run(source: string, load: LoadOptions, sample: Shown): Promise<Report> {
  const pipeline = await Pipeline.load(source, load);
  try {
    const { kind, threads } = pipeline.device;
    const report: Report = { device: kind, threads, steps: [], images: [] };
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

/** Paints into a picture, two versions at once, in the style of a LoRA: what the types let a page write. */
export async function repaint(pipeline: Pipeline, photo: File, mask: ImageData, style: File): Promise<ImageData[]> {
  if (!pipeline.info.takesMask) throw new TypeError("this model cannot paint into a picture");
  const loras: Lora[] = [{ source: style, weight: 0.8 }];
  await pipeline.setLoras(loras);
  const options = { prompt: "a fox", image: photo, mask, strength: 0.9, seeds: [1, 2n], numImagesPerPrompt: 2 };
  const run = pipeline.sample({ ...options, preview: "none" });
  for await (const { image, images } of run) {
    // Of a run without previews a step may have no picture, and the types say so.
    const first: ImageData | undefined = image;
    if (first) document.title = `${images.length} pictures of ${first.width}×${first.height}`;
  }
  return [...(await run.images())];
}

/** The code of the error that loading from `source` ends with. */
async function failure(source: string): Promise<string> {
  return Pipeline.load(source).then(
    () => "none",
    (error: unknown) => (error instanceof UndiffuseError ? error.code : String(error)),
  );
}

Object.assign(window, { consumer: { run, failure, wasm: new URL(wasm, location.href).href } });
