import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.stats import kernel, srm

law = settings(deadline=None, max_examples=80, derandomize=True)
count = st.integers(0, 10_000)
share = st.floats(0.005, 0.95)
ratio = st.floats(0.2, 5.0)
epochs = st.lists(st.tuples(count, count, share), min_size=1, max_size=6)
LOG_20 = math.log(20)
TINY = 1e-9


def columns(rows):
    k1, k0, rho = zip(*rows, strict=True)
    return np.array(k1), np.array(k0), np.array(rho)


def theta(rho, r):
    return rho * r / (rho * r + 1 - rho)


@law
@given(epochs, count, count)
def test_splitting_an_epoch_of_one_share_changes_nothing(rows, extra1, extra0):
    k1, k0, rho = columns(rows)
    merged = kernel.harm(k1 + np.eye(len(k1), dtype=int)[0] * extra1, k0, rho)
    split = kernel.harm([*k1, extra1], [*k0, 0], [*rho, rho[0]])
    assert split == pytest.approx(merged, abs=TINY, rel=TINY)
    merged = kernel.noninferiority(k1, k0 + np.eye(len(k1), dtype=int)[0] * extra0, rho, margin=0.2)
    split = kernel.noninferiority([*k1, 0], [*k0, extra0], [*rho, rho[0]], margin=0.2)
    assert split == pytest.approx(merged, abs=TINY, rel=TINY)


@law
@given(epochs, st.randoms())
def test_the_order_of_looks_and_epochs_does_not_matter(rows, random):
    shuffled = random.sample(rows, len(rows))
    assert kernel.harm(*columns(shuffled)) == pytest.approx(kernel.harm(*columns(rows)), abs=TINY, rel=TINY)


@law
@given(epochs, st.integers(0, 5), ratio)
def test_one_more_bad_challenger_unit_never_lowers_harm_nor_raises_noninferiority(rows, index, null):
    k1, k0, rho = columns(rows)
    more = k1.copy()
    more[index % len(k1)] += 1
    assert kernel.harm(more, k0, rho, null=null) >= kernel.harm(k1, k0, rho, null=null) - TINY
    one_more = kernel.noninferiority(more, k0, rho, margin=null)
    assert one_more <= kernel.noninferiority(k1, k0, rho, margin=null) + TINY


@law
@given(epochs, st.integers(0, 5))
def test_one_more_bad_champion_unit_never_raises_harm(rows, index):
    k1, k0, rho = columns(rows)
    more = k0.copy()
    more[index % len(k0)] += 1
    assert kernel.harm(k1, more, rho) <= kernel.harm(k1, k0, rho) + TINY


@law
@given(epochs, st.floats(0.01, 3.0))
def test_harm_and_noninferiority_never_both_reject_at_one_ratio(rows, margin):
    k1, k0, rho = columns(rows)
    both = (kernel.harm(k1, k0, rho, null=1 + margin), kernel.noninferiority(k1, k0, rho, margin=margin))
    # log LR is concave in log r: it cannot rise to both sides of the null.
    assert min(both) <= TINY


@law
@given(share, st.floats(0.2, 3.0), st.floats(0.0, 1.0), st.integers(1, 5))
def test_the_mean_of_e_is_at_most_one_for_every_ratio_in_the_null(rho, null, part, units):
    for truth in (null, null * part + TINY):
        p = theta(rho, truth)
        k1 = np.arange(units + 1)
        chance = np.array([math.comb(units, int(k)) * p**k * (1 - p) ** (units - k) for k in k1])
        e = np.exp(kernel.harm(k1[:, None], units - k1[:, None], [rho], null=null))
        assert chance @ e <= 1 + TINY
    assert chance @ np.ones(units + 1) == pytest.approx(1)


@law
@given(share, st.floats(0.02, 2.0), st.floats(1.0, 10.0), st.integers(1, 5))
def test_the_mean_of_noninferiority_is_at_most_one_when_harm_is_at_least_the_margin(rho, margin, worse, units):
    p = theta(rho, (1 + margin) * worse)
    k1 = np.arange(units + 1)
    chance = np.array([math.comb(units, int(k)) * p**k * (1 - p) ** (units - k) for k in k1])
    e = np.exp(kernel.noninferiority(k1[:, None], units - k1[:, None], [rho], margin=margin))
    assert chance @ e <= 1 + TINY


