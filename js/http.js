// @ts-check
// Files over HTTP: refusals in words, and a connection that breaks is taken up again where it broke.

import { SourceError, throwIfAborted } from "./errors.js";

// Tries in a row that bring not one new byte, before a broken connection is reported.
const RESUMES = 3;
const FIRST_PAUSE_MS = 250;

/**
 * Fetches `url`, and refuses every answer that is not the file.
 * @param {string} url
 * @param {string} file what errors call it: its path in the checkpoint
 * @param {AbortSignal} [signal]
 * @param {Record<string, string>} [headers]
 * @returns {Promise<Response>}
 */
export async function fetchFile(url, file, signal, headers) {
  let response;
  try {
    response = await fetch(url, { signal, headers });
  } catch (cause) {
    throwIfAborted(signal);
    const hint = "check the address and the connection; another site must allow this page by its CORS headers";
    throw new SourceError("network", `${url} could not be fetched: ${hint}.`, { file, cause });
  }
  if (response.status === 404 || response.status === 410) {
    throw new SourceError("file-missing", `${url} does not exist on its server (status ${response.status}).`, { file });
  }
  if (!response.ok) {
    throw new SourceError("network", `${url} was refused by its server (status ${response.status}).`, { file });
  }
  // Many servers answer an unknown path with their front page and status 200. No file of a checkpoint is a web page.
  if (response.headers.get("content-type")?.startsWith("text/html")) {
    const hint = "the file is missing there, or the address is that of a page about it";
    throw new SourceError("file-missing", `${url} is a web page, not the file: ${hint}.`, { file });
  }
  return response;
}

/** One file over HTTP, chunk by chunk. */
export class HttpFile {
  #url;
  #file;
  #signal;
  #reader;
  /** Content-Length, which for a compressed answer is not the file's length: good for comparing, not for trusting. */
  #announced;
  #etag;
  #received = 0;
  #failures = 0;

  /**
   * @param {string} url
   * @param {string} file
   * @param {AbortSignal} signal
   */
  static async open(url, file, signal) {
    return new HttpFile(url, file, signal, await fetchFile(url, file, signal));
  }

  /**
   * @param {string} url
   * @param {string} file
   * @param {AbortSignal} signal
   * @param {Response} response
   */
  constructor(url, file, signal, response) {
    this.#url = url;
    this.#file = file;
    this.#signal = signal;
    this.#reader = response.body?.getReader();
    this.#announced = Number(response.headers.get("content-length")) || undefined;
    this.#etag = response.headers.get("etag");
    // Another site's Content-Encoding cannot be seen from here, so there the length stays unknown.
    const plain = response.type === "basic" && !response.headers.has("content-encoding");
    /** The file's length in bytes, where it is known before the end. */
    this.length = plain ? this.#announced : undefined;
  }

  /**
   * The next bytes, or undefined at the end.
   * @returns {Promise<Uint8Array | undefined>}
   */
  async next() {
    for (;;) {
      try {
        const chunk = await this.#reader?.read();
        if (!chunk || chunk.done) return undefined;
        this.#received += chunk.value.byteLength;
        this.#failures = 0;
        return chunk.value;
      } catch (cause) {
        throwIfAborted(this.#signal);
        await this.#resume(cause);
      }
    }
  }

  cancel() {
    // A connection that is broken already refuses to be cancelled, and nobody minds.
    this.#reader?.cancel().catch(() => {});
  }

  /**
   * Asks for the rest of the file. The answer is taken only if it is provably the rest of the same bytes: it starts where
   * the connection broke, and its total is the length announced at first (which a compressed answer's never is).
   * @param {unknown} cause
   */
  async #resume(cause) {
    const at = this.#received;
    const broken = () =>
      new SourceError("network", `${this.#url}: the connection broke after ${at} bytes and could not be resumed.`, {
        file: this.#file,
        cause,
      });
    if (this.#announced === undefined) throw broken();
    while (this.#failures < RESUMES) {
      await pause(FIRST_PAUSE_MS * 2 ** this.#failures, this.#signal);
      this.#failures += 1;
      let response;
      try {
        response = await fetchFile(this.#url, this.#file, this.#signal, { Range: `bytes=${at}-` });
      } catch (error) {
        if (error instanceof SourceError && error.code === "network") continue;
        throw error;
      }
      const isTheRest =
        response.status === 206 &&
        response.headers.get("content-range") === `bytes ${at}-${this.#announced - 1}/${this.#announced}` &&
        response.headers.get("etag") === this.#etag;
      if (!isTheRest) {
        await response.body?.cancel();
        throw broken();
      }
      this.#reader = response.body?.getReader();
      return;
    }
    throw broken();
  }
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      try {
        throwIfAborted(signal);
      } catch (error) {
        reject(error);
      }
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}
