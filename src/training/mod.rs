//! Learning: how ε_θ comes to be. What a network is asked for and how far it is off, as a graph that [`crate::graph::gradient`]
//! differentiates.
//!
//! Algorithm 1 of Ho, Jain and Abbeel 2020, arXiv 2006.11239: x_0, t and ε at random, a step down the gradient of ‖ε − ε_θ(x_t, t)‖².

mod lora;
mod loss_weights;
mod objective;
mod optimiser;

pub use lora::Lora;
pub use loss_weights::LossWeights;
pub use objective::{
    Noised, autoencoder_loss, learned_words, mean_squared_error, noised, posterior_sample, token_embeddings,
    with_positions,
};
pub use optimiser::AdamW;
