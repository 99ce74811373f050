"""Move rollouts: judge, decide, write the decision with its routing snapshot in one transaction, observe.

Every function may be cut off anywhere and called again: what was written stays, what was not is done now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.control.answering import require_may_answer
from seatrial.control.judging import Judged, judge
from seatrial.control.observing import is_observed, is_taken_up, observe
from seatrial.control.outputting import suspected
from seatrial.control.outranking import kill_records, outranking
from seatrial.control.publishing import next_snapshot, owner_of, renew
from seatrial.control.recording import decided, look_of, share_records
from seatrial.ports import Commit
from seatrial.rollout import (
    RETURNING,
    Action,
    Answer,
    Decision,
    Rollout,
    State,
    decide,
    move,
)

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.plan import Plan
    from seatrial.ports import Ports

#: What a watch may do by itself; widening exposure is left to the rollout's own flow.
WATCH = frozenset({Action.ROLL_BACK, Action.PAUSE})
EVERYTHING = frozenset(Action)
#: How many looks without news are kept in the time of one lease: a plot needs points, the database not every one.
LOOKS_PER_LEASE = 12
#: States in which only the rollout's own flow advances; in the others any caller finishes the procedure.
_LEFT_TO_THE_FLOW = frozenset(
    {
        State.GATES,
        State.SHADOW,
        State.SHADOW_PAUSED,
        State.AWAITING_APPROVAL,
        State.CANARY,
        State.LABELS,
        State.AWAITING_DECISION,
    }
)


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
        require_may_answer(ports, rollout, plan, answer)
    judged = judge(ports, rollout, plan, now=now)
    decision = decide(rollout, plan, judged.findings, now=now, answer=answer)
    if decision.action is not Action.ROLL_BACK:
        decision = _procedure(ports, rollout, plan, now=now) or decision
    is_move = decision.action is not Action.HOLD and (decision.action in may or rollout.state not in _LEFT_TO_THE_FLOW)
    if judged.findings and (is_move or _is_worth_keeping(ports, rollout, plan, decision, now=now)):
        ports.store.add_look(look_of(rollout, plan, judged, decision, now=now))
        if not is_move:
            # Metrics show the counts of the last look; those of a move are kept with its decision.
            ports.store.commit(Commit(records=(), evidence=judged.evidence))
    if not is_move:
        renew(ports, rollout, plan, judged, now=now)
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


def _procedure(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> Decision | None:
    """Return the decision in states that wait for routers rather than for evidence, or None in all others."""
    match rollout.state:
        case State.PROMOTING if is_taken_up(ports, rollout.decision_point, rollout.champion, now=now):
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

    A release that is champion already is demoted, and a rollout that challenges it ends with it; units that an order
    sends to it go to the champion as well. Needs the store alone: neither Prefect nor logs nor files of releases.
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
    kills = outranking(present, ended, reason=reason, actor=actor, now=now)
    snapshot = next_snapshot(ports, moved[0], plan, present=present, now=now, kills=kills)
    doubted, doubts = suspected(ports, rollout, reason=reason, now=now, actor=actor)
    records = [
        decided(before, after, actor, judged if before is rollout else None, answer, now=now)
        for before, after in zip(ended, moved, strict=True)
    ]
    ports.store.commit(
        Commit(
            records=(
                *records,
                *share_records(moved[0], snapshot, actor, now=now),
                *kill_records(rollout, kills),
                *doubts,
            ),
            moved=tuple(moved),
            outputs=doubted,
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
    if (owner := owner_of(ports, rollout.decision_point)) is not None and owner.id == rollout.id:
        present = ports.store.snapshot(rollout.decision_point)
        snapshot = next_snapshot(ports, after, plan, present=present, now=now)
    superseded = _superseded(ports, rollout, decision, now=now)
    records = (
        decided(rollout, after, actor, judged, answer, now=now),
        *(decided(before, then, actor, None, None, now=now) for before, then in superseded),
        *share_records(after, snapshot, actor, now=now),
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
