//! The times of nodes on the CPU.

use undiffuse_kernels::Job;

use super::{Error, Program};
use crate::graph::NodeId;
use crate::profile::{Clock, NodeTime, Profile, Times, now, typical};

/// Runs that are timed.
const RUNS: usize = 16;

impl Program {
    /// Takes the time of each node and of the whole, with the inputs that were written last, and sets it against the machine's
    /// ceilings. Outputs are afterwards those of a run.
    ///
    /// # Errors
    /// As of [`Program::run`]; if there is no memory to measure the ceilings in.
    pub async fn profile(&mut self) -> Result<Profile, Error> {
        let ceilings = self.device.ceilings()?;
        let mut whole = Vec::new();
        // The first run finds cold caches and sleeping threads.
        self.run().await?;
        for _ in 0..RUNS {
            let start = now();
            self.run().await?;
            whole.push(now() - start);
        }
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(self.run_timed().await?);
        }
        let jobs: Vec<(NodeId, &[Job])> = (self.node_of_job.chunk_by(|a, b| a == b))
            .scan(0, |start, nodes| {
                let jobs = &self.jobs[*start..*start + nodes.len()];
                *start += nodes.len();
                Some((nodes[0], jobs))
            })
            .collect();
        let nodes = jobs.iter().map(|(node, jobs)| NodeTime {
            node: *node,
            kernel: names(jobs),
            seconds: typical(runs.iter().map(|run| run[node.index()]).collect()),
        });
        let times = Times { clock: Clock::Processor, whole: typical(whole), nodes: nodes.collect() };
        // Packed weights are f32.
        Ok(Profile::new(self.graph(), times, ceilings, |id| self.graph().full_bytes(id)))
    }
}

/// The kernels of a node, each once; but for the check of an output, which is no part of what it computes.
fn names(jobs: &[Job]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in jobs.iter().map(Job::name) {
        if name != "NonFinite" && !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}
