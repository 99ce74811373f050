"""Promises of the comparison of means by simulation; bounds as in test_calibration_kernel."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from seatrial.stats import means

ERROR = 1e-6
SHARES = np.array([0.01, 0.05, 0.10, 0.25, 0.50])
LOG_20 = math.log(20)


def at_most(rate, hits):
    hits = np.asarray(hits)
    return hits.sum() <= binom.isf(ERROR, hits.size, rate)


def at_least(rate, hits):
    hits = np.asarray(hits)
    return hits.sum() >= binom.ppf(ERROR, hits.size, rate)


def amounts(rng, size, level):
    """Return amounts of which four fifths are 0 and the rest has a long right tail."""
    return np.where(rng.random(size) < 0.2, rng.lognormal(0.0, 0.8, size), 0.0) * level


def looks(rng, values_of, *, lift, per_stage=6, units=1_000):
    """Yield the sums of both arms after each tick of a ramp whose level drifts."""
    stages = SHARES.size
    totals = [means.Sums.of([], [], stages) for _ in range(2)]
    phase = rng.uniform(0, 2 * math.pi)
    for tick in range(stages * per_stage):
        level = 1 + 0.5 * math.sin(tick / 5 + phase)
        in_challenger = rng.random(units) < SHARES[tick // per_stage]
        values, denominators = values_of(rng, units, level, np.where(in_challenger, lift, 1.0))
        epoch = np.full(units, tick // per_stage)
        for arm, mask in enumerate((in_challenger, ~in_challenger)):
            totals[arm] += means.Sums.of(values[mask], epoch[mask], stages, denominators[mask])
        yield totals


def amount_per_unit(rng, units, level, lift):
    return amounts(rng, units, level) * lift, np.ones(units)


def bad_requests_per_entity(rng, units, level, lift):
    """Return bad requests and requests of entities that differ among themselves in both."""
    requests = rng.poisson(6, units) + 1
    own = rng.beta(2, 6, units) * (0.5 + 0.5 * level / 1.5) * lift
    return rng.binomial(requests, np.minimum(own, 1.0)).astype(float), requests.astype(float)


def rejects(rng, values_of, *, lift, center, tuned_at):
    """Return whether the one-sided test ever rejects during one ramp."""
    for challenger, champion in looks(rng, values_of, lift=lift):
        score = means.overlap_score(challenger, champion, SHARES, center=center)
        if score is not None and means.log_e_above(score, tuned_at=tuned_at) >= LOG_20:
            return True
    return False


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize(
    ("values_of", "center", "lift", "tuned_at"),
    [(amount_per_unit, 0.25, 1.3, 600.0), (bad_requests_per_entity, 0.2, 1.3, 3_000.0)],
)
def test_a_mean_and_a_ratio_keep_the_error_through_ramp_and_drift_and_find_a_real_rise(
    seed, values_of, center, lift, tuned_at
):
    rng = np.random.default_rng(seed)
    harmless = [rejects(rng, values_of, lift=1.0, center=center, tuned_at=tuned_at) for _ in range(400)]
    assert at_most(0.05, harmless)
    harmed = [rejects(rng, values_of, lift=lift, center=center, tuned_at=tuned_at) for _ in range(100)]
    assert at_least(0.95, harmed)


@pytest.mark.parametrize("seed", [2])
def test_a_wrong_centre_costs_width_and_not_the_error(seed):
    rng = np.random.default_rng(seed)
    harmless = [rejects(rng, amount_per_unit, lift=1.0, center=5.0, tuned_at=600.0) for _ in range(200)]
    assert at_most(0.05, harmless)
    challenger, champion = list(looks(rng, amount_per_unit, lift=1.0))[-1]
    wide = means.overlap_score(challenger, champion, SHARES, center=5.0).variance
    assert wide > means.overlap_score(challenger, champion, SHARES, center=0.25).variance


@pytest.mark.parametrize("seed", [3])
def test_the_interval_of_a_paired_difference_holds_it_at_all_looks(seed):
    rng = np.random.default_rng(seed)
    runs, batches, size = 600, 60, 50
    truth = 0.02
    missed = np.zeros(runs, dtype=bool)
    positive = np.zeros(runs, dtype=bool)
    for run in range(runs):
        total = means.Sums.of([], [], 1)
        for _ in range(batches):
            total += means.Sums.of(rng.laplace(truth, 0.1, size), np.zeros(size, dtype=int), 1)
            score = means.paired_score(total)
            low, high = means.interval(score, tuned_at=20.0, alpha=0.05)
            missed[run] |= not low <= truth <= high
            positive[run] |= low > 0
    assert at_most(0.05, missed)
    assert at_least(0.95, positive)


@pytest.mark.parametrize("seed", [4])
def test_betting_is_exact_from_the_first_observation_under_a_drifting_mean(seed):
    rng = np.random.default_rng(seed)

    def ever(level, runs):
        mean = np.clip(level * (1 + 0.5 * np.sin(np.arange(300) / 20)), 0, None)
        mean = mean / max(mean.max() / level, 1.0)
        values = (rng.random((runs, 300)) < mean).astype(float)
        stakes = means.STAKES[:, None, None] / 0.05 * (values - 0.05)
        wealth = np.cumsum(np.log1p(stakes), axis=-1)
        check = means.bets(values[0], low=0, high=1, null=0.05)
        assert check == pytest.approx(wealth[:, 0, -1])
        last = [means.bet_log_e(wealth[:, run, :].T[t]) for run in range(runs) for t in range(9, 300, 10)]
        return (np.reshape(last, (runs, -1)) >= LOG_20).any(axis=1)

    assert at_most(0.05, ever(0.05, 400))
    assert at_least(0.9, ever(0.2, 100))
