//! Features of many pictures, in the order of the pictures, in a file that outlives an interrupted run.
//!
//! The file lies in the user's cache folder under a name that follows from everything its numbers depend on, so that the same
//! command finds it again. Where another run is at work on it, or it cannot be written there, a file without a name takes its place,
//! which goes with the run. A record is a picture: its features as little-endian f32, then eight bytes of checksum, which tell
//! a whole record from one that the run was killed in.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use undiffuse::metrics::{self, Hash, Rows};

use super::output::note;
use super::{Error, cache};

/// How the file begins; the number is that of its form.
const MAGIC: &[u8; 24] = b"undiffuse features  \0\0\0\x01";

/// How long the file of a run that has not been taken up again is kept: a month.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Bytes of a checksum.
const CHECKSUM: usize = 8;

/// The file, locked against other runs.
pub struct Journal {
    /// None of a file that goes with the run.
    path: Option<PathBuf>,
    rows: FileRows,
    /// Whether there are pictures behind those that this run is about: an earlier one was about more.
    holds_more: bool,
}

impl Journal {
    /// Opens the file of what hashes to `key`, with what an earlier run has left in it, or begins one.
    ///
    /// # Errors
    /// If there is no place to write to at all.
    pub fn open(key: Hash, dimension: usize) -> Result<Self, Error> {
        let Some(cache) = cache::folder() else {
            note(format_args!("there is no folder to keep features in; a run that is interrupted will begin anew"));
            return Self::temporary(dimension);
        };
        Self::open_in(&cache.join("features"), &format!("{:016x}", key.value()), dimension)
    }

    /// Opens the file under `name` in `folder`, which is made if it is not there, or one in its place where that cannot be written.
    fn open_in(folder: &Path, name: &str, dimension: usize) -> Result<Self, Error> {
        let made = fs::create_dir_all(folder).map_err(|error| Error::path(folder, error));
        sweep(folder, SystemTime::now());
        made.and_then(|()| Self::open_file(folder.join(name), dimension)).or_else(|error| {
            note(format_args!(
                "{error}; features are kept in a temporary file, and a run that is interrupted will begin anew"
            ));
            Self::temporary(dimension)
        })
    }

