import math

import numpy as np
import pytest

from seatrial.stats import exceedance, kernel, maturity, means, multiplicity, srm

NAN, INF = math.nan, math.inf
EMPTY = means.Sums.of([], [], 1)
ARM = means.Sums.of([1.0, 2.0] * 40, [0] * 80, 1)
SCORE = means.Score(1.0, 10.0, 20.0)
CURVE = maturity.DelayCurve(np.array([1.0, 4.0]), np.array([0.5, 1.0]), 9.0)

BAD_COUNTS = [[-1], [NAN], [INF], [1.5], [None]]
BAD_SHARES = [[0.0], [1.0], [-0.1], [NAN], [2.0]]
PAIRS = [
    kernel.harm,
    lambda k1, k0, rho: kernel.noninferiority(k1, k0, rho, margin=0.1),
    lambda k1, k0, rho: kernel.harm_of_all(k1, k0, [1], [1], rho, rate=0.1),
    lambda k1, k0, rho: kernel.ratio_interval(k1, k0, rho, alpha=0.05),
    kernel.ratio_estimate,
    srm.odds_tilt,
]


@pytest.mark.parametrize("function", PAIRS)
@pytest.mark.parametrize("bad", BAD_COUNTS)
def test_a_count_that_is_not_a_count_is_refused_in_either_arm(function, bad):
    with pytest.raises(ValueError, match="whole numbers"):
        function(bad, [1], [0.1])
    with pytest.raises(ValueError, match="whole numbers"):
        function([1], bad, [0.1])


@pytest.mark.parametrize("function", PAIRS)
@pytest.mark.parametrize("bad", BAD_SHARES)
def test_an_unknown_or_certain_assignment_is_refused(function, bad):
    with pytest.raises(ValueError, match=r"outside \(0, 1\)"):
        function([1], [1], bad)


@pytest.mark.parametrize("function", PAIRS)
@pytest.mark.parametrize(
    "shapes", [([1, 2], [1], [0.1]), ([1], [1], [0.1, 0.2]), (1, 1, 0.1), ([[1], [2]], [[1], [2]], [[0.1]])]
)
def test_epochs_that_do_not_match_are_refused(function, shapes):
    with pytest.raises(ValueError, match="expected"):
        function(*shapes)


def test_either_is_the_mean_of_both_directions():
    k1, k0, rho = [[40, 3], [9, 80]], [[250, 20], [300, 90]], np.array([0.1, 0.4])
    prior = kernel.half_normal()
    up, down = kernel.harm(k1, k0, rho, prior=prior), kernel.harm(k0, k1, 1.0 - rho, prior=prior)
    np.testing.assert_allclose(kernel.either(k1, k0, rho, prior=prior), np.logaddexp(up, down) - math.log(2.0))
    assert kernel.either([0], [0], [0.1], prior=prior) == 0.0


def test_terms_that_are_left_out_of_a_mean_are_below_its_rounding():
    found = kernel.harm([10_000, 500], [10_000, 90_000], [0.5, 0.1], stage=[0, 1], stages=9)
    plain = []
    for first in range(9):
        log_lr = [
            sum(
                k1 * x - (k1 + k0) * math.log1p(rho * math.expm1(x))
                for k1, k0, rho in [(10_000, 10_000, 0.5), (500, 90_000, 0.1)][first:]
            )
            for x in kernel.half_normal().log_ratios
        ]
        weight = kernel.LATE_WEIGHT / 9 + (first == 0) * (1.0 - kernel.LATE_WEIGHT)
        plain += [
            value + math.log(weight * part) for value, part in zip(log_lr, kernel.half_normal().weights, strict=True)
        ]
    assert found == pytest.approx(np.logaddexp.reduce(plain), rel=1e-12)


def test_without_a_bad_unit_the_evidence_is_exactly_none():
    assert kernel.harm([0, 0], [0, 0], [0.1, 0.5]) == 0.0
    assert kernel.harm([], [], []) == 0.0
    assert kernel.harm([0], [0], [0.1], stage=[0], stages=5) == 0.0
    assert kernel.noninferiority([0], [0], [0.1], margin=0.1) == 0.0
    assert kernel.harm_of_all([0], [0], [0], [0], [0.1], rate=0.3) == 0.0
    assert kernel.ratio_interval([0], [0], [0.1], alpha=0.05) == (0.0, INF)
    assert math.isnan(kernel.ratio_estimate([0], [0], [0.1]))
    assert srm.odds_tilt([0], [0], [0.1]) == 0.0
    assert srm.dirichlet_multinomial([0, 0], [0.5, 0.5], 100) == 0.0
    assert kernel.harm(np.zeros((3, 0)), np.zeros((3, 0)), []).tolist() == [0.0, 0.0, 0.0]


