"""Hand the ledger out: entries as the chain holds them, checkpoints, what anchors keep, proofs of single entries."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from seatrial.errors import NotFoundError, RefusedError
from seatrial.ledger import withheld
from seatrial.merkle import consistency, inclusion, leaf_of
from seatrial.statements import statement
from seatrial.units import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.ledger import Entry
    from seatrial.ports import Ports


def entry_document(entry: Entry) -> dict[str, Any]:
    """Return an entry with everything that a verifier needs."""
    kept, texts = withheld(entry.record) if entry.seal is not None else (entry.record, {})
    salt = None if entry.seal is None else entry.seal.salt
    return {
        "number": entry.number,
        "previous": entry.previous,
        "hash": entry.hash,
        "record": kept.document(),
        "withheld": None if entry.seal is None else entry.seal.digest,
        "salt": salt,
        "texts": None if salt is None else texts,
    }


def exported(ports: Ports) -> Mapping[str, str]:
    """Return the files of an export by name: JSON lines, and the public keys as lines of text."""
    notary = ports.notary
    anchors = () if notary is None else notary.anchors
    return {
        "ledger.jsonl": _lines(map(entry_document, ports.store.entries())),
        "checkpoints.jsonl": _lines({"note": note} for note in ports.store.checkpoints()),
        "anchors.jsonl": _lines({"anchor": a.name, "note": note} for a in anchors for note in a.notes()),
        "keys.txt": keys_text(ports),
    }


def keys_text(ports: Ports) -> str:
    """Return the ledger's public keys, one on each line, as the verifier reads them."""
    return "".join(f"{key.line()}\n" for key in (() if ports.notary is None else ports.notary.keys))


def proof_of(ports: Ports, number: int) -> dict[str, Any]:
    """Return what proves entry `number` to be in the newest checkpoint, without showing any other entry.

    Raises NotFoundError for an unknown number, RefusedError when no checkpoint holds it yet.
    """
    notes, hashes = ports.store.checkpoints(), ports.store.hashes()
    entries = [entry for entry in ports.store.entries() if entry.number == number]
    if not entries:
        raise NotFoundError(f"ledger entry {number}: not found; the ledger has {len(hashes)}")
    sizes = [int(note.split("\n", 2)[1]) for note in notes]
    if not sizes or sizes[-1] < number:
        raise RefusedError(f"ledger entry {number}: in no checkpoint yet; make one with `seatrial audit checkpoint`")
    leaves = [leaf_of(each) for each in hashes[: sizes[-1]]]
    held = next(at for at, size in enumerate(sizes) if size >= number)
    return {
        "entry": entry_document(entries[0]),
        "statement": statement(entries[0]),
        "checkpoint": notes[-1],
        "inclusion": {"index": number - 1, "size": sizes[-1], "path": _encoded(inclusion(leaves, number - 1))},
        "first_checkpoint": notes[held],
        "consistency": {
            "size": sizes[held],
            "later_size": sizes[-1],
            "path": _encoded(consistency(leaves, sizes[held])),
        },
    }


def _encoded(path: Iterable[bytes]) -> list[str]:
    return [b64encode(node).decode() for node in path]


def _lines(documents: Iterable[Mapping[str, Any]]) -> str:
    return "".join(f"{canonical(dict(document)).decode()}\n" for document in documents)
