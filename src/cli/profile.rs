//! `--profile`: where the time of a step goes, as a table.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use undiffuse::graph::Cost;
use undiffuse::profile::{Clock, NodeProfile, Profile};

/// How many of the slowest nodes are shown by themselves.
const SLOWEST: usize = 10;

/// A profile as a person reads it.
pub struct Report<'p>(pub &'p Profile);

/// Nodes taken together.
#[derive(Default)]
struct Group {
    nodes: usize,
    seconds: f64,
    cost: Cost,
    /// The least time that they could take, one after the other.
    least: f64,
}

impl Group {
    fn add(&mut self, node: &NodeProfile) {
        self.nodes += 1;
        self.seconds += node.seconds;
        self.cost = self.cost + node.cost;
        self.least += node.roofline * node.seconds;
    }

    /// The columns that kinds and nodes have in common, of `all` seconds.
    fn numbers(&self, all: f64) -> String {
        let Self { seconds, cost, least, .. } = self;
        let per_second = |count: u64| if *seconds > 0.0 { count as f64 / seconds / 1e9 } else { 0.0 };
        format!(
            "{:9.3} {:5.1} % {:9.1} {:8.2} {:7.0} %",
            seconds * 1e3,
            share(*seconds, all),
            per_second(cost.flop),
            per_second(cost.bytes),
            share(*least, *seconds),
        )
    }
}

/// `part` of `whole` in percent.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let profile = self.0;
        let ceilings = &profile.ceilings;
        let mut all = Group::default();
        let mut kinds: BTreeMap<&str, Group> = BTreeMap::new();
        for node in &profile.nodes {
            all.add(node);
            kinds.entry(node.op).or_default().add(node);
        }
        let clock = match profile.clock {
            Clock::Timestamps => "by timestamps of the GPU",
            Clock::Waits => "by waiting for each",
            Clock::Processor => "by the clock of the processor",
        };
        let half = ceilings.half_flop_per_second.map(|rate| format!(" ({:.1} in f16)", rate / 1e9)).unwrap_or_default();
        writeln!(
            f,
            "ceilings of this device: {:.1} GFLOP/s{half}, {:.2} GB/s",
            ceilings.flop_per_second / 1e9,
            ceilings.bytes_per_second / 1e9,
        )?;
        writeln!(
            f,
            "a step: {:.2} ms; its nodes one by one: {:.2} ms, {clock}; {:.3} G multiply-adds, {:.1} MB",
            profile.whole * 1e3,
            all.seconds * 1e3,
            all.cost.multiply_adds as f64 / 1e9,
            all.cost.bytes as f64 / 1e6,
        )?;

        let heading = "       ms   share   GFLOP/s     GB/s  roofline";
        writeln!(f, "\n{:<19} {:>5} {heading}", "kind", "nodes")?;
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by(|(_, a), (_, b)| b.seconds.total_cmp(&a.seconds));
        for (op, group) in kinds.iter().map(|(op, group)| (*op, group)).chain([("all", &all)]) {
            writeln!(f, "{op:<19} {:>5} {}", group.nodes, group.numbers(all.seconds))?;
        }

        writeln!(f, "\n{:<25} {heading}  kernel", "slowest nodes")?;
        let mut nodes: Vec<_> = profile.nodes.iter().collect();
        nodes.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        for (index, node) in nodes.iter().take(SLOWEST).enumerate() {
            let mut group = Group::default();
            group.add(node);
            let shape: Vec<String> = node.shape.iter().map(usize::to_string).collect();
            if index > 0 {
                writeln!(f)?;
            }
            // The path is longer than any column.
            writeln!(f, "{}", node.path)?;
            write!(f, "  {:<23} {}  {}", shape.join("×"), group.numbers(all.seconds), node.kernel)?;
        }
        Ok(())
    }
}
