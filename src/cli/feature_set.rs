//! One of the two sets that `fid` compares: pictures in a folder, pictures that a model draws, or statistics of either.

use std::env;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use indicatif::ProgressBar;
use pollster::block_on;
use rayon::prelude::*;
use undiffuse::metrics::{self, FeatureExtractor, FeatureSpace, Hash, Moments, Rows, Statistics, StatisticsFile, deal};
use undiffuse::pipeline::{ModelInfo, Pipeline, SampleOptions};
use undiffuse::weights::{DirectorySource, Source};

use super::journal::{FileRows, Journal};
use super::metadata::Provenance;
use super::output::{Output, bar, note};
use super::{Error, npz, picture};

/// Pictures that are drawn at once. More are no faster, and take more memory.
const DRAWN_AT_ONCE: usize = 16;

/// Pictures whose features are taken into the statistics at a time.
const BLOCK: usize = 256;

/// Pixels that are decoded at a time, unless one picture alone has more: 128 MiB of RGBA.
const DECODED_AT_ONCE: usize = 1 << 25;

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
                false => picture::folder(path, ", and it is no model: it has no model_index.json").map(Self::Folder),
            };
        }
        if !path.is_file() {
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
        // Another build of the same version may compute other bits.
        let _ = env::current_exe().map(|command| add_state(&mut hash, &command));
        hash
    }

    fn open(&self, key: Hash, batch: usize, total: usize) -> Result<Journal, Error> {
        let mut journal = Journal::open(key, self.extractor.features())?;
        let found = journal.rows().count();
        match found >= total {
            true => journal.take(total),
            // Batches are then those of a run without a break.
            false => journal.truncate(found - found % batch)?,
        }
        let kept = journal.rows().count();
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
        // A copy of the folder is another set of pictures.
        let place = fs::canonicalize(root).map_err(|error| Error::path(root, error))?;
        key.add(place.as_os_str().as_encoded_bytes());
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
            let sizes: Vec<usize> = paths.iter().map(|path| picture::pixels(path)).collect();
            let mut features = Vec::new();
            for part in within(&sizes, DECODED_AT_ONCE) {
                let paths = &paths[part];
                let pictures: Vec<_> = paths.par_iter().map(|path| picture::read_as_stored(path)).collect();
                let pictures = pictures.into_iter().collect::<Result<Vec<_>, _>>()?;
                features.extend(self.extractor.extract(&pictures).await.map_err(|error| match error {
                    metrics::Error::Picture { index, message } => Error::path(&paths[index], message),
                    error => error.into(),
                })?);
            }
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
                    let texts = drawing.texts(index, drawn.width, drawn.height, &pipeline.info().scheduler);
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
    pub made: &'a dyn Fn() -> Provenance,
}

impl Drawing<'_> {
    fn prompt(&self, index: usize) -> Option<&String> {
        self.prompts.get(index.checked_rem(self.prompts.len())?)
    }

    fn seed(&self, index: usize) -> u64 {
        self.seed.wrapping_add(index as u64)
    }

    /// The options for some of the pictures: each is the one that it would be alone.
    pub fn options(&self, pictures: Range<usize>) -> SampleOptions {
        let prompts: Vec<String> = pictures.clone().filter_map(|index| self.prompt(index).cloned()).collect();
        let with_prompts = !prompts.is_empty();
        SampleOptions {
            seeds: pictures.clone().map(|index| self.seed(index)).collect(),
            num_images_per_prompt: if with_prompts { 1 } else { pictures.len() },
            prompt: if with_prompts { prompts.into() } else { Default::default() },
            ..self.options.clone()
        }
    }

    fn texts(&self, index: usize, width: usize, height: usize, scheduler: &str) -> Vec<(&'static str, String)> {
        let made = (self.made)().with("prompt", self.prompt(index).cloned()).with("seed", self.seed(index).to_string());
        made.texts(width, height, scheduler)
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

    /// Makes the folder for the pictures of this `model`, and makes sure that no others are in it: they would be lost, or taken
    /// for some of these. What an earlier run of the same command has drawn may be there.
    ///
    /// # Errors
    /// If it cannot be made, has anything to do with the folder of `real` pictures, or a PNG is in it that is not one of these.
    pub fn prepare(&self, model: &ModelInfo, real: Option<&Path>) -> Result<(), Error> {
        let Some(folder) = self.save else { return Ok(()) };
        let is_new = !folder.exists();
        fs::create_dir_all(folder).map_err(|error| Error::path(folder, error))?;
        let checked = self.check(folder, model, real);
        if checked.is_err() && is_new {
            // What has failed above is what the user needs to know.
            let _ = fs::remove_dir(folder);
        }
        checked
    }

    fn check(&self, folder: &Path, model: &ModelInfo, real: Option<&Path>) -> Result<(), Error> {
        if let Some(real) = real {
            let [real, folder] = [real, folder].map(|path| fs::canonicalize(path).map_err(|e| Error::path(path, e)));
            let (real, folder) = (real?, folder?);
            if real.starts_with(&folder) || folder.starts_with(&real) {
                let message = "the --real pictures are in this folder, or it is in theirs; give one apart from them";
                return Err(Error::option("--save-pictures", message));
            }
        }
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        for entry in entries.map_err(|error| Error::path(folder, error))? {
            let path = PathBuf::from(entry.file_name());
            if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
                continue;
            }
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<usize>().ok());
            let ours = number.filter(|&number| number < self.count && path == Path::new(&file_name(number)));
            let message = match ours {
                None => "this picture would lie among those to be saved; give a folder of their own",
                Some(index) => {
                    let expected = self.texts(index, model.width, model.height, &model.scheduler);
                    if picture::has_texts(&entry.path(), &expected) {
                        continue;
                    }
                    "this picture was made otherwise than the one to be saved there, and would be lost; give another folder"
                }
            };
            return Err(Error::path(&entry.path(), message));
        }
        Ok(())
    }
}

/// Of pictures of these `sizes` in pixels, the parts one after the other that have no more than `most` together, or one picture.
fn within(sizes: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut pixels = 0;
    for (index, &size) in sizes.iter().enumerate() {
        match parts.last_mut() {
            Some(part) if size <= most - pixels => part.end = index + 1,
            _ => {
                parts.push(index..index + 1);
                pixels = 0;
            }
        }
        pixels = most.min(pixels.saturating_add(size));
    }
    parts
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_decoded_within_a_number_of_pixels_and_at_least_one() {
        let none: [Range<usize>; 0] = [];
        assert_eq!(within(&[], 10), none);
        assert_eq!(within(&[4, 6, 1, 0, 9], 10), [0..2, 2..5]);
        assert_eq!(within(&[11, 2, 12, 3, 7, 1], 10), [0..1, 1..2, 2..3, 3..5, 5..6]);
        assert_eq!(within(&[usize::MAX, usize::MAX, 1], 10), [0..1, 1..2, 2..3]);
    }
}
