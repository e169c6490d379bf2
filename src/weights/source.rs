//! Sources of a checkpoint's files.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;

use super::{Error, foreign};

/// A future that may borrow and need not be `Send`: a checkpoint is opened by the one thread that runs it.
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A checkpoint, wherever it lies: a directory, memory, a URL, files that a user picked.
pub trait Source {
    /// The source's name, as a person would call it: the directory or the URL. For messages only.
    fn name(&self) -> &str;

    /// The path of the one file that the checkpoint consists of; `None` if it is a folder.
    fn single_file(&self) -> Option<&str> {
        None
    }

    /// The files at `paths` will be opened soon, most likely: a source that is slow to answer may begin with all of them. Which of them there
    /// are, and whether a path is allowed, [`Source::open`] tells.
    fn prefetch(&self, _paths: &[String]) {}

    /// Opens the file at `path` (`"unet/config.json"`) from its first byte.
    ///
    /// # Errors
    /// [`Error::Path`] for a path that [`check_path`] refuses, [`Error::NotFound`] where there is no such file,
    /// [`Error::Read`] for all else.
    fn open<'a>(&'a self, path: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn ByteStream>, Error>>;
}

/// The bytes of one file, in order.
pub trait ByteStream {
    /// The whole file's length in bytes, where it is known before reading. It is a claim like any other.
    fn length(&self) -> Option<u64>;

    /// The next bytes, as many as are at hand; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Read`] if the connection or the device fails.
    fn next_chunk<'a>(&'a mut self) -> LocalBoxFuture<'a, Result<Option<Vec<u8>>, Error>>;
}

/// Refuses every path that is not plainly relative and inside: paths come from a checkpoint's own JSON.
///
/// # Errors
/// [`Error::Path`] for an absolute path, an empty, `.` or `..` component, a backslash, a colon or a NUL.
pub fn check_path(path: &str) -> Result<(), Error> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '\0']);
    if path.split('/').all(plain) { Ok(()) } else { Err(Error::Path { path: path.to_owned() }) }
}

/// Reads a whole text of at most `limit` bytes: configs and vocabularies.
///
/// # Errors
/// [`Error::Foreign`] and [`Error::Pickle`] for what is known to be no such file, and those of [`read_whole`].
pub async fn read_small(source: &dyn Source, path: &str, limit: usize) -> Result<Vec<u8>, Error> {
    let bytes = read_whole(source, path, limit).await?;
    foreign::recognise(path, &bytes[..bytes.len().min(foreign::HEAD)]).map_or(Ok(bytes), Err)
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// [`Error::TooLarge`] as soon as more than `limit` bytes are announced or have come, [`Error::Truncated`] if fewer
/// came than were announced, and whatever the source reports.
pub async fn read_whole(source: &dyn Source, path: &str, limit: usize) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge { file: path.to_owned(), limit };
    let mut stream = source.open(path).await?;
    let announced = stream.length();
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        if chunk.len() > limit - bytes.len() {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    match announced {
        Some(expected) if (bytes.len() as u64) < expected => {
            Err(Error::Truncated { file: path.to_owned(), tensor: None, received: bytes.len() as u64, expected })
        }
        _ => Ok(bytes),
    }
}

/// A checkpoint in memory.
#[derive(Debug, Clone, Default)]
pub struct MemorySource {
    files: BTreeMap<String, Vec<u8>>,
}

impl MemorySource {
    /// An empty checkpoint.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the file at `path`, or replaces it.
    pub fn insert(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), bytes.into());
    }
}

impl Source for MemorySource {
    fn name(&self) -> &str {
        "memory"
    }

    fn open<'a>(&'a self, path: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn ByteStream>, Error>> {
        let open = || -> Result<Box<dyn ByteStream>, Error> {
            check_path(path)?;
            let bytes = self
                .files
                .get(path)
                .ok_or_else(|| Error::NotFound { file: path.to_owned(), origin: self.name().to_owned() })?;
            Ok(Box::new(MemoryStream { length: bytes.len() as u64, bytes: Some(bytes.clone()) }))
        };
        Box::pin(ready(open()))
    }
}

struct MemoryStream {
    length: u64,
    bytes: Option<Vec<u8>>,
}

impl ByteStream for MemoryStream {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn next_chunk<'a>(&'a mut self) -> LocalBoxFuture<'a, Result<Option<Vec<u8>>, Error>> {
        Box::pin(ready(Ok(self.bytes.take())))
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub use directory::DirectorySource;

#[cfg(not(target_arch = "wasm32"))]
mod directory {
    use std::fs::File;
    use std::io::{ErrorKind, Read};
    use std::path::{Path, PathBuf};

    use super::*;

    /// A number of bytes large enough that a system call is not felt, small beside any weight.
    const CHUNK_BYTES: u64 = 1 << 20;

    /// A checkpoint in a directory of this machine, or in one file.
    #[derive(Debug, Clone)]
    pub struct DirectorySource {
        root: PathBuf,
        name: String,
        single_file: Option<String>,
    }

