"""What a snapshot may hold that Envoy cannot do; it is refused before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.adapters.envoy.settings import is_header
from seatrial.errors import InvalidDocumentError, Problem
from seatrial.routing import KillScope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.adapters.envoy.settings import EnvoySettings
    from seatrial.routing import RoutingSnapshot

#: Killed segments at once: each doubles the routes.
_SEGMENTS = 6


def require_expressible(snapshot: RoutingSnapshot, settings: EnvoySettings) -> None:
    """Raise InvalidDocumentError with everything in `snapshot` that Envoy cannot do."""
    problems = [*_servers(snapshot, settings), *_orders(snapshot), *_texts(snapshot, settings)]
    if problems:
        raise InvalidDocumentError(problems)


def _servers(snapshot: RoutingSnapshot, settings: EnvoySettings) -> Iterator[Problem]:
    for release_id in sorted(snapshot.releases() - settings.releases.keys()):
        yield Problem(_place(snapshot), f"found release {release_id}, of no known address", "add it under releases")


def _orders(snapshot: RoutingSnapshot) -> Iterator[Problem]:
    place = _place(snapshot)
    orders = [kill for kill in snapshot.kills if not kill.is_drill]
    for kill in orders:
        if kill.scope is KillScope.ACTION:
            finding = f"found order {kill.id} on action {kill.name!r}, expected none: Envoy sees no action"
            yield Problem(place, finding, "kill the release or the decision point")
    if sum(kill.scope is KillScope.SEGMENT for kill in orders) > _SEGMENTS:
        finding = f"found more than {_SEGMENTS} killed segments"
        yield Problem(place, finding, "kill the decision point")
    if snapshot.shadow and snapshot.budget is not None and snapshot.budget.max_per_s is not None:
        finding = "found a limit of copies a second, which Envoy cannot keep"
        yield Problem(place, finding, "limit max_concurrent and sampling instead")


def _texts(snapshot: RoutingSnapshot, settings: EnvoySettings) -> Iterator[Problem]:
    rules = [snapshot.when, *(pin.when for pin in snapshot.pins), *(kill.when for kill in snapshot.kills)]
    for column in sorted({column for when in rules for column in when}):
        if not is_header(settings.header_of(column)):
            finding = f"found column {column!r}, whose name makes no header"
            yield Problem(_place(snapshot), finding, "name its header under attributes")
    values = {value for when in rules for allowed in when.values() for value in allowed}
    named = {pin.unit_key for pin in snapshot.pins if pin.unit_key is not None}
    # A salt comes before the key, so that spaces around it are kept.
    for value in sorted(value for value in values | named if not _is_carried(value) or value != value.strip()):
        yield Problem(_place(snapshot), f"found {value!r}, which no header carries", "choose another value")
    if snapshot.slots and not _is_carried(snapshot.salt or "-"):
        yield Problem(_place(snapshot), f"found salt {snapshot.salt!r}, which no header carries", "choose another salt")


def _is_carried(value: str) -> bool:
    return value != "" and value.isprintable()


def _place(snapshot: RoutingSnapshot) -> str:
    return f"snapshot {snapshot.number} of {snapshot.decision_point!r}"
