"""Promises of the kernel by simulation.

A rate is compared with a binomial bound that a correct implementation breaks once in a million runs (`ERROR`), and
every rule has a lower bound on its power, so that a rule that never rejects fails too. Ramps are 1-5-10-25-50 % with
stages of equal length and a look after every tick.
"""

import math

import numpy as np
import pytest
from scipy.stats import binom, lognorm

from seatrial.stats import kernel, multiplicity, srm

ERROR = 1e-6
SHARES = np.array([0.01, 0.05, 0.10, 0.25, 0.50])
LOG_20 = math.log(20)


def at_most(rate, hits):
    """Return whether so many hits are compatible with a probability of at most `rate`."""
    return hits.sum() <= binom.isf(ERROR, hits.size, rate)


def at_least(rate, hits):
    """Return whether so many hits are compatible with a probability of at least `rate`."""
    return hits.sum() >= binom.ppf(ERROR, hits.size, rate)


def base_rate(rng, runs, ticks, p0, swing):
    """Return the champion's rate by run and tick: a slow swing of random phase, and shocks that both arms share."""
    phase = rng.uniform(0, 2 * math.pi, (runs, 1))
    slow = 1 + swing * np.sin(2 * math.pi * np.arange(ticks) / ticks * 1.7 + phase)
    return np.clip(p0 * slow * rng.lognormal(0, 0.3 * (swing > 0), (runs, ticks)), 0, 0.95)


def ramp(rng, runs, *, ratio, p0=0.02, units=2_000, per_stage=20, swing=0.5, onset=0):
    """Return cumulative bad and good units by run, tick and stage, and exposed challenger units by run and tick."""
    stage = np.repeat(np.arange(SHARES.size), per_stage)
    p = base_rate(rng, runs, stage.size, p0, swing)
    harmful = np.where(stage >= onset, ratio, 1.0)
    n1 = rng.binomial(units, SHARES[stage], p.shape)
    k1 = rng.binomial(n1, np.minimum(p * harmful, 1.0))
    k0 = rng.binomial(units - n1, p)
    by_stage = stage[:, None] == np.arange(SHARES.size)

    def cumulate(counts):
        return np.cumsum(counts[..., None] * by_stage, axis=1)

    good = cumulate(n1 - k1), cumulate(units - n1 - k0)
    return cumulate(k1), cumulate(k0), good, np.cumsum(n1, axis=1)


def staged_harm(k1, k0):
    """Return log E by run and tick, with the default mixture over onsets."""
    stages = np.arange(SHARES.size)
    chunks = zip(np.array_split(k1, 10), np.array_split(k0, 10), strict=True)
    return np.concatenate([kernel.harm(a, b, SHARES, stage=stages, stages=stages.size) for a, b in chunks])


def stopped(log_e, exposed):
    """Return which runs reject, and the challenger units that each run had served when it stopped."""
    hit = log_e >= LOG_20
    first = np.where(hit.any(axis=1), hit.argmax(axis=1), hit.shape[1] - 1)
    return hit.any(axis=1), exposed[np.arange(first.size), first]


@pytest.mark.parametrize("seed", [1])
def test_a_harmless_challenger_is_rolled_back_at_most_as_often_as_alpha_through_ramp_and_drift(seed):
    k1, k0, _, _ = ramp(np.random.default_rng(seed), 3_000, ratio=1.0)
    assert at_most(0.05, (staged_harm(k1, k0) >= LOG_20).any(axis=1))


@pytest.mark.parametrize("seed", [1])
def test_the_same_looks_deceive_a_test_on_pooled_counts(seed):
    k1, k0, (g1, g0), _ = ramp(np.random.default_rng(seed), 1_000, ratio=1.0)
    bad, n1, n0 = k1 + k0, k1 + g1, k0 + g0
    pooled = bad.sum(axis=-1) / (n1 + n0).sum(axis=-1)
    difference = k1.sum(axis=-1) / n1.sum(axis=-1) - k0.sum(axis=-1) / n0.sum(axis=-1)
    error = np.sqrt(pooled * (1 - pooled) * (1 / n1.sum(axis=-1) + 1 / n0.sum(axis=-1)))
    assert at_least(0.5, (difference > 1.96 * error).any(axis=1))


