//! The process itself as a machine: its memory, its cores, its vectors.

use std::alloc::{self, Layout};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use undiffuse_kernels::{Arithmetic, Job};

use super::{Error, Machine};

/// Alignment of regions: a line of the cache.
const ALIGNMENT: usize = 64;

/// Number of times that a thread which waits for the others looks before it offers its core to something else, which may be the
/// thread waited for.
const SPINS: usize = 64;

/// The machine that this process runs on.
pub struct Host {
    arithmetic: Arithmetic,
    /// The threads beside the one that calls; none if that one is enough.
    pool: Option<rayon::ThreadPool>,
    regions: RefCell<HashMap<usize, Layout>>,
}

impl Host {
    /// A host with `threads` threads, at least one; fewer where the system grants no more.
    pub fn new(threads: usize, arithmetic: Arithmetic) -> Self {
        let pool = (threads > 1).then(|| rayon::ThreadPoolBuilder::new().num_threads(threads - 1).build().ok());
        Self { arithmetic, pool: pool.flatten(), regions: RefCell::default() }
    }

    /// Panics unless `bytes` bytes at `address` lie in one region.
    fn check(&self, address: usize, bytes: usize) {
        let regions = self.regions.borrow();
        let holds = |(start, layout): (&usize, &Layout)| address >= *start && address - start + bytes <= layout.size();
        assert!(regions.iter().any(holds), "{bytes} bytes at {address:#x} are outside of what was allocated");
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({} threads, {:?})", self.threads(), self.arithmetic)
    }
}

// SAFETY: regions come from the process's allocator, by a layout that is aligned; parts of a job are claimed when those before are done.
unsafe impl Machine for Host {
    fn allocate(&self, bytes: usize) -> Option<usize> {
        let layout = Layout::from_size_align(bytes.max(ALIGNMENT), ALIGNMENT).ok()?;
        // SAFETY: the layout is not empty. Zeroes, because memory that the system has just granted holds them anyway.
        let address = unsafe { alloc::alloc_zeroed(layout) } as usize;
        if address == 0 {
            return None;
        }
        self.regions.borrow_mut().insert(address, layout);
        Some(address)
    }

    unsafe fn free(&self, address: usize) {
        if let Some(layout) = self.regions.borrow_mut().remove(&address) {
            // SAFETY: it was allocated with this layout, and is forgotten from here on.
            unsafe { alloc::dealloc(address as *mut u8, layout) };
        }
    }

    fn write(&self, address: usize, bytes: &[u8]) {
        self.check(address, bytes.len());
        // SAFETY: the target lies in a region of this machine, which no reference points into.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    }

    fn read(&self, address: usize, bytes: &mut [u8]) {
        self.check(address, bytes.len());
        // SAFETY: the source lies in a region of this machine, all of which was written when it was allocated.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Does all that is left: whoever calls has a thread to wait with.
    unsafe fn run(&self, jobs: &[Job], done: usize) -> Result<usize, Error> {
        let shared =
            Shared { jobs, arithmetic: self.arithmetic, claimed: AtomicUsize::new(done), done: AtomicUsize::new(done) };
        // Threads are woken once for all jobs, and find out by themselves which is next.
        match self.pool.as_ref().filter(|_| jobs.iter().any(|job| job.parts() > 1)) {
            Some(pool) => pool.in_place_scope(|scope| {
                // SAFETY: the caller vouches for the jobs, and every thread has left them when the scope ends.
                scope.spawn_broadcast(|_, _| unsafe { shared.work() });
                // SAFETY: likewise.
                unsafe { shared.work() };
            }),
            // SAFETY: the caller vouches for the jobs.
            None => unsafe { shared.work() },
        }
        Ok(shared.done.into_inner())
    }

    fn threads(&self) -> usize {
        1 + self.pool.as_ref().map_or(0, rayon::ThreadPool::current_num_threads)
    }
}

/// Jobs that several threads do together. Parts are numbered through all jobs.
struct Shared<'a> {
    jobs: &'a [Job],
    arithmetic: Arithmetic,
    /// Parts that a thread has taken.
    claimed: AtomicUsize,
    /// Parts that are done.
    done: AtomicUsize,
}

impl Shared<'_> {
    /// Takes parts until there is none left; returns when all are done.
    ///
    /// # Safety
    /// As of [`Machine::run`].
    unsafe fn work(&self) {
        let mut end = 0;
        for job in self.jobs {
            let start = end;
            end += job.parts();
            // No part of this job was taken before all of those before it were done, and this thread has seen them done.
            while let Some(part) = self.claim(end) {
                let _done = Done(&self.done);
                // SAFETY: the jobs before this one are done, and the caller vouches for it.
                unsafe { undiffuse_kernels::run(job, part - start, self.arithmetic) };
            }
            let mut looks = 0;
            while self.done.load(Ordering::Acquire) < end {
                looks += 1;
                if looks < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
            }
        }
    }

    /// The next part below `end`.
    fn claim(&self, end: usize) -> Option<usize> {
        let next = |part: usize| (part < end).then_some(part + 1);
        self.claimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()
    }
}

/// Counts a part as done when it is dropped: after a panic, too, or the other threads would wait for the part for ever.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}
