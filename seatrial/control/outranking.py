"""Take a release from the units that a standing order sends to it, when it is rolled back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.ledger import Record
from seatrial.routing import Kill, KillMode, KillScope
from seatrial.units import digest_of, format_time, short

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from seatrial.rollout import Rollout
    from seatrial.routing import RoutingSnapshot


def is_ordered(snapshot: RoutingSnapshot, release_id: str, *, now: datetime) -> bool:
    """Return whether a pin or a kill in `snapshot` sends units to `release_id`, and no kill takes it from them."""
    if is_killed(snapshot, release_id):
        return False
    pinned = any(pin.release_id == release_id and now < pin.expires_at for pin in snapshot.pins)
    return pinned or any(kill.to == release_id for kill in snapshot.kills)


def is_killed(snapshot: RoutingSnapshot, release_id: str) -> bool:
    """Return whether a kill of the release itself stands."""
    return any(
        kill.scope is KillScope.RELEASE and kill.name == release_id and not kill.is_drill for kill in snapshot.kills
    )


def outranking(
    present: RoutingSnapshot, ended: Sequence[Rollout], *, reason: str, actor: str, now: datetime
) -> tuple[Kill, ...]:
    """Return the kills that must come with the rollback of `ended`: of each challenger to which an order sends units.

    A pin outranks every share: without a kill its units would stay with a release that was taken out for harm, and a
    router that holds the pin would look safe. The kill says from which snapshot on a router knows better.
    """
    return tuple(
        Kill(
            short(digest_of([present.decision_point, "rolled back", rollout.challenger, format_time(now)])),
            KillScope.RELEASE,
            KillMode.PREVIOUS_RELEASE,
            actor,
            f"rolled back: {reason}",
            now,
            rollout.challenger,
            to=ended[0].champion,
            since=present.number + 1,
        )
        for rollout in ended
        if is_ordered(present, rollout.challenger, now=now)
    )


def kill_records(rollout: Rollout, kills: Sequence[Kill]) -> list[Record]:
    """Return the records of `kills`, which came with the rollback of `rollout`."""
    point = rollout.decision_point
    return [
        Record(kill.at, "kill.ordered", kill.by, point, rollout.id, f"{point}/kill/{kill.id}/ordered", kill.document())
        for kill in kills
    ]
