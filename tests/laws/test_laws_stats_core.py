import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seatrial.stats import exceedance, maturity, means, multiplicity

law = settings(deadline=None, max_examples=80, derandomize=True)
evidence = st.lists(
    st.one_of(st.floats(-30, 30), st.just(-math.inf), st.just(math.inf), st.floats(800, 900)), max_size=7
)
value = st.floats(-100, 100).map(lambda x: round(x, 3))
duration = st.floats(0, 1000).map(lambda x: round(x, 2))
TINY = 1e-9
FIELDS = ("units", "nonzero", "k", "n", "kk", "kn", "nn")


def sums(values):
    return means.Sums.of(values, np.zeros(len(values), dtype=int), 1)


@law
@given(st.lists(st.tuples(value, st.integers(0, 2)), max_size=30), st.lists(st.tuples(value, st.integers(0, 2))))
def test_sums_of_two_batches_are_the_sums_of_all_units(first, second):
    def of(rows):
        return means.Sums.of([v for v, _ in rows], [e for _, e in rows], 3)

    merged, whole = of(first) + of(second), of(first + second)
    for name in FIELDS:
        assert getattr(merged, name) == pytest.approx(getattr(whole, name), abs=1e-6)


@law
@given(st.lists(st.floats(1, 100), min_size=60, max_size=90), st.floats(0, 50), st.floats(0.05, 0.95))
def test_one_shift_of_all_values_and_of_the_centre_changes_no_score(values, shift, rho):
    here = means.overlap_score(sums(values), sums(values[:55]), [rho], center=1.0)
    shifted = [v + shift for v in values]
    there = means.overlap_score(sums(shifted), sums(shifted[:55]), [rho], center=1.0 + shift)
    assert there.total == pytest.approx(here.total, abs=1e-6)
    assert there.variance == pytest.approx(here.variance, abs=1e-4)


@law
@given(st.lists(st.tuples(value, st.booleans(), st.integers(0, 1)), min_size=120, max_size=160))
def test_the_score_from_sums_is_the_sum_over_units(rows):
    values, arm, epoch = (np.array(column) for column in zip(*sorted(rows, key=lambda r: r[2]), strict=True))
    rho = np.array([0.1, 0.4])
    assume(min((values[arm] != 0).sum(), (values[~arm] != 0).sum()) >= means.MINIMUM_NONZERO)
    assume(min(arm.sum(), (~arm).sum()) >= means.MINIMUM_UNITS and (epoch == 0).any())
    score = means.overlap_score(
        means.Sums.of(values[arm], epoch[arm], 2), means.Sums.of(values[~arm], epoch[~arm], 2), rho, center=3.0
    )
    center = np.where(epoch == 0, 3.0, values[epoch == 0].mean())
    psi = (arm - rho[epoch]) * (values - center)
    assert score.total == pytest.approx(psi.sum(), abs=1e-6)
    assert score.variance == pytest.approx((psi**2).sum(), abs=1e-5)
    assert score.weight == pytest.approx((rho * (1 - rho))[epoch].sum())


@law
@given(st.lists(value, min_size=60, max_size=80))
def test_the_paired_score_is_the_mean_with_its_sample_variance(values):
    assume(np.count_nonzero(values) >= means.MINIMUM_NONZERO)
    score = means.paired_score(sums(values))
    assert score.estimate == pytest.approx(np.mean(values), abs=1e-9)
    assert score.variance / score.weight == pytest.approx(np.var(values), abs=1e-6)


def test_the_centre_of_an_epoch_comes_from_earlier_epochs_only():
    rng = np.random.default_rng(3)
    epoch = np.repeat([0, 1], 100)
    first = means.Sums.of(rng.normal(5, 1, 200), epoch, 2)
    changed = means.Sums.of(rng.normal(5, 1, 200) + 40 * (epoch == 1), epoch, 2)
    # What happens in the last epoch moves its own part of the score only: V of epoch 0 stays.
    alone = means.overlap_score(
        means.Sums(*(getattr(first, n)[:1] for n in FIELDS)),
        means.Sums(*(getattr(first, n)[:1] for n in FIELDS)),
        [0.5],
        center=5.0,
    )
    both = means.overlap_score(first, first, [0.5, 0.5], center=5.0)
    later = means.overlap_score(first, changed, [0.5, 0.5], center=5.0)
    pooled = first.k[0] / first.n[0]
    epoch_1 = 0.25 * 2 * (first.kk[1] - 2 * pooled * first.kn[1] + pooled**2 * first.nn[1])
    assert both.variance == pytest.approx(alone.variance + epoch_1)
    assert later.variance > 10 * both.variance


