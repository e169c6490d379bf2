/**
 * Tests in a real Chromium. `browserTests` starts one browser and one host for a test file and gives back a `test` whose function gets a fresh
 * page. A test fails if its page reported an error that it did not say it expects; a screenshot of every failed test is kept.
 */
import { after, before, test } from "node:test";
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";
import { Site } from "./server.js";

export { faults, Site } from "./server.js";

/** The repository's root. */
export const root = resolve(import.meta.dirname, "../../..");

/** Where the site lies on the test host: any path must do. */
export const SITE = "/some/deep/path/";

/**
 * What the browser offers:
 * - `webgpu`: an adapter; on a machine without a GPU that is SwiftShader, which says so (`isFallbackAdapter`);
 * - `no-adapter`: `navigator.gpu`, but no adapter behind it, as on a machine whose GPU is blocked;
 * - `no-webgpu`: no `navigator.gpu` at all, as in an older browser; every browser hides it from pages that come by plain http from another host.
 * @typedef {'webgpu' | 'no-adapter' | 'no-webgpu'} Graphics
 */
const GRAPHICS = {
  webgpu: { host: "127.0.0.1", args: ["--enable-unsafe-webgpu"] },
  "no-adapter": { host: "127.0.0.1", args: ["--disable-gpu", "--disable-software-rasterizer"] },
  "no-webgpu": { host: "plain-http.test", args: ["--host-resolver-rules=MAP plain-http.test 127.0.0.1"] },
};

/** What a host sends so that its pages are cross-origin isolated and may share memory between threads. */
export const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** Keeps the browser from looking for its maker's hosts, which a test machine need not reach. */
const QUIET = [
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-quic",
  "--no-first-run",
];

/** The longest that one test may take, in milliseconds, unless it knows that it needs more. */
const TIMEOUT = 180_000;

/**
 * A browser with these graphics; `CHROMIUM` names another than Debian's.
 * @param {Graphics} graphics
 */
export function launch(graphics) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // The sandbox cannot start as root, which is what test machines often are.
    chromiumSandbox: process.getuid?.() !== 0,
    args: [...GRAPHICS[graphics].args, ...QUIET],
  });
}

/**
 * What a test gets.
 * @typedef {object} Fixture
 * @property {import('playwright-core').Page} page  a fresh page of a fresh profile
 * @property {Site} site  the host, without faults
 * @property {(pattern: RegExp) => void} expectError  the page may log errors that match
 * @property {import('node:test').TestContext} context
 */

/**
 * @param {object} options
 * @param {Graphics} options.graphics
 * @param {Record<string, string>} [options.mounts]  folder by path prefix; the built site under `SITE` unless told
 * @param {boolean} [options.isolated]  whether the pages are cross-origin isolated; not unless told
 * @returns {(name: string, body: (fixture: Fixture) => Promise<void>, timeout?: number) => void}
 */
export function browserTests({ graphics, mounts = { [SITE]: join(root, "dist") }, isolated = false }) {
  /** @type {import('playwright-core').Browser} */
  let browser;
  /** @type {Site} */
  let site;
  before(async () => {
    const host = Site.start(mounts, GRAPHICS[graphics].host, isolated ? ISOLATION : {});
    [browser, site] = await Promise.all([launch(graphics), host]);
  });
  after(async () => {
    await browser?.close();
    await site?.close();
  });

  return (name, body, timeout = TIMEOUT) =>
    test(`${name} (${graphics})`, { timeout }, async (context) => {
      site.reset();
      // A lost device does not come back to its browser: whoever loses one starts the next test with a new one.
      if (!browser.isConnected()) browser = await launch(graphics);
      const profile = await browser.newContext({ viewport: { width: 1280, height: 900 } });
      const page = await profile.newPage();
      /** @type {string[]} */
      const errors = [];
      /** @type {RegExp[]} */
      const expected = [];
      page.on("pageerror", (error) => errors.push(`uncaught: ${error.stack ?? error}`));
      page.on("crash", () => errors.push("the page crashed"));
      page.on("console", (message) => {
        if (message.type() === "error") errors.push(`console: ${message.text()} (${message.location().url})`);
      });
      try {
        await body({ page, site, expectError: (pattern) => expected.push(pattern), context });
        const surprises = errors.filter((error) => !expected.some((pattern) => pattern.test(error)));
        if (surprises.length > 0) throw new Error(`the page reported errors:\n${surprises.join("\n")}`);
      } catch (error) {
        context.diagnostic(await screenshot(page, context.name));
        for (const line of errors) context.diagnostic(line);
        throw error;
      } finally {
        await profile.close();
      }
    });
}

/** Keeps a picture of the page as a test left it; says where. @param {import('playwright-core').Page} page @param {string} name */
async function screenshot(page, name) {
  const folder = join(root, "target/browser-failures");
  const path = join(folder, `${name.replace(/[^a-z0-9]+/gi, "-")}.png`);
  await mkdir(folder, { recursive: true });
  return page.screenshot({ path, fullPage: true, timeout: 10_000 }).then(
    () => `screenshot: ${path}`,
    (error) => `no screenshot: ${error.message}`,
  );
}
