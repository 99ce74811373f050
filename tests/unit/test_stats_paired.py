import math

import numpy as np
import pytest

from seatrial.stats import means, paired

NAN, INF = math.nan, math.inf
NOTHING = paired.Pairs([], [], [], [])
SAME = paired.Pairs([0.1, 0.9], [0.1, 0.9], [0, 1], [500, 500])
WORSE = paired.Pairs([0.1, 0.9, 0.8], [0.4, 0.6, 0.3], [0, 1, 0], [300, 100, 60])
TUNED = {"tuned_at": 10.0, "alpha": 0.05}


@pytest.mark.parametrize("label", [NAN, None, 2, -1, 0.5])
def test_a_label_that_is_not_known_is_refused_and_not_taken_as_zero(label):
    with pytest.raises(ValueError, match="it is not 0"):
        paired.Pairs([0.1], [0.1], [label], [1])


@pytest.mark.parametrize("score", [NAN, INF, -INF, None])
def test_a_score_that_is_not_finite_is_refused_in_either_release(score):
    for scores in ([score], [0.5]), ([0.5], [score]):
        with pytest.raises(ValueError, match="not finite"):
            paired.Pairs(*scores, [0], [1])


@pytest.mark.parametrize("count", [0, -1, 0.5, NAN])
def test_a_group_without_a_request_is_refused(count):
    with pytest.raises(ValueError, match="whole numbers"):
        paired.Pairs([0.1], [0.1], [0], [count])


@pytest.mark.parametrize("rows", [([0.1], [0.1], [0], [1, 1]), (0.1, 0.1, 0, 1), ([[0.1]], [[0.1]], [[0]], [[1]])])
def test_lists_of_unequal_length_are_refused(rows):
    with pytest.raises(ValueError, match="equal length"):
        paired.Pairs(*rows)


def test_pairs_cannot_be_changed_after_they_were_checked():
    with pytest.raises(ValueError, match="read-only"):
        SAME.label[0] = 1


def test_no_pair_is_evidence_of_nothing():
    assert paired.mcnemar(0, 0, margin=0.1) == paired.McNemar(0.0, 0.0)
    assert paired.brier_harm(NOTHING) == 0.0
    assert paired.brier_noninferiority(NOTHING, margin=0.1) == 0.0
    assert paired.auc(NOTHING) is None
    assert paired.auc_difference(NOTHING, **TUNED) is None
    for loss in (paired.brier, paired.log_loss):
        assert paired.loss_difference(NOTHING, loss, **TUNED) is None


def test_releases_that_agree_everywhere_have_no_variance_to_judge_by():
    assert paired.auc(SAME).difference == 0.0
    assert paired.auc_difference(SAME, **TUNED) is None
    assert paired.loss_difference(SAME, paired.brier, **TUNED) is None
    assert paired.brier_noninferiority(SAME, margin=0.01) > math.log(20)


def test_a_class_that_is_too_small_has_no_area():
    few = means.MINIMUM_UNITS - 1
    for ones, zeros in ((few, 900), (900, few)):
        assert paired.auc(paired.Pairs([0.2, 0.3], [0.2, 0.1], [1, 0], [ones, zeros])) is None
    enough = paired.Pairs([0.2, 0.3], [0.2, 0.1], [1, 0], [few + 1, 900])
    assert (paired.auc(enough).champion, paired.auc(enough).challenger) == (0.0, 1.0)


