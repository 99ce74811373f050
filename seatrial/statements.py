"""Ledger entries as in-toto statements, which tools of the software supply chain read.

Source: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seatrial.ledger import withheld

if TYPE_CHECKING:
    from seatrial.ledger import Entry

STATEMENT = "https://in-toto.io/Statement/v1"
#: Beginning of our predicate types; the event follows, as in ``urn:seatrial:predicate:rollout.decided:v1``.
PREDICATES = "urn:seatrial:predicate"


def statement(entry: Entry, *, release: str | None = None) -> dict[str, Any]:
    """Return `entry` as a statement about the release that it names, or about `release`, or about itself.

    A statement without a subject would be one about nothing: an entry that concerns no release is its own subject.
    Texts that stand outside the chain are not in it, so that a statement handed out holds nothing that is erased later.
    """
    subject = release or release_of(entry)
    name, digest = ("release", subject) if subject is not None else ("ledger-entry", entry.hash)
    record, _ = withheld(entry.record) if entry.seal is not None else (entry.record, {})
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": f"{PREDICATES}:{record.kind}:v1",
        "predicate": {
            "number": entry.number,
            "previous": entry.previous,
            "hash": entry.hash,
            "record": record.document(),
            "withheld": None if entry.seal is None else entry.seal.digest,
        },
    }


def release_of(entry: Entry) -> str | None:
    """Return the release that an entry is about, or None when it names none."""
    if entry.record.kind == "release.registered":
        return entry.record.key.removesuffix("/registered")
    body = entry.record.body
    named = (body.get(name) for name in ("challenger", "release_id", "champion"))
    return next((each for each in named if isinstance(each, str) and each.startswith("sha256:")), None)
