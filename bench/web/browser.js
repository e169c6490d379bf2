/**
 * One side, once, in a Chromium and a profile of its own: `node browser.js TASK`, a `Side` as JSON. Prints one line of JSON.
 */
import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, extname, join, resolve } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { ISOLATION, launch, root, Site } from "../../tests/browser/harness/index.js";

/**
 * What `undiffuse-bench prepare` says of a network.
 * @typedef {object} Model
 * @property {string} name
 * @property {string} checkpoint  its folder
 * @property {Record<string, number[]>} inputs  the shapes of the network's inputs
 * @property {Record<string, unknown>} run  the options of the run whose last picture is known
 *
 * @typedef {object} Side
 * @property {"undiffuse" | "onnxruntime"} runtime
 * @property {string} folder  where `prepare` wrote, in the repository
 * @property {string} name  of the network
 * @property {"cpu" | "webgpu"} device
 * @property {number} [threads]
 * @property {number} steps
 */

/** What a page loads to compute at all, in contrast to the model. */
const CODE = [".html", ".js", ".mjs", ".wasm"];

/** Most time that one run may take: onnxruntime-web on a software adapter needs a minute for a step of the larger network. */
const TIMEOUT = 570_000;

/** @type {Side} */
const { runtime, folder, name, device, threads, steps } = JSON.parse(process.argv[2]);
/** @type {Model} */
const model = JSON.parse(await readFile(join(root, folder, name, "model.json"), "utf8"));

const site = await Site.start(
  {
    "/": join(root, "bench/web"),
    "/pkg/": join(root, "dist/pkg"),
    "/runtime/": join(root, "bench/web/node_modules/onnxruntime-web/dist"),
    "/model/": join(root, folder, name),
    "/checkpoint/": resolve(root, model.checkpoint),
  },
  "127.0.0.1",
  ISOLATION,
);
const browser = await launch("webgpu");
try {
  const page = await browser.newPage();
  /** @type {string[]} */
  const messages = [];
  page.on("console", (message) => messages.push(message.text()));
  page.on("pageerror", (error) => messages.push(String(error.stack)));
  const task = encodeURIComponent(JSON.stringify({ device, threads, steps, model }));
  await page.goto(site.url(`/${runtime}.html#${task}`));
  const handle = await page.waitForFunction(() => Reflect.get(window, "result"), undefined, { timeout: TIMEOUT });
  const result = await handle.jsonValue();
  if (result.failure) throw new Error(`${result.failure}\n${messages.join("\n")}`);
  const memory = await peaks();
  const { ready, first, steps: times, device: adapter, error } = result;
  console.log(
    JSON.stringify({
      device: adapter,
      ready_ms: ready,
      first_ms: first,
      steps_ms: times,
      error,
      code_bytes: await codeBytes(),
      renderer_mib: memory.renderer,
      gpu_process_mib: memory.GPU,
    }),
  );
} finally {
  await browser.close();
  await site.close();
}

/** The most memory that each kind of process has held, in MiB: the largest renderer is the page's. Known on Linux only. */
async function peaks() {
  const session = await browser.newBrowserCDPSession();
  /** @type {{ processInfo: { type: string, id: number }[] }} */
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  /** @type {Record<string, number>} */
  const most = {};
  for (const { type, id } of processInfo) {
    const status = await readFile(`/proc/${id}/status`, "utf8").catch(() => "");
    const kib = Number(/^VmHWM:\s*(\d+)/m.exec(status)?.[1] ?? NaN);
    if (kib) most[type] = Math.max(most[type] ?? 0, kib / 1024);
  }
  return most;
}

/** What the code that was requested weighs in brotli, each file once. */
async function codeBytes() {
  const known = join(root, "target/bench/brotli.json");
  /** @type {Record<string, number>} */
  const sizes = JSON.parse(await readFile(known, "utf8").catch(() => "{}"));
  const paths = [...new Set(site.requests.map(({ path }) => path))].filter(
    (path) => CODE.includes(extname(path)) && !path.startsWith("/model/"),
  );
  // All of them before any is compressed: meanwhile the host would close its connections.
  const files = await Promise.all(
    paths.map(async (path) => Buffer.from(await (await fetch(site.url(path))).arrayBuffer())),
  );
  let total = 0;
  for (const bytes of files) {
    const hash = createHash("sha256").update(bytes).digest("hex");
    // Half a minute for the largest: it is remembered by its content.
    sizes[hash] ??= brotliCompressSync(bytes).length;
    total += sizes[hash];
  }
  await mkdir(dirname(known), { recursive: true });
  await writeFile(known, JSON.stringify(sizes));
  return total;
}
