"""Throw kill switches, and lift them again: orders that every router obeys; needs the store alone.

An order stands in the routing snapshot, so that publishing it is the whole of it. Whoever publishes next carries it
on until it is lifted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from seatrial.control.ending import insist
from seatrial.control.ordering import change_orders
from seatrial.errors import NotFoundError, RefusedError
from seatrial.ledger import Record
from seatrial.rollout import RETURNING, Rollout
from seatrial.routing import Kill, KillMode, KillScope, RoutingSnapshot
from seatrial.units import digest_of, format_time, short

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from seatrial.ports import Ports


@dataclass(frozen=True, slots=True)
class KillWish:
    """What somebody wants to take out of service, and what should happen instead."""

    scope: KillScope
    mode: KillMode
    reason: str
    actor: str
    name: str | None = None  #: segment, release or action; None for the whole decision point
    is_drill: bool = False

    def is_met_by(self, kill: Kill) -> bool:
        """Return whether `kill` is what is wished."""
        met = (kill.scope, kill.mode, kill.name, kill.is_drill)
        return met == (self.scope, self.mode, self.name, self.is_drill)


def order_kill(ports: Ports, decision_point: str, wish: KillWish, *, now: datetime) -> Kill:
    """Throw a kill switch and return the order; one that stands already and says the same is returned.

    What it makes senseless ends as well: the active rollout of a decision point or segment that answers no more, or of
    a release that is compared. Raises NotFoundError for an unknown name, RefusedError for what cannot be ordered.
    """
    if wish.scope is KillScope.RELEASE and wish.name is not None:
        wish = replace(wish, name=ports.store.release(wish.name).release.id)
    ordered: list[Kill] = []

    def killed(present: RoutingSnapshot) -> tuple[RoutingSnapshot, Record] | None:
        if same := [kill for kill in present.kills if wish.is_met_by(kill)]:
            ordered.append(same[0])
            return None
        kill = _kill(ports, present, wish, now=now)
        ordered.append(kill)
        key = f"{decision_point}/kill/{kill.id}/ordered"
        record = Record(now, "kill.ordered", wish.actor, decision_point, present.rollout_id, key, kill.document())
        return replace(present, kills=(*present.kills, kill)), record

    change_orders(ports, decision_point, killed, now=now)
    kill = ordered[-1]
    if not kill.is_drill:
        for rollout in _ended_by(ports, decision_point, kill):
            insist(ports, rollout.id, reason=f"{_words(kill)} was killed: {wish.reason}", actor=wish.actor, now=now)
    return kill


def lift(ports: Ports, decision_point: str, kill_id: str, *, reason: str, actor: str, now: datetime) -> Kill:
    """Take a kill back and return it; what it ended stays ended. Raises NotFoundError when no such order stands."""
    lifted: list[Kill] = []

    def without(present: RoutingSnapshot) -> tuple[RoutingSnapshot, Record]:
        kill = standing(present, kill_id)
        lifted.append(kill)
        key = f"{decision_point}/kill/{kill.id}/lifted"
        record = Record(now, "kill.lifted", actor, decision_point, None, key, {"kill": kill.id, "reason": reason})
        return replace(present, kills=tuple(each for each in present.kills if each != kill)), record

    change_orders(ports, decision_point, without, now=now)
    return lifted[-1]


def standing(snapshot: RoutingSnapshot, kill_id: str) -> Kill:
    """Return the order that begins with `kill_id`; raises NotFoundError when none in `snapshot` does, or several do."""
    found = [kill for kill in snapshot.kills if kill_id and kill.id.startswith(kill_id)]
    if len(found) != 1:
        raise NotFoundError.of("kill", kill_id, [kill.id for kill in snapshot.kills])
    return found[0]


def _kill(ports: Ports, present: RoutingSnapshot, wish: KillWish, *, now: datetime) -> Kill:
    identity = [present.decision_point, wish.scope.value, wish.name, wish.mode.value, wish.is_drill, format_time(now)]
    try:
        return Kill(
            short(digest_of(identity)),
            wish.scope,
            wish.mode,
            wish.actor,
            wish.reason,
            now,
            wish.name,
            _rule(ports, present, wish),
            _target(ports, present, wish) if wish.mode is KillMode.PREVIOUS_RELEASE else None,
            wish.is_drill,
            present.number + 1,
        )
    except ValueError as error:
        raise RefusedError(f"decision point {present.decision_point!r}: {error}") from error


def _rule(ports: Ports, present: RoutingSnapshot, wish: KillWish) -> Mapping[str, tuple[str, ...]]:
    """Return the rule of a segment to kill, after it is known that the name of segment or action means something."""
    if wish.scope is KillScope.SEGMENT and wish.name is not None:
        segments = ports.store.release(present.fallback).release.segments
        if wish.name == segments.default and not segments.rules:
            raise RefusedError(f"segment {wish.name!r} is everybody; kill the decision point instead")
        return segments.rule(wish.name)
    if wish.scope is KillScope.ACTION and wish.name is not None:
        known = {action for parts in present.parts.values() for action in parts.policy.actions}
        if wish.name not in known:
            raise NotFoundError.of("action", wish.name, known)
    return {}


def _target(ports: Ports, present: RoutingSnapshot, wish: KillWish) -> str:
    """Return the release that answers instead: the fallback, or the one before it when that is what is killed."""
    killed = wish.name if wish.scope is KillScope.RELEASE else present.fallback
    if killed != present.fallback:
        return present.fallback
    target = ports.store.release(present.fallback).release.rollback_target
    if target is None:
        others = ", ".join(mode for mode in KillMode if mode is not KillMode.PREVIOUS_RELEASE)
        raise RefusedError(
            f"release {short(present.fallback)} is the first of {present.decision_point!r}; there is none before it,"
            f" choose another mode: {others}"
        )
    return target


def _ended_by(ports: Ports, decision_point: str, kill: Kill) -> list[Rollout]:
    """Return the active rollouts whose comparison `kill` makes senseless."""
    active = [r for r in ports.store.rollouts(decision_point) if r.is_active and r.state not in RETURNING]
    match kill.scope:
        case KillScope.DECISION_POINT:
            return active
        case KillScope.SEGMENT:
            return [r for r in active if ports.store.plan(r.plan_id).segment == kill.name]
        case KillScope.RELEASE:
            return [r for r in active if kill.name in (r.champion, r.challenger)]
        case KillScope.ACTION:
            return []


def _words(kill: Kill) -> str:
    if kill.name is None:
        return f"the {kill.scope}"
    return f"{kill.scope} {short(kill.name) if kill.scope is KillScope.RELEASE else kill.name}"
