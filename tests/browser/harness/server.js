/**
 * A static host in this process, as plain as the plainest: no special headers unless asked for, the site on a path of its own. It can misbehave,
 * file by file.
 */
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { extname, join, normalize, resolve, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";

/** A longer file is streamed from disk: a whole checkpoint would not fit. It takes no fault and no range. */
const LONGEST_IN_MEMORY = 100e6;

/** @type {Record<string, string>} */
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".txt": "text/plain; charset=utf-8",
  ".wasm": "application/wasm",
  ".png": "image/png",
  ".svg": "image/svg+xml",
};

/**
 * What a fault makes of a file: the bytes and how they are sent.
 * @typedef {object} Reply
 * @property {number} [status]
 * @property {string} [type]  the media type
 * @property {Buffer} [bytes]  in place of the file's own
 * @property {number} [cutAfter]  break the connection once this many bytes of the body are out, whatever length was promised
 * @property {number} [bytesPerSecond]  send no faster than this
 * @property {boolean} [ranges]  false: ignore `Range`, as some hosts do
 *
 * @typedef {(bytes: Buffer, attempt: number) => Reply} Fault  `attempt` counts the requests for the file from 1
 */

/** The ways in which hosts and networks fail, and files arrive damaged. */
export const faults = {
  /** @returns {Fault} the file is not there */
  missing: () => () => ({ status: 404, type: "text/plain", bytes: Buffer.from("not found") }),
  /** @returns {Fault} the host answers every unknown path with its start page, and calls it a success */
  htmlInstead: () => () => ({ type: TYPES[".html"], bytes: Buffer.from("<!doctype html><title>home</title>") }),
  /** @returns {Fault} the file itself ends early, as after an upload that broke off @param {number} length */
  truncated: (length) => (bytes) => ({ bytes: bytes.subarray(0, length) }),
  /** @returns {Fault} the connection breaks the first `times` times @param {number} after bytes of the body @param {number} [times] */
  cut:
    (after, times = Infinity) =>
    (_, attempt) =>
      attempt <= times ? { cutAfter: after } : {},
  /** @returns {Fault} the connection breaks, and the host cannot resume @param {number} after bytes of the body */
  cutWithoutResume: (after) => () => ({ cutAfter: after, ranges: false }),
  /** @returns {Fault} the line is slow @param {number} bytesPerSecond */
  slow: (bytesPerSecond) => () => ({ bytesPerSecond }),
  /** @returns {Fault} the file is another than it should be @param {(bytes: Buffer) => Buffer} change */
  changed: (change) => (bytes) => ({ bytes: change(bytes) }),
};

