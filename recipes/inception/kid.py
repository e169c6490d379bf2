"""Writes `tests/features/kid.safetensors`: the kernel inception distance of two small arrays, by plain numpy.

    python kid.py OUT

`real` [50, 64] and `generated` [40, 64] are f64 features; `mmd2` [1] is the unbiased estimate of the squared maximum mean
discrepancy over all of them under the kernel k(x, y) = (x.y / d + 1)^3, d = 64 (Binkowski et al. 2018, eq. 4):

    sum_{i != j} k(x_i, x_j) / (m (m - 1)) + sum_{i != j} k(y_i, y_j) / (n (n - 1)) - 2 sum_{i, j} k(x_i, y_j) / (m n)

`subsets.real` and `subsets.generated` (i64 [10, 20]) are rows of the two arrays, `subsets.mmd2` [10] the estimate for each
subset and `subsets.mean` [1] their mean.
"""

import sys

import numpy
from safetensors.numpy import save_file


def mmd2(x, y):
    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    m, n = len(x), len(y)
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    return (
        (xx.sum() - numpy.trace(xx)) / (m * (m - 1))
        + (yy.sum() - numpy.trace(yy)) / (n * (n - 1))
        - 2 * xy.sum() / (m * n)
    )


random = numpy.random.default_rng(64)
mix = random.normal(size=(64, 64)) / 8
real = numpy.maximum(random.normal(size=(50, 64)) @ mix + 0.3, 0)  # correlated and not negative, as features are
generated = numpy.maximum(1.2 * random.normal(size=(40, 64)) @ mix + 0.4, 0)
rows = [numpy.stack([random.choice(count, 20, replace=False) for _ in range(10)]) for count in (50, 40)]
estimates = numpy.array([mmd2(real[a], generated[b]) for a, b in zip(*rows)])
whole = mmd2(real, generated)
print(f"mmd2 {whole:.6f}, of subsets {estimates.mean():.6f} +- {estimates.std():.6f}")
save_file(
    {
        "real": real,
        "generated": generated,
        "mmd2": numpy.array([whole]),
        "subsets.real": rows[0].astype(numpy.int64),
        "subsets.generated": rows[1].astype(numpy.int64),
        "subsets.mmd2": estimates,
        "subsets.mean": numpy.array([estimates.mean()]),
    },
    sys.argv[1],
    {"numpy": numpy.__version__, "script": "recipes/inception/kid.py"},
)
