"""Trains the classifier of emoji pictures whose features the project's own FID compares.

    python train.py PICTURES OUT [--minutes 20] [--seed 1] [--report FILE]

PICTURES is what `render.mjs` wrote to OUT/pictures. OUT gets `config.json` and `model.safetensors` (f16).
The network is written down twice: `Trained` with batch normalisation, and `Exported` without, with the normalisation folded
into the convolutions. Only the second is published, and all accuracies are those of its f16 weights.
"""

import argparse
import json
import math
import os
import time

import numpy
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

CHANNELS = [16, 24, 64, 128, 64]
SIZE = 64
# Small pictures first, which cost little: (from this share of the training on, width and height).
SIZES = [(0.0, 32), (0.3, 48), (0.55, SIZE)]


class Convolution(nn.Module):
    """A convolution: with batch normalisation behind it while training, with a bias once exported."""

    def __init__(self, inputs, outputs, kernel, stride, normed):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=not normed)
        self.norm = nn.BatchNorm2d(outputs) if normed else None

    def forward(self, x):
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)

    def folded(self):
        """Weight and bias of the one convolution that does what this convolution and its normalisation do."""
        scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        return self.conv.weight * scale[:, None, None, None], self.norm.bias - self.norm.running_mean * scale


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, normed):
        super().__init__()
        self.conv1 = Convolution(inputs, outputs, 3, stride, normed)
        self.conv2 = Convolution(outputs, outputs, 3, 1, normed)
        changes = stride != 1 or inputs != outputs
        self.shortcut = Convolution(inputs, outputs, 1, stride, normed) if changes else None

    def forward(self, x):
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.conv2(F.relu(self.conv1(x))) + shortcut)


class Network(nn.Module):
    """Pictures [N, 3, 64, 64] in -1..1 to features [N, D]; the heads are applied to the features."""

    def __init__(self, channels, glyphs, styles, normed):
        super().__init__()
        self.conv_in = Convolution(3, channels[0], 3, 1, normed)
        pairs = zip([channels[0], *channels], channels)
        self.blocks = nn.ModuleList([Block(i, o, 1 if k == 0 else 2, normed) for k, (i, o) in enumerate(pairs)])
        self.glyph = nn.Linear(channels[-1], glyphs)
        self.style = nn.Linear(channels[-1], styles)

    def forward(self, x):
        x = F.relu(self.conv_in(x))
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))


def export(network):
    """The tensors to publish, in f16, under the names `conv_in`, `blocks.I.conv1`, `.conv2`, `.shortcut`, `glyph`, `style`."""
    tensors = {}
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, Convolution):
                tensors[f"{name}.weight"], tensors[f"{name}.bias"] = module.folded()
            elif isinstance(module, nn.Linear):
                tensors[f"{name}.weight"], tensors[f"{name}.bias"] = module.weight, module.bias
    return {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in tensors.items()}


