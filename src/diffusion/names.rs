//! Solvers by the names that people give them, and the keys of a config that such names set.

use std::str::FromStr;

use super::{
    error::Error,
    solvers::{self, Solver},
};

/// Keys of a scheduler's config that are set in place of its own, under diffusers' names. Absent ones stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SolverKeys {
    /// True if σ is spaced evenly in σ^(1/7). Karras et al. 2022, arXiv 2206.00364, equation 5. No other spacing of σ then applies.
    pub use_karras_sigmas: Option<bool>,
    /// True if σ is spaced evenly in log σ. No other spacing of σ then applies.
    pub use_exponential_sigmas: Option<bool>,
    /// True if σ are quantiles of the Beta(0.6, 0.6) distribution. Lee et al. 2024, arXiv 2407.12173. No other spacing
    /// of σ then applies.
    pub use_beta_sigmas: Option<bool>,
    /// The equation that a DPM-Solver++ solves: `dpmsolver++`, `sde-dpmsolver++`, `dpmsolver` or `sde-dpmsolver`.
    pub algorithm_type: Option<String>,
    /// The number of predictions that a step takes into account, in solvers that choose.
    pub solver_order: Option<usize>,
}

impl SolverKeys {
    /// The keys of `self`, and for those that are absent the ones of `other`. A spacing that `self` asks for takes the place of
    /// any other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let spaced = [self.use_karras_sigmas, self.use_exponential_sigmas, self.use_beta_sigmas].contains(&Some(true));
        let or = |own: Option<bool>, other: Option<bool>| own.or(other.filter(|_| !spaced));
        Self {
            use_karras_sigmas: or(self.use_karras_sigmas, other.use_karras_sigmas),
            use_exponential_sigmas: or(self.use_exponential_sigmas, other.use_exponential_sigmas),
            use_beta_sigmas: or(self.use_beta_sigmas, other.use_beta_sigmas),
            algorithm_type: self.algorithm_type.or(other.algorithm_type),
            solver_order: self.solver_order.or(other.solver_order),
        }
    }
}

/// A solver as a person names it: "Euler a", "dpmpp_2m", "DPM++ 2M SDE Karras", "DPMSolverMultistepScheduler".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolverName {
    /// The solver.
    pub solver: Solver,
    /// The settings that the name means.
    pub keys: SolverKeys,
}

/// Names of samplers that are none of the solvers, and what comes closest.
const UNSUPPORTED: [(&str, &str); 7] = [
    (
        "dpmppsde",
        "it draws noise from a Brownian tree, which no seed of torch's reproduces; choose DPM++ 2M SDE, with Karras or without",
    ),
    (
        "dpmsolversdescheduler",
        "it draws noise from a Brownian tree, which no seed of torch's reproduces; choose DPM++ 2M SDE, with Karras or without",
    ),
    (
        "dpmpp2sa",
        "there is none with fresh noise in each step; choose dpmpp_2s, or DPM++ 2M SDE, with Karras or without",
    ),
    (
        "dpmpp2sancestral",
        "there is none with fresh noise in each step; choose dpmpp_2s, or DPM++ 2M SDE, with Karras or without",
    ),
    ("dpmfast", "it is not supported; choose dpmpp_2s"),
    ("dpmadaptive", "its number of steps is not known before; choose dpmpp_2m"),
    ("restart", "it goes back to noise between its steps; choose heun"),
];

impl FromStr for SolverName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let asked = letters(name);
        let mut keys = SolverKeys::default();
        let suffixes = ["karras", "k", "exponential", "beta"];
        let spaced = suffixes.into_iter().find_map(|suffix| Some((suffix, asked.strip_suffix(suffix)?)));
        let base = match spaced {
            Some((suffix, base)) => {
                let key = match suffix {
                    "exponential" => &mut keys.use_exponential_sigmas,
                    "beta" => &mut keys.use_beta_sigmas,
                    _ => &mut keys.use_karras_sigmas,
                };
                *key = Some(true);
                base
            }
            None => &asked,
        };
        let own = |solver: &Solver| letters(solver.name()) == base || solver.class_name().eq_ignore_ascii_case(base);
        if let Some(solver) = Solver::ALL.into_iter().find(own) {
            return Ok(Self { solver, keys });
        }
        for solver in Solver::ALL {
            if let Some(other) = solver.spec().other_names.iter().find(|other| other.name == base) {
                (keys.algorithm_type, keys.solver_order) =
                    (other.algorithm_type.map(str::to_owned), other.solver_order);
                return Ok(Self { solver, keys });
            }
        }
        let expected = match UNSUPPORTED.iter().find(|(other, _)| *other == base) {
            Some((_, expected)) => (*expected).to_owned(),
            None => format!("choose one of {}, or a name such as \"DPM++ 2M SDE Karras\"", solvers::names()),
        };
        Err(Error::Option { option: "solver", value: format!("{name:?}"), expected })
    }
}

/// The letters of a name, small, and its digits, with "pp" for "++": what people's spellings agree in.
fn letters(name: &str) -> String {
    let letters = name.chars().map(|c| if c == '+' { 'p' } else { c.to_ascii_lowercase() });
    letters.filter(char::is_ascii_alphanumeric).collect()
}