def test_the_score_estimates_the_ratio_of_sums_when_denominators_vary():
    rng = np.random.default_rng(5)
    n = rng.poisson(8, 4000) + 1.0
    k1, k0 = rng.binomial(n.astype(int), 0.3), rng.binomial(n.astype(int), 0.2)
    zeros = np.zeros(4000, dtype=int)
    challenger, champion = means.Sums.of(k1, zeros, 1, n), means.Sums.of(k0, zeros, 1, n)
    score = means.overlap_score(challenger, champion, [0.5], center=0.25)
    assert score.estimate == pytest.approx(0.1, abs=0.01)


@law
@given(st.floats(-50, 50), st.floats(0, 500), st.floats(1, 500), st.sampled_from([0.01, 0.05]))
def test_the_one_sided_evidence_is_monotone_and_mirrored(total, variance, weight, alpha):
    score = means.Score(total, variance, weight)
    here = means.log_e_above(score, tuned_at=100.0, alpha=alpha)
    more = means.log_e_above(means.Score(total + 1, variance, weight), tuned_at=100.0, alpha=alpha)
    assert more >= here
    assert means.log_e_above(score, null=0.5, tuned_at=100.0, alpha=alpha) <= here
    mirrored = means.Score(-total, variance, weight)
    assert means.log_e_below(mirrored, tuned_at=100.0, alpha=alpha) == here
    above = means.log_e_above(score, null=0.5, tuned_at=100.0, alpha=alpha)
    assert means.log_e_below(mirrored, null=-0.5, tuned_at=100.0, alpha=alpha) == above
    low, high = means.interval(score, tuned_at=100.0, alpha=alpha)
    assert low <= score.estimate <= high


@pytest.mark.parametrize("null", [0.2, 0.55])
def test_the_mean_of_a_bet_is_at_most_one_for_every_mean_in_the_null(null):
    atoms = np.array([0.0, 0.3, 1.0])
    for truth in (null, null / 2):
        # weights on the atoms with mean `truth`: p on 1 and .3 in a fixed proportion, the rest on 0
        chance = np.array([0.0, 0.5, 0.5])
        chance *= truth / (chance @ atoms)
        chance[0] = 1 - chance.sum()
        total = sum(
            math.prod(chance[list(path)])
            * math.exp(means.bet_log_e(means.bets(atoms[list(path)], low=0, high=1, null=null)))
            for path in product(range(3), repeat=4)
        )
        assert total <= 1 + TINY
        if truth == null:
            assert total == pytest.approx(1)


@law
@given(st.lists(st.floats(0, 1), max_size=20), st.lists(st.floats(0, 1), max_size=20))
def test_bets_on_two_batches_add_up(first, second):
    def of(values):
        return means.bets(values, low=0, high=1, null=0.4)

    assert of(first) + of(second) == pytest.approx(of(first + second), abs=TINY)


@law
@given(evidence)
def test_adjusted_evidence_is_the_least_mean_over_all_sets(log_e):
    capped = [min(x, 60.0) for x in log_e]
    e = np.exp(capped)
    adjusted = np.exp(multiplicity.holm(capped))
    for k in range(len(e)):
        sets = (s for n in range(1, len(e) + 1) for s in combinations(range(len(e)), n) if k in s)
        assert adjusted[k] == pytest.approx(min(np.mean(e[list(s)]) for s in sets), rel=1e-9)


@law
@given(evidence, st.sampled_from([0.01, 0.05, 0.5]))
def test_each_refined_rule_rejects_what_the_plain_rule_rejects(log_e, alpha):
    equal = multiplicity.bonferroni(log_e, np.full(len(log_e), 1 / max(len(log_e), 1)), alpha=alpha)
    holm = multiplicity.holm(log_e) >= -math.log(alpha) - TINY
    named = multiplicity.benjamini_hochberg(log_e, alpha=alpha)
    closed = multiplicity.closed_benjamini_hochberg(log_e, alpha=alpha)
    assert (equal <= holm).all()
    assert (equal <= named).all()
    assert (named <= closed).all()