@pytest.mark.parametrize("seed", [2])
@pytest.mark.parametrize(("ratio", "exposed_at_most"), [(1.5, 2_500), (2.0, 720), (3.0, 240)])
def test_harm_is_found_with_little_exposure(seed, ratio, exposed_at_most):
    k1, k0, _, exposed = ramp(np.random.default_rng(seed), 400, ratio=ratio, per_stage=40)
    rejected, served = stopped(staged_harm(k1, k0), exposed)
    assert at_least(0.99, rejected)
    assert served.mean() <= exposed_at_most


@pytest.mark.parametrize("seed", [3])
def test_harm_that_begins_in_the_last_stage_is_found_because_onsets_are_planned(seed):
    k1, k0, _, _ = ramp(np.random.default_rng(seed), 300, ratio=1.25, onset=4, per_stage=60, swing=0.0)
    planned = (staged_harm(k1, k0)[:, -60:] >= LOG_20).any(axis=1)
    unplanned = (kernel.harm(k1, k0, SHARES)[:, -60:] >= LOG_20).any(axis=1)
    assert at_least(0.93, planned)
    assert unplanned.mean() < planned.mean() - 0.1


@pytest.mark.parametrize("seed", [4])
def test_good_units_keep_the_error_and_save_exposure_when_bad_ones_are_common(seed):
    rng = np.random.default_rng(seed)
    k1, k0, (g1, g0), _ = ramp(rng, 1_000, ratio=1.0, p0=0.26, units=200)
    assert at_most(0.05, (kernel.harm_of_all(k1, k0, g1, g0, SHARES, rate=0.26) >= LOG_20).any(axis=1))
    k1, k0, (g1, g0), exposed = ramp(rng, 500, ratio=1.25, p0=0.26, units=200)
    rejected, served = stopped(kernel.harm_of_all(k1, k0, g1, g0, SHARES, rate=0.26), exposed)
    _, served_bad_only = stopped(kernel.harm(k1, k0, SHARES), exposed)
    assert at_least(0.99, rejected)
    assert served.mean() < 0.85 * served_bad_only.mean()


@pytest.mark.parametrize("seed", [5])
@pytest.mark.parametrize("margin", [0.2, 0.5])
def test_a_challenger_at_the_margin_is_promoted_at_most_as_often_as_alpha(seed, margin):
    rng = np.random.default_rng(seed)
    k1, k0, _, _ = ramp(rng, 1_000, ratio=1 + margin)
    assert at_most(0.05, (kernel.noninferiority(k1, k0, SHARES, margin=margin) >= LOG_20).any(axis=1))
    k1, k0, _, _ = ramp(rng, 300, ratio=1.0)
    assert at_least(0.95, (kernel.noninferiority(k1, k0, SHARES, margin=margin) >= LOG_20).any(axis=1))


@pytest.mark.parametrize("seed", [6])
def test_half_of_the_promotions_need_no_more_bad_units_than_the_planned_number(seed):
    rng = np.random.default_rng(seed)
    rho, margin, step, looks = 0.1, 0.1, 120, 300
    planned = 2 * LOG_20 / (rho * (1 - rho) * math.log1p(margin) ** 2)
    k1 = np.cumsum(rng.binomial(step, rho, (600, looks)), axis=1)
    k0 = step * np.arange(1, looks + 1) - k1
    hit = kernel.noninferiority(k1[..., None], k0[..., None], [rho], margin=margin) >= LOG_20
    first = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, looks + 1) * step
    assert np.median(first) <= planned
    assert np.quantile(first, 0.8) <= 1.8 * planned


@pytest.mark.parametrize("seed", [7])
def test_the_interval_holds_the_ratio_at_all_looks(seed):
    k1, k0, _, _ = ramp(np.random.default_rng(seed), 1_000, ratio=1.5)
    below = kernel.harm(k1, k0, SHARES, null=1.5)
    above = kernel.noninferiority(k1, k0, SHARES, margin=0.5, prior=kernel.half_normal())
    missed = ((below >= math.log(40)) | (above >= math.log(40))).any(axis=1)
    assert at_most(0.05, missed)
    low, high = kernel.ratio_interval(k1[0, -1], k0[0, -1], SHARES, alpha=0.05)
    assert 1.2 < low < 1.5 < high < 1.8


