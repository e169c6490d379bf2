// @ts-check
// The page's end of the protocol: requests become promises, and nothing waits forever for a worker that is gone.

import { AbortError, StateError, fromPlain, throwIfAborted } from "./errors.js";
import { failedScript, startWorker } from "./worker_script.js";

/** @import { LoadProgress } from "./index.d.ts" */
/** @import { Request, ToClient, ToHost } from "./protocol.js" */

/** How long a host has to answer an abort, which it looks for some twenty times a second, before its caller no longer waits for that. */
const ANSWER_MS = 250;

/**
 * What `await using` calls to dispose of something; in a browser that has no such thing, nobody does.
 * @type {typeof Symbol.asyncDispose}
 */
export const asyncDispose = Symbol.asyncDispose ?? Symbol();

/**
 * How long a worker of our own has before it counts as stuck in something that cannot be stopped, and is ended. A loaded pipeline is
 * dear, and a machine may be busy with other things.
 */
const PATIENCE_MS = 5000;

/**
 * @typedef {{ resolve(result: any): void, reject(error: Error): void, onProgress?(progress: LoadProgress): void }} Waiting
 */

export class Connection {
  #port;
  /** @type {Worker | undefined} The worker, if it is this connection's own. */
  #ownWorker;
  /** Ends the listening to the worker, which may be the caller's and outlive this connection. */
  #listening = new AbortController();
  /** @type {Map<number, Waiting>} */
  #waiting = new Map();
  #lastId = 0;
  /** Why this connection can no longer be used. @type {Error | undefined} */
  #failure;
  /** Whether the host has not answered an abort in time, nor anything since. */
  #isDeaf = false;
  /** @type {Promise<void> | undefined} */
  #closed;

