//! The CPU in a browser: machine.js, which has the kernels' module, their memory and their threads.

use undiffuse_kernels::Job;
use wasm_bindgen::prelude::*;

use crate::cpu;

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

    /// Does the jobs of which these are the bytes.
    #[wasm_bindgen(method)]
    fn run(this: &Machine, jobs: &[u8]);

    #[wasm_bindgen(method, js_name = runTimed)]
    fn run_timed(this: &Machine, jobs: &[u8]) -> Vec<f64>;

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

    unsafe fn run(&self, jobs: &[Job]) {
        self.run(bytemuck::cast_slice(jobs));
    }

    unsafe fn run_timed(&self, jobs: &[Job]) -> Vec<f64> {
        self.run_timed(bytemuck::cast_slice(jobs))
    }

    fn threads(&self) -> usize {
        self.threads()
    }
}