    impl DirectorySource {
        /// The checkpoint at `path`: a directory, or a file that holds all of it. Nothing is opened yet.
        pub fn new(path: impl AsRef<Path>) -> Self {
            let path = path.as_ref();
            let name = path.display().to_string();
            match (path.is_file(), path.parent(), path.file_name()) {
                (true, Some(folder), Some(file)) => {
                    let single_file = Some(file.to_string_lossy().into_owned());
                    Self { root: folder.to_owned(), name, single_file }
                }
                _ => Self { root: path.to_owned(), name, single_file: None },
            }
        }

        fn open_file(&self, path: &str) -> Result<FileStream, Error> {
            check_path(path)?;
            let failed = |error: std::io::Error| match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => {
                    Error::NotFound { file: path.to_owned(), origin: self.name.clone() }
                }
                _ => Error::Read { file: path.to_owned(), reason: error.to_string() },
            };
            let place = self.root.join(path);
            // Before it is opened: a named pipe would wait for somebody to write to it.
            if !std::fs::metadata(&place).map_err(failed)?.is_file() {
                return Err(Error::Read { file: path.to_owned(), reason: "it is not a regular file".to_owned() });
            }
            let file = File::open(place).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            Ok(FileStream { path: path.to_owned(), length, file })
        }
    }

    impl Source for DirectorySource {
        fn name(&self) -> &str {
            &self.name
        }

        fn single_file(&self) -> Option<&str> {
            self.single_file.as_deref()
        }

        fn open<'a>(&'a self, path: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn ByteStream>, Error>> {
            Box::pin(ready(self.open_file(path).map(|stream| Box::new(stream) as Box<dyn ByteStream>)))
        }
    }

    struct FileStream {
        path: String,
        length: u64,
        file: File,
    }

    impl FileStream {
        fn read(&mut self) -> Result<Option<Vec<u8>>, Error> {
            let mut chunk = Vec::new();
            let read = (&mut self.file).take(CHUNK_BYTES).read_to_end(&mut chunk);
            read.map_err(|error| Error::Read { file: self.path.clone(), reason: error.to_string() })?;
            Ok((!chunk.is_empty()).then_some(chunk))
        }
    }

    impl ByteStream for FileStream {
        fn length(&self) -> Option<u64> {
            Some(self.length)
        }

        fn next_chunk<'a>(&'a mut self) -> LocalBoxFuture<'a, Result<Option<Vec<u8>>, Error>> {
            Box::pin(ready(self.read()))
        }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use pollster::block_on;

    use super::*;

    #[test]
    fn a_path_that_leads_out_of_the_checkpoint_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "x").unwrap();
        let source = DirectorySource::new(directory.path().join("model"));
        for path in ["../secret", "/etc/passwd", "a/../../secret", "", "a//b", "./a", "..\\secret", "C:secret", "a\0b"]
        {
            let refused = Err(Error::Path { path: path.to_owned() });
            assert_eq!(block_on(read_small(&source, path, 10)), refused, "{path:?}");
            assert_eq!(block_on(read_small(&MemorySource::new(), path, 10)), refused, "{path:?}");
        }
        assert_eq!(check_path("unet/diffusion_pytorch_model..fp16.safetensors"), Ok(()));
    }

    #[test]
    fn a_directory_streams_a_file_in_chunks_and_a_missing_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..(5u32 << 19)).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::create_dir(directory.path().join("unet")).unwrap();
        std::fs::write(directory.path().join("unet/weights"), &bytes).unwrap();
        let source = DirectorySource::new(directory.path());

        let mut stream = block_on(source.open("unet/weights")).unwrap();
        assert_eq!(stream.length(), Some(bytes.len() as u64));
        let mut chunks = Vec::new();
        while let Some(chunk) = block_on(stream.next_chunk()).unwrap() {
            chunks.push(chunk);
        }
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [1 << 20, 1 << 20, 1 << 19]);
        assert!(chunks.concat() == bytes);

        let origin = directory.path().display().to_string();
        for missing in ["vae/config.json", "unet/weights/config.json"] {
            let error = block_on(read_small(&source, missing, 10)).unwrap_err();
            assert_eq!(error, Error::NotFound { file: missing.to_owned(), origin: origin.clone() });
        }
        assert!(matches!(block_on(read_small(&source, "unet", 10)), Err(Error::Read { file, .. }) if file == "unet"));
    }

    #[test]
    fn a_small_file_is_read_up_to_its_limit_and_no_further() {
        let mut source = MemorySource::new();
        source.insert("config.json", *b"{}  ");
        assert_eq!(block_on(read_small(&source, "config.json", 4)).unwrap(), b"{}  ");
        let too_large = Error::TooLarge { file: "config.json".to_owned(), limit: 3 };
        assert_eq!(block_on(read_small(&source, "config.json", 3)), Err(too_large));
    }
}
