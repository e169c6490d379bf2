//! Executes a graph on the CPU: the readable twin of every shader, and the fallback device.
