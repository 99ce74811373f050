"""Waivers as the ledger has them: who let which exact answer of a gate pass, why, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.units import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from seatrial.ledger import Entry

#: Kind of the record that a gate was waived.
WAIVED = "gate.waived"


@dataclass(frozen=True, slots=True)
class Waived:
    """One waiver; it is shown for ever, and counts until it ends."""

    gate: str
    by: str
    reason: str
    at: datetime
    expires: datetime
    digest: str  #: of the answer that was waived; another answer is not

    @property
    def fact(self) -> str:
        """The waiver without the person's own words, which may have to be erased and stand in no finding."""
        return f"waived by {self.by} until {self.expires:%Y-%m-%d %H:%M} UTC"

    @property
    def words(self) -> str:
        """The waiver in one clause, for people."""
        return f"{self.fact}: {self.reason}"


def waived_of(entries: Iterable[Entry]) -> list[Waived]:
    """Return every waiver in `entries`, ended ones too, in the order in which they were given."""
    return [
        Waived(
            body["gate"],
            entry.record.actor,
            body["reason"],
            entry.record.at,
            parse_time(body["expires"]),
            body["digest"],
        )
        for entry in entries
        if entry.record.kind == WAIVED
        for body in [entry.record.body]
    ]
