import math

import numpy as np
import pytest

from seatrial.stats import horizon

NAN, INF = math.nan, math.inf
BOTH = pytest.mark.parametrize("spending", [horizon.obrien_fleming, horizon.pocock])
UNITS = np.outer(np.arange(1, 6), [1000])


def looked(challenger_bad, champion_bad):
    return horizon.stratified(np.outer(challenger_bad, [1]), UNITS, np.outer(champion_bad, [1]), UNITS)


@BOTH
def test_spending_begins_at_nothing_grows_and_ends_at_alpha(spending):
    spent = [spending(t, 0.05) for t in np.linspace(0, 1, 101)]
    assert spent[0] == 0.0
    assert spent[-1] == pytest.approx(0.05, abs=1e-15)
    assert (np.diff(spent) >= 0).all()


@BOTH
@pytest.mark.parametrize("looks", [1, 2, 7, 60])
def test_all_error_is_spent_at_the_planned_end_whatever_the_looks(spending, looks):
    information = np.cumsum(np.linspace(1, 3, looks))
    limit = horizon.limits(information, maximum=information[-1], alpha=0.05, spending=spending)
    assert horizon.crossing(limit, information).sum() == pytest.approx(0.05, abs=1e-9)


@BOTH
def test_a_limit_once_given_never_moves(spending):
    information = [1.0, 2.5, 4.0, 9.0, 10.0]
    whole = horizon.limits(information, maximum=10.0, alpha=0.05, spending=spending)
    for looks in range(1, 5):
        part = horizon.limits(information[:looks], maximum=10.0, alpha=0.05, spending=spending)
        assert part.tolist() == whole[:looks].tolist()


def test_one_look_at_the_end_is_the_ordinary_test():
    assert horizon.limits([7.0], maximum=7.0, alpha=0.05) == pytest.approx([1.6448536269514722], abs=1e-9)


@BOTH
def test_after_the_planned_end_there_is_no_error_left(spending):
    limit = horizon.limits([4.0, 12.0, 15.0], maximum=10.0, alpha=0.05, spending=spending)
    assert np.isfinite(limit[:2]).all()
    assert limit[2] == INF
    assert horizon.crossing(limit, [4.0, 12.0, 15.0]).sum() == pytest.approx(0.05, abs=1e-9)


def test_a_look_that_adds_next_to_nothing_is_not_tested_and_costs_nothing():
    plain = horizon.limits([2.0, 10.0], maximum=10.0, alpha=0.05)
    crowded = horizon.limits([2.0, 2.001, 2.002, 10.0], maximum=10.0, alpha=0.05)
    assert crowded.tolist() == [plain[0], INF, INF, plain[1]]


def test_a_look_without_a_limit_changes_no_chance_however_close_it_is():
    sparse = horizon.crossing([1.0, 1.5], [1.0, 5.0])
    crowded = horizon.crossing([1.0, INF, 1.5], [1.0, 1.01, 5.0])
    assert crowded.tolist() == pytest.approx([sparse[0], 0.0, sparse[1]], abs=1e-12)


def test_a_drift_upwards_is_found_and_the_opposite_is_not():
    information = np.arange(1.0, 6.0)
    limit = horizon.limits(information, maximum=5.0, alpha=0.05)
    chances = [horizon.crossing(limit, information, effect=e).sum() for e in (-3.0, -1.0, 0.0, 1.0, 3.0, 30.0)]
    assert chances == sorted(chances)
    assert chances[0] < 1e-9
    assert chances[-1] == pytest.approx(1.0, abs=1e-12)


def test_the_score_is_the_surplus_over_the_challengers_part_in_each_epoch():
    found = horizon.stratified([4, 40], [100, 900], [96, 60], [900, 900])
    assert found.score.item() == pytest.approx((4 - 100 * 0.1) + (40 - 50))
    first = 100 * 900 * 100 * 900 / (1000**2 * 999)
    second = 900 * 900 * 100 * 1700 / (1800**2 * 1799)
    assert found.information.item() == pytest.approx(first + second)
    assert found.z.item() == pytest.approx(-16 / math.sqrt(first + second))


def test_a_ramp_over_a_rising_rate_is_no_harm():
    # Pooled over both epochs the challenger has 9.2 % bad units and the champion 2.8 %.
    found = horizon.stratified([1, 100], [100, 1000], [100, 100], [10_000, 1000])
    assert found.z.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    "counts", [([0], [0], [0], [0]), ([0], [1], [0], [0]), ([5], [5], [0], [0]), ([0], [9], [0], [9])]
)
def test_an_epoch_that_does_not_tell_the_arms_apart_has_no_information(counts):
    found = horizon.stratified(*counts)
    assert found.information.item() == 0.0
    assert math.isnan(found.z.item())


