//! Portable arithmetic: a seed gives the same bits on every machine and, by `tests/browser/trajectories.test.js`, in every browser.

use std::path::Path;

use crate::common::read_json;
use pollster::block_on;
use undiffuse::cpu::{self, Arithmetic};
use undiffuse::device::Device;
use undiffuse::pipeline::{Pipeline, Preview, SampleOptions};
use undiffuse::weights::DirectorySource;

/// The bits of the numbers, in a hash that is written down in a line in any language: 32-bit FNV-1a of their little-endian bytes.
fn checksum(values: &[f32]) -> String {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

#[test]
fn a_seed_gives_the_recorded_bits_however_many_threads_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = read_json(&root.join("tests/portable.json"));
    for threads in [1, 2] {
        let device = Device::Cpu(cpu::Device::native(Some(threads), Arithmetic::Separate));
        let source = DirectorySource::new(root.join("www/models/emoji64"));
        let pipeline = block_on(Pipeline::load(&source, device, &mut |_| {})).unwrap();
        let options = SampleOptions {
            prompt: run["prompt"].as_str().unwrap().into(),
            seed: run["seed"].as_u64().unwrap(),
            steps: run["steps"].as_u64().unwrap() as usize,
            guidance_scale: run["guidance_scale"].as_f64().unwrap(),
            preview: Preview::None,
            ..SampleOptions::default()
        };
        let mut sampler = block_on(pipeline.sampler(options)).unwrap();
        let mut latents = Vec::new();
        while block_on(sampler.step()).unwrap().is_some() {
            latents.push(checksum(&block_on(sampler.latents()).unwrap()));
        }
        // Where the order of a kernel's sums was changed on purpose, these are to be recorded anew.
        assert_eq!(serde_json::json!(latents), run["latents"], "on {threads} threads");
    }
}
