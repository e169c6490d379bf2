//! Where a scheduler's config is found, and `--solver`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use serde_json::{Map, Value};
use undiffuse::diffusion::{self, SchedulerConfig, Solver, SolverKeys, SolverName};
use undiffuse::pipeline::{self, scheduler_of};

use super::{Error, input};

/// Takes the names of the solvers as people have them, and lists them in the help.
#[derive(Clone, Copy)]
pub struct SolverParser;

impl TypedValueParser for SolverParser {
    type Value = SolverName;

    fn parse_ref(
        &self,
        command: &clap::Command,
        option: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<SolverName, clap::Error> {
        let parse = |name: String| name.parse().map_err(expected);
        StringValueParser::new().try_map(parse).parse_ref(command, option, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Solver::ALL.into_iter().map(|solver| PossibleValue::new(solver.name()))))
    }
}

/// What would do in an option's place; its name and its value clap has said already.
fn expected(error: diffusion::Error) -> String {
    match error {
        diffusion::Error::Option { expected, .. } => expected,
        error => error.to_string(),
    }
}

/// Settings of the solver, in place of those of the checkpoint's scheduler.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Settings {
    /// Space σ evenly in σ^(1/7), as Karras et al. do; with `=false`, do not where the checkpoint does
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    use_karras_sigmas: Option<bool>,

    /// Space σ evenly in log σ; with `=false`, do not where the checkpoint does
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    use_exponential_sigmas: Option<bool>,

    /// Space σ by quantiles of a Beta distribution; with `=false`, do not where the checkpoint does
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    use_beta_sigmas: Option<bool>,

    /// The equation that dpmpp_2m and dpmpp_2s solve: dpmsolver++, sde-dpmsolver++, dpmsolver or sde-dpmsolver
    #[arg(long, value_name = "NAME")]
    algorithm_type: Option<String>,

    /// How many predictions a step of dpmpp_2m, dpmpp_2s, unipc or deis takes into account
    #[arg(long, value_name = "NUMBER")]
    solver_order: Option<usize>,
}

impl Settings {
    /// These, and what the name of the `solver` says besides.
    pub fn keys(&self, solver: Option<&SolverName>) -> SolverKeys {
        let given = SolverKeys {
            use_karras_sigmas: self.use_karras_sigmas,
            use_exponential_sigmas: self.use_exponential_sigmas,
            use_beta_sigmas: self.use_beta_sigmas,
            algorithm_type: self.algorithm_type.clone(),
            solver_order: self.solver_order,
        };
        given.or(solver.map(|name| name.keys.clone()).unwrap_or_default())
    }
}

/// A number of steps: at least one. How many at most is for the scheduler to say.
pub fn steps(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("a run takes at least one step".into()),
        Ok(steps) => Ok(steps),
        Err(_) => Err("expected a whole number of steps, such as 25".into()),
    }
}

/// A scheduler's config with the file that it came from.
pub struct Scheduler {
    file: PathBuf,
    /// What the file says, read as its class.
    pub config: SchedulerConfig,
    keys: Map<String, Value>,
}

impl Scheduler {
    /// Reads `path`: a `scheduler_config.json`, a folder with one, or a checkpoint's folder, whose scheduler is then
    /// the one that its pipeline makes of it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let name = "scheduler_config.json";
        let candidates = [path.join("scheduler").join(name), path.join(name)];
        let file = match path.is_dir() {
            true => candidates
                .into_iter()
                .find(|file| file.exists())
                .ok_or_else(|| Error::path(path, format!("this folder has neither a {name} nor a scheduler/{name}")))?,
            false => path.to_owned(),
        };
        let text = input::text(&file)?;
        let index = json(&path.join("model_index.json")).unwrap_or_default();
        let mut config = SchedulerConfig::of_class(&text, index["scheduler"][1].as_str());
        if let (Ok(of_class), Some(class)) = (&config, index["_class_name"].as_str()) {
            // A pipeline that cannot be run has a scheduler all the same.
            match scheduler_of(class, fills(path), of_class.clone()) {
                Ok(changed) => config = Ok(changed),
                Err(pipeline::Error::Diffusion(error)) => config = Err(error),
                Err(_) => {}
            }
        }
        // Python writes infinities bare, which is not JSON; no key that is shown has one.
        let keys = serde_json::from_str(&text.replace("-Infinity", "null")).unwrap_or_default();
        match config {
            Ok(config) => Ok(Self { file, config, keys }),
            Err(source) => Err(Error::Scheduler { path: file.display().to_string(), source }),
        }
    }

    /// With another solver, if one is asked for, and other settings.
    pub fn with_solver(mut self, solver: Option<&SolverName>, settings: &Settings) -> Result<Self, Error> {
        if let Some(name) = solver {
            self.config = self.config.swap_to(name.solver).map_err(|e| self.error(e))?;
        }
        self.config = self.config.with_keys(&settings.keys(solver)).map_err(|e| self.error(e))?;
        Ok(self)
    }

    /// What the file itself sets `key` to.
    pub fn stored(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    /// An error about this config.
    pub fn error(&self, source: diffusion::Error) -> Error {
        Error::Scheduler { path: self.file.display().to_string(), source }
    }
}

/// Whether the checkpoint in `folder` does nothing but fill a part of a picture: its network sees more than x_t.
fn fills(folder: &Path) -> bool {
    let unet = json(&folder.join("unet/config.json")).unwrap_or_default();
    unet["in_channels"].as_u64() > unet["out_channels"].as_u64()
}

fn json(file: &Path) -> Option<Value> {
    serde_json::from_str(&input::text(file).ok()?).ok()
}
