// @ts-check
// The variational bound of a picture: its terms by t, as they come.

import { affords } from "./consent.js";
import * as film from "./film.js";
import * as pad from "./pad.js";
import { optionsOf, readParameters } from "./parameters.js";
import { Chart, withError } from "./plot.js";
import { scaffold } from "./scaffold.js";
import { about } from "./vocabulary.js";

/** @import { Page, View } from "./views.js" */
/** @import { BoundOptions, BoundSummary, BoundTerm, Pipeline } from "./pkg/index.js" */

const INNER = `
  <div class="beside">
    <div>
      <p class="figure"><output id="bits">–</output> <span>bits per dimension</span></p>
      <p id="bound-of" class="hint"></p>
      <dl class="parts">
        <div><dt><i>L<sub>T</sub></i></dt><dd id="prior">–</dd></div>
        <div><dt>Σ <i>L<sub>t</sub></i></dt><dd id="transitions">–</dd></div>
        <div><dt><i>L</i><sub>0</sub></dt><dd id="decoder">–</dd></div>
      </dl>
      <div class="fields">
        <div class="field">
          <label for="terms">Terms</label>
          <select id="terms"></select>
        </div>
        <div class="field">
          <label for="variance">Variance of a step</label>
          <select id="variance">
            <option value="">the model’s own</option>
            <option value="fixed_small">small, β̃</option>
            <option value="fixed_large">large, β</option>
            <option value="learned_range">learned, a range</option>
            <option value="learned">learned</option>
          </select>
        </div>
      </div>
    </div>
  </div>`;

const BELOW = `
  <div class="actions"><label class="check"><input id="logarithmic" type="checkbox" checked />Logarithmic axis</label></div>
  <details>
    <summary>All terms as a table</summary>
    <div class="scrolls" tabindex="0" role="region" aria-label="The terms">
      <table>
        <thead>
          <tr><th scope="col">t</th><th scope="col">term</th><th scope="col">bits per dimension</th><th scope="col">stands for</th></tr>
        </thead>
        <tbody></tbody>
      </table>
    </div>
  </details>
  <section class="words" aria-label="What the terms are">
    <div class="whole">
      <h3>The bound, <i>L</i></h3>
      <math display="block"
        ><mi>L</mi><mo>=</mo><msub><mi>L</mi><mi>T</mi></msub><mo>+</mo
        ><munderover><mo>∑</mo><mrow><mi>t</mi><mo>=</mo><mn>1</mn></mrow><mrow><mi>T</mi><mo>−</mo><mn>1</mn></mrow></munderover
        ><msub><mi>L</mi><mi>t</mi></msub><mo>+</mo><msub><mi>L</mi><mn>0</mn></msub></math
      >
      <p>
        Training makes this sum small. It is never less than −log <i>p</i>, the bits that the picture would cost if the
        model’s probability of it were known. All terms are in bits for each dimension, that is, for each number of the data.
      </p>
      <p id="baselines"></p>
    </div>
    <div>
      <h3>The end of the chain, <i>L<sub>T</sub></i></h3>
      <p>
        How far <i>x<sub>T</sub></i> still is from pure noise. Nothing in it is learned. It is almost zero if the schedule
        leaves almost nothing of the picture.
      </p>
    </div>
    <div>
      <h3>A step, <i>L<sub>t</sub></i></h3>
      <p>
        The model makes a step from <i>x<sub>t</sub></i> to <i>x</i><sub><i>t</i>−1</sub>. Somebody who knew
        <i>x</i><sub>0</sub> would make a better one. The term is the divergence between the two. Both are Gaussians, so it
        has a formula; only the noise in <i>x<sub>t</sub></i> is drawn. Steps at small <i>t</i> cost most: there the details
        are decided.
      </p>
    </div>
    <div>
      <h3>The data, <i>L</i><sub>0</sub></h3>
      <p>
        In the end the data themselves have to be written down. For pixels that is which of 256 levels each one has. Latents
        are not whole numbers: for them a probability density is taken. A density can be above 1, and its bits below 0.
      </p>
    </div>
  </section>`;

