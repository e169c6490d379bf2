//! Futures as promises.

use js_sys::Promise;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::future_to_promise;

use super::error::Error;
use crate::weights::LocalBoxFuture;

/// A promise of what `work` comes to. Boxed, because what is wrapped around a future is long, and would be compiled for each.
pub fn promise(work: impl Future<Output = Result<JsValue, Error>> + 'static) -> Promise {
    promise_of(Box::pin(work))
}

fn promise_of(work: LocalBoxFuture<'static, Result<JsValue, Error>>) -> Promise {
    future_to_promise(async move { work.await.map_err(Error::into_js) })
}
