"""Acknowledge, for a consumer of the score, that a challenger changes what it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.control.answering import require_reason
from seatrial.control.assessing import assess
from seatrial.errors import NotFoundError, RefusedError
from seatrial.gates.consumers import ACKNOWLEDGED
from seatrial.ledger import Record
from seatrial.rollout import FINAL, State
from seatrial.units import plain_name

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.ports import Ports
    from seatrial.rollout import Rollout

#: Name of the gate that asks for it.
GATE = "consumers"


def acknowledge(ports: Ports, rollout_id: str, consumer: str, *, by: str, reason: str, now: datetime) -> Rollout:
    """Record that `by`, an owner of `consumer`, knows of the challenger; an open gate is asked again at once.

    Raises
    ------
    NotFoundError
        When the plan knows no such consumer.
    RefusedError
        When the person does not speak for it, gives no reason, or the rollout has ended.
    """
    rollout = ports.store.rollout(rollout_id)
    ask = ports.store.plan(rollout.plan_id).gates.consumers
    known = {each.name: each for each in ask.known} if ask is not None else {}
    if consumer not in known:
        raise NotFoundError.of("consumer", consumer, known)
    if rollout.state in FINAL:
        raise RefusedError(f"rollout {rollout.id} has ended ({rollout.state}); there is nothing left to acknowledge")
    owners = known[consumer].owners
    if plain_name(by) not in map(plain_name, owners):
        raise RefusedError(f"consumer {consumer!r}: {by!r} does not speak for it; {' or '.join(owners)} must say so")
    require_reason(by, reason)
    body = {"consumer": consumer, "release_id": rollout.challenger, "reason": reason}
    key = f"{rollout.id}/acknowledged/{consumer}"
    ports.store.append([Record(now, ACKNOWLEDGED, by, rollout.decision_point, rollout.id, key, body)])
    if rollout.state is State.GATES:
        assess(ports, rollout.id, GATE, now=now, actor=by)
    return rollout
