import math

import numpy as np
import pytest
from scipy.special import expit, logit

from seatrial.stats import thresholds

NAN, INF = math.nan, math.inf
EVEN = np.arange(1000) / 1000
CUT_OFFS = [0.3, 0.6, 0.9]


def test_no_score_certifies_nothing():
    assert thresholds.certified_cut_off([], rate=0.1, delta=0.1) is None
    assert thresholds.action_rate([], 0.5, alpha=0.05) is None
    assert thresholds.learn_then_test([], [], precision=0.9, delta=0.1, cut_offs=CUT_OFFS) is None
    assert thresholds.expected_rates([], [], 0.5) is None
    estimate, low, high = thresholds.action_rate_band([], CUT_OFFS, alpha=0.05)
    assert np.isnan(estimate).all()
    assert (low.tolist(), high.tolist()) == ([0.0] * 3, [1.0] * 3)
    curve = thresholds.trade_off([], [], CUT_OFFS, alpha=0.05)
    assert np.isnan([curve.action_rate, curve.precision, curve.recall]).all()
    assert (curve.precision_low.tolist(), curve.precision_high.tolist()) == ([0.0] * 3, [1.0] * 3)


def test_too_small_a_sample_certifies_no_cut_off_and_the_first_that_is_large_enough_does():
    least = math.ceil(math.log(0.1) / math.log1p(-0.05))
    assert thresholds.certified_cut_off(np.arange(least - 1), rate=0.05, delta=0.1) is None
    assert thresholds.certified_cut_off(np.arange(least), rate=0.05, delta=0.1) > least - 1


def test_scores_that_tie_are_kept_out_together():
    tied = np.repeat([0.1, 0.5, 0.9], [900, 90, 10])
    cut_off = thresholds.certified_cut_off(tied, rate=0.05, delta=0.1)
    assert 0.5 < cut_off < 0.5 + 1e-12
    assert (tied >= cut_off).sum() == 10


def test_one_value_for_all_requests_is_never_acted_on():
    cut_off = thresholds.certified_cut_off([0.7] * 1000, rate=0.5, delta=0.1)
    assert cut_off > 0.7


def test_a_stricter_delta_never_lowers_the_cut_off():
    cut_offs = [thresholds.certified_cut_off(EVEN, rate=0.1, delta=d) for d in (0.5, 0.1, 0.01, 0.001)]
    assert cut_offs == sorted(cut_offs)


def test_a_score_at_the_cut_off_is_acted_on():
    assert thresholds.action_rate([0.1, 0.5], 0.5, alpha=0.05).estimate == 0.5
    assert thresholds.action_rate([0.1, 0.5], np.nextafter(0.5, 1), alpha=0.05).estimate == 0.0
    assert thresholds.trade_off([0.1, 0.5], [0, 1], [0.5], alpha=0.05).precision.tolist() == [1.0]
    assert thresholds.expected_rates([0.5], [4], 0.5).recall == 1.0


def test_limits_reach_the_ends_when_all_or_none_are_acted_on():
    assert thresholds.action_rate([0.1] * 9, 0.5, alpha=0.05).low == 0.0
    assert thresholds.action_rate([0.9] * 9, 0.5, alpha=0.05).high == 1.0


def test_testing_stops_at_the_first_failure_even_when_a_later_candidate_would_pass():
    scores = np.repeat([0.95, 0.65, 0.35], [50, 100, 5000])
    labels = np.concatenate([np.ones(50), np.repeat([1, 0], 50), np.ones(5000)])
    options = {"precision": 0.9, "delta": 0.1}
    assert thresholds.learn_then_test(scores, labels, cut_offs=[0.3], **options) == 0.3
    assert thresholds.learn_then_test(scores, labels, cut_offs=CUT_OFFS, **options) == 0.9


def test_a_strictest_candidate_that_nothing_reaches_ends_the_test():
    options = {"precision": 0.5, "delta": 0.1}
    assert thresholds.learn_then_test([0.6] * 90, [1] * 90, cut_offs=[0.5], **options) == 0.5
    assert thresholds.learn_then_test([0.6] * 90, [1] * 90, cut_offs=[0.5, 0.99], **options) is None
    assert thresholds.learn_then_test([0.6] * 90, [1] * 90, cut_offs=[], **options) is None


@pytest.mark.parametrize("labels", [[1, NAN], [1, None], [1, 2], [1], [1, 0, 1], [1, -1]])
def test_a_missing_label_is_refused_and_not_taken_as_zero(labels):
    with pytest.raises(ValueError, match="it is not 0"):
        thresholds.learn_then_test([0.1, 0.2], labels, precision=0.9, delta=0.1, cut_offs=CUT_OFFS)
    with pytest.raises(ValueError, match="it is not 0"):
        thresholds.trade_off([0.1, 0.2], labels, CUT_OFFS, alpha=0.1)


