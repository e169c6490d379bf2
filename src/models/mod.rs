//! The architectures: `config.json` and weights become a graph.