  /**
   * @param {boolean | Worker} worker true: a worker of its own; false: this very thread
   */
  constructor(worker) {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = ({ data }) => this.#receive(data);
    port1.onmessageerror = () =>
      this.fail(new StateError("worker-failed", "An answer of the worker could not be read."));
    if (worker === false) {
      // Only here does the page itself need the WebAssembly side's code. Until it listens, the port keeps what it is sent.
      Promise.all([import("./host.js"), import("./features_host.js")])
        .then(([{ serve }, { FeatureHost }]) => serve(port2, FeatureHost))
        .catch((cause) => {
          this.fail(
            new StateError("worker-failed", `The package's own host.js could not be loaded: ${cause}.`, { cause }),
          );
        });
      return;
    }
    const target = worker === true ? ownWorker() : worker;
    if (worker === true) this.#ownWorker = target;
    const onError = (/** @type {ErrorEvent} */ event) => {
      const unloaded = worker === true ? `${failedScript("worker.js")}. ${HINT}` : "its script could not be loaded";
      const reason = event.message ? `${event.message}. Load the pipeline again` : unloaded;
      this.fail(new StateError("worker-failed", `The worker of this pipeline failed: ${reason}.`));
    };
    target.addEventListener("error", onError, { signal: this.#listening.signal });
    target.postMessage({ undiffuse: port2 }, [port2]);
  }

  /**
   * Settles when the host has answered. An aborted `signal` is passed on, and answered at once by a host that is not stuck; what the
   * request held is freed before the next one is begun.
   * @param {Request} request
   * @param {{ signal?: AbortSignal, onProgress?: (progress: LoadProgress) => void }} [options]
   * @returns {Promise<any>}
   */
  async request(request, { signal, onProgress } = {}) {
    throwIfAborted(signal);
    if (this.#failure) throw this.#failure;
    const id = ++this.#lastId;
    const abort = () => this.#abort(id, request);
    signal?.addEventListener("abort", abort);
    try {
      return await this.#ask(id, request, onProgress);
    } catch (error) {
      // The host knows that it was stopped; the reason given to the signal is known here.
      if (error instanceof AbortError) throwIfAborted(signal);
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /**
   * Tells the host to stop a request, and the caller that it is stopped, in case the host is too busy to.
   * @param {number} id
   * @param {Request} request
   */
  #abort(id, request) {
    this.#send({ id, type: "abort" });
    const ifUnanswered = (/** @type {number} */ milliseconds, /** @type {(waiting: Waiting) => void} */ act) =>
      setTimeout(() => {
        const waiting = this.#waiting.get(id);
        if (waiting) act(waiting);
      }, milliseconds);
    const giveUp = (/** @type {Waiting} */ { reject }) => {
      this.#isDeaf = true;
      reject(new AbortError("aborted", "Stopped, as was asked."));
    };
    const { type } = "ask" in request ? request.ask : request;
    if (type === "load" && this.#ownWorker) {
      // There is nothing in it yet that would be worth the wait: whoever loads closes the connection.
      ifUnanswered(0, giveUp);
      return;
    }
    // Whether it has changed what the host holds, only the host can tell.
    if (type !== "loras" && type !== "add") ifUnanswered(ANSWER_MS, giveUp);
    ifUnanswered(PATIENCE_MS, () => {
      this.#ownWorker?.terminate();
      if (this.#ownWorker) this.#fail("was too busy to hear of an abort, and was ended");
    });
  }

  /** @param {string} how the worker has failed */
  #fail(how) {
    this.fail(new StateError("worker-failed", `The worker of this pipeline ${how}. Load the pipeline again.`));
  }

  /**
   * Rejects everything that waits and everything asked from now on. The first reason given stays.
   * @param {Error} error
   */
  fail(error) {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
  }

  /**
   * Frees the host's pipeline and ends the connection. Can be called any number of times.
   * @param {Error} reason what is told to everything that waits and to later requests
   * @returns {Promise<void>}
   */
  close(reason) {
    return (this.#closed ??= this.#close(reason));
  }

  /** @param {Error} reason */
  async #close(reason) {
    const hostWorks = !this.#failure;
    const underWay = [...this.#waiting.keys()];
    this.fail(reason);
    // A worker of our own takes everything it held with it, whatever it is busy with. Any other host is asked to free it, when what
    // is under way has been stopped; one that does not listen does so when it can.
    if (this.#ownWorker) this.#ownWorker.terminate();
    else if (hostWorks) {
      for (const id of underWay) this.#send({ id, type: "abort" });
      const freed = this.#ask(++this.#lastId, { type: "dispose" }).catch(() => {});
      if (!this.#isDeaf) await freed;
    }
    this.#listening.abort();
    this.#port.close();
  }

  /**
   * @param {number} id
   * @param {Request} request
   * @param {(progress: LoadProgress) => void} [onProgress]
   */
  #ask(id, request, onProgress) {
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, onProgress });
      this.#send({ id, ...request });
    });
  }

  /** @param {ToHost} message */
  #send(message) {
    this.#port.postMessage(message);
  }

  /** @param {ToClient} message */
  #receive(message) {
    if ("failure" in message) {
      this.fail(fromPlain(message.failure));
      return;
    }
    if ("lock" in message) {
      // It is free when the host's thread is gone.
      const { signal } = this.#listening;
      navigator.locks.request(message.lock, { signal }, () => this.#fail("has ended")).catch(() => {});
      return;
    }
    this.#isDeaf = false;
    const waiting = this.#waiting.get(message.id);
    if ("progress" in message) waiting?.onProgress?.(message.progress);
    else {
      this.#waiting.delete(message.id);
      if ("error" in message) waiting?.reject(fromPlain(message.error));
      else waiting?.resolve(message.result);
    }
  }
}

const HINT =
  "Serve the package's files there, allow the address and blob: in the page's worker-src, pass a Worker of your own, or set worker to false";

function ownWorker() {
  try {
    // Bundlers look for exactly this expression.
    return startWorker("worker.js", () => new Worker(new URL("./worker.js", import.meta.url), { type: "module" }));
  } catch (cause) {
    throw new StateError(
      "worker-failed",
      `The worker of this pipeline failed: ${failedScript("worker.js")}. ${HINT}.`,
      {
        cause,
      },
    );
  }
}
