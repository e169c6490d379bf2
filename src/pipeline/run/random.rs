//! The random streams of a run: one for all pictures, or one for each.

use crate::noise::Generator;
use crate::pipeline::options::SampleOptions;

/// diffusers' `generator` argument: a generator, or a list of them.
#[derive(Debug)]
pub(in crate::pipeline) struct Streams(Vec<Generator>);

impl Streams {
    pub fn new(options: &SampleOptions) -> Self {
        let seeds = if options.seeds.is_empty() { std::slice::from_ref(&options.seed) } else { &options.seeds };
        Self(seeds.iter().map(|&seed| Generator::new(options.generator, seed)).collect())
    }

    /// The rows of what is drawn once for all pictures: one, or one for each stream, so that a picture is what its seed draws alone.
    /// There diffusers draws from the first generator of its list only.
    pub fn rows(&self) -> usize {
        self.0.len()
    }

    /// `randn_tensor` of `[rows, length]`: one draw of it all, or a row from each stream in turn.
    pub fn randn(&mut self, rows: usize, length: usize) -> Vec<f32> {
        match &mut self.0[..] {
            [stream] => stream.randn(rows * length),
            streams => streams.iter_mut().take(rows).flat_map(|stream| stream.randn(length)).collect(),
        }
    }
}
