"""Promises of the delay estimates by simulation; bounds as in test_calibration_kernel."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from seatrial.stats import maturity

ERROR = 1e-6
MEDIAN = 24.0


def delays(rng, size, factor=1.0):
    return rng.lognormal(math.log(MEDIAN), 1.0, size) * factor


def true_share(age, horizon):
    return norm.cdf(math.log(age / MEDIAN)) / norm.cdf(math.log(horizon / MEDIAN))


@pytest.mark.parametrize("seed", [1])
def test_both_curves_are_unbiased_where_the_delays_seen_so_far_are_not(seed):
    rng = np.random.default_rng(seed)
    backward, forward, naive = [], [], []
    horizon = 120.0
    for _ in range(200):
        age = rng.uniform(0.0, horizon, 4_000)
        is_bad = rng.random(4_000) < 0.1
        delay = np.where(is_bad, delays(rng, 4_000), np.inf)
        seen = delay <= age
        backward.append(maturity.reverse_product_limit(delay[seen], age[seen]).at([MEDIAN])[0])
        forward.append(maturity.cured_kaplan_meier(np.minimum(delay, age), seen).at([MEDIAN])[0])
        naive.append((delay[seen] <= MEDIAN).mean())
    truth = true_share(MEDIAN, horizon)
    # The mean of 200 estimates of standard deviation .05 is within .018 but once in a million.
    assert np.mean(backward) == pytest.approx(truth, abs=0.018)
    assert np.mean(forward) == pytest.approx(truth, abs=0.018)
    assert np.mean(naive) > truth + 0.08


def matured(rng, challenger_factor, drift):
    """Return delays, arms and epochs of matured positives of a ramp whose delays drift from stage to stage."""
    epoch = np.repeat(np.arange(5), 200)
    arm = rng.random(1_000) < np.array([0.02, 0.05, 0.1, 0.25, 0.5])[epoch]
    delay = delays(rng, 1_000, np.where(arm, challenger_factor, 1.0) * np.exp(drift * epoch))
    return delay, arm, epoch


@pytest.mark.parametrize("seed", [2])
def test_equal_delays_are_doubted_as_often_as_the_p_value_says_and_halved_ones_are_found(seed):
    rng = np.random.default_rng(seed)
    p = [maturity.delay_equality(*matured(rng, 1.0, 0.3)).p_value < 0.05 for _ in range(600)]
    assert binom.ppf(ERROR, 600, 0.05) <= sum(p) <= binom.isf(ERROR, 600, 0.05)
    found = [maturity.delay_equality(*matured(rng, 0.5, 0.3)) for _ in range(100)]
    assert all(result.z > 0 for result in found)
    assert sum(result.p_value < 0.01 for result in found) >= binom.ppf(ERROR, 100, 0.95)


@pytest.mark.parametrize("seed", [3])
def test_without_epochs_a_drift_of_delays_would_look_like_a_difference_of_the_arms(seed):
    rng = np.random.default_rng(seed)
    rejected = 0
    for _ in range(100):
        delay, arm, _ = matured(rng, 1.0, 0.3)
        rejected += maturity.delay_equality(delay, arm, np.zeros(delay.size)).p_value < 0.05
    assert rejected >= binom.ppf(ERROR, 100, 0.9)
