"""Pin units to a release for a while, by a person's word."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from seatrial.control.ordering import change_orders
from seatrial.errors import NotFoundError, RefusedError
from seatrial.ledger import Record
from seatrial.rollout import State
from seatrial.units import digest_of, short

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.ports import Ports
    from seatrial.routing import Pin, RoutingSnapshot

#: States of a rollout whose challenger has been champion.
_WAS_CHAMPION = frozenset({State.CHAMPION, State.SUPERSEDED, State.RETIRED})


def set_pin(ports: Ports, decision_point: str, pin: Pin, *, now: datetime) -> Pin:
    """Let one release answer the pinned units until the pin expires; the same pin again changes nothing.

    Raises RefusedError for a release that never served, an expired pin, or one that contradicts another.
    """
    release = ports.store.release(pin.release_id).release
    pin = replace(pin, release_id=release.id)
    if release.decision_point != decision_point:
        raise RefusedError(f"release {short(release.id)} decides for {release.decision_point!r}; pin one that serves")
    if now >= pin.expires_at:
        raise RefusedError(f"pin: expires {pin.expires_at:%Y-%m-%d %H:%M}, which is over; give a later time")

    def with_pin(present: RoutingSnapshot) -> tuple[RoutingSnapshot, Record] | None:
        if pin in present.pins:
            return None
        _require_proven(ports, present, release.id)
        try:
            changed = replace(present, pins=(*present.pins, pin))
        except ValueError as error:
            raise RefusedError(f"pin: {error}; lift the other one first") from error
        return changed, _record(present, pin, "pin.set", by=pin.by, reason=pin.reason, now=now)

    change_orders(ports, decision_point, with_pin, now=now)
    return pin


def lift_pin(ports: Ports, decision_point: str, pin: Pin, *, reason: str, actor: str, now: datetime) -> None:
    """Take a pin back; raises NotFoundError when it does not stand."""

    def without(present: RoutingSnapshot) -> tuple[RoutingSnapshot, Record]:
        if pin not in present.pins:
            raise NotFoundError(f"decision point {decision_point!r}: found no such pin; it was lifted or has expired")
        changed = replace(present, pins=tuple(each for each in present.pins if each != pin))
        return changed, _record(present, pin, "pin.lifted", by=actor, reason=reason, now=now)

    change_orders(ports, decision_point, without, now=now)


def _require_proven(ports: Ports, present: RoutingSnapshot, release_id: str) -> None:
    """Refuse to pin units to a release that answers nobody now and was never champion: a pin is no way past gates."""
    rollouts = ports.store.rollouts(present.decision_point)
    proven = {present.champion, present.fallback, *(r.champion for r in rollouts)}
    proven |= {r.challenger for r in rollouts if r.state in _WAS_CHAMPION}
    if present.slots and present.challenger is not None:
        proven.add(present.challenger)
    if release_id not in proven:
        raise RefusedError(f"release {short(release_id)}: never served; pin units to one that serves or was champion")


def _record(present: RoutingSnapshot, pin: Pin, kind: str, *, by: str, reason: str, now: datetime) -> Record:
    key = f"{present.decision_point}/{present.number + 1}/{kind}"
    # A unit's key may be personal data: the ledger names the pin by digest, the snapshot holds it until it expires.
    body = {"pin": digest_of(pin.document()), "release_id": pin.release_id, "reason": reason}
    return Record(now, kind, by, present.decision_point, present.rollout_id, key, body)
