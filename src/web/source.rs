//! A checkpoint whose files JavaScript reads: over HTTP, or from files that the user picked.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Reflect, Uint8Array};
use wasm_bindgen::prelude::*;

#[cfg(feature = "features")]
use crate::metrics;
use crate::pipeline;
use crate::weights::Error::{self, NotFound, Read};
use crate::weights::{ByteStream, LocalBoxFuture, Source, check_path};

#[wasm_bindgen]
extern "C" {
    /// `OpenSource` of the package's source.js.
    #[wasm_bindgen(typescript_type = "object")]
    pub type OpenSource;

    #[wasm_bindgen(method, getter)]
    fn name(this: &OpenSource) -> String;

    #[wasm_bindgen(method, getter)]
    fn files(this: &OpenSource) -> Option<Vec<String>>;

    #[wasm_bindgen(method)]
    fn prefetch(this: &OpenSource, paths: Vec<String>);

    #[wasm_bindgen(method, catch)]
    async fn open(this: &OpenSource, path: &str) -> Result<JsValue, JsValue>;

    /// `OpenFile` of the package's source.js.
    type OpenFile;

    #[wasm_bindgen(method, getter)]
    fn length(this: &OpenFile) -> Option<f64>;

    #[wasm_bindgen(method, catch)]
    async fn next(this: &OpenFile) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(method)]
    fn cancel(this: &OpenFile);
}

/// The last file that could not be read, with JavaScript's own error: it knows more (the address, the cause) than what
/// [`Error`] can carry, and comes out again unchanged where the load fails because of it.
#[derive(Clone, Default)]
pub struct Failure(Rc<RefCell<Option<(String, JsValue)>>>);

impl Failure {
    /// JavaScript's error behind `error`, if there is one.
    fn behind(&self, error: &super::error::Error) -> Option<JsValue> {
        let error = match error {
            super::error::Error::Pipeline(pipeline::Error::Weights(error)) => error,
            #[cfg(feature = "features")]
            super::error::Error::Metrics(metrics::Error::Weights(error)) => error,
            _ => return None,
        };
        let (NotFound { file, .. } | Read { file, .. }) = error else { return None };
        self.0.borrow().as_ref().filter(|(failed, _)| failed == file).map(|(_, error)| error.clone())
    }

    /// `error` for JavaScript: as it came from there, or in its own words.
    pub fn unwrap(&self, error: impl Into<super::error::Error>) -> super::error::Error {
        let error = error.into();
        self.behind(&error).map_or(error, super::error::Error::Js)
    }

    fn record(&self, file: &str, origin: &str, error: JsValue) -> Error {
        let text = |key: &str| Reflect::get(&error, &key.into()).ok().and_then(|value| value.as_string());
        let is_missing = text("code").as_deref() == Some("file-missing");
        let reason = text("message").unwrap_or_else(|| format!("{error:?}"));
        *self.0.borrow_mut() = Some((file.to_owned(), error));
        if is_missing {
            NotFound { file: file.to_owned(), origin: origin.to_owned() }
        } else {
            Read { file: file.to_owned(), reason }
        }
    }
}

/// [`Source`] over JavaScript's `OpenSource`.
pub struct JsSource {
    source: OpenSource,
    name: String,
    files: Option<Vec<String>>,
    failure: Failure,
}

impl JsSource {
    /// Reads from `source`; `failure` learns what goes wrong.
    pub fn new(source: OpenSource, failure: Failure) -> Self {
        Self { name: source.name(), files: source.files(), source, failure }
    }

    /// The only file, or the only one of weights. `None` where there are several, or where they cannot be known.
    pub fn weights(&self) -> Option<&str> {
        let is_weights = |file: &&String| file.ends_with(".safetensors") || file.ends_with(".gguf");
        let mut weights = self.files.iter().flatten().filter(is_weights);
        self.single_file().or(weights.next().filter(|_| weights.next().is_none()).map(String::as_str))
    }
}

impl Source for JsSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn single_file(&self) -> Option<&str> {
        match self.files.as_deref() {
            Some([file]) => Some(file),
            _ => None,
        }
    }

    fn prefetch(&self, paths: &[String]) {
        self.source.prefetch(paths.iter().filter(|path| check_path(path).is_ok()).cloned().collect());
    }

    fn open<'a>(&'a self, path: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn ByteStream>, Error>> {
        Box::pin(async move {
            check_path(path)?;
            let opened = self.source.open(path).await;
            let file = opened.map_err(|error| self.failure.record(path, &self.name, error))?.unchecked_into();
            let stream = JsStream { file, path: path.to_owned(), failure: self.failure.clone() };
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }
}

struct JsStream {
    file: OpenFile,
    path: String,
    failure: Failure,
}

impl ByteStream for JsStream {
    fn length(&self) -> Option<u64> {
        self.file.length().map(|length| length as u64)
    }

    fn next_chunk<'a>(&'a mut self) -> LocalBoxFuture<'a, Result<Option<Vec<u8>>, Error>> {
        Box::pin(async move {
            let chunk = self.file.next().await.map_err(|error| self.failure.record(&self.path, "", error))?;
            Ok(chunk.dyn_into::<Uint8Array>().ok().map(|bytes| bytes.to_vec()))
        })
    }
}

impl Drop for JsStream {
    /// Ends the download of a file that is not read to its end.
    fn drop(&mut self) {
        self.file.cancel();
    }
}
