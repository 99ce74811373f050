"""Waive the answer of a declared gate: a named person, a reason, an end, kept in the ledger for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from seatrial.control.answering import require_independent, require_reason
from seatrial.errors import NotFoundError, RefusedError
from seatrial.ledger import Record
from seatrial.rollout import FINAL
from seatrial.units import format_time, parse_time, short
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.ledger import Entry
    from seatrial.ports import Ports

#: Kind of the record that a gate was waived.
WAIVED = "gate.waived"
#: A waiver for longer than this is another rule, and belongs into the plan.
LONGEST = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Waived:
    """One waiver: who lets which exact answer of a gate pass, why, and until when."""

    gate: str
    by: str
    reason: str
    at: datetime
    expires: datetime
    digest: str  #: of the answer that was waived; another answer is not

    @property
    def words(self) -> str:
        """The waiver in one clause, for people."""
        return f"waived by {self.by} until {self.expires:%Y-%m-%d %H:%M} UTC: {self.reason}"


def waived_of(entries: Sequence[Entry]) -> list[Waived]:
    """Return every waiver in `entries`, ended ones too, in the order in which they were given."""
    return [
        Waived(
            body["gate"],
            entry.record.actor,
            body["reason"],
            entry.record.at,
            parse_time(body["expires"]),
            body["digest"],
        )
        for entry in entries
        if entry.record.kind == WAIVED
        for body in [entry.record.body]
    ]


def waive(
    ports: Ports, rollout_id: str, gate: str, *, by: str, reason: str, expires: datetime, now: datetime
) -> Waived:
    """Let the present answer of a declared gate pass in the name of `by` until `expires`, and record it.

    Raises
    ------
    NotFoundError
        When the plan declares no such gate, or it has not been answered.
    RefusedError
        When the person may not, gives no reason or no end within `LONGEST`, or the answer may not be waived: it
        passed, could not be asked, or the plan does not allow it.
    """
    rollout = ports.store.rollout(rollout_id)
    plan = ports.store.plan(rollout.plan_id)
    if rollout.state in FINAL:
        raise RefusedError(f"rollout {rollout.id} has ended ({rollout.state}); there is nothing left to waive")
    asked, answers = plan.gates.asked(), ports.store.gate_answers(rollout.id)
    if gate not in asked:
        raise NotFoundError.of(f"gate of plan {plan.name!r}", gate, asked)
    if gate not in answers:
        raise NotFoundError(f"gate {gate!r} of rollout {rollout.id}: not answered yet; there is nothing to waive")
    answer = answers[gate]
    refused = [finding for finding in answer.findings if finding.verdict is not Verdict.PASS]
    if not refused:
        raise RefusedError(f"gate {gate!r} of rollout {rollout.id}: it passed, and needs no waiver")
    for finding in refused:
        if not asked[gate].may_waive(finding.verdict):
            raise RefusedError(
                f"gate {gate!r} of rollout {rollout.id}: {finding.subject} is {finding.verdict.name}, expected what the"
                f" plan lets people waive ({asked[gate].waivable}; never an ERROR); mend the cause: {finding.reason}"
            )
    require_independent(ports, rollout, plan, by)
    require_reason(by, reason)
    _require_end(expires, now=now)
    waived = Waived(gate, by, reason, now, expires, answer.digest)
    body = {
        "gate": gate,
        "reason": reason,
        "expires": format_time(expires),
        "digest": answer.digest,
        "findings": [finding.document() for finding in refused],
    }
    key = f"{rollout.id}/waived/{gate}/{short(answer.digest)}/{by}/{format_time(expires)}"
    ports.store.append([Record(now, WAIVED, by, rollout.decision_point, rollout.id, key, body)])
    return waived


def _require_end(expires: datetime, *, now: datetime) -> None:
    if not now < expires <= now + LONGEST:
        raise RefusedError(
            f"the waiver would end {format_time(expires)}; expected an end after now and within {LONGEST.days} d; what"
            " holds for longer belongs into the plan"
        )
