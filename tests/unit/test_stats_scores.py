import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from seatrial.stats import calibration, shifts
from seatrial.stats.scores import ScoreGrid, ScoreProfile, collapses, deciles
from seatrial.stats.shifts import distribution_shift, effect_sizes

GRID = ScoreGrid(bins=20)
BELL = np.concatenate([[5, 0, 0], np.round(4000 * np.exp(-0.5 * ((np.arange(20) - 8) / 4.0) ** 2)), [0]])


def moved(counts, share, to):
    """Return the counts after a share of the scores has moved into one bin."""
    kept = np.round(counts * (1 - share))
    kept[to] += counts.sum() - kept.sum()
    return kept


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (math.nan, 0),
        (math.inf, 1),
        (-math.inf, 1),
        (-1e-300, 1),
        (1.0000001, 1),
        (0.0, 2),
        (-0.0, 2),
        (5e-324, 3),
        (0.0499, 3),
        (0.05, 4),
        (0.999, 22),
        (math.nextafter(1, 0), 22),
        (1.0, 23),
    ],
)
def test_every_score_has_one_bin_and_the_ends_stand_alone(value, index):
    assert GRID.index([value]).tolist() == [index]
    assert GRID.index(value).dtype == np.int64


def test_a_grid_keeps_the_range_of_its_contract():
    grid = ScoreGrid(low=-2, high=3, bins=5)
    assert grid.index([-2, -1.5, 0, 2.5, 3, 4]).tolist() == [2, 3, 5, 7, 8, 1]
    assert grid.lower()[2:].tolist() == [-2, -2, -1, 0, 1, 2, 3]
    assert grid.upper()[2:].tolist() == [-2, -1, 0, 1, 2, 3, 3]
    assert grid.middle()[2:].tolist() == [-2, -1.5, -0.5, 0.5, 1.5, 2.5, 3]
    assert np.isnan(grid.middle()[:2]).all()


def test_a_score_that_rounds_to_the_end_of_the_range_is_not_at_the_end():
    grid = ScoreGrid(low=-1.0, bins=20)
    below = math.nextafter(1.0, 0.0)
    assert (below + 1.0) / 2.0 == 1.0
    assert grid.index([below, 1.0]).tolist() == [22, 23]


@pytest.mark.parametrize("bad", [{"low": 1.0}, {"high": math.inf}, {"low": math.nan}, {"bins": 0}])
def test_a_grid_without_a_range_or_bins_is_refused(bad):
    with pytest.raises(ValueError, match="ScoreGrid: found"):
        ScoreGrid(**bad)


def test_a_profile_counts_what_has_no_score_apart_from_what_has_one():
    profile = ScoreProfile.of([[2, 1, 0, 3, 0, 0], [0, 0, 1, 3, 0, 0]])
    assert (profile.units, profile.scored, profile.distinct) == (10, 7, 2)
    assert (profile.missing_share, profile.outside_share) == (0.2, 0.1)
    assert (profile.lowest_share, profile.highest_share, profile.modal_share) == (1 / 7, 0, 6 / 7)
    assert profile.entropy == pytest.approx(-(1 / 7 * math.log(1 / 7) + 6 / 7 * math.log(6 / 7)) / math.log(4))


def test_no_unit_has_no_profile_and_no_score_has_no_shape():
    assert ScoreProfile.of(np.zeros(24)) is None
    profile = ScoreProfile.of([7, 0, 0, 0, 0, 0])
    assert (profile.missing_share, profile.scored, profile.distinct) == (1.0, 0, 0)
    assert math.isnan(profile.modal_share)
    assert math.isnan(profile.entropy)


@pytest.mark.parametrize(
    ("challenger", "words"),
    [
        (moved(BELL, 0.9, 10), "are in one bin"),
        (moved(BELL, 0.08, 2), "exactly the lowest possible"),
        (moved(BELL, 0.08, 23), "exactly the highest possible"),
        (moved(BELL, 0.08, 0), "have no score"),
        (moved(BELL, 0.001, 1), "outside the contract"),
        (np.where(np.isin(np.arange(24), [6, 9, 11, 13, 15]), 4000, 0), "occupy 5 bins"),
        (np.where(np.isin(np.arange(24), [9, 10, 11]), 9000, 0), "the entropy of the scores"),
    ],
)
def test_each_kind_of_collapse_is_named(challenger, words):
    assert any(words in finding for finding in collapses(challenger, BELL))


def test_equal_scores_and_few_scores_are_told_apart():
    assert collapses(BELL, BELL) == []
    assert collapses(np.zeros(24), BELL) is None
    assert collapses(BELL, np.zeros(24)) is None
    assert collapses(np.round(BELL / 100), BELL) is None


