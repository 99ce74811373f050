"""Signed snapshots: a data plane takes only what a key that it knows has signed.

A signature is the text ``key id:base64`` over the canonical document of the snapshot, lease included. Keys are
Ed25519, where routers hold only the public half, or HMAC-SHA-256, where both sides hold one secret. Several keys may
be valid at once, so that a new one is handed out before the old one is withdrawn.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from types import NoneType
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.exceptions import InvalidSignature

from seatrial.errors import TamperedError
from seatrial.routing.snapshot import RoutingSnapshot
from seatrial.routing.written import require_kinds
from seatrial.units import canonical, short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class SigningKey(Protocol):
    """What signs."""

    @property
    def id(self) -> str:
        """Name of the key, without a colon."""

    def sign(self, content: bytes) -> bytes:
        """Return the signature of `content`."""


class CheckingKey(Protocol):
    """What checks a signature."""

    def is_signature(self, signature: bytes, content: bytes) -> bool:
        """Return whether `signature` is this key's on `content`."""


@dataclass(frozen=True, slots=True)
class HmacKey:
    """A secret of both sides; whoever can check can also sign."""

    id: str
    secret: bytes

    def sign(self, content: bytes) -> bytes:
        """Return the signature of `content`."""
        return hmac.digest(self.secret, content, "sha256")

    def is_signature(self, signature: bytes, content: bytes) -> bool:
        """Return whether `signature` is this key's on `content`."""
        return hmac.compare_digest(signature, self.sign(content))


@dataclass(frozen=True, slots=True)
class Ed25519Key:
    """The private half of a key pair."""

    id: str
    private: Ed25519PrivateKey

    def sign(self, content: bytes) -> bytes:
        """Return the signature of `content`."""
        return self.private.sign(content)


@dataclass(frozen=True, slots=True)
class Ed25519Check:
    """The public half of a key pair."""

    public: Ed25519PublicKey

    def is_signature(self, signature: bytes, content: bytes) -> bool:
        """Return whether `signature` is this key's on `content`."""
        try:
            self.public.verify(signature, content)
        except InvalidSignature:
            return False
        return True


def signed(snapshot: RoutingSnapshot, key: SigningKey) -> RoutingSnapshot:
    """Return `snapshot` with the signature of `key`."""
    signature = b64encode(key.sign(canonical(snapshot.document()))).decode()
    return replace(snapshot, signature=f"{key.id}:{signature}")


def sealed(snapshot: RoutingSnapshot) -> dict[str, Any]:
    """Return `snapshot` with its signature as plain data, as it travels."""
    return {"snapshot": snapshot.document(), "signature": snapshot.signature}


def unsealed(document: object) -> RoutingSnapshot:
    """Return the snapshot that `sealed` wrote, its signature unchecked; raises ValueError for anything else."""
    read = require_kinds("sealed snapshot", document, {"snapshot": (dict,), "signature": (str, NoneType)})
    return replace(RoutingSnapshot.of_document(read["snapshot"]), signature=read["signature"])


def require_signed(snapshot: RoutingSnapshot, keys: Mapping[str, CheckingKey]) -> None:
    """Raise TamperedError unless one of `keys` signed `snapshot` as it is."""
    place = f"snapshot {snapshot.number} of {snapshot.decision_point!r}"
    known = f"expected one of the keys {', '.join(sorted(keys)) or 'none'}"
    if snapshot.signature is None:
        raise TamperedError(f"{place}: found no signature; {known}; call the person who owns the control plane")
    name, _, text = snapshot.signature.partition(":")
    key = keys.get(name)
    if key is None:
        raise TamperedError(f"{place}: signed by {name!r}; {known}; hand the key out, or call its owner")
    try:
        signature = b64decode(text, validate=True)
    except ValueError:
        signature = b""
    if not key.is_signature(signature, canonical(snapshot.document())):
        raise TamperedError(
            f"{place}: found a signature that is not of {name!r} on {short(snapshot.digest)}; expected what was"
            " published; call the person who owns the control plane"
        )
