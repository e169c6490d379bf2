// @ts-check
// Files over HTTP: refusals in words, and what breaks, stalls or is busy is asked again.

import { SourceError, throwIfAborted } from "./errors.js";

// Tries in a row that bring not one new byte, before a broken connection is reported.
const RETRIES = 3;
const FIRST_PAUSE_MS = 250;

/** A connection that brings nothing for so long is broken. */
const STALL_MS = 30_000;

/** What a stalled connection is told by, and called. */
const NOTHING = `nothing came for ${STALL_MS / 1000} seconds`;

/** The longest that a server's `Retry-After` is waited for. */
const LONGEST_WAIT_MS = 60_000;

/** Statuses that may pass: what curl's `--retry` takes for that. */
const PASSING = [408, 429, 500, 502, 503, 504];

/**
 * What goes with a request. `onWait` is told why it has to be waited.
 * @typedef {{ signal?: AbortSignal, headers?: Record<string, string>, onWait?: (reason: string) => void }} RequestOptions
 */

/**
 * Fetches `url`, and refuses every answer that is not the file. A server that is busy is asked again.
 * @param {string} url
 * @param {string} file what errors call it: its path in the checkpoint
 * @param {RequestOptions} options
 * @returns {Promise<Response>}
 */
export async function fetchFile(url, file, options) {
  const { signal, headers, onWait } = options;
  for (let tries = 0; ; tries++) {
    let response;
    try {
      response = await answer(url, signal, headers);
    } catch (cause) {
      throwIfAborted(signal);
      if (isStalled(cause) && tries === 0) {
        onWait?.(NOTHING);
        continue;
      }
      const hint = isStalled(cause)
        ? `${NOTHING}. Try again later`
        : "check the address and the connection; another site must allow this page by its CORS headers";
      throw new SourceError("network", `${shown(url)} could not be fetched: ${hint}.`, { file, cause });
    }
    const wait = waitOf(response, tries);
    if (!PASSING.includes(response.status) || wait > LONGEST_WAIT_MS || tries === RETRIES) {
      return accepted(url, file, response, headers);
    }
    await response.body?.cancel();
    onWait?.(`its server is busy (status ${response.status})`);
    await pause(wait, signal);
  }
}

/**
 * The whole file.
 * @param {string} url
 * @param {string} file what errors call it
 * @param {RequestOptions} options
 * @param {Response} [response] the server's answer, if it has been asked already
 */
export async function readFile(url, file, options, response) {
  const open = new HttpFile(url, file, options, response ?? (await fetchFile(url, file, options)));
  const chunks = [];
  for (let chunk; (chunk = await open.next());) chunks.push(/** @type {Uint8Array<ArrayBuffer>} */ (chunk));
  return new Blob(chunks);
}

/**
 * What the server says, whatever it says. An abort of the signal ends it even later, while the body is read.
 * @param {string} url
 * @param {AbortSignal} [signal]
 * @param {Record<string, string>} [headers]
 */
async function answer(url, signal, headers) {
  throwIfAborted(signal);
  const attempt = new AbortController();
  const stop = () => attempt.abort();
  signal?.addEventListener("abort", stop, { signal: attempt.signal });
  try {
    return await unlessStalled(fetch(url, { signal: attempt.signal, headers }));
  } catch (cause) {
    stop();
    throw cause;
  }
}

/**
 * How long the server is to be left alone: as it says, in seconds or until a date, or else longer each time.
 * @param {Response} response
 * @param {number} tries so far
 */
function waitOf({ headers }, tries) {
  const told = headers.get("retry-after") ?? "";
  // A date is by the server's clock.
  const now = Date.parse(headers.get("date") ?? "") || Date.now();
  const wait = /^\d+$/.test(told) ? 1000 * Number(told) : Date.parse(told) - now;
  return Math.max(wait || 0, FIRST_PAUSE_MS * 2 ** tries);
}

