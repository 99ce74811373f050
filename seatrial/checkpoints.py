"""Signed checkpoints of the ledger, in the text form of C2SP tlog-checkpoint and signed-note.

A checkpoint says: at this size the ledger had this root. Published outside the database it binds whoever owns the
database to everything before it.

    seatrial.example/ledger          origin: the name of the ledger
    42                               size
    q5a5t4Ka...=                     root, base64
    at 2013-06-01T00:00:00.000000Z   extension line: when, by the clock of the control plane

    — seatrial.example/ledger Az3grl...=    signature: base64 of key id (4 bytes) and Ed25519 signature (64)

Sources: https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from seatrial.errors import TamperedError
from seatrial.units import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: Kind of signature in key ids and verifier keys.
_ED25519 = b"\x01"
_SIGNATURE_BYTES = 4 + 64


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the ledger was at one moment."""

    origin: str
    size: int
    root: bytes
    at: datetime

    def text(self) -> str:
        """Return the text that is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\nat {format_time(self.at)}\n"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the time in which its signatures count."""

    name: str
    public: bytes  #: 32 bytes
    since: datetime | None = None  #: None: from the beginning
    until: datetime | None = None  #: None: still valid

    @property
    def id(self) -> bytes:
        """The four bytes by which a signature names its key."""
        return key_id(self.name, self.public)

    def holds(self, at: datetime) -> bool:
        """Return whether the key may sign what happened at `at`."""
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)

    def line(self) -> str:
        """Return the key as a line of text: the verifier key, and its validity as ``since=...`` and ``until=...``."""
        words = [f"{self.name}+{self.id.hex()}+{b64encode(_ED25519 + self.public).decode()}"]
        for name, moment in (("since", self.since), ("until", self.until)):
            words += [] if moment is None else [f"{name}={format_time(moment)}"]
        return " ".join(words)


def key_id(name: str, public: bytes) -> bytes:
    """Return the id of an Ed25519 key."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def signed_note(checkpoint: Checkpoint, private: Ed25519PrivateKey) -> str:
    """Return `checkpoint` as a note signed in the name of its origin."""
    public = private.public_key().public_bytes_raw()
    signature = key_id(checkpoint.origin, public) + private.sign(checkpoint.text().encode())
    return f"{checkpoint.text()}\n\N{EM DASH} {checkpoint.origin} {b64encode(signature).decode()}\n"


def read_note(note: str) -> Checkpoint:
    """Return what a note says, its signature unchecked; raises TamperedError for text that is no checkpoint."""
    text, _, _ = note.partition("\n\n")
    lines = text.split("\n")
    try:
        origin, size, encoded, at = lines
        found = Checkpoint(origin, int(size), b64decode(encoded, validate=True), parse_time(at.removeprefix("at ")))
    except ValueError as error:
        raise TamperedError(f"checkpoint: found {text[:80]!r}; expected origin, size, root and time") from error
    if found.text() != f"{text}\n":
        raise TamperedError(f"checkpoint of size {found.size}: found another spelling than the one that is signed")
    return found


def open_note(note: str, keys: Iterable[VerifierKey]) -> Checkpoint:
    """Return what a note says; raises TamperedError unless one of `keys`, valid at its time, signed exactly that."""
    found = read_note(note)
    known = {key.id: key for key in keys if key.name == found.origin}
    _, _, signatures = note.partition("\n\n")
    problem = "found no signature of the ledger's name"
    for line in signatures.splitlines():
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != "\N{EM DASH}" or name != found.origin:
            continue
        try:
            signature = b64decode(encoded, validate=True)
        except ValueError:
            signature = b""
        key = known.get(signature[:4])
        if len(signature) != _SIGNATURE_BYTES or key is None:
            problem = f"signed with key {signature[:4].hex() or 'none'}, which is not among the ledger's"
        elif not key.holds(found.at):
            problem = f"signed with key {key.id.hex()} outside the time in which it is valid"
        elif not _is_signature(key.public, signature[4:], found.text().encode()):
            problem = f"the signature is not of key {key.id.hex()} on this text"
        else:
            return found
    raise TamperedError(
        f"checkpoint of size {found.size}: {problem}; expected a signature of one of"
        f" {', '.join(sorted(each.hex() for each in known)) or 'no key'}; call the person who owns the ledger"
    )


def _is_signature(public: bytes, signature: bytes, content: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True
