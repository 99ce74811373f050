"""Whether an evaluation report can be reproduced, and what it says about the release beside the champion.

Metrics are computed from scores that the artifact gives now. A metric that has no definition here cannot be
reproduced, and fails: a number that nobody can compute again is no evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import numpy as np

from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.plan.conditions import Above, AtLeast, Condition, Margin, OneOf
from seatrial.stats.clustered import clustered_mean
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from seatrial.plan import Bound
    from seatrial.plan.asks import Evaluation, Slices
    from seatrial.plan.conditions import Term
    from seatrial.release import Release

GATE = "evaluation"
#: Chance of calling a worse release not worse, and of calling one within its margin worse.
LEVEL = 0.05
#: With fewer groups than these the error of a mean over groups is not to be trusted.
FEWEST_GROUPS = 12


@dataclass(frozen=True, slots=True)
class Scored:
    """Evaluation rows as one release scores and decides them."""

    scores: NDArray[np.float64]
    label: NDArray[np.float64]  #: 1 or 0
    values: Mapping[str, NDArray[np.object_]]  #: action, label, score and attributes, for conditions

    @classmethod
    def of(
        cls,
        release: Release,
        scores: NDArray[np.float64],
        label: NDArray[np.float64],
        attributes: Mapping[str, Sequence[str | None]],
    ) -> Scored:
        """Return the rows as `release` decides them; raises ValueError for a score outside its contract.

        A segment is judged by its own cut-offs only where the rows have the attributes that its rule reads.
        """
        names = sorted(attributes)
        rows = zip(*(attributes[name] for name in names), strict=True) if names else ((),) * len(scores)
        actions = [
            release.decide(float(score), release.segments.segment_of(dict(zip(names, row, strict=True)))).action
            for score, row in zip(scores, rows, strict=True)
        ]
        told = {name: np.array(values, dtype=object) for name, values in attributes.items()}
        own = {"action": np.array(actions, dtype=object), "label": label.astype(object), "score": scores.astype(object)}
        return cls(scores, label, {**told, **own})


def losses(metric: str, scored: Scored, ask: Evaluation | Slices) -> NDArray[np.float64] | None:
    """Return the loss of each row, whose mean is `metric`; None for one that is no mean, or unknown.

    Raises ValueError when a rate asks for a column that the rows do not have.
    """
    chance = np.clip(scored.scores, np.finfo(np.float64).eps, 1.0 - np.finfo(np.float64).eps)
    match metric:
        case "log_loss":
            return np.asarray(-np.log(np.where(scored.label == 1.0, chance, 1.0 - chance)), dtype=np.float64)
        case "brier":
            return np.asarray((scored.scores - scored.label) ** 2, dtype=np.float64)
        case _ if metric in ask.rates:
            held = [_holds(condition, scored) for condition in ask.rates[metric]]
            return np.asarray(np.any(held, axis=0), dtype=np.float64)
        case _:
            return None


def metric_of(metric: str, scored: Scored, ask: Evaluation) -> float | None:
    """Return `metric` of the rows; None when nobody has said what it means, NaN when the rows cannot have it."""
    if metric == "auc":
        return auc(scored.scores, scored.label)
    found = losses(metric, scored, ask)
    return None if found is None else float(found.mean())


def auc(scores: NDArray[np.float64], label: NDArray[np.float64]) -> float:
    """Return the chance that a row with label 1 scores above one with label 0, ties counting half; NaN without both.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]))
    0.75
    """
    positive = int(label.sum())
    negative = len(label) - positive
    if not positive or not negative:
        return math.nan
    # Loaded where it is needed: it takes a sixth of the time in which a process starts.
    from scipy.stats import rankdata  # noqa: PLC0415

    ranks = float(rankdata(scores)[label == 1.0].sum())
    return (ranks - positive * (positive + 1) / 2) / (positive * negative)


def _holds(condition: Condition, scored: Scored) -> NDArray[np.bool_]:
    return np.asarray(np.all([_term_holds(term, scored) for term in condition.terms], axis=0), dtype=np.bool_)


def _term_holds(term: Term, scored: Scored) -> NDArray[np.bool_]:
    if term.column not in scored.values:
        raise ValueError(f"the evaluation data have no column {term.column!r}; write it there")
    values = scored.values[term.column]
    match term:
        case OneOf():
            return np.array([value in term.values for value in values], dtype=np.bool_)
        case AtLeast():
            return np.array([_is_number(value) and value >= term.bound for value in values], dtype=np.bool_)
        case Above():
            return np.array([_is_number(value) and value > term.bound for value in values], dtype=np.bool_)
        case unreachable:
            assert_never(unreachable)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def unreproduced(reason: str) -> list[Finding]:
    """Return the finding that a report cannot be computed again at all."""
    return [_found("report", Verdict.FAIL, f"the evaluation report cannot be reproduced: {reason}")]


def reproduced(challenger: Release, scored: Scored, ask: Evaluation, bounds: Sequence[Bound]) -> list[Finding]:
    """Return a finding for each reported metric: what is computed again is what is reported, and within its bounds."""
    return [
        _reproduced(metric, reported, scored, ask, [bound for bound in bounds if bound.metric == metric])
        for metric, reported in challenger.evaluation.metrics.items()
    ]


def _reproduced(metric: str, reported: float, scored: Scored, ask: Evaluation, bounds: Sequence[Bound]) -> Finding:
    try:
        found = metric_of(metric, scored, ask)
    except ValueError as error:
        return _found(metric, Verdict.FAIL, f"{metric} cannot be computed again: {error}")
    if found is None:
        reason = f"nobody says what {metric} means, so it cannot be computed again; define it under rates"
        return _found(metric, Verdict.FAIL, reason)
    numbers = {"reported": reported, "found": found, "tolerance": ask.tolerance, "rows": len(scored.scores)}
    # Written so that a NaN is no small difference.
    if not abs(found - reported) <= ask.tolerance:
        reason = f"{metric} is {found:.6g} on the rows, the report says {reported:.6g}"
        return _found(metric, Verdict.FAIL, reason, numbers)
    for bound in bounds:
        is_met = (bound.at_most is None or found <= bound.at_most) and (
            bound.at_least is None or found >= bound.at_least
        )
        if not is_met:
            reason = f"{metric} is {found:.6g} as reported, outside the bound of the plan"
            return _found(metric, Verdict.FAIL, reason, numbers)
    within = ", within its bound" if bounds else ""
    reason = f"{metric} is {found:.6g} on {len(scored.scores):,} rows, as reported{within}"
    return _found(metric, Verdict.PASS, reason, numbers)


def not_worse(challenger: Scored, champion: Scored, ask: Evaluation, groups: NDArray[np.int64] | None) -> list[Finding]:
    """Return a finding for each metric that may not be worse than the champion's on the same rows by its margin.

    The chance of PASS for a release that is worse by the margin or more is `LEVEL`, and so is that of FAIL for one
    within it, for independent groups.
    """
    return [_compared(name, margin, challenger, champion, ask, groups) for name, margin in ask.not_worse.items()]


def _compared(
    metric: str,
    margin: Margin,
    challenger: Scored,
    champion: Scored,
    ask: Evaluation,
    groups: NDArray[np.int64] | None,
) -> Finding:
    subject = f"{metric} against champion"
    try:
        mine, theirs = losses(metric, challenger, ask), losses(metric, champion, ask)
    except ValueError as error:
        return _found(subject, Verdict.ERROR, f"{metric} cannot be compared: {error}")
    if mine is None or theirs is None:
        return _found(subject, Verdict.ERROR, f"nobody says what {metric} means for one row; define it under rates")
    before = float(theirs.mean())
    allowed = margin.value * (before if margin.is_relative else 1.0)
    seen = clustered_mean(mine - theirs, groups)
    low, high = seen.bound(LEVEL), seen.bound(1.0 - LEVEL)
    numbers = {
        "challenger": float(mine.mean()),
        "champion": before,
        "difference": seen.mean,
        "difference_low": low,
        "difference_high": high,
        "allowed": allowed,
        "groups": seen.groups,
    }
    said = (
        f"{metric} is {mine.mean():.4g}, the champion's on the same rows {before:.4g}; worse by {low:.3g} to {high:.3g}"
        f" at {LEVEL:.0%} each side, {allowed:.3g} is tolerated"
    )
    if not all(map(math.isfinite, (seen.mean, allowed))):
        return _found(subject, Verdict.ERROR, f"{said}: no finite number", numbers)
    if seen.groups < FEWEST_GROUPS:
        reason = f"{said}; {seen.groups} independent groups are too few to tell, {FEWEST_GROUPS} are needed"
        return _found(subject, Verdict.INCONCLUSIVE, reason, numbers)
    if high <= allowed:
        return _found(subject, Verdict.PASS, said, numbers)
    return _found(subject, Verdict.FAIL if low > allowed else Verdict.INCONCLUSIVE, said, numbers)


def not_compared(reason: str) -> list[Finding]:
    """Return the finding that the champion could not be scored on the rows."""
    return [_found("against champion", Verdict.INCONCLUSIVE, f"the champion cannot be scored on these rows: {reason}")]


def _found(
    subject: str, verdict: Verdict, reason: str, numbers: Mapping[str, float | int | str | None] | None = None
) -> Finding:
    return Finding(Question.CONTRACT, f"{GATE}{SUBJECT_MARK}{subject}", verdict, reason, numbers or {})
