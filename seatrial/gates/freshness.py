"""Whether there is recent evidence at all."""

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
