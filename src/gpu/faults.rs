//! Error scopes, and what the platform reports outside of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::Error;

/// Errors that the device has reported outside of any scope.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lost: Option<String>,
    uncaptured: Option<String>,
}

/// An error caught by a scope.
#[derive(Debug)]
pub enum Fault {
    /// An allocation failed.
    OutOfMemory,
    /// Any other fault, as the platform words it.
    Message(String),
}

/// The first error that scopes have caught, once the platform tells.
pub type Caught = Pin<Box<dyn Future<Output = Result<(), Fault>>>>;

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::OutOfMemory => f.write_str("out of memory"),
            Fault::Message(message) => f.write_str(message),
        }
    }
}

impl Fault {
    /// The error of a buffer `what` of `bytes` bytes that could not be made.
    pub fn of_buffer(self, what: String, bytes: u64) -> Error {
        match self {
            Fault::OutOfMemory => Error::OutOfMemory { what, bytes },
            Fault::Message(message) => Error::Refused(message),
        }
    }
}

impl Faults {
    /// Installs the handlers on `device`.
    pub fn watch(device: &wgpu::Device) -> Arc<Self> {
        let faults = Arc::new(Self::default());
        let on_lost = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            let message = if message.is_empty() { format!("{reason:?}").to_ascii_lowercase() } else { message };
            on_lost.note_lost(message);
        });
        platform::on_uncaptured_error(device, faults.clone());
        faults
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down the reason for the loss of the device; the first one stays.
    pub fn note_lost(&self, reason: String) {
        self.state().lost.get_or_insert(reason);
    }

    fn note_uncaptured(&self, message: String) {
        self.state().uncaptured.get_or_insert(message);
    }

    /// The reason for which the device was lost; `None` if it was not.
    pub fn lost(&self) -> Option<String> {
        self.state().lost.clone()
    }

    /// The first error since the last call that no scope has caught.
    pub fn take_uncaptured(&self) -> Option<String> {
        self.state().uncaptured.take()
    }
}

/// Runs `action` within error scopes; the future gives the first error that it caused.
///
/// The scopes are opened and closed around a call that does not wait, so that they nest rightly whatever else runs meanwhile.
pub fn scoped<R>(device: &wgpu::Device, action: impl FnOnce() -> R) -> (R, Caught) {
    platform::scoped(device, action)
}

#[cfg(not(target_arch = "wasm32"))]
mod platform {
    use super::*;
    use wgpu::ErrorFilter;

    pub fn on_uncaptured_error(device: &wgpu::Device, faults: Arc<Faults>) {
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| faults.note_uncaptured(error.to_string())));
    }

    pub fn scoped<R>(device: &wgpu::Device, action: impl FnOnce() -> R) -> (R, Caught) {
        let internal = device.push_error_scope(ErrorFilter::Internal);
        let memory = device.push_error_scope(ErrorFilter::OutOfMemory);
        let validation = device.push_error_scope(ErrorFilter::Validation);
        let result = action();
        let (validation, memory, internal) = (validation.pop(), memory.pop(), internal.pop());
        let caught = Box::pin(async move {
            // Out of memory first: it makes everything after it invalid as well.
            match memory.await.or(validation.await).or(internal.await) {
                None => Ok(()),
                Some(wgpu::Error::OutOfMemory { .. }) => Err(Fault::OutOfMemory),
                Some(error) => Err(Fault::Message(error.to_string())),
            }
        });
        (result, caught)
    }
}

/// On the web through the browser's own objects: wgpu panics on a `GPUInternalError`, which a driver's compiler may well cause.
#[cfg(target_arch = "wasm32")]
mod platform {
    use super::*;
    use js_sys::{Function, Promise, Reflect};
    use wasm_bindgen::prelude::*;
    use wasm_bindgen_futures::JsFuture;

    const FILTERS: [&str; 3] = ["internal", "out-of-memory", "validation"];

    fn object(device: &wgpu::Device) -> JsValue {
        device.as_webgpu().map(|device| JsValue::from(device.clone())).unwrap_or_default()
    }

    fn call(object: &JsValue, method: &str, arguments: &[JsValue]) -> Option<JsValue> {
        let method: Function = Reflect::get(object, &method.into()).ok()?.dyn_into().ok()?;
        method.apply(object, &arguments.iter().collect()).ok()
    }

    fn message(error: &JsValue) -> String {
        let message = Reflect::get(error, &"message".into()).ok().and_then(|message| message.as_string());
        message.unwrap_or_else(|| "an error without a message".to_owned())
    }

    pub fn on_uncaptured_error(device: &wgpu::Device, faults: Arc<Faults>) {
        let handler = Closure::<dyn FnMut(JsValue)>::new(move |event: JsValue| {
            let error = Reflect::get(&event, &"error".into()).unwrap_or_default();
            faults.note_uncaptured(message(&error));
        });
        // Fails on what is no object only, and then there is no device that could report anything.
        let _ = Reflect::set(&object(device), &"onuncapturederror".into(), &handler.into_js_value());
    }

    pub fn scoped<R>(device: &wgpu::Device, action: impl FnOnce() -> R) -> (R, Caught) {
        let device = object(device);
        for filter in FILTERS {
            call(&device, "pushErrorScope", &[filter.into()]);
        }
        let result = action();
        let [validation, memory, internal] = [(); 3].map(|()| call(&device, "popErrorScope", &[]));
        let caught = Box::pin(async move {
            for (is_memory, popped) in [(true, memory), (false, validation), (false, internal)] {
                let Some(promise) = popped.and_then(|promise| promise.dyn_into::<Promise>().ok()) else { continue };
                // A rejected promise means a lost device, which has its own handler.
                let Ok(error) = JsFuture::from(promise).await else { continue };
                if !error.is_null() && !error.is_undefined() {
                    return Err(if is_memory { Fault::OutOfMemory } else { Fault::Message(message(&error)) });
                }
            }
            Ok(())
        });
        (result, caught)
    }
}
