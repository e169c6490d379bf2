//! One of the two sets that `fid` compares: pictures in a folder, pictures that a model draws, or statistics of either.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use indicatif::ProgressBar;
use pollster::block_on;
use rayon::prelude::*;
use undiffuse::metrics::{self, FeatureExtractor, FeatureSpace, Moments, Rows, Statistics, StatisticsFile, deal};
use undiffuse::pipeline::{Pipeline, SampleOptions};
use undiffuse::weights::{DirectorySource, Source};

use super::journal::{FileRows, Hash, Journal};
use super::metadata::Made;
use super::output::{Output, bar, note};
use super::{Error, npz, picture};

/// Pictures that are drawn at once. More are no faster, and take more memory.
const DRAWN_AT_ONCE: usize = 16;

/// Pictures whose features are taken into the statistics at a time.
const BLOCK: usize = 256;

/// What a set is made from.
pub enum Origin {
    /// Statistics, in a file.
    Statistics(StatisticsFile),
    /// The PNG files of a folder, with their paths inside of it, in the order of these.
    Folder(Vec<PathBuf>),
    /// A checkpoint, not yet opened.
    Model,
}

impl Origin {
    /// What lies at `path`.
    ///
    /// # Errors
    /// If there is nothing, a folder holds no picture, or a file of statistics cannot be read.
    pub fn of(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return match path.join("model_index.json").exists() {
                true => Ok(Self::Model),
                false => folder(path).map(Self::Folder),
            };
        }
        if !path.exists() {
            return Err(Error::path(path, "there is no such folder or file"));
        }
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz")) {
            let (mean, covariance) = npz::read(path)?;
            // The package knows no other network, and does not say how many pictures there were.
            let extractor = "inception-v3-fid".to_owned();
            let space = FeatureSpace { extractor, fingerprint: String::new(), dimension: mean.len() };
            let made_from = path.display().to_string();
            let statistics = Statistics { mean, covariance, count: None, space, made_from };
            statistics.check()?;
            note(format_args!(
                "warning: {}: an .npz does not say which features it holds; they are taken for those of Inception",
                path.display()
            ));
            return Ok(Self::Statistics(StatisticsFile { statistics, features: None }));
        }
        let source = DirectorySource::new(path);
        let file = source.single_file().unwrap_or_default();
        match block_on(StatisticsFile::read(&source, file)) {
            Ok(statistics) => Ok(Self::Statistics(statistics)),
            Err(metrics::Error::NoStatistics { .. }) => Ok(Self::Model),
            Err(error) => {
                let message =
                    format!("pictures come in a folder, and this file is neither statistics nor a model: {error}");
                Err(Error::path(path, message))
            }
        }
    }
}

/// The PNG files in `root` and in the folders inside, by their paths inside of it, in the order of these.
fn folder(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let (mut files, mut others) = (Vec::new(), 0);
    let mut folders = vec![PathBuf::new()];
    while let Some(inside) = folders.pop() {
        let path = root.join(&inside);
        let entries = fs::read_dir(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        for entry in entries.map_err(|error| Error::path(&path, error))? {
            let inside = inside.join(entry.file_name());
            // A link to a folder is not followed: it may lead back up.
            match entry.file_type().map_err(|error| Error::path(&entry.path(), error))? {
                kind if kind.is_dir() => folders.push(inside),
                _ if inside.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) => {
                    files.push(inside);
                }
                _ => others += 1,
            }
        }
    }
    if files.is_empty() {
        let message =
            "there is no PNG in this folder or in those inside, and it is no model: it has no model_index.json";
        return Err(Error::path(root, message));
    }
    if others > 0 {
        let s = if others == 1 { " is" } else { "s are" };
        note(format_args!("warning: {}: {others} file{s} no PNG and left out", root.display()));
    }
    // Byte by byte, so that it is the same everywhere.
    files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(files)
}

/// `count` of `files`, evenly from the first to the last.
pub fn spread(files: Vec<PathBuf>, count: usize) -> Vec<PathBuf> {
    let all = files.len();
    let count = count.min(all);
    (0..count).map(|i| files[i * all / count].clone()).collect()
}

/// A set of pictures as features.
pub struct FeatureSet {
    /// Mean and covariance of all.
    pub statistics: Statistics,
    /// The features, where they are; none where they were not kept.
    pub rows: Option<Features>,
    /// What making it took.
    pub times: Times,
}

