//! Splits work over the cores of a native machine; a browser's worker has one.

/// Multiply-adds below which a thread costs more than it brings.
#[cfg(not(target_arch = "wasm32"))]
const WORTH_A_THREAD: usize = 1 << 20;

/// Calls `body(index, chunk)` for each chunk of `chunk_length` elements of `out`, on several threads where `work`
/// (multiply-adds in all) is worth it. Chunks are independent, so the result does not depend on the number of threads.
pub fn for_each_chunk<T: Send>(out: &mut [T], chunk_length: usize, work: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    #[cfg(not(target_arch = "wasm32"))]
    {
        let chunks = out.len().div_ceil(chunk_length.max(1));
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = cores.min(chunks).min(work / WORTH_A_THREAD);
        if threads > 1 {
            let next = std::sync::Mutex::new(out.chunks_mut(chunk_length).enumerate());
            let worker = || {
                loop {
                    // A poisoned lock means that another worker panicked; that panic is the one to report.
                    let Some((index, chunk)) = next.lock().ok().and_then(|mut n| n.next()) else { return };
                    body(index, chunk);
                }
            };
            std::thread::scope(|scope| {
                for _ in 1..threads {
                    scope.spawn(worker);
                }
                worker();
            });
            return;
        }
    }
    let _ = work;
    out.chunks_mut(chunk_length.max(1)).enumerate().for_each(|(index, chunk)| body(index, chunk));
}
