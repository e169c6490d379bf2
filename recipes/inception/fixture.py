"""Writes `tests/features/inception.safetensors`: what the network of the Python package pytorch-fid makes of a few pictures.

    python fixture.py OUT [--pth FILE]

The weights are random, and too many to be committed, so a reader draws them again. Of the state dict of the package's
`fid_inception_v3()`, without `fc.*` and `*.num_batches_tracked`, the names are sorted; tensor number k (from 0) starts as
u = torch.rand(shape, generator=torch.Generator().manual_seed(k)), in f32. Then, each operation rounded to f32:

    conv.weight      (2 u - 1) * s    s = sqrt(2) * sqrt(3 / fan_in) in f64, then rounded to f32;
                                      fan_in = input channels * kernel height * kernel width; 2 u - 1 is exact
    bn.weight        u + 0.5
    bn.bias          u - 0.5          exact
    bn.running_mean  (u - 0.5) * 0.25 exact
    bn.running_var   u + 0.5

OUT has, for every input K: `picture.K` (u8 [N, 3, height, width]), `features.K` (f32 [N, 2048]: pool3, with the package's
resize to 299x299 and normalisation), and `mean.STAGE.K` (f32 [N, channels]: the mean over the pixels behind each stage).
`weights.sum` and `weights.first` (f64 and f32, one entry a tensor, in order) tell whether the weights were drawn alike.
With --pth the state dict is also saved as the package's published file is, `fc.*` included.
"""

import argparse
import math
from unittest import mock

import torch
from pytorch_fid import inception
from safetensors.torch import save_file

STAGES = (
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2 "
    "Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c"
).split()


def drawn(name, shape, k):
    u = torch.rand(shape, generator=torch.Generator().manual_seed(k))
    if name.endswith("conv.weight"):
        scale = torch.tensor(math.sqrt(2) * math.sqrt(3 / math.prod(shape[1:])), dtype=torch.float64).to(torch.float32)
        return (2 * u - 1) * scale
    if name.endswith(("bn.weight", "bn.running_var")):
        return u + 0.5
    if name.endswith("bn.bias"):
        return u - 0.5
    assert name.endswith("bn.running_mean"), name
    return (u - 0.5) * 0.25


def network():
    """The package's network with drawn weights, its state dict, and the names that were drawn, in order."""
    with (
        mock.patch.object(inception, "load_state_dict_from_url", return_value={}),
        mock.patch.object(torch.nn.Module, "load_state_dict"),
    ):
        state = inception.fid_inception_v3().state_dict()
    names = sorted(n for n in state if not n.startswith("fc.") and not n.endswith(".num_batches_tracked"))
    for k, name in enumerate(names):
        state[name] = drawn(name, state[name].shape, k)
    with mock.patch.object(inception, "load_state_dict_from_url", return_value=state):
        return inception.InceptionV3().eval(), state, names


def picture(kind, height, width, generator):
    """A picture with large shapes, edges, a gradient and some noise, u8 [3, height, width]."""
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None, :]
    base = [
        torch.stack([x + 0 * y, y + 0 * x, -x * y]),
        torch.stack([torch.sin(9 * x + 4 * y), torch.cos(7 * y - x), torch.sin(12 * x * y)]),
        torch.stack([(torch.floor(4 * x) + torch.floor(4 * y)) % 2 + 0 * x, x * x + y * y, 1 - (x + y).abs()]) - 0.5,
    ][kind % 3]
    centre = torch.rand(4, 2, generator=generator) * 1.4 - 0.7
    colour = torch.rand(4, 3, generator=generator) * 2 - 1
    for (cx, cy), rgb in zip(centre, colour):
        inside = (x - cx) ** 2 + (y - cy) ** 2 < 0.08
        base = torch.where(inside, rgb[:, None, None], base)
    base = base + 0.1 * torch.randn(base.shape, generator=generator)
    return ((base * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--pth", help="also save the state dict here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    net, state, names = network()
    if args.pth:
        torch.save(state, args.pth)

    layers = [layer for block in net.blocks for layer in block][: len(STAGES)]
    seen = {}
    for stage, layer in zip(STAGES, layers):
        layer.register_forward_hook(lambda _, __, output, stage=stage: seen.__setitem__(stage, output.mean((2, 3))))

    generator = torch.Generator().manual_seed(2048)
    tensors = {
        "weights.sum": torch.tensor([state[name].double().sum().item() for name in names], dtype=torch.float64),
        "weights.first": torch.stack([state[name].flatten()[0] for name in names]),
    }
    sizes = [(2, 64, 64), (1, 299, 299), (1, 96, 160), (1, 200, 320)]
    features = []
    for k, (count, height, width) in enumerate(sizes):
        pictures = torch.stack([picture(k + n, height, width, generator) for n in range(count)])
        with torch.no_grad():
            pooled = net(pictures.float() / 255)[0][:, :, 0, 0]
        features.append(pooled)
        tensors[f"picture.{k}"] = pictures
        tensors[f"features.{k}"] = pooled.contiguous()
        for stage in STAGES:
            tensors[f"mean.{stage}.{k}"] = seen[stage].contiguous()
            print(f"{k} {stage}: mean {seen[stage].mean():.3f}, over channels {seen[stage].std():.3f}")
    features = torch.cat(features)
    print(f"{len(names)} tensors drawn, {sum(state[name].numel() for name in names)} weights")
    print(f"features {features.min():.4f} to {features.max():.4f}, mean {features.mean():.4f}, zero {(features == 0).float().mean():.3f}")
    print(f"deviation over channels {features.std(1).mean():.4f}, over pictures {features.std(0).mean():.4f}")
    metadata = {"torch": torch.__version__, "pytorch-fid": "0.3.0", "script": "recipes/inception/fixture.py"}
    save_file(tensors, args.out, metadata)


if __name__ == "__main__":
    main()
