"""What the ledger and the list of looks say about a move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seatrial.ledger import Record
from seatrial.ports import Look
from seatrial.rollout import Answer, Decision, Rollout, share_of
from seatrial.units import format_time

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.control.judging import Judged
    from seatrial.plan import Plan
    from seatrial.routing import RoutingSnapshot


def look_of(rollout: Rollout, plan: Plan, judged: Judged, decision: Decision, *, now: datetime) -> Look:
    """Return what is kept of one judged look, for plots and explanations."""
    return Look(
        rollout.id,
        now,
        decision.action,
        decision.reason,
        share_of(rollout, plan),
        judged.evidence.digest,
        judged.findings,
    )


def decided(
    before: Rollout,
    after: Rollout,
    actor: str,
    judged: Judged | None,
    answer: Answer | None,
    *,
    now: datetime,
) -> Record:
    """Return the record of a move, with the findings and the answer that it rests on."""
    body: dict[str, Any] = {
        "from": before.state.value,
        "to": after.state.value,
        "stage": after.stage,
        "version": after.version,
        "reason": after.reason,
        "champion": after.champion,
        "challenger": after.challenger,
        "plan_id": after.plan_id,
        "evidence_digest": after.evidence_digest,
        "deadline": None if after.deadline is None else format_time(after.deadline),
        "findings": [] if judged is None else [f.document() for f in judged.findings],
        "read": {} if judged is None else dict(sorted(judged.evidence.sources.items())),
    }
    if answer is not None:
        body["answer"] = {
            "choice": answer.choice.value,
            "by": answer.by,
            "reason": answer.reason,
            "evidence_digest": answer.evidence_digest,
        }
    key = f"{after.id}/{after.version}/decided"
    return Record(now, "rollout.decided", actor, after.decision_point, after.id, key, body)


def share_records(
    rollout: Rollout, snapshot: RoutingSnapshot | None, actor: str, *, now: datetime
) -> tuple[Record, ...]:
    """Return the record of what `snapshot` intends; none when no snapshot is published."""
    if snapshot is None:
        return ()
    key = f"{rollout.decision_point}/{snapshot.number}/intended"
    return (Record(now, "share.intended", actor, rollout.decision_point, rollout.id, key, snapshot_body(snapshot)),)


def snapshot_body(snapshot: RoutingSnapshot) -> dict[str, Any]:
    """Return what a record says about `snapshot`."""
    return {
        "number": snapshot.number,
        "slots": snapshot.slots,
        "champion": snapshot.champion,
        "challenger": snapshot.challenger,
        "fallback": snapshot.fallback,
        "segment": snapshot.segment,
        "shadow": snapshot.shadow,
        "digest": snapshot.digest,
    }
