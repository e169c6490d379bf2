//! A value that one call at a time may use, across its awaits.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::Promise;
use wasm_bindgen::JsValue;

use super::error::Error;
use super::promise::promise;
use crate::weights::LocalBoxFuture;

/// The work of a call with a value.
type Work<T> = Box<dyn for<'a> FnOnce(&'a mut T) -> LocalBoxFuture<'a, Result<JsValue, Error>>>;

/// A value that a call takes out while it runs. What comes meanwhile finds the place empty, and is refused in words.
pub struct Slot<T>(Rc<RefCell<State<T>>>);

enum State<T> {
    Free(T),
    Taken,
    Disposed,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Slot<T> {
    /// A slot that holds `value`.
    pub fn new(value: T) -> Self {
        Self(Rc::new(RefCell::new(State::Free(value))))
    }

    /// Takes the value out. It has to come back by [`Slot::put`].
    ///
    /// # Errors
    /// [`Error::Busy`] while another call has it, [`Error::Disposed`] after [`Slot::dispose`].
    pub fn take(&self) -> Result<T, Error> {
        let mut state = self.0.borrow_mut();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Free(value) => Ok(value),
            State::Taken => Err(Error::Busy),
            State::Disposed => {
                *state = State::Disposed;
                Err(Error::Disposed)
            }
        }
    }

    /// Puts the value back, or drops it if the slot was disposed of in the meantime.
    pub fn put(&self, value: T) {
        let mut state = self.0.borrow_mut();
        if matches!(*state, State::Taken) {
            *state = State::Free(value);
        }
    }

    /// Has the value do something during which no other call can use it.
    pub fn ask(&self, work: impl AsyncFnOnce(&mut T) -> Result<JsValue, Error> + 'static) -> Promise
    where
        T: 'static,
    {
        self.have_done(Box::new(move |value| Box::pin(work(value))))
    }

    fn have_done(&self, work: Work<T>) -> Promise
    where
        T: 'static,
    {
        let slot = self.clone();
        promise(async move {
            let mut value = slot.take()?;
            let answer = work(&mut value).await;
            slot.put(value);
            answer
        })
    }

    /// Drops the value, at once or, if a call has it, as soon as that call is done.
    pub fn dispose(&self) {
        // The old state is dropped outside of the borrow.
        let _old = self.0.replace(State::Disposed);
    }
}
