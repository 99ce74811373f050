"""Promises of the score and calibration tests by simulation.

A rate is compared with a binomial bound that a correct implementation breaks once in a million runs (`ERROR`), and
every rule has a lower bound on its power, so that a rule that never rejects fails too. The file makes 20 such
comparisons, hence a false alarm at most once in 50,000 seeds. Scores are logistic-normal; ramps are 1-5-10-25-50 %
with a look after every tick.
"""

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binom, norm

from seatrial.stats import calibration, scores, shifts

ERROR = 1e-6
SHARES = np.array([0.01, 0.05, 0.10, 0.25, 0.50])
LOG_20, LOG_40 = math.log(20), math.log(40)
GRID = scores.ScoreGrid()
FINE = scores.ScoreGrid(bins=200)
COARSE = scores.ScoreGrid(bins=20)


def at_most(rate, hits):
    """Return whether so many hits are compatible with a probability of at most `rate`."""
    return hits.sum() <= binom.isf(ERROR, hits.size, rate)


def at_least(rate, hits):
    """Return whether so many hits are compatible with a probability of at least `rate`."""
    return hits.sum() >= binom.ppf(ERROR, hits.size, rate)


def histogram(center=-2.0, spread=1.5, collapsed=0.0):
    """Return the probability of each bin; `center` may be an array. A part may have collapsed to the score .37."""
    with np.errstate(divide="ignore"):
        reached = norm.cdf((logit(np.linspace(0, 1, GRID.bins + 1)) - np.expand_dims(center, -1)) / spread)
    inside = 0.995 * np.diff(reached)
    ends = np.broadcast_to([0.003, 0.0, 0.001], (*inside.shape[:-1], 3))
    shares = np.concatenate([ends, inside, ends[..., 2:]], axis=-1) * (1 - collapsed)
    shares[..., GRID.index(0.37)] += collapsed
    return shares / shares.sum(axis=-1, keepdims=True)


CUTS = scores.deciles(np.round(1e5 * histogram()))


def looks(rng, runs, challenger, champion, *, units, per_stage):
    """Return log E by run and tick, and exposed challenger units by run and tick, through the ramp."""
    stage = np.repeat(np.arange(SHARES.size), per_stage)
    n1 = rng.binomial(units, SHARES[stage], (runs, stage.size))
    k1, k0 = rng.multinomial(n1, challenger), rng.multinomial(units - n1, champion)
    log_e = np.empty(n1.shape)
    by_stage = np.zeros((2, runs, SHARES.size, GRID.size))
    for tick, at in enumerate(stage):
        by_stage[0, :, at] += k1[:, tick]
        by_stage[1, :, at] += k0[:, tick]
        log_e[:, tick] = shifts.distribution_shift(*by_stage, SHARES, cut_points=CUTS)
    return log_e, np.cumsum(n1, axis=1)


def exposure(log_e, exposed):
    """Return which runs reject, and the challenger units that each run had served when it stopped."""
    hit = log_e >= LOG_20
    first = np.where(hit.any(axis=1), hit.argmax(axis=1), hit.shape[1] - 1)
    return hit.any(axis=1), exposed[np.arange(first.size), first]


@pytest.mark.parametrize("seed", [1])
def test_equal_scores_are_doubted_at_most_as_often_as_alpha_through_ramp_and_drift(seed):
    rng = np.random.default_rng(seed)
    drift = -2.0 + 0.6 * np.sin(np.arange(50) / 6.0) + rng.normal(0, 0.2, 50)
    log_e, _ = looks(rng, 700, histogram(drift), histogram(drift), units=500, per_stage=10)
    assert at_most(0.05, (log_e >= LOG_20).any(axis=1))


@pytest.mark.parametrize("seed", [2])
def test_the_same_looks_deceive_an_index_of_pooled_scores(seed):
    rng = np.random.default_rng(seed)
    shares = np.repeat(SHARES, 2_000)
    drift = np.linspace(-2.5, -1.5, shares.size)
    arm = rng.random((50, shares.size)) < shares
    bins = GRID.index(expit(rng.normal(drift, 1.5, arm.shape)))
    stage = np.broadcast_to(np.repeat(np.arange(5), 2_000), arm.shape)
    pooled, within = np.empty(50), np.empty(50)
    for run in range(50):
        counts = np.zeros((2, 5, GRID.size))
        np.add.at(counts, (arm[run].astype(int), stage[run], bins[run]), 1)
        mixed = shifts.effect_sizes(counts[1].sum(axis=0), counts[0].sum(axis=0), GRID, cut_points=CUTS)
        apart = shifts.effect_sizes(counts[1], counts[0], GRID, cut_points=CUTS)
        pooled[run], within[run] = mixed.psi / mixed.psi_null_mean, apart.psi / apart.psi_null_mean
    assert pooled.min() > 3
    assert 0.7 < within.mean() < 1.3