def test_bad_units_in_one_arm_only_have_an_unbounded_ratio():
    assert kernel.ratio_estimate([5], [0], [0.1]) == INF
    assert kernel.ratio_estimate([0], [5], [0.1]) == 0.0
    assert kernel.ratio_interval([900], [0], [0.5], alpha=0.05)[1] == INF
    assert kernel.ratio_interval([0], [900], [0.5], alpha=0.05)[0] == 0.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: kernel.harm([1], [1], [0.1], null=0.0),
        lambda: kernel.harm([1], [1], [0.1], null=NAN),
        lambda: kernel.noninferiority([1], [1], [0.1], margin=0.0),
        lambda: kernel.noninferiority([1], [1], [0.1], margin=NAN),
        lambda: kernel.near_equality(-0.1),
        lambda: kernel.harm_of_all([1], [1], [1], [1], [0.1], rate=NAN),
        lambda: kernel.harm_of_all([1], [1], [1], [1], [0.1], rate=1.0),
        lambda: kernel.harm_of_all([1], [1], [[1], [1]], [[1], [1]], [0.1], rate=0.1),
        lambda: kernel.ratio_interval([1], [1], [0.1], alpha=NAN),
        lambda: kernel.ratio_interval([[1]], [[1]], [0.1], alpha=0.05),
        lambda: kernel.anytime_p(NAN),
        lambda: kernel.anytime_p([1.0, NAN]),
        lambda: kernel.half_normal(0.0),
        lambda: kernel.half_normal(low=0.0),
        lambda: kernel.half_normal(points=0),
        lambda: kernel.RatioPrior(np.array([0.1]), np.array([0.5])),
        lambda: kernel.RatioPrior(np.array([0.1, 0.2]), np.array([1.5, -0.5])),
        lambda: kernel.RatioPrior(np.array([-0.1]), np.array([1.0])),
        lambda: kernel.RatioPrior(np.array([NAN]), np.array([1.0])),
        lambda: kernel.RatioPrior(np.array([]), np.array([])),
        lambda: kernel.RatioPrior(np.array([0.1]), np.array([NAN])),
        lambda: kernel.harm([1, 1], [1, 1], [0.1, 0.1], stage=[1, 0], stages=2),
        lambda: kernel.harm([1, 1], [1, 1], [0.1, 0.1], stage=[0, 2], stages=2),
        lambda: kernel.harm([1, 1], [1, 1], [0.1, 0.1], stage=[0, -1], stages=2),
        lambda: kernel.harm([1, 1], [1, 1], [0.1, 0.1], stage=[0, NAN], stages=2),
        lambda: kernel.harm([1, 1], [1, 1], [0.1, 0.1], stage=[0.0, 0.5], stages=2),
        lambda: kernel.harm([1, 1], [1, 1], [0.1, 0.1], stage=[0], stages=2),
        lambda: kernel.harm([1], [1], [0.1], stage=[0], stages=0),
        lambda: srm.odds_tilt([1], [1], [0.1], tilts=()),
        lambda: srm.odds_tilt([1], [1], [0.1], tilts=(-0.5,)),
        lambda: srm.odds_tilt([1], [1], [0.1], tilts=(NAN,)),
        lambda: srm.dirichlet_multinomial([1, NAN], [0.5, 0.5], 100),
        lambda: srm.dirichlet_multinomial([1, 1], [0.5, 0.4], 100),
        lambda: srm.dirichlet_multinomial([1, 1], [0.5, NAN], 100),
        lambda: srm.dirichlet_multinomial([1, 1, 1], [0.5, 0.5], 100),
        lambda: srm.dirichlet_multinomial([1, 1], [0.5, 0.5], 0),
    ],
)
def test_the_kernel_refuses_what_has_no_answer(call):
    with pytest.raises(ValueError, match="expected"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: means.Sums.of([NAN], [0], 1),
        lambda: means.Sums.of([INF], [0], 1),
        lambda: means.Sums.of([1.0], [1], 1),
        lambda: means.Sums.of([1.0, 2.0], [0], 1),
        lambda: means.Sums.of([1.0], [0], 1, denominators=[-1.0]),
        lambda: means.Sums(*([np.array([1.0])] * 6), np.array([1.0, 2.0])),
        lambda: means.Sums(*(np.array([x]) for x in (2.0, 2.0, 3.0, 2.0, 4.0, 3.0, 2.0))),
        lambda: means.Sums(*(np.array([x]) for x in (2.0, 3.0, 3.0, 2.0, 5.0, 3.0, 2.0))),
        lambda: means.Score(NAN, 1.0, 1.0),
        lambda: means.Score(1.0, -1.0, 1.0),
        lambda: means.Score(1.0, NAN, 1.0),
        lambda: means.Score(1.0, 1.0, 0.0),
        lambda: means.overlap_score(ARM, ARM, [0.1, 0.1]),
        lambda: means.overlap_score(ARM, ARM, [NAN]),
        lambda: means.overlap_score(ARM, ARM, [0.5], center=NAN),
        lambda: means.interval(SCORE, tuned_at=0.0, alpha=0.05),
        lambda: means.interval(SCORE, tuned_at=NAN, alpha=0.05),
        lambda: means.interval(SCORE, tuned_at=1.0, alpha=NAN),
        lambda: means.log_e_above(SCORE, null=NAN, tuned_at=1.0),
        lambda: means.log_e_above(SCORE, tuned_at=1.0, alpha=0.5),
        lambda: means.bets([0.5, NAN], low=0, high=1, null=0.5),
        lambda: means.bets([1.5], low=0, high=1, null=0.5),
        lambda: means.bets([0.5], low=0, high=1, null=1.0),
        lambda: means.bets([0.5], low=0, high=INF, null=1.0),
        lambda: means.bet_log_e([0.0, 0.0]),
        lambda: means.bet_log_e(np.full(means.STAKES.size, NAN)),
        lambda: multiplicity.bonferroni([NAN], [1.0], alpha=0.05),
        lambda: multiplicity.bonferroni([1.0], [NAN], alpha=0.05),
        lambda: multiplicity.bonferroni([1.0, 1.0], [0.6, 0.6], alpha=0.05),
        lambda: multiplicity.bonferroni([1.0, 1.0], [1.5, -0.5], alpha=0.05),
        lambda: multiplicity.bonferroni([1.0, 1.0], [1.0], alpha=0.05),
        lambda: multiplicity.bonferroni([1.0], [1.0], alpha=NAN),
        lambda: multiplicity.holm([NAN, 1.0]),
        lambda: multiplicity.benjamini_hochberg([NAN], alpha=0.05),
        lambda: multiplicity.closed_benjamini_hochberg([[1.0]], alpha=0.05),
        lambda: exceedance.freeze_quantile([1.0, NAN], 0.5),
        lambda: exceedance.freeze_quantile([1.0, 2.0], 1.0),
        lambda: exceedance.exceedances([NAN], 1.0),
        lambda: exceedance.exceedances([1.0], INF),
        lambda: exceedance.exceedances([1.0], NAN),
        lambda: exceedance.LatencySketch.of([NAN]),
        lambda: exceedance.LatencySketch.of([-1.0]),
        lambda: exceedance.LatencySketch(np.zeros(3)),
        lambda: exceedance.LatencySketch.of([1.0]).quantile(0.0),
        lambda: maturity.reverse_product_limit([2.0], [1.0]),
        lambda: maturity.reverse_product_limit([NAN], [1.0]),
        lambda: maturity.reverse_product_limit([1.0], [1.0, 2.0]),
        lambda: maturity.cured_kaplan_meier([-1.0], [True]),
        lambda: maturity.cured_kaplan_meier([1.0], [True, False]),
        lambda: maturity.window(CURVE, 1.0),
        lambda: maturity.window(CURVE, NAN),
        lambda: maturity.maturity([NAN], CURVE),
        lambda: maturity.label_coverage(2, 1),
        lambda: maturity.label_coverage(-1, 1),
        lambda: maturity.delay_equality([1.0], [True], [0, 1]),
        lambda: maturity.delay_equality([NAN] * 50, [True, False] * 25, [0] * 50),
    ],
)
def test_what_cannot_be_computed_is_refused_and_not_called_healthy(call):
    with pytest.raises(ValueError, match="expected"):
        call()


