// @ts-check
// Where a checkpoint's files come from: the URL of a folder or of one file, files that the user picked, or a handle.

import { OptionError, SourceError, throwIfAborted } from "./errors.js";
import { HttpFile } from "./http.js";

/** @import { Source } from "./index.d.ts" */

/**
 * A source in a form that may be sent to a worker. `file`: all that there is to it, and not a folder.
 * @typedef {{ kind: "url", base: string, file?: string }
 *   | { kind: "files", files: Map<string, Blob> }
 *   | { kind: "directory", handle: FileSystemDirectoryHandle }
 *   | { kind: "handle", handle: FileSystemFileHandle }} SourceDescription
 */

/**
 * One file being read.
 * @typedef {{ length: number | undefined, next(): Promise<Uint8Array | undefined>, cancel(): void }} OpenFile
 */

/**
 * What the WebAssembly side reads from. `files`: all paths, where they can be known without asking for each. `prefetch` is told
 * of files that will most likely be opened; `forget` ends what was begun for them in vain.
 * @typedef {{
 *   name: string,
 *   files?: string[],
 *   prefetch(paths: string[]): void,
 *   open(path: string): Promise<OpenFile>,
 *   forget(): void,
 * }} OpenSource
 */

/** The ends of the names of files that are a checkpoint, or a part of one, by themselves. */
const WEIGHT_FILE = /\.(safetensors|gguf|ckpt|pt|pth|bin)$/i;

/** Hosts whose pages about a model have the model's files beside them, under `resolve/`. */
const HUBS = ["huggingface.co", "www.huggingface.co", "hf.co"];

/**
 * Checks what the caller passed, while the caller's own base URL is still known.
 * @param {Source} source
 * @returns {SourceDescription}
 */
export function describeSource(source) {
  if (typeof source === "string" || source instanceof URL) return describeUrl(absoluteUrl(source, "source"));
  if (typeof FileSystemDirectoryHandle !== "undefined" && source instanceof FileSystemDirectoryHandle) {
    return { kind: "directory", handle: source };
  }
  if (typeof FileSystemFileHandle !== "undefined" && source instanceof FileSystemFileHandle) {
    return { kind: "handle", handle: source };
  }
  if (source instanceof Map) return { kind: "files", files: atRoot(source) };
  if (source instanceof File) return { kind: "files", files: new Map([[source.name, source]]) };
  if (source && Symbol.iterator in Object(source)) {
    const files = [.../** @type {Iterable<File>} */ (source)];
    if (files.every((file) => file instanceof File)) {
      return {
        kind: "files",
        files: atRoot(new Map(files.map((file) => [file.webkitRelativePath || file.name, file]))),
      };
    }
  }
  throw new OptionError(
    "invalid-option",
    "The source has to be a URL, a File or a list of them, a Map from path to Blob, or a handle of a file or directory.",
    { option: "source" },
  );
}

/**
 * Checks a source that has to be a single file.
 * @param {Source} source
 * @param {string} option
 * @returns {SourceDescription}
 */
export function describeFile(source, option) {
  const description = describeSource(source);
  const isFile =
    description.kind === "handle" ||
    (description.kind === "url" && description.file !== undefined) ||
    (description.kind === "files" && description.files.size === 1);
  if (isFile) return description;
  const message = `${option}: the source of each has to be one file, a .safetensors by its URL, as a File or its handle.`;
  throw new OptionError("invalid-option", message, { option });
}

/**
 * The folder and, where the address is that of one weight file, its name. The address of a hub's page about a model, or
 * about a file of it, stands for what the page is about.
 * @param {string} address
 * @returns {SourceDescription}
 */
function describeUrl(address) {
  const url = new URL(address);
  if (HUBS.includes(url.hostname)) url.pathname = resolvedPath(url.pathname);
  const parts = /^(.*\/)([^/]*)$/.exec(url.pathname);
  if (!parts) {
    const message = `source: ${JSON.stringify(address)} is no address of files; it begins with https:// or http://.`;
    throw new OptionError("invalid-option", message, { option: "source" });
  }
  const [, folder, file] = parts;
  if (!WEIGHT_FILE.test(file)) return { kind: "url", base: url.href };
  url.pathname = folder;
  try {
    return { kind: "url", base: url.href, file: decodeURIComponent(file) };
  } catch (cause) {
    const message = `source: ${JSON.stringify(file)} is not how an address spells a file's name.`;
    throw new OptionError("invalid-option", message, { option: "source", cause });
  }
}

/**
 * `/org/name`, `/org/name/tree/<revision>/…` and `/org/name/blob/<revision>/…` as the hub resolves them to files.
 * @param {string} path
 */
function resolvedPath(path) {
  const [, owner, name, view, ...rest] = path.replace(/\/$/, "").split("/");
  if (!owner || !name) return path;
  if (view === undefined) return `/${owner}/${name}/resolve/main/`;
  return view === "tree" || view === "blob" ? ["", owner, name, "resolve", ...rest].join("/") : path;
}

/**
 * @param {string | URL} url
 * @param {string} option
 * @returns {string}
 */
export function absoluteUrl(url, option) {
  try {
    return new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href).href;
  } catch (cause) {
    throw new OptionError("invalid-option", `${option}: ${JSON.stringify(String(url))} is not a URL.`, {
      option,
      cause,
    });
  }
}

/**
 * The same files with paths that start at the checkpoint's root, whichever folder above it was picked. A network by itself
 * has no index, and its root is where its config is.
 * @param {Map<string, Blob>} files
 * @returns {Map<string, Blob>}
 */
