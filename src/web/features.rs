//! Features of pictures, and the distance between two sets of them, for JavaScript.

use js_sys::{Float32Array, Promise};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use super::error::Error;
use super::promise::promise;
use super::slot::Slot;
use super::source::{Failure, JsSource, OpenSource};
use super::{Machine, Pixels, open_device, picture_of};
use crate::metrics::{self, FeatureSpace, Kid, Moments, Rows, Statistics, StatisticsFile, deal, frechet, kid};
use crate::weights::{Source, read_whole};

/// The longest file of statistics that is read: 50,000 pictures in 2048 numbers each fit.
const MAX_STATISTICS: usize = 1 << 29;

/// Groups that are left out in turn for a standard error, as the command has them.
const SPLITS: usize = 20;

/// A network on a device that turns pictures into features; `free` it to free what it holds there.
#[wasm_bindgen]
pub struct FeatureExtractor {
    info: String,
    space: FeatureSpace,
    slot: Slot<metrics::FeatureExtractor>,
}

#[wasm_bindgen]
impl FeatureExtractor {
    /// Loads the network in `source` onto the CPU, if it is there as a `machine`, else onto WebGPU's `adapter` of this name, with
    /// kernels made of `shaders`.
    #[wasm_bindgen(unchecked_return_type = "Promise<FeatureExtractor>")]
    pub fn load(
        source: OpenSource,
        machine: Option<Machine>,
        adapter: Option<String>,
        shaders: Option<String>,
    ) -> Promise {
        promise(async move {
            let failure = Failure::default();
            let source = JsSource::new(source, failure.clone());
            let device = open_device(machine, adapter, shaders, None).await?;
            let extractor = metrics::FeatureExtractor::load(&source, device).await;
            let extractor = extractor.map_err(|error| failure.unwrap(error))?;
            let space = FeatureSpace {
                extractor: extractor.name().to_owned(),
                fingerprint: extractor.fingerprint().to_owned(),
                dimension: extractor.features(),
            };
            let info = json!({
                "name": space.extractor,
                "fingerprint": space.fingerprint,
                "dimension": space.dimension,
                "side": extractor.side(),
                "batch": extractor.batch(),
            });
            Ok(Self { info: info.to_string(), space, slot: Slot::new(extractor) }.into())
        })
    }

    /// `FeatureInfo` of index.d.ts, as JSON.
    pub fn info(&self) -> String {
        self.info.clone()
    }

    /// Resolves to the features of the pictures, a `Float32Array` `[pictures, dimension]`.
    pub fn extract(&self, images: Vec<Pixels>) -> Promise {
        let images: Vec<_> = images.into_iter().map(picture_of).collect();
        self.slot.ask(async move |extractor| Ok(Float32Array::from(&extractor.extract(&images).await?[..]).into()))
    }

    /// Resolves to what is on the pictures: a list of `Classification` of index.d.ts, as JSON.
    pub fn classify(&self, images: Vec<Pixels>, most: usize) -> Promise {
        let images: Vec<_> = images.into_iter().map(picture_of).collect();
        self.slot.ask(async move |extractor| {
            let answers = extractor.classify(&images, most).await?;
            let label = |label: &metrics::Label| json!({ "name": label.name, "probability": label.probability });
            let answer = |answer: metrics::Classification| {
                json!({
                    "glyphs": answer.glyphs.iter().map(label).collect::<Value>(),
                    "styles": answer.styles.iter().map(label).collect::<Value>(),
                })
            };
            Ok(answers.into_iter().map(answer).collect::<Value>().to_string().into())
        })
    }
}

/// A set of pictures, as features or, where these were not kept, as their statistics.
#[wasm_bindgen]
pub struct PictureSet {
    space: FeatureSpace,
    features: Vec<f32>,
    /// The statistics of a file.
    saved: Option<Statistics>,
}

#[wasm_bindgen]
impl PictureSet {
    /// A set of no pictures yet, to which `extractor`'s features can be added.
    #[wasm_bindgen(constructor)]
    pub fn new(extractor: &FeatureExtractor) -> Self {
        Self { space: extractor.space.clone(), features: Vec::new(), saved: None }
    }