def test_no_data_is_no_answer():
    assert means.overlap_score(EMPTY, EMPTY, [0.5]) is None
    assert means.paired_score(EMPTY) is None
    assert means.bet_log_e(means.bets([], low=0, high=1, null=0.5)) == 0.0
    assert exceedance.freeze_quantile([], 0.5) is None
    assert exceedance.LatencySketch.of([]).quantile(0.99) is None
    assert maturity.reverse_product_limit([], []) is None
    assert maturity.cured_kaplan_meier([], []) is None
    assert maturity.cured_kaplan_meier([5.0, 6.0], [False, False]) is None
    assert maturity.maturity([], CURVE) is None
    assert maturity.label_coverage(0, 0) is None
    assert maturity.delay_equality([], [], []) is None
    assert multiplicity.bonferroni([], [], alpha=0.05).size == 0
    assert multiplicity.holm([]).size == 0
    assert multiplicity.benjamini_hochberg([], alpha=0.05).size == 0
    assert multiplicity.closed_benjamini_hochberg([], alpha=0.05).size == 0


@pytest.mark.parametrize("units", [means.MINIMUM_UNITS - 1, means.MINIMUM_UNITS])
def test_below_fifty_units_an_arm_has_no_score(units):
    few = means.Sums.of(np.ones(units), np.zeros(units, dtype=int), 1)
    is_enough = units >= means.MINIMUM_UNITS
    assert (means.overlap_score(few, ARM, [0.5]) is not None) is is_enough
    assert (means.overlap_score(ARM, few, [0.5]) is not None) is is_enough
    assert (means.paired_score(few) is not None) is is_enough


