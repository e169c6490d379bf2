/** What a visitor without a GPU waits for: the figures of the README, and the bound that they must stay under. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe } from "node:test";
import { browserTests, root } from "./harness/index.js";

/** @import { LoadOptions } from "../../js/index.js" */

const STEPS = 25;
const MOST_SECONDS = 30;

/** @type {[string, LoadOptions][]} */
const WAYS = [
  ["one thread", { device: "cpu", cpu: { threads: 1 } }],
  ["one thread, portably", { device: "cpu", cpu: { threads: 1, simd: "portable" } }],
  ["two threads", { device: "cpu", cpu: { threads: 2 } }],
  ["two threads, portably", { device: "cpu", cpu: { threads: 2, simd: "portable" } }],
  ["webgpu", { device: "webgpu" }],
];

describe(`${STEPS} steps of emoji64 with guidance, x_t and x̂_0 decoded at each`, () => {
  const test = browserTests({
    graphics: "webgpu",
    mounts: {
      "/": join(root, "tests/browser/pipeline"),
      "/pkg/": join(root, "pkg"),
      "/models/emoji64/": join(root, "www/models/emoji64"),
    },
    isolated: true,
  });

  for (const [what, load] of WAYS) {
    test(`take less than ${MOST_SECONDS} s on ${what}`, async ({ page, site, context }) => {
      await page.goto(site.url("/"));
      await page.waitForFunction(() => "settle" in window);
      const { loaded, first, total, steps } = await page.evaluate(
        async ({ load, steps }) => {
          const start = performance.now();
          const pipeline = await window.Pipeline.load("/models/emoji64/", load);
          const loaded = performance.now();
          let first = 0;
          const milliseconds = [];
          for await (const step of pipeline.sample({ prompt: "fox, noto style", steps, guidanceScale: 4.5 })) {
            first ||= performance.now() - loaded;
            milliseconds.push(step.milliseconds);
          }
          const total = performance.now() - loaded;
          await pipeline.dispose();
          return { loaded: loaded - start, first, total, steps: milliseconds.sort((a, b) => a - b) };
        },
        { load, steps: STEPS },
      );
      const median = steps[Math.floor(steps.length / 2)];
      context.diagnostic(
        `${what}: load ${loaded.toFixed(0)} ms, first picture ${first.toFixed(0)} ms, ` +
          `step ${median.toFixed(0)} ms (${steps[0].toFixed(0)} to ${steps.at(-1)?.toFixed(0)}), ` +
          `all ${STEPS} ${(total / 1000).toFixed(1)} s`,
      );
      assert.equal(steps.length, STEPS);
      assert.ok(total < 1000 * MOST_SECONDS, `${(total / 1000).toFixed(1)} s`);
    });
  }
});
