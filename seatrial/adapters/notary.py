"""What the settings say about the ledger's checkpoints: its name, its keys, and where they are anchored."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pydantic import Field

from seatrial.adapters.anchors import FileAnchor, GitAnchor
from seatrial.adapters.keys import keyring, signing_key
from seatrial.checkpoints import VerifierKey
from seatrial.documents import Checked, Flaw, Moment, Text
from seatrial.errors import InvalidDocumentError, Problem
from seatrial.ports import Notary
from seatrial.routing.signing import Ed25519Check, Ed25519Key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from seatrial.ports import Anchor


class LedgerKey(Checked):
    """A public key of the ledger, and when its signatures count."""

    file: Text = Field(description="file of the public key, as PEM")
    since: Moment | None = Field(None, description="from when its signatures count; left out, from the beginning")
    until: Moment | None = Field(None, description="until when its signatures count; left out, it is still in use")


class AnchorSettings(Checked):
    """One place outside the database that keeps checkpoints."""

    file: Text | None = Field(None, description="a file that is appended to")
    git: Text | None = Field(None, description="a git repository; made when it is not there")
    plugin: Text | None = Field(None, description="module:function of Python that returns an anchor, such as a bucket")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that it is one place."""
        yield self._is_one_place()

    def _is_one_place(self) -> Iterator[Flaw]:
        places = [name for name in ("file", "git", "plugin") if getattr(self, name) is not None]
        if len(places) != 1:
            found = " and ".join(places) or "none"
            yield Flaw((), f"found {found}, expected one of file, git and plugin", "keep one")

    def open(self, base: Path) -> Anchor:
        """Return the anchor; paths start at `base`."""
        if self.file is not None:
            return FileAnchor(base / self.file)
        if self.git is not None:
            return GitAnchor(base / self.git)
        module, _, name = str(self.plugin).partition(":")
        try:
            anchor: Anchor = getattr(import_module(module), name)()
        except (ImportError, AttributeError, ValueError) as error:
            remedy = "write it like package.module:function, and install the package"
            raise InvalidDocumentError([Problem(f"anchor {self.plugin!r}", f"not found: {error}", remedy)]) from error
        return anchor


class LedgerSettings(Checked):
    """Signed checkpoints of the ledger."""

    origin: Text = Field(description="the ledger's name in every checkpoint, such as ships.example/ledger, for ever")
    key: Text | None = Field(None, description="file of the key that signs; left out, checkpoints are only checked")
    keys: tuple[LedgerKey, ...] = Field(description="every public key that signs or ever signed, the present one too")
    anchors: tuple[AnchorSettings, ...] = Field((), description="places outside the database that keep checkpoints")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that the name fits on a line of a signed note."""
        yield self._name_is_one_word()

    def _name_is_one_word(self) -> Iterator[Flaw]:
        if any(character.isspace() or character == "+" for character in self.origin):
            yield Flaw(("origin",), f"found {self.origin!r}, expected no space and no +", "write it like an address")

    def open(self, base: Path) -> Notary:
        """Return what makes and checks checkpoints; raises InvalidDocumentError for a key of another kind."""
        private = None
        if self.key is not None:
            key = signing_key(base / self.key)
            if not isinstance(key, Ed25519Key):
                raise _unfit(base / self.key)
            private = key.private
        keys = tuple(self._verifier(base, each) for each in self.keys)
        return Notary(self.origin, keys, private, tuple(anchor.open(base) for anchor in self.anchors))

    def _verifier(self, base: Path, key: LedgerKey) -> VerifierKey:
        (check,) = keyring([base / key.file]).values()
        if not isinstance(check, Ed25519Check):
            raise _unfit(base / key.file)
        return VerifierKey(self.origin, check.public.public_bytes_raw(), key.since, key.until)


def _unfit(path: Path) -> InvalidDocumentError:
    return InvalidDocumentError([Problem(str(path), "found a secret of HMAC, expected an Ed25519 key", "make another")])
