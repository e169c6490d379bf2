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
/// If `x0` is no such tensor.
pub fn noised(scope: &Scope, x0: NodeId, prediction: PredictionType) -> Result<Noised, Error> {
    let shape = picture(scope, x0)?.to_vec();
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

/// The shape of a picture, `[batch, channels, height, width]`.
fn picture(scope: &Scope, x: NodeId) -> Result<[usize; 4], Error> {
    let shape = scope.shape(x);
    shape.try_into().map_err(|found| scope.error(format!("expected [batch, channels, height, width], got {found:?}")))
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
    let [batch, ..] = picture(scope, output)?;
    let weights = scope.reshape(scope.input("loss_weights", &[batch])?, &[batch, 1, 1, 1])?;
    mean(scope, scope.mul(scope.mul(difference, difference)?, weights)?)
}

/// The embeddings of tokens, `[batch, tokens, channels]`: rows of the table `weight` at this path, `[vocabulary, channels]`. Input:
/// `input_ids`, `[batch, tokens]`.
///
/// # Errors
/// If the table is there already with other sides.
pub fn token_embeddings(
    scope: &Scope,
    [batch, tokens]: [usize; 2],
    [vocabulary, channels]: [usize; 2],
) -> Result<NodeId, Error> {
    scope.gather(scope.input("input_ids", &[batch, tokens])?, [vocabulary, channels])
}

/// `embeddings` `[batch, tokens, channels]` with those of their positions added, the rows of the table `weight` at this path, `[positions,
/// channels]`: what a text encoder takes (transformers' `CLIPTextEmbeddings`). Input: `position_ids`, `[tokens]`.
///
/// # Errors
/// If there are more tokens than positions, or the table is there already with other sides.
pub fn with_positions(scope: &Scope, embeddings: NodeId, positions: usize) -> Result<NodeId, Error> {
    let [_, tokens, channels] = sequence(scope, embeddings)?;
    if positions < tokens {
        return Err(scope.error(format!("{tokens} tokens for {positions} positions")));
    }
    let ids = scope.input("position_ids", &[tokens])?;
    let of_positions = scope.gather(ids, [positions, channels])?;
    scope.add(embeddings, scope.reshape(of_positions, &[1, tokens, channels])?)
}

/// The shape of embeddings, `[batch, tokens, channels]`.
fn sequence(scope: &Scope, x: NodeId) -> Result<[usize; 3], Error> {
    let shape = scope.shape(x);
    shape.try_into().map_err(|found| scope.error(format!("expected [batch, tokens, channels], got {found:?}")))
}

/// `embeddings` `[batch, tokens, channels]` with rows of the table `weight` at this path, `[rows, channels]`, in place of some: the words
/// that textual inversion learns (Gal et al. 2022, arXiv 2208.01618). Inputs, both `[batch, tokens]`: `is_learned`, 1 for a token that is
/// one of them and 0 for any other, and `learned_ids`, which row it is.
///
/// # Errors
/// If the table is there already with other sides.
pub fn learned_words(scope: &Scope, embeddings: NodeId, rows: usize) -> Result<NodeId, Error> {
    let [batch, tokens, channels] = sequence(scope, embeddings)?;
    let learned = scope.gather(scope.input("learned_ids", &[batch, tokens])?, [rows, channels])?;
    let is_learned = scope.reshape(scope.input("is_learned", &[batch, tokens])?, &[batch, tokens, 1])?;
    scope.add(embeddings, scope.mul(scope.sub(learned, embeddings)?, is_learned)?)
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
    let shape = picture(scope, moments)?;
    let half = shape[1] / 2;
    let (mean, written) = (scope.slice(moments, 1, 0, half)?, scope.slice(moments, 1, half, shape[1] - half)?);
    // Written so that within the limits nothing is rounded: x + max(−30 − x, 0) − max(x − 20, 0). Beyond ten million, where the limits
    // are less than what f32 can tell apart, it is near them.
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
