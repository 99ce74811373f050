"""Move rollouts: judge, decide, write the decision with its routing snapshot in one transaction, observe.

Every function may be cut off anywhere and called again: what was written stays, what was not is done now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from seatrial.control.judging import Judged, judge
from seatrial.control.observing import is_observed, observe
from seatrial.errors import RefusedError
from seatrial.ledger import Record
from seatrial.ports import Commit, Look
from seatrial.rollout import (
    RETURNING,
    SERVING,
    Action,
    Answer,
    Choice,
    Decision,
    Rollout,
    State,
    decide,
    is_judged,
    move,
    share_of,
)
from seatrial.routing import RoutingSnapshot
from seatrial.units import format_time, share_to_slots

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.plan import Plan
    from seatrial.ports import Ports

#: What a watch may do by itself; widening exposure is left to the rollout's own flow.
WATCH = frozenset({Action.ROLL_BACK})
EVERYTHING = frozenset(Action)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step decided, and the rollout after it."""

    rollout: Rollout
    decision: Decision
    judged: Judged
    is_moved: bool


def step(
    ports: Ports,
    rollout_id: str,
    *,
    now: datetime,
    actor: str,
    answer: Answer | None = None,
    may: frozenset[Action] = EVERYTHING,
) -> Outcome:
    """Judge `rollout_id` once at `now` and carry out the decision if it is among those that the caller `may` take.

    Raises ConflictError when somebody else moved the rollout meanwhile; then read it and decide again.
    """
    rollout = ports.store.rollout(rollout_id)
    plan = ports.store.plan(rollout.plan_id)
    observe(ports, rollout.decision_point, now=now)
    if answer is not None:
        _require_may_answer(ports, rollout, plan, answer)
    judged = judge(ports, rollout, plan, now=now)
    decision = decide(rollout, plan, judged.findings, now=now, answer=answer)
    if decision.action is not Action.ROLL_BACK:
        decision = _procedure(ports, rollout, plan, now=now) or decision
    is_move = decision.action is not Action.HOLD and (decision.action in may or rollout.state not in _LEFT_TO_THE_FLOW)
    if judged.findings and (is_move or _is_worth_keeping(ports, rollout, plan, decision, now=now)):
        ports.store.add_look(_look(rollout, plan, judged, decision, now=now))
    if not is_move:
        _renew(ports, rollout, plan, judged, now=now)
        return Outcome(rollout, decision, judged, is_moved=False)
    if decision.action is Action.ROLL_BACK:
        after = roll_back(ports, rollout, reason=decision.reason, actor=actor, now=now, judged=judged, answer=answer)
    else:
        after = _carry_out(ports, rollout, plan, decision, judged, answer, now=now, actor=actor)
    return Outcome(after, decision, judged, is_moved=True)


def _is_worth_keeping(ports: Ports, rollout: Rollout, plan: Plan, decision: Decision, *, now: datetime) -> bool:
    """Return whether a look says something that the last kept one does not, or time enough has passed for a plot."""
    last = ports.store.last_look(rollout.id)
    return last is None or last.action is not decision.action or now - last.at >= plan.lease / LOOKS_PER_LEASE


#: How many looks without news are kept in the time of one lease: a plot needs points, the database not every one.
LOOKS_PER_LEASE = 12
#: States in which only the rollout's own flow advances; in the others any caller finishes the procedure.
_LEFT_TO_THE_FLOW = frozenset(
    {
        State.GATES,
        State.SHADOW,
        State.AWAITING_APPROVAL,
        State.CANARY,
        State.LABELS,
        State.AWAITING_DECISION,
    }
)


