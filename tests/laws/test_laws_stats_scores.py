import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binom

from seatrial.stats import calibration, scores, shifts

law = settings(deadline=None, max_examples=60, derandomize=True)
GRID = scores.ScoreGrid(bins=6)
counts = st.lists(st.integers(0, 60), min_size=GRID.size, max_size=GRID.size).map(np.array)
score = st.one_of(
    st.floats(-0.5, 1.5), st.sampled_from([math.nan, math.inf, 0.0, 1.0, 1 / 6, math.nextafter(0.5, 0), 5e-324])
)
grids = st.builds(scores.ScoreGrid, low=st.floats(-3, 0), high=st.floats(0.1, 5), bins=st.integers(1, 200))


@law
@given(grids, st.lists(score, max_size=20))
def test_every_score_lies_between_the_edges_of_its_bin(grid, values):
    for value, index in zip(values, grid.index(values), strict=True):
        if index > scores.OUTSIDE:
            assert grid.lower()[index] - 1e-12 <= value <= grid.upper()[index] + 1e-12
        else:
            assert not grid.low <= value <= grid.high


@law
@given(grids, st.lists(st.floats(-3, 5), min_size=2, max_size=20))
def test_a_higher_score_is_in_no_lower_bin(grid, values):
    allowed = np.sort([value for value in values if grid.low <= value <= grid.high])
    assert (np.diff(grid.index(allowed)) >= 0).all()


@law
@given(
    st.lists(st.integers(0, 2), min_size=10, max_size=10).map(np.array),
    st.lists(st.integers(0, 1), min_size=10, max_size=10).map(np.array),
    st.floats(0.01, 0.9),
    st.floats(0.01, 0.9),
)
def test_over_all_assignments_the_evidence_of_a_shift_is_one_on_average(early, late, rho, later_rho):
    units, shares = np.stack([early, late]), np.array([rho, later_rho])
    occupied = np.argwhere(units)[:6]
    kept = np.zeros_like(units)
    kept[tuple(occupied.T)] = units[tuple(occupied.T)]
    arms = np.array(list(product(*(range(kept[tuple(at)] + 1) for at in occupied))), dtype=int)
    k1 = np.zeros((len(arms), *kept.shape))
    k1[:, occupied[:, 0], occupied[:, 1]] = arms.reshape(len(arms), len(occupied))
    probability = binom.pmf(k1, kept, shares[:, None]).prod(axis=(-1, -2))
    log_e = shifts.distribution_shift(k1, kept - k1, shares, cut_points=[5, 7])
    assert probability @ np.exp(log_e) == pytest.approx(1.0)


@law
@given(counts, counts, counts, counts)
def test_evidence_does_not_depend_on_where_an_epoch_with_one_share_is_divided(a, b, c, d):
    divided = shifts.distribution_shift([a, b], [c, d], [0.2, 0.2], cut_points=[5])
    whole = shifts.distribution_shift([a + b], [c + d], [0.2], cut_points=[5])
    assert divided == pytest.approx(whole, abs=1e-8)


@law
@given(counts, counts, st.permutations([3, 4, 5]))
def test_scores_within_a_super_bin_are_alike(a, b, order):
    mixed = np.array([0, 1, 2, *order, 6, 7, 8, 9])
    here = shifts.distribution_shift([a], [b], [0.3], cut_points=[6])
    assert shifts.distribution_shift([a[mixed]], [b[mixed]], [0.3], cut_points=[6]) == pytest.approx(here)


@law
@given(counts, counts)
def test_sizes_are_not_negative_and_do_not_know_which_arm_is_which(a, b):
    shift = shifts.effect_sizes(a, b, GRID, cut_points=[4, 6])
    back = shifts.effect_sizes(b, a, GRID, cut_points=[4, 6])
    if shift is None:
        assert back is None
        return
    assert min(shift.psi, shift.jensen_shannon, shift.wasserstein) >= 0
    assert shift.jensen_shannon <= math.log(2)
    assert abs(shift.mean_difference) <= shift.wasserstein + 1e-12
    assert (back.psi, back.jensen_shannon, back.wasserstein) == pytest.approx(
        (shift.psi, shift.jensen_shannon, shift.wasserstein), abs=1e-12
    )


