//! Results on their way back from the GPU.

use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::buffer::{Buffer, Memory};
use super::device::Device;
use super::error::Error;
use super::kernels::non_finite::node_of_code;

/// Path and op of each node of a graph, for errors.
pub(super) type NodeNames = Rc<[(String, &'static str)]>;

/// A read under way.
#[derive(Debug)]
pub struct PendingRead {
    device: Device,
    staging: Buffer,
    mapped: Arc<Mapped>,
    submission: wgpu::SubmissionIndex,
    lengths: Vec<usize>,
    nodes: NodeNames,
}

impl PendingRead {
    /// Copies the status word and the tensors `sources` (with their number of elements), as they are at this point of the queue.
    pub(super) fn begin(device: &Device, status: &wgpu::Buffer, sources: &[(Memory, usize)], nodes: NodeNames) -> Self {
        let mut copies = vec![(status, 0, 1)];
        copies.extend(sources.iter().map(|&(memory, elements)| (memory.buffer, memory.offset, elements)));
        let size = |elements: usize| 4 * elements as u64;
        let bytes = copies.iter().map(|&(_, _, elements)| size(elements)).sum();
        let staging = device.buffer(bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut encoder = device.raw().create_command_encoder(&Default::default());
        let mut at = 0;
        for (source, offset, elements) in copies {
            encoder.copy_buffer_to_buffer(source, offset, &staging, at, size(elements));
            at += size(elements);
        }
        let submission = device.queue().submit([encoder.finish()]);
        let mapped = Arc::new(Mapped::default());
        let signal = mapped.clone();
        staging.map_async(wgpu::MapMode::Read, .., move |result| signal.set(result.map_err(|e| e.to_string())));
        let lengths = sources.iter().map(|&(_, elements)| elements).collect();
        Self { device: device.clone(), staging, mapped, submission, lengths, nodes }
    }

    /// Waits for the data.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with an output that is not finite; if the device is lost; if the transfer fails.
    pub async fn finish(self) -> Result<Vec<Vec<u32>>, Error> {
        // Natively nothing arrives unless someone waits for it; in a browser this does nothing.
        let wait = wgpu::PollType::Wait { submission_index: Some(self.submission.clone()), timeout: None };
        let polled = self.device.raw().poll(wait).map_err(|error| error.to_string());
        let outcome = match polled {
            Ok(_) => self.mapped.wait().await,
            Err(message) => Err(message),
        };
        self.device.check()?;
        outcome.map_err(Error::ReadBack)?;
        let view = self.staging.slice(..).get_mapped_range().map_err(|error| Error::ReadBack(error.to_string()))?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        let Some((&status, mut rest)) = words.split_first() else { return Ok(Vec::new()) };
        if status != 0 {
            let (path, op) = self.nodes.get(node_of_code(status)).cloned().unwrap_or_default();
            return Err(Error::NonFinite { path, op });
        }
        let outputs = self.lengths.iter().map(|&length| {
            let (words, others) = rest.split_at(length.min(rest.len()));
            rest = others;
            words.to_vec()
        });
        Ok(outputs.collect())
    }
}

/// Waits until the device has done everything that was queued.
///
/// # Errors
/// If the device is lost.
pub(super) async fn idle(device: &Device) -> Result<(), Error> {
    let done = Arc::new(Mapped::default());
    let signal = done.clone();
    device.queue().on_submitted_work_done(move || signal.set(Ok(())));
    // As for a read: natively someone has to wait.
    let polled = device.raw().poll(wgpu::PollType::wait_indefinitely()).map_err(|error| error.to_string());
    let outcome = match polled {
        Ok(_) => done.wait().await,
        Err(message) => Err(message),
    };
    device.check()?;
    outcome.map_err(Error::ReadBack)
}

/// The completion of a mapping or of queued work, to be awaited.
#[derive(Debug, Default)]
struct Mapped {
    state: Mutex<MappedState>,
}

#[derive(Debug, Default)]
struct MappedState {
    result: Option<Result<(), String>>,
    waker: Option<Waker>,
}

impl Mapped {
    fn state(&self) -> MutexGuard<'_, MappedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, result: Result<(), String>) {
        let mut state = self.state();
        state.result = Some(result);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn wait(&self) -> impl Future<Output = Result<(), String>> {
        std::future::poll_fn(|context| {
            let mut state = self.state();
            match state.result.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}
