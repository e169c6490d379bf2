// @ts-check
// The package's own workers, wherever its scripts come from.

/** A script of one line for each worker whose own script lies on another origin. @type {Map<string, string>} */
const imports = new Map();

/**
 * Starts one of the package's workers. Browsers take no worker's script from another origin, such as a CDN; there, a script of this
 * origin imports it.
 * @param {string} name of its script
 * @param {() => Worker} start how it is started otherwise: in the form that bundlers look for
 */
export function startWorker(name, start) {
  const url = scriptUrl(name);
  if (!url || new URL(url).origin === globalThis.origin) return start();
  const script = imports.get(url) ?? URL.createObjectURL(new Blob([`import ${JSON.stringify(url)};`], JAVASCRIPT));
  imports.set(url, script);
  return new Worker(script, { type: "module" });
}

const JAVASCRIPT = { type: "text/javascript" };

/**
 * Why a worker did not start, as far as it is known: a browser tells neither the reason nor the address.
 * @param {string} name of its script
 */
export function failedScript(name) {
  const url = scriptUrl(name);
  const isBundled = !import.meta.url.endsWith("/worker_script.js");
  const bundled = isBundled ? ", unless your bundler knows workers and has put it elsewhere" : "";
  return `its script could not be loaded${url ? ` from ${url}${bundled}` : ""}`;
}

/**
 * The address of a script beside this one; undefined in a bundle that does not know its own.
 * @param {string} name
 */
function scriptUrl(name) {
  // Not in one expression, which a bundler would take for a file of its own to copy.
  const here = import.meta.url;
  return /^https?:/.test(here) ? new URL(name, here).href : undefined;
}
