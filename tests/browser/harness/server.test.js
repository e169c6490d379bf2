/** The test host does what the tests that break it rely on. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { faults, root, Site } from "./index.js";

/** @type {Site} */
let site;
const content = await readFile(join(root, "xtask/src/serve.rs"), "utf8");

before(async () => {
  site = await Site.start({ "/deep/": join(root, "xtask"), "/deep/inner/": join(root, "xtask/src") });
});
beforeEach(() => site.reset());
after(() => site.close());

/** @param {string} path @param {RequestInit} [options] */
const get = (path, options) => fetch(site.url(path), options);

test("files are found under the longest prefix, and nothing outside the folders", async () => {
  assert.equal(await (await get("/deep/inner/serve.rs")).text(), content);
  assert.equal((await get("/deep/Cargo.toml")).status, 200);
  for (const path of ["/serve.rs", "/deep/serve.rs", "/deep/%2e%2e%2fLICENSE-MIT"]) {
    assert.equal((await get(path)).status, 404, path);
  }
});

test("a range is sent alone", async () => {
  const response = await get("/deep/inner/serve.rs", { headers: { Range: "bytes=100-199" } });
  assert.equal(response.status, 206);
  assert.equal(await response.text(), content.slice(100, 200));
  assert.deepEqual(site.requests, [{ method: "GET", path: "/deep/inner/serve.rs", range: "bytes=100-199" }]);
});

test("a cut breaks the connection in the body, as often as it was told", async () => {
  site.break("serve.rs", faults.cut(1000, 1));
  await assert.rejects((await get("/deep/inner/serve.rs")).text());
  const rest = await get("/deep/inner/serve.rs", { headers: { Range: "bytes=1000-" } });
  assert.equal(await rest.text(), content.slice(1000));
});

test("a truncated file ends early without a word", async () => {
  site.break("serve.rs", faults.truncated(1000));
  assert.equal(await (await get("/deep/inner/serve.rs")).text(), content.slice(0, 1000));
});

test("a slow line takes its time", async () => {
  site.break("serve.rs", faults.slow(40_000));
  const start = performance.now();
  assert.equal(await (await get("/deep/inner/serve.rs")).text(), content);
  assert.ok(performance.now() - start > (1000 * content.length) / 40_000 / 2);
});
