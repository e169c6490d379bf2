//! Files that nobody would write, as they arrive piece by piece, and what memory they take.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::ready;
use std::rc::Rc;

use pollster::block_on;
use undiffuse::weights::{
    ByteStream, Encoding, Error, Gather, LocalBoxFuture, MemorySource, Source, TensorFile, TensorInfo,
};

pub const FILE: &str = "unet/weights";

/// One file, in chunks of a given size, whose announced length may be wrong or missing.
pub struct Trickle {
    pub bytes: Rc<[u8]>,
    pub chunk: usize,
    pub announced: Option<u64>,
}

impl Source for Trickle {
    fn name(&self) -> &str {
        "trickle"
    }

    fn open<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn ByteStream>, Error>> {
        let (bytes, chunk, announced) = (self.bytes.clone(), self.chunk, self.announced);
        Box::pin(ready(Ok(Box::new(Drops { bytes, chunk, announced, at: 0 }) as _)))
    }
}

struct Drops {
    bytes: Rc<[u8]>,
    chunk: usize,
    announced: Option<u64>,
    at: usize,
}

impl ByteStream for Drops {
    fn length(&self) -> Option<u64> {
        self.announced
    }

    fn next_chunk<'a>(&'a mut self) -> LocalBoxFuture<'a, Result<Option<Vec<u8>>, Error>> {
        let next = self.bytes[self.at..].chunks(self.chunk).next().map(<[u8]>::to_vec);
        self.at += next.as_ref().map_or(0, Vec::len);
        Box::pin(ready(Ok(next)))
    }
}

pub type Tensors = Vec<(String, Encoding, Vec<usize>, Vec<u8>)>;

pub fn read(source: &dyn Source) -> Result<Tensors, Error> {
    let mut tensors = Vec::new();
    visit(source, |info, bytes| {
        tensors.push((info.name.clone(), info.dtype, info.shape.clone(), bytes.to_vec()));
        Ok(())
    })?;
    Ok(tensors)
}

/// Cuts a file after each of its bytes before `end`, whatever its announced length; all that is left is refused by name.
pub fn refused_when_truncated(bytes: &[u8], end: usize) {
    for length in 0..end {
        for announced in [None, Some(length as u64), Some(bytes.len() as u64)] {
            match read(&Trickle { bytes: bytes[..length].into(), chunk: 5, announced }) {
                Err(Error::Truncated { file, received, expected, .. }) => {
                    assert_eq!((file.as_str(), received), (FILE, length as u64));
                    assert!(expected > received, "cut at {length}");
                }
                other => panic!("cut at {length}: {other:?}"),
            }
        }
    }
}

pub fn visit(source: &dyn Source, each: impl FnMut(&TensorInfo, &[u8]) -> Result<(), Error>) -> Result<(), Error> {
    let file = block_on(TensorFile::open(source, FILE))?;
    block_on(file.stream(&mut |_| {}, &|_| true, &mut Gather::new(each)))
}

pub fn read_bytes(bytes: &[u8]) -> Result<Tensors, Error> {
    let mut source = MemorySource::new();
    source.insert(FILE, bytes);
    read(&source)
}

/// Counts what this thread holds, to see what a file can make the reader allocate.
pub struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    HELD.set(HELD.get() + bytes);
    PEAK.set(PEAK.get().max(HELD.get()));
}

// SAFETY: every call goes to `System` unchanged. Counting allocates nothing: the cells are const and have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most bytes held at once while `work` runs, beyond those held before.
pub fn peak_of(work: impl FnOnce()) -> isize {
    let before = HELD.get();
    PEAK.set(before);
    work();
    PEAK.get() - before
}
