// @ts-check
// The schedule and the solver's way through it: ᾱ_t and the ratio of signal to noise over t, the coefficients of each step, and all of
// it as a table.

import { Chart } from "./plot.js";

/** @import { Schedule, SolverStep, Terms } from "./pkg/index.js" */

/** What the charts and the table stand in. */
export const SCHEDULE = `
  <div class="charts"></div>
  <details id="coefficients">
    <summary></summary>
    <div class="scrolls" tabindex="0" role="region" aria-label="The solver’s coefficients, step by step">
      <table><thead></thead><tbody></tbody></table>
    </div>
  </details>`;

/** What a table says of a step; `plot` is what the chart calls a coefficient of x_{t-1}. */
const COLUMNS = [
  { name: "signal", plot: "", of: (/** @type {SolverStep} */ step) => step.forward[0] },
  { name: "noise", plot: "", of: (/** @type {SolverStep} */ step) => step.forward[1] },
  { name: "x̂<sub>0</sub> from x<sub>t</sub>", plot: "", of: (/** @type {SolverStep} */ step) => step.x0[0] },
  { name: "x̂<sub>0</sub> from the output", plot: "", of: (/** @type {SolverStep} */ step) => step.x0[1] },
  ...[
    term("x<sub>t</sub>", "xₜ", ({ sample }) => sample),
    term("output", "the network’s output", ({ modelOutput }) => modelOutput),
    term("x̂<sub>0</sub>", "x̂₀", ({ x0 }) => x0),
    term("z", "fresh noise z", ({ noise }) => noise),
    ...[0, 1, 2, 3, 4].map((slot) =>
      term(
        `h<sub>${slot}</sub>`,
        slot === 0 ? "what it kept last" : `what it kept, ${slot} earlier`,
        ({ history }) => history[slot],
      ),
    ),
  ],
];

/**
 * @param {string} name
 * @param {string} plot
 * @param {(terms: Terms) => number} of
 */
function term(name, plot, of) {
  return { name, plot, of: (/** @type {SolverStep} */ step) => of(step.prevSample) };
}

/** @param {number} value */
function written(value) {
  return value === 0 ? "" : value.toFixed(4).replace("-", "−");
}

/** The charts and the table of a schedule. */
export class ScheduleChart {
  #remaining;
  #ratio;
  #coefficients;
  #summary;
  #head;
  #body;
  /** @type {readonly SolverStep[]} */
  #steps = [];

  /**
   * @param {HTMLElement} place  what holds {@link SCHEDULE}
   * @param {(t: number) => void} onPick  a t was pointed at
   */
  constructor(place, onPick) {
    const x = { name: "t" };
    this.#remaining = new Chart("ᾱₜ, what is left of the picture", { x, y: { range: [0, 1] }, onPick });
    this.#ratio = new Chart("signal to noise, ᾱₜ / (1 − ᾱₜ)", { x, y: { log: true }, onPick });
    this.#coefficients = new Chart("the solver’s xₜ₋₁, a sum of", { x, onPick });
    place.querySelector(".charts")?.append(...this.#all.map(({ element }) => element));
    const part = (/** @type {string} */ name) =>
      /** @type {HTMLElement} */ (place.querySelector(`#coefficients ${name}`));
    this.#summary = part("summary");
    this.#head = part("thead");
    this.#body = part("tbody");
  }

  get #all() {
    return [this.#remaining, this.#ratio, this.#coefficients];
  }

  /** @param {Schedule} schedule */
  show({ alphasCumprod: alphaBars, steps, class: name }) {
    this.#steps = steps;
    const points = [...alphaBars].map((alphaBar, t) => /** @type {[number, number]} */ ([t, alphaBar]));
    const ticks = steps.map(({ timestep }) => timestep);
    const fall = `falls from ${alphaBars[0]} to ${alphaBars.at(-1)}`;
    this.#remaining.show({ lines: [{ name: "ᾱ", points }], ticks }, fall);
    const ratios = points.map(([t, alphaBar]) => /** @type {[number, number]} */ ([t, alphaBar / (1 - alphaBar)]));
    const finite = ratios.filter(([, ratio]) => ratio > 0);
    const lines = [{ name: "SNR", points: finite }];
    this.#ratio.show({ lines, ticks }, `falls from ${finite[0]?.[1]} to ${finite.at(-1)?.[1]}`);
    const calls = `${steps.length} ${steps.length === 1 ? "call" : "calls"} of the network`;
    this.#summary.textContent = `The solver’s table: ${name}, ${calls}`;
    this.#showTable();
  }

  /** Forgets the steps: they are of a model that has gone. */
  clear() {
    this.#steps = [];
    this.mark(null);
  }

  #showTable() {
    const columns = COLUMNS.filter(({ of }) => this.#steps.some((step) => of(step) !== 0));
    this.#head.innerHTML = `<tr><th scope="col">t</th>${columns.map(({ name }) => `<th scope="col">${name}</th>`).join("")}</tr>`;
    const rows = this.#steps.map((step) => {
      const cells = columns.map(({ of }) => `<td>${written(of(step))}</td>`);
      return `<tr><th scope="row">${Number(step.timestep.toFixed(1))}</th>${cells.join("")}</tr>`;
    });
    this.#body.innerHTML = rows.join("");
    const sums = columns.filter(({ plot }) => plot);
    const ascending = [...this.#steps].sort((a, b) => a.timestep - b.timestep);
    this.#coefficients.show({
      lines: sums.map(({ plot, of }) => ({
        name: plot,
        points: ascending.map((step) => [step.timestep, of(step)]),
        dots: true,
      })),
    });
  }

  /** Says where t stands. @param {number | null} t  null for the picture itself */
  mark(t) {
    for (const chart of this.#all) chart.mark(t ?? undefined);
    const current = t === null ? -1 : this.#steps.findIndex(({ timestep }) => timestep <= t);
    for (const row of this.#body.children) row.removeAttribute("aria-current");
    const row = /** @type {HTMLElement | undefined} */ (this.#body.children[current]);
    const box = /** @type {HTMLElement} */ (this.#body.closest(".scrolls"));
    row?.setAttribute("aria-current", "step");
    if (row) box.scrollTop = row.offsetTop - box.clientHeight / 2;
  }
}
