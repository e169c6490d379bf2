//! InceptionV3 (Szegedy et al. 2015, arXiv 1512.00567) as the Fréchet inception distance is computed with: up to pool3, with the
//! weights and the deviations of TensorFlow's network of 2015, as the Python package `pytorch-fid` has it.
//!
//! Modules are torchvision's. Three things differ from there: means leave out the padding, the last block pools by the
//! maximum, and behind pool3 there is nothing.

use super::{Error, channels_last};
use crate::graph::{
    Activation, Builder, Conv2dOptions, Error as GraphError, Graph, NodeId, Padding, Pool2dOptions, Pooling, Scope,
};

/// Height and width of the pictures that the network takes.
pub const SIDE: usize = 299;

/// Length of the features.
pub const FEATURES: usize = 2048;

/// Number added to the variance of every batch normalisation.
pub const EPS: f64 = 0.001;

/// The tensors of a `BasicConv2d` in a checkpoint: its convolution, then its batch normalisation.
pub const BASIC_CONV2D: [&str; 5] = ["conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"];

/// The network for `batch` pictures: input `sample` `[batch, 3, SIDE, SIDE]` in −1..1, output `features` `[batch, FEATURES]`.
///
/// Batch normalisations are part of the convolutions: the graph asks for `….conv.weight` and `….conv.bias` as [`fold`] makes them.
///
/// # Errors
/// If there are more pictures than a tensor has room for.
pub fn graph(batch: usize) -> Result<Graph, Error> {
    let builder = Builder::new();
    let root = builder.root();
    let sample = root.input("sample", &[batch, 3, SIDE, SIDE])?;
    let x = channels_last(&root, sample)?;

    let x = basic_conv2d(&root.at("Conv2d_1a_3x3"), x, valid(32, 3, 2))?;
    let x = basic_conv2d(&root.at("Conv2d_2a_3x3"), x, valid(32, 3, 1))?;
    let x = basic_conv2d(&root.at("Conv2d_2b_3x3"), x, same(64, [3, 3]))?;
    let x = root.at("maxpool1").pool2d(x, Pool2dOptions::max(3, 2))?;
    let x = basic_conv2d(&root.at("Conv2d_3b_1x1"), x, same(80, [1, 1]))?;
    let x = basic_conv2d(&root.at("Conv2d_4a_3x3"), x, valid(192, 3, 1))?;
    let x = root.at("maxpool2").pool2d(x, Pool2dOptions::max(3, 2))?;
    let x = inception_a(&root.at("Mixed_5b"), x, 32)?;
    let x = inception_a(&root.at("Mixed_5c"), x, 64)?;
    let x = inception_a(&root.at("Mixed_5d"), x, 64)?;
    let x = inception_b(&root.at("Mixed_6a"), x)?;
    let x = inception_c(&root.at("Mixed_6b"), x, 128)?;
    let x = inception_c(&root.at("Mixed_6c"), x, 160)?;
    let x = inception_c(&root.at("Mixed_6d"), x, 160)?;
    let x = inception_c(&root.at("Mixed_6e"), x, 192)?;
    let x = inception_d(&root.at("Mixed_7a"), x)?;
    let x = inception_e(&root.at("Mixed_7b"), x, Pooling::Average)?;
    let x = inception_e(&root.at("Mixed_7c"), x, Pooling::Max)?;
    root.output("features", root.at("avgpool").global_average(x)?);
    Ok(builder.finish())
}

/// `FIDInceptionA`; 35×35 pixels.
fn inception_a(scope: &Scope, x: NodeId, pool_features: usize) -> Result<NodeId, GraphError> {
    let branch1x1 = branch(scope, x, &[("branch1x1", same(64, [1, 1]))])?;
    let branch5x5 = branch(scope, x, &[("branch5x5_1", same(48, [1, 1])), ("branch5x5_2", same(64, [5, 5]))])?;
    let branch3x3dbl = [
        ("branch3x3dbl_1", same(64, [1, 1])),
        ("branch3x3dbl_2", same(96, [3, 3])),
        ("branch3x3dbl_3", same(96, [3, 3])),
    ];
    let branch3x3dbl = branch(scope, x, &branch3x3dbl)?;
    let branch_pool = pool(scope, x, Pooling::Average)?;
    let branch_pool = branch(scope, branch_pool, &[("branch_pool", same(pool_features, [1, 1]))])?;
    scope.concat(&[branch1x1, branch5x5, branch3x3dbl, branch_pool], 3)
}

