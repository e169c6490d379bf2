/** This package's side: a checkpoint is loaded, its first x_t painted, then steps are timed. */
import { Pipeline } from "./pkg/index.js";
import { bytesOf, report } from "./page.js";

report(async ({ device, threads, steps, model }) => {
  const pipeline = await Pipeline.load("checkpoint/", { device, ...(threads && { cpu: { threads } }) });
  if (threads && pipeline.device.threads !== threads) {
    throw new Error(`${threads} threads were asked for, ${pipeline.device.threads} compute`);
  }
  const ready = performance.now();

  const canvas = /** @type {HTMLCanvasElement} */ (document.querySelector("canvas"));
  let first = 0;
  /** @type {ImageData | undefined} */
  let last;
  for await (const { image } of pipeline.sample(model.run)) {
    if (first === 0) {
      [canvas.width, canvas.height] = [image.width, image.height];
      canvas.getContext("2d")?.putImageData(image, 0, 0);
      await new Promise(requestAnimationFrame);
      first = performance.now();
    }
    last = image;
  }

  // The share of values that are off by more than a level of 255.
  const expected = new Uint8Array(await bytesOf("model/expected.rgba"));
  const off = expected.filter((value, index) => !(Math.abs(value - (last?.data[index] ?? NaN)) <= 1)).length;

  /** @type {number[]} */
  const times = [];
  // The first step compiles and the last decodes: those between are timed, with the small pictures of x_t and x̂_0 that a page shows.
  const run = pipeline.sample({ ...model.run, steps: steps + 2 })[Symbol.asyncIterator]();
  for (let index = 0; index <= steps; index += 1) {
    const start = performance.now();
    await run.next();
    times.push(performance.now() - start);
  }
  await pipeline.dispose();
  return { ready, first, steps: times.slice(1), device: pipeline.device.name, error: off / expected.length };
});
