// @ts-check
// Charts as SVG, drawn by hand in the pixels of the screen; colours and type are the style sheet's.

/** With its standard error, where it has one. @typedef {[x: number, y: number, error?: number]} Point */

/**
 * What a chart shows.
 * @typedef {object} Marks
 * @property {{ name: string, points: Point[], dots?: boolean }[]} [lines] from left to right
 * @property {{ x: number, y: number, error?: number, width?: number, title?: string }[]} [bars] from zero, with a standard error each
 * @property {number[]} [ticks] short lines at the foot
 * @property {{ y: number, error: number, name: string }} [level] a line across, and what lies within its error
 */

/**
 * An axis.
 * @typedef {object} Axis
 * @property {[number, number]} [range] what it spans; by default what is shown
 * @property {boolean} [log] whether its powers of ten are as far from one another everywhere
 * @property {(value: number) => string} [format]
 * @property {string} [name] what it is of, said at its end
 */

const HEIGHT = 176;
const MARGIN = { top: 10, right: 12, bottom: 22, left: 44 };

/** A chart in an element of its own. */
export class Chart {
  element = document.createElement("figure");
  #svg = svg("svg", { role: "img" });
  #title = document.createElement("figcaption");
  #label;
  #x;
  #y;
  #height;
  #from;
  /** @type {Marks} */
  #marks = {};
  /** Where the marker stands. @type {number | undefined} */
  #marker;
  /** @type {{ x: (value: number) => number, y: (value: number) => number, back: (pixel: number) => number } | undefined} */
  #scales;

