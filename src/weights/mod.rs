//! Checkpoint files: untrusted bytes become checked tensors.
