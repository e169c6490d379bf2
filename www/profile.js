// @ts-check
// Where the time of a step goes: the package's profile as a table, with a bar for each kind of node.

/** @import { Profile, ProfiledNode } from "./pkg/index.js" */

const panel = /** @type {HTMLElement} */ (document.getElementById("profile"));
const words = /** @type {HTMLElement} */ (panel.querySelector("output"));
const tables = /** @type {HTMLElement} */ (panel.querySelector(".tables"));

/** How many of the slowest nodes are shown by themselves. */
const SLOWEST = 8;

/** What the ops are called; one that is not here goes by its own name. @type {Record<string, string>} */
const KINDS = {
  conv2d: "convolution",
  linear: "linear layer",
  group_norm: "group norm",
  layer_norm: "layer norm",
  attention: "attention",
  geglu: "GEGLU",
  activate: "activation",
  linear_update: "solver’s update",
};

/** Forgets what was shown: it was of another model. */
export function clear() {
  words.textContent = "";
  tables.hidden = true;
}

/** @param {string} text */
export function say(text) {
  words.textContent = text;
}

/** @param {Profile} profile */
export function show({ milliseconds, ceilings, clock, nodes }) {
  const all = together("all", nodes);
  const how = { timestamps: "by the GPU’s own clock", waits: "by waiting for each", processor: "one by one" }[clock];
  say(
    `A step takes ${number(milliseconds)} ms; its ${nodes.length} nodes ${number(all.milliseconds)} ms, ${how}. It has ` +
      `${number(all.flop / 1e9)} GFLOP to do and ${number(all.bytes / 1e6)} MB to move. This device does at most ` +
      `${number(ceilings.flopPerSecond / 1e9)} GFLOP and ${number(ceilings.bytesPerSecond / 1e9)} GB a second: the dark ` +
      `part of a bar is the time that it could not do without.`,
  );

  /** @type {Map<string, ProfiledNode[]>} */
  const kinds = new Map();
  for (const node of nodes) kinds.set(node.op, [...(kinds.get(node.op) ?? []), node]);
  const groups = [...kinds].map(([op, nodes]) => together(KINDS[op] ?? op.replaceAll("_", " "), nodes)).sort(slower);
  fill(tables.children[0], groups);
  const alone = (/** @type {ProfiledNode} */ node) =>
    together(node.path, [node], `${node.shape.join(" × ")}: ${node.kernel}`);
  const slowest = nodes.map(alone).sort(slower);
  fill(tables.children[1], slowest.slice(0, SLOWEST));
  tables.hidden = false;
}

/**
 * Nodes as one row.
 * @param {string} name
 * @param {readonly ProfiledNode[]} nodes
 * @param {string} [title]
 */
function together(name, nodes, title = "") {
  const sum = (/** @type {(node: ProfiledNode) => number} */ of) => nodes.reduce((sum, node) => sum + of(node), 0);
  return {
    name,
    title,
    count: nodes.length,
    milliseconds: sum((node) => node.milliseconds),
    /** What the ceilings allow. */
    least: sum((node) => node.milliseconds * Math.min(node.roofline, 1)),
    flop: sum((node) => node.flop),
    bytes: sum((node) => node.bytes),
  };
}

/** @typedef {ReturnType<typeof together>} Group */

/** @param {Group} a @param {Group} b */
function slower(a, b) {
  return b.milliseconds - a.milliseconds;
}

/**
 * @param {Element} table
 * @param {Group[]} groups the slowest first
 */
function fill(table, groups) {
  const longest = groups[0]?.milliseconds || 1;
  const rows = groups.map(({ name, title, count, milliseconds, least, flop }) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    // A text of its own direction, so that the style can cut off its beginning.
    const text = document.createElement("bdi");
    text.textContent = count > 1 ? `${name} × ${count}` : name;
    head.append(text);
    head.title = title;
    const bar = document.createElement("td");
    bar.className = "bar";
    const length = document.createElement("span");
    length.style.setProperty("--length", `${(100 * milliseconds) / longest}%`);
    length.style.setProperty("--least", `${(100 * least) / (milliseconds || 1)}%`);
    bar.append(length);
    const cells = [
      number(milliseconds),
      number(flop / 1e6 / milliseconds),
      `${Math.round((100 * least) / milliseconds)} %`,
    ];
    row.append(
      head,
      bar,
      ...cells.map((text, column) => {
        const cell = document.createElement("td");
        // A node may take less time than the clock can tell.
        cell.textContent = milliseconds > 0 || column === 0 ? text : "–";
        return cell;
      }),
    );
    return row;
  });
  table.querySelector("tbody")?.replaceChildren(...rows);
}

/** @param {number} value */
function number(value) {
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
}
