"""The UNet of bench/networks/sd15.json in PyTorch eager, f16, on the CUDA device: the rival of a real GPU's measurement.

Prints one line of JSON in the form of `undiffuse-bench profile`: the time of each kind of operation, and as ceilings what torch's own matrix
products and copy reach.
"""
import argparse
import collections
import json
import pathlib
import statistics
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=2)
parser.add_argument("--side", type=int, default=64)
parser.add_argument("--steps", type=int, default=15)
arguments = parser.parse_args()

try:
    import torch
    from diffusers import UNet2DConditionModel
except ImportError as error:
    sys.exit(f"python3 has no torch and diffusers: {error}")
if not torch.cuda.is_available():
    sys.exit("torch finds no CUDA device")

TOKENS = 77
# torch's operators by what they compute; the rest is `other`.
KINDS = {
    "conv2d": ("conv",),
    "linear": ("addmm", "aten::mm", "aten::bmm", "linear"),
    "attention": ("scaled_dot_product", "flash_attention", "efficient_attention"),
    "group_norm": ("group_norm",),
    "layer_norm": ("layer_norm",),
}

config = json.loads((pathlib.Path(__file__).parent.parent / "networks/sd15.json").read_text())
torch.manual_seed(0)
with torch.device("cuda"):
    unet = UNet2DConditionModel.from_config(config).half().eval().requires_grad_(False)
options = dict(device="cuda", dtype=torch.half)
sample = torch.randn(arguments.batch, 4, arguments.side, arguments.side, **options)
text = torch.randn(arguments.batch, TOKENS, config["cross_attention_dim"], **options)
timestep = torch.tensor(417, device="cuda")


def timed(work):
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def step():
    unet(sample, timestep, text, return_dict=False)


def kind_of(operator):
    return next((kind for kind, parts in KINDS.items() if any(part in operator for part in parts)), "other")


first = timed(step)
steps = [timed(step) * 1e3 for _ in range(arguments.steps)]

with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]) as profile:
    timed(step)
milliseconds, calls = collections.Counter(), collections.Counter()
for operator in profile.key_averages():
    own = operator.self_device_time_total / 1e3
    # Kernels are listed beside the operators that launch them.
    if own > 0 and operator.key.startswith("aten::"):
        milliseconds[kind_of(operator.key)] += own
        calls[kind_of(operator.key)] += operator.count


def rate(amount, work):
    work()
    return amount / min(timed(work) for _ in range(10)) / 1e9


side = 4096
full, half = torch.randn(side, side, device="cuda"), torch.randn(side, side, **options)
large = torch.empty(1 << 28, device="cuda", dtype=torch.uint8)
other = torch.empty_like(large)
kinds = [
    dict(op=kind, nodes=calls[kind], ms=ms, gflop=None, gb=None, roofline=None) for kind, ms in milliseconds.most_common()
]
print(json.dumps(dict(
    device=f"{torch.cuda.get_device_name()}, torch {torch.__version__}",
    clock="CUDA events",
    first_ms=first * 1e3,
    steps_ms=steps,
    whole_ms=statistics.median(steps),
    gflops=rate(2 * side**3, lambda: full @ full),
    half_gflops=rate(2 * side**3, lambda: half @ half),
    copy_gb=rate(2 * large.numel(), lambda: other.copy_(large)),
    kinds=kinds,
)))