function atRoot(files) {
  const highest = (/** @type {string} */ name) =>
    [...files.keys()]
      .filter((path) => path === name || path.endsWith(`/${name}`))
      .sort((a, b) => a.split("/").length - b.split("/").length)[0];
  const top = highest("model_index.json") ?? highest("config.json");
  if (top === undefined) return files;
  const root = top.slice(0, top.lastIndexOf("/") + 1);
  return new Map(
    [...files].filter(([path]) => path.startsWith(root)).map(([path, file]) => [path.slice(root.length), file]),
  );
}

/**
 * @param {SourceDescription} description
 * @param {AbortSignal} signal ends every read with an AbortError
 * @param {(reason: string) => void} [onWait] is told why a file has to be waited for
 * @returns {OpenSource}
 */
export function openSource(description, signal, onWait) {
  switch (description.kind) {
    case "url": {
      const { base, file } = description;
      return remote(base, file, (path) => urlOf(base, path), signal, onWait);
    }
    case "files": {
      const { files } = description;
      const open = async (/** @type {string} */ path) => openBlob(path, files.get(path), signal);
      return { ...LOCAL, name: "the chosen files", files: [...files.keys()], open };
    }
    case "directory": {
      const { handle } = description;
      const open = async (/** @type {string} */ path) => openBlob(path, await fileIn(handle, path), signal);
      return { ...LOCAL, name: handle.name, open };
    }
    case "handle": {
      const { handle } = description;
      const open = async (/** @type {string} */ path) =>
        openBlob(path, path === handle.name ? await read(handle, path) : undefined, signal);
      return { ...LOCAL, name: handle.name, files: [handle.name], open };
    }
  }
}

/**
 * CLIP's `merges.txt`, of which its vocabulary is made: checkpoints in one file bring none. Fetched only if it is read.
 * @param {string | undefined} address where it is, if not beside the module
 * @param {AbortSignal} signal
 * @returns {OpenSource}
 */
export function openVocabulary(address, signal) {
  const url = address ?? new URL("./internal/merges.txt", import.meta.url).href;
  return remote(url, "merges.txt", () => url, signal);
}

/** Files at hand: there is nothing to be begun before one is opened. */
const LOCAL = { prefetch() {}, forget() {} };

/**
 * @param {string} name
 * @param {string | undefined} file the only one, if there is only one
 * @param {(path: string) => string} addressOf
 * @param {AbortSignal} signal
 * @param {(reason: string) => void} [onWait]
 * @returns {OpenSource}
 */
function remote(name, file, addressOf, signal, onWait) {
  /** Files on their way that nobody has opened yet. @type {Map<string, Promise<HttpFile>>} */
  const expected = new Map();
  const fetch = (/** @type {string} */ path) => HttpFile.open(addressOf(path), path, { signal, onWait });
  return {
    name,
    files: file === undefined ? undefined : [file],
    prefetch(paths) {
      for (const path of paths.filter((path) => !expected.has(path))) {
        const coming = fetch(path);
        // Whoever opens it is told.
        coming.catch(() => {});
        expected.set(path, coming);
      }
    },
    open(path) {
      const coming = expected.get(path) ?? fetch(path);
      expected.delete(path);
      return coming;
    },
    forget() {
      for (const coming of expected.values()) {
        coming.then(
          (file) => file.cancel(),
          () => {},
        );
      }
      expected.clear();
    },
  };
}

/**
 * The address of `path` below `base`. A query (of a signed address, say) is kept, a missing slash is added.
 * @param {string} base
 * @param {string} path
 */
function urlOf(base, path) {
  const url = new URL(base);
  url.pathname = `${url.pathname.replace(/\/$/, "")}/${path.split("/").map(encodeURIComponent).join("/")}`;
  return url.href;
}

/**
 * @param {FileSystemFileHandle} handle
 * @param {string} path
 */
function read(handle, path) {
  return handle.getFile().catch((cause) => {
    throw unreadable(path, cause);
  });
}

/**
 * @param {FileSystemDirectoryHandle} directory
 * @param {string} path
 * @returns {Promise<File | undefined>}
 */
async function fileIn(directory, path) {
  const folders = path.split("/");
  const name = folders.pop() ?? "";
  try {
    for (const folder of folders) directory = await directory.getDirectoryHandle(folder);
    return await (await directory.getFileHandle(name)).getFile();
  } catch (cause) {
    if (cause instanceof DOMException && (cause.name === "NotFoundError" || cause.name === "TypeMismatchError")) {
      return undefined;
    }
    throw unreadable(path, cause);
  }
}

/**
 * @param {string} path
 * @param {Blob | undefined} blob
 * @param {AbortSignal} signal
 * @returns {OpenFile}
 */
function openBlob(path, blob, signal) {
  if (!blob) {
    const hint =
      "choose the checkpoint's whole folder, the one that holds model_index.json, or a single file that is one";
    throw new SourceError("file-missing", `${path} is not among the chosen files: ${hint}.`, { file: path });
  }
  const reader = blob.stream().getReader();
  return {
    length: blob.size,
    async next() {
      throwIfAborted(signal);
      try {
        return (await reader.read()).value;
      } catch (cause) {
        throw unreadable(path, cause);
      }
    },
    cancel() {
      reader.cancel().catch(() => {});
    },
  };
}

/**
 * @param {string} path
 * @param {unknown} cause
 */
function unreadable(path, cause) {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new SourceError("file-unreadable", `${path} could not be read: ${reason}`, { file: path, cause });
}
