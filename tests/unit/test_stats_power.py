import math

import pytest

from seatrial.stats import power
from seatrial.stats.rate import below

LOG_20 = math.log(20)


@pytest.mark.parametrize(("ratio", "units"), [(1.1, 30_300), (1.25, 5_066), (1.5, 1_352), (2.0, 378), (3.0, 112)])
def test_no_test_finds_harm_with_fewer_units_than_walds_identity_allows(ratio, units):
    by_hand = ratio * 0.02 * math.log(ratio) + (1 - ratio * 0.02) * math.log((1 - ratio * 0.02) / 0.98)
    found = power.smallest_exposure(ratio, rate=0.02, alpha=0.05)
    assert found == pytest.approx(LOG_20 / by_hand, rel=1e-12)
    assert found == pytest.approx(units, rel=1e-3)


def test_a_smaller_share_finds_harm_with_fewer_of_the_challengers_units():
    limits = [power.exposure_limit(1.5, rate=0.02, rho=rho, alpha=0.05) for rho in (0.001, 0.01, 0.1, 0.5)]
    assert limits == sorted(limits)
    # Counting bad units alone forgoes the good ones, about two in a hundred at this rate.
    assert limits[0] == pytest.approx(power.smallest_exposure(1.5, rate=0.02, alpha=0.05) * 1.025, rel=0.01)


def test_the_mixture_pays_for_not_knowing_the_ratio():
    known = power.exposure_limit(2.0, rate=0.02, rho=0.1, alpha=0.05)
    assert known == pytest.approx(443, abs=1)
    assert known < power.expected_exposure(2.0, rate=0.02, rho=0.1, alpha=0.05) == pytest.approx(525, abs=1)


def test_a_margin_of_a_tenth_needs_seven_thousand_bad_units_at_a_share_of_a_tenth():
    information = power.information_to_show(0.1, alpha=0.05)
    assert information / 0.09 == pytest.approx(7_328, abs=1)
    assert information == pytest.approx(2 * 2.995732273553991 / 0.09531017980432493**2, rel=1e-12)


@pytest.mark.parametrize("margin", [0.01, 0.15, 1.0, 9.0])
def test_the_margin_that_is_shown_is_the_inverse_of_what_a_margin_needs(margin):
    information = power.information_to_show(margin, alpha=0.02)
    assert power.margin_shown(information, alpha=0.02) == pytest.approx(margin, rel=1e-9)


def test_no_information_shows_no_margin():
    assert power.margin_shown(0.0, alpha=0.05) == math.inf
    assert power.margin_shown(1e-9, alpha=0.05) == math.inf


@pytest.mark.parametrize("bad", [0, 1, 7, 60])
def test_the_units_that_show_a_rate_are_exactly_enough(bad):
    units = power.units_to_show(bad, bound=0.03, alpha=0.05)
    assert below(bad, units, bound=0.03) >= LOG_20 > below(bad, units - 1, bound=0.03)


def test_a_rate_at_its_bound_is_never_shown_and_one_below_it_is():
    assert power.units_to_stay_below(0.03, bound=0.03, alpha=0.05) == math.inf
    assert power.units_to_stay_below(0.05, bound=0.03, alpha=0.05) == math.inf
    needed = power.units_to_stay_below(0.005, bound=0.03, alpha=0.05)
    assert below(round(0.005 * needed), int(needed), bound=0.03) >= LOG_20
    assert needed < power.units_to_stay_below(0.01, bound=0.03, alpha=0.05) < math.inf


def test_a_planned_test_needs_a_little_more_than_a_single_look():
    # One look with z(5 %) + z(20 %) = 1.644854 + 0.841621 standard deviations of the log odds ratio.
    once = power.planned_units(1.5, rate=0.02, rho=0.1, alpha=0.05, looks=1)
    pooled = 0.02 * 1.05
    effect = math.log(1.5 * 0.98 / 0.97)
    assert once == pytest.approx((2.486475 / effect) ** 2 / (0.9 * pooled * (1 - pooled)), rel=1e-4)
    assert once < power.planned_units(1.5, rate=0.02, rho=0.1, alpha=0.05) < 1.1 * once


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda: power.smallest_exposure(1.0, rate=0.02, alpha=0.05), "smallest_exposure.ratio"),
        (lambda: power.smallest_exposure(math.nan, rate=0.02, alpha=0.05), "smallest_exposure.ratio"),
        (lambda: power.exposure_limit(3.0, rate=0.4, rho=0.1, alpha=0.05), "exposure_limit.ratio"),
        (lambda: power.exposure_limit(2.0, rate=0.0, rho=0.1, alpha=0.05), "exposure_limit.rate"),
        (lambda: power.exposure_limit(2.0, rate=0.02, rho=1.0, alpha=0.05), "exposure_limit.rho"),
        (lambda: power.expected_exposure(2.0, rate=0.02, rho=0.1, alpha=0.0), "exposure_limit.alpha"),
        (lambda: power.information_to_show(0.0, alpha=0.05), "information_to_show.margin"),
        (lambda: power.information_to_show(math.nan, alpha=0.05), "information_to_show.margin"),
        (lambda: power.margin_shown(math.nan, alpha=0.05), "margin_shown.information"),
        (lambda: power.margin_shown(-1.0, alpha=0.05), "margin_shown.information"),
        (lambda: power.units_to_show(-1, bound=0.03, alpha=0.05), "below"),
        (lambda: power.units_to_show(0, bound=1.0, alpha=0.05), "below"),
        (lambda: power.units_to_stay_below(0.01, bound=0.03, alpha=1.0), "units_to_show.alpha"),
        (lambda: power.units_to_stay_below(math.nan, bound=0.03, alpha=0.05), "units_to_stay_below.rate"),
        (lambda: power.planned_units(2.0, rate=0.02, rho=0.1, alpha=0.05, power=0.05), "planned_units"),
        (lambda: power.planned_units(2.0, rate=0.02, rho=0.1, alpha=0.05, looks=0), "planned_units"),
    ],
)
def test_a_number_outside_its_range_is_refused_with_its_place(call, place):
    with pytest.raises(ValueError, match=place):
        call()