/**
 * @param {string} url
 * @param {string} file
 * @param {Response} response
 * @param {Record<string, string>} [headers] that it was asked with
 */
function accepted(url, file, response, headers) {
  const { status, ok } = response;
  if (status === 404 || status === 410) {
    throw new SourceError("file-missing", `${shown(url)} does not exist on its server (status ${status}).`, { file });
  }
  // Whoever asked for a part is told that there is none.
  if (!ok && !(status === 416 && headers)) {
    const hint =
      status === 401 || status === 403
        ? ": it is private, not there, or its licence has to be accepted. No token can be sent from here; sign in there, download the files and choose them"
        : status === 429
          ? ": it is asked too often. Try again later, or download the files and choose them"
          : status >= 500
            ? ": it has a fault or too much to do. Try again later"
            : "";
    throw new SourceError("network", `${shown(url)} was refused by its server (status ${status})${hint}.`, { file });
  }
  // Many servers answer an unknown path with their front page and status 200. No file of a checkpoint is a web page.
  if (response.headers.get("content-type")?.startsWith("text/html")) {
    const hint = "the file is missing there, or the address is that of a page about it";
    throw new SourceError("file-missing", `${shown(url)} is a web page, not the file: ${hint}.`, { file });
  }
  return response;
}

/**
 * An address as messages name it: a query may hold a signature, which is nobody's business.
 * @param {string} url
 */
function shown(url) {
  return url.replace(/[?].*/, "?…");
}

/** One file over HTTP, chunk by chunk. */
export class HttpFile {
  #url;
  #file;
  #options;
  #reader;
  /** Bytes that were read with others and not handed out yet. @type {Uint8Array | undefined} */
  #rest;
  /** Content-Length, which for a compressed answer is not the file's length: good for comparing, not for trusting. */
  #announced;
  #version;
  #received = 0;
  /** Of all bytes received, if there is no version to tell the file by. */
  #checksum = 0;
  #failures = 0;

  /**
   * @param {string} url
   * @param {string} file
   * @param {RequestOptions} options
   */
  static async open(url, file, options) {
    return new HttpFile(url, file, options, await fetchFile(url, file, options));
  }

  /**
   * @param {string} url
   * @param {string} file
   * @param {RequestOptions} options
   * @param {Response} response
   */
  constructor(url, file, options, response) {
    this.#url = url;
    this.#file = file;
    this.#options = options;
    this.#reader = response.body?.getReader();
    this.#announced = Number(response.headers.get("content-length")) || undefined;
    this.#version = versionOf(response);
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
        const bytes = this.#rest ?? (await read(this.#reader));
        this.#rest = undefined;
        if (!bytes) return undefined;
        this.#received += bytes.byteLength;
        if (bytes.byteLength > 0) this.#failures = 0;
        if (!this.#version) this.#checksum = checksum(this.#checksum, bytes);
        return bytes;
      } catch (cause) {
        this.cancel();
        throwIfAborted(this.#options.signal);
        await this.#resume(cause);
      }
    }
  }

  cancel() {
    // A connection that is broken already refuses to be cancelled, and nobody minds.
    this.#reader?.cancel().catch(() => {});
  }

