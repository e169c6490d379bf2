//! The cost of a run, found without making it.

use super::pipeline::Pipeline;
use super::request::{Request, Task};
use crate::graph::Graph;
use crate::pipeline::error::Error;
use crate::pipeline::model::load::Parts;
use crate::pipeline::options::SampleOptions;
use crate::pipeline::pictures::preview::{self, Previews};

/// The cost of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunEstimate {
    /// Number of calls of the network.
    pub calls: usize,
    /// Floating point operations of those calls and of the pictures before, between and after them.
    pub flop: u64,
    /// Seconds that it takes at the pace of the last step that was made on this device, or on a CPU before the first one, at a
    /// share of what a short measurement finds. `None` before the first step on a GPU.
    pub seconds: Option<f64>,
}

/// The arithmetic of the parts of a run, in floating point operations.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct RunCost {
    /// Operations on a given picture before the first step.
    start: u64,
    /// One call of the network with the update after it.
    call: u64,
    /// The pictures of a step on the way.
    preview: u64,
    /// The pictures of the last step.
    decode: u64,
}

impl RunCost {
    /// The cost of the run `request`, whose step is `step`.
    ///
    /// # Errors
    /// If the autoencoder cannot be built at this size.
    pub fn new(parts: &Parts, previews: &Previews, request: &Request, step: &Graph) -> Result<Self, Error> {
        let encodings = match request.task {
            Task::Generate | Task::Upscale { .. } => 0,
            Task::ImageToImage(_) => 1,
            // Into a network that sees what is kept, the picture goes whole and without what is drawn anew.
            Task::Inpaint { .. } => 1 + u64::from(parts.model.extra_channels() > 0),
        };
        let [_, _, height, width] = request.latents;
        let start = match parts.vae() {
            Some((vae, _)) if encodings > 0 => {
                let scale = vae.scale_factor();
                let graph = vae.encoder(1, height * scale, width * scale);
                encodings * graph.map_err(|e| parts.model.info.too_large(height, width, e))?.flop()
            }
            _ => 0,
        };
        let [preview, decode] = preview::costs(parts, previews, &request.options, request.latents)?;
        Ok(Self { start, call: step.flop(), preview, decode })
    }

    /// The cost of a step, which may be the last.
    pub fn step(&self, is_last: bool) -> u64 {
        self.call + if is_last { self.decode } else { self.preview }
    }

    /// The cost of a run that asks the network `calls` times.
    fn run(&self, calls: usize) -> u64 {
        let between = (calls as u64).saturating_sub(1) * self.step(false);
        self.start + between + self.step(true)
    }
}

impl Pipeline {
    /// The cost of a run with these options. Nothing is compiled and no weight is read; the first time on a CPU, its speed is
    /// measured in some tens of milliseconds.
    ///
    /// # Errors
    /// As of [`Pipeline::sampler`], but for what the device would refuse.
    pub fn estimate(&self, options: SampleOptions) -> Result<RunEstimate, Error> {
        let parts = &*self.parts;
        let request = Request::new(&parts.model, options)?;
        let cost = RunCost::new(parts, &self.previews, &request, &request.step_graph(&parts.model)?)?;
        let calls = request.table.steps.len();
        let flop = cost.run(calls);
        let seconds = self.pace.on(&parts.device)?.map(|pace| flop as f64 / pace);
        Ok(RunEstimate { calls, flop, seconds })
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use std::path::Path;

    use pollster::block_on;

    use super::*;
    use crate::device::Device;
    use crate::pipeline::Preview;
    use crate::profile::now;
    use crate::weights::DirectorySource;

    fn emoji64() -> Pipeline {
        let model = DirectorySource::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/emoji64"));
        block_on(Pipeline::load(&model, Device::cpu(), &mut |_| {})).unwrap()
    }

    #[test]
    fn a_run_costs_its_calls_and_its_pictures_at_the_size_that_is_asked_for() {
        let pipeline = emoji64();
        let estimate = |options| pipeline.estimate(options).unwrap();
        let options = SampleOptions { steps: 20, preview: Preview::None, ..SampleOptions::default() };
        let usual = estimate(options.clone());
        assert_eq!(usual.calls, 20);
        // A call with guidance is 0.52 G multiply-adds, as a profile counts them.
        let more = estimate(SampleOptions { steps: 21, ..options.clone() });
        let call = more.flop - usual.flop;
        assert!((1.0e9..1.15e9).contains(&(call as f64)), "{call}");
        let decode = usual.flop - 20 * call;
        let decoded = estimate(SampleOptions { preview: Preview::Decode, ..options.clone() });
        assert_eq!(decoded.flop, 20 * (call + 2 * decode));

        let side = Some(1024);
        let large = estimate(SampleOptions { width: side, height: side, ..options.clone() });
        // 256 times the pixels, and attention grows by the square.
        assert!(large.flop > 256 * usual.flop, "{} is no more than 256 × {}", large.flop, usual.flop);
        let refused = pipeline.estimate(SampleOptions { width: Some(70), ..options });
        assert!(matches!(refused, Err(Error::Option { .. })), "{refused:?}");
    }

    #[test]
    fn the_time_of_a_run_is_known_before_the_first_and_afterwards_goes_by_the_last_step() {
        let pipeline = emoji64();
        let options = SampleOptions { steps: 2, ..SampleOptions::default() };
        let guess = pipeline.estimate(options.clone()).unwrap().seconds.unwrap();
        assert!(guess > 0.0 && guess.is_finite());
        let mut sampler = block_on(pipeline.sampler(options.clone())).unwrap();
        let start = now();
        while block_on(sampler.step()).unwrap().is_some() {}
        let took = now() - start;
        let known = pipeline.estimate(options).unwrap();
        let pace = pipeline.pace.last().unwrap();
        assert_eq!(known.seconds, Some(known.flop as f64 / pace));
        // Other programs take the processor meanwhile: only the magnitude is sure.
        let ratio = known.seconds.unwrap() / took;
        assert!(ratio > 0.05 && ratio < 20.0, "{ratio}");
    }
}