/** Folders served under path prefixes of 127.0.0.1. */
export class Site {
  /** @type {{ method: string, path: string, range?: string }[]} every request so far, in order */
  requests = [];
  /** @type {Map<string, Fault>} */
  #faults = new Map();
  /** @type {Map<string, number>} */
  #attempts = new Map();
  #server = createServer((request, response) => {
    this.#answer(request, response).catch((error) => response.destroy(error));
  });
  #mounts;
  #host;
  #headers;

  /** @param {Record<string, string>} mounts @param {string} host @param {Record<string, string>} headers */
  constructor(mounts, host, headers) {
    // The longest prefix first: one folder may lie inside another's path.
    this.#mounts = Object.entries(mounts).map(([prefix, folder]) => /** @type {const} */ ([prefix, resolve(folder)]));
    this.#mounts.sort(([one], [other]) => other.length - one.length);
    this.#host = host;
    this.#headers = headers;
  }

  /**
   * Starts a host on a free port of this machine.
   * @param {Record<string, string>} mounts  folder by path prefix; a prefix begins and ends with a slash
   * @param {string} [host]  the name by which the browser finds it
   * @param {Record<string, string>} [headers]  what it sends with every file
   */
  static async start(mounts, host = "127.0.0.1", headers = {}) {
    const site = new Site(mounts, host, headers);
    await new Promise((resolve) => site.#server.listen(0, "127.0.0.1", () => resolve(undefined)));
    return site;
  }

  /** The address of a path. @param {string} path */
  url(path) {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the host is closed");
    return `http://${this.#host}:${address.port}${path}`;
  }

  /**
   * Makes every request for the files whose path ends so misbehave, until `reset`.
   * @param {string} suffix @param {Fault} fault
   */
  break(suffix, fault) {
    this.#faults.set(suffix, fault);
  }

  /** Forgets faults and requests. */
  reset() {
    this.#faults.clear();
    this.#attempts.clear();
    this.requests = [];
  }

  async close() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** @param {import('node:http').IncomingMessage} request @param {import('node:http').ServerResponse} response */
  async #answer(request, response) {
    const { method = "GET", headers } = request;
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://host").pathname);
    this.requests.push({ method, path, ...(headers.range && { range: headers.range }) });

    const file = this.#file(path);
    const size =
      file === undefined
        ? 0
        : await stat(file).then(
            ({ size }) => size,
            () => 0,
          );
    if (file !== undefined && size > LONGEST_IN_MEMORY) {
      response.writeHead(200, { "Content-Type": "application/octet-stream", "Content-Length": size });
      return pipeline(createReadStream(file), response);
    }
    const content = file === undefined ? undefined : await readFile(file).catch(() => undefined);
    /** @type {Reply} */
    let reply = content === undefined ? { status: 404 } : {};
    for (const [suffix, fault] of this.#faults) {
      if (!path.endsWith(suffix)) continue;
      const attempt = (this.#attempts.get(path) ?? 0) + 1;
      this.#attempts.set(path, attempt);
      reply = fault(content ?? Buffer.alloc(0), attempt);
    }
    let bytes = reply.bytes ?? content ?? Buffer.alloc(0);

    const etag = `"${createHash("sha1").update(bytes).digest("hex")}"`;
    let status = reply.status ?? 200;
    const range = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "");
    if (status === 200 && range && reply.ranges !== false) {
      const [start, end] = [Number(range[1]), range[2] ? Number(range[2]) + 1 : bytes.length];
      status = start < bytes.length ? 206 : 416;
      response.setHeader(
        "Content-Range",
        status === 206
          ? `bytes ${start}-${Math.min(end, bytes.length) - 1}/${bytes.length}`
          : `bytes */${bytes.length}`,
      );
      bytes = bytes.subarray(start, end);
    }
    response.writeHead(status, {
      "Content-Type": reply.type ?? TYPES[extname(file ?? "")] ?? "application/octet-stream",
      "Content-Length": bytes.length,
      "Cache-Control": "no-store",
      ETag: etag,
      ...this.#headers,
      ...(reply.ranges !== false && { "Accept-Ranges": "bytes" }),
    });
    if (method === "HEAD") return void response.end();
    await this.#send(response, bytes, reply);
  }

  /** @param {import('node:http').ServerResponse} response @param {Buffer} bytes @param {Reply} reply */
  async #send(response, bytes, { cutAfter, bytesPerSecond }) {
    const end = Math.min(cutAfter ?? Infinity, bytes.length);
    const pause = 20;
    const chunk = bytesPerSecond === undefined ? end : Math.max(1, Math.floor((bytesPerSecond * pause) / 1000));
    for (let start = 0; start < end && !response.destroyed; start += chunk) {
      response.write(bytes.subarray(start, Math.min(start + chunk, end)));
      if (bytesPerSecond !== undefined) await sleep(pause);
    }
    if (cutAfter === undefined) return void response.end();
    await sleep(pause); // so that what was written leaves before the connection breaks
    response.destroy();
  }

  /** The file that a path names, if it is in a mounted folder. @param {string} path */
  #file(path) {
    for (const [prefix, folder] of this.#mounts) {
      if (!path.startsWith(prefix)) continue;
      const file = normalize(join(folder, path.slice(prefix.length)));
      if (file.startsWith(folder + sep) || file === folder) return path.endsWith("/") ? join(file, "index.html") : file;
    }
    return undefined;
  }
}
