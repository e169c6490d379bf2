//! What a network is asked for, and how far it is off.

use crate::diffusion::PredictionType;
use crate::graph::{Activation, Error, NodeId, Scope};

/// A noisy picture, and what is to be predicted of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Noised {
    /// x_t, `[batch, channels, height, width]`.
    pub sample: NodeId,
    /// ε, v, x_0 or ε − x_0, in the same shape.
    pub target: NodeId,
}

/// Adds x_t = signal·x_0 + noise·ε (Ho et al., equation 4) and the target of `prediction`.
///
/// `x0` is `[batch, channels, height, width]`. Inputs: `epsilon` in the shape of `x0`; `signal` and `noise`, `[batch]`, the two factors
/// of [`crate::diffusion::Noising`] at each sample's timestep.
///
/// # Errors
/// If `x0` has another number of axes.
pub fn noised(scope: &Scope, x0: NodeId, prediction: PredictionType) -> Result<Noised, Error> {
    let shape = scope.shape(x0);
    let factor = |name: &str| scope.reshape(scope.input(name, &shape[..1])?, &[shape[0], 1, 1, 1]);
    let epsilon = scope.input("epsilon", &shape)?;
    let (signal, noise) = (factor("signal")?, factor("noise")?);
    let sample = scope.add(scope.mul(x0, signal)?, scope.mul(epsilon, noise)?)?;
    let target = match prediction {
        PredictionType::Epsilon => epsilon,
        PredictionType::Sample => x0,
        // Salimans and Ho 2022, arXiv 2202.00512, section 4.
        PredictionType::VPrediction => scope.sub(scope.mul(epsilon, signal)?, scope.mul(x0, noise)?)?,
        PredictionType::FlowPrediction => scope.sub(epsilon, x0)?,
    };
    Ok(Noised { sample, target })
}

/// The mean of all elements: `[1]`.
fn mean(scope: &Scope, x: NodeId) -> Result<NodeId, Error> {
    let shape = scope.shape(x);
    let sum = scope.reshape(scope.sum(x, &vec![1; shape.len()])?, &[1])?;
    scope.affine(sum, 1.0 / shape.iter().product::<usize>() as f32, 0.0)
}

/// The mean over a batch of each sample's weight times its mean squared error, `[1]`. Both tensors are `[batch, channels, height,
/// width]`. Input: `loss_weights`, `[batch]`.
///
/// # Errors
/// If the shapes differ.
pub fn mean_squared_error(scope: &Scope, output: NodeId, target: NodeId) -> Result<NodeId, Error> {
    let difference = scope.sub(output, target)?;
    let batch = scope.shape(output)[0];
    let weights = scope.reshape(scope.input("loss_weights", &[batch])?, &[batch, 1, 1, 1])?;
    mean(scope, scope.mul(scope.mul(difference, difference)?, weights)?)
}

/// The embeddings of tokens, as a text encoder takes them, `[batch, tokens, channels]`: rows of the tables
/// `token_embedding.weight` and `position_embedding.weight` at this path (transformers' `CLIPTextEmbeddings`), of which the second has
/// `tokens` rows at least. Inputs: `input_ids` `[batch, tokens]`, `position_ids` `[tokens]`.
///
/// # Errors
/// If a table is there already with other sides.
pub fn text_embeddings(
    scope: &Scope,
    [batch, tokens]: [usize; 2],
    [vocabulary, positions, channels]: [usize; 3],
) -> Result<NodeId, Error> {
    let ids = scope.input("input_ids", &[batch, tokens])?;
    let of_tokens = scope.at("token_embedding").gather(ids, [vocabulary, channels])?;
    let ids = scope.input("position_ids", &[tokens])?;
    let of_positions = scope.at("position_embedding").gather(ids, [positions, channels])?;
    scope.add(of_tokens, scope.reshape(of_positions, &[1, tokens, channels])?)
}

/// Latents drawn from an autoencoder's posterior, with what they were drawn by.
///
/// `moments` is `[batch, 2 * channels, height, width]`, mean before log-variance; the latter is clamped to −30..20 (diffusers'
/// `DiagonalGaussianDistribution`). Input: `posterior_noise`, `[batch, channels, height, width]`. Gives the latents, and the divergence
/// KL(q(z|x) ‖ N(0, I)) summed over a picture and averaged over the batch, `[1]`.
///
/// # Errors
/// If `moments` has an odd number of channels.
pub fn posterior_sample(scope: &Scope, moments: NodeId) -> Result<(NodeId, NodeId), Error> {
    let shape = scope.shape(moments);
    let half = shape[1] / 2;
    let (mean, written) = (scope.slice(moments, 1, 0, half)?, scope.slice(moments, 1, half, shape[1] - half)?);
    // Written so that within the limits nothing is rounded: x + max(−30 − x, 0) − max(x − 20, 0).
    let raised = scope.activate(scope.affine(written, -1.0, -30.0)?, Activation::Relu)?;
    let lowered = scope.activate(scope.affine(written, 1.0, -20.0)?, Activation::Relu)?;
    let log_variance = scope.sub(scope.add(written, raised)?, lowered)?;
    let deviation = scope.activate(scope.affine(log_variance, 0.5, 0.0)?, Activation::Exp)?;
    let noise = scope.input("posterior_noise", &scope.shape(mean))?;
    let latents = scope.add(mean, scope.mul(deviation, noise)?)?;
    let variance = scope.mul(deviation, deviation)?;
    let terms = scope.sub(scope.add(scope.mul(mean, mean)?, variance)?, log_variance)?;
    let sum = scope.reshape(scope.sum(scope.affine(terms, 1.0, -1.0)?, &[1; 4])?, &[1])?;
    Ok((latents, scope.affine(sum, 0.5 / shape[0] as f32, 0.0)?))
}

/// The loss of an autoencoder, `[1]`: mean |r − x| + `squared`·mean (r − x)² + `kl`·divergence.
///
/// # Errors
/// If the shapes differ.
pub fn autoencoder_loss(
    scope: &Scope,
    reconstruction: NodeId,
    picture: NodeId,
    divergence: NodeId,
    [squared, kl]: [f32; 2],
) -> Result<NodeId, Error> {
    let difference = scope.sub(reconstruction, picture)?;
    let above = scope.activate(difference, Activation::Relu)?;
    let below = scope.activate(scope.affine(difference, -1.0, 0.0)?, Activation::Relu)?;
    let of_magnitudes = mean(scope, scope.add(above, below)?)?;
    let of_squares = scope.affine(mean(scope, scope.mul(difference, difference)?)?, squared, 0.0)?;
    scope.add(scope.add(of_magnitudes, of_squares)?, scope.affine(divergence, kl, 0.0)?)
}
