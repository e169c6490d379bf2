//! Measures how long each node takes on a GPU.

use super::buffer::{Buffer, Memory};
use super::device::Device;
use super::error::Error;
use super::kernels::non_finite::is_check;
use super::program::{DISPATCHES_PER_SUBMIT, Program, Recorded};
use super::read_back::{self, PendingRead};
use crate::graph::NodeId;
use crate::profile::{Clock, NodeTime, Profile, Times, now, typical};

/// Runs that count, after those that find out how long a node takes.
const RUNS: usize = 8;

/// A node's time is to be so many times what the clock cannot tell apart.
const STEPS: f64 = 20.0;

/// Most repeats of a node: with more, only the caches would be measured.
const MOST_REPEATS: u32 = 64;

/// Nodes in a set of timestamps, which holds at most 4096 of them, two for a node.
const NODES_PER_SET: usize = 2048;

impl Program {
    /// Takes the time of each node and of the whole, with the inputs that were written last, and sets it against the device's
    /// ceilings. Outputs are afterwards those of a run.
    ///
    /// Each node is measured by itself, in the order of a run. Where the clock is coarse (browsers round timestamps, and without
    /// timestamps a wait costs more than most nodes), a short node is repeated in place and the time divided: every node writes
    /// only what it computes, from operands that stay as they are.
    ///
    /// # Errors
    /// If the device is lost, or does not compile the kernels that measure its ceilings.
    pub async fn profile(&self) -> Result<Profile, Error> {
        self.check()?;
        let ceilings = self.device.ceilings().await?;
        let times = self.times().await?;
        let stored = |id: crate::graph::WeightId| self.bound.get(id.index()).map_or(0, |stored| stored.buffer.size());
        Ok(Profile::new(self.graph(), times, ceilings, stored))
    }