@pytest.mark.parametrize("scores", [[NAN], [INF], [[0.1]], 0.1, [None]])
def test_a_score_that_is_not_finite_is_refused(scores):
    for asked in (
        lambda: thresholds.certified_cut_off(scores, rate=0.1, delta=0.1),
        lambda: thresholds.action_rate(scores, 0.5, alpha=0.1),
        lambda: thresholds.action_rate_band(scores, CUT_OFFS, alpha=0.1),
        lambda: thresholds.learn_then_test(scores, [1], precision=0.9, delta=0.1, cut_offs=CUT_OFFS),
        lambda: thresholds.expected_rates(scores, [1], 0.5),
    ):
        with pytest.raises(ValueError, match="not finite"):
            asked()


@pytest.mark.parametrize("cut_off", [NAN, INF])
def test_a_cut_off_that_is_not_finite_is_refused(cut_off):
    for asked in (
        lambda: thresholds.action_rate([0.1], cut_off, alpha=0.1),
        lambda: thresholds.action_rate_band([0.1], [cut_off], alpha=0.1),
        lambda: thresholds.trade_off([0.1], [1], [cut_off], alpha=0.1),
        lambda: thresholds.expected_rates([0.1], [1], cut_off),
    ):
        with pytest.raises(ValueError, match="finite"):
            asked()


@pytest.mark.parametrize("number", [0.0, 1.0, -0.1, NAN])
def test_a_rate_or_an_error_outside_its_range_is_refused_by_name(number):
    for name in ("rate", "delta"):
        with pytest.raises(ValueError, match=rf"certified_cut_off\.{name}"):
            thresholds.certified_cut_off(EVEN, **{"rate": 0.1, "delta": 0.1, name: number})
    for name in ("precision", "delta"):
        with pytest.raises(ValueError, match=rf"learn_then_test\.{name}"):
            thresholds.learn_then_test([1], [1], cut_offs=[0], **{"precision": 0.1, "delta": 0.1, name: number})
    with pytest.raises(ValueError, match=r"action_rate\.alpha"):
        thresholds.action_rate(EVEN, 0.5, alpha=number)
    with pytest.raises(ValueError, match=r"action_rate_band\.alpha"):
        thresholds.action_rate_band(EVEN, CUT_OFFS, alpha=number)
    with pytest.raises(ValueError, match=r"trade_off\.alpha"):
        thresholds.trade_off([1], [1], CUT_OFFS, alpha=number)


def test_the_curve_bounds_precision_where_the_exact_test_does():
    curve = thresholds.trade_off(np.repeat([0.9, 0.1], 50), np.repeat([1, 0, 1], [40, 50, 10]), [0.05, 0.5], alpha=0.1)
    assert (curve.precision_low < curve.precision).all()
    assert (curve.precision < curve.precision_high).all()
    assert (curve.action_rate_low <= curve.action_rate).all()


def test_expected_rates_of_a_calibrated_release_are_its_true_rates():
    scores, cut_off = (np.arange(2000) + 0.5) / 2000, 0.7
    found = thresholds.expected_rates(scores, np.full(2000, 3), cut_off)
    # For a uniform score p that is the chance of a 1: E[p | p >= t], E[p; p >= t] / E[p] and their complements.
    assert found.precision == pytest.approx((1 + cut_off) / 2, abs=1e-6)
    assert found.recall == pytest.approx(1 - cut_off**2, abs=1e-6)
    assert found.accuracy == pytest.approx((1 - cut_off**2) / 2 + cut_off - cut_off**2 / 2, abs=1e-6)


def test_an_overconfident_release_expects_far_more_of_itself_than_it_keeps():
    truth = (np.arange(2000) + 0.5) / 2000
    boasts = thresholds.expected_rates(expit(2 * logit(truth)), np.ones(2000), 0.5)
    keeps = thresholds.expected_rates(truth, np.ones(2000), 0.5)
    # The actions are the same, so that what it keeps is what the true chances say: E[max(p, 1 - p)] = 3/4.
    assert keeps.accuracy == pytest.approx(0.75, abs=1e-6)
    assert boasts.accuracy > keeps.accuracy + 0.08
    assert boasts.precision > keeps.precision + 0.08


def test_expected_rates_say_that_they_may_not_gate():
    found = thresholds.expected_rates([0.2], [10], 0.5)
    assert found.is_advisory is True
    assert thresholds.ExpectedRates.is_advisory.fset is None


def test_expected_rates_without_an_action_or_a_one_are_not_known():
    found = thresholds.expected_rates([0.0], [10], 0.5)
    assert (found.precision, found.recall, found.accuracy) == (None, None, 1.0)


@pytest.mark.parametrize(("scores", "count"), [([1.1], [1]), ([0.1], [0]), ([0.1], [1, 1]), ([0.1], [NAN])])
def test_expected_rates_of_what_is_no_probability_or_no_count_are_refused(scores, count):
    with pytest.raises(ValueError, match="expected_rates"):
        thresholds.expected_rates(scores, count, 0.5)
