"""Prove the ledger: chain, texts outside it, tree, checkpoints, anchors and times, and say all that does not fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from seatrial.checkpoints import open_note
from seatrial.control.crosschecking import Fault, crosscheck
from seatrial.errors import TamperedError, UnavailableError
from seatrial.ledger import ERASURE, faults
from seatrial.merkle import leaf_of, roots
from seatrial.units import format_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from seatrial.checkpoints import Checkpoint
    from seatrial.ledger import Entry
    from seatrial.ports import Notary, Ports

#: Clocks of two machines differ, and a gate may answer for an hour; what is further apart was dated by hand.
TOLERANCE = timedelta(hours=1)
#: Events whose time is that of what they report, not of their recording.
_REPORTED = frozenset({"kill.observed"})


class Proof(StrEnum):
    """What is known after an audit."""

    PROVEN = "proven"  #: everything fits, and a checkpoint outside the database says so
    UNPROVEN = "unproven"  #: nothing contradicts, but something that would have to be there did not answer
    TAMPERED = "tampered"


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found."""

    entries: int
    checkpoints: int
    anchored: int  #: size of the largest checkpoint that an anchor keeps and the ledger continues
    faults: tuple[Fault, ...]  #: what is not as it was recorded, or was not recorded
    gaps: tuple[Fault, ...]  #: what could not be proven

    @property
    def proof(self) -> Proof:
        """What is known: no proof is not a good one."""
        if self.faults:
            return Proof.TAMPERED
        return Proof.UNPROVEN if self.gaps else Proof.PROVEN


@dataclass(frozen=True, slots=True)
class _Note:
    place: str
    text: str
    checkpoint: Checkpoint


def audit(ports: Ports) -> Audit:
    """Check everything that the ledger and what keeps its checkpoints can show; nothing is written."""
    store = ports.store
    entries = store.entries()
    found = [Fault("chain", f"entry {at}", what) for at, what in _chain(entries)]
    found += _duplicates(entries)
    found += _head(entries, store.head())
    found += _erased(entries)
    found += _backwards(entries)
    notes: list[_Note] = []
    gaps: list[Fault] = []
    anchored = 0
    if ports.notary is None:
        gaps.append(Fault("unproven", "ledger", "no checkpoints are configured; its end may be missing, or all be new"))
    else:
        for place, texts in _places(ports, ports.notary, gaps):
            for text in texts:
                try:
                    notes.append(_Note(place, text, open_note(text, ports.notary.keys)))
                except TamperedError as error:
                    found.append(Fault("checkpoint", place, str(error)))
        found += _against(notes, entries, ports.notary)
        found += _skewed(notes, entries)
        kept = [note.checkpoint.size for note in notes if note.place != _DATABASE]
        anchored = max((size for size in kept if size <= len(entries)), default=0)
        if anchored < len(entries):
            gaps.append(Fault("unproven", "ledger", f"entries {anchored + 1} to {len(entries)} are at no anchor yet"))
    found += crosscheck(ports, entries)
    count = len({note.checkpoint.size for note in notes})
    return Audit(len(entries), count, anchored, tuple(dict.fromkeys(found)), tuple(gaps))


_DATABASE = "database"


def _places(ports: Ports, notary: Notary, gaps: list[Fault]) -> Iterator[tuple[str, Sequence[str]]]:
    """Give each place that keeps checkpoints with what it keeps; one that does not answer is a gap."""
    yield _DATABASE, ports.store.checkpoints()
    for anchor in notary.anchors:
        try:
            yield f"anchor {anchor.name}", anchor.notes()
        except UnavailableError as error:
            gaps.append(Fault("unanswered", f"anchor {anchor.name}", str(error)))


def _chain(entries: Sequence[Entry]) -> Iterator[tuple[int, str]]:
    for fault in faults(entries):
        yield int(fault.split()[2]), fault


def _duplicates(entries: Sequence[Entry]) -> Iterator[Fault]:
    for key, count in Counter(entry.record.key for entry in entries).items():
        if count > 1:
            yield Fault("duplicate", f"act {key!r}", f"stands {count} times; one act is recorded once")


def _head(entries: Sequence[Entry], head: tuple[int, str]) -> Iterator[Fault]:
    last = (entries[-1].number, entries[-1].hash) if entries else (0, head[1])
    if head[0] > last[0]:
        yield Fault("truncated", f"entry {last[0] + 1}", f"entries to {head[0]} were written; the newest are missing")
    elif head != last:
        yield Fault("chain", "head", f"the head is at entry {head[0]}; the newest entry is {last[0]}")


def _erased(entries: Sequence[Entry]) -> Iterator[Fault]:
    declared: set[int] = set()
    for entry in entries:
        if entry.record.kind == ERASURE:
            declared |= set(entry.record.body.get("numbers", ()))
    for entry in entries:
        if entry.is_erased and entry.number not in declared:
            yield Fault(
                "erased", f"entry {entry.number}", "its texts are gone, and no record says that they were erased"
            )


def _backwards(entries: Sequence[Entry]) -> Iterator[Fault]:
    newest = None
    for entry in entries:
        at = entry.record.at
        if newest is not None and at < newest - TOLERANCE and entry.record.kind not in _REPORTED:
            what = f"dated {format_time(at)}, after an entry of {format_time(newest)}; back-dated, or a clock was wrong"
            yield Fault("back-dated", f"entry {entry.number}", what)
        newest = at if newest is None else max(newest, at)


def _against(notes: Sequence[_Note], entries: Sequence[Entry], notary: Notary) -> Iterator[Fault]:
    """Give the checkpoints that the ledger does not continue, and those that contradict one another."""
    present = roots([leaf_of(entry.hash) for entry in entries], [note.checkpoint.size for note in notes])
    signed: dict[int, set[bytes]] = {}
    for note in notes:
        signed.setdefault(note.checkpoint.size, set()).add(note.checkpoint.root)
    for note in notes:
        size, where = note.checkpoint.size, f"{note.place}, checkpoint {note.checkpoint.size}"
        if note.checkpoint.origin != notary.origin:
            yield Fault("checkpoint", where, f"is of {note.checkpoint.origin!r}; expected {notary.origin!r}")
        elif len(signed[size]) > 1:
            yield Fault("fork", where, f"{len(signed[size])} roots were signed for this size: there are two ledgers")
        elif size not in present:
            yield Fault("truncated", where, f"the ledger has {len(entries)} entries; the newest were cut off")
        elif present[size] != note.checkpoint.root:
            yield Fault("rewritten", where, f"the first {size} entries are not those that were signed")


def _skewed(notes: Sequence[_Note], entries: Sequence[Entry]) -> Iterator[Fault]:
    """Give the entries dated later than a checkpoint that holds them, or earlier than one that does not."""
    ordered = sorted({(note.checkpoint.size, note.checkpoint.at) for note in notes})
    for entry in entries:
        at = entry.record.at
        after = min((moment for size, moment in ordered if size >= entry.number), default=None)
        if after is not None and at > after + TOLERANCE:
            what = f"dated {format_time(at)}, and signed at {format_time(after)} already; a clock was wrong"
            yield Fault("clock", f"entry {entry.number}", what)
        before = max((moment for size, moment in ordered if size < entry.number), default=None)
        if before is not None and at < before - TOLERANCE and entry.record.kind not in _REPORTED:
            what = f"dated {format_time(at)}, and not among what was signed at {format_time(before)}"
            yield Fault("back-dated", f"entry {entry.number}", what)
