"""Numbers of MLstatkit, mpmath and gsDesign; make_stats_paired.py beside this file wrote them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from seatrial.stats import horizon, kernel, paired, thresholds

GOLDEN = json.loads(Path(__file__).with_name("stats_paired.json").read_text())
ROWS = paired.Pairs(*np.array(GOLDEN["rows"]).T)


@pytest.mark.parametrize("data", GOLDEN["delong"], ids=["untied", "ten values", "two values"])
def test_both_areas_and_the_standard_error_agree_with_mlstatkit_with_and_without_ties(data):
    found = paired.auc(paired.Pairs(data["champion"], data["challenger"], data["label"], np.ones(len(data["label"]))))
    assert [found.champion, found.challenger] == pytest.approx(data["areas"], abs=1e-12)
    assert found.standard_error == pytest.approx(data["standard_error"], abs=1e-12)


def test_betting_on_groups_equals_betting_pair_by_pair_in_fifty_digits():
    assert paired.brier_harm(ROWS) == pytest.approx(GOLDEN["brier_harm"], abs=1e-12)
    assert paired.brier_harm(ROWS, null=0.02) == pytest.approx(GOLDEN["brier_harm_null"], abs=1e-12)
    assert paired.brier_noninferiority(ROWS, margin=0.05) == pytest.approx(GOLDEN["brier_noninferiority"], abs=1e-12)


def test_the_mean_difference_of_clipped_log_losses_equals_fifty_digits():
    many = paired.Pairs(ROWS.champion, ROWS.challenger, ROWS.label, 10 * ROWS.count)
    found = paired.loss_difference(many, paired.log_loss, tuned_at=100.0, alpha=0.05)
    mean, variance = GOLDEN["log_loss"]
    assert found.estimate == pytest.approx(mean, rel=1e-12)
    assert found.score.variance == pytest.approx(10 * variance, rel=1e-12)


def test_mcnemar_is_the_kernel_at_one_half_and_null_odds_move_its_null():
    assert paired.mcnemar(30, 12, margin=0.3).harm == pytest.approx(kernel.harm([30], [12], [0.5]), abs=1e-12)
    moved = paired.mcnemar(30, 12, margin=0.3, null_odds=1.4)
    assert moved.harm == pytest.approx(kernel.harm([30], [12], [0.5], null=1.4), abs=1e-12)
    half = kernel.noninferiority([30], [12], [0.5], margin=0.3)
    assert paired.mcnemar(30, 12, margin=0.3).noninferiority == pytest.approx(half, abs=1e-12)


@pytest.mark.parametrize(("n", "rate", "delta", "allowed"), GOLDEN["allowed"])
def test_the_certified_cut_off_lets_in_exactly_as_many_scores_as_exact_arithmetic_allows(n, rate, delta, allowed):
    scores = np.arange(n) / n
    cut_off = thresholds.certified_cut_off(scores, rate=rate, delta=delta)
    assert (scores >= cut_off).sum() == allowed
    assert (scores >= np.nextafter(cut_off, -math.inf)).sum() == allowed + 1


@pytest.mark.parametrize(("k", "n", "alpha", "low", "high"), GOLDEN["exact_limits"])
def test_limits_of_an_action_rate_are_those_at_which_a_binomial_tail_is_half_of_alpha(k, n, alpha, low, high):
    found = thresholds.action_rate([0.0] * (n - k) + [1.0] * k, 1.0, alpha=alpha)
    assert (found.estimate, found.low, found.high) == pytest.approx((k / n, low, high), rel=1e-10)


@pytest.mark.parametrize("plan", GOLDEN["limits"])
def test_limits_of_a_planned_test_agree_with_the_integration_of_gsdesign(plan):
    information, spending = plan["information"], getattr(horizon, plan["spending"])
    found = horizon.limits(information, maximum=information[-1], alpha=plan["alpha"], spending=spending)
    # The first limit of 5.7 spends 1e-8, of which the root is known to six digits only.
    assert found == pytest.approx(plan["limit"], abs=1e-6)


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        (horizon.obrien_fleming, [4.877, 3.357, 2.680, 2.290, 2.031]),
        (horizon.pocock, [2.438, 2.427, 2.410, 2.397, 2.386]),
    ],
)
def test_five_even_looks_have_the_published_limits_of_lan_and_demets(spending, published):
    found = horizon.limits([1, 2, 3, 4, 5], maximum=5, alpha=0.025, spending=spending)
    assert found == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize(
    ("limit", "name"), [(2.040 * np.sqrt(5 / np.arange(1, 6)), "O'Brien and Fleming"), (np.full(5, 2.413), "Pocock")]
)
def test_the_classical_limits_of_five_looks_spend_five_percent_on_both_sides(limit, name):
    # Jennison and Turnbull 2000, tables 2.1 and 2.3; both sides crossed by one path is rarer than 1e-5.
    assert 2 * horizon.crossing(limit, [1, 2, 3, 4, 5]).sum() == pytest.approx(0.05, abs=1e-4), name


def test_looks_at_a_fixed_limit_have_the_published_error():
    # Armitage, McPherson and Rowe 1969: five looks at 1.96 on both sides are an error of 14.2 %.
    assert 2 * horizon.crossing(np.full(5, 1.96), [1, 2, 3, 4, 5]).sum() == pytest.approx(0.142, abs=1e-3)
