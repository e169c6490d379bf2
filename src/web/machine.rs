//! The CPU in a browser: machine.js, which has the kernels' module, their memory and their threads.

use js_sys::Promise;
use undiffuse_kernels::Job;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::cpu;
use crate::weights::LocalBoxFuture;

#[wasm_bindgen]
extern "C" {
    /// `Machine` of machine.js. An address is an offset in its memory.
    #[wasm_bindgen(typescript_type = "object")]
    #[derive(Debug)]
    pub type Machine;

    /// The address of a region, or 0 if there is no memory for it.
    #[wasm_bindgen(method)]
    fn allocate(this: &Machine, bytes: usize) -> usize;

    #[wasm_bindgen(method)]
    fn free(this: &Machine, address: usize);

    #[wasm_bindgen(method)]
    fn write(this: &Machine, address: usize, bytes: &[u8]);

    #[wasm_bindgen(method)]
    fn read(this: &Machine, address: usize, bytes: &mut [u8]);

    /// Goes on with the jobs of which these are the bytes.
    #[wasm_bindgen(method, catch)]
    fn run(this: &Machine, jobs: &[u8], done: usize) -> Result<usize, JsValue>;

    /// A promise, or undefined if it is not time yet; it resolves to whether to go on.
    #[wasm_bindgen(method)]
    fn pause(this: &Machine) -> Option<Promise>;

    #[wasm_bindgen(method, getter)]
    fn threads(this: &Machine) -> usize;
}

// SAFETY: as heap.js gives out regions, and crew.js parts of jobs. All addresses are of a memory that holds nothing of this module's.
unsafe impl cpu::Machine for Machine {
    fn allocate(&self, bytes: usize) -> Option<usize> {
        match self.allocate(bytes) {
            0 => None,
            address => Some(address),
        }
    }

    unsafe fn free(&self, address: usize) {
        self.free(address);
    }

    fn write(&self, address: usize, bytes: &[u8]) {
        self.write(address, bytes);
    }

    fn read(&self, address: usize, bytes: &mut [u8]) {
        self.read(address, bytes);
    }

    unsafe fn run(&self, jobs: &[Job], done: usize) -> Result<usize, cpu::Error> {
        let failed = |error: JsValue| cpu::Error::Machine(error.unchecked_into::<js_sys::Error>().message().into());
        self.run(bytemuck::cast_slice(jobs), done).map_err(failed)
    }

    fn pause(&self) -> LocalBoxFuture<'_, bool> {
        let pause = self.pause();
        Box::pin(async move {
            let Some(pause) = pause else { return true };
            JsFuture::from(pause).await.is_ok_and(|goes_on| goes_on.is_truthy())
        })
    }

    fn threads(&self) -> usize {
        self.threads()
    }
}