def test_few_pairs_that_moved_are_not_enough_for_limits():
    quiet = paired.Pairs([0.2, 0.7, 0.3], [0.2, 0.7, 0.1], [0, 1, 1], [500, 500, means.MINIMUM_NONZERO // 2])
    assert paired.auc(quiet).difference < 0
    assert paired.auc(quiet).moved > 0
    assert paired.loss_difference(quiet, paired.brier, **TUNED) is None


def test_harm_and_safety_are_never_both_shown():
    assert paired.brier_harm(WORSE) > math.log(20)
    assert paired.brier_noninferiority(WORSE, margin=0.02) < 0
    tested = paired.mcnemar(80, 20, margin=0.2)
    assert tested.harm > math.log(20)
    assert tested.noninferiority < 0


def test_the_challenger_is_the_one_whose_loss_counts_as_harm():
    better = paired.Pairs(WORSE.challenger, WORSE.champion, WORSE.label, WORSE.count)
    assert paired.brier_harm(better) < 0
    found = paired.loss_difference(better, paired.log_loss, **TUNED)
    assert found.estimate < 0
    assert paired.auc(better).difference == -paired.auc(WORSE).difference


def test_a_difference_answers_one_sided_questions_too():
    found = paired.loss_difference(WORSE, paired.brier, **TUNED)
    assert found.low < found.estimate < found.high
    assert found.low > 0
    assert means.log_e_above(found.score, tuned_at=10.0) > math.log(20)


def test_a_mistake_at_a_cut_off_is_the_challengers_when_the_champion_alone_is_right():
    pairs = paired.Pairs([0.5, 0.4, 0.5, 0.4], [0.7, 0.7, 0.6, 0.6], [1, 0, 0, 1], [1, 2, 4, 8])
    assert paired.wrong_alone(pairs, champion_cut_off=0.5, challenger_cut_off=0.7) == (2, 4)
    assert paired.wrong_alone(pairs, champion_cut_off=0.51, challenger_cut_off=0.6) == (6, 9)
    with pytest.raises(ValueError, match="finite"):
        paired.wrong_alone(pairs, champion_cut_off=NAN, challenger_cut_off=0.5)


def test_a_certain_mistake_costs_a_finite_log_loss():
    assert paired.log_loss(np.array([0.0, 1.0]), np.array([1, 0])) == pytest.approx([-math.log(paired.CLIP)] * 2)
    assert paired.log_loss(np.array([0.0, 1.0]), np.array([0, 1])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("score", [-0.1, 1.1, NAN])
def test_a_score_that_is_no_probability_has_no_loss_but_an_area(score):
    for loss in (paired.brier, paired.log_loss):
        with pytest.raises(ValueError, match="probabilities"):
            loss(np.array([score]), np.array([0]))
    margins = paired.Pairs([-3.0, 2.0], [7.0, 9.0], [0, 1], [60, 60])
    assert paired.auc(margins).champion == 1.0
    with pytest.raises(ValueError, match="probabilities"):
        paired.brier_harm(margins)


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0, NAN])
def test_without_a_margin_nothing_shows_that_the_challenger_is_not_worse(margin):
    with pytest.raises(ValueError, match="margin"):
        paired.brier_noninferiority(SAME, margin=margin)


@pytest.mark.parametrize("odds", [0.0, -1.0, NAN, INF])
def test_null_odds_and_null_losses_must_be_possible(odds):
    with pytest.raises(ValueError, match="null_odds"):
        paired.mcnemar(1, 1, margin=0.1, null_odds=odds)
    with pytest.raises(ValueError, match="margin"):
        paired.mcnemar(1, 1, margin=min(odds, 0.0))
    with pytest.raises(ValueError, match="null"):
        paired.brier_harm(SAME, null=-1.0 if odds == 0 else odds)


@pytest.mark.parametrize("count", [-1, 0.5, NAN])
def test_discordant_pairs_are_counts(count):
    for both in ((count, 1), (1, count)):
        with pytest.raises(ValueError, match="whole numbers"):
            paired.mcnemar(*both, margin=0.1)


@pytest.mark.parametrize(
    "tuning", [{"tuned_at": 0.0, "alpha": 0.05}, {"tuned_at": NAN, "alpha": 0.05}, {"tuned_at": 1.0, "alpha": 1.0}]
)
@pytest.mark.parametrize("pairs", [NOTHING, WORSE])
def test_a_plan_without_limits_is_refused_even_without_data(tuning, pairs):
    with pytest.raises(ValueError, match="tuned_at"):
        paired.loss_difference(pairs, paired.brier, **tuning)
    with pytest.raises(ValueError, match="tuned_at"):
        paired.auc_difference(pairs, **tuning)