@pytest.mark.parametrize("seed", [3])
@pytest.mark.parametrize(
    ("change", "exposed_at_most"),
    [({"center": -1.7}, 420), ({"collapsed": 0.1}, 330), ({"spread": 1.05}, 160), ({"center": -1.9}, 4_500)],
)
def test_a_change_of_scores_is_found_with_little_exposure(seed, change, exposed_at_most):
    rng = np.random.default_rng(seed)
    log_e, exposed = looks(rng, 100, histogram(**change), histogram(), units=1_000, per_stage=16)
    rejected, served = exposure(log_e, exposed)
    assert at_least(0.98, rejected)
    assert served.mean() <= exposed_at_most


@pytest.mark.parametrize("seed", [4])
@pytest.mark.parametrize("units", [200, 1_000])
def test_the_null_means_of_the_effect_sizes_are_those_of_equal_arms(seed, units):
    rng = np.random.default_rng(seed)
    shape = histogram()
    sizes = [
        shifts.effect_sizes(a, b, GRID, cut_points=CUTS)
        for a, b in zip(rng.multinomial(units, shape, 400), rng.multinomial(3 * units, shape, 400), strict=True)
    ]
    assert np.mean([s.psi / s.psi_null_mean for s in sizes]) == pytest.approx(1, abs=0.15)
    assert np.mean([s.jensen_shannon / s.jensen_shannon_null_mean for s in sizes]) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("seed", [5])
def test_healthy_scores_are_not_called_collapsed(seed):
    rng = np.random.default_rng(seed)
    champion = rng.multinomial(20_000, histogram())
    small = rng.multinomial(scores.MINIMUM_UNITS + 20, histogram(), 2_000)
    found = np.array([scores.collapses(counts, champion) != [] for counts in small])
    assert at_most(1e-3, found)
    collapsed = rng.multinomial(scores.MINIMUM_UNITS + 20, histogram(collapsed=0.3), 100)
    assert all(scores.collapses(counts, champion) for counts in collapsed)


@pytest.mark.parametrize("seed", [6])
@pytest.mark.parametrize("tolerance", [0.0, 0.2])
def test_scores_at_the_edge_of_the_null_are_doubted_at_most_as_often_as_alpha(seed, tolerance):
    rng = np.random.default_rng(seed)
    # The hardest null: in each bin positives are as frequent as its upper edge and the tolerance allow.
    rate = expit(logit(COARSE.upper()[3:-2]) + tolerance)
    shares = np.exp(-np.arange(rate.size) / 6.0)
    n = rng.multinomial(60, shares / shares.sum(), (300, 8))
    counts = np.zeros((2, 300, 8, COARSE.size))
    counts[..., 3:-2] = np.cumsum([n, rng.binomial(n, rate)], axis=2)
    log_e = [
        [calibration.in_the_large(n, k, COARSE, tolerance=tolerance).log_e_more for n, k in zip(*run, strict=True)]
        for run in zip(*counts, strict=True)
    ]
    assert at_most(0.05, (np.array(log_e) >= LOG_20).any(axis=1))


def verdicts(rng, runs, *, offset, last, step=250):
    """Return by run the look (from 1) at which each direction first rejects at 2.5 %; beyond the last look if never."""
    first = np.full((runs, 2), last + 1)
    for run in range(runs):
        # A slow swing of the scores, which calibration at every score must bear.
        logits = rng.normal(-1.0, 1.5, (last, step)) + 0.8 * np.sin(np.arange(last) / 2.0)[:, None]
        bins = FINE.index(expit(logits))
        positive = rng.random(bins.shape) < expit(logits + offset)
        n, k = np.zeros(FINE.size), np.zeros(FINE.size)
        for look in range(last):
            n += np.bincount(bins[look], minlength=FINE.size)
            k += np.bincount(bins[look], positive[look], minlength=FINE.size)
            judged = calibration.in_the_large(n, k, FINE, tolerance=0.0)
            rejects = np.array([judged.log_e_more, judged.log_e_less]) >= LOG_40
            first[run] = np.where(rejects, np.minimum(first[run], look + 1), first[run])
    return first


