/** What a caller is told of options, signals and runs, before anything is loaded. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { AbortError, throwIfAborted } from "../../js/errors.js";
import { checkBoundOptions, checkLoadOptions, checkSampleOptions } from "../../js/options.js";
import { Run } from "../../js/walk.js";

// Names of the browser that Node has not.
Object.assign(globalThis, { Worker: class {}, ImageData: class {} });

/** @param {() => unknown} check */
function messageOf(check) {
  try {
    check();
  } catch (error) {
    return /** @type {any} */ (error);
  }
  return { message: "none" };
}

test("a seed that is wrong is told how to be written", () => {
  /** @type {[seed: any, words: RegExp][]} */
  const seeds = [
    // What remains of 15680804124523978021, written as a number.
    [Number("15680804124523978021"), /it is 15680804124523979000\. .*pass a bigint.*: 15680804124523978752n\.$/],
    [2 ** 53, /: 9007199254740992n\.$/],
    ["15680804124523978021", /it is "15680804124523978021"\. Pass a bigint: 15680804124523978021n\.$/],
    [2n ** 64n, /it is 18446744073709551616n\.$/],
    [2 ** 64, /it is 18446744073709552000\.$/],
    [-1, /it is -1\.$/],
    [1.5, /it is 1\.5\.$/],
    [NaN, /it is NaN\.$/],
    [null, /it is null\.$/],
    [{}, /it is of type object\.$/],
    ["fox", /it is "fox"\.$/],
    ["99999999999999999999", /it is "99999999999999999999"\.$/],
  ];
  for (const [seed, words] of seeds) {
    for (const check of [() => checkSampleOptions({ seed }), () => checkSampleOptions({ seeds: [1, seed] })]) {
      const { code, message } = messageOf(check);
      assert.equal(code, "invalid-option", String(seed));
      if (!message.startsWith("seeds")) assert.match(message, words, String(seed));
    }
    assert.match(messageOf(() => checkBoundOptions({ image: "a.png", seed })).message, words, String(seed));
  }
  assert.match(messageOf(() => checkSampleOptions({ seeds: [1, 2 ** 60] })).message, /: 1152921504606846976n\.$/);
  const json = (/** @type {any} */ options) => JSON.parse(checkSampleOptions(options).json);
  assert.deepEqual(json({ seed: 15680804124523978021n }), { seed: "15680804124523978021" });
  assert.deepEqual(json({ seeds: [1, 2n] }), { seeds: ["1", "2"] });
});

test("options become JSON once, with what JSON has no numbers for in words", () => {
  const scheduler = { _class_name: "DDIMScheduler", sample_max_value: Infinity, clip_sample: false };
  const { json, includeInitial } = checkSampleOptions({ scheduler, steps: 3, eta: undefined, includeInitial: true });
  assert.equal(includeInitial, true);
  assert.deepEqual(JSON.parse(json), { scheduler: { ...scheduler, sample_max_value: "Infinity" }, steps: 3 });
  /** @type {any} */
  const circular = {};
  circular.self = circular;
  const error = messageOf(() => checkSampleOptions({ scheduler: circular }));
  assert.deepEqual([error.code, error.option], ["invalid-option", "scheduler"]);
  const unwritable = /** @type {any} */ ({ _class_name: "DDIMScheduler", beta_end: 1n });
  assert.equal(messageOf(() => checkSampleOptions({ scheduler: unwritable })).option, "scheduler");
  const both = messageOf(() => checkSampleOptions({ scheduler, solver: "ddim" }));
  assert.match(both.message, /^solver and scheduler were both given; a scheduler's config names its solver itself\./);
});

test("the kernels may lie in any folder, however its address ends", () => {
  for (const kernels of ["https://host.test/a", "https://host.test/a/", new URL("https://host.test/a")]) {
    assert.equal(checkLoadOptions({ cpu: { kernels } }).cpu.kernels, "https://host.test/a/");
  }
  const { message } = messageOf(() => checkLoadOptions({ cpu: { kernels: /** @type {any} */ (7) } }));
  assert.match(message, /kernels has to be the URL of a folder; it is 7/);
});

test("an abort carries the reason of its signal, and a timeout is known by its name", () => {
  /** @type {[reason: any, name: string, words: RegExp][]} */
  const reasons = [
    [undefined, "AbortError", /^Stopped, as the signal asked\.$/],
    ["the user left", "AbortError", /^Stopped, as the signal asked: the user left\.$/],
    [new Error("enough."), "AbortError", /^Stopped, as the signal asked: enough\.$/],
    [null, "AbortError", /^Stopped, as the signal asked: null\.$/],
    [new DOMException("The operation timed out.", "TimeoutError"), "TimeoutError", /asked: The operation timed out\.$/],
  ];
  for (const [reason, name, words] of reasons) {
    const controller = new AbortController();
    throwIfAborted(controller.signal);
    controller.abort(reason);
    const error = messageOf(() => throwIfAborted(controller.signal));
    assert.ok(error instanceof AbortError);
    assert.deepEqual([error.code, error.name, error.cause], ["aborted", name, controller.signal.reason]);
    assert.match(error.message, words);
  }
});

test("a run can be caught and finished like a promise", async () => {
  const connection = /** @type {any} */ ({ request: async () => ({ total: 0 }) });
  const run = () => new Run(connection, 1, { steps: -1 });
  assert.equal(await run().catch((error) => error.code), "invalid-option");
  let ended = 0;
  await assert.rejects(
    run().finally(() => void ended++),
    { code: "invalid-option" },
  );
  assert.equal(ended, 1);
  await assert.rejects(run().catch(), { code: "invalid-option" });
});