def test_a_challenger_that_never_answers_is_found_although_it_has_no_shape():
    silent = np.zeros(24)
    silent[0] = 1000
    assert collapses(silent, BELL) == ["100.0% of the units have no score; of the champion's 0.0%"]
    assert collapses(silent, silent) is None


def test_one_forbidden_score_is_a_finding_however_few_units_there_are():
    one = np.zeros(24)
    one[[1, 9]] = 1, 30
    assert len(collapses(one, BELL)) == 1
    assert len(collapses(one, np.zeros(24))) == 1


def test_a_smaller_challenger_is_not_blamed_for_occupying_fewer_bins():
    wide = np.concatenate([[0, 0, 0], 1e6 / (1 + np.arange(4996.0)) ** 2 // 1, [0]])
    part = np.random.default_rng(1).multinomial(600, wide / wide.sum())
    assert (part > 0).sum() < 0.5 * (wide > 0).sum()
    assert collapses(part, wide) == []


def test_deciles_hold_a_tenth_each_and_a_constant_score_stands_alone():
    cuts = deciles(BELL)
    held = np.add.reduceat(BELL[3:23], np.array([3, *cuts]) - 3) / BELL[3:23].sum()
    assert held.sum() == pytest.approx(1)
    assert held.max() < 0.2
    assert {14, 15} <= set(deciles(moved(BELL, 0.3, 14)))
    with pytest.raises(ValueError, match="no score strictly inside"):
        deciles(np.zeros(24))


@pytest.mark.parametrize("cuts", [[3], [5, 5], [7, 6], [23], [4.5], [math.nan]])
def test_cut_points_that_divide_nothing_are_refused(cuts):
    with pytest.raises(ValueError, match="cut_points: found"):
        distribution_shift([BELL], [BELL], [0.5], cut_points=cuts)


@pytest.mark.parametrize(
    ("challenger", "rho"),
    [
        ([BELL], [0.0]),
        ([BELL], [math.nan]),
        ([BELL], [0.1, 0.1]),
        (BELL, [0.1]),
        ([BELL[:-1]], [0.1]),
        ([-BELL], [0.1]),
    ],
)
def test_what_is_no_count_or_no_probability_is_refused(challenger, rho):
    with pytest.raises(ValueError, match="distribution_shift"):
        distribution_shift(challenger, [BELL], rho, cut_points=[10])


def test_no_unit_is_no_evidence_of_a_shift():
    nothing = np.zeros((2, 24))
    assert distribution_shift(nothing, nothing, [0.1, 0.5], cut_points=[]) == pytest.approx(0.0, abs=1e-12)
    assert effect_sizes(np.zeros(24), BELL, GRID, cut_points=[]) is None
    only_champion, only_challenger = np.stack([BELL, 0 * BELL]), np.stack([0 * BELL, BELL])
    assert effect_sizes(only_challenger, only_champion, GRID, cut_points=[]) is None


def test_leading_axes_are_hypotheses():
    first, second = np.stack([BELL, BELL]), np.stack([moved(BELL, 0.2, 5), BELL])
    both = distribution_shift([first, second], [first, first], [0.3, 0.5], cut_points=[8, 12])
    each = [distribution_shift(counts, first, [0.3, 0.5], cut_points=[8, 12]) for counts in (first, second)]
    assert both.tolist() == pytest.approx(each)


def test_effect_sizes_are_those_of_scipy():
    other = moved(BELL, 0.1, 15)
    shift = effect_sizes(other, BELL, GRID, cut_points=range(4, 23))
    occupied = BELL + other > 0
    weight = other.sum() * BELL.sum() / (other.sum() + BELL.sum())
    p, q = (weight * k[occupied] / k.sum() + 1 / occupied.sum() for k in (other, BELL))
    assert shift.jensen_shannon == pytest.approx(jensenshannon(p, q) ** 2)
    assert shift.wasserstein == pytest.approx(
        wasserstein_distance(GRID.middle()[2:], GRID.middle()[2:], other[2:], BELL[2:])
    )
    mean = [float(k[2:] @ GRID.middle()[2:] / k[2:].sum()) for k in (other, BELL)]
    assert shift.mean_difference == pytest.approx(mean[0] - mean[1])


def test_drift_under_a_ramp_is_no_distance():
    early, late = moved(BELL, 0.5, 5), moved(BELL, 0.5, 17)
    shift = effect_sizes([early, 9 * late], [9 * early, late], GRID, cut_points=deciles(BELL))
    assert shift.psi == pytest.approx(0, abs=1e-6)
    assert shift.wasserstein == pytest.approx(0, abs=1e-12)


def test_counts_of_another_grid_are_refused():
    with pytest.raises(ValueError, match="expected the 24 of the grid"):
        effect_sizes(np.ones(25), np.ones(25), GRID, cut_points=[])


EMPTY = np.zeros(24)
FULL = np.full(24, 100.0)


def test_no_label_is_no_evidence_of_calibration():
    nothing = calibration.in_the_large(EMPTY, EMPTY, GRID, tolerance=0.0)
    assert (nothing.log_e_more, nothing.log_e_less) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert (nothing.labelled, nothing.positive, nothing.excluded) == (0, 0, 0)
    assert calibration.decomposition(EMPTY, EMPTY, GRID) is None
    assert calibration.debiased_error(EMPTY, EMPTY, GRID) is None


def test_missing_and_forbidden_scores_are_counted_and_judge_nothing():
    labelled, positive = EMPTY.copy(), EMPTY.copy()
    labelled[:2], positive[:2] = 1000, 1000
    judged = calibration.in_the_large(labelled, positive, GRID, tolerance=0.0)
    assert (judged.labelled, judged.excluded) == (0, 2000)
    assert (judged.log_e_more, judged.log_e_less) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert calibration.decomposition(labelled, positive, GRID) is None
    assert calibration.debiased_error(labelled, positive, GRID) is None


def test_positives_at_a_score_of_exactly_zero_are_strong_and_finite_evidence():
    labelled, positive = EMPTY.copy(), EMPTY.copy()
    labelled[[2, 23]], positive[[2, 23]] = 100, [3, 97]
    judged = calibration.in_the_large(labelled, positive, GRID, tolerance=0.0)
    assert 10 < judged.log_e_more < math.inf
    assert judged.log_e_less == pytest.approx(judged.log_e_more)


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf])
def test_a_tolerance_that_is_no_distance_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance: found"):
        calibration.in_the_large(FULL, EMPTY, GRID, tolerance=tolerance)