/// `InceptionB`; from 35×35 to 17×17 pixels.
fn inception_b(scope: &Scope, x: NodeId) -> Result<NodeId, GraphError> {
    let branch3x3 = branch(scope, x, &[("branch3x3", valid(384, 3, 2))])?;
    let branch3x3dbl = [
        ("branch3x3dbl_1", same(64, [1, 1])),
        ("branch3x3dbl_2", same(96, [3, 3])),
        ("branch3x3dbl_3", valid(96, 3, 2)),
    ];
    let branch3x3dbl = branch(scope, x, &branch3x3dbl)?;
    let branch_pool = scope.at("branch_pool").pool2d(x, Pool2dOptions::max(3, 2))?;
    scope.concat(&[branch3x3, branch3x3dbl, branch_pool], 3)
}

/// `FIDInceptionC`; 17×17 pixels, 7×7 kernels as a row and a column.
fn inception_c(scope: &Scope, x: NodeId, c7: usize) -> Result<NodeId, GraphError> {
    let branch1x1 = branch(scope, x, &[("branch1x1", same(192, [1, 1]))])?;
    let branch7x7 =
        [("branch7x7_1", same(c7, [1, 1])), ("branch7x7_2", same(c7, [1, 7])), ("branch7x7_3", same(192, [7, 1]))];
    let branch7x7 = branch(scope, x, &branch7x7)?;
    let branch7x7dbl = [
        ("branch7x7dbl_1", same(c7, [1, 1])),
        ("branch7x7dbl_2", same(c7, [7, 1])),
        ("branch7x7dbl_3", same(c7, [1, 7])),
        ("branch7x7dbl_4", same(c7, [7, 1])),
        ("branch7x7dbl_5", same(192, [1, 7])),
    ];
    let branch7x7dbl = branch(scope, x, &branch7x7dbl)?;
    let branch_pool = pool(scope, x, Pooling::Average)?;
    let branch_pool = branch(scope, branch_pool, &[("branch_pool", same(192, [1, 1]))])?;
    scope.concat(&[branch1x1, branch7x7, branch7x7dbl, branch_pool], 3)
}

/// `InceptionD`; from 17×17 to 8×8 pixels.
fn inception_d(scope: &Scope, x: NodeId) -> Result<NodeId, GraphError> {
    let branch3x3 = branch(scope, x, &[("branch3x3_1", same(192, [1, 1])), ("branch3x3_2", valid(320, 3, 2))])?;
    let branch7x7x3 = [
        ("branch7x7x3_1", same(192, [1, 1])),
        ("branch7x7x3_2", same(192, [1, 7])),
        ("branch7x7x3_3", same(192, [7, 1])),
        ("branch7x7x3_4", valid(192, 3, 2)),
    ];
    let branch7x7x3 = branch(scope, x, &branch7x7x3)?;
    let branch_pool = scope.at("branch_pool").pool2d(x, Pool2dOptions::max(3, 2))?;
    scope.concat(&[branch3x3, branch7x7x3, branch_pool], 3)
}

/// `FIDInceptionE_1` with the mean, `FIDInceptionE_2` with the maximum; 8×8 pixels, branches that fork.
fn inception_e(scope: &Scope, x: NodeId, pooling: Pooling) -> Result<NodeId, GraphError> {
    let branch1x1 = branch(scope, x, &[("branch1x1", same(320, [1, 1]))])?;
    let branch3x3 = branch(scope, x, &[("branch3x3_1", same(384, [1, 1]))])?;
    let branch3x3_2a = branch(scope, branch3x3, &[("branch3x3_2a", same(384, [1, 3]))])?;
    let branch3x3_2b = branch(scope, branch3x3, &[("branch3x3_2b", same(384, [3, 1]))])?;
    let branch3x3dbl =
        branch(scope, x, &[("branch3x3dbl_1", same(448, [1, 1])), ("branch3x3dbl_2", same(384, [3, 3]))])?;
    let branch3x3dbl_3a = branch(scope, branch3x3dbl, &[("branch3x3dbl_3a", same(384, [1, 3]))])?;
    let branch3x3dbl_3b = branch(scope, branch3x3dbl, &[("branch3x3dbl_3b", same(384, [3, 1]))])?;
    let branch_pool = pool(scope, x, pooling)?;
    let branch_pool = branch(scope, branch_pool, &[("branch_pool", same(192, [1, 1]))])?;
    let branches = [branch1x1, branch3x3_2a, branch3x3_2b, branch3x3dbl_3a, branch3x3dbl_3b, branch_pool];
    scope.concat(&branches, 3)
}