    async fn times(&self) -> Result<Times, Error> {
        let nodes: Vec<&[Recorded]> = self.recorded.chunk_by(|a, b| a.node == b.node).collect();
        let whole = self.time_whole().await?;
        let mut clock = NodeClock::new(&self.device, nodes.len()).await?;
        let mut repeats = vec![1; nodes.len()];
        let mut seconds = self.time_nodes(&mut clock, &nodes, &repeats).await?;
        // A time of nothing says only that there is far to go, so that the way there takes a few rounds.
        for _ in 0..3 {
            let least = STEPS * clock.granularity;
            for (repeats, &seconds) in repeats.iter_mut().zip(&seconds) {
                let total = seconds * f64::from(*repeats);
                if total < least {
                    let factor = (least / total.max(least / 8.0)).ceil() as u32;
                    *repeats = (*repeats * factor).min(MOST_REPEATS);
                }
            }
            seconds = self.time_nodes(&mut clock, &nodes, &repeats).await?;
        }
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(self.time_nodes(&mut clock, &nodes, &repeats).await?);
        }
        let nodes = nodes.iter().enumerate().map(|(index, recorded)| NodeTime {
            node: recorded.first().map_or(NodeId(0), |first| first.node),
            kernel: names(recorded),
            seconds: typical(runs.iter().map(|run| run[index]).collect()),
        });
        let kind = if clock.timestamps.is_some() { Clock::Timestamps } else { Clock::Waits };
        Ok(Times { clock: kind, whole, nodes: nodes.collect() })
    }

    /// Seconds of a run as it usually is, waits included.
    async fn time_whole(&self) -> Result<f64, Error> {
        let mut runs = Vec::new();
        // The first one wakes the device up.
        for _ in 0..=RUNS {
            let start = now();
            self.run()?;
            read_back::idle(&self.device).await?;
            runs.push(now() - start);
        }
        Ok(typical(runs.split_off(1)))
    }

    /// Runs every node `repeats` times, one node after the other; seconds of one time.
    async fn time_nodes(
        &self,
        clock: &mut NodeClock,
        nodes: &[&[Recorded]],
        repeats: &[u32],
    ) -> Result<Vec<f64>, Error> {
        let mut seconds = Vec::with_capacity(nodes.len());
        // What divides all times: of a single set, which may be one node's, it would be too much.
        let mut step = 0;
        for (nodes, repeats) in nodes.chunks(NODES_PER_SET).zip(repeats.chunks(NODES_PER_SET)) {
            match &clock.timestamps {
                Some(timestamps) => {
                    let ticks = self.stamp(timestamps, nodes, repeats).await?;
                    seconds.extend(ticks.iter().map(|ticks| {
                        step = greatest_common_divisor(step, *ticks);
                        *ticks as f64 * timestamps.seconds_per_tick
                    }));
                    clock.granularity = step as f64 * timestamps.seconds_per_tick;
                }
                None => {
                    for (node, &repeats) in nodes.iter().zip(repeats) {
                        let start = now();
                        self.submit((0..repeats).flat_map(|_| *node));
                        read_back::idle(&self.device).await?;
                        seconds.push((now() - start - clock.granularity).max(0.0));
                    }
                }
            }
        }
        self.device.check()?;
        Ok(seconds.iter().zip(repeats).map(|(seconds, &repeats)| seconds / f64::from(repeats)).collect())
    }

    /// Runs every node as [`Self::time_nodes`] does; the times, in ticks of the GPU's clock for all repeats.
    async fn stamp(&self, timestamps: &Timestamps, nodes: &[&[Recorded]], repeats: &[u32]) -> Result<Vec<u64>, Error> {
        let raw = self.device.raw();
        let mut encoder = raw.create_command_encoder(&Default::default());
        let mut dispatches = 0;
        for (index, (node, &repeats)) in nodes.iter().zip(repeats).enumerate() {
            if dispatches > DISPATCHES_PER_SUBMIT {
                let full = std::mem::replace(&mut encoder, raw.create_command_encoder(&Default::default()));
                self.device.queue().submit([full.finish()]);
                dispatches = 0;
            }
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &timestamps.set,
                    beginning_of_pass_write_index: Some(2 * index as u32),
                    end_of_pass_write_index: Some(2 * index as u32 + 1),
                }),
            });
            for recorded in (0..repeats).flat_map(|_| *node) {
                recorded.encode(&mut pass);
                dispatches += 1;
            }
        }
        encoder.resolve_query_set(&timestamps.set, 0..2 * nodes.len() as u32, &timestamps.resolved, 0);
        self.device.queue().submit([encoder.finish()]);
        let stamps = [(Memory::whole(&timestamps.resolved), 4 * nodes.len())];
        let words = PendingRead::begin(&self.device, &self.status, &stamps, self.nodes.clone()).finish().await?;
        let stamp = |words: &[u32]| u64::from(words[0]) | u64::from(words[1]) << 32;
        let pairs = words.iter().flat_map(|words| words.chunks_exact(4));
        Ok(pairs.map(|pair| stamp(&pair[2..]).saturating_sub(stamp(&pair[..2]))).collect())
    }
}

/// The clock that a device has for its nodes.
struct NodeClock {
    /// Timestamps of the GPU; `None` if it has none, and one waits for each node.
    timestamps: Option<Timestamps>,
    /// Seconds: the unit in which timestamps come, or what an empty wait takes.
    granularity: f64,
}

struct Timestamps {
    set: wgpu::QuerySet,
    resolved: Buffer,
    seconds_per_tick: f64,
}

impl NodeClock {
    async fn new(device: &Device, nodes: usize) -> Result<Self, Error> {
        let raw = device.raw();
        if device.capabilities().timestamps {
            let count = 2 * nodes.clamp(1, NODES_PER_SET);
            let set = raw.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: count as u32,
            });
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let resolved = device.buffer(8 * count as u64, usage);
            let seconds_per_tick = f64::from(device.queue().get_timestamp_period()) * 1e-9;
            return Ok(Self { timestamps: Some(Timestamps { set, resolved, seconds_per_tick }), granularity: 0.0 });
        }
        let mut waits = Vec::new();
        for _ in 0..RUNS {
            let start = now();
            device.queue().submit([raw.create_command_encoder(&Default::default()).finish()]);
            read_back::idle(device).await?;
            waits.push(now() - start);
        }
        Ok(Self { timestamps: None, granularity: typical(waits) })
    }
}

/// The kernels of a node, each once; but for the check of an output, which is no part of what it computes.
fn names(recorded: &[Recorded]) -> String {
    let mut names: Vec<String> = Vec::new();
    for kernel in recorded.iter().map(|recorded| recorded.kernel) {
        let name = kernel.to_string();
        if !is_check(&kernel) && !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
