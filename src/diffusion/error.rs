/// A fault in a scheduler's configuration, or in what is asked of it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not JSON, even with Python's bare `Infinity` and `NaN` allowed.
    #[error("scheduler config: not valid JSON: {0}")]
    Json(String),
    /// The JSON is not an object, or does not name its class.
    #[error(
        "scheduler config: no \"_class_name\", so this is not a diffusers scheduler; \
         give the scheduler_config.json of the checkpoint's scheduler folder"
    )]
    NoClassName,
    /// A class that has no solver here.
    #[error("scheduler config: class {class} is not supported; choose one of the solvers {supported} instead")]
    UnsupportedClass {
        /// The `_class_name` of the config.
        class: String,
        /// The names of the solvers that could take its place.
        supported: String,
    },
    /// A key holds another type than diffusers writes.
    #[error("scheduler config: \"{key}\" is {found}, expected {expected}")]
    WrongType {
        /// The key of the config.
        key: &'static str,
        /// The type that the key must hold.
        expected: &'static str,
        /// The value that it holds, as JSON.
        found: String,
    },
    /// A key holds a value that is out of range, or that is not supported in this class.
    #[error("{class}: \"{key}\" is {value}; supported: {supported}")]
    UnsupportedValue {
        /// The class of the config.
        class: String,
        /// The key of the config.
        key: &'static str,
        /// The value that it holds.
        value: String,
        /// The values that it could hold.
        supported: String,
    },
    /// A number of steps that this schedule cannot be divided into.
    #[error("`num_inference_steps` is {num_inference_steps}: {class} takes {least} to {most} here")]
    NumInferenceSteps {
        /// The number that was asked for.
        num_inference_steps: usize,
        /// The class of the config.
        class: String,
        /// The smallest number that works.
        least: usize,
        /// The largest number that works.
        most: usize,
    },
    /// An option of the run that is out of range, or that the class does not take.
    #[error("`{option}` is {value}: {expected}")]
    Option {
        /// The field of [`StepOptions`](super::StepOptions).
        option: &'static str,
        /// The value that was given.
        value: String,
        /// A remedy, as a phrase.
        expected: String,
    },
    /// The coefficients divide by zero somewhere.
    #[error("{class}: step {index} (timestep {timestep}) has a coefficient that is not finite: {cause}")]
    NotFinite {
        /// The class of the config.
        class: String,
        /// The step, counted from the schedule's first.
        index: usize,
        /// Timestep of the step.
        timestep: f64,
        /// The divisor that is zero, and a remedy.
        cause: String,
    },
    /// A step was given tensors that do not fit each other.
    #[error("step: {name} has {found} values, expected {expected}")]
    Length {
        /// Name of the argument.
        name: &'static str,
        /// The number of values that it has.
        found: usize,
        /// The number that it needs.
        expected: usize,
    },
    /// A chain, or a term of it, that has no variational bound.
    #[error("variational bound: {0}")]
    Bound(String),
}
