"""Waive the answer of a declared gate: a named person, a reason, an end, kept in the ledger for ever."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from seatrial.control.answering import require_independent, require_reason
from seatrial.errors import NotFoundError, RefusedError
from seatrial.ledger import Record
from seatrial.rollout import FINAL
from seatrial.units import format_time, short
from seatrial.verdict import Verdict
from seatrial.waiver import WAIVED, Waived

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.ports import Ports

#: A waiver for longer than this is another rule, and belongs into the plan.
LONGEST = timedelta(days=90)


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
