"""Promises of certified cut-offs by simulation, each beside the plug-in rule that breaks it about every second time.

A rate is compared with a binomial bound that a correct implementation breaks once in a million runs (`ERROR`), so that
all comparisons here together raise a false alarm less than once in fifty thousand runs. Truth is known in closed form:
scores are uniform, coarse or fine, and the chance of a 1 is a function of the score.
"""

import math

import numpy as np
import pytest
from scipy.stats import binom

from seatrial.stats import thresholds

ERROR = 1e-6
RUNS = 3000
CUT_OFFS = np.linspace(0.98, 0.3, 35)


def at_most(rate, hits):
    """Return whether so many hits are compatible with a probability of at most `rate`."""
    return sum(hits) <= binom.isf(ERROR, len(hits), rate)


def at_least(rate, hits):
    """Return whether so many hits are compatible with a probability of at least `rate`."""
    return sum(hits) >= binom.ppf(ERROR, len(hits), rate)


def beyond(cut_off, grid):
    """Return the true share of scores k / grid, k uniform on 1 to grid, that are at the cut-off or above."""
    return (grid - math.ceil(cut_off * grid - 1e-9) + 1) / grid


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize(("grid", "power"), [(1_000_000_000, 0.06), (100, 0.05)])
def test_a_certified_cut_off_is_passed_by_too_many_at_most_as_often_as_delta_with_and_without_ties(seed, grid, power):
    rng = np.random.default_rng(seed)
    rate, delta, certified, plugged, kept = 0.05, 0.1, [], [], []
    for _ in range(RUNS):
        scores = rng.integers(1, grid, 1000, endpoint=True) / grid
        true = beyond(thresholds.certified_cut_off(scores, rate=rate, delta=delta), grid)
        certified.append(true > rate + 1e-9)
        kept.append(true)
        plugged.append(beyond(np.sort(scores)[-50], grid) > rate + 1e-9)
    assert at_most(delta, certified)
    assert at_least(power, certified)
    if grid > 1000:
        assert at_least(0.42, plugged)
        assert np.mean(kept) > 0.038


@pytest.mark.parametrize("seed", [2])
def test_a_cut_off_tested_for_precision_misses_it_at_most_as_often_as_delta(seed):
    # P(1 | score s) = s for uniform s: the precision at cut-off t is (1 + t) / 2.
    rng = np.random.default_rng(seed)
    wanted, delta, missed, plugged, found = 0.9, 0.1, [], [], []
    for _ in range(RUNS):
        scores = rng.uniform(size=1000)
        labels = rng.uniform(size=1000) < scores
        cut_off = thresholds.learn_then_test(scores, labels, precision=wanted, delta=delta, cut_offs=CUT_OFFS[1:])
        found.append(cut_off is not None)
        missed.append(cut_off is not None and (1 + cut_off) / 2 < wanted - 1e-9)
        is_above = np.array([labels[scores >= t].mean() >= wanted for t in CUT_OFFS])
        plugged.append((1 + CUT_OFFS[np.flatnonzero(is_above)[-1]]) / 2 < wanted - 1e-9 if is_above.any() else False)
    assert at_most(delta, missed)
    assert at_least(0.004, missed)
    assert at_least(0.3, plugged)
    assert at_least(0.6, found)


@pytest.mark.parametrize("seed", [3])
def test_the_exact_limits_and_the_band_hold_the_action_rate(seed):
    rng = np.random.default_rng(seed)
    cut_offs = np.linspace(0, 1, 101)
    outside_one, outside_all = [], []
    for _ in range(RUNS):
        scores = rng.uniform(size=400)
        one = thresholds.action_rate(scores, 0.93, alpha=0.1)
        _, low, high = thresholds.action_rate_band(scores, cut_offs, alpha=0.1)
        outside_one.append(not one.low <= 0.07 <= one.high)
        outside_all.append(((1 - cut_offs < low - 1e-12) | (1 - cut_offs > high + 1e-12)).any())
    assert at_most(0.1, outside_one)
    assert at_most(0.1, outside_all)
    assert at_least(0.05, outside_one)
    assert at_least(0.03, outside_all)


@pytest.mark.parametrize("seed", [4])
def test_the_bands_of_the_curve_hold_all_cut_offs_at_once(seed):
    rng = np.random.default_rng(seed)
    cut_offs = np.linspace(0.1, 0.9, 9)
    outside = []
    for _ in range(1000):
        scores = rng.uniform(size=300)
        curve = thresholds.trade_off(scores, rng.uniform(size=300) < scores, cut_offs, alpha=0.1)
        true = (1 + cut_offs) / 2
        outside.append(((true < curve.precision_low) | (true > curve.precision_high)).any())
    assert at_most(0.1, outside)
    assert at_least(0.005, outside)