@pytest.mark.parametrize(
    ("labelled", "positive", "grid"),
    [
        (FULL, FULL + 1, GRID),
        (FULL[:-1], FULL[:-1], GRID),
        (FULL, FULL * math.nan, GRID),
        (FULL, FULL, ScoreGrid(high=2.0, bins=20)),
        (FULL, FULL, ScoreGrid(low=-1.0, bins=20)),
    ],
)
def test_labels_that_do_not_fit_a_probability_are_refused(labelled, positive, grid):
    for question in (calibration.decomposition, calibration.debiased_error):
        with pytest.raises(ValueError, match=question.__name__):
            question(labelled, positive, grid)
    with pytest.raises(ValueError, match="in_the_large"):
        calibration.in_the_large(labelled, positive, grid, tolerance=0.0)


@pytest.mark.parametrize("bands", [[2], [8, 8], [9, 5], [24]])
def test_an_empty_band_is_refused(bands):
    with pytest.raises(ValueError, match=r"in_bands\.bands"):
        calibration.in_bands(FULL, EMPTY, GRID, tolerance=0.0, bands=bands)


def test_bands_divide_the_labels_and_name_their_scores():
    bands = calibration.in_bands(FULL, FULL / 2, GRID, tolerance=0.1, bands=[7, 13])
    assert [(round(b.low, 9), round(b.high, 9)) for b in bands] == [(0, 0.2), (0.2, 0.5), (0.5, 1)]
    assert sum(b.labelled for b in bands) == 2200
    assert [b.excluded for b in bands] == [200] * 3
    whole = calibration.in_bands(FULL, FULL / 2, GRID, tolerance=0.1, bands=[])
    assert whole == (calibration.in_the_large(FULL, FULL / 2, GRID, tolerance=0.1),)


def test_bins_of_a_single_label_say_nothing_about_the_error():
    labelled, positive = EMPTY.copy(), EMPTY.copy()
    labelled[[5, 10]], positive[10] = [1, 50], 20
    alone = labelled.copy()
    alone[5] = 0
    assert calibration.debiased_error(labelled, positive, GRID) == calibration.debiased_error(alone, positive, GRID)


def test_the_question_of_the_scores_is_the_same_for_positives_and_negatives():
    rng = np.random.default_rng(2)
    labelled = rng.integers(0, 90, 24).astype(float)
    positive = rng.binomial(labelled.astype(int), 0.4).astype(float)
    mirrored = np.concatenate([[0, 1], np.arange(23, 1, -1)])
    here = calibration.in_the_large(labelled, positive, GRID, tolerance=0.2)
    there = calibration.in_the_large(labelled[mirrored], (labelled - positive)[mirrored], GRID, tolerance=0.2)
    assert there.log_e_less == pytest.approx(here.log_e_more)
    assert there.log_e_more == pytest.approx(here.log_e_less)


def test_constants_of_the_alternatives_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        shifts._BIN_TILTS[0] = 1.0  # noqa: SLF001 - a constant array is not constant by itself
