//! A network as a static graph of typed ops.