@law
@given(st.lists(st.floats(-2, 8), max_size=5), st.sampled_from([0.05, 0.3]))
def test_the_closed_rule_finds_the_largest_set_of_all(log_e, alpha):
    e = np.exp(log_e)
    every = [s for n in range(1, len(e) + 1) for s in combinations(range(len(e)), n)]

    def slack(named):
        return min(e[list(s)].mean() - len(set(s) & set(named)) / (alpha * len(named)) for s in every)

    assume(all(abs(slack(named)) > 1e-6 for named in every))
    largest = max((len(named) for named in every if slack(named) > 0), default=0)
    assert multiplicity.closed_benjamini_hochberg(log_e, alpha=alpha).sum() == largest


@law
@given(st.permutations(range(6)), st.lists(st.floats(-5, 12), min_size=6, max_size=6, unique=True))
def test_no_rule_depends_on_the_order_of_hypotheses(order, log_e):
    shuffled = np.array(log_e)[order]
    for rule in (
        multiplicity.holm,
        lambda x: multiplicity.benjamini_hochberg(x, alpha=0.1),
        lambda x: multiplicity.closed_benjamini_hochberg(x, alpha=0.1),
    ):
        assert rule(shuffled) == pytest.approx(rule(log_e)[order])


@law
@given(st.lists(st.floats(0.01, 1e7), min_size=1), st.lists(st.floats(0.01, 1e7)), st.floats(0.01, 0.99))
def test_a_merged_sketch_is_within_one_percent_of_the_exact_quantile_of_all(first, second, level):
    merged = exceedance.LatencySketch.of(first) + exceedance.LatencySketch.of(second)
    ordered = sorted(first + second)
    exact = ordered[max(math.ceil(round(len(ordered) * level, 9)), 1) - 1]
    assert merged.size == len(ordered)
    assert merged.quantile(level) == pytest.approx(exact, rel=exceedance.RELATIVE_ERROR * (1 + 1e-6))


@law
@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300), st.floats(0.5, 0.99))
def test_at_most_the_promised_part_exceeds_a_frozen_quantile(values, level):
    threshold = exceedance.freeze_quantile(values, level)
    if threshold is not None:
        assert exceedance.exceedances(values, threshold) <= len(values) * (1 - level) + TINY
        assert threshold in values


@law
@given(st.lists(duration, min_size=1, max_size=40))
def test_without_truncation_or_censoring_both_curves_are_the_empirical_one(delays):
    far = np.full(len(delays), 2000.0)
    backward = maturity.reverse_product_limit(delays, far)
    forward = maturity.cured_kaplan_meier(delays, np.ones(len(delays), dtype=bool))
    grid = sorted(delays)
    empirical = np.searchsorted(grid, grid, "right") / len(grid)
    assert backward.at(grid) == pytest.approx(empirical, abs=TINY)
    assert forward.at(grid) == pytest.approx(empirical, abs=TINY)


@law
@given(st.lists(st.tuples(duration, duration), min_size=1, max_size=40), st.floats(0.05, 0.95))
def test_a_curve_rises_from_zero_to_one_and_a_window_is_its_inverse(rows, part):
    delays = [d for d, _ in rows]
    curve = maturity.reverse_product_limit(delays, [d + extra for d, extra in rows])
    assert (np.diff(curve.shares) > -TINY).all()
    assert curve.shares[-1] == pytest.approx(1)
    assert curve.at([0.0])[0] <= curve.at([3000.0])[0] == pytest.approx(1)
    width = maturity.window(curve, part)
    assert curve.at([width])[0] >= part - TINY
    assert width in delays


@law
@given(st.lists(st.tuples(duration, st.booleans(), st.integers(0, 2)), min_size=60, max_size=120))
def test_exchanging_the_arms_turns_the_delay_comparison_round(rows):
    delays, arm, epoch = (np.array(column) for column in zip(*rows, strict=True))
    here, there = maturity.delay_equality(delays, arm, epoch), maturity.delay_equality(delays, ~arm, epoch)
    assert (here is None) == (there is None)
    if here is not None:
        assert there.z == pytest.approx(-here.z, abs=1e-7)
        assert there.p_value == pytest.approx(here.p_value, abs=1e-7)