  /**
   * Goes on where the connection broke.
   * @param {unknown} cause
   */
  async #resume(cause) {
    const { signal, onWait } = this.#options;
    // A connection that stalls twice in a row has been waited for long enough.
    while (this.#failures < (isStalled(cause) ? 1 : RETRIES)) {
      onWait?.(isStalled(cause) ? NOTHING : "the connection broke");
      await pause(FIRST_PAUSE_MS * 2 ** this.#failures, signal);
      this.#failures += 1;
      try {
        if (await this.#ask()) return;
      } catch (error) {
        throwIfAborted(signal);
        if (error instanceof SourceError && error.code !== "network") throw error;
        cause = error;
        continue;
      }
      throw this.#broken("its server does not send the same file again. Load it anew", cause);
    }
    throw this.#broken(isStalled(cause) ? NOTHING : "it broke again each time", cause);
  }

  /**
   * @param {string} why
   * @param {unknown} cause
   */
  #broken(why, cause) {
    const message = `${shown(this.#url)}: the connection broke after ${this.#received} bytes and could not be resumed: ${why}.`;
    return new SourceError("network", message, { file: this.#file, cause });
  }

  /**
   * Asks for the rest of the file, or if there is no telling whether it is the rest of the same bytes, for all of it once more.
   * @returns {Promise<boolean>} whether it is the same file
   */
  async #ask() {
    const [at, total] = [this.#received, this.#announced];
    if (this.#version && total) {
      const response = await this.#fetch({ Range: `bytes=${at}-` });
      const isSame = versionOf(response) === this.#version;
      const range = response.headers.get("content-range");
      // A compressed answer's length is never the total.
      if (isSame && response.status === 206 && range === `bytes ${at}-${total - 1}/${total}`) {
        this.#reader = response.body?.getReader();
        return true;
      }
      if (isSame && response.status === 200) return this.#skip(response);
      await response.body?.cancel();
    }
    return this.#skip(await this.#fetch());
  }

  /** @param {Record<string, string>} [headers] */
  #fetch(headers) {
    return fetchFile(this.#url, this.#file, { ...this.#options, headers });
  }

  /**
   * Passes over what is known of a file that begins anew.
   * @param {Response} response
   * @returns {Promise<boolean>} whether it is the same file
   */
  async #skip(response) {
    const reader = response.body?.getReader();
    let isSame = versionOf(response) === this.#version;
    let sum = 0;
    /** @type {Uint8Array | undefined} */
    let rest;
    for (let left = this.#received; isSame && left > 0;) {
      const bytes = await read(reader);
      const known = bytes?.subarray(0, left) ?? new Uint8Array();
      if (!this.#version) sum = checksum(sum, known);
      left -= known.length;
      rest = bytes?.subarray(known.length);
      isSame = bytes !== undefined;
    }
    if (isSame && sum === this.#checksum) {
      this.#reader = reader;
      this.#rest = rest?.length ? rest : undefined;
      return true;
    }
    reader?.cancel().catch(() => {});
    return false;
  }
}

/**
 * What tells the versions of a file apart: its strong ETag, or else the time of its last change together with its weak one.
 * @param {Response} response
 * @returns {string | undefined} undefined if the server tells neither
 */
function versionOf({ headers }) {
  const [etag, changed] = [headers.get("etag"), headers.get("last-modified")];
  return etag && !etag.startsWith("W/") ? etag : changed ? `${changed} ${etag}` : undefined;
}

/**
 * @param {ReadableStreamDefaultReader<Uint8Array> | undefined} reader
 * @returns {Promise<Uint8Array | undefined>} undefined at the end
 */
async function read(reader) {
  return reader && (await unlessStalled(reader.read())).value;
}

/**
 * FNV-1a, which goes on from one chunk to the next.
 * @param {number} sum of what is before them
 * @param {Uint8Array} bytes
 */
function checksum(sum, bytes) {
  for (let at = 0; at < bytes.length; at++) sum = Math.imul(sum ^ bytes[at], 0x01000193);
  return sum;
}

/**
 * Settles as the promise does, or fails once it has taken too long.
 * @template T
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
export function unlessStalled(promise) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(NOTHING)), STALL_MS);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** @param {any} cause of an error, or of the error of a request */
function isStalled(cause) {
  return (cause.cause ?? cause).message === NOTHING;
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} [signal]
 */
async function pause(milliseconds, signal) {
  // One that is aborted already says so to nobody.
  throwIfAborted(signal);
  // What has not ended it is left to come to nothing.
  await new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", resolve, { once: true });
  });
  throwIfAborted(signal);
}
