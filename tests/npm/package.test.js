/**
 * The package as its users get it: packed, installed from the tarball, type-checked, bundled by Vite, by esbuild or not at all, from the
 * page's origin or another one, and run in the browser; and refused by Node.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cp, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { build, createLogger, createServer } from "vite";
import { browserTests, root, Site } from "../browser/harness/index.js";

/** Where the consumer is set up: fresh in every run, below a folder that holds no other package of ours. */
const project = join(root, "target/npm-consumer");
const installed = join(project, "node_modules/undiffuse");

const MODEL = "/models/emoji64/";
const SAMPLE = { prompt: "a happy cat", seed: 7, steps: 2 };

/**
 * Lets the consumer on a page load a checkpoint and sample from it; its report.
 * @param {import('playwright-core').Page} page @param {string} model @param {object} [load]
 */
const sample = (page, model, load = {}) =>
  page.evaluate(
    ([model, load, sample]) => window.consumer.run(model, load, sample),
    /** @type {const} */ ([model, { device: "cpu", cpu: { threads: 2 }, ...load }, SAMPLE]),
  );

/** Runs a program of npm's in the project; its standard output. @param {string} program @param {string[]} args */
const run = (program, ...args) => execFileSync(program, args, { cwd: project, encoding: "utf8" });

before(async () => {
  await rm(project, { recursive: true, force: true });
  await cp(join(import.meta.dirname, "consumer"), project, { recursive: true });
  await mkdir(installed, { recursive: true });
  const [{ filename }] = JSON.parse(run("npm", "pack", "--json", join(root, "pkg")));
  // Offline: the package stands alone, so there is nothing to fetch.
  run("npm", "install", "--offline", "--no-audit", "--no-fund", "--loglevel=error", `./${filename}`);
});

describe("the tarball", () => {
  test("holds what is imported and what a package carries, and nothing else", () => {
    const [{ files }] = JSON.parse(run("npm", "pack", "--json", "--dry-run", join(root, "pkg")));
    const paths = files.map((/** @type {{ path: string }} */ file) => file.path);
    for (const path of [
      "index.js",
      "index.d.ts",
      "worker.js",
      "internal/undiffuse.js",
      "internal/undiffuse_bg.wasm",
      "internal/undiffuse_features.js",
      "internal/undiffuse_features_bg.wasm",
      "internal/kernels_simd.wasm",
      "internal/kernels_simd_shared.wasm",
      "internal/kernels_relaxed.wasm",
      "internal/kernels_relaxed_shared.wasm",
      "internal/merges.txt",
      "internal/merges.license.txt",
      "internal/shaders.txt",
      "README.md",
      "LICENSE-MIT",
      "LICENSE-APACHE",
      "LICENSES.txt",
      "package.json",
    ]) {
      assert.ok(paths.includes(path), `${path} is not packed`);
    }
    const strangers = paths.filter(
      (/** @type {string} */ path) =>
        !/^(internal\/)?[a-z_]+\.(js|wasm)$|^internal\/(merges(\.license)?|shaders)\.txt$|^index\.d\.ts$|^package\.json$|^README\.md$|^LICENSE/.test(
          path,
        ),
    );
    assert.deepEqual(strangers, []);
  });

  test("has types that a strict consumer compiles against, by a bundler’s resolution and by Node’s", () => {
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    run("node", tsc, "--project", ".");
    run("node", tsc, "--project", ".", "--module", "NodeNext", "--moduleResolution", "NodeNext");
  });
});

describe("bundled by Vite", () => {
  /** @type {string[]} */
  const warnings = [];
  before(async () => {
    const customLogger = {
      ...createLogger("silent"),
      warn: (/** @type {string} */ message) => void warnings.push(message),
    };
    await build({ root: project, configFile: false, logLevel: "warn", customLogger });
  });

  test("without a setting and without a warning", () => {
    assert.deepEqual(warnings, []);
  });

  const browserTest = browserTests({
    graphics: "webgpu",
    mounts: { "/": join(project, "dist"), [MODEL]: join(root, "www", MODEL) },
    isolated: true,
  });

  for (const worker of [true, false]) {
    browserTest(`it samples ${worker ? "in a worker" : "on the page’s own thread"}`, async ({ page, site }) => {
      await page.goto(site.url("/"));
      const report = await sample(page, MODEL, { worker });
      assert.deepEqual([report.device, report.threads], ["cpu", worker ? 2 : 1]);
      assert.deepEqual(
        report.steps.map((/** @type {{ index: number }} */ step) => step.index),
        [0, 1],
      );
      const [first, last, awaited] = report.images;
      assert.notDeepEqual(first, last);
      assert.deepEqual(last, awaited);
    });
  }

  browserTest("it takes the module from a URL of the consumer’s choice", async ({ page, site }) => {
    await page.goto(site.url("/"));
    const url = await page.evaluate(() => window.consumer.wasm);
    const report = await sample(page, MODEL, { wasm: url });
    assert.equal(report.steps.length, SAMPLE.steps);
  });

  browserTest("it meets a typed error where there is no model", async ({ page, site, expectError }) => {
    expectError(/404/);
    await page.goto(site.url("/"));
    assert.equal(await page.evaluate(() => window.consumer.failure("/nowhere/")), "file-missing");
  });
});

describe("served by Vite for development", () => {
  /** @type {import('vite').ViteDevServer} */
  let server;
  before(async () => {
    await cp(join(root, "www", MODEL), join(project, "public", MODEL), { recursive: true });
    server = await createServer({
      root: project,
      configFile: false,
      logLevel: "error",
      server: { host: "127.0.0.1", port: 0 },
    });
    await server.listen();
  });
  after(() => server?.close());

  browserTests({ graphics: "webgpu", mounts: {} })("it samples", async ({ page }) => {
    const [url] = server.resolvedUrls?.local ?? [];
    await page.goto(/** @type {string} */ (url));
    await page.waitForFunction(() => "consumer" in window);
    const report = await sample(page, MODEL);
    assert.equal(report.steps.length, SAMPLE.steps);
  });
});

