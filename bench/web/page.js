/** What both pages share: the task in the address, and the result where the driver finds it. */

/**
 * What is to be timed.
 * @typedef {object} Task
 * @property {"cpu" | "webgpu"} device
 * @property {number} [threads]  how many threads compute; what is asked for must be had
 * @property {number} steps  how many are timed, after one that is not
 * @property {import("./browser.js").Model} model
 *
 * What a page measured, in milliseconds; `ready` and `first` since the navigation began.
 * @typedef {object} Timing
 * @property {number} ready  the model is loaded
 * @property {number} first  the first result is there
 * @property {number[]} steps
 * @property {string} device
 * @property {number} error  how far the output is from the expected one
 */

/** Does the page's task. @param {(task: Task) => Promise<Timing>} measure */
export function report(measure) {
  const task = JSON.parse(decodeURIComponent(location.hash.slice(1)));
  const failed = (/** @type {unknown} */ error) => ({ failure: error instanceof Error ? error.stack : String(error) });
  measure(task).then(
    (timing) => Object.assign(window, { result: timing }),
    (error) => Object.assign(window, { result: failed(error) }),
  );
}

/** The bytes of a file. @param {string} path */
export async function bytesOf(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.arrayBuffer();
}
