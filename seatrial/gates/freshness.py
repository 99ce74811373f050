"""Whether there is recent evidence at all, from logs that can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.gates.finding import Finding, Question
from seatrial.units import format_duration, format_time
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from seatrial.evidence import Evidence


def freshness(evidence: Evidence, *, max_age: timedelta, now: datetime) -> Finding:
    """Return PASS when the newest decision is at most `max_age` old; otherwise nothing can be judged: ERROR."""
    if evidence.newest is None:
        return Finding(Question.FRESHNESS, "decision log", Verdict.ERROR, "the decision log holds no decision")
    age = now - evidence.newest
    numbers: dict[str, float | int | str | None] = {
        "newest": format_time(evidence.newest),
        "age_s": age.total_seconds(),
    }
    if age > max_age:
        return Finding(
            Question.FRESHNESS,
            "decision log",
            Verdict.ERROR,
            f"the newest decision is {format_duration(age)} old, the plan allows {format_duration(max_age)}",
            numbers,
        )
    return Finding(Question.FRESHNESS, "decision log", Verdict.PASS, "decisions are recent", numbers)


def soundness(evidence: Evidence, *, max_set_aside: float) -> Finding:
    """Return PASS when few enough rows of the rollout's logs are bad; a log of bad rows cannot be judged: ERROR.

    A log without any is INCONCLUSIVE.

    Bad rows are counted nowhere. `max_set_aside` is their greatest share among the decisions of the rollout.
    """
    total = sum(evidence.set_aside.values())
    numbers: dict[str, float | int | str | None] = {"rows": evidence.rows, "set_aside": total, **evidence.set_aside}
    if not (total or evidence.rows or evidence.assigned or evidence.shadow.units):
        reason = "no row of the rollout is in the log yet"
        return Finding(Question.FRESHNESS, "bad rows", Verdict.INCONCLUSIVE, reason, numbers)
    if not total:
        return Finding(Question.FRESHNESS, "bad rows", Verdict.PASS, "no row was set aside", numbers)
    why = ", ".join(f"{count:,} {reason}" for reason, count in sorted(evidence.set_aside.items()))
    found = f"{total:,} of {evidence.rows:,} rows were set aside ({why})"
    if total > max_set_aside * evidence.rows:
        reason = f"{found}, the plan allows {max_set_aside:.2%}; find out who writes them"
        return Finding(Question.FRESHNESS, "bad rows", Verdict.ERROR, reason, numbers)
    return Finding(Question.FRESHNESS, "bad rows", Verdict.PASS, f"{found}; the plan allows so many", numbers)
