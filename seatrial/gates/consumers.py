"""Whether everybody who reads what the decision point answers knows that it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.change import changes, keeps_scores
from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.plan import Consumers
    from seatrial.plan.asks import Consumer
    from seatrial.release import Release

#: Kind of the record that an owner of a consumer knows of a challenger.
ACKNOWLEDGED = "consumer.acknowledged"


def consumers(challenger: Release, champion: Release, ask: Consumers, acknowledged: Mapping[str, str]) -> list[Finding]:
    """Return one finding on each consumer; `acknowledged` says by name who knows of this challenger, and when."""
    return [_told(challenger, champion, each, acknowledged.get(each.name)) for each in ask.known]


def _told(challenger: Release, champion: Release, consumer: Consumer, by: str | None) -> Finding:
    is_same = keeps_scores(challenger, champion) if consumer.reads == "score" else not changes(challenger, champion)
    subject = f"consumers{SUBJECT_MARK}{consumer.name}"
    if is_same:
        reason = f"{consumer.name} reads the {consumer.reads}, which stays as it is"
        return Finding(Question.CONTRACT, subject, Verdict.PASS, reason)
    if by is not None:
        return Finding(Question.CONTRACT, subject, Verdict.PASS, f"{consumer.name}: {by}")
    owners = " or ".join(consumer.owners)
    reason = f"{consumer.name} reads the {consumer.reads}, which changes; {owners} has not acknowledged it"
    return Finding(Question.CONTRACT, subject, Verdict.INCONCLUSIVE, reason)