/// Layers one behind the other.
fn branch(scope: &Scope, x: NodeId, layers: &[(&str, Conv2dOptions)]) -> Result<NodeId, GraphError> {
    layers.iter().try_fold(x, |x, (name, options)| basic_conv2d(&scope.at(name), x, *options))
}

/// `BasicConv2d`: a convolution with its batch normalisation in it, and ReLU.
fn basic_conv2d(scope: &Scope, x: NodeId, options: Conv2dOptions) -> Result<NodeId, GraphError> {
    scope.activate(scope.at("conv").conv2d(x, options)?, Activation::Relu)
}

/// A pooling over 3×3 pixels around each, those outside of the picture left out.
fn pool(scope: &Scope, x: NodeId, pooling: Pooling) -> Result<NodeId, GraphError> {
    let options = Pool2dOptions { pooling, padding: Padding::same(1), ..Pool2dOptions::max(3, 1) };
    scope.at("branch_pool").pool2d(x, options)
}

/// A convolution that keeps height and width.
fn same(out_channels: usize, kernel: [usize; 2]) -> Conv2dOptions {
    Conv2dOptions::same_rectangular(out_channels, kernel)
}

/// A convolution without padding.
fn valid(out_channels: usize, kernel: usize, stride: usize) -> Conv2dOptions {
    Conv2dOptions { stride, padding: Padding::default(), ..Conv2dOptions::same(out_channels, kernel) }
}

/// Turns `conv`, `[out_channels, ...]`, into the weight of the convolution that does what the one of a `BasicConv2d` and the batch
/// normalisation behind it do, and gives its bias: w·s and β − μ·s for s = γ/√(σ² + ε), in f64 and rounded once.
///
/// `norm` is γ, β, μ and σ², `[out_channels]` each.
pub fn fold(conv: &mut [f32], norm: [&[f32]; 4]) -> Vec<f32> {
    let [weight, bias, mean, variance] = norm;
    let inputs = conv.len() / weight.len().max(1);
    let mut folded = Vec::with_capacity(weight.len());
    for (channel, of_channel) in conv.chunks_exact_mut(inputs.max(1)).enumerate() {
        let [weight, bias, mean, variance] = [weight, bias, mean, variance].map(|v| f64::from(v[channel]));
        let scale = weight / libm::sqrt(variance + EPS);
        of_channel.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
        folded.push((bias - mean * scale) as f32);
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_has_the_layers_and_the_cost_of_the_published_one() {
        let graph = graph(1).expect("a network");
        let convolutions = graph.weights().iter().filter(|weight| weight.name.ends_with("conv.weight"));
        assert_eq!(convolutions.clone().count(), 94);
        let numbers: usize = convolutions.map(|weight| weight.shape.iter().product::<usize>()).sum();
        // Those of torchvision's `inception_v3`, without its classifiers and without the batch normalisations.
        assert_eq!(numbers, 21_751_136);
        let cost = graph.total_cost(|id| graph.full_bytes(id));
        assert_eq!(format!("{:.2}", cost.multiply_adds as f64 / 1e9), "5.71");
        let shape = |path: &str| {
            let node = graph.nodes().iter().rfind(|node| node.path == path).expect("a layer");
            node.shape[1..].to_vec()
        };
        assert_eq!(shape("Mixed_5d"), [35, 35, 288]);
        assert_eq!(shape("Mixed_6e"), [17, 17, 768]);
        assert_eq!(shape("Mixed_7c"), [8, 8, 2048]);
    }

    #[test]
    fn a_folded_convolution_does_what_the_two_layers_do() {
        let (mut conv, norm) = (vec![1.0, -2.0, 0.5, 3.0], [[2.0, 0.5], [0.1, -0.2], [1.5, -1.0], [0.25, 4.0]]);
        let x = [0.7, -1.3];
        let expected: Vec<f64> = (0..2)
            .map(|c| {
                let y = f64::from(conv[2 * c]) * x[0] + f64::from(conv[2 * c + 1]) * x[1];
                let [weight, bias, mean, variance] = norm.map(|v| f64::from(v[c]));
                (y - mean) / (variance + 0.001).sqrt() * weight + bias
            })
            .collect();
        let bias = fold(&mut conv, [&norm[0], &norm[1], &norm[2], &norm[3]]);
        for c in 0..2 {
            let y = f64::from(conv[2 * c]) * x[0] + f64::from(conv[2 * c + 1]) * x[1] + f64::from(bias[c]);
            assert!((y - expected[c]).abs() < 1e-6, "channel {c}: {y}, expected {}", expected[c]);
        }
    }
}