@pytest.mark.parametrize("truth", [1.0, 0.7])
@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_ville_holds_exactly_over_all_paths_through_a_ramp_with_stages(truth, alpha):
    rho = np.array([0.05] * 3 + [0.2] * 4 + [0.5] * 5)
    stage = np.array([0] * 3 + [1] * 4 + [2] * 5)
    arms = np.array(list(product([0, 1], repeat=rho.size)))
    p = theta(rho, truth)
    chance = np.prod(np.where(arms == 1, p, 1 - p), axis=1)
    # Reports arrive out of order: later epochs first, so that the stages do not come one after another.
    order = np.array([11, 0, 5, 2, 9, 4, 1, 8, 3, 10, 6, 7])
    crossed = np.zeros(len(arms), dtype=bool)
    mean = 0.0
    for looks in range(1, rho.size + 1):
        seen = np.isin(np.arange(rho.size), order[:looks])
        log_e = kernel.harm(arms * seen, (1 - arms) * seen, rho, stage=stage, stages=4)
        crossed |= log_e >= math.log(1 / alpha)
        mean = chance @ np.exp(log_e)
        assert mean <= 1 + TINY
    assert chance @ crossed <= alpha
    assert crossed.any()
    if truth == 1.0:
        assert mean == pytest.approx(1)


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("improvement", [1.0, 0.6])
def test_good_units_keep_the_mean_at_most_one_for_every_drift_of_the_base_rate(rate, improvement):
    rho = np.array([0.05, 0.3, 0.3, 0.5])
    base = np.array([0.9, 0.02, 0.5, 0.3])
    total = 0.0
    for arms in product([0, 1], repeat=4):
        for bad in product([0, 1], repeat=4):
            a, y = np.array(arms), np.array(bad)
            p_bad = np.where(a == 1, improvement * base, base)
            chance = np.prod(np.where(a == 1, rho, 1 - rho) * np.where(y == 1, p_bad, 1 - p_bad))
            log_e = kernel.harm_of_all(a * y, (1 - a) * y, a * (1 - y), (1 - a) * (1 - y), rho, rate=rate)
            total += chance * math.exp(log_e)
    assert total <= 1 + TINY
    if improvement == 1.0:
        assert total == pytest.approx(1)


@law
@given(epochs, st.sampled_from([0.01, 0.05, 0.2]))
def test_the_estimate_lies_in_its_interval_and_the_interval_ends_where_harm_rejects(rows, alpha):
    k1, k0, rho = columns(rows)
    low, high = kernel.ratio_interval(k1, k0, rho, alpha=alpha)
    estimate = kernel.ratio_estimate(k1, k0, rho)
    assert math.isnan(estimate) or low <= estimate <= high
    if low > 0:
        assert kernel.harm(k1, k0, rho, null=low) == pytest.approx(math.log(2 / alpha), abs=1e-6)
    wider = kernel.ratio_interval(k1, k0, rho, alpha=alpha / 2)
    assert wider[0] <= low * (1 + TINY)
    assert wider[1] >= high * (1 - TINY)


@law
@given(st.lists(epochs, min_size=2, max_size=2).filter(lambda two: len(two[0]) == len(two[1])))
def test_many_hypotheses_at_once_are_the_same_as_one_by_one(two):
    k1, k0, rho = (np.stack(part) for part in zip(*map(columns, two), strict=True))
    together = kernel.harm(k1, k0, rho, null=1.1)
    assert together.shape == (2,)
    for row in range(2):
        assert together[row] == pytest.approx(kernel.harm(k1[row], k0[row], rho[row], null=1.1), abs=TINY)
    shared = kernel.harm(k1, k0, rho[0])
    assert shared[1] == pytest.approx(kernel.harm(k1[1], k0[1], rho[0]), abs=TINY)


@law
@given(epochs)
def test_one_planned_stage_is_no_late_onset(rows):
    k1, k0, rho = columns(rows)
    staged = kernel.harm(k1, k0, rho, stage=np.zeros(len(rows), dtype=int), stages=1)
    assert staged == kernel.harm(k1, k0, rho)


@law
@given(epochs, st.integers(1, 6))
def test_waiting_for_late_onsets_costs_at_most_a_fifth_of_the_evidence(rows, stages):
    k1, k0, rho = columns(rows)
    stage = np.minimum(np.arange(len(rows)), stages - 1)
    assert kernel.harm(k1, k0, rho, stage=stage, stages=stages) >= kernel.harm(k1, k0, rho) + math.log(0.8) - TINY


@law
@given(st.floats(-800, 800))
def test_an_anytime_p_is_the_inverse_of_e_and_never_above_one(log_e):
    p = kernel.anytime_p(log_e)
    assert 0 <= p <= 1
    assert p == pytest.approx(min(1.0, math.exp(min(-log_e, 0.0))))


@law
@given(epochs)
def test_exchanging_the_arms_leaves_the_assignment_test_as_it_is(rows):
    k1, k0, rho = columns(rows)
    exchanged = srm.odds_tilt(k0, k1, 1 - rho)
    assert exchanged == pytest.approx(srm.odds_tilt(k1, k0, rho), abs=1e-6, rel=1e-9)


@pytest.mark.parametrize("units", [1, 4, 30])
@pytest.mark.parametrize("rho", [0.01, 0.5])
def test_the_mean_of_both_assignment_tests_is_one_when_units_are_assigned_as_recorded(units, rho):
    k1 = np.arange(units + 1)
    chance = np.array([math.comb(units, int(k)) * rho**k * (1 - rho) ** (units - k) for k in k1])
    tilt = np.exp(srm.odds_tilt(k1[:, None], units - k1[:, None], [rho]))
    assert chance @ tilt == pytest.approx(1)
    dirichlet = np.exp(srm.dirichlet_multinomial(np.stack([k1, units - k1], axis=1), [rho, 1 - rho], 50))
    assert chance @ dirichlet == pytest.approx(1)
