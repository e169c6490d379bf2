//! Executes a graph on WebGPU: device, kernels, memory plan, recording, read-back.