/**
 * @param {Page} page
 * @returns {View}
 */
export function open(page) {
  const view = scaffold(page, "bound", {
    stage: { id: "bound", label: "The bound", html: INNER },
    below: { label: "Its terms", html: BELOW },
  });
  const { stage, below, element } = view;
  const choice = (/** @type {string} */ id) => /** @type {HTMLSelectElement} */ (element(id));
  const logarithmic = /** @type {HTMLInputElement} */ (element("logarithmic"));
  const beside = /** @type {HTMLElement} */ (stage.querySelector(".beside"));
  const body = /** @type {HTMLElement} */ (below.querySelector("tbody"));

  /** @type {BoundTerm[]} */
  let terms = [];
  /** @type {BoundSummary | undefined} */
  let summary;
  /** Which model the view is set up for. @type {Pipeline | undefined} */
  let begunFor;
  let timesteps = 1000;
  let chart = makeChart();

  function makeChart() {
    const made = new Chart("bits per dimension that each step costs, by t", {
      x: { range: [0, timesteps], name: "t" },
      y: { log: logarithmic.checked },
      height: 260,
    });
    below.querySelector(".chart")?.remove();
    below.prepend(made.element);
    return made;
  }

  function showTerms() {
    const bars = terms
      .filter(({ timestep, mean }) => timestep !== null && (!logarithmic.checked || mean > 0))
      .map(({ timestep, mean, standsFor, errorOfPictures }) => ({
        x: (timestep ?? 0) + 0.5,
        y: mean,
        width: Math.max(1, Math.min(standsFor, timesteps)),
        error: errorOfPictures ?? 0,
        title: `t = ${timestep}: ${number(mean)} bits per dimension`,
      }));
    chart.show({ bars }, `${bars.length} of ${terms[0]?.total ?? 0} terms`);
    const sum = (/** @type {BoundTerm["term"]} */ kind) =>
      terms.filter(({ term }) => term === kind).reduce((sum, { mean, standsFor }) => sum + mean * standsFor, 0);
    const has = (/** @type {BoundTerm["term"]} */ kind) => terms.some(({ term }) => term === kind);
    element("prior").textContent = has("L_T") ? number(sum("L_T")) : "–";
    element("transitions").textContent = has("L_t") ? number(sum("L_t")) : "–";
    element("decoder").textContent = has("L_0") ? number(sum("L_0")) : "–";
    if (summary?.total) {
      const { mean, errorOfTimesteps } = summary.total;
      element("bits").textContent = withError(mean, errorOfTimesteps);
    } else {
      const total = sum("L_T") + sum("L_t") + sum("L_0");
      element("bits").textContent = terms.length > 0 ? `${number(total)} so far` : "–";
    }
  }

  function clear() {
    terms = [];
    summary = undefined;
    body.replaceChildren();
    showTerms();
  }

  /** Forgets what was measured, and what was said of it: the picture or the model is another one. */
  function forget() {
    if (terms.length === 0) return;
    clear();
    page.unsay();
  }

  /** @param {BoundTerm} term */
  function add(term) {
    terms.push(term);
    const row = document.createElement("tr");
    const cells = [term.term.replace("_", " "), number(term.mean), String(Number(term.standsFor.toFixed(1)))];
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = term.timestep === null ? "–" : String(term.timestep);
    row.append(head, ...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    body.append(row);
  }

  logarithmic.addEventListener("change", () => {
    chart = makeChart();
    showTerms();
  });
  pad.onChange(() => {
    // What is being measured is of the picture before.
    if (view.isShown) page.idle();
    forget();
  });

  /** Settles when what can be asked of the model is on the page. */
  let beginning = Promise.resolve();

  const show = () => {
    beginning = begin();
    beginning.catch(page.showError);
  };

  async function begin() {
    const pipeline = page.pipeline();
    if (!pipeline) return;
    const { info } = pipeline;
    pad.resize(info.width, info.height);
    await pad.showExample();
    if (pipeline === begunFor) return;
    forget();
    const bounds = (about()?.bounds ?? []).map(({ of, bits }) => `${of}: ${bits.toFixed(2).replace("-", "−")}`);
    element("baselines").textContent =
      bounds.length > 0 ? `For comparison, with this model: ${bounds.join("; ")}.` : "";
    timesteps = (await pipeline.schedule()).numTrainTimesteps || 1000;
    chart = makeChart();
    const counts = [25, 100, 250].filter((count) => count < timesteps);
    const options = [
      ...counts.map((count) => new Option(`${count} of ${timesteps}`, String(count))),
      new Option(`all ${timesteps}`, ""),
    ];
    choice("terms").replaceChildren(...options);
    choice("terms").value = String(counts[1] ?? "");
    // An autoencoder makes sides smaller; a model without one takes any.
    element("bound-of").textContent =
      info.sizeMultiple > 1
        ? "of the latents, in which this model’s chain runs: not of the pixels, and not to be compared with figures of pixels"
        : "of the pixels";
    begunFor = pipeline;
  }

  return {
    start: "Measure the bound",
    enter() {
      view.isShown = true;
      pad.show(beside, { film: film.lastPicture, refuse: page.refuse });
      show();
    },
    leave() {
      view.isShown = false;
      pad.hide();
    },
    async release() {},
    modelChanged() {
      if (view.isShown) show();
    },
    async submit() {
      await beginning;
      const pipeline = page.pipeline();
      if (!pipeline) return;
      const { prompt, seed } = optionsOf(readParameters());
      const count = Number(choice("terms").value);
      /** @type {BoundOptions} */
      const options = {
        image: pad.picture(),
        prompt: pipeline.info.takesPrompt ? prompt : "",
        seed,
        terms: count || undefined,
        variance: /** @type {BoundOptions["variance"]} */ (choice("variance").value || undefined),
      };
      const task = async (/** @type {AbortSignal} */ signal) => {
        await pipeline.setLoras(page.loras(), { signal });
        // A term is one call of the network, without guidance.
        const { seconds, calls } = await pipeline.estimate({ prompt: options.prompt, guidanceScale: 1, signal });
        if (!(await affords(seconds && ((count || timesteps) * seconds) / calls, signal))) return undefined;
        clear();
        const bound = pipeline.bound({ ...options, signal });
        let drawn = 0;
        let spent = 0;
        for await (const term of bound) {
          signal.throwIfAborted();
          if (term.index === 0) page.showNotice(bound.warning);
          add(term);
          spent += term.milliseconds;
          page.setProgress((term.index + 1) / term.total);
          page.say(`Term ${term.index + 1} of ${term.total}, ${Math.round(spent / (term.index + 1))} ms a term`);
          // A chart of a thousand bars takes longer than a term.
          if (performance.now() - drawn < 100) continue;
          showTerms();
          drawn = performance.now();
        }
        summary = await bound;
        showTerms();
        return `${terms.length} terms in ${(spent / 1000).toFixed(1)} s`;
      };
      await page.work("Preparing", task, {
        then: "done",
        cancelled() {
          showTerms();
          return `Cancelled after ${terms.length} ${terms.length === 1 ? "term" : "terms"}`;
        },
      });
    },
    async takePictures([file]) {
      await pad.put(file, file.name);
      return `${file.name} is on the pad`;
    },
  };
}

/** @param {number} value */
function number(value) {
  const size = Math.abs(value);
  const text = size === 0 || size >= 0.001 ? value.toPrecision(size >= 1 ? 4 : 3) : value.toExponential(1);
  return text.replace("e-", "·10⁻").replace("-", "−");
}
