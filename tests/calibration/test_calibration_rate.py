from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from seatrial.stats.rate import below

ALPHA = 0.05
RUNS = 1_000
BOUND = 0.02
#: looks grow geometrically: early ones are where a peeked test errs
LOOKS = np.unique(np.geomspace(20, 5_000, 40).astype(int))


def rejected(rate, *, seed):
    """Return in how many of RUNS the process ever rejects "the rate is at least BOUND"."""
    rng = np.random.default_rng(seed)
    units = np.diff(LOOKS, prepend=0)
    bad = rng.binomial(units, rate, size=(RUNS, units.size)).cumsum(axis=1)
    threshold = math.log(1.0 / ALPHA)
    return sum(
        any(below(int(k), int(n), bound=BOUND) >= threshold for k, n in zip(run, LOOKS, strict=True)) for run in bad
    )


@pytest.mark.parametrize("rate", [BOUND, 1.5 * BOUND])
def test_a_rate_at_or_above_the_bound_is_ruled_out_at_most_as_often_as_alpha(rate):
    # False alarm of this test: at a true rejection rate of exactly alpha it fails once in ten thousand runs.
    assert rejected(rate, seed=1) <= binom.ppf(1 - 1e-4, RUNS, ALPHA)


def test_a_rate_far_below_the_bound_is_ruled_out_almost_always():
    assert rejected(0.1 * BOUND, seed=2) >= 0.95 * RUNS
