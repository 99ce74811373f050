"""Whether the challenger is as good as the champion on the same requests, while nobody acts on its answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seatrial.gates.finding import Finding, Question
from seatrial.stats import paired
from seatrial.stats.scores import ScoreGrid
from seatrial.stats.thresholds import expected_rates
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from seatrial.evidence import Evidence
    from seatrial.plan import Plan, Shadow

#: Pairs at which the limits of the AUC are tightest, and n SE^2 of a difference that a reader would care about.
_PLANNED_PAIRS, _PLANNED_SPREAD = 1_000.0, 0.1


def paired_losses(evidence: Evidence, plan: Plan, stage: Shadow) -> list[Finding]:
    """Return one finding on the Brier loss of matured pairs, by scores rounded to the grid; none when not asked.

    FAIL when the challenger's loss is proven greater, PASS when an increase by the plan's bound is ruled out; both at
    ``budgets.promote``, by exact bets on the difference of each pair. The AUC is shown and decides nothing.
    """
    if plan.scores is None or stage.max_brier_increase is None:
        return []
    pairs = _labelled(evidence, ScoreGrid(*plan.scores.range))
    bound, needed = stage.max_brier_increase, math.log(1.0 / plan.budgets.promote)
    if pairs is None:
        reason = "no pair of scores has a matured label yet"
        return [Finding(Question.SHADOW, "brier loss", Verdict.INCONCLUSIVE, reason)]
    worse, not_worse = paired.brier_harm(pairs), paired.brier_noninferiority(pairs, margin=bound)
    difference = float(
        (paired.brier(pairs.challenger, pairs.label) - paired.brier(pairs.champion, pairs.label))
        @ pairs.count
        / pairs.count.sum()
    )
    areas = paired.auc(pairs)
    seen = f"{difference:+.4f} over {int(pairs.count.sum()):,} requests"
    numbers: dict[str, float | int | str | None] = {
        "pairs": int(pairs.count.sum()),
        "brier_difference": difference,
        **_areas(pairs, areas, alpha=plan.budgets.promote),
    }
    if worse >= needed:
        reason = f"the Brier loss is greater than the champion's: {seen}"
        return [Finding(Question.SHADOW, "brier loss", Verdict.FAIL, reason, {**numbers, "log_e": worse})]
    is_shown = not_worse >= needed
    reason = f"Brier loss {seen}; an increase of {bound:g} is {'ruled out' if is_shown else 'not ruled out yet'}"
    verdict = Verdict.PASS if is_shown else Verdict.INCONCLUSIVE
    return [Finding(Question.SHADOW, "brier loss", verdict, reason, {**numbers, "log_e": not_worse})]


def _labelled(evidence: Evidence, grid: ScoreGrid) -> paired.Pairs | None:
    """Return the pairs with a label whose scores are both in the range; None when there are none."""
    middle = grid.middle()
    rows = [
        (middle[pair.champion], middle[pair.challenger], pair.label, count)
        for pair, count in evidence.pairs.items()
        if pair.label >= 0 and min(pair.champion, pair.challenger) > 1
    ]
    return paired.Pairs(*np.array(rows, dtype=np.float64).T) if rows else None


def _areas(pairs: paired.Pairs, areas: paired.Auc | None, *, alpha: float) -> dict[str, float]:
    if areas is None:
        return {}
    shown = {"champion_auc": areas.champion, "challenger_auc": areas.challenger}
    found = paired.auc_difference(pairs, tuned_at=_PLANNED_PAIRS * _PLANNED_SPREAD, alpha=alpha)
    return shown if found is None else {**shown, "auc_difference_low": found.low, "auc_difference_high": found.high}


def advice(evidence: Evidence, plan: Plan, *, cut_off: float | None) -> list[Finding]:
    """Return what the challenger expects of itself at `cut_off`, without labels: shown, never acted on.

    A release is scored here by its own confidence, which is what is on trial; the finding is never a PASS and never
    binding. Nothing where scores predict no label, or nothing is cut off.
    """
    if plan.scores is None or plan.scores.label is None or cut_off is None:
        return []
    grid = ScoreGrid(*plan.scores.range)
    counts = np.zeros(grid.size)
    for pair, count in evidence.pairs.items():
        counts[pair.challenger] += count
    is_scored = (counts > 0) & ~np.isnan(grid.middle())
    expected = expected_rates(grid.middle()[is_scored], counts[is_scored], cut_off)
    if expected is None:
        return []
    numbers: dict[str, float | int | str | None] = {
        "cut_off": cut_off,
        "expected_precision": expected.precision,
        "expected_recall": expected.recall,
        "expected_accuracy": expected.accuracy,
    }
    reason = (
        f"advisory: by its own scores the challenger expects an accuracy of {expected.accuracy:.1%} at cut-off"
        f" {cut_off:g}; an overconfident release expects too much"
    )
    return [
        Finding(Question.CALIBRATION, "expected of itself", Verdict.INCONCLUSIVE, reason, numbers, is_binding=False)
    ]
