//! The CPU in a browser: machine.js, which has the kernels' module, their memory and their threads.

use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// `Machine` of machine.js.
    #[wasm_bindgen(typescript_type = "object")]
    pub type Machine;
}