    fn open_file(path: PathBuf, dimension: usize) -> Result<Self, Error> {
        let error = |error: io::Error| Error::path(&path, error);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                note(format_args!(
                    "another run is at work on the same features; this one computes its own, and begins anew if it is interrupted"
                ));
                return Self::temporary(dimension);
            }
            Err(TryLockError::Error(failed)) => return Err(error(failed)),
        }
        let mut journal = Self::new(file, Some(path), dimension);
        let whole = journal.whole_records().map_err(|e| journal.error(e))?;
        journal.truncate(whole)?;
        Ok(journal)
    }

    /// In a file that nobody else finds, and that goes with this run however it ends.
    fn temporary(dimension: usize) -> Result<Self, Error> {
        let file = tempfile::tempfile().map_err(|error| {
            let message = format!("{error}; features need a folder to be kept in: set XDG_CACHE_HOME or TMPDIR to one");
            Error::path(&env::temp_dir(), message)
        })?;
        let mut journal = Self::new(file, None, dimension);
        journal.truncate(0)?;
        Ok(journal)
    }

    fn new(file: File, path: Option<PathBuf>, dimension: usize) -> Self {
        let rows = FileRows::new(file, MAGIC.len() as u64, 4 * dimension + CHECKSUM, dimension, 0);
        Self { path, rows, holds_more: false }
    }

    fn error(&self, error: io::Error) -> Error {
        Error::path(self.path.as_deref().unwrap_or(&env::temp_dir()), error)
    }

    /// How many records, from the first on, are as they were written.
    fn whole_records(&self) -> io::Result<usize> {
        let mut file = self.rows.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = BufReader::new(&mut *file);
        reader.seek(SeekFrom::Start(0))?;
        let mut magic = [0; MAGIC.len()];
        let mut record = vec![0; self.rows.stride];
        if !read_whole(&mut reader, &mut magic)? || magic != *MAGIC {
            return Ok(0);
        }
        let mut count = 0;
        while read_whole(&mut reader, &mut record)? {
            let (features, sum) = record.split_at(record.len() - CHECKSUM);
            if checksum(count, features) != sum {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// Goes on with the first `count` pictures, and leaves those behind them, if any, to a run that is about more.
    pub fn take(&mut self, count: usize) {
        self.holds_more = count < self.rows.count;
        self.rows.count = self.rows.count.min(count);
    }

    /// Keeps the first `count` pictures.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn truncate(&mut self, count: usize) -> Result<(), Error> {
        let file = self.rows.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        let length = self.rows.start + (count * self.rows.stride) as u64;
        let mut cut = || -> io::Result<()> {
            if count == 0 {
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                return file.write_all(MAGIC);
            }
            file.set_len(length)
        };
        let done = cut();
        done.map_err(|error| self.error(error))?;
        self.rows.count = count;
        Ok(())
    }

    /// Appends pictures' features, `[pictures, dimension]`.
    ///
    /// # Errors
    /// If the file cannot be written: a full disk.
    pub fn append(&mut self, features: &[f32]) -> Result<(), Error> {
        let mut bytes = Vec::new();
        let mut count = self.rows.count;
        for row in features.chunks_exact(self.rows.dimension) {
            let row: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
            bytes.extend(&row);
            bytes.extend(checksum(count, &row));
            count += 1;
        }
        let file = self.rows.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        let end = self.rows.start + (self.rows.count * self.rows.stride) as u64;
        let written = file.seek(SeekFrom::Start(end)).and_then(|_| file.write_all(&bytes));
        written.map_err(|error| self.error(error))?;
        self.rows.count = count;
        Ok(())
    }

    /// The features.
    pub fn rows(&self) -> &FileRows {
        &self.rows
    }

    /// Removes the file, all of whose numbers have been used.
    pub fn remove(self) {
        if let Some(path) = self.path.filter(|_| !self.holds_more) {
            // Where it cannot be, it is found by the next run of this command, which it spares the work.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes what nobody has gone on with for [`KEPT`] before `now`.
fn sweep(folder: &Path, now: SystemTime) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        if written.is_ok_and(|written| now.duration_since(written).is_ok_and(|age| age > KEPT)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Of a record: the number of the picture counts too, so that records cannot change places.
fn checksum(picture: usize, features: &[u8]) -> [u8; CHECKSUM] {
    let mut hash = Hash::new();
    hash.add(&(picture as u64).to_le_bytes());
    hash.add(features);
    hash.value().to_le_bytes()
}

/// Fills `buffer`; false where the file ends before.
fn read_whole(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Features that lie in a file, read where they are asked for.
pub struct FileRows {
    file: Mutex<File>,
    /// Where the first picture's are.
    start: u64,
    /// Bytes from one picture to the next.
    stride: usize,
    dimension: usize,
    count: usize,
}

impl FileRows {
    /// Those of `count` pictures, `stride` bytes from each other.
    pub fn new(file: File, start: u64, stride: usize, dimension: usize, count: usize) -> Self {
        Self { file: Mutex::new(file), start, stride, dimension, count }
    }

    /// Those of a file of statistics, at `start`.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path, start: u64, dimension: usize, count: usize) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| Error::path(path, error))?;
        Ok(Self::new(file, start, 4 * dimension, dimension, count))
    }

    /// The bytes of a picture's features.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read(&self, picture: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.resize(4 * self.dimension, 0);
        // Whoever held it was only reading.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.start + (picture * self.stride) as u64))?;
        file.read_exact(bytes)
    }
}

impl Rows for FileRows {
    fn count(&self) -> usize {
        self.count
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn gather(&self, pictures: &[usize]) -> Result<Vec<f64>, metrics::Error> {
        let mut features = Vec::with_capacity(pictures.len() * self.dimension);
        let mut bytes = Vec::new();
        for &picture in pictures {
            self.read(picture, &mut bytes).map_err(|error| metrics::Error::File {
                file: "features".to_owned(),
                message: format!("those of picture {picture} cannot be read: {error}"),
            })?;
            features.extend(bytes.as_chunks().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))));
        }
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIMENSION: usize = 3;

    fn features(from: usize, to: usize) -> Vec<f32> {
        (from * DIMENSION..to * DIMENSION).map(|i| i as f32 / 7.0).collect()
    }

    fn all(journal: &Journal) -> Vec<f64> {
        journal.rows().gather(&(0..journal.rows().count()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn wherever_it_is_cut_whole_records_are_kept_and_the_rest_is_as_if_it_had_not_been_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let open = || Journal::open_file(path.clone(), DIMENSION).unwrap();
        let mut journal = open();
        journal.append(&features(0, 2)).unwrap();
        journal.append(&features(2, 5)).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        let expected: Vec<f64> = features(0, 5).iter().map(|&v| f64::from(v)).collect();
        let record = 4 * DIMENSION + CHECKSUM;
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let mut journal = open();
            let kept = journal.rows().count();
            assert_eq!(kept, length.saturating_sub(MAGIC.len()) / record, "cut after {length} bytes");
            journal.append(&features(kept, 5)).unwrap();
            assert_eq!(all(&journal), expected, "cut after {length} bytes");
            drop(journal);
            assert!(fs::read(&path).unwrap() == whole, "cut after {length} bytes");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            let journal = open();
            assert!(journal.rows().count() < 5, "a wrong bit in byte {at}");
            let kept = all(&journal);
            assert_eq!(kept, expected[..kept.len()], "a wrong bit in byte {at}");
        }
    }

    #[test]
    fn one_run_at_a_time_writes_and_the_file_goes_when_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open_file(path.clone(), DIMENSION).unwrap();
        journal.append(&features(0, 2)).unwrap();
        let mut other = Journal::open_file(path.clone(), DIMENSION).unwrap();
        assert_eq!(other.rows().count(), 0, "it has a file of its own");
        other.append(&features(0, 4)).unwrap();
        assert_eq!(all(&other), features(0, 4).iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
        other.remove();
        assert_eq!(fs::metadata(&path).unwrap().len(), (MAGIC.len() + 2 * (4 * DIMENSION + CHECKSUM)) as u64);
        journal.truncate(1).unwrap();
        drop(journal);
        let journal = Journal::open_file(path.clone(), DIMENSION).unwrap();
        assert_eq!(journal.rows().count(), 1);
        journal.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_run_of_fewer_pictures_leaves_the_others_to_one_of_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open_file(path.clone(), DIMENSION).unwrap();
        journal.append(&features(0, 5)).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        for (count, is_left) in [(2, true), (5, false)] {
            let mut journal = Journal::open_file(path.clone(), DIMENSION).unwrap();
            journal.take(count);
            assert_eq!(all(&journal).len(), count * DIMENSION);
            journal.remove();
            assert_eq!(path.exists(), is_left, "{count}");
            assert!(!is_left || fs::read(&path).unwrap() == whole);
        }
    }

    #[test]
    fn where_nothing_can_be_written_features_are_kept_until_the_run_ends() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        fs::create_dir_all(folder.path().join("journal")).unwrap();
        for (folder, name) in [(file.join("features"), "journal"), (folder.path().to_owned(), "journal")] {
            let mut journal = Journal::open_in(&folder, name, DIMENSION).unwrap();
            assert!(journal.path.is_none());
            journal.append(&features(0, 3)).unwrap();
            assert_eq!(all(&journal).len(), 3 * DIMENSION);
        }
    }

    #[test]
    fn what_was_left_a_month_ago_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        drop(Journal::open_file(path.clone(), DIMENSION).unwrap());
        sweep(folder.path(), SystemTime::now());
        assert!(path.exists());
        sweep(folder.path(), SystemTime::now() + KEPT + KEPT);
        assert!(!path.exists());
    }
}