def reported(rng, bad, stage, median_delay):
    """Return cumulative bad units by run, hour of the look and stage; each is reported after its own delay."""
    hours = np.arange(stage.size)
    age = np.clip(hours - hours[:, None], 0, None) / median_delay
    known = lognorm.cdf(age, 1.0)  # by hour of service and hour of the look
    first_seen = np.diff(known, axis=1, prepend=0.0)
    never = 1.0 - known[:, -1:]
    arrivals = [rng.multinomial(bad[:, hour], [*first_seen[hour], *never[hour]]) for hour in hours]
    by_stage = [np.sum([arrivals[hour] for hour in hours[stage == j]], axis=0) for j in range(SHARES.size)]
    return np.cumsum(np.stack(by_stage, axis=-1)[:, :-1], axis=1)


@pytest.mark.parametrize("seed", [8])
def test_late_labels_need_no_window_while_unlabelled_as_good_misleads(seed):
    rng = np.random.default_rng(seed)
    stage = np.repeat(np.arange(SHARES.size), 24)
    n1 = rng.binomial(2_000, SHARES[stage], (600, stage.size))
    n0 = 2_000 - n1
    k0 = reported(rng, rng.binomial(n0, 0.02), stage, 24.0)
    k1 = reported(rng, rng.binomial(n1, 0.02), stage, 24.0)
    assert at_most(0.05, (staged_harm(k1, k0) >= LOG_20).any(axis=1))
    units1, units0 = n1[:, :54].sum(axis=1), n0[:, :54].sum(axis=1)
    naive = (k1[:, 53].sum(axis=-1) / units1) / (k0[:, 53].sum(axis=-1) / units0)
    assert naive.mean() < 0.8
    k1 = reported(rng, rng.binomial(n1, 0.04), stage, 24.0)
    assert at_least(0.99, (staged_harm(k1, k0) >= LOG_20).any(axis=1))


@pytest.mark.parametrize("seed", [9])
def test_an_assignment_as_recorded_is_doubted_at_most_as_often_as_alpha_and_a_lost_part_is_found(seed):
    rng = np.random.default_rng(seed)
    stage = np.repeat(np.arange(SHARES.size), 20)
    by_stage = stage[:, None] == np.arange(SHARES.size)

    def looks(kept, runs):
        n1 = rng.binomial(2_000, SHARES[stage], (runs, stage.size))
        seen = rng.binomial(n1, kept)
        return (np.cumsum(part[..., None] * by_stage, axis=1) for part in (seen, 2_000 - n1))

    n1, n0 = looks(1.0, 1_000)
    assert at_most(0.05, (srm.odds_tilt(n1, n0, SHARES) >= LOG_20).any(axis=1))
    shares = np.stack([SHARES, 1 - SHARES], axis=1)
    each = srm.dirichlet_multinomial(np.stack([n1, n0], axis=-1), np.broadcast_to(shares, (*n1.shape, 2)), 1e4)
    assert at_most(0.05, (each.sum(axis=-1) >= LOG_20).any(axis=1))
    n1, n0 = looks(0.95, 300)
    assert at_least(0.95, (srm.odds_tilt(n1, n0, SHARES) >= math.log(1000)).any(axis=1))


@pytest.mark.parametrize("seed", [10])
def test_twenty_hypotheses_keep_one_budget_and_the_harmed_slice_is_still_found(seed):
    rng = np.random.default_rng(seed)
    runs, looks, slices, rho = 400, 60, 20, 0.1

    def running_maximum(ratios):
        theta = rho * ratios / (rho * ratios + 1 - rho)
        k1 = np.cumsum(rng.binomial(12, theta, (runs, looks, slices)), axis=1)
        k0 = 12 * np.arange(1, looks + 1)[:, None] - k1
        return np.maximum.accumulate(kernel.harm(k1[..., None], k0[..., None], [rho]), axis=1)

    weights = np.full(slices, 1 / slices)
    harmless = running_maximum(np.ones(slices))
    rejected = [multiplicity.bonferroni(run[-1], weights, alpha=0.05).any() for run in harmless]
    assert at_most(0.05, np.array(rejected))
    assert at_least(0.1, (harmless[:, -1] >= LOG_20).any(axis=1))
    harmed = running_maximum(np.where(np.arange(slices) == 7, 2.0, 1.0))
    named = np.array([multiplicity.bonferroni(run[-1], weights, alpha=0.05) for run in harmed])
    assert at_least(0.95, named[:, 7])
