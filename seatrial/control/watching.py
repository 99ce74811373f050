"""Keep watch over every open rollout: judge, roll back on harm, renew leases, and say which flows have work to do."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.control.judging import Judged, judge_labels
from seatrial.control.moving import WATCH, step
from seatrial.control.publishing import agree
from seatrial.errors import ConflictError, UnavailableError
from seatrial.ledger import Record
from seatrial.rollout import FINAL, Action, Rollout, State
from seatrial.units import digest_of, short
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.ports import Ports

#: Name under which a finished round is recorded.
SWEEP = "sweep"
#: How often a flow that died is started again in one state of its rollout, before the champion returns to service.
RESTARTS = 3


@dataclass(frozen=True, slots=True)
class Watched:
    """What one look of the watch left behind."""

    rollout: Rollout
    is_due: bool  #: the rollout's own flow has something to do: decide, ask, or end
    reason: str


def watch(ports: Ports, *, now: datetime, actor: str = SWEEP) -> list[Watched]:
    """Look once at every open rollout and return what was seen; records the round when it is complete.

    Two watches at once are harmless: each move is made once, and the other finds it done.
    """
    for decision_point in ports.store.champions():
        with suppress(ConflictError):  # somebody else moved or corrected it; the next round sees it as it is then
            agree(ports, decision_point, now=now, actor=actor)
    seen = [
        watched
        for rollout in ports.store.rollouts()
        if is_open(rollout) and (watched := _watch_one(ports, rollout, now=now, actor=actor)) is not None
    ]
    ports.store.beat(SWEEP, now=now)
    return seen


def is_open(rollout: Rollout) -> bool:
    """Return whether `rollout` still has something to be watched for."""
    return rollout.state not in FINAL and not (rollout.state is State.CHAMPION and rollout.deadline is None)


def _watch_one(ports: Ports, rollout: Rollout, *, now: datetime, actor: str) -> Watched | None:
    try:
        outcome = step(ports, rollout.id, now=now, actor=actor, may=WATCH)
    except ConflictError:
        return None  # somebody else moved it while this watch looked; the next round sees it as it is then
    except UnavailableError:
        raise  # the store itself did not answer, which concerns every rollout: the caller tries again
    except Exception as error:  # noqa: BLE001 edge of a service: one rollout that cannot be judged must not end the
        # watch over the others; its lease is not renewed, so that its champion returns by itself
        return _unjudged(ports, rollout, f"could not be judged: {type(error).__name__}: {error}", now=now, actor=actor)
    is_waiting = outcome.decision.action is Action.HOLD and not outcome.is_moved
    return Watched(outcome.rollout, is_due=not is_waiting, reason=outcome.decision.reason)


def _unjudged(ports: Ports, rollout: Rollout, reason: str, *, now: datetime, actor: str) -> Watched:
    """Record, once for each reason in one state of the rollout, that nothing could be said about it."""
    record = Record(
        now,
        "rollout.unjudged",
        actor,
        rollout.decision_point,
        rollout.id,
        f"{rollout.id}/{rollout.version}/unjudged/{short(digest_of(reason))}",
        {"verdict": Verdict.ERROR.name, "reason": reason},
    )
    ports.store.append([record])
    return Watched(rollout, is_due=False, reason=reason)


def may_restart(ports: Ports, rollout: Rollout, *, reason: str, now: datetime) -> bool:
    """Record that the flow of `rollout` is started again; False when it was often enough in its present state."""
    prefix = f"{rollout.id}/{rollout.version}/restarted/"
    restarts = sum(entry.record.key.startswith(prefix) for entry in ports.store.entries(rollout.id))
    if restarts >= RESTARTS:
        return False
    record = Record(
        now,
        "flow.restarted",
        SWEEP,
        rollout.decision_point,
        rollout.id,
        f"{prefix}{restarts + 1}",
        {"flow_run_id": rollout.flow_run_id, "reason": reason},
    )
    ports.store.append([record])
    return True


def evaluate_labels(ports: Ports, rollout: Rollout, *, now: datetime, actor: str) -> tuple[Rollout, Judged]:
    """Judge `rollout` by its labels as they are now, demote it if they prove harm, and return what was found.

    Also after promotion, until the label window closes.
    """
    judged = judge_labels(ports, rollout, ports.store.plan(rollout.plan_id), now=now)
    outcome = step(ports, rollout.id, now=now, actor=actor, may=WATCH)
    return outcome.rollout, judged
