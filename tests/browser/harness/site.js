/** The site as a test uses it: opened, its form filled in, files dropped on it, its pictures read. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { SITE } from "./index.js";

/** @import { Page } from "playwright-core" */
/** @import { Site } from "./index.js" */

/** Opens the site and waits for the model. @param {Page} page @param {Site} site @param {string} [address] query and hash */
export async function open(page, site, address = "") {
  await page.goto(site.url(SITE + address));
  await reach(page, "ready");
}

/** Waits until the page is in a state; an error that it shows instead ends the wait. @param {Page} page @param {string} state */
export async function reach(page, state) {
  await page.waitForFunction((state) => [state, "error"].includes(document.body.dataset.state ?? ""), state, {
    timeout: 150_000,
  });
  if (state !== "error") assert.equal(await page.locator("#error").innerText(), "");
  assert.equal(await page.locator("body").getAttribute("data-state"), state);
}

/** @param {Page} page @param {{ seed?: number, steps?: number, solver?: string, prompt?: string }} options */
export async function start(page, { seed = 7, steps = 4, solver = "ddim", prompt = "a happy cat" } = {}) {
  await page.getByLabel("Prompt", { exact: true }).fill(prompt);
  await page.getByLabel("Seed", { exact: true }).fill(String(seed));
  await page.getByLabel("Steps", { exact: true }).fill(String(steps));
  await page.getByLabel("Solver", { exact: true }).selectOption(solver);
  await page.locator("#start").click();
}

/** @param {Page} page @param {{ seed?: number, steps?: number, solver?: string }} [options] */
export async function draw(page, options) {
  await start(page, options);
  await reach(page, "done");
}

/** Drops a file on the page. @param {Page} page @param {string} name @param {Buffer} content @param {string} type */
export function drop(page, name, content, type) {
  return page.evaluate(
    async ({ name, content, type }) => {
      const bytes = await (await fetch(`data:application/octet-stream;base64,${content}`)).arrayBuffer();
      const file = (/** @type {(file: File) => void} */ take) => take(new File([bytes], name, { type }));
      // A script cannot make a transfer whose items have entries.
      const dataTransfer = {
        items: [{ webkitGetAsEntry: () => ({ isFile: true, name, fullPath: `/${name}`, file }) }],
      };
      dispatchEvent(Object.defineProperty(new Event("drop"), "dataTransfer", { value: dataTransfer }));
    },
    { name, content: content.toString("base64"), type },
  );
}

/** A digest of each canvas that a selector finds. @param {Page} page @param {string} selector */
export async function pixels(page, selector) {
  const contents = await page.locator(selector).evaluateAll((canvases) =>
    canvases.map((canvas) => {
      const { width, height } = /** @type {HTMLCanvasElement} */ (canvas);
      const context = /** @type {HTMLCanvasElement} */ (canvas).getContext("2d");
      return [...(context?.getImageData(0, 0, width, height).data ?? [])];
    }),
  );
  return contents.map((content) => createHash("sha256").update(Uint8Array.from(content)).digest("hex"));
}

/** Agrees to begin what takes minutes, if it is asked before `sign` is there. @param {Page} page @param {string} sign */
export async function agree(page, sign) {
  const anyway = page.getByRole("button", { name: "Start anyway" });
  await page.waitForFunction(
    (sign) =>
      document.querySelector("#question:not([hidden])") ??
      (document.getElementById("status")?.textContent !== "Preparing" && document.querySelector(sign)),
    sign,
    { timeout: 150_000 },
  );
  if (await anyway.isVisible()) await anyway.click();
}
