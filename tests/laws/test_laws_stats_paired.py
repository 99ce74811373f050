import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seatrial.stats import horizon, paired, thresholds
from seatrial.stats.means import MINIMUM_UNITS, STAKES

law = settings(deadline=None, max_examples=50, derandomize=True)
score = st.integers(0, 20).map(lambda k: k / 20)
rows = st.lists(st.tuples(score, score, st.integers(0, 1), st.integers(1, 60)), min_size=1, max_size=25)
counts = st.integers(0, 400)
TUNED = {"tuned_at": 5.0, "alpha": 0.05}
TINY = 1e-9


def pairs(of):
    return paired.Pairs(*zip(*of, strict=True))


def answers(of):
    return (
        paired.wrong_alone(of, champion_cut_off=0.5, challenger_cut_off=0.4),
        paired.brier_harm(of),
        paired.brier_noninferiority(of, margin=0.02),
        paired.loss_difference(of, paired.log_loss, **TUNED),
        paired.auc(of),
        paired.auc_difference(of, **TUNED),
    )


@law
@given(rows, rows, st.randoms(use_true_random=False))
def test_neither_the_order_of_pairs_nor_of_looks_changes_a_bit_of_an_answer(first, second, shuffle):
    whole = answers(pairs(first + second))
    shuffled = first + second
    shuffle.shuffle(shuffled)
    assert answers(pairs(shuffled)) == whole
    assert answers(pairs(second) + pairs(first)) == whole


@law
@given(rows)
def test_a_group_of_n_pairs_is_n_groups_of_one_pair(of):
    single = [(*group[:3], 1) for group in of for _ in range(group[3])]
    assert answers(pairs(single)) == answers(pairs(of))


@law
@given(rows)
def test_the_area_is_the_share_of_pairs_of_classes_that_are_ranked_right(of):
    found = paired.auc(pairs(of))
    single = np.array([group[:3] for group in of for _ in range(group[3])])
    ones, zeros = single[single[:, 2] == 1], single[single[:, 2] == 0]
    if min(len(ones), len(zeros)) < MINIMUM_UNITS:
        assert found is None
        return
    for column, area in enumerate((found.champion, found.challenger)):
        lead = ones[:, None, column] - zeros[None, :, column]
        assert area == pytest.approx(((lead > 0) + 0.5 * (lead == 0)).mean(), abs=TINY)


@law
@given(rows)
def test_any_increasing_map_of_scores_leaves_areas_alone(of):
    here = paired.auc(pairs(of))
    there = paired.auc(pairs([(math.exp(3 * a), b - 7, label, n) for a, b, label, n in of]))
    assert here == there


@law
@given(rows)
def test_exchanging_the_releases_turns_the_sign(of):
    other = pairs([(b, a, label, n) for a, b, label, n in of])
    here, there = (paired.auc_difference(each, **TUNED) for each in (pairs(of), other))
    assume(here is not None)
    assert there.estimate == pytest.approx(-here.estimate, abs=TINY)
    assert (there.low, there.high) == pytest.approx((-here.high, -here.low), abs=TINY)
    assert paired.brier_noninferiority(pairs(of), margin=0.1) == pytest.approx(
        paired.brier_harm(other, null=-0.1), abs=TINY
    )


@law
@given(st.floats(0.001, 0.999), st.floats(-0.9, 0.9), st.sampled_from(STAKES.tolist()))
def test_no_bet_gains_on_average_when_the_mean_difference_is_the_null(chance, low, stake):
    # Two values in [-1, 1] with mean null: the average factor is exactly 1, at most 1 for any smaller mean.
    high = min(low + (1 - low) * chance, 1.0)
    null = low + (high - low) * 0.3
    gain = 0.3 * (1 + stake / (null + 1) * (high - null)) + 0.7 * (1 + stake / (null + 1) * (low - null))
    assert gain == pytest.approx(1.0, abs=TINY)


