"""What makes a look quick changes nothing that it says."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from seatrial.evidence import Arm, Cell, Epoch, Evidence, Key, Tally
from seatrial.stats import kernel

SHARES = (0.01, 0.05, 0.2, 0.5, 0.9)
EPOCHS = st.lists(
    st.tuples(st.sampled_from(SHARES), st.integers(0, 50), st.integers(0, 500), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)


def by_the_formula(rho, k1, k0, stage, stages):
    """Return log E of harm, onset by onset over the epochs as they are."""
    prior, late = kernel.half_normal(), kernel.LATE_WEIGHT
    log_lr = k1[:, None] * prior.log_ratios - (k1 + k0)[:, None] * np.log1p(rho[:, None] * np.expm1(prior.log_ratios))
    total = -math.inf
    for onset in range(stages):
        weight = late / stages + (1.0 - late) * (onset == 0)
        parts = log_lr[stage >= onset].sum(axis=0) + np.log(weight * prior.weights)
        total = np.logaddexp(total, np.logaddexp.reduce(parts))
    return total


@settings(deadline=None)
@given(EPOCHS)
def test_epochs_of_one_share_count_as_one_and_stages_without_epochs_cost_nothing(epochs):
    rho, k1, k0, stage = (np.array(column) for column in zip(*sorted(epochs, key=lambda each: each[3]), strict=True))
    expected = by_the_formula(rho, k1, k0, stage, 6)
    np.testing.assert_allclose(kernel.harm(k1, k0, rho, stage=stage, stages=6), expected, rtol=1e-9, atol=1e-9)
    each_apart = kernel.harm(k1[None], k0[None], rho[None], stage=stage, stages=6)
    np.testing.assert_allclose(each_apart, [expected], rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(st.lists(EPOCHS, min_size=1, max_size=4))
def test_the_estimated_ratio_solves_its_equation_for_each_of_many_hypotheses(tables):
    shortest = min(map(len, tables))
    counts = np.array([[each[1:3] for each in table[:shortest]] for table in tables])
    rho = np.array([each[0] for each in tables[0][:shortest]])
    k1, k0 = counts[..., 0], counts[..., 1]
    for ratio, own, other in zip(np.atleast_1d(kernel.ratio_estimate(k1, k0, rho)), k1, k0, strict=True):
        if not own.sum() or not other.sum():
            assert ratio == math.inf if own.sum() else (ratio == 0.0 if other.sum() else math.isnan(ratio))
            continue
        solved = ((own + other) * expit(logit(rho) + math.log(ratio))).sum()
        np.testing.assert_allclose(solved, own.sum(), rtol=1e-9)


NUMBERS = st.sampled_from([1, 2, 3])
CELLS = st.builds(Cell, st.sampled_from("gh"), st.none(), st.none(), NUMBERS, st.sampled_from(Arm))
TALLIES = st.builds(Tally, *[st.integers(0, 2**40)] * 7)


@given(st.dictionaries(CELLS, TALLIES, max_size=6))
def test_many_series_at_once_are_those_read_one_by_one(cells):
    evidence = Evidence(epochs={n: Epoch(n / 10, n) for n in (1, 2, 3, 4)}, cells=cells)
    for series, guardrail in zip(evidence.series_of([Key(name, None, None) for name in "ghi"]), "ghi", strict=True):
        for name in Tally.__slots__:
            expected = [
                [getattr(cells.get(Cell(guardrail, None, None, n, arm), Tally()), name) for n in (1, 2, 3, 4)]
                for arm in (Arm.CHALLENGER, Arm.CHAMPION)
            ]
            assert series.of(name).tolist() == expected
            assert evidence.counts_of([Key(guardrail, None, None)], name).tolist() == [expected]
            assert series.total(name) == tuple(map(sum, expected))
            assert [series.challenger[name].tolist(), series.champion[name].tolist()] == expected
