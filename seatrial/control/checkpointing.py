"""Make checkpoints of the ledger, keep them outside the database, and erase texts that must not stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.checkpoints import Checkpoint, open_note, signed_note
from seatrial.errors import NotFoundError, RefusedError, TamperedError
from seatrial.ledger import ERASED, ERASURE, Record, withheld
from seatrial.merkle import leaf_of, root
from seatrial.units import format_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from seatrial.ledger import Entry
    from seatrial.ports import Notary, Ports


def checkpoint(ports: Ports, *, now: datetime) -> Checkpoint | None:
    """Sign the ledger as it is if it grew, give every anchor what it lacks, and return the newest checkpoint.

    None where no key is configured, or nothing was ever recorded. May be cut off anywhere and called again; two at once
    sign the same. Raises TamperedError, and signs nothing, when the ledger does not continue what was signed before;
    UnavailableError when an anchor does not answer, after the others were given theirs.
    """
    notary = ports.notary
    if notary is None or notary.private is None:
        return None
    notes = ports.store.checkpoints()
    last = open_note(notes[-1], notary.keys) if notes else None
    size, _ = ports.store.head()
    if size != (0 if last is None else last.size):
        _sign(ports, notary, last, now=now)
        notes = ports.store.checkpoints()
    _publish(notary, notes)
    return open_note(notes[-1], notary.keys) if notes else None


def _sign(ports: Ports, notary: Notary, last: Checkpoint | None, *, now: datetime) -> None:
    leaves = [leaf_of(entry_hash) for entry_hash in ports.store.hashes()]
    if last is not None and (len(leaves) < last.size or root(leaves[: last.size]) != last.root):
        raise TamperedError(
            f"ledger of {len(leaves)} entries: does not begin with the {last.size} that were signed at"
            f" {format_time(last.at)}; stop promoting and call the person who owns the ledger"
        )
    made = Checkpoint(notary.origin, len(leaves), root(leaves), now)
    if notary.private is None:
        raise RefusedError(f"ledger {notary.origin}: no key that signs; name one under ledger.key")
    note = signed_note(made, notary.private)
    open_note(note, notary.keys)  # a key that nobody accepts would make checkpoints that prove nothing
    ports.store.add_checkpoint(made.size, note, now=now)


def _publish(notary: Notary, notes: Sequence[str]) -> None:
    """Give each anchor the notes that it lacks; one that does not answer keeps none of the others waiting."""
    silent: Exception | None = None
    for anchor in notary.anchors:
        try:
            kept = set(anchor.notes())
            for note in notes:
                if note not in kept:
                    anchor.publish(int(note.split("\n", 2)[1]), note)
        except Exception as error:  # noqa: BLE001 an anchor is foreign code; the error goes on up once the others have theirs
            silent = error
    if silent is not None:
        raise silent


def erase(ports: Ports, numbers: Sequence[int], *, reason: str, actor: str, now: datetime) -> Record:
    """Forget the texts of the entries with these `numbers` for ever, and return the record that says so.

    A later entry may repeat an earlier one's words: every entry of the same decision point that holds one of the texts
    is erased too, and so are the reasons of its rollouts, looks and batch outputs. `reason` is kept; write no personal
    data into it. Raises NotFoundError for an unknown number, RefusedError for an entry that holds no text outside the
    chain. Erasing what was erased changes nothing.
    """
    entries = {entry.number: entry for entry in ports.store.entries()}
    for number in numbers:
        if number not in entries:
            raise NotFoundError(f"ledger entry {number}: not found; the ledger has {len(entries)}")
        if entries[number].seal is None:
            raise RefusedError(f"ledger entry {number}: holds no text outside the chain; there is nothing to erase")
    points = {entries[number].record.decision_point for number in numbers}
    if len(points) != 1:
        raise RefusedError(f"ledger entries of {', '.join(sorted(points))}: erase those of one at a time")
    (point,) = points
    texts = {text for number in numbers for text in withheld(entries[number].record)[1].values()} - {ERASED}
    repeated = [e.number for e in entries.values() if e.record.decision_point == point and _repeats(e, texts)]
    gone = sorted({*numbers, *repeated})
    key = f"ledger/erased/{'-'.join(map(str, gone))}"
    record = Record(now, ERASURE, actor, point, None, key, {"numbers": gone, "because": reason})
    ports.store.erase(gone, texts, [record])
    return record


def _repeats(entry: Entry, texts: Iterable[str]) -> bool:
    held = withheld(entry.record)[1].values() if entry.seal is not None else ()
    return any(text in each for text in texts for each in held)
