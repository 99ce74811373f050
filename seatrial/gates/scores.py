"""Whether the challenger's scores have collapsed, moved, or lost touch with their outcomes.

A moved score is no harm: it explains what the guardrails find, and says early that something was rewired. A collapse is
read off the counts and has no error rate; a shift and a miscalibration spend the hold budget, each its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seatrial.gates.finding import Finding, Question
from seatrial.stats import calibration as calibrated
from seatrial.stats.scores import MINIMUM_UNITS, ScoreGrid, collapses, deciles
from seatrial.stats.shifts import distribution_shift, effect_sizes
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from seatrial.evidence import ArmHistogram, Evidence, Histograms
    from seatrial.plan import Plan, Scores
    from seatrial.stats.calibration import Calibration


def scores(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return what is found on the score of a challenger that serves; nothing when the plan asks nothing."""
    if plan.scores is None:
        return []
    grid = ScoreGrid(*plan.scores.range)
    counts = evidence.histograms(grid.size)
    cuts = _cut_points(evidence, grid)
    found = [
        _collapse(Question.SCORES, counts.challenger.units, counts.champion.units, is_binding=_is_binding(plan.scores)),
        _shift(counts, cuts, plan.scores, grid, alpha=plan.budgets.hold),
    ]
    if plan.scores.label is not None:
        found += _calibration(evidence, plan, plan.scores, grid, counts.challenger, cuts)
    return found


def shadow_scores(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return whether the score collapsed on copies of requests, which nobody needs to be exposed to in order to see."""
    if plan.scores is None:
        return []
    grid = ScoreGrid(*plan.scores.range)
    champion, challenger = np.zeros(grid.size, dtype=np.int64), np.zeros(grid.size, dtype=np.int64)
    for pair, count in evidence.pairs.items():
        champion[pair.champion] += count
        challenger[pair.challenger] += count
    return [_collapse(Question.SHADOW, challenger, champion, is_binding=True)]


def _calibration(
    evidence: Evidence, plan: Plan, asked: Scores, grid: ScoreGrid, units: ArmHistogram, bands: Sequence[int]
) -> list[Finding]:
    """Return one finding on all units of the challenger, one on each slice and one on its bands of scores.

    Half of the hold budget is on all units, half evenly on slices and bands; both directions share a part.
    """
    alpha = plan.budgets.hold
    parts = [(column, value) for column in asked.slices for value in plan.slices[column]]
    shared = alpha / 2.0 / (len(parts) + len(bands) + 1)
    labels = units.labelled.sum(axis=0), units.positive.sum(axis=0)
    whole = calibrated.in_the_large(*labels, grid, tolerance=asked.tolerance)
    found = [_calibrated("score", whole, asked, alpha=alpha / 2.0)]
    for column, value in parts:
        one = evidence.histograms(grid.size, column, value).challenger
        part = calibrated.in_the_large(
            one.labelled.sum(axis=0), one.positive.sum(axis=0), grid, tolerance=asked.tolerance
        )
        found.append(_calibrated(f"score · {column}={value}", part, asked, alpha=shared))
    banded = calibrated.in_bands(*labels, grid, tolerance=asked.tolerance, bands=bands) if bands else ()
    return [
        *found,
        *(_calibrated(f"score · {band.low:g} to {band.high:g}", band, asked, alpha=shared) for band in banded),
    ]


def _is_binding(asked: Scores) -> bool:
    return asked.consequence == "freeze"


def _cut_points(evidence: Evidence, grid: ScoreGrid) -> tuple[int, ...]:
    """Return the champion's deciles before the rollout, or nothing when it has no score in its range there."""
    reference = np.zeros(grid.size, dtype=np.int64)
    for at, count in (evidence.frozen.scores if evidence.frozen else {}).items():
        reference[at] = count
    return deciles(reference) if reference[3:-1].any() else ()


def _collapse(
    question: Question, challenger: NDArray[np.int64], champion: NDArray[np.int64], *, is_binding: bool
) -> Finding:
    found = collapses(challenger, champion)
    numbers: dict[str, float | int | str | None] = {
        "challenger_scored": int(challenger.sum()),
        "champion_scored": int(champion.sum()),
    }
    if found is None:
        reason = f"too few scores to tell a collapse; expected {MINIMUM_UNITS} of each release"
        return Finding(question, "score collapse", Verdict.INCONCLUSIVE, reason, numbers, is_binding=is_binding)
    verdict = Verdict.FAIL if found else Verdict.PASS
    reason = "; ".join(found) or "the scores are as varied as the champion's"
    return Finding(question, "score collapse", verdict, reason, numbers, is_binding=is_binding)


def _shift(counts: Histograms, cuts: Sequence[int], asked: Scores, grid: ScoreGrid, *, alpha: float) -> Finding:
    arms = counts.challenger.units, counts.champion.units
    subject, is_binding = "score distribution", _is_binding(asked)
    sizes = effect_sizes(*arms, grid, cut_points=cuts) if cuts and counts.rho.size else None
    if sizes is None:
        reason = "nothing to compare: the champion has no scores before the rollout, or an arm has none in it"
        return Finding(Question.SCORES, subject, Verdict.INCONCLUSIVE, reason, is_binding=is_binding)
    log_e = float(distribution_shift(*arms, counts.rho, cut_points=cuts))
    has_moved = log_e >= math.log(1.0 / alpha)
    seen = (
        f"mean score {sizes.mean_difference:+.3g}, PSI {sizes.psi:.3f} where {sizes.psi_null_mean:.3f} is chance,"
        f" Wasserstein {sizes.wasserstein:.3g}"
    )
    return Finding(
        Question.SCORES,
        subject,
        Verdict.FAIL if has_moved else Verdict.INCONCLUSIVE,
        f"the score is distributed differently from the champion's: {seen}" if has_moved else seen,
        {
            "mean_difference": sizes.mean_difference,
            "psi": sizes.psi,
            "psi_null_mean": sizes.psi_null_mean,
            "jensen_shannon": sizes.jensen_shannon,
            "wasserstein": sizes.wasserstein,
            "log_e": log_e,
            "threshold": math.log(1.0 / alpha),
        },
        is_binding=is_binding,
    )


def _calibrated(subject: str, found: Calibration, asked: Scores, *, alpha: float) -> Finding:
    log_e = max(found.log_e_more, found.log_e_less)
    needed = math.log(2.0 / alpha)
    is_off = log_e >= needed
    seen = f"{found.positive:,} positives among {found.labelled:,} labels"
    often = "more" if found.log_e_more >= found.log_e_less else "less"
    return Finding(
        Question.CALIBRATION,
        subject,
        Verdict.FAIL if is_off else Verdict.INCONCLUSIVE,
        f"{subject}: outcomes are {often} frequent than scored: {seen}" if is_off else f"{subject}: {seen}",
        {
            "labelled": found.labelled,
            "positive": found.positive,
            "excluded": found.excluded,
            "log_e": log_e,
            "threshold": needed,
        },
        is_binding=_is_binding(asked),
    )