def test_harm_is_found_at_the_first_look_that_reaches_its_limit():
    tested = horizon.planned_test(looked([40, 90, 150, 200, 250], [20, 40, 60, 80, 100]), maximum=100.0, alpha=0.05)
    assert tested.is_harmful
    quiet = horizon.planned_test(looked([20, 40, 60, 80, 100], [20, 40, 60, 80, 100]), maximum=100.0, alpha=0.05)
    assert not quiet.is_harmful
    better = horizon.planned_test(looked([2, 4, 6, 8, 10], [20, 40, 60, 80, 100]), maximum=100.0, alpha=0.05)
    assert not better.is_harmful


def test_a_harm_that_was_found_stays_found():
    looks = looked([60, 110, 112, 114, 116], [20, 40, 80, 120, 160])
    early = horizon.planned_test(looks, maximum=60.0, alpha=0.05, spending=horizon.pocock)
    assert early.z[-1] < 0
    assert early.is_harmful


def test_looks_without_information_are_not_tested_and_are_no_end():
    tested = horizon.planned_test(looked([0] * 5, [0] * 5), maximum=10.0, alpha=0.05)
    assert tested.limit.tolist() == [INF] * 5
    assert not tested.is_harmful
    assert not tested.is_finished
    none = horizon.planned_test(horizon.Stratified(np.zeros(0), np.zeros(0)), maximum=10.0, alpha=0.05)
    assert not none.is_harmful
    assert not none.is_finished


def test_a_look_repeated_changes_no_verdict_and_no_other_limit():
    once = looked([40, 90, 150, 200, 250], [30, 70, 110, 150, 200])
    again = horizon.Stratified(np.repeat(once.score, 2), np.repeat(once.information, 2))
    plain = horizon.planned_test(once, maximum=150.0, alpha=0.05)
    doubled = horizon.planned_test(again, maximum=150.0, alpha=0.05)
    assert doubled.limit[::2].tolist() == plain.limit.tolist()
    assert doubled.limit[1::2].tolist() == [INF] * 5
    assert doubled.is_harmful == plain.is_harmful


def test_the_planned_end_is_reached_when_the_information_is_there():
    looks = looked([20, 40, 60, 80, 100], [20, 40, 60, 80, 100])
    assert horizon.planned_test(looks, maximum=float(looks.information[-1]), alpha=0.05).is_finished
    assert not horizon.planned_test(looks, maximum=1e4, alpha=0.05).is_finished


@pytest.mark.parametrize("information", [[0.0], [-1.0], [2.0, 1.0], [1.0, 1.0], [NAN], [INF], [[1.0]], 1.0])
def test_information_that_does_not_grow_is_refused(information):
    with pytest.raises(ValueError, match=r"limits\.information"):
        horizon.limits(information, maximum=3.0, alpha=0.05)
    with pytest.raises(ValueError, match=r"crossing\.information"):
        horizon.crossing([2.0], information)


@pytest.mark.parametrize("plan", [{"maximum": 0.0}, {"maximum": NAN}, {"maximum": INF}, {"alpha": 0.0}, {"alpha": 1.0}])
def test_a_plan_without_an_end_or_an_error_is_refused(plan):
    with pytest.raises(ValueError, match="found maximum="):
        horizon.limits([1.0], **{"maximum": 3.0, "alpha": 0.05, **plan})
    with pytest.raises(ValueError, match="found maximum="):
        horizon.planned_test(looked([0] * 5, [0] * 5), **{"maximum": 3.0, "alpha": 0.05, **plan})


@pytest.mark.parametrize("total", [0.06, -0.01, NAN])
def test_a_spending_function_that_spends_more_than_there_is_is_refused(total):
    with pytest.raises(ValueError, match=r"limits\.spending"):
        horizon.limits([1.0], maximum=3.0, alpha=0.05, spending=lambda _t, _a: total)


@pytest.mark.parametrize(("limit", "effect"), [([NAN], 0.0), ([1.0, 2.0], 0.0), ([1.0], NAN)])
def test_limits_that_are_not_one_for_each_look_are_refused(limit, effect):
    with pytest.raises(ValueError, match="crossing"):
        horizon.crossing(limit, [1.0], effect=effect)


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        (([-1], [5], [0], [5]), "challenger_bad"),
        (([0], [5], [NAN], [5]), "champion_bad"),
        (([6], [5], [0], [5]), "more bad units"),
        (([0], [5], [6], [5]), "more bad units"),
        (([0, 0], [5, 5], [0], [5]), "shapes"),
        ((0, 5, 0, 5), "shapes"),
    ],
)
def test_counts_that_no_epoch_has_are_refused(counts, match):
    with pytest.raises(ValueError, match=match):
        horizon.stratified(*counts)


def test_looks_of_many_rollouts_at_once_are_refused():
    with pytest.raises(ValueError, match="one axis"):
        horizon.planned_test(horizon.Stratified(np.zeros((2, 2)), np.zeros((2, 2))), maximum=3.0, alpha=0.05)