@pytest.mark.parametrize("seed", [7])
def test_the_same_looks_deceive_a_peeked_z(seed):
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(-1.0, 1.5, (500, 3_000)))
    total = np.cumsum((rng.random(p.shape) < p) - p, axis=1)[:, 99::25]
    z = total / np.sqrt(np.cumsum(p * (1 - p), axis=1)[:, 99::25])
    assert at_least(0.2, (np.abs(z) > 1.96).any(axis=1))


@pytest.mark.parametrize("seed", [8])
@pytest.mark.parametrize(
    ("offset", "direction", "labels_at_most"), [(0.3, 0, 1_300), (-0.3, 1, 1_300), (0.2, 0, 2_500), (-0.2, 1, 2_500)]
)
def test_an_offset_is_found_in_its_direction(seed, offset, direction, labels_at_most):
    first = verdicts(np.random.default_rng(seed), 40, offset=offset, last=20)
    assert at_least(0.9, first[:, direction] <= 20)
    assert np.median(first[:, direction]) * 250 <= labels_at_most
    assert at_most(0.025, first[:, 1 - direction] <= 20)


@pytest.mark.parametrize("seed", [9])
@pytest.mark.parametrize("slope", [0.7, 1.4])
def test_a_wrong_slope_is_found_without_a_wrong_mean(seed, slope):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(60):
        logits = rng.normal(0.0, 1.5, 4_000)
        bins = GRID.index(expit(logits))
        positive = rng.random(bins.size) < expit(slope * logits)
        n, k = np.bincount(bins, minlength=GRID.size), np.bincount(bins, positive, minlength=GRID.size)
        judged = calibration.in_the_large(n, k, GRID, tolerance=0.0)
        found.append(min(judged.log_e_more, judged.log_e_less) >= LOG_40)
    assert at_least(0.95, np.array(found))


@pytest.mark.parametrize("seed", [10])
def test_two_wrongs_that_cancel_are_found_by_band(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 1.0, (60, 6_000))
    bins = GRID.index(expit(logits))
    positive = rng.random(bins.shape) < expit(logits + np.where(np.abs(logits) < 0.6, 0.4, -0.4))
    named = []
    for where, hits in zip(bins, positive, strict=True):
        n, k = np.bincount(where, minlength=GRID.size), np.bincount(where, hits, minlength=GRID.size)
        cuts = GRID.index(expit([-0.6, 0.6])).tolist()
        low, middle, high = calibration.in_bands(n, k, GRID, tolerance=0.0, bands=cuts)
        evidence = np.array([low.log_e_less, middle.log_e_more, high.log_e_less])
        named.append((evidence >= math.log(6 / 0.05)).all())
    assert at_least(0.9, np.array(named))


@pytest.mark.parametrize("seed", [11])
def test_the_debiased_error_does_not_blame_a_calibrated_score_for_few_labels(seed):
    rng = np.random.default_rng(seed)
    grid = scores.ScoreGrid(bins=15)

    def errors(labels, slope):
        for _ in range(200):
            logits = rng.normal(-1.0, 1.5, labels)
            bins = grid.index(expit(logits))
            positive = rng.random(labels) < expit(slope * logits)
            n, k = np.bincount(bins, minlength=grid.size), np.bincount(bins, positive, minlength=grid.size)
            plug_in = n[3:-1] @ (grid.middle()[3:-1] - k[3:-1] / np.maximum(n[3:-1], 1)) ** 2 / labels
            yield calibration.debiased_error(n, k, grid), math.sqrt(plug_in)

    debiased, plug_in = np.mean(list(errors(500, 1.0)), axis=0)
    assert debiased < 0.55 * plug_in
    few, many = (np.mean([e for e, _ in errors(labels, 1.5)]) for labels in (1_000, 8_000))
    assert few == pytest.approx(many, rel=0.15)
    assert many > 0.04
