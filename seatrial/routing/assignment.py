"""Assignment: which release answers one unit at one moment.

The slot of a unit is ``xxh64(salt + unit key, seed 0) mod 10,000``, which is Envoy's weighted-cluster hash policy on
a header that holds the salted key. The challenger owns the lowest slots, so that a larger share never moves a unit
away from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xxhash import xxh64_intdigest

from seatrial.evidence import Arm
from seatrial.routing.orders import KillMode
from seatrial.units import SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from seatrial.routing.orders import Kill
    from seatrial.routing.snapshot import RoutingSnapshot


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which release answers one unit, and with which probability it was the challenger."""

    release_id: str
    arm: Arm
    share: float  #: challenger's probability at assignment; 0 when the unit was not in the comparison
    snapshot_no: int
    shadow_release_id: str | None  #: release that scores a copy
    kill: Kill | None = None  #: order that keeps every release from answering; `obey` says what happens instead


def slot_of(salt: str, unit_key: str) -> int:
    """Return the slot of a unit, 0 to 9,999.

    >>> slot_of("s", "unit") == slot_of("s", "unit")
    True
    """
    return xxh64_intdigest(f"{salt}{unit_key}".encode()) % SLOTS


def assign(snapshot: RoutingSnapshot, unit_key: str, attributes: Mapping[str, str], *, now: datetime) -> Assignment:
    """Return the assignment of `unit_key` at `now`; in doubt the fallback release answers.

    The lease is checked here, on the serving side, so that a dead control plane ends an experiment by itself. A pin
    outranks the comparison, and a kill outranks both.
    """
    is_drawn = snapshot.slots > 0 and slot_of(snapshot.salt, unit_key) < snapshot.slots
    copied = is_copied(snapshot, unit_key)
    return outcome(snapshot, unit_key, attributes, is_drawn=is_drawn, is_copied=copied, now=now)


def assign_fallback(snapshot: RoutingSnapshot, attributes: Mapping[str, str]) -> Assignment:
    """Return who answers for a release that failed: the fallback release, under the kills."""
    fallback = Assignment(snapshot.fallback, arm_of(snapshot, snapshot.fallback), 0.0, snapshot.number, None)
    return _obeyed(snapshot, fallback, attributes)


def outcome(
    snapshot: RoutingSnapshot,
    unit_key: str | None,
    attributes: Mapping[str, str],
    *,
    is_drawn: bool,
    is_copied: bool,
    now: datetime,
) -> Assignment:
    """Return the assignment of a unit of which it is known whether its slot is the challenger's, and copied.

    Of the unit itself only pins ask, None being one that no pin names: all others with the same attributes and the same
    draw are assigned alike.
    """
    chosen = _chosen(snapshot, unit_key, attributes, is_drawn=is_drawn, is_copied=is_copied, now=now)
    return _obeyed(snapshot, chosen, attributes) if snapshot.kills else chosen


def _obeyed(snapshot: RoutingSnapshot, chosen: Assignment, attributes: Mapping[str, str]) -> Assignment:
    return under_kills(snapshot, chosen, lambda kill, release_id: kill.holds(release_id, attributes))


def _chosen(
    snapshot: RoutingSnapshot,
    unit_key: str | None,
    attributes: Mapping[str, str],
    *,
    is_drawn: bool,
    is_copied: bool,
    now: datetime,
) -> Assignment:
    for pin in snapshot.pins:
        if pin.holds(unit_key, attributes, now=now):
            return Assignment(pin.release_id, arm_of(snapshot, pin.release_id), 0.0, snapshot.number, None)
    takes_part = snapshot.is_in_segment(attributes)
    shadow = snapshot.challenger if takes_part and is_copied else None
    if snapshot.slots and takes_part and snapshot.lease_until is not None and now < snapshot.lease_until:
        if snapshot.challenger is not None and is_drawn:
            return Assignment(snapshot.challenger, Arm.CHALLENGER, snapshot.share, snapshot.number, shadow)
        return Assignment(snapshot.champion, Arm.CHAMPION, snapshot.share, snapshot.number, shadow)
    return Assignment(snapshot.fallback, arm_of(snapshot, snapshot.fallback), 0.0, snapshot.number, shadow)


def is_copied(snapshot: RoutingSnapshot, unit_key: str) -> bool:
    """Return whether the shadow scores a copy; the same units are copied as long as the sampling stays."""
    if not snapshot.shadow:
        return False
    sampling = SLOTS if snapshot.budget is None else snapshot.budget.sampling
    return sampling == SLOTS or slot_of(f"{snapshot.salt}shadow/", unit_key) < sampling


def under_kills(snapshot: RoutingSnapshot, chosen: Assignment, holds: Callable[[Kill, str], bool]) -> Assignment:
    """Return `chosen` under the kills: each may name another release once, so that the search ends.

    `holds` says whether an order means the unit when that release would answer.
    """
    asked = set()
    while True:
        kills = [kill for kill in snapshot.kills if holds(kill, chosen.release_id)]
        if not kills:
            # A kill takes the shadow out of service too.
            shadow = chosen.shadow_release_id
            is_stopped = shadow is not None and any(holds(kill, shadow) for kill in snapshot.kills)
            return replace(chosen, shadow_release_id=None) if is_stopped else chosen
        # What stops every release outranks what names another one.
        kill = next((each for each in kills if each.mode is not KillMode.PREVIOUS_RELEASE), kills[0])
        if kill.to is None or kill.to in asked:
            return replace(chosen, share=0.0, shadow_release_id=None, kill=kill)
        asked.add(kill.to)
        arm = arm_of(snapshot, kill.to)
        chosen = replace(chosen, release_id=kill.to, arm=arm, share=0.0, shadow_release_id=None)


def arm_of(snapshot: RoutingSnapshot, release_id: str) -> Arm:
    """Return the arm of a release; whoever is not the challenger stands on the champion's side."""
    return Arm.CHALLENGER if release_id == snapshot.challenger else Arm.CHAMPION
