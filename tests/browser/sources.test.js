/** What stands for a checkpoint: addresses and files, as the package takes them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { describeSource, openSource } from "../../js/source.js";

/** Which address is asked for when a path of the source is opened. @param {string} source @param {string} path */
async function asked(source, path) {
  /** @type {string[]} */
  const requests = [];
  const { fetch } = globalThis;
  globalThis.fetch = async (url) => {
    requests.push(String(url));
    return new Response("");
  };
  try {
    await openSource(describeSource(source), new AbortController().signal).open(path);
  } finally {
    globalThis.fetch = fetch;
  }
  return requests;
}

test("the address of a folder, and of a page about a model, leads to its files", async () => {
  for (const [source, expected] of [
    ["https://host.test/models/mine", "https://host.test/models/mine/unet/config.json"],
    ["https://host.test/models/mine/", "https://host.test/models/mine/unet/config.json"],
    ["https://host.test/mine/?token=a%2Fb", "https://host.test/mine/unet/config.json?token=a%2Fb"],
    ["https://huggingface.co/org/name", "https://huggingface.co/org/name/resolve/main/unet/config.json"],
    ["https://huggingface.co/org/name/", "https://huggingface.co/org/name/resolve/main/unet/config.json"],
    ["https://hf.co/org/name/tree/v1.5", "https://hf.co/org/name/resolve/v1.5/unet/config.json"],
    [
      "https://huggingface.co/org/name/tree/refs%2Fpr%2F3/inner",
      "https://huggingface.co/org/name/resolve/refs%2Fpr%2F3/inner/unet/config.json",
    ],
    ["https://huggingface.co/org/name/resolve/main", "https://huggingface.co/org/name/resolve/main/unet/config.json"],
    // Elsewhere a path is a path.
    ["https://host.test/org/name/tree/main", "https://host.test/org/name/tree/main/unet/config.json"],
  ]) {
    assert.deepEqual(await asked(source, "unet/config.json"), [expected], source);
  }
});

test("the address of a file is all of its source", async () => {
  for (const [source, name, expected] of [
    ["https://host.test/a/b.safetensors", "b.safetensors", "https://host.test/a/b.safetensors"],
    ["https://host.test/a/b%20c.GGUF?key=1", "b c.GGUF", "https://host.test/a/b%20c.GGUF?key=1"],
    [
      "https://huggingface.co/org/name/blob/main/v1.safetensors",
      "v1.safetensors",
      "https://huggingface.co/org/name/resolve/main/v1.safetensors",
    ],
  ]) {
    const { files } = openSource(describeSource(source), new AbortController().signal);
    assert.deepEqual(files, [name], source);
    assert.deepEqual(await asked(source, name), [expected], source);
  }
});

test("an address without files is refused in words", () => {
  for (const source of ["mailto:a@host.test", "javascript:0", "blob:x"]) {
    assert.throws(
      () => describeSource(source),
      (/** @type {any} */ error) =>
        error.code === "invalid-option" && error.message.includes(source) && /https/.test(error.message),
    );
  }
});

test("a file is a source, and a folder’s files are seen from its root", () => {
  const files = (/** @type {any} */ source) => openSource(describeSource(source), new AbortController().signal).files;
  assert.deepEqual(files(new File(["x"], "mine.safetensors")), ["mine.safetensors"]);
  assert.deepEqual(files([new File(["x"], "mine.gguf")]), ["mine.gguf"]);
  const blob = new Blob(["x"]);
  const folder = new Map([
    ["top/inner/model_index.json", blob],
    ["top/inner/unet/config.json", blob],
    ["top/else.txt", blob],
  ]);
  assert.deepEqual(files(folder), ["model_index.json", "unet/config.json"]);
  // A network by itself, such as a tiny autoencoder.
  const network = new Map([
    ["taesd/config.json", blob],
    ["taesd/diffusion_pytorch_model.safetensors", blob],
  ]);
  assert.deepEqual(files(network), ["config.json", "diffusion_pytorch_model.safetensors"]);
});

test("files that are expected are fetched side by side, each once, and ended where nobody opens them", async () => {
  /** @type {string[]} */
  const requests = [];
  /** @type {string[]} */
  const cancelled = [];
  const { fetch } = globalThis;
  globalThis.fetch = async (url) => {
    const name = String(url).replace("https://host.test/", "");
    requests.push(name);
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(new TextEncoder().encode(name)),
      cancel: () => void cancelled.push(name),
    });
    return new Response(body, { status: name === "absent" ? 404 : 200 });
  };
  try {
    const source = openSource(describeSource("https://host.test/"), new AbortController().signal);
    source.prefetch(["opened", "absent", "unopened"]);
    source.prefetch(["opened"]);
    assert.deepEqual(requests, ["opened", "absent", "unopened"]);
    const file = await source.open("opened");
    assert.equal(new TextDecoder().decode(await file.next()), "opened");
    await assert.rejects(source.open("absent"), { code: "file-missing" });
    source.forget();
    await new Promise((resolve) => setTimeout(resolve));
    assert.deepEqual(cancelled, ["unopened"]);
    // What was forgotten or has been opened is fetched anew.
    await source.open("opened");
    await source.open("unopened");
    assert.deepEqual(requests.slice(3), ["opened", "unopened"]);
  } finally {
    globalThis.fetch = fetch;
  }
});

test("what is no source is refused", () => {
  for (const source of [
    undefined,
    null,
    7,
    {},
    [1],
    "https://",
    "http://[",
    "https://host.test/%zz.gguf",
    [new Blob(["x"])],
  ]) {
    assert.throws(() => describeSource(/** @type {any} */ (source)), { code: "invalid-option", option: "source" });
  }
});