@pytest.mark.parametrize("null", [0.0, 0.1])
def test_the_expected_evidence_of_a_true_null_is_at_most_one_by_enumeration(null):
    # Champion 0.5, challenger s on label 1: d = (1 - s)^2 - 0.25, which is 0.75 or -0.25; its mean is the null.
    chance = (null + 0.25) / 1.0
    total = 0.0
    for worse in product((0, 1), repeat=6):
        k = sum(worse)
        of = [g for g in ((0.5, 0.0, 1, k), (0.5, 1.0, 1, 6 - k)) if g[3]]
        total += chance**k * (1 - chance) ** (6 - k) * math.exp(paired.brier_harm(pairs(of), null=null))
    assert total == pytest.approx(1.0, abs=TINY)


@law
@given(st.lists(score, min_size=1, max_size=300), st.floats(0.01, 0.9), st.floats(0.01, 0.5))
def test_the_certified_cut_off_is_the_smallest_number_that_lets_in_few_enough(scores, rate, delta):
    cut_off = thresholds.certified_cut_off(scores, rate=rate, delta=delta)
    if cut_off is None:
        assert (1 - rate) ** len(scores) > delta * (1 - TINY)
        return
    reached = (np.array(scores) >= cut_off).sum()
    limits = thresholds.action_rate(scores, cut_off, alpha=2 * delta * (1 - TINY)) if delta < 0.5 else None
    assert limits is None or limits.high <= rate + TINY
    more = (np.array(scores) >= np.nextafter(cut_off, -math.inf)).sum()
    assert more > reached
    assert thresholds.certified_cut_off(scores[::-1], rate=rate, delta=delta) == cut_off


@law
@given(st.lists(st.tuples(score, st.integers(0, 1)), min_size=1, max_size=80), st.lists(score, min_size=1, max_size=6))
def test_the_curve_counts_what_is_at_each_cut_off_or_above(of, cut_offs):
    scores, labels = (np.array(column) for column in zip(*of, strict=True))
    curve = thresholds.trade_off(scores, labels, cut_offs, alpha=0.1)
    for j, cut_off in enumerate(cut_offs):
        acted = scores >= cut_off
        assert curve.action_rate[j] == pytest.approx(acted.mean())
        assert curve.precision[j] == pytest.approx(labels[acted].mean() if acted.any() else math.nan, nan_ok=True)
        expected = labels[acted].sum() / labels.sum() if labels.any() else math.nan
        assert curve.recall[j] == pytest.approx(expected, nan_ok=True)
        single = thresholds.action_rate(scores, cut_off, alpha=0.1)
        assert curve.action_rate_low[j] <= curve.action_rate[j] <= curve.action_rate_high[j]
        assert single.low <= single.estimate <= single.high


@law
@given(st.lists(st.tuples(counts, counts, counts, counts), min_size=1, max_size=5))
def test_exchanging_the_arms_turns_the_sign_of_the_stratified_score(of):
    bad, good, other_bad, other_good = (np.array(column) for column in zip(*of, strict=True))
    here = horizon.stratified(bad, bad + good, other_bad, other_bad + other_good)
    there = horizon.stratified(other_bad, other_bad + other_good, bad, bad + good)
    assert there.score == pytest.approx(-here.score, abs=1e-6)
    assert there.information == pytest.approx(here.information, abs=1e-6)
    # Counting good units instead of bad ones asks the same question the other way round.
    turned = horizon.stratified(good, bad + good, other_good, other_bad + other_good)
    assert turned.score == pytest.approx(-here.score, abs=1e-6)


@law
@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=8),
    st.floats(0.001, 0.5),
    st.sampled_from([horizon.obrien_fleming, horizon.pocock]),
    st.floats(0.3, 3.0),
)
def test_no_schedule_of_looks_spends_more_than_alpha(steps, alpha, spending, share):
    information = np.cumsum(steps)
    limit = horizon.limits(information, maximum=information[-1] / share, alpha=alpha, spending=spending)
    spent = horizon.crossing(limit, information).sum()
    last = max(information[np.isfinite(limit)], default=0.0)
    assert spent <= alpha + TINY
    assert spent == pytest.approx(spending(min(share * last / information[-1], 1.0), alpha), abs=1e-8)