def load(folder):
    """The published network, f16 weights in f32 arithmetic, and its config."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    network = Network(config["block_out_channels"], len(config["glyphs"]), len(config["styles"]), normed=False)
    state = {}
    for name, tensor in load_file(os.path.join(folder, "model.safetensors")).items():
        module, kind = name.rsplit(".", 1)
        state[name if module in ("glyph", "style") else f"{module}.conv.{kind}"] = tensor.float()
    network.load_state_dict(state)
    return network.eval(), config


def pictures(folder):
    """All pictures as u8 [N, 3, 64, 64], and the index."""
    with open(os.path.join(folder, "index.json"), encoding="utf-8") as file:
        index = json.load(file)
    data = [numpy.asarray(Image.open(os.path.join(folder, item["file"])).convert("RGB")) for item in index["pictures"]]
    return torch.from_numpy(numpy.stack(data)).permute(0, 3, 1, 2).contiguous(), index


def uniform(n, low, high, generator):
    return torch.rand(n, generator=generator) * (high - low) + low


def augment(batch, generator):
    """Pictures in 0..1, moved, turned, recoloured, and some of them softened, made noisy or partly covered."""
    n = len(batch)
    angle = uniform(n, -0.15, 0.15, generator)
    scale_x, scale_y = (1 / uniform((n, 2), 0.8, 1.15, generator)).unbind(1)
    skew = uniform(n, -0.08, 0.08, generator)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = angle.cos() * scale_x, -angle.sin() * scale_y + skew
    theta[:, 1, 0], theta[:, 1, 1] = angle.sin() * scale_x, angle.cos() * scale_y
    theta[:, :, 2] = uniform((n, 2), -0.14, 0.14, generator)
    grid = F.affine_grid(theta, batch.shape, align_corners=False)
    batch = 1 - F.grid_sample(1 - batch, grid, padding_mode="zeros", align_corners=False)  # white comes in from outside

    # A random colour matrix near the identity (hue, saturation) that keeps white where it is, then gamma.
    matrix = torch.eye(3) + 0.05 * torch.randn(n, 3, 3, generator=generator)
    grey = uniform((n, 1, 1), 0, 0.5, generator) * (torch.rand(n, 1, 1, generator=generator) < 0.5)
    matrix = matrix * (1 - grey) + grey / 3
    batch = 1 - torch.einsum("nij,njhw->nihw", matrix, 1 - batch)
    gamma = torch.exp(uniform((n, 1, 1, 1), -0.3, 0.3, generator))
    batch = batch.clamp(1e-4, 1) ** gamma

    # What a small decoder does to a picture: it is soft, and grainy.
    soft = F.avg_pool2d(F.pad(batch, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = uniform((n, 1, 1, 1), 0, 1, generator) * (torch.rand(n, 1, 1, 1, generator=generator) < 0.4)
    batch = batch + amount * (soft - batch)
    sigma = uniform((n, 1, 1, 1), 0, 0.08, generator) * (torch.rand(n, 1, 1, 1, generator=generator) < 0.4)
    batch = batch + sigma * torch.randn(batch.shape, generator=generator)

    # A grey square over a fifth of the width, in a quarter of the pictures.
    size = batch.shape[-1]
    at = torch.arange(size)
    corner = torch.randint(0, size - size // 5, (n, 2, 1), generator=generator)
    inside = (at >= corner) & (at < corner + size // 5)
    inside = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None] & (torch.rand(n, 1, 1, 1, generator=generator) < 0.25)
    batch = torch.where(inside, torch.rand(n, 1, 1, 1, generator=generator), batch)
    return batch.clamp(0, 1)


def resized(data, size):
    """u8 pictures in another size, as floats in 0..1."""
    data = data.float() / 255
    return data if data.shape[-1] == size else F.interpolate(data, size=(size, size), mode="bilinear", antialias=True)


class Batches(torch.utils.data.IterableDataset):
    """Augmented batches in -1..1 with the numbers of their pictures, for `seconds`; made in a process of their own.

    The clock decides how far the training has come, so that it ends in time on a busy machine.
    """

    def __init__(self, data, rows, batch, seconds, seed):
        self.data, self.rows, self.batch, self.seconds, self.seed = data, rows, batch, seconds, seed

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        start, size, data = time.time(), None, None
        while True:
            for rows in self.rows[torch.randperm(len(self.rows), generator=generator)].split(self.batch):
                progress = (time.time() - start) / self.seconds
                if progress >= 1:
                    return
                wanted = max(size for share, size in SIZES if progress >= share)
                if size != wanted:
                    size, data = wanted, resized(self.data, wanted)
                if len(rows) == self.batch:
                    yield 2 * augment(data[rows], generator) - 1, rows, progress


def evaluate(network, data, glyphs, styles, size=SIZE):
    """Top-1 and top-5 accuracy of the glyph and top-1 of the style, and the features."""
    with torch.no_grad():
        features = torch.cat([network(2 * resized(part, size) - 1) for part in data.split(128)])
        top = network.glyph(features).topk(5).indices
        style = network.style(features).argmax(1)
    return {
        "pictures": len(data),
        "glyph top-1": (top[:, 0] == glyphs).float().mean().item(),
        "glyph top-5": (top == glyphs[:, None]).any(1).float().mean().item(),
        "style top-1": (style == styles).float().mean().item(),
    }, features


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures")
    parser.add_argument("out")
    parser.add_argument("--minutes", type=float, default=20, help="wall-clock time of the training")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=1, help="of the network; the pictures are made by another process")
    parser.add_argument("--report", help="write the accuracies here too, as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)

    data, index = pictures(args.pictures)
    items = index["pictures"]
    glyph_of = {name: k for k, name in enumerate(index["glyphs"])}
    group_names = sorted({item["group"] for item in items})
    glyphs = torch.tensor([glyph_of[item["glyph"]] for item in items])
    styles = torch.tensor([index["styles"].index(item["style"]) for item in items])
    groups = torch.tensor([group_names.index(item["group"]) for item in items])
    test = torch.tensor([item["split"] == "classifier-test" for item in items])
    train = (~test).nonzero()[:, 0]

    network = Network(CHANNELS, len(index["glyphs"]), len(index["styles"]), normed=True)
    group_head = nn.Linear(CHANNELS[-1], len(group_names))  # helps while training; not published
    network.to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    parameters = [*network.parameters(), *group_head.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0},
        ],
        lr=args.rate,
    )
    print(f"{sum(p.numel() for p in network.parameters())} parameters, {len(train)} pictures to train on, {int(test.sum())} to test")

    loader = iter(torch.utils.data.DataLoader(
        Batches(data, train, args.batch, 60 * args.minutes, args.seed), batch_size=None, num_workers=1, prefetch_factor=4
    ))
    start, step, shown, running = time.time(), 0, 0.0, {}
    for batch, rows, progress in loader:
        rate = args.rate * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * progress)) + 1e-6
        for part in optimizer.param_groups:
            part["lr"] = rate
        network.train()
        with torch.autocast("cpu", torch.bfloat16):
            features = network(batch.contiguous(memory_format=torch.channels_last))
        features = features.float()
        losses = {
            "glyph": F.cross_entropy(network.glyph(features), glyphs[rows], label_smoothing=0.05),
            "style": F.cross_entropy(network.style(features), styles[rows], label_smoothing=0.05),
            "group": F.cross_entropy(group_head(features), groups[rows], label_smoothing=0.05),
        }
        loss = losses["glyph"] + losses["style"] + 0.2 * losses["group"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5)
        optimizer.step()
        average.update_parameters(network)
        step += 1
        for name, value in losses.items():
            running[name] = running.get(name, value.item()) * 0.98 + 0.02 * value.item()
        if progress - shown > 0.05:
            shown = progress
            average.module.eval()
            size = batch.shape[-1]
            result, _ = evaluate(average.module, data[test], glyphs[test], styles[test], size)
            trace = " ".join(f"{name} {value:.3f}" for name, value in running.items())
            scores = " ".join(f"{name} {value:.3f}" for name, value in result.items() if name != "pictures")
            print(f"{time.time() - start:5.0f} s, step {step}, {size}x{size}, lr {rate:.1e}: {trace}; test {scores}", flush=True)

    os.makedirs(args.out, exist_ok=True)
    average.module.eval()
    save_file(export(average.module), os.path.join(args.out, "model.safetensors"), metadata={"format": "pt"})
    config = {
        "_class_name": "EmojiClassifier",
        "in_channels": 3,
        "sample_size": SIZE,
        "block_out_channels": CHANNELS,
        "glyphs": index["glyphs"],
        "styles": index["styles"],
    }
    with open(os.path.join(args.out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
        file.write("\n")

    published, _ = load(args.out)
    report = {"steps": step, "epochs": step * args.batch / len(train), "minutes": args.minutes}
    report["test"], _ = evaluate(published, data[test], glyphs[test], styles[test])
    report["train"], features = evaluate(published, data[train], glyphs[train], styles[train])
    for style, name in enumerate(index["styles"]):
        rows = test & (styles == style)
        report[f"test, {name}"], _ = evaluate(published, data[rows], glyphs[rows], styles[rows])
    report["features"] = {
        "mean": features.mean().item(),
        "smallest deviation": features.std(0).min().item(),
        "largest deviation": features.std(0).max().item(),
        "condition of covariance": torch.linalg.cond(torch.cov(features.T.double())).item(),
    }
    if args.report:
        with open(args.report, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
