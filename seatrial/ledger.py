"""Hash-chained records of everything decided and done.

Each record's hash covers the hash before it, so that an edit, a deletion or a reordering anywhere breaks every
later link. A record whose `key` is already in the ledger is the same act done again, and is not written twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seatrial.errors import TamperedError
from seatrial.units import digest_of, format_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

#: Hash before the first record.
GENESIS = digest_of("seatrial ledger")


@dataclass(frozen=True, slots=True)
class Record:
    """One fact, before it has a place in the chain."""

    at: datetime  #: when it happened, by the clock of the control plane
    kind: str  #: named event, ``noun.verb``
    actor: str  #: who did it: a person, or the part that acted
    decision_point: str
    rollout_id: str | None
    key: str  #: names the act; the same act has the same key
    body: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {
            "at": format_time(self.at),
            "kind": self.kind,
            "actor": self.actor,
            "decision_point": self.decision_point,
            "rollout_id": self.rollout_id,
            "key": self.key,
            "body": dict(self.body),
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with its place in the chain."""

    number: int  #: 1, 2, 3, ...
    record: Record
    previous: str  #: hash of the entry before
    hash: str


def chain(record: Record, *, number: int, previous: str) -> Entry:
    """Return `record` as entry `number` after the entry whose hash is `previous`."""
    link = digest_of({"number": number, "previous": previous, "record": record.document()})
    return Entry(number, record, previous, link)


def verify(entries: Iterable[Entry]) -> int:
    """Return how many entries the chain has, or raise TamperedError at the first one that does not fit."""
    previous, number = GENESIS, 0
    for entry in entries:
        number += 1
        if entry != chain(entry.record, number=number, previous=previous):
            raise TamperedError(
                f"ledger entry {entry.number} ({entry.record.kind}): content, order or link differ from what was"
                f" recorded as entry {number}; stop promoting and call the person who owns the ledger"
            )
        previous = entry.hash
    return number
