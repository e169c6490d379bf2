// @ts-check
// Which keys of its config each solver has, and what else a person's name for a solver says of them.

/** The keys by which σ are spaced otherwise than the timesteps; at most one of them is true. */
export const SPACINGS = /** @type {const} */ (["useKarrasSigmas", "useExponentialSigmas", "useBetaSigmas"]);

/** Solvers that go from timestep to timestep, whatever their σ. */
const OF_TIMESTEPS = ["ddpm", "ddim", "pndm", "euler_ancestral", "lcm", "tcd"];

/** Whether a solver lets σ be spaced. @param {string} solver */
export function hasSpacing(solver) {
  return solver !== "" && !OF_TIMESTEPS.includes(solver);
}

/** Whether it lets the equation be chosen. @param {string} solver */
export function hasAlgorithm(solver) {
  return solver === "dpmpp_2m" || solver === "dpmpp_2s";
}

/** How many predictions a step of it takes into account at most; 0 where that is not to be chosen. @param {string} solver */
export function highestOrder(solver) {
  if (solver === "unipc") return 4;
  return solver === "deis" || hasAlgorithm(solver) ? 3 : 0;
}
