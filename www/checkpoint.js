// @ts-check
// A checkpoint of the visitor's own: a folder that was chosen, or dropped anywhere on the page.

/**
 * @param {(files: Map<string, File>, name: string) => void} onFolder gets the files by their path, and the folder's name
 * @param {(name: string, error: unknown) => void} onUnreadable gets the name of what was dropped, and why it cannot be read
 */
export function acceptFolders(onFolder, onUnreadable) {
  const input = /** @type {HTMLInputElement} */ (document.getElementById("checkpoint"));
  input.addEventListener("change", () => {
    const files = [...(input.files ?? [])];
    // Choosing the same folder again has to be a change again.
    input.value = "";
    if (files.length > 0) {
      onFolder(
        new Map(files.map((file) => [file.webkitRelativePath, file])),
        files[0].webkitRelativePath.split("/")[0],
      );
    }
  });

  let depth = 0;
  const mark = (/** @type {number} */ change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dragging", depth > 0);
  };
  addEventListener("dragenter", (event) => event.dataTransfer?.types.includes("Files") && mark(1));
  addEventListener("dragleave", (event) => event.dataTransfer?.types.includes("Files") && mark(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    mark(-depth);
    // The entries have to be taken before the first await: the list is emptied when the event is over.
    const entries = [...(event.dataTransfer?.items ?? [])]
      .map((item) => item.webkitGetAsEntry())
      .filter((entry) => entry !== null);
    if (entries.length === 0) return;
    /** @type {Map<string, File>} */
    const files = new Map();
    try {
      for (const entry of entries) await collect(entry, files);
    } catch (error) {
      onUnreadable(entries[0].name, error);
      return;
    }
    onFolder(files, entries[0].name);
  });
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
