// @ts-check
// What is computed step by step, when a step is asked for: what runs of the reverse process and bounds have in common.

import { throwIfAborted } from "./errors.js";

/** @import { Connection } from "./client.js" */
/** @import { Begun, Request } from "./protocol.js" */

/**
 * Goes through something once. It starts when it is first iterated or finished.
 * @template Plain what the host answers to a step
 * @template Step what the caller gets of it
 */
export class Walk {
  #steps;
  /** @type {unknown} */
  #failure;

  /**
   * @param {Connection} connection
   * @param {number} run its number
   */
  constructor(connection, run) {
    this.#steps = this.#walk(connection, run);
  }

  [Symbol.asyncIterator]() {
    return this.#steps;
  }

  /**
   * What the host is told to begin.
   * @param {number} _run
   * @returns {Promise<{ signal?: AbortSignal, request: Request }>}
   */
  describe(_run) {
    throw new Error("a walk describes itself");
  }

  /** @param {Begun} _begun */
  begun(_begun) {}

  /**
   * @param {Plain} _plain
   * @returns {Step}
   */
  receive(_plain) {
    throw new Error("a walk knows its steps");
  }

  /** Makes the steps that are left. */
  async finish() {
    while (!(await this.#steps.next()).done);
    if (this.#failure) throw this.#failure;
  }

  /**
   * The steps, one at a time and only when asked for. However the walk ends but by an abort, the host has freed what it held by then.
   * @param {Connection} connection
   * @param {number} run
   * @returns {AsyncGenerator<Step, void, void>}
   */
  async *#walk(connection, run) {
    // Where the connection itself has failed, there is nothing left to free.
    const stop = () => connection.request({ type: "stop", run }).catch(() => {});
    try {
      const { signal, request } = await this.describe(run);
      // The caller may abort between two steps and never ask for the next one: the memory must not wait for that.
      signal?.addEventListener("abort", stop);
      try {
        /** @type {Begun} */
        const begun = await connection.request(request, { signal });
        this.begun(begun);
        for (let index = 0; index < begun.total; index++) {
          throwIfAborted(signal);
          const step = await connection.request({ type: "step", run }, { signal });
          throwIfAborted(signal);
          yield this.receive(step);
        }
      } finally {
        signal?.removeEventListener("abort", stop);
        // What an abort has ended is freed before anything else that is asked for; the caller need not wait for that.
        const stopped = stop();
        if (!signal?.aborted) await stopped;
      }
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }
}