describe("bundled by esbuild", () => {
  const bundle = join(project, "esbuild");
  const alone = join(project, "esbuild-alone");
  before(async () => {
    const esbuild = join(root, "node_modules/.bin/esbuild");
    // README's recipe.
    const workers = ["worker.js", "kernels_worker.js"].map((name) => `node_modules/undiffuse/${name}`);
    const options = ["--bundle", "--splitting", "--format=esm", "--entry-names=[name]", "--log-level=warning"];
    run(esbuild, "plain.js", ...workers, ...options, "--outdir=esbuild");
    await cp(join(installed, "internal"), join(bundle, "internal"), { recursive: true });
    // And what one would do without it.
    run(esbuild, "plain.js", "--bundle", "--format=esm", "--log-level=warning", "--outdir=esbuild-alone");
    for (const folder of [bundle, alone]) await cp(join(project, "plain.html"), join(folder, "index.html"));
  });

  const browserTest = browserTests({
    graphics: "webgpu",
    mounts: { "/deep/": bundle, "/alone/": alone, [MODEL]: join(root, "www", MODEL) },
    isolated: true,
  });

  browserTest("by the recipe of the README it samples, with threads", async ({ page, site }) => {
    await page.goto(site.url("/deep/"));
    const report = await sample(page, MODEL);
    assert.equal(report.images.length, SAMPLE.steps);
    assert.equal(report.threads, 2);
  });

  browserTest("without it, an error says which address failed", async ({ page, site, expectError }) => {
    expectError(/404/);
    await page.goto(site.url("/alone/"));
    const message = await page.evaluate((model) => window.consumer.failure(model, { device: "cpu" }), MODEL);
    assert.match(message, /^worker-failed: .*could not be loaded from /);
    assert.ok(message.includes(site.url("/alone/worker.js")), message);
  });
});

describe("imported from another origin", () => {
  /** @type {Site} */
  let cdn;
  before(async () => {
    cdn = await Site.start({ "/undiffuse@0.1/": installed }, "127.0.0.1", {
      "Access-Control-Allow-Origin": "*",
      "Cross-Origin-Resource-Policy": "cross-origin",
    });
  });
  after(() => cdn?.close());

  const mounts = { "/page/": join(root, "tests/npm/plain"), [MODEL]: join(root, "www", MODEL) };
  const isolated = browserTests({ graphics: "webgpu", mounts, isolated: true });
  const plain = browserTests({ graphics: "webgpu", mounts });

  /** @param {import('playwright-core').Page} page @param {string} path */
  const importFrom = async (page, path) => {
    await page.route("**/page/undiffuse/index.js", (route) =>
      route.fulfill({
        contentType: "text/javascript",
        headers: { "Cross-Origin-Resource-Policy": "cross-origin" },
        body: `export * from ${JSON.stringify(cdn.url(path))};`,
      }),
    );
  };

  isolated("it samples, in a worker with threads", async ({ page, site }) => {
    await importFrom(page, "/undiffuse@0.1/index.js");
    await page.goto(site.url("/page/"));
    const report = await sample(page, MODEL);
    assert.equal(report.images.length, SAMPLE.steps);
    assert.deepEqual([report.device, report.threads], ["cpu", 2]);
  });

  plain("a policy without blob: is named with the address", async ({ page, expectError, context }) => {
    expectError(/Content Security Policy/);
    await importFrom(page, "/undiffuse@0.1/index.js");
    const policy = `script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' ${cdn.url("")}; worker-src 'self'`;
    const strict = await Site.start(mounts, "127.0.0.1", { "Content-Security-Policy": policy });
    context.after(() => strict.close());
    await page.goto(strict.url("/page/"));
    const load = { device: "cpu" };
    const message = await page.evaluate(
      ([model, load]) => window.consumer.failure(model, load),
      /** @type {const} */ ([MODEL, load]),
    );
    assert.match(message, /^worker-failed: .*blob: in the page's worker-src/);
    assert.ok(message.includes(cdn.url("/undiffuse@0.1/worker.js")), message);
    const report = await sample(page, MODEL, { worker: false });
    assert.equal(report.images.length, SAMPLE.steps);
  });
});

describe("in Node", () => {
  test("it is refused in words, whatever is asked of it", async () => {
    const { Pipeline, FeatureExtractor } = await import(join(installed, "index.js"));
    for (const ask of [
      () => Pipeline.load("https://host.test/"),
      () => Pipeline.load("https://host.test/", { worker: false }),
      () => FeatureExtractor.load("https://host.test/"),
      () => Pipeline.capabilities(),
    ]) {
      await assert.rejects(ask, { code: "unsupported", message: /runs in browsers.* In Node, run the command/ });
    }
  });
});

describe("imported by a page without a bundler", () => {
  const browserTest = browserTests({
    graphics: "webgpu",
    mounts: {
      "/deep/undiffuse/": installed,
      [`/deep${MODEL}`]: join(root, "www", MODEL),
      "/deep/": join(import.meta.dirname, "plain"),
    },
    isolated: true,
  });

  browserTest("it samples, from URLs relative to the page", async ({ page, site }) => {
    await page.goto(site.url("/deep/"));
    const report = await sample(page, "models/emoji64/");
    assert.equal(report.images.length, SAMPLE.steps);
    assert.equal(report.threads, 2);
  });
});
