"""Numbers of mpmath, model-diagnostics, scikit-learn and uncertainty-calibration; make_stats_scores.py wrote them."""

import json
import math
from pathlib import Path

import pytest

from seatrial.stats import calibration, scores, shifts

GOLDEN = json.loads(Path(__file__).with_name("stats_scores.json").read_text())
GRID = scores.ScoreGrid(bins=10)
LABELS = GOLDEN["labelled"], GOLDEN["positive"], GRID


def test_the_evidence_of_a_shift_equals_fifty_digit_arithmetic():
    log_e = shifts.distribution_shift(GOLDEN["challenger"], GOLDEN["champion"], [0.1, 0.4], cut_points=[4, 6, 9])
    assert log_e == pytest.approx(GOLDEN["shift"], abs=1e-10)


def test_the_evidence_against_calibration_equals_fifty_digit_arithmetic():
    judged = [
        calibration.in_the_large(*LABELS, tolerance=0.1),
        *calibration.in_bands(*LABELS, tolerance=0.1, bands=[3, 7]),
    ]
    assert [part.log_e_more for part in judged] == pytest.approx(GOLDEN["more"], abs=1e-10)
    assert [part.log_e_less for part in judged] == pytest.approx(GOLDEN["less"], abs=1e-10)


def test_the_decomposition_is_that_of_model_diagnostics_and_the_curve_that_of_scikit_learn():
    parts, golden = calibration.decomposition(*LABELS), GOLDEN["decomposition"]
    for name in ("score", "miscalibration", "discrimination", "uncertainty"):
        assert getattr(parts, name) == pytest.approx(golden[name], abs=1e-12)
    assert parts.recalibrated.tolist() == pytest.approx(golden["curve"], abs=1e-12)


def test_the_debiased_error_is_that_of_its_authors():
    assert calibration.debiased_error(*LABELS) == pytest.approx(math.sqrt(GOLDEN["debiased_squared"]), abs=1e-12)