@pytest.mark.parametrize("nonzero", [means.MINIMUM_NONZERO - 1, means.MINIMUM_NONZERO])
def test_below_ten_values_other_than_zero_an_arm_has_no_score(nonzero):
    values = np.zeros(500)
    values[:nonzero] = 3.0
    rare = means.Sums.of(values, np.zeros(500, dtype=int), 1)
    assert (means.overlap_score(rare, ARM, [0.5]) is not None) is (nonzero >= means.MINIMUM_NONZERO)


def test_positives_of_both_arms_in_no_common_epoch_cannot_be_compared():
    arm = np.repeat([True, False], 30)
    assert maturity.delay_equality(np.arange(60), arm, arm.astype(int)) is None
    assert maturity.delay_equality(np.arange(60), arm, np.zeros(60)) is not None
    assert maturity.delay_equality(np.arange(49), np.arange(49) < 19, np.zeros(49)) is None


def test_a_weight_of_zero_never_rejects_and_a_zero_e_value_is_no_error():
    rejected = multiplicity.bonferroni([math.inf, math.inf, -math.inf], [0.0, 0.5, 0.5], alpha=0.05)
    assert rejected.tolist() == [False, True, False]
    assert multiplicity.holm([-math.inf, -math.inf]).tolist() == [-math.inf, -math.inf]
    assert not multiplicity.closed_benjamini_hochberg([-math.inf, -math.inf], alpha=0.05).any()


def test_a_request_without_an_answer_exceeds_every_threshold_and_shows_in_the_sketch():
    assert exceedance.exceedances([1.0, math.inf], 1e6) == 1
    sketch = exceedance.LatencySketch.of([1.0] * 98 + [math.inf] * 2)
    assert sketch.quantile(0.99) == math.inf
    assert sketch.quantile(0.5) == pytest.approx(1.0, rel=exceedance.RELATIVE_ERROR)
    assert exceedance.LatencySketch.of([0.0]).quantile(0.5) == exceedance.SMALLEST


def test_a_window_shorter_than_its_quantile_has_no_threshold():
    assert exceedance.freeze_quantile(np.arange(99), 0.99) is None
    assert exceedance.freeze_quantile(np.arange(100), 0.99) == 98


def test_a_quantile_is_not_moved_by_the_rounding_of_its_level():
    # 100 * 0.07 is 7.000000000000001
    assert exceedance.freeze_quantile(np.arange(1, 101), 0.07) == 7


def test_a_ratio_that_leaves_no_good_unit_is_not_refuted_for_ever_by_one():
    fourfold = kernel.RatioPrior(np.array([math.log(4)]), np.array([1.0]))
    log_e = kernel.harm_of_all([0], [0], [1], [0], [0.5], rate=0.5, prior=fourfold)
    assert log_e == pytest.approx(math.log(0.05 / (0.5 + 0.5 * 0.05)))


def test_values_that_all_equal_the_centre_have_no_variance_and_no_evidence():
    arm = means.Sums.of([0.1] * 200, [0] * 200, 1)
    score = means.overlap_score(arm, arm, [0.3], center=0.1)
    assert score.variance == pytest.approx(0, abs=1e-12)
    assert means.paired_score(arm).variance == pytest.approx(0, abs=1e-12)
    assert means.log_e_above(score, tuned_at=1.0) < 0


def test_culprits_are_named_together_although_fewer_would_not_be():
    assert multiplicity.benjamini_hochberg(np.log([21.0, 21.0, 21.0]), alpha=0.05).all()


def test_a_prior_cannot_be_changed_after_it_was_declared():
    prior = kernel.half_normal()
    with pytest.raises(ValueError, match="read-only"):
        prior.weights[0] = 1.0


def test_a_lost_arm_is_found_and_a_fair_ramp_is_not():
    units = np.array([100_000, 100_000, 100_000])
    rho = np.array([0.01, 0.1, 0.5])
    fair = np.round(units * rho).astype(int)
    assert srm.odds_tilt(fair, units - fair, rho) < 0
    lost = np.round(fair * 0.95).astype(int)
    assert srm.odds_tilt(lost, units - fair, rho) > math.log(1000)