  /**
   * @param {string} label
   * @param {{ x?: Axis, y?: Axis, height?: number, from?: number, onPick?: (x: number) => void }} [options] from: what both axes have to
   *     show; onPick: gets the x of where it is pressed
   */
  constructor(label, { x = {}, y = {}, height = HEIGHT, from, onPick } = {}) {
    this.#label = label;
    this.#x = x;
    this.#y = y;
    this.#height = height;
    this.#from = from;
    this.element.className = "chart";
    this.element.append(this.#title, this.#svg);
    this.name([]);
    new ResizeObserver(() => this.#draw()).observe(this.element);
    if (!onPick) return;
    this.element.classList.add("picks");
    for (const type of /** @type {const} */ (["pointerdown", "pointermove"])) {
      this.#svg.addEventListener(type, (event) => {
        if (event.buttons !== 1 || !this.#scales) return;
        if (type === "pointerdown") this.#svg.setPointerCapture(event.pointerId);
        onPick(this.#scales.back(event.clientX - this.#svg.getBoundingClientRect().left));
      });
    }
  }

  /**
   * Shows these marks in place of others.
   * @param {Marks} marks
   * @param {string} [summary] the same in words, for those who do not see them
   */
  show(marks, summary = "") {
    this.#marks = marks;
    this.#svg.setAttribute("aria-label", summary ? `${this.#label}: ${summary}` : this.#label);
    this.name(marks.lines?.length === 1 ? [] : (marks.lines ?? []).map(({ name }) => name));
    this.#draw();
  }

  /** @param {string[]} names of the lines, under the title */
  name(names) {
    const keys = names.map((name, at) => {
      const key = document.createElement("span");
      key.className = `key line-${at}`;
      key.textContent = name;
      return key;
    });
    this.#title.replaceChildren(this.#label, ...keys);
  }

  /** @param {number | undefined} x where the marker is to stand */
  mark(x) {
    this.#marker = x;
    this.#svg.querySelector(".marker")?.remove();
    if (x === undefined || !this.#scales) return;
    const scales = this.#scales;
    const left = scales.x(x);
    const dots = (this.#marks.lines ?? []).map(({ points }, at) => {
      const y = heightAt(points, x);
      return y === undefined ? "" : svg("circle", { cx: left, cy: scales.y(y), r: 3.5, class: `dot line-${at}` });
    });
    const line = svg("line", { x1: left, x2: left, y1: MARGIN.top, y2: this.#height - MARGIN.bottom });
    this.#svg.append(svg("g", { class: "marker" }, line, ...dots));
  }

  #draw() {
    const width = this.element.clientWidth;
    const { lines = [], bars = [], ticks = [], level } = this.#marks;
    if (width === 0 || lines.length + bars.length === 0) {
      this.#svg.replaceChildren();
      this.#scales = undefined;
      return;
    }
    const points = lines.flatMap(({ points }) => points);
    const half = bars.length > 0 ? Math.max(...bars.map(({ width = 1 }) => width)) / 2 : 0;
    const both = this.#from === undefined ? [] : [this.#from];
    const xs = [...both, ...points.map(([x]) => x), ...bars.flatMap(({ x }) => [x - half, x + half])];
    const ys = [
      ...both,
      ...points.flatMap(([, y, error = 0]) => [y - error, y + error]),
      ...bars.flatMap(({ y, error = 0 }) => [y + error, this.#y.log ? y : Math.min(0, y - error)]),
      ...(level ? [level.y - level.error, level.y + level.error] : []),
    ];
    const x = scale(this.#x, xs, MARGIN.left, width - MARGIN.right);
    const y = scale(this.#y, ys, this.#height - MARGIN.bottom, MARGIN.top);
    this.#scales = { x: x.at, y: y.at, back: x.back };
    const bottom = this.#height - MARGIN.bottom;
    const [left, right] = [MARGIN.left, width - MARGIN.right];

    const axes = svg("g", { class: "axes" });
    for (const value of ticksOf(y, 4)) {
      const at = y.at(value);
      axes.append(svg("line", { x1: left, x2: right, y1: at, y2: at }));
      axes.append(text(written(this.#y, value), { x: left - 6, y: at, "text-anchor": "end", dy: "0.32em" }));
    }
    for (const value of ticksOf(x, Math.max(2, Math.min(10, Math.round(width / 80))))) {
      axes.append(text(written(this.#x, value), { x: x.at(value), y: bottom + 15, "text-anchor": "middle" }));
    }
    if (this.#x.name) axes.append(text(this.#x.name, { x: right, y: bottom - 5, "text-anchor": "end", class: "name" }));
    const marks = svg("g", { class: "marks" });
    if (level) {
      const [low, high] = [level.y - level.error, level.y + level.error].map(y.at);
      marks.append(svg("rect", { x: left, width: right - left, y: high, height: low - high, class: "within" }));
      marks.append(svg("line", { x1: left, x2: right, y1: y.at(level.y), y2: y.at(level.y), class: "level" }));
      marks.append(text(level.name, { x: right, y: high - 4, "text-anchor": "end" }));
    }
    for (const tick of ticks) {
      marks.append(svg("line", { x1: x.at(tick), x2: x.at(tick), y1: bottom, y2: bottom - 5, class: "tick" }));
    }
    for (const { x: at, y: value, error = 0, width = 1, title = "" } of bars) {
      const [from, to] = [x.at(at - width / 2), x.at(at + width / 2)];
      const gap = Math.min(1, (to - from) / 6);
      const foot = this.#y.log ? bottom : y.at(0);
      const [upper, lower] = [Math.min(y.at(value), foot), Math.max(y.at(value), foot)];
      const bar = svg("rect", {
        x: from + gap,
        width: Math.max(to - from - 2 * gap, 1),
        y: upper,
        height: lower - upper,
      });
      bar.append(svg("title", {}, title));
      marks.append(bar);
      if (error > 0) {
        const [middle, low, high] = [(from + to) / 2, y.at(value - error), y.at(value + error)];
        marks.append(svg("line", { x1: middle, x2: middle, y1: low, y2: high, class: "error" }));
      }
    }
    lines.forEach(({ points, dots }, at) => {
      const places = points.map(([px, py]) => `${x.at(px).toFixed(1)},${y.at(py).toFixed(1)}`);
      marks.append(svg("polyline", { points: places.join(" "), class: `line line-${at}` }));
      for (const [px, py, error] of points.filter(([, , error]) => error !== undefined)) {
        marks.append(
          svg("line", {
            x1: x.at(px),
            x2: x.at(px),
            y1: y.at(py - (error ?? 0)),
            y2: y.at(py + (error ?? 0)),
            class: "error",
          }),
        );
      }
      if (!dots) return;
      for (const [px, py] of points)
        marks.append(svg("circle", { cx: x.at(px), cy: y.at(py), r: 2, class: `line-${at}` }));
    });
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${this.#height}`);
    this.#svg.setAttribute("height", String(this.#height));
    this.#svg.replaceChildren(axes, marks);
    this.mark(this.#marker);
  }
}

/**
 * @typedef {{ low: number, high: number, log: boolean, at: (value: number) => number, back: (pixel: number) => number }} Scale
 */

/**
 * From values to pixels, and back.
 * @param {Axis} axis
 * @param {number[]} values
 * @param {number} from
 * @param {number} to
 * @returns {Scale}
 */
function scale({ range, log = false }, values, from, to) {
  const fit = values.filter((value) => Number.isFinite(value) && (!log || value > 0));
  let [low, high] = range ?? [
    fit.reduce((a, b) => Math.min(a, b), Infinity),
    fit.reduce((a, b) => Math.max(a, b), -Infinity),
  ];
  // The lowest is to be seen too.
  if (!range && log && Number.isFinite(low)) low = 10 ** Math.floor(Math.log10(low));
  if (!(low < high)) [low, high] = log ? [low / 10 || 0.1, low * 10 || 1] : [low - 1 || -1, low + 1 || 1];
  const turned = (/** @type {number} */ value) => (log ? Math.log10(value) : value);
  const [first, last] = [turned(low), turned(high)];
  const share = (/** @type {number} */ value) => Math.min(Math.max((turned(value) - first) / (last - first), 0), 1);
  return {
    low,
    high,
    log,
    at: (value) => from + (Number.isFinite(share(value)) ? share(value) : 0) * (to - from),
    back(pixel) {
      const value = first + Math.min(Math.max((pixel - from) / (to - from), 0), 1) * (last - first);
      return log ? 10 ** value : value;
    },
  };
}

/**
 * About `count` round values along a scale.
 * @param {Scale} scale
 * @param {number} count
 */
function ticksOf({ low, high, log }, count) {
  if (log) {
    const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
    const step = Math.max(1, Math.ceil((last - first) / count));
    return Array.from(
      { length: Math.max(0, Math.floor((last - first) / step) + 1) },
      (_, at) => 10 ** (first + at * step),
    );
  }
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.99) ?? rough;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, at) => (first + at) * step);
}

/**
 * @param {Axis} axis
 * @param {number} value
 */
function written({ format, log }, value) {
  if (format) return format(value);
  if (log && (value >= 1e4 || value <= 1e-3)) return `10${superscript(Math.round(Math.log10(value)))}`;
  return String(Number(value.toPrecision(3)));
}

/** @param {number} exponent */
function superscript(exponent) {
  return [...String(exponent)].map((digit) => (digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)])).join("");
}

/**
 * The height of a line at x, between its points; undefined beside it.
 * @param {Point[]} points
 * @param {number} x
 */
function heightAt(points, x) {
  const after = points.findIndex(([px]) => px >= x);
  if (after < 0 || (after === 0 && points[0][0] !== x)) return undefined;
  const [x1, y1] = points[after];
  if (x1 === x) return y1;
  const [x0, y0] = points[after - 1];
  return y0 + ((x - x0) / (x1 - x0)) * (y1 - y0);
}

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 */
function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

/**
 * @param {string} words
 * @param {Record<string, string | number>} attributes
 */
function text(words, attributes) {
  return svg("text", attributes, words);
}

/**
 * A number with its standard error, in as many digits as that leaves.
 * @param {number} value
 * @param {number | null | undefined} error
 */
export function withError(value, error) {
  if (!error) return value.toPrecision(4).replace("-", "−");
  const digits = Math.min(Math.max(1 - Math.floor(Math.log10(error)), 0), 6);
  return `${value.toFixed(digits)} ± ${error.toFixed(digits)}`.replace("-", "−");
}
