"""Writes `tests/features/emoji.safetensors`: what torch makes of a few pictures with the published f16 weights, in f32.

    python fixture.py MODEL PICTURES OUT

For every input K: `picture.K` (u8 [N, 3, height, width]), `features.K` [N, D], `glyph.K` and `style.K` (the logits). Input 0
is four drawings of 64x64 (noto: fox, noto: rocket, fluent-emoji-flat: octopus, noto-v1: pizza), 1 and 2 are made of a
gradient, discs and noise in other sizes, which are resized bilinearly, without antialiasing, before 2 x - 1.
"""

import os
import sys

import numpy
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from train import SIZE, load

DRAWINGS = ["noto/fox.png", "noto/rocket.png", "fluent-emoji-flat/octopus.png", "noto-v1/pizza.png"]


def made(height, width, generator):
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None, :]
    picture = torch.stack([x + 0 * y, y + 0 * x, torch.sin(6 * x * y)])
    for cx, cy, *colour in (torch.rand(3, 5, generator=generator) * 2 - 1).tolist():
        inside = (x - 0.7 * cx) ** 2 + (y - 0.7 * cy) ** 2 < 0.15
        picture = torch.where(inside, torch.tensor(colour)[:, None, None], picture)
    picture = picture + 0.05 * torch.randn(picture.shape, generator=generator)
    return ((picture / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def main():
    model, pictures, out = sys.argv[1:]
    torch.set_num_threads(1)
    network, config = load(model)
    generator = torch.Generator().manual_seed(64)
    drawings = [numpy.asarray(Image.open(os.path.join(pictures, file)).convert("RGB")) for file in DRAWINGS]
    inputs = [
        torch.from_numpy(numpy.stack(drawings)).permute(0, 3, 1, 2).contiguous(),
        made(96, 80, generator)[None],
        made(40, 52, generator)[None],
    ]
    tensors = {}
    for k, picture in enumerate(inputs):
        x = picture.float() / 255
        if x.shape[2:] != (SIZE, SIZE):
            x = F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", align_corners=False, antialias=False)
        with torch.no_grad():
            features = network(2 * x - 1)
            glyph, style = network.glyph(features), network.style(features)
        tensors |= {f"picture.{k}": picture, f"features.{k}": features, f"glyph.{k}": glyph, f"style.{k}": style}
        for i in range(len(picture)):
            names = config["glyphs"][glyph[i].argmax()], config["styles"][style[i].argmax()]
            print(f"picture.{k}[{i}]: {names}, features {features[i].min():.3f} to {features[i].max():.3f}")
    save_file(tensors, out, {"torch": torch.__version__, "script": "recipes/emoji-features/fixture.py"})


if __name__ == "__main__":
    main()