def _procedure(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> Decision | None:
    """Return the decision in states that wait for routers rather than for evidence, or None in all others."""
    match rollout.state:
        case State.PROMOTING if is_observed(ports, rollout.decision_point, now=now):
            return Decision(Action.PROMOTE, f"seen on every live router; {rollout.reason}")
        case State.ROLLING_BACK | State.ROLLBACK_INCOMPLETE if is_observed(ports, rollout.decision_point, now=now):
            return Decision(Action.ADVANCE, rollout.reason)
        case State.ROLLING_BACK if now >= rollout.entered_at + plan.lease:
            return Decision(Action.ASK, f"no live router was seen serving the champion alone; {rollout.reason}")
        case _:
            return None


def roll_back(
    ports: Ports,
    rollout: Rollout,
    *,
    reason: str,
    actor: str,
    now: datetime,
    judged: Judged | None = None,
    answer: Answer | None = None,
) -> Rollout:
    """Return the champion to service: a new snapshot, written with the decision; observation follows in `step`.

    A release that is champion already is demoted, and a rollout that challenges it ends with it. Needs the store
    alone: neither Prefect nor logs nor the files of any release.
    """
    plan = ports.store.plan(rollout.plan_id)
    decision = Decision(Action.ROLL_BACK, reason)
    evidence = None if judged is None else judged.evidence
    digest = None if evidence is None else evidence.digest
    ended = [rollout, *_challengers_of(ports, rollout)]
    moved = []
    for one in ended:
        why = decision if one is rollout else Decision(Action.ROLL_BACK, f"its champion was demoted: {reason}")
        moved.append(
            move(
                one,
                ports.store.plan(one.plan_id),
                why,
                now=now,
                evidence_digest=digest if one is rollout else None,
            )
        )
    present = ports.store.snapshot(rollout.decision_point)
    snapshot = _next_snapshot(ports, moved[0], plan, present=present, now=now)
    records = [
        _decided(before, after, actor, judged if before is rollout else None, answer, now=now)
        for before, after in zip(ended, moved, strict=True)
    ]
    ports.store.commit(
        Commit(
            records=(*records, *_share_records(moved[0], snapshot, actor, now=now)),
            moved=tuple(moved),
            snapshot=snapshot,
            champion=(rollout.decision_point, rollout.champion)
            if ports.store.champions()[rollout.decision_point] == rollout.challenger
            else None,
            evidence=evidence,
        )
    )
    return moved[0]


def _challengers_of(ports: Ports, rollout: Rollout) -> list[Rollout]:
    """Return the active rollouts that would be left without their champion when `rollout` is rolled back."""
    return [
        other
        for other in ports.store.rollouts(rollout.decision_point)
        if other.id != rollout.id
        and other.is_active
        and other.champion == rollout.challenger
        and other.state not in RETURNING
    ]


def agree(ports: Ports, decision_point: str, *, now: datetime, actor: str) -> bool:
    """Publish the snapshot that the rollouts call for if another one is in force; return whether that was needed.

    Raises ConflictError when a rollout moved meanwhile, and with it the snapshot.
    """
    # Read before the rollouts: a rollback in between publishes a snapshot of its own, and this one is then refused.
    present = ports.store.snapshot(decision_point)
    owner = _owner(ports, decision_point)
    if owner is None:
        return False
    plan = ports.store.plan(owner.plan_id)
    snapshot = _next_snapshot(ports, owner, plan, present=present, now=now)
    if snapshot is None:
        return False
    record = Record(
        now,
        "share.corrected",
        actor,
        decision_point,
        owner.id,
        f"{decision_point}/{snapshot.number}/corrected",
        _snapshot_body(snapshot),
    )
    ports.store.commit(Commit(records=(record,), snapshot=snapshot))
    return True


def _owner(ports: Ports, decision_point: str) -> Rollout | None:
    """Return the rollout whose state the present routing must express.

    One that would return a champion which was demoted meanwhile is none: another one took its place.
    """
    rollouts = ports.store.rollouts(decision_point)
    champion = ports.store.champions().get(decision_point)
    active = [r for r in rollouts if r.is_active and r.champion == champion]
    watched = [r for r in rollouts if r.state is State.CHAMPION]
    candidates = active or watched
    return candidates[-1] if candidates else None


def _carry_out(
    ports: Ports,
    rollout: Rollout,
    plan: Plan,
    decision: Decision,
    judged: Judged,
    answer: Answer | None,
    *,
    now: datetime,
    actor: str,
) -> Rollout:
    after = move(rollout, plan, decision, now=now, evidence_digest=judged.evidence.digest if judged.findings else None)
    snapshot = None
    if (owner := _owner(ports, rollout.decision_point)) is not None and owner.id == rollout.id:
        present = ports.store.snapshot(rollout.decision_point)
        snapshot = _next_snapshot(ports, after, plan, present=present, now=now)
    superseded = _superseded(ports, rollout, decision, now=now)
    records = (
        _decided(rollout, after, actor, judged, answer, now=now),
        *(_decided(before, then, actor, None, None, now=now) for before, then in superseded),
        *_share_records(after, snapshot, actor, now=now),
    )
    ports.store.commit(
        Commit(
            records=records,
            moved=(after, *(then for _, then in superseded)),
            snapshot=snapshot,
            champion=(rollout.decision_point, rollout.challenger) if after.state is State.CHAMPION else None,
            evidence=judged.evidence if judged.findings else None,
        )
    )
    return after


def _superseded(ports: Ports, rollout: Rollout, decision: Decision, *, now: datetime) -> list[tuple[Rollout, Rollout]]:
    """Return the rollouts of champions that a promotion replaces, each before and after."""
    if decision.action is not Action.PROMOTE:
        return []
    replaced = Decision(Action.PROMOTE, f"superseded by rollout {rollout.id}")
    return [
        (other, move(other, ports.store.plan(other.plan_id), replaced, now=now))
        for other in ports.store.rollouts(rollout.decision_point)
        if other.state is State.CHAMPION and other.id != rollout.id
    ]


def _next_snapshot(
    ports: Ports, rollout: Rollout, plan: Plan, *, present: RoutingSnapshot, now: datetime
) -> RoutingSnapshot | None:
    """Return the snapshot to publish for `rollout`, or None when the present one assigns the same."""
    wanted = _wanted(ports, rollout, plan, now=now)
    if wanted.has_same_assignment(present):
        return None
    return replace(wanted, number=present.number + 1)


def _wanted(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> RoutingSnapshot:
    share = share_of(rollout, plan)
    is_promoted = rollout.state in (State.PROMOTING, State.CHAMPION)
    serves = rollout.challenger if is_promoted else rollout.champion
    alone = RoutingSnapshot(rollout.decision_point, 0, champion=serves, fallback=serves)
    is_shadowed = rollout.state is State.SHADOW
    if not is_shadowed and (share == 0.0 or (is_promoted and share == 1.0)):
        return alone
    segments = ports.store.release(rollout.challenger).release.segments
    return replace(
        alone,
        champion=rollout.champion,
        challenger=rollout.challenger,
        rollout_id=rollout.id,
        segment=plan.segment,
        when={} if plan.segment is None else segments.rule(plan.segment),
        slots=share_to_slots(share),
        shadow=is_shadowed,
        stage=rollout.stage,
        salt=f"{segments.salt}/{rollout.id}/",
        lease_until=now + plan.lease if share else None,
    )


def _renew(ports: Ports, rollout: Rollout, plan: Plan, judged: Judged, *, now: datetime) -> None:
    """Extend the lease of the rollout's own snapshot, only after fresh evidence was really judged."""
    if rollout.state not in SERVING or not is_judged(judged.findings):
        return
    present = ports.store.snapshot(rollout.decision_point)
    if present.rollout_id == rollout.id and present.slots:
        ports.store.renew(replace(present, lease_until=now + plan.lease))


def _require_may_answer(ports: Ports, rollout: Rollout, plan: Plan, answer: Answer) -> None:
    roles = ports.approvers.get(answer.by)
    if roles is None:
        raise RefusedError(
            f"approver {answer.by!r}: not among the approvers; known: {', '.join(sorted(ports.approvers)) or 'none'}"
        )
    if answer.choice is not Choice.REJECT:
        if not roles & set(plan.approvers.roles):
            raise RefusedError(
                f"approver {answer.by!r} has the roles {', '.join(sorted(roles)) or 'none'}; the plan asks for one of"
                f" {', '.join(plan.approvers.roles)}"
            )
        release = ports.store.release(rollout.challenger).release
        if answer.by in (rollout.requested_by, release.owner.person, release.training.trained_by):
            raise RefusedError(
                f"approver {answer.by!r} asked for this rollout or made the release; somebody else must approve"
            )
    if not answer.reason.strip():
        raise RefusedError(f"the answer of {answer.by!r} has no reason; give one, it is kept for ever")


def _look(rollout: Rollout, plan: Plan, judged: Judged, decision: Decision, *, now: datetime) -> Look:
    return Look(
        rollout.id,
        now,
        decision.action,
        decision.reason,
        share_of(rollout, plan),
        judged.evidence.digest,
        judged.findings,
    )


def _decided(
    before: Rollout,
    after: Rollout,
    actor: str,
    judged: Judged | None,
    answer: Answer | None,
    *,
    now: datetime,
) -> Record:
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


def _share_records(
    rollout: Rollout, snapshot: RoutingSnapshot | None, actor: str, *, now: datetime
) -> tuple[Record, ...]:
    if snapshot is None:
        return ()
    key = f"{rollout.decision_point}/{snapshot.number}/intended"
    return (Record(now, "share.intended", actor, rollout.decision_point, rollout.id, key, _snapshot_body(snapshot)),)


def _snapshot_body(snapshot: RoutingSnapshot) -> dict[str, Any]:
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
