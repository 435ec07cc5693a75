"""How sure a mean is: bootstrap intervals over the items of a benchmark."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from raytrace_face.errors import InputError

Values = Sequence[float] | NDArray[np.floating]
RESAMPLES = 9999
"""The ends of a 95 % interval then scatter by about 1 % of its width from seed to seed."""
BATCH = 10_000_000
"""Values resampled at a time: 80 MB."""


@dataclass(frozen=True)
class Interval:
    """A statistic and its confidence interval."""

    value: float
    low: float
    """NaN where one item says nothing about the spread."""
    high: float
    count: int
    """How many items there were."""


def bootstrap_interval(
    values: Values, statistic: Callable[..., Any] = np.mean, level: float = 0.95, seed: int = 0
) -> Interval:
    """A statistic of items and its bootstrap interval (BCa, Efron 1987; percentiles where BCa is not defined).

    Items must be independent: people, not photos of one person. Average what belongs together first.

    Args:
        values: (N,) one figure an item. One item gives NaN as ends, equal items the value itself.
        statistic: of an array along `axis`, as `np.mean` and `np.median` are.
        level: confidence in (0, 1).
        seed: of the resampling.

    Raises:
        InputError: no items, a figure that is not finite, or a level outside (0, 1).
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or x.size == 0:
        raise InputError(f"values have shape {x.shape}: give one figure for each of at least one item")
    if not np.isfinite(x).all():
        raise InputError(
            f"{int((~np.isfinite(x)).sum())} of {x.size} figures are not finite: "
            "say what a failure scores, or leave it out"
        )
    if not 0 < level < 1:
        raise InputError(f"level is {level}: it must lie between 0 and 1, as 0.95")
    value = float(statistic(x))
    if x.size == 1:
        return Interval(value, float("nan"), float("nan"), 1)
    if np.ptp(x) == 0:
        return Interval(value, value, value, x.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BCa says so where it is not defined
        found = bootstrap(
            (x,), statistic, confidence_level=level, n_resamples=RESAMPLES, batch=max(BATCH // x.size, 1),
            method="BCa", rng=np.random.default_rng(seed),
        )  # fmt: skip
    ends = np.array([found.confidence_interval.low, found.confidence_interval.high])
    if not np.isfinite(ends).all():
        ends = np.quantile(found.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(ends[0]), float(ends[1]), x.size)


def paired_interval(
    a: Values, b: Values, statistic: Callable[..., Any] = np.mean, level: float = 0.95, seed: int = 0
) -> Interval:
    """The statistic of the differences a - b of two methods over the same items, and its interval.

    What an item itself adds to both falls out, so that far smaller differences show than by two intervals.

    Raises:
        InputError: not the same number of items, and as `bootstrap_interval` does.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        raise InputError(f"{first.shape} and {second.shape} figures are no pairs: score both methods on the same items")
    return bootstrap_interval(first - second, statistic, level, seed)
