//! What a picture was made with, as texts for its PNG: once as the tools for such pictures read it, once for the page.

use serde_json::{Map, Value};
use undiffuse::diffusion::SolverKeys;
use undiffuse::pipeline::Scheduler;

use super::model::Files;

/// The options that were given and the seed, under the names that the npm package has for them.
pub struct Provenance {
    options: Map<String, Value>,
}

impl Provenance {
    /// Nothing but the model's name.
    pub fn new(model: String) -> Self {
        Self { options: Map::from_iter([("model".to_owned(), model.into())]) }
    }

    /// With an option, unless it is left to the model.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        match value.into() {
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            Value::Array(values) if values.is_empty() => {}
            value => {
                self.options.insert(name.to_owned(), value);
            }
        }
        self
    }

    /// With the solver that is asked for and its settings, whatever name says them.
    pub fn with_solver(self, scheduler: &Scheduler, keys: &SolverKeys) -> Self {
        let solver = match scheduler {
            Scheduler::Solver(solver) => Some(solver.name()),
            Scheduler::Checkpoint | Scheduler::Config(_) => None,
        };
        self.with("solver", solver)
            .with("useKarrasSigmas", keys.use_karras_sigmas)
            .with("useExponentialSigmas", keys.use_exponential_sigmas)
            .with("useBetaSigmas", keys.use_beta_sigmas)
            .with("algorithmType", keys.algorithm_type.as_deref())
            .with("solverOrder", keys.solver_order)
    }

    /// With the files that were chosen of those of the model.
    pub fn with_files(self, files: &Files) -> Self {
        files.options().into_iter().fold(self, |made, (name, value)| made.with(name, value))
    }

    /// The texts by their keywords, for a picture of this size.
    pub fn texts(&self, width: usize, height: usize, scheduler: &str) -> Vec<(&'static str, String)> {
        let json = Value::Object(self.options.clone()).to_string();
        vec![("parameters", self.parameters(width, height, scheduler)), ("undiffuse", json)]
    }

    /// The convention of the web UIs: the prompt, the negative one after its name, and a line of `Name: value`.
    fn parameters(&self, width: usize, height: usize, scheduler: &str) -> String {
        let value = |name: &str| self.options.get(name).map(plain);
        let clip_skip = self.options.get("clipSkip").and_then(Value::as_u64);
        let line: Vec<String> = [
            ("Steps", value("steps")),
            ("Sampler", value("solver").or(Some(scheduler.to_owned()))),
            ("CFG scale", value("guidanceScale")),
            ("Seed", value("seed")),
            ("Size", Some(format!("{width}x{height}"))),
            ("Model", value("model")),
            ("Denoising strength", value("strength")),
            // There, 1 is the last layer itself.
            ("Clip skip", clip_skip.map(|skipped| (skipped + 1).to_string())),
            ("Version", Some("undiffuse".to_owned())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}: {}", quoted(value?))))
        .collect();
        let negative = value("negativePrompt").map(|text| format!("Negative prompt: {text}"));
        [value("prompt"), negative, Some(line.join(", "))].into_iter().flatten().collect::<Vec<_>>().join("\n")
    }
}

/// A value as a person writes it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        // 5, not 5.0, as in the page's pictures.
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        value => value.to_string(),
    }
}

/// A comma, a colon or a new line would end a value.
fn quoted(value: String) -> String {
    match value.contains([',', ':', '\n']) {
        true => Value::String(value).to_string(),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_texts_say_what_was_given_and_nothing_else() {
        let made = Provenance::new("my: model".into())
            .with("prompt", "a fox,\nrunning")
            .with("negativePrompt", "")
            .with("seed", "18446744073709551615")
            .with("steps", 20)
            .with("guidanceScale", 5.0)
            .with("strength", None::<f64>)
            .with("clipSkip", 1);
        let texts = made.texts(64, 32, "DDIMScheduler");
        assert_eq!(
            texts,
            [
                (
                    "parameters",
                    "a fox,\nrunning\nSteps: 20, Sampler: DDIMScheduler, CFG scale: 5, Seed: 18446744073709551615, \
                     Size: 64x32, Model: \"my: model\", Clip skip: 2, Version: undiffuse"
                        .to_owned()
                ),
                (
                    "undiffuse",
                    r#"{"clipSkip":1,"guidanceScale":5.0,"model":"my: model","prompt":"a fox,\nrunning","seed":"18446744073709551615","steps":20}"#
                        .to_owned()
                ),
            ]
        );
    }
}
