//! The CPU in a browser: kernels.js, which has the kernels' module, their memory and their threads.

use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// `Kernels` of kernels.js.
    #[wasm_bindgen(typescript_type = "object")]
    pub type Kernels;
}
