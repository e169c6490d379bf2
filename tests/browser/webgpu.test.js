/** The ground that the other browser tests stand on: which graphics this Chromium really offers, in a page and in a module worker. */
import assert from "node:assert/strict";
import { describe } from "node:test";
import { join } from "node:path";
import { browserTests, root } from "./harness/index.js";

/** @type {[import('./harness/index.js').Graphics, string][]} */
const offered = [
  ["webgpu", "computes"],
  ["no-adapter", "no adapter"],
  ["no-webgpu", "no navigator.gpu"],
];
for (const [graphics, state] of offered) {
  describe(graphics, () => {
    const test = browserTests({ graphics, mounts: { "/": join(root, "tests/browser/webgpu") } });

    test(`a page and a module worker find: ${state}`, async ({ page, site, context }) => {
      await page.goto(site.url("/"));
      for (const probe of /** @type {const} */ (["probePage", "probeWorker"])) {
        const found = await page.evaluate((name) => window[name](), probe);
        context.diagnostic(`${probe}: ${JSON.stringify(found)}`);
        assert.equal(found.state, state);
      }
    });
  });
}
