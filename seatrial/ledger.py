"""Hash-chained records of everything decided and done.

Each record's hash covers the hash before it, so that an edit, a deletion or a reordering anywhere breaks every
later link. A record whose `key` is already in the ledger is the same act done again, and is not written twice.

What people wrote in their own words may hold personal data, and must be erasable. Such texts stand outside the chain:
it covers a digest of them and of a salt, which says nothing once the salt is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from seatrial.errors import TamperedError
from seatrial.units import digest_of, format_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

#: Hash before the first record.
GENESIS = digest_of("seatrial ledger")
#: Where a record's body holds a text in somebody's own words.
OWN_WORDS: tuple[tuple[str, ...], ...] = (("reason",), ("answer", "reason"))
#: What the chain covers in place of such a text.
WITHHELD = "[withheld]"
#: What is shown in place of a text that was erased.
ERASED = "[erased]"
#: Event that says which texts were erased.
ERASURE = "ledger.erased"


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
class Seal:
    """What the chain says about texts that it does not hold."""

    digest: str  #: of salt and texts
    salt: str | None  #: None when salt and texts were erased


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with its place in the chain."""

    number: int  #: 1, 2, 3, ...
    record: Record
    previous: str  #: hash of the entry before
    hash: str
    seal: Seal | None = None  #: None when the chain holds the whole record

    @property
    def is_erased(self) -> bool:
        """Whether its texts were erased."""
        return self.seal is not None and self.seal.salt is None


def withheld(record: Record) -> tuple[Record, dict[str, str]]:
    """Return `record` as the chain holds it, and by path the texts that it does not hold."""
    body, texts = dict(record.body), {}
    for *above, name in OWN_WORDS:
        part = _copied(body, above)
        if isinstance(part.get(name), str):
            texts[".".join([*above, name])] = part[name]
            part[name] = WITHHELD
    return (replace(record, body=body), texts) if texts else (record, {})


def restored(record: Record, texts: Mapping[str, str] | None) -> Record:
    """Return `record` as it was before `withheld` took its texts out; without `texts` as one that was erased."""
    body = dict(record.body)
    for *above, name in OWN_WORDS:
        part = _copied(body, above)
        if part.get(name) == WITHHELD:
            part[name] = ERASED if texts is None else texts.get(".".join([*above, name]), ERASED)
    return replace(record, body=body)


def _copied(body: dict[str, Any], path: Iterable[str]) -> dict[str, Any]:
    """Return the part of `body` at `path`, replaced by a copy that may be written to; without one, an empty part."""
    part = body
    for step in path:
        inner = part.get(step)
        if not isinstance(inner, dict):
            return {}
        part[step] = part = dict(inner)
    return part


def seal_of(texts: Mapping[str, str], salt: str) -> Seal:
    """Return the seal on `texts`."""
    return Seal(digest_of({"salt": salt, "texts": dict(texts)}), salt)


def chain(record: Record, *, number: int, previous: str, salt: str | None = None) -> Entry:
    """Return `record` as entry `number` after the entry whose hash is `previous`.

    With a `salt`, texts in somebody's own words stand outside the chain.
    """
    kept, texts = withheld(record)
    seal = seal_of(texts, salt) if texts and salt is not None else None
    link = hash_of(record if seal is None else kept, number=number, previous=previous, seal=seal)
    return Entry(number, record, previous, link, seal)


def hash_of(kept: Record, *, number: int, previous: str, seal: Seal | None) -> str:
    """Return the hash of an entry, from its record as the chain holds it."""
    content = {"number": number, "previous": previous, "record": kept.document()}
    return digest_of(content if seal is None else {**content, "withheld": seal.digest})


def faults(entries: Iterable[Entry]) -> Iterator[str]:
    """Give what is wrong with each of `entries`, by itself and in its place; each later one is held to its own link."""
    previous, number = GENESIS, 0
    for entry in entries:
        number += 1
        is_right = entry.number == number and entry.previous == previous and _is_itself(entry)
        if not is_right:
            yield (
                f"ledger entry {entry.number} ({entry.record.kind}): content, order or link differ from what was"
                f" recorded as entry {number}; stop promoting and call the person who owns the ledger"
            )
        previous, number = entry.hash, entry.number


def verify(entries: Iterable[Entry]) -> int:
    """Return how many entries the chain has, or raise TamperedError at the first one that does not fit."""
    count = 0

    def counted() -> Iterator[Entry]:
        nonlocal count
        for entry in entries:
            count += 1
            yield entry

    for fault in faults(counted()):
        raise TamperedError(fault)
    return count


def _is_itself(entry: Entry) -> bool:
    kept, texts = withheld(entry.record)
    seal = entry.seal
    if seal is None:
        return entry.hash == hash_of(entry.record, number=entry.number, previous=entry.previous, seal=None)
    if seal.salt is not None and seal_of(texts, seal.salt) != seal:
        return False
    return entry.hash == hash_of(kept, number=entry.number, previous=entry.previous, seal=seal)