@law
@given(counts.filter(lambda k: k[3:-1].sum() > 0))
def test_deciles_are_cut_points_of_super_bins_that_hold_less_than_two_tenths_or_stand_alone(reference):
    cuts = scores.deciles(reference)
    starts = np.array([3, *cuts])
    held = np.add.reduceat(reference[:-1], starts)
    width = np.diff([*starts, reference.size - 1])
    assert (held[width > 1] < 0.2 * reference[3:-1].sum() + 1e-9).all()
    assert (shifts.distribution_shift([reference], [reference], [0.5], cut_points=cuts)) <= 0


labels = st.lists(st.integers(0, 3), min_size=4, max_size=4)
place = st.floats(0, 1)


@law
@given(labels, st.lists(place, min_size=4, max_size=4), st.lists(place, min_size=4, max_size=4), st.floats(0, 0.5))
def test_over_all_labels_that_the_null_allows_the_evidence_is_at_most_one_on_average(labelled, where, slack, tolerance):
    grid = scores.ScoreGrid(bins=4)
    lower, upper = grid.lower()[3:7], grid.upper()[3:7]
    scored = np.clip(lower + np.array(where) * (upper - lower), lower, upper)
    n = np.array(labelled)
    outcomes = np.array(list(product(*(range(most + 1) for most in n))))
    for direction, name in ((1, "log_e_more"), (-1, "log_e_less")):
        # In this direction the null allows every probability up to the score plus the tolerance.
        with np.errstate(divide="ignore"):
            rate = expit(logit(scored) + direction * (tolerance - 3 * np.array(slack) * (np.array(slack) > 0.5)))
        probability = binom.pmf(outcomes, n, rate).prod(axis=-1)
        e = [
            math.exp(
                getattr(calibration.in_the_large([0, 0, 0, *n, 0], [0, 0, 0, *k, 0], grid, tolerance=tolerance), name)
            )
            for k in outcomes
        ]
        assert probability @ np.array(e) <= 1 + 1e-9


@law
@given(counts, st.data(), st.floats(0, 0.4), st.floats(0, 0.4))
def test_more_tolerance_is_never_more_evidence_of_a_single_bin(labelled, data, tolerance, more):
    alone = np.zeros(GRID.size)
    alone[5] = labelled[5]
    positive = np.zeros(GRID.size)
    positive[5] = data.draw(st.integers(0, int(labelled[5])))
    strict = calibration.in_the_large(alone, positive, GRID, tolerance=tolerance)
    lenient = calibration.in_the_large(alone, positive, GRID, tolerance=tolerance + more)
    if strict.log_e_more > 0:
        assert lenient.log_e_more <= strict.log_e_more + 1e-9
    if strict.log_e_less > 0:
        assert lenient.log_e_less <= strict.log_e_less + 1e-9


@law
@given(counts, st.data())
def test_the_brier_score_is_the_sum_of_its_parts_and_recalibrating_twice_changes_nothing(labelled, data):
    positive = np.array([data.draw(st.integers(0, int(n))) for n in labelled])
    parts = calibration.decomposition(labelled, positive, GRID)
    if parts is None:
        assert labelled[2:].sum() == 0
        return
    assert parts.score == pytest.approx(parts.miscalibration - parts.discrimination + parts.uncertainty)
    assert min(parts.miscalibration, parts.discrimination) >= -1e-12
    assert (np.diff(parts.recalibrated) >= -1e-12).all()
    assert parts.labelled @ parts.recalibrated == pytest.approx(positive[2:].sum())
