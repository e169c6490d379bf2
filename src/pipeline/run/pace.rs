//! The speed of runs on this device.

use std::cell::Cell;
use std::rc::Rc;

use crate::device::Device;
use crate::pipeline::error::Error;
use crate::profile::now;

/// The share of the CPU's multiply-adds that a network reaches, before a run has shown it.
const USUAL_SHARE: f64 = 0.5;

/// The speed of a pipeline's last step, in floating point operations a second; shared with its runs.
#[derive(Clone, Debug, Default)]
pub(in crate::pipeline) struct Pace(Rc<Cell<Option<f64>>>);

impl Pace {
    /// Takes note of `flop` operations that took from `start`, of [`now`], until now.
    pub fn note(&self, flop: u64, start: f64) {
        let seconds = now() - start;
        // A clock that stands still, or a step without arithmetic, says nothing.
        if seconds > 0.0 && flop > 0 {
            self.0.set(Some(flop as f64 / seconds));
        }
    }

    /// The pace of the last step; none before the first.
    pub fn last(&self) -> Option<f64> {
        self.0.get()
    }

    /// The pace of the last step; before the first step the one that `device` can be expected to have.
    pub fn on(&self, device: &Device) -> Result<Option<f64>, Error> {
        match self.last() {
            None => Ok(device.flop_per_second()?.map(|most| USUAL_SHARE * most)),
            known => Ok(known),
        }
    }
}
