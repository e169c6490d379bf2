// @ts-check
// What visitors bring along, chosen or dropped anywhere on the page: checkpoints, LoRAs, pictures.

/**
 * Who wants what.
 * @typedef {object} Takers
 * @property {(source: File | Map<string, File>, name: string) => void} checkpoint  gets a file, or several by their paths
 * @property {(file: File) => void} lora
 * @property {(files: File[]) => void} pictures
 * @property {(name: string, error: unknown) => void} unreadable  gets the name of what was dropped, and why it cannot be read
 */

/** Files that make a folder a checkpoint's. */
const CHECKPOINT = /(^|\/)(model_index|config)\.json$|\.(safetensors|gguf|ckpt|pt|bin)$/i;

/** Longest header that is looked into: a LoRA's has some thousand names. */
const MAX_HEADER = 1 << 24;

/** @param {Takers} takers */
export function acceptFiles(takers) {
  for (const input of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll("input.arrivals"))) {
    input.addEventListener("change", () => {
      const files = new Map([...(input.files ?? [])].map((file) => [file.webkitRelativePath || file.name, file]));
      // Choosing the same again has to be a change again.
      input.value = "";
      hand(files, takers, "the folder");
    });
  }

  let depth = 0;
  const mark = (/** @type {number} */ change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dragging", depth > 0);
  };
  addEventListener("dragenter", (event) => event.dataTransfer?.types.includes("Files") && mark(1));
  addEventListener("dragleave", (event) => event.dataTransfer?.types.includes("Files") && mark(-1));
  addEventListener("dragover", (event) => isText(event) || event.preventDefault());
  addEventListener("drop", async (event) => {
    if (isText(event)) return;
    event.preventDefault();
    mark(-depth);
    // The entries have to be taken before the first await: the list is emptied when the event is over.
    const entries = [...(event.dataTransfer?.items ?? [])]
      .map((item) => item.webkitGetAsEntry())
      .filter((entry) => entry !== null);
    if (entries.length === 0) {
      takers.unreadable("What was dropped", "it is no file. Save it first, and drop the file.");
      return;
    }
    /** @type {Map<string, File>} */
    const files = new Map();
    try {
      for (const entry of entries) await collect(entry, files);
    } catch (error) {
      takers.unreadable(entries[0].name, error);
      return;
    }
    hand(files, takers, entries[0].name);
  });
}

/** Whether words are dragged into a field, which is the browser's affair. @param {DragEvent} event */
function isText({ target, dataTransfer }) {
  return target instanceof Element && target.matches("input, textarea") && !dataTransfer?.types.includes("Files");
}

/**
 * Gives files to whoever wants them: those of a folder belong together, others are each what they are.
 * @param {Map<string, File>} files
 * @param {Takers} takers
 * @param {string} name  of what they came in
 */
async function hand(files, takers, name) {
  if (files.size === 0) {
    takers.unreadable(name, "there is no file in it");
    return;
  }
  const paths = [...files.keys()];
  const [pictures, others] = [true, false].map((wanted) =>
    [...files.values()].filter((file) => file.type.startsWith("image/") === wanted),
  );
  const isFolder = paths.some((path) => path.includes("/") || path === "model_index.json");
  // A checkpoint's folder may hold pictures too, and a folder of pictures a list of them.
  if (isFolder && (pictures.length === 0 || paths.some((path) => CHECKPOINT.test(path)))) {
    takers.checkpoint(files, paths[0].split("/")[0]);
    return;
  }
  if (pictures.length > 0) takers.pictures(pictures);
  if (isFolder) return;
  /** @type {File[]} */
  const checkpoint = [];
  for (const file of others) {
    try {
      if (await isLora(file)) takers.lora(file);
      else checkpoint.push(file);
    } catch (error) {
      takers.unreadable(file.name, error);
    }
  }
  const [first, ...more] = checkpoint;
  if (more.length > 0) takers.checkpoint(new Map(checkpoint.map((file) => [file.name, file])), first.name);
  else if (first) takers.checkpoint(first, first.name);
}

/**
 * Whether a safetensors file names the halves of low-rank matrices. What its numbers are is for the package to check.
 * @param {File} file
 */
async function isLora(file) {
  if (!/\.safetensors$/i.test(file.name) || file.size < 8) return false;
  const length = new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true);
  if (length > Math.min(MAX_HEADER, file.size - 8)) return false;
  const header = await file.slice(8, 8 + Number(length)).text();
  return tensorNames(header).some((name) => /lora_(up|down|A|B|unet|te)|_lora\.|\.lora\./.test(name));
}

/**
 * @param {string} header
 * @returns {string[]} none, if it is damaged
 */
function tensorNames(header) {
  try {
    const tensors = JSON.parse(header);
    const isObject = typeof tensors === "object" && tensors !== null && !Array.isArray(tensors);
    return isObject ? Object.keys(tensors).filter((name) => name !== "__metadata__") : [];
  } catch {
    return [];
  }
}

/**
 * @param {FileSystemEntry} entry
 * @param {Map<string, File>} files
 */
async function collect(entry, files) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) =>
      /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject),
    );
    files.set(entry.fullPath.slice(1), file);
    return;
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    // A directory comes in portions of a hundred.
    if (entries.length === 0) return;
    for (const inner of entries) await collect(inner, files);
  }
}
