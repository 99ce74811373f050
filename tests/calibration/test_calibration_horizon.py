"""Promises of the test with a planned horizon by simulation, through a ramp with drift and shared shocks.

The false-alarm rate must lie between 3.5 and 6.5 % for a nominal 5 %. It is 5.0 to 5.4 % here, because the first look
of a small share is skewed. With 4,000 runs a test whose true rate is 5.0 % leaves the band once in 70,000 runs, and one
of 5.4 % once in a thousand. Rates beside it are compared with a binomial bound that is broken once in a million runs.
"""

import math

import numpy as np
import pytest
from scipy.stats import binom

from seatrial.stats import horizon

ERROR = 1e-6
SHARES = np.array([0.01, 0.05, 0.10, 0.25, 0.50])


def at_least(rate, hits):
    """Return whether so many hits are compatible with a probability of at least `rate`."""
    return hits.sum() >= binom.ppf(ERROR, hits.size, rate)


def ramp(rng, runs, *, ratio, looks_per_stage, units=40_000):
    """Return the looks of a ramp, by run, whose base rate swings by half and shakes by a third."""
    stage = np.repeat(np.arange(SHARES.size), looks_per_stage)
    phase = rng.uniform(0, 2 * math.pi, (runs, 1))
    swing = 1 + 0.5 * np.sin(2 * math.pi * np.arange(stage.size) / stage.size * 1.7 + phase)
    p = np.clip(0.02 * swing * rng.lognormal(0, 0.3, (runs, stage.size)), 0, 0.5)
    served = units // looks_per_stage
    n = rng.binomial(served, SHARES[stage], p.shape)
    bad, other_bad = rng.binomial(n, p * ratio), rng.binomial(served - n, p)
    by_stage = stage[:, None] == np.arange(SHARES.size)

    def cumulated(counts):
        return np.cumsum(counts[..., None] * by_stage, axis=1)

    looks = horizon.stratified(*map(cumulated, (bad, n, other_bad, served - n)))
    return [horizon.Stratified(*both) for both in zip(looks.score, looks.information, strict=True)]


def planned_information(units=40_000):
    """Return the information at the end of the ramp as a plan would state it, at the long-run base rate."""
    return float((SHARES * (1 - SHARES)).sum() * units * 0.02)


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("spending", [horizon.obrien_fleming, horizon.pocock])
def test_a_harmless_challenger_is_called_harmful_as_often_as_planned_through_ramp_and_drift(seed, spending):
    looks = ramp(np.random.default_rng(seed), 4_000, ratio=1.0, looks_per_stage=1, units=200_000)
    # The maximum is what each rollout will have: a plan that is met exactly spends exactly alpha.
    tests = [horizon.planned_test(o, maximum=o.information[-1], alpha=0.05, spending=spending) for o in looks]
    harmful = np.array([tested.is_harmful for tested in tests])
    assert 0.035 <= harmful.mean() <= 0.065
    peeked = np.array([(tested.z >= 1.645).any() for tested in tests])
    assert at_least(0.1, peeked)


@pytest.mark.parametrize("seed", [2])
@pytest.mark.parametrize("spending", [horizon.obrien_fleming, horizon.pocock])
def test_many_looks_and_a_plan_that_is_missed_do_not_raise_the_error(seed, spending):
    looks = ramp(np.random.default_rng(seed), 200, ratio=1.0, looks_per_stage=4)
    plan = {"maximum": planned_information(), "alpha": 0.05, "spending": spending}
    harmful = np.array([horizon.planned_test(each, **plan).is_harmful for each in looks])
    assert harmful.sum() <= binom.isf(ERROR, harmful.size, 0.055)


@pytest.mark.parametrize("seed", [3])
@pytest.mark.parametrize("spending", [horizon.obrien_fleming, horizon.pocock])
def test_a_small_harm_is_found_as_often_as_the_plan_says(seed, spending):
    looks = ramp(np.random.default_rng(seed), 400, ratio=1.15, looks_per_stage=1)
    plan = {"maximum": planned_information(), "alpha": 0.05, "spending": spending}
    harmful = np.array([horizon.planned_test(each, **plan).is_harmful for each in looks])
    information = np.cumsum(SHARES * (1 - SHARES)) * 40_000 * 0.02
    limit = horizon.limits(information, **plan)
    # The log odds ratio of 1.15 at a rate of 2 % is a little above log 1.15; the base rate swings, hence the slack.
    power = horizon.crossing(limit, information, effect=math.log(1.15)).sum()
    assert power > 0.6
    assert at_least(power - 0.1, harmful)
    assert harmful.mean() < power + 0.15