/// Where features are.
#[derive(Clone)]
pub enum Features {
    /// In a file of statistics.
    Kept(Rc<FileRows>),
    /// In the cache, until the command has ended well.
    Journal(Rc<Journal>),
}

impl Features {
    /// The features.
    pub fn rows(&self) -> &FileRows {
        match self {
            Self::Kept(rows) => rows,
            Self::Journal(journal) => journal.rows(),
        }
    }

    /// Removes what was only kept for a run that would go on.
    pub fn remove(self) {
        if let Self::Journal(journal) = self
            && let Some(journal) = Rc::into_inner(journal)
        {
            journal.remove();
        }
    }
}

/// What making a set took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Pictures whose features this run computed; others were there.
    pub pictures: usize,
    /// How often the noise predictor was called for each of them, guidance aside.
    pub calls: Option<usize>,
    /// Drawing them.
    pub drawing: Duration,
    /// Reading or saving them, and their features.
    pub extracting: Duration,
}

impl FeatureSet {
    /// What a file of statistics says.
    ///
    /// # Errors
    /// If it cannot be opened again.
    pub fn of_file(path: &Path, file: StatisticsFile) -> Result<Self, Error> {
        let StatisticsFile { statistics, features } = file;
        let rows = match (features, statistics.count) {
            (Some(range), Some(count)) => {
                let rows = FileRows::open(path, range.start, statistics.space.dimension, count)?;
                Some(Features::Kept(Rc::new(rows)))
            }
            _ => None,
        };
        Ok(Self { statistics, rows, times: Times::default() })
    }

    /// What features in the cache come to.
    ///
    /// # Errors
    /// If they cannot be read, or are too few.
    fn of_journal(
        journal: Journal,
        extractor: &FeatureExtractor,
        made_from: String,
        times: Times,
    ) -> Result<Self, Error> {
        let all: Vec<usize> = (0..journal.rows().count()).collect();
        let statistics = moments(journal.rows(), &all)?.statistics(FeatureSpace::of(extractor), made_from)?;
        Ok(Self { statistics, rows: Some(Features::Journal(Rc::new(journal))), times })
    }

    /// The pictures dealt into groups, for standard errors, at most as many as there are pictures; none where there are no
    /// features.
    ///
    /// # Errors
    /// If the features cannot be read.
    pub fn groups(&self, splits: usize) -> Result<Vec<Moments>, Error> {
        let Some(features) = &self.rows else { return Ok(Vec::new()) };
        let rows = features.rows();
        let splits = splits.min(rows.count());
        let dealt = deal(rows.count(), splits);
        let group = |group: usize| (0..dealt.len()).filter(|&picture| dealt[picture] == group).collect::<Vec<_>>();
        (0..splits).map(|index| moments(rows, &group(index))).collect()
    }

    /// A file of the statistics, with the features if there are any and they are wanted.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, output: &Output, with_features: bool) -> Result<(), Error> {
        let rows = self.rows.as_ref().filter(|_| with_features).map(Features::rows);
        let beginning = self.statistics.to_file(rows.is_some())?;
        output.write_with(&mut |file| {
            file.write_all(&beginning)?;
            let mut bytes = Vec::new();
            for picture in 0..rows.map_or(0, Rows::count) {
                if let Some(rows) = rows {
                    rows.read(picture, &mut bytes)?;
                    file.write_all(&bytes)?;
                }
            }
            Ok(())
        })
    }
}

fn moments(rows: &FileRows, pictures: &[usize]) -> Result<Moments, Error> {
    let mut moments = Moments::new(rows.dimension());
    for block in pictures.chunks(BLOCK) {
        moments.push(&rows.gather(block)?)?;
    }
    Ok(moments)
}

/// What makes features of pictures.
pub struct Extraction {
    /// The network.
    pub extractor: FeatureExtractor,
    /// Everything about the device that its numbers depend on.
    pub device: String,
}

impl Extraction {
    /// A hash of the network and the device, to which a set adds its own.
    fn key(&self) -> Hash {
        let mut hash = Hash::new();
        let extractor = &self.extractor;
        for text in [env!("CARGO_PKG_VERSION"), extractor.name(), extractor.fingerprint(), &self.device] {
            hash.add(text.as_bytes());
        }
        hash
    }

