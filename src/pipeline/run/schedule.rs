//! The schedule of a run, without the run: the noise schedule and the solver's table.

use std::ops::RangeInclusive;

use super::pipeline::Pipeline;
use super::request::{Task, scheduler, table};
use crate::diffusion::{NoiseSchedule, Solver, Table, Variance};
use crate::pipeline::error::Error;
use crate::pipeline::options::SampleOptions;

/// The noise schedule of a model and a solver's way through it.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The solver's class in diffusers, `_class_name`.
    pub class: String,
    /// T, the number of training timesteps.
    pub num_train_timesteps: usize,
    /// β_t and ᾱ_t for all training timesteps; both empty for rectified flow, which has no β.
    pub noise: NoiseSchedule,
    /// The whole reverse process, from x_T on.
    pub table: Table,
}

impl Pipeline {
    /// The solvers that this model can be run with, each with the least and the most steps that it takes, as
    /// [`SchedulerConfig::solver_steps`](crate::diffusion::SchedulerConfig::solver_steps) finds them.
    pub fn solver_steps(&self) -> Vec<(Solver, RangeInclusive<usize>)> {
        let model = &self.parts.model;
        let mut solvers = model.scheduler.solver_steps();
        let learned = model.scheduler.variance_type().is_ok_and(Variance::is_learned);
        solvers.retain(|(solver, _)| !(learned && solver.reads_learned_variance()) || model.learns_variance());
        solvers
    }

    /// The schedule that a run with these options walks if it begins with noise. Of the options, only those that choose the
    /// solver and its steps are looked at.
    ///
    /// # Errors
    /// A solver that the model cannot be run with, or steps that it does not take.
    pub fn schedule(&self, options: &SampleOptions) -> Result<Schedule, Error> {
        let model = &self.parts.model;
        let scheduler = scheduler(model, options)?;
        let noise = scheduler.noise_schedule()?;
        let class = scheduler.class_name().to_owned();
        let num_train_timesteps = scheduler.num_train_timesteps()?;
        Ok(Schedule { class, num_train_timesteps, noise, table: table(model, options, &Task::Generate)? })
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use std::path::Path;

    use pollster::block_on;

    use super::*;
    use crate::device::Device;
    use crate::diffusion::StepOptions;
    use crate::pipeline::Scheduler;
    use crate::weights::DirectorySource;

    #[test]
    fn a_schedule_is_that_of_the_solver_asked_for_over_the_betas_of_the_checkpoint() {
        let model = DirectorySource::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/emoji64"));
        let pipeline = block_on(Pipeline::load(&model, Device::cpu(), &mut |_| {})).unwrap();
        let own = pipeline.schedule(&SampleOptions::default()).unwrap();
        assert_eq!(own.class, pipeline.scheduler().class_name());
        assert_eq!((own.num_train_timesteps, own.noise.betas.len()), (1000, 1000));

        let scheduler = Scheduler::Solver(Solver::Heun);
        let heun = pipeline.schedule(&SampleOptions { scheduler, steps: 7, ..SampleOptions::default() }).unwrap();
        assert_eq!(heun.class, "HeunDiscreteScheduler");
        assert_eq!(heun.noise, own.noise);
        let swapped = pipeline.scheduler().swap_to(Solver::Heun).unwrap();
        assert_eq!(heun.table, swapped.table(7, &StepOptions::default()).unwrap());

        let none = pipeline.schedule(&SampleOptions { steps: 0, ..SampleOptions::default() });
        assert!(matches!(none, Err(Error::Diffusion(_))), "{none:?}");
    }
}
