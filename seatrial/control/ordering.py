"""Change the standing orders of a decision point: publish the present snapshot with others, whoever publishes too."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from seatrial.control.publishing import parts_in, sealed_by
from seatrial.errors import ConflictError
from seatrial.ports import Commit

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from seatrial.ledger import Record
    from seatrial.ports import Ports
    from seatrial.routing import RoutingSnapshot

#: An order outranks whoever publishes at the same moment.
_ATTEMPTS = 8


def change_orders(
    ports: Ports,
    decision_point: str,
    change: Callable[[RoutingSnapshot], tuple[RoutingSnapshot, Record] | None],
    *,
    now: datetime,
) -> None:
    """Publish what `change` makes of the present snapshot, with its record; None changes nothing.

    `change` is asked again when somebody else published first. Raises NotFoundError for an unknown decision point,
    ConflictError when that goes on and on.
    """
    for _ in range(_ATTEMPTS):
        present = ports.store.snapshot(decision_point)
        wanted = change(present)
        if wanted is None:
            return
        changed, record = wanted
        pins = tuple(pin for pin in changed.pins if now < pin.expires_at)
        numbered = replace(changed, number=present.number + 1, pins=pins)
        whole = replace(numbered, parts=parts_in(ports, numbered.releases(), known=present.parts))
        # Who finds a snapshot in the database must find in the ledger who published exactly this one.
        body = {**record.body, "snapshot": {"number": whole.number, "digest": whole.digest}}
        record = replace(record, body=body)
        try:
            ports.store.commit(Commit(records=(record,), snapshot=sealed_by(ports, whole)))
        except ConflictError:
            continue
        return
    raise ConflictError(f"decision point {decision_point!r}: published {_ATTEMPTS} times meanwhile; run it again")
