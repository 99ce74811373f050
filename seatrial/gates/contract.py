"""Whether the release fits its rollback target and the plan, as far as can be told before any traffic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from seatrial.gates.finding import Finding, Question
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.plan import Bound
    from seatrial.release import Column, Release


def contract(challenger: Release, champion: Release, *, bounds: Sequence[Bound]) -> list[Finding]:
    """Return the findings on feature schema, output, actions and offline metrics of `challenger`."""
    return [
        _features(challenger, champion),
        _output(challenger, champion),
        _actions(challenger, champion),
        *(_bound(challenger, bound) for bound in bounds),
    ]


def _features(challenger: Release, champion: Release) -> Finding:
    known = {column.name: column for column in champion.features.columns}
    changed = [
        f"{column.name} is {_described(column)}, the champion reads it as {_described(known[column.name])}"
        for column in challenger.features.columns
        if column.name in known and _described(column) != _described(known[column.name])
    ]
    added = [column.name for column in challenger.features.columns if column.name not in known]
    return Finding(
        Question.CONTRACT,
        "feature schema",
        Verdict.FAIL if changed else Verdict.PASS,
        "; ".join(changed)
        or (f"new columns: {', '.join(added)}" if added else "the columns are those of the champion"),
        {"columns": len(challenger.features.columns), "added": len(added), "changed": len(changed)},
    )


def _described(column: Column) -> str:
    return f"{column.dtype} in {column.unit}"


def _output(challenger: Release, champion: Release) -> Finding:
    mine, theirs = challenger.output, champion.output
    is_same = (mine.kind, mine.range) == (theirs.kind, theirs.range)
    return Finding(
        Question.CONTRACT,
        "output contract",
        Verdict.PASS if is_same else Verdict.FAIL,
        f"{mine.kind} in {mine.range[0]:g} to {mine.range[1]:g}"
        + ("" if is_same else f", the champion gives {theirs.kind} in {theirs.range[0]:g} to {theirs.range[1]:g}"),
    )


def _actions(challenger: Release, champion: Release) -> Finding:
    unknown = sorted(set(challenger.policy.actions) - set(champion.policy.actions))
    return Finding(
        Question.CONTRACT,
        "actions",
        Verdict.FAIL if unknown else Verdict.PASS,
        f"actions that nobody downstream knows: {', '.join(unknown)}"
        if unknown
        else f"{', '.join(sorted(challenger.policy.actions))}, all known to the champion's consumers",
    )


def _bound(challenger: Release, bound: Bound) -> Finding:
    subject = f"offline {bound.metric}"
    value = challenger.evaluation.metrics.get(bound.metric)
    if value is None or not math.isfinite(value):
        reported = ", ".join(sorted(challenger.evaluation.metrics))
        reason = f"the evaluation report has no {bound.metric}; it has {reported}"
        return Finding(Question.CONTRACT, subject, Verdict.ERROR, reason)
    is_met = (bound.at_most is None or value <= bound.at_most) and (bound.at_least is None or value >= bound.at_least)
    wanted = " and ".join(
        f"{words} {limit:g}"
        for words, limit in (("at least", bound.at_least), ("at most", bound.at_most))
        if limit is not None
    )
    return Finding(
        Question.CONTRACT,
        subject,
        Verdict.PASS if is_met else Verdict.FAIL,
        f"{bound.metric} is {value:.4g}, the plan asks for {wanted}",
        {"value": value, "at_least": bound.at_least, "at_most": bound.at_most},
    )
