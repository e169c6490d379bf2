//! Statistics as a safetensors file: `mean` [d] and `covariance` [d, d] in f64, `features` [N, d] in f32 where they are kept, and in
//! its metadata what they are.

use std::ops::Range;

use serde_json::json;

use super::{Error, FeatureSpace, Statistics};
use crate::weights::{Encoding, Gather, Source, TensorFile, TensorInfo};

/// The entry of the metadata that says what the file is.
const FORMAT: (&str, &str) = ("format", "undiffuse.statistics");

/// A file of statistics that has been read.
#[derive(Clone, Debug, PartialEq)]
pub struct StatisticsFile {
    /// The statistics that it holds.
    pub statistics: Statistics,
    /// Place of the features in the file, `[count, dimension]` in f32, if they are kept.
    pub features: Option<Range<u64>>,
}

impl StatisticsFile {
    /// Reads the file at `path`; features stay where they are.
    ///
    /// # Errors
    /// [`Error::Weights`] for a file that is damaged, [`Error::NoStatistics`] for one that holds something else, [`Error::File`]
    /// for one that does not hold what it says, and as [`Statistics::check`].
    pub async fn read(source: &dyn Source, path: &str) -> Result<Self, Error> {
        let wrong = |message: String| Error::File { file: path.to_owned(), message };
        let file = TensorFile::open(source, path).await?;
        let said = |key: &str| file.metadata().get(key).cloned();
        if said(FORMAT.0).as_deref() != Some(FORMAT.1) {
            return Err(Error::NoStatistics { file: path.to_owned() });
        }
        // What it says is shown in a terminal, which obeys control characters.
        let text = |key: &str| match said(key) {
            Some(text) if text.contains(char::is_control) => {
                Err(wrong(format!("`{key}` in its metadata holds control characters: the file is damaged")))
            }
            Some(text) => Ok(text),
            None => Err(wrong(format!("its metadata lacks `{key}`"))),
        };
        let number = |key: &str| {
            let text = text(key)?;
            text.parse::<usize>().map_err(|_| wrong(format!("its `{key}` is {text:?}, which is no whole number")))
        };
        let space = FeatureSpace {
            extractor: text("extractor")?,
            fingerprint: text("fingerprint")?,
            dimension: number("dimension")?,
        };
        let (count, dimension) = (number("count")?, space.dimension);
        let made_from = text("made_from")?;
        let tensor = |name: &str| file.tensors().iter().find(|tensor| tensor.name == name);
        let of_shape = |name: &str, dtype: Encoding, shape: &[usize]| match tensor(name) {
            Some(tensor) if tensor.dtype == dtype && tensor.shape == shape => Ok(tensor.range.clone()),
            Some(tensor) => Err(wrong(format!(
                "tensor `{name}` is {:?} of {}, its metadata calls for {shape:?} of {dtype}",
                tensor.shape, tensor.dtype
            ))),
            None => Err(wrong(format!("there is no tensor `{name}`"))),
        };
        of_shape("mean", Encoding::F64, &[dimension])?;
        of_shape("covariance", Encoding::F64, &[dimension, dimension])?;
        let features =
            tensor("features").map(|_| of_shape("features", Encoding::F32, &[count, dimension])).transpose()?;
        let mut numbers = [Vec::new(), Vec::new()];
        let is = |tensor: &TensorInfo| ["mean", "covariance"].iter().position(|name| *name == tensor.name);
        let mut sink = Gather::new(|tensor: &TensorInfo, bytes: &[u8]| {
            if let Some(list) = is(tensor).and_then(|index| numbers.get_mut(index)) {
                *list = bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
            }
            Ok::<_, Error>(())
        });
        file.stream(&mut |_| {}, &|tensor| is(tensor).is_some(), &mut sink).await?;
        let [mean, covariance] = numbers;
        let statistics = Statistics { mean, covariance, count: Some(count), space, made_from };
        statistics.check()?;
        Ok(Self { statistics, features })
    }
}

impl Statistics {
    /// All of a file but the features: with `with_features` the header announces them, and their bytes, `[count, dimension]` as
    /// little-endian f32, must follow.
    ///
    /// # Errors
    /// [`Error::TooFew`] where the number of pictures is not known, or as [`Statistics::check`].
    pub fn to_file(&self, with_features: bool) -> Result<Vec<u8>, Error> {
        self.check()?;
        let count = self.count.ok_or(Error::TooFew { what: "a file of statistics", count: 0, needed: 2 })?;
        let dimension = self.space.dimension;
        let mut end = 0;
        let mut tensor = |dtype: Encoding, shape: &[usize]| {
            let begin = end;
            end += shape.iter().product::<usize>() * dtype.block().bytes;
            json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": [begin, end] })
        };
        let mut header = json!({
            "mean": tensor(Encoding::F64, &[dimension]),
            "covariance": tensor(Encoding::F64, &[dimension, dimension]),
            "__metadata__": {
                FORMAT.0: FORMAT.1,
                "extractor": self.space.extractor,
                "fingerprint": self.space.fingerprint,
                "dimension": dimension.to_string(),
                "count": count.to_string(),
                // The name of a folder may hold characters with which the file would not be read.
                "made_from": self.made_from.replace(char::is_control, "\u{fffd}"),
            },
        });
        if with_features {
            header["features"] = tensor(Encoding::F32, &[count, dimension]);
        }
        let mut header = header.to_string().into_bytes();
        // Tensors are to lie at multiples of eight bytes.
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(self.mean.iter().chain(&self.covariance).flat_map(|number| number.to_le_bytes()));
        Ok(file)
    }
}