    /// Reads the one file of statistics in `source`.
    #[wasm_bindgen(unchecked_return_type = "Promise<PictureSet>")]
    pub fn open(source: OpenSource) -> Promise {
        promise(async move {
            let failure = Failure::default();
            let source = JsSource::new(source, failure.clone());
            let path = source.single_file().unwrap_or_default();
            let read = async {
                let StatisticsFile { statistics, features } = StatisticsFile::read(&source, path).await?;
                let features = match features {
                    None => Vec::new(),
                    Some(range) => {
                        let file = read_whole(&source, path, MAX_STATISTICS).await?;
                        let bytes = file.get(range.start as usize..range.end as usize).unwrap_or_default();
                        bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
                    }
                };
                Ok(Self { space: statistics.space.clone(), features, saved: Some(statistics) }.into())
            };
            read.await.map_err(|error: metrics::Error| failure.unwrap(error))
        })
    }

    /// Number of pictures that it holds.
    #[wasm_bindgen(getter)]
    pub fn pictures(&self) -> usize {
        match &self.saved {
            Some(statistics) => statistics.count.unwrap_or_default(),
            None => self.rows(),
        }
    }

    /// Adds what [`FeatureExtractor::extract`] has made of pictures.
    pub fn add(&mut self, features: &[f32]) {
        self.features.extend(features);
        // Of more pictures than the file's.
        self.saved = None;
    }

    /// The distance to `real`: `Distance` of index.d.ts, as JSON; `errors` says whether standard errors are asked for, and KID.
    ///
    /// # Errors
    /// Sets of two extractors, or of too few pictures.
    pub fn distance(&self, real: &PictureSet, errors: bool) -> Result<String, JsValue> {
        self.distance_to(real, errors).map(|json| json.to_string()).map_err(|error| Error::from(error).into_js())
    }
}

impl PictureSet {
    fn rows(&self) -> usize {
        self.features.len() / self.space.dimension.max(1)
    }

    /// The moments of each of `groups` groups.
    fn moments(&self, groups: usize) -> Result<Vec<Moments>, metrics::Error> {
        let mut moments = vec![Moments::new(self.space.dimension); groups];
        let rows = self.features.chunks_exact(self.space.dimension.max(1));
        let mut blocks = vec![Vec::new(); groups];
        for (row, group) in rows.zip(deal(self.rows(), groups)) {
            blocks[group].extend(row.iter().map(|&number| f64::from(number)));
        }
        for (moments, block) in moments.iter_mut().zip(&blocks) {
            moments.push(block)?;
        }
        Ok(moments)
    }

    fn statistics(&self) -> Result<Statistics, metrics::Error> {
        match &self.saved {
            Some(statistics) => Ok(statistics.clone()),
            None => self.moments(1)?[0].statistics(self.space.clone(), "pictures in a browser".to_owned()),
        }
    }

    fn distance_to(&self, real: &Self, errors: bool) -> Result<Value, metrics::Error> {
        real.space.check(&self.space)?;
        let statistics = real.statistics()?;
        let (fid, kid): (metrics::Estimate, Option<Kid>) = match errors && self.saved.is_none() {
            true => {
                let options = kid::Options { splits: SPLITS, ..kid::Options::default() };
                let both = real.rows() > 1 && self.rows() > 1;
                let kid = if both { Some(metrics::kid(real, self, options)?) } else { None };
                (frechet::with_standard_error(&statistics, &self.moments(SPLITS.min(self.rows()))?)?, kid)
            }
            false => {
                let value = metrics::frechet_distance(&statistics, &self.statistics()?)?;
                (metrics::Estimate { value, standard_error: None }, None)
            }
        };
        Ok(json!({
            "fid": fid.value,
            "fidStandardError": fid.standard_error,
            "kid": kid.map(|kid| kid.value),
            "kidStandardError": kid.and_then(|kid| kid.standard_error),
            "count": self.pictures(),
            "realCount": real.pictures(),
        }))
    }
}

impl Rows for PictureSet {
    fn count(&self) -> usize {
        self.rows()
    }

    fn dimension(&self) -> usize {
        self.space.dimension
    }

    fn gather(&self, pictures: &[usize]) -> Result<Vec<f64>, metrics::Error> {
        let row = |&picture: &usize| &self.features[picture * self.dimension()..][..self.dimension()];
        Ok(pictures.iter().flat_map(row).map(|&number| f64::from(number)).collect())
    }
}