    fn open(&self, key: Hash, batch: usize, total: usize) -> Result<Journal, Error> {
        let mut journal = Journal::open(key, self.extractor.features())?;
        let found = journal.rows().count();
        // Batches are then those of a run without a break. More than are wanted may be there.
        let kept = if found >= total { total } else { found - found % batch };
        journal.truncate(kept)?;
        if kept > 0 {
            note(format_args!("going on with the {kept} of {total} pictures that an earlier run has left"));
        }
        Ok(journal)
    }

    /// The features of `files` in `root`; `same` is a set that may be of the very same files.
    ///
    /// # Errors
    /// A picture that cannot be read, by name.
    pub async fn of_folder(
        &mut self,
        root: &Path,
        files: &[PathBuf],
        same: Option<(&[PathBuf], &FeatureSet)>,
    ) -> Result<FeatureSet, Error> {
        if let Some((others, set)) = same
            && others == files
        {
            let (statistics, rows) = (set.statistics.clone(), set.rows.clone());
            return Ok(FeatureSet { statistics, rows, times: Times::default() });
        }
        let mut key = self.key();
        for file in files {
            key.add(file.as_os_str().as_encoded_bytes());
            add_state(&mut key, &root.join(file))?;
        }
        let batch = self.extractor.batch();
        let mut journal = self.open(key, batch, files.len())?;
        let start = Instant::now();
        let before = journal.rows().count();
        let bar = progress("reading ", files.len(), before);
        for files in files[before..].chunks(batch) {
            let paths: Vec<PathBuf> = files.iter().map(|file| root.join(file)).collect();
            let pictures: Vec<_> = paths.par_iter().map(|path| picture::read(path)).collect();
            let pictures = pictures.into_iter().collect::<Result<Vec<_>, _>>()?;
            let features = self.extractor.extract(&pictures).await.map_err(|error| match error {
                metrics::Error::Picture { index, message } => Error::path(&paths[index], message),
                error => error.into(),
            })?;
            journal.append(&features)?;
            bar.inc(files.len() as u64);
        }
        bar.finish_and_clear();
        let times = Times { pictures: files.len() - before, extracting: start.elapsed(), ..Times::default() };
        let made_from = format!("{} pictures in {}", files.len(), root.display());
        FeatureSet::of_journal(journal, &self.extractor, made_from, times)
    }

    /// The features of what a model draws.
    ///
    /// # Errors
    /// An option that the model does not take, or what goes wrong on the device.
    pub async fn of_model(&mut self, pipeline: &Pipeline, drawing: &Drawing<'_>) -> Result<FeatureSet, Error> {
        let mut key = self.key();
        drawing.add_to(&mut key)?;
        let mut journal = self.open(key, DRAWN_AT_ONCE, drawing.count)?;
        let before = journal.rows().count();
        let bar = progress("drawing ", drawing.count, before);
        let mut times = Times { pictures: drawing.count - before, ..Times::default() };
        let mut warned: Vec<String> = Vec::new();
        let mut next = before;
        while next < drawing.count {
            let batch = next..(next + DRAWN_AT_ONCE).min(drawing.count);
            let start = Instant::now();
            let mut sampler = pipeline.sampler(drawing.options(batch.clone())).await?;
            if let Some(warning) = sampler.warning()
                && !warned.iter().any(|earlier| earlier == warning)
            {
                bar.suspend(|| note(format_args!("warning: {warning}")));
                warned.push(warning.to_owned());
            }
            times.calls = Some(sampler.total());
            let mut pictures = Vec::new();
            while let Some(step) = sampler.step().await? {
                pictures = step.images;
            }
            times.drawing += start.elapsed();
            let start = Instant::now();
            if let Some(folder) = drawing.save {
                // Before the features, so that a run that goes on from these has the pictures too.
                for (index, drawn) in batch.clone().zip(&pictures) {
                    let path = folder.join(file_name(index));
                    let texts = drawing.made(index).texts(drawn.width, drawn.height, &pipeline.info().scheduler);
                    Output::new(&path)?.write(&picture::encode(drawn, &texts).map_err(|e| Error::path(&path, e))?)?;
                }
            }
            journal.append(&self.extractor.extract(&pictures).await?)?;
            times.extracting += start.elapsed();
            bar.inc(batch.len() as u64);
            next = batch.end;
        }
        bar.finish_and_clear();
        let made_from = format!("{} pictures drawn by {}", drawing.count, drawing.model.display());
        FeatureSet::of_journal(journal, &self.extractor, made_from, times)
    }
}

