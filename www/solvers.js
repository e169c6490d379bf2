// @ts-check
// The solvers that the open model can be run with, what each is for, and the steps that it takes.

import { StateError } from "./package.js";
import { hasAlgorithm, hasSpacing, highestOrder } from "./solver_keys.js";

/** @import { ModelInfo, Pipeline, Solver } from "./pkg/index.js" */

/** The class that each solver is in a checkpoint, and a sentence on what it is for. @type {Record<Solver, [string, string]>} */
const SOLVERS = {
  ddim: ["DDIMScheduler", "DDIM goes straight to where the guess points. It needs more steps than the fast ones."],
  ddpm: ["DDPMScheduler", "DDPM is the process as it was trained: it adds fresh noise in every step, and wants many."],
  pndm: ["PNDMScheduler", "PNDM looks at the last guesses, too. It was the first solver of Stable Diffusion."],
  lms: ["LMSDiscreteScheduler", "LMS sums up the last guesses with weights."],
  euler: ["EulerDiscreteScheduler", "Euler follows the slope at each noise level. It is the simplest there is."],
  euler_ancestral: [
    "EulerAncestralDiscreteScheduler",
    "Euler with fresh noise in every step: more steps give another picture, not only a finer one.",
  ],
  heun: [
    "HeunDiscreteScheduler",
    "Heun asks the network twice in a step, and takes the slope between the two answers.",
  ],
  dpm2: ["KDPM2DiscreteScheduler", "DPM2 asks the network twice in a step, the second time in its middle."],
  dpm2_ancestral: [
    "KDPM2AncestralDiscreteScheduler",
    "DPM2 with fresh noise in every step. It asks the network twice in a step.",
  ],
  dpmpp_2m: ["DPMSolverMultistepScheduler", "DPM++ 2M uses the guess before as well. Good pictures in some 15 steps."],
  dpmpp_2s: ["DPMSolverSinglestepScheduler", "DPM++ 2S makes steps in pairs, the second from the middle of the first."],
  unipc: ["UniPCMultistepScheduler", "UniPC corrects each step by the next guess. Good in few steps."],
  deis: ["DEISMultistepScheduler", "DEIS extends the last guesses as a polynomial. Good in few steps."],
  lcm: ["LCMScheduler", "LCM is for models that were distilled to need one to eight steps."],
  tcd: ["TCDScheduler", "TCD is for models that were distilled to need one to eight steps."],
  flow_euler: ["FlowMatchEulerDiscreteScheduler", "For models that were trained with rectified flow."],
};

const choice = /** @type {HTMLSelectElement} */ (document.getElementById("solver"));
const steps = /** @type {HTMLInputElement} */ (document.getElementById("steps"));
const hint = /** @type {HTMLElement} */ (document.getElementById("solver-hint"));
/** The fields of what not every solver lets be chosen. */
const [spacing, algorithm, order] = ["spacing", "algorithm", "order"].map(
  (id) => /** @type {HTMLInputElement | HTMLSelectElement} */ (document.getElementById(id)),
);
/** All of them, in their groups. */
const groups = [...choice.querySelectorAll("optgroup")].map((group) => ({ group, options: [...group.children] }));

/** @type {Pipeline | undefined} */
let pipeline;
/** The number of the newest question. */
let newest = 0;

choice.addEventListener("change", refresh);
steps.addEventListener("input", refresh);

/**
 * Leaves those to choose from that the model can be run with.
 * @param {Pipeline} opened
 * @returns {boolean} whether the one that was chosen is among them; if not, it is the model's own from now on
 */
export function show(opened) {
  pipeline = opened;
  const { solvers } = opened.info;
  const chosen = choice.value;
  for (const { group, options } of groups) {
    const left = options.filter((option) => solvers.includes(/** @type {any} */ (option).value));
    group.replaceChildren(...left);
    group.hidden = left.length === 0;
  }
  refresh();
  return choice.value === chosen;
}

/** Says what the solver is for, which steps it takes, and how often the network is asked in them. */
export async function refresh() {
  if (!pipeline) return;
  const { info } = pipeline;
  const asked = ++newest;
  const solver = choice.value || Object.entries(SOLVERS).find(([, [name]]) => name === info.scheduler)?.[0] || "";
  order.setAttribute("max", String(highestOrder(solver)));
  for (const [field, isChosen] of /** @type {const} */ ([
    [spacing, hasSpacing(solver)],
    [algorithm, hasAlgorithm(solver)],
    [order, highestOrder(solver) > 0],
  ])) {
    /** @type {HTMLElement} */ (field.closest(".field")).hidden = !isChosen;
  }
  const { min, max } = info.solverSteps[solver] ?? { min: 1, max: 1000 };
  steps.min = String(min);
  steps.max = String(max);
  const count = steps.valueAsNumber;
  const isPossible = count >= min && count <= max;
  const name = choice.value ? choice.selectedOptions[0].text : "This solver";
  const range = min > 1 ? `${min} to ${max}` : `at most ${max}`;
  steps.setCustomValidity(isPossible || steps.value === "" ? "" : `${name} takes ${range} steps here.`);
  const words = [SOLVERS[/** @type {Solver} */ (solver)]?.[1] ?? "", steps.validationMessage];
  hint.textContent = words.join(" ").trim();
  if (!isPossible || steps.validationMessage) return;
  try {
    const schedule = await pipeline.schedule({ solver: choice.value || undefined, steps: count });
    if (asked !== newest || schedule.steps.length === count) return;
    words.push(`${count} steps ask the network ${schedule.steps.length} times.`);
    hint.textContent = words.join(" ").trim();
  } catch (error) {
    // The run says what is wrong with it; a model that has gone has nothing to say.
    if (!(error instanceof StateError)) hint.textContent = words.join(" ").trim();
  }
}
