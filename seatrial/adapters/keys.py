"""Keys in files: a key's name is that of its file, and what signs is readable by its owner alone.

``NAME.key`` signs: an Ed25519 key as PKCS#8 PEM, or the line ``hmac-sha256 HEX``. ``NAME.pub`` checks: the public half
as PEM. A secret of HMAC is both, so that ``NAME.key`` stands in a keyring as well.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from seatrial.errors import InvalidDocumentError, Problem, RefusedError, UnavailableError
from seatrial.routing.signing import Ed25519Check, Ed25519Key, HmacKey

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from seatrial.routing.signing import CheckingKey, SigningKey

_HMAC = b"hmac-sha256 "
#: Bytes of a new secret, and the fewest that one may have: as many as the hash gives.
_SECRET_BYTES = 32
#: Rights of group and others, which a file that signs must not give.
_OPEN = 0o077


def new_key(folder: Path, name: str, *, is_hmac: bool = False) -> tuple[Path, Path]:
    """Make a key and return the file that signs and the one that checks; raises RefusedError when one is there."""
    signs = folder / f"{name}.key"
    checks = signs if is_hmac else folder / f"{name}.pub"
    if signs.exists() or checks.exists():
        raise RefusedError(f"{signs}: a key of this name exists; name another one, old signatures need theirs")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if is_hmac:
        _write(signs, _HMAC + secrets.token_hex(_SECRET_BYTES).encode() + b"\n", mode=0o600)
        return signs, checks
    private = Ed25519PrivateKey.generate()
    _write(signs, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    _write(checks, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), mode=0o644)
    return signs, checks


def signing_key(path: Path) -> SigningKey:
    """Return the key that signs; raises UnavailableError without the file, InvalidDocumentError for an unfit one."""
    content = _read(path)
    if os.name == "posix" and path.stat().st_mode & _OPEN:
        finding = "found a key that others may read, expected one for its owner alone"
        raise InvalidDocumentError([Problem(str(path), finding, f"run chmod 600 {path}, and think of who has read it")])
    if content.startswith(_HMAC):
        return _hmac(path, content)
    try:
        private = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "a private Ed25519 key as PEM, without a password") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise _no_key(path, "a private Ed25519 key as PEM, without a password")
    return Ed25519Key(path.stem, private)


def keyring(paths: Iterable[Path]) -> dict[str, CheckingKey]:
    """Return by name the keys that check; raises as `signing_key` does, and RefusedError for two of one name."""
    keys: dict[str, CheckingKey] = {}
    for path in paths:
        if path.stem in keys:
            raise RefusedError(f"{path}: a second key named {path.stem!r}; rename one, signatures go by the name")
        keys[path.stem] = _checking(path)
    return keys


def _checking(path: Path) -> CheckingKey:
    content = _read(path)
    if content.startswith(_HMAC):
        return _hmac(path, content)
    try:
        public = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "a public Ed25519 key as PEM") from error
    if not isinstance(public, Ed25519PublicKey):
        raise _no_key(path, "a public Ed25519 key as PEM")
    return Ed25519Check(public)


def _hmac(path: Path, content: bytes) -> HmacKey:
    try:
        secret = bytes.fromhex(content.removeprefix(_HMAC).decode("ascii").strip())
    except ValueError as error:
        raise _no_key(path, "hmac-sha256 and a secret as hexadecimal digits") from error
    if len(secret) < _SECRET_BYTES:
        raise _no_key(path, f"a secret of at least {_SECRET_BYTES} bytes")
    return HmacKey(path.stem, secret)


def _no_key(path: Path, expected: str) -> InvalidDocumentError:
    # What was found is not repeated: it may be a secret.
    return InvalidDocumentError([Problem(str(path), f"found something else, expected {expected}", "make a new key")])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}; name a key that can be read") from error


def _write(path: Path, content: bytes, *, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
