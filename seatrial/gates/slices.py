"""Whether every critical slice is decided well enough; one that is too small to tell needs a person's waiver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seatrial.gates.evaluation import losses
from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.stats.bounds import mean_limits
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from seatrial.gates.evaluation import Scored
    from seatrial.plan.asks import Slices
    from seatrial.plan.asks.slices import Least

GATE = "slices"
#: Chance that any slice that is not good enough passes, and that any that is fails; shared by all slices and metrics.
LEVEL = 0.05


def slices(scored: Scored, ask: Slices, groups: NDArray[np.int64] | None) -> list[Finding]:
    """Return a finding for each critical slice and metric: PASS when a worse value than allowed is ruled out."""
    parts = [(column, value) for column, values in ask.critical.items() for value in values]
    alpha = LEVEL / (len(parts) * len(ask.quality))
    return [
        _slice(column, value, least, scored, ask, groups, alpha=alpha)
        for column, value in parts
        for least in ask.quality
    ]


def _slice(
    column: str,
    value: str,
    least: Least,
    scored: Scored,
    ask: Slices,
    groups: NDArray[np.int64] | None,
    *,
    alpha: float,
) -> Finding:
    subject = f"{GATE}{SUBJECT_MARK}{column}={value}{SUBJECT_MARK}{least.metric}"
    if column not in scored.values:
        reason = f"the evaluation data have no column {column!r}; write it there"
        return Finding(Question.CONTRACT, subject, Verdict.ERROR, reason)
    try:
        each = losses(least.metric, scored, ask)
    except ValueError as error:
        return Finding(Question.CONTRACT, subject, Verdict.ERROR, str(error))
    if each is None:
        return Finding(Question.CONTRACT, subject, Verdict.ERROR, f"nobody says what {least.metric} means for one row")
    is_in = scored.values[column] == value
    rows = int(np.count_nonzero(is_in))
    # A limit on each side at the slice's whole part of the level: either error is promised for itself.
    found = mean_limits(each[is_in], None if groups is None else groups[is_in], alpha=min(2.0 * alpha, 0.5))
    numbers = {
        "rows": rows,
        "value": found.estimate,
        "low": found.low,
        "high": found.high,
        "at_most": least.at_most,
        "level": LEVEL,
    }
    seen = f"{least.metric} of {column}={value} is {found.estimate:.4g} on {rows:,} rows"
    if found.high <= least.at_most:
        verdict, said = Verdict.PASS, f"{seen}; more than {least.at_most:g} is ruled out"
    elif found.low > least.at_most:
        verdict, said = Verdict.FAIL, f"{seen}, proven to be more than {least.at_most:g}"
    else:
        verdict, said = Verdict.INCONCLUSIVE, f"{seen}; too few to tell whether it is at most {least.at_most:g}"
    return Finding(Question.CONTRACT, subject, verdict, said, numbers)
