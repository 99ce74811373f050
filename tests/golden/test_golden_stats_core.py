"""Numbers of mpmath, savvi, online-fdr and statsmodels; make_stats_core.py beside this file wrote them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import logrank

from seatrial.stats import exceedance, kernel, maturity, means, multiplicity, srm

GOLDEN = json.loads(Path(__file__).with_name("stats_core.json").read_text())
K1, K0, RHO = [4, 40], [300, 350], [0.01, 0.1]


def test_the_published_example_of_the_kernel_is_reproduced():
    grid = kernel.RatioPrior(np.linspace(math.log(1.1), math.log(4), 24), np.full(24, 1 / 24))
    assert kernel.harm(K1, K0, RHO, prior=grid) == pytest.approx(-1.98778302638633, abs=1e-12)
    assert kernel.harm(K1, K0, RHO, prior=grid) == pytest.approx(GOLDEN["harm_uniform"], abs=1e-12)


def test_harm_equals_fifty_digit_arithmetic():
    assert kernel.harm(K1, K0, RHO) == pytest.approx(GOLDEN["harm_half_normal"], abs=1e-12)
    assert kernel.harm(K1, K0, RHO, null=0.8) == pytest.approx(GOLDEN["harm_tolerance"], abs=1e-12)


def test_harm_with_late_onsets_counts_future_stages_as_one():
    staged = kernel.harm(K1, K0, RHO, stage=[0, 1], stages=5)
    assert staged == pytest.approx(GOLDEN["harm_five_stages"], abs=1e-12)


def test_harm_of_all_equals_fifty_digit_arithmetic():
    log_e = kernel.harm_of_all(K1, K0, [400, 4000], [39000, 34000], RHO, rate=0.3)
    assert log_e == pytest.approx(GOLDEN["harm_of_all"], abs=1e-9)


def test_noninferiority_equals_fifty_digit_arithmetic():
    log_e = kernel.noninferiority(K1, K0, RHO, margin=0.5)
    assert log_e == pytest.approx(GOLDEN["noninferiority"], abs=1e-12)


def test_ratio_and_its_interval_equal_fifty_digit_arithmetic():
    assert kernel.ratio_estimate(K1, K0, RHO) == pytest.approx(GOLDEN["estimate"], rel=1e-11)
    assert kernel.ratio_interval(K1, K0, RHO, alpha=0.05) == pytest.approx(GOLDEN["interval"], rel=1e-11)


def test_odds_tilt_is_the_mean_over_seven_tilts_in_both_directions():
    assert srm.odds_tilt(K1, K0, RHO) == pytest.approx(GOLDEN["odds_tilt"], abs=1e-12)


def test_dirichlet_multinomial_agrees_with_fifty_digits_and_with_savvi():
    two = srm.dirichlet_multinomial([1117, 8883], [0.1, 0.9], 100)
    assert two == pytest.approx(GOLDEN["dirichlet"], abs=1e-9)
    assert two == pytest.approx(GOLDEN["dirichlet_savvi"], abs=1e-9)
    three = srm.dirichlet_multinomial([510, 290, 200], [0.5, 0.25, 0.25], 1000)
    assert three == pytest.approx(GOLDEN["dirichlet_three_savvi"], abs=1e-9)


def test_the_asymptotic_sequence_equals_the_formula_of_the_paper():
    score = means.Score(40.0, 120.0, 300.0)
    low, high = means.interval(score, tuned_at=100.0, alpha=0.05)
    assert (high - low) / 2 == pytest.approx(GOLDEN["asymptotic_radius"], rel=1e-12)
    log_e = means.log_e_above(score, tuned_at=100.0, alpha=0.05)
    assert log_e == pytest.approx(GOLDEN["asymptotic_log_e"], rel=1e-12)


@pytest.mark.parametrize("index", range(4))
def test_families_of_hypotheses_agree_with_a_search_over_all_sets_and_with_online_fdr(index):
    e = np.array(GOLDEN["families"][index])
    with np.errstate(divide="ignore"):
        log_e = np.log(e)
    assert np.exp(multiplicity.holm(log_e)) == pytest.approx(GOLDEN["closed_mean"][index], rel=1e-12)
    assert multiplicity.benjamini_hochberg(log_e, alpha=0.05).tolist() == GOLDEN["ebh"][index]
    assert multiplicity.closed_benjamini_hochberg(log_e, alpha=0.05).tolist() == GOLDEN["closed_ebh"][index]


def test_the_reverse_product_limit_is_a_left_truncated_survival_seen_backwards():
    data = GOLDEN["maturity"]
    curve = maturity.reverse_product_limit(data["delay"], data["elapsed"])
    assert curve.at(data["reverse_times"]) == pytest.approx(data["reverse_before_next"], abs=1e-12)


def test_the_cured_curve_agrees_with_statsmodels():
    data = GOLDEN["maturity"]
    curve = maturity.cured_kaplan_meier(data["duration"], data["seen"])
    assert curve.at(data["cured_times"]) == pytest.approx(data["cured_shares"], abs=1e-12)


def test_delay_equality_agrees_with_statsmodels_in_strata_with_ties():
    data = GOLDEN["maturity"]
    result = maturity.delay_equality(data["tied"], data["arm"], data["epoch"])
    assert result.z**2 == pytest.approx(data["log_rank_chi2"], rel=1e-12)
    assert result.p_value == pytest.approx(data["log_rank_p"], rel=1e-9)


def test_delay_equality_in_one_epoch_agrees_with_scipy():
    data = GOLDEN["maturity"]
    delay, arm = np.array(data["delay"]), np.array(data["arm"])
    result = maturity.delay_equality(delay, arm, np.zeros(delay.size))
    expected = logrank(delay[arm], delay[~arm])
    assert result.z == pytest.approx(expected.statistic, rel=1e-9)
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_betting_multiplies_one_plus_stake_times_surplus():
    wealth = means.bets([0.9, 0.1], low=0.0, high=1.0, null=0.4)
    expected = [(1 + s / 0.4 * 0.5) * (1 - s / 0.4 * 0.3) for s in means.STAKES]
    assert np.exp(wealth) == pytest.approx(expected, rel=1e-12)
    assert means.bet_log_e(wealth) == pytest.approx(math.log(np.mean(expected)), abs=1e-12)


def test_a_frozen_quantile_is_an_order_statistic():
    assert exceedance.freeze_quantile(np.arange(1, 1001), 0.99) == 990
    assert exceedance.exceedances(np.arange(1, 1001), 990) == 10
