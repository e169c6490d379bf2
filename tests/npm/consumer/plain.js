/** What a page looks like that needs no more of its bundler than that it follows imports. */
import { Pipeline } from "undiffuse";

window.consumer = {
  async run(source, load, sample) {
    const pipeline = await Pipeline.load(source, load);
    const images = [];
    for await (const step of pipeline.sample(sample)) images.push([...step.image.data]);
    await pipeline.dispose();
    return { device: pipeline.device.kind, threads: pipeline.device.threads, images };
  },
  failure: (source, load) =>
    Pipeline.load(source, load).then(
      () => "none",
      (error) => `${error.code}: ${error.message}`,
    ),
};
