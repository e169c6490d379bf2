/** What a page that uses the package looks like: `run` loads a checkpoint, samples from it, and reports what a test can look at. */
import {
  FeatureExtractor,
  Pipeline,
  UndiffuseError,
  type BoundOptions,
  type BoundSummary,
  type CpuOptions,
  type FeatureLoadOptions,
  type ForwardOptions,
  type LoadOptions,
  type Lora,
  type SampleOptions,
  type ScheduleOptions,
  type Step,
} from "undiffuse";
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

/** What strict types have to let pass: every option may be undefined, a run is as good as a promise, and `await using` disposes. */
export async function strict(pipeline: Pipeline, extractor: FeatureExtractor, bound: BoundOptions): Promise<unknown[]> {
  const load: LoadOptions = {} as { [K in keyof Required<LoadOptions>]: undefined };
  const cpu: CpuOptions = {} as { [K in keyof Required<CpuOptions>]: undefined };
  const sample: SampleOptions = {} as { [K in keyof Required<SampleOptions>]: undefined };
  const schedule: ScheduleOptions = {} as { [K in keyof Required<ScheduleOptions>]: undefined };
  const features: FeatureLoadOptions = {} as { [K in keyof Required<FeatureLoadOptions>]: undefined };
  const terms: Omit<BoundOptions, "image" | "images"> = {} as {
    [K in keyof Omit<BoundOptions, "image" | "images">]-?: undefined;
  };
  const forward: Omit<ForwardOptions, "image"> = {} as { [K in keyof Omit<ForwardOptions, "image">]-?: undefined };
  const lora: Pick<Lora, "weight"> = { weight: undefined };
  await pipeline.setLoras([], { signal: undefined });
  await extractor.classify(new ImageData(1, 1), { count: undefined, signal: undefined });
  const shown: ImageData | string = await pipeline.sample().catch((error: unknown) => String(error));
  const summary: BoundSummary = await pipeline.bound(bound).finally(() => {});
  for (const disposable of [pipeline, extractor, await extractor.statistics()]) await disposable[Symbol.asyncDispose]();
  return [load, cpu, sample, schedule, features, terms, forward, lora, shown, summary];
}

/** The code of the error that loading from `source` ends with. */
async function failure(source: string): Promise<string> {
  return Pipeline.load(source).then(
    () => "none",
    (error: unknown) => (error instanceof UndiffuseError ? error.code : String(error)),
  );
}

Object.assign(window, { consumer: { run, failure, wasm: new URL(wasm, location.href).href } });
