//! Counts what the variants of the matrix kernels ask of a GPU, for a network of real size; no GPU is needed for that.

use super::capabilities::Limits;
use super::capabilities::{Capabilities, Class};
use super::error::Error;
use super::kernel::Dispatch;
use super::lower::lower;
use super::storage::Storage;
use super::variants::{MatrixKernels, Tile, Variants};
use crate::graph::{Graph, fuse};
use crate::models::{Unet2dConditionConfig, Unet2dConditionInputs};

/// The work of a network's matrix kernels.
#[derive(Debug, Default)]
struct Work {
    dispatches: usize,
    /// Work of the tiles, what lies past the result's borders included.
    gflop: f64,
    /// Traffic: loaded from memory and caches to be multiplied, and the sums of splits written and read.
    gigabytes: f64,
    /// The part of the arithmetic in launches of fewer workgroups than `FEW`, which would leave a large chip idle.
    in_few_workgroups: f64,
}

/// Two workgroups for each compute unit of a large chip.
const FEW: usize = 256;

impl Work {
    fn new(graph: &Graph, variants: Variants) -> Result<Self, Error> {
        let limits = Limits { buffer_bytes: 1 << 30, binding_bytes: 1 << 30, score_bytes: 16 << 20 };
        let lowered = lower(graph, limits, &variants, |_| Storage::F16)?;
        let mut work = Self { dispatches: lowered.dispatches.len(), ..Self::default() };
        for dispatch in &lowered.dispatches {
            work.add(dispatch);
        }
        Ok(work)
    }

    fn add(&mut self, dispatch: &Dispatch) {
        let Some(work) = dispatch.kernel.entry.work.map(|work| work(dispatch)) else { return };
        self.gflop += 2e-9 * work.multiply_adds;
        self.gigabytes += 1e-9 * work.bytes;
        let workgroups: usize = dispatch.workgroups().map(|n| n as usize).into_iter().product();
        if workgroups < FEW {
            self.in_few_workgroups += 2e-9 * work.multiply_adds;
        }
    }
}

/// The UNet of Stable Diffusion 1.5 for a guided picture of 512 × 512.
fn stable_diffusion() -> Graph {
    let json = include_str!("../../tests/published/stable-diffusion-v1-5.unet.json");
    let config = Unet2dConditionConfig::from_json(json).unwrap();
    let inputs = Unet2dConditionInputs { batch: 2, height: 64, width: 64, tokens: 77, timestep_cond: false };
    fuse(&config.graph(inputs).unwrap())
}

#[test]
fn tiles_ask_for_a_fraction_of_the_loads_and_leave_no_large_chip_idle() {
    let graph = stable_diffusion();
    println!("SD 1.5 UNet, 64×64 latents, batch 2, f16 weights: what its matrix kernels do in a step");
    println!(
        "{:24} {:>10} {:>8} {:>8} {:>10} {:>22}",
        "", "dispatches", "GFLOP", "GB", "FLOP/byte", "in few workgroups"
    );
    let count = |name: &str, class, family| {
        let work = Work::new(&graph, Variants::new(Capabilities::of_class(class, true), family)).unwrap();
        let Work { dispatches, gflop, gigabytes, in_few_workgroups } = work;
        println!(
            "{name:24} {dispatches:10} {gflop:8.0} {gigabytes:8.1} {:10.1} {:20.1} %",
            gflop / gigabytes,
            100.0 * in_few_workgroups / gflop
        );
        work
    };
    let registers = count("registers", Class::Software, None);
    for tile in Tile::ALL {
        count(&format!("{tile:?} only"), Class::Nvidia, Some(MatrixKernels::Tiled(Some(tile))));
    }
    for class in [Class::Nvidia, Class::Amd, Class::Gcn, Class::Apple, Class::Intel, Class::Other] {
        let work = count(&format!("{class:?}"), class, None);
        assert!(work.gigabytes * 2.5 < registers.gigabytes, "{class:?}: {work:?}, in registers {registers:?}");
        assert!(work.gflop < 1.15 * registers.gflop, "{class:?}: {work:?}, in registers {registers:?}");
    }
    let work = count("Nvidia", Class::Nvidia, None);
    assert!(work.in_few_workgroups < 0.02 * work.gflop, "{work:?}");
}