/// What a model is to draw.
pub struct Drawing<'a> {
    /// The checkpoint.
    pub model: &'a Path,
    /// Everything but prompts and seeds.
    pub options: SampleOptions,
    /// Each in its turn; empty for a model that takes none.
    pub prompts: &'a [String],
    /// Of the first picture; each other has the next.
    pub seed: u64,
    /// How many.
    pub count: usize,
    /// Where they are kept.
    pub save: Option<&'a Path>,
    /// What else decides about the pictures: the command's own options, as text.
    pub settings: String,
    /// What a picture is said to be made with, but for its prompt and seed.
    pub made: &'a dyn Fn() -> Made,
}

impl Drawing<'_> {
    fn prompt(&self, index: usize) -> Option<&String> {
        self.prompts.get(index.checked_rem(self.prompts.len())?)
    }

    fn seed(&self, index: usize) -> u64 {
        self.seed.wrapping_add(index as u64)
    }

    /// The options for some of the pictures: each is the one that it would be alone.
    pub fn options(&self, pictures: std::ops::Range<usize>) -> SampleOptions {
        let prompts: Vec<String> = pictures.clone().filter_map(|index| self.prompt(index).cloned()).collect();
        let with_prompts = !prompts.is_empty();
        SampleOptions {
            seeds: pictures.clone().map(|index| self.seed(index)).collect(),
            num_images_per_prompt: if with_prompts { 1 } else { pictures.len() },
            prompt: if with_prompts { prompts.into() } else { Default::default() },
            ..self.options.clone()
        }
    }

    fn made(&self, index: usize) -> Made {
        (self.made)().with("prompt", self.prompt(index).cloned()).with("seed", self.seed(index).to_string())
    }

    fn add_to(&self, key: &mut Hash) -> Result<(), Error> {
        key.add(self.settings.as_bytes());
        key.add(&self.seed.to_le_bytes());
        self.prompts.iter().for_each(|prompt| key.add(prompt.as_bytes()));
        // Those that an earlier run has saved elsewhere are not here.
        if let Some(folder) = self.save {
            let folder = fs::canonicalize(folder).map_err(|error| Error::path(folder, error))?;
            key.add(folder.as_os_str().as_encoded_bytes());
        }
        if self.model.is_file() {
            return add_state(key, self.model);
        }
        let mut folders = vec![self.model.to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            for entry in entries.map_err(|error| Error::path(&folder, error))? {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    _ => files.push(entry.path()),
                }
            }
        }
        files.sort();
        for file in files {
            key.add(file.as_os_str().as_encoded_bytes());
            add_state(key, &file)?;
        }
        Ok(())
    }

    /// Makes the folder for the pictures, and makes sure that no others are in it, which would be taken for some of these.
    ///
    /// # Errors
    /// If it cannot be made, or a PNG is in it that is not to be written.
    pub fn prepare(&self) -> Result<(), Error> {
        let Some(folder) = self.save else { return Ok(()) };
        fs::create_dir_all(folder).map_err(|error| Error::path(folder, error))?;
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        for entry in entries.map_err(|error| Error::path(folder, error))? {
            let path = PathBuf::from(entry.file_name());
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<usize>().ok());
            let is_ours = number.is_some_and(|number| number < self.count && path == Path::new(&file_name(number)));
            if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) && !is_ours {
                let message = "this picture would lie among those to be saved; give a folder of their own";
                return Err(Error::path(&entry.path(), message));
            }
        }
        Ok(())
    }
}

fn file_name(index: usize) -> String {
    format!("{index:06}.png")
}

/// How large a file is and when it was last written, which tells it from another under its name.
fn add_state(key: &mut Hash, path: &Path) -> Result<(), Error> {
    let metadata = fs::metadata(path).map_err(|error| Error::path(path, error))?;
    key.add(&metadata.len().to_le_bytes());
    let written = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    key.add(&written.as_nanos().to_le_bytes());
    Ok(())
}

fn progress(what: &str, total: usize, done: usize) -> ProgressBar {
    let bar = bar(&format!("{what} {{bar:30}} {{pos}}/{{len}}  {{per_sec}}, {{eta}} left"));
    bar.set_length(total as u64);
    // Speed and time left are those of this run.
    bar.set_position(done as u64);
    bar.reset_eta();
    bar
}
