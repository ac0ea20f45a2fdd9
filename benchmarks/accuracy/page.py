"""docs/accuracy.md from the results files: `python benchmarks/accuracy/page.py`.

python_tests/benchmarks/test_accuracy_page.py sees to it that page and results agree.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.accuracy import tables  # noqa: E402

PAGE = ROOT / "docs" / "accuracy.md"


def page() -> str:
    """The page as Markdown."""
    return f"""# Accuracy

Made from [benchmarks/results/accuracy](../benchmarks/results/accuracy) by
`python benchmarks/accuracy/page.py`; scripts, seeds and the versions compared are there. "Before"
is commit ac511bd. Truths are float64, written out apart from the package.

## Order, streams, bare data sets, traces

{tables.before_and_after("data_and_traces")}
A loader has an order that cannot be changed: the value stays and a warning says what it is worth.

## One large sample

CKA of a linear map with noise, the first sample times a ratio, float32; six routes: function, grid,
jackknife, permutation test, `MinibatchCKA`, `compare`.

{tables.large_samples()}
## Neighbours and distances in tight clusters

Ten clusters and a rotation of them, float32; `rsm_norm_difference` is in units of the features.

{tables.tight_clusters()}
## Padding, layout, layers of layers, rows

{tables.before_and_after("tokens_and_layout")}
## Edge cases

{tables.before_and_after("edge_cases")}
## Unrelated representations

Independent Gaussians. Levels are means of 20 permutations, beside means over eight independent data
sets; calibrated values are relative to 99 permutations.

{tables.few_samples()}
## Features that are a sample

Two populations of 2,000 units, random units of each; means over 200 draws.

{tables.sampled_features()}
CKA of few units is far below that of the populations; the correction has its value on average, and
of ten units scatters beyond 1.

## How sure: coverage of 95 % intervals

CKA from batches, `result.interval(0.95)`, of Gaussian features with a known population value: per
cent of intervals that hold it, ± standard error.

{tables.coverage()}
{tables.coverage_in_words()}

Other measures have intervals from a jackknife over ten groups of samples:

{tables.coverage_of_others()}
Such a measure is off on average where features are many for the samples ("mean"), and its interval
is about that mean. `interval(less_bias=True)` takes off what the jackknife finds, which mends it
but for correlations and Procrustes of what is hardly related. Chance levels and calibrated values
are above.

## Errors by precision

CKA of one batch of 32 to 512 samples, 64 to 4,096 features, 60 data sets a cell.

{tables.precision()}
A CPU's "bfloat16" multiplies bfloat16 in AMX's tiles where it has them, else 16-bit integers where
it can (AVX-512 VNNI), else float32. Nothing has been measured on a GPU.

## What the safeguards cost

One thread, both versions in turn, medians; the machine was shared.

{tables.cost()}
The grid of ResNet-18 x ResNet-34, 50 x 90 layers, 512 images, medians of five processes of each
version in turn:

{tables.grid_time()}
Recorded runs of that grid (`pytest
benchmarks/test_layer_grid.py --benchmark-enable --record`):

{tables.layer_grid()}"""


if __name__ == "__main__":
    PAGE.write_text(page())
