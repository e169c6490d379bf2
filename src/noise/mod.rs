//! Random streams that reproduce torch's.
