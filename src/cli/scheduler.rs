//! Where a scheduler's config is found, and `--solver`.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Map, Value};
use undiffuse::diffusion::{self, SchedulerConfig, Solver};
use undiffuse::pipeline::{self, scheduler_of};

use super::{Error, input};

/// Takes the names of the solvers, and lists them in the help.
pub fn solver_parser() -> impl TypedValueParser<Value = Solver> {
    PossibleValuesParser::new(Solver::ALL.map(Solver::name)).try_map(|name| name.parse())
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
        let mut config = SchedulerConfig::from_json(&text);
        if let (Ok(of_class), Some(class)) = (&config, pipeline_class(path)) {
            // A pipeline that cannot be run has a scheduler all the same.
            match scheduler_of(&class, of_class.clone()) {
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

    /// With another solver, if one is asked for.
    pub fn with_solver(mut self, solver: Option<Solver>) -> Result<Self, Error> {
        if let Some(solver) = solver {
            self.config = self.config.swap_to(solver).map_err(|e| self.error(e))?;
        }
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

/// The class of the pipeline in `folder`, if one is there.
fn pipeline_class(folder: &Path) -> Option<String> {
    let index: Value = serde_json::from_str(&input::text(&folder.join("model_index.json")).ok()?).ok()?;
    index["_class_name"].as_str().map(str::to_owned)
}
