"""Promises of paired comparison by simulation, each with a peeked or wrong rule beside it that breaks the promise.

A rate is compared with a binomial bound that a correct implementation breaks once in a million runs (`ERROR`), so that
all comparisons here together raise a false alarm less than once in fifty thousand runs. Every rule has a lower bound on
its power too, so that one that never rejects fails. Scores are noisy views of one true log-odds.
"""

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from seatrial.stats import paired

ERROR = 1e-6
LOG_20 = math.log(20)
LOOKS = (200, 400, 600, 900, 1200, 1600, 2200, 3000)
#: variances of a pair's part in each difference, as an earlier window would have told them
TUNED = {"brier": 1000 * 0.028, "log": 1000 * 0.24, "auc": 1000 * 0.13}


def at_most(rate, hits):
    """Return whether so many hits are compatible with a probability of at most `rate`."""
    return sum(hits) <= binom.isf(ERROR, len(hits), rate)


def at_least(rate, hits):
    """Return whether so many hits are compatible with a probability of at least `rate`."""
    return sum(hits) >= binom.ppf(ERROR, len(hits), rate)


def drawn(rng, pairs, *, noise):
    """Return scores of a champion with noise .6 and of a challenger, and labels."""
    truth = rng.normal(0, 1.2, pairs)
    label = (rng.uniform(size=pairs) < expit(truth)).astype(float)
    return expit(truth + rng.normal(0, 0.6, pairs)), expit(truth + rng.normal(0, noise, pairs)), label


def rejections(rng, *, noise, margin):
    """Return by rule whether one sequence of looks rejects anywhere."""
    rows = drawn(rng, LOOKS[-1], noise=noise)
    found = dict.fromkeys(("bet", "safe", "brier", "log", "auc", "peeked"), False)
    for look in LOOKS:
        pairs = paired.Pairs(*(row[:look] for row in rows), np.ones(look))
        limits = {
            "brier": paired.loss_difference(pairs, paired.brier, tuned_at=TUNED["brier"], alpha=0.05),
            "log": paired.loss_difference(pairs, paired.log_loss, tuned_at=TUNED["log"], alpha=0.05),
            "auc": paired.auc_difference(pairs, tuned_at=TUNED["auc"], alpha=0.05),
        }
        areas = paired.auc(pairs)
        found["bet"] |= paired.brier_harm(pairs) >= LOG_20
        found["safe"] |= paired.brier_noninferiority(pairs, margin=margin) >= LOG_20
        found["peeked"] |= abs(areas.difference) > 1.96 * areas.standard_error
        for name, difference in limits.items():
            found[name] |= not difference.low <= 0 <= difference.high
    return found


def rates(seed, runs, **options):
    """Return the rejections of many sequences of looks, by rule."""
    rng = np.random.default_rng(seed)
    each = [rejections(rng, **options) for _ in range(runs)]
    return {name: [found[name] for found in each] for name in each[0]}


@pytest.mark.parametrize("seed", [1])
def test_equally_good_releases_are_told_apart_at_most_as_often_as_alpha_at_eight_looks(seed):
    found = rates(seed, 300, noise=0.6, margin=0.03)
    for rule in ("bet", "brier", "log", "auc"):
        assert at_most(0.05, found[rule]), rule
    assert at_least(0.1, found["peeked"])
    assert at_least(0.95, found["safe"])


@pytest.mark.parametrize("seed", [2])
def test_a_noisier_challenger_is_found_by_every_rule_and_not_called_safe(seed):
    exact = drawn(np.random.default_rng(9), 1_000_000, noise=1.0)
    margin = float(np.mean((exact[1] - exact[2]) ** 2 - (exact[0] - exact[2]) ** 2))
    found = rates(seed, 150, noise=1.0, margin=margin)
    for rule in ("bet", "brier", "log", "auc"):
        assert at_least(0.9, found[rule]), rule
    # The margin is the true difference, hence the edge of the null.
    assert at_most(0.05, found["safe"])


@pytest.mark.parametrize("seed", [3])
@pytest.mark.parametrize("low", [0.1, 0.5])
def test_bets_at_the_edge_of_either_null_gain_at_most_as_often_as_alpha(seed, low):
    # Against a champion whose loss is always `low`, a challenger that is wholly right or wholly wrong.
    rng = np.random.default_rng(seed)
    champion, margin = 1 - math.sqrt(low), 0.05
    harmful, safe = [], []
    for _ in range(300):
        ups = rng.uniform(size=LOOKS[-1])
        for null, hits, ask in (
            (0.0, harmful, paired.brier_harm),
            (margin, safe, lambda pairs: paired.brier_noninferiority(pairs, margin=margin)),
        ):
            worse = np.cumsum(ups < null + low)[np.array(LOOKS) - 1]
            groups = ([(champion, 0.0, 1, k), (champion, 1.0, 1, n - k)] for k, n in zip(worse, LOOKS, strict=True))
            looks = (ask(paired.Pairs(*zip(*(g for g in rows if g[3]), strict=True))) for rows in groups)
            hits.append(any(log_e >= LOG_20 for log_e in looks))
    assert at_most(0.05, harmful)
    assert at_most(0.05, safe)
    assert at_least(0.003, harmful)


@pytest.mark.parametrize("seed", [4])
def test_discordant_pairs_keep_the_error_on_both_sides_and_find_a_third_more_mistakes(seed):
    rng = np.random.default_rng(seed)
    looks = 20 * np.arange(1, 61)

    def tested(odds):
        challenger = np.cumsum(rng.binomial(20, odds / (1 + odds), (1500, looks.size)), axis=1)
        return paired.mcnemar(challenger, looks - challenger, margin=0.5)

    even, worse = tested(1.0), tested(1.5)
    assert at_most(0.05, (even.harm >= LOG_20).any(axis=1))
    assert at_most(0.05, (worse.noninferiority >= LOG_20).any(axis=1))
    assert at_least(0.97, (even.noninferiority >= LOG_20).any(axis=1))
    assert at_least(0.97, (worse.harm >= LOG_20).any(axis=1))
    tolerant = paired.mcnemar(looks * 0 + 60, looks * 0 + 40, margin=0.5, null_odds=1.5)
    assert (tolerant.harm < 0).all()
