"""Places outside the database that keep checkpoints: a file, a git repository, a bucket whose objects are locked.

None of them is asked to be clever: each note that was ever published can be read again, and what is published twice is
kept once. How hard it is to change what they keep is the property of the place, not of this code.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from seatrial.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

#: Seconds that git may take; a repository on a share that hangs must not hang the watch.
_GIT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class FileAnchor:
    """A file that is only appended to, one note as JSON on each line; put it on a disk of somebody else."""

    path: Path

    @property
    def name(self) -> str:
        """The file."""
        return f"file {self.path}"

    def publish(self, size: int, note: str) -> None:
        """Append the note unless it is there."""
        if note in self.notes():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(f"{json.dumps({'size': size, 'note': note})}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UnavailableError(f"anchor {self.name}: {error.strerror}; make it writable") from error

    def notes(self) -> Sequence[str]:
        """Return every note; a line that was cut off by a crash is none."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UnavailableError(f"anchor {self.name}: {error.strerror}; make it readable") from error
        return [note for line in lines if (note := _note_of(line)) is not None]


def _note_of(line: str) -> str | None:
    try:
        note = json.loads(line)["note"]
    except (ValueError, TypeError, KeyError):
        return None
    return note if isinstance(note, str) else None


@dataclass(frozen=True, slots=True)
class GitAnchor:
    """A git repository with one file for each checkpoint, each in a commit of its own; push it where others pull."""

    path: Path

    @property
    def name(self) -> str:
        """The repository."""
        return f"git {self.path}"

    def publish(self, size: int, note: str) -> None:
        """Commit the note unless it is there; another note of the same size is committed beside it, never over it."""
        self._git("init", "--quiet", str(self.path), at=None)
        kept = self._kept()
        if note in kept.values():
            return
        number = sum(name.startswith(f"{size:012d}") for name in kept)
        file = f"{size:012d}.txt" if not number else f"{size:012d}-{number}.txt"
        (self.path / file).write_text(note, encoding="utf-8")
        self._git("add", "--", file)
        self._git("commit", "--quiet", "--only", "-m", f"Checkpoint of the ledger at {size}", "--", file)

    def notes(self) -> Sequence[str]:
        """Return every note that is committed; files that are only in the folder are none."""
        return list(self._kept().values()) if (self.path / ".git").exists() else []

    def _kept(self) -> dict[str, str]:
        # Every version that any commit holds: a note that a later commit takes away or replaces is still there.
        log = self._git("log", "--reverse", "--diff-filter=AM", "--format=", "--raw", "--no-abbrev", is_empty_fine=True)
        kept = {}
        for line in log.splitlines():
            fields, _, file = line.partition("\t")
            kept[f"{file} {fields.split()[3]}"] = self._git("cat-file", "blob", fields.split()[3])
        return kept

    def _git(self, *words: str, at: Path | str | None = "", is_empty_fine: bool = False) -> str:
        where = [] if at is None else ["-C", str(self.path)]
        identity = ["-c", "user.name=seatrial", "-c", "user.email=seatrial@localhost", "-c", "commit.gpgsign=false"]
        try:
            done = subprocess.run(  # noqa: S603 fixed words, no shell
                ["git", *where, *identity, *words],  # noqa: S607 whichever git the machine has
                capture_output=True,
                text=True,
                check=False,
                timeout=_GIT_TIMEOUT_S,
                encoding="utf-8",
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(
                f"anchor {self.name}: git did not answer: {error}; install it, or free it"
            ) from error
        if done.returncode and not (is_empty_fine and "does not have any commits" in done.stderr):
            raise UnavailableError(f"anchor {self.name}: git {words[0]} said {done.stderr.strip()!r}; mend it")
        return done.stdout


class BucketClient(Protocol):
    """The part of a boto3 S3 client that an anchor needs."""

    def put_object(self, **wanted: Any) -> Mapping[str, Any]:
        """Store an object."""

    def get_object(self, **wanted: Any) -> Mapping[str, Any]:
        """Return an object; its ``Body`` has ``read()``."""

    def list_objects_v2(self, **wanted: Any) -> Mapping[str, Any]:
        """Return a page of names under ``Contents``."""


@dataclass(frozen=True, slots=True)
class BucketAnchor:
    """A bucket with object lock: nobody, its owner included, changes or deletes a note before its time is over."""

    client: BucketClient
    bucket: str
    retain_until: Callable[[], datetime]  #: until when a note that is stored now is locked
    prefix: str = "seatrial/"

    @property
    def name(self) -> str:
        """The bucket."""
        return f"bucket {self.bucket}/{self.prefix}"

    def publish(self, size: int, note: str) -> None:
        """Store the note under compliance lock unless it is there."""
        if note in self.notes():
            return
        try:
            self.client.put_object(
                Bucket=self.bucket,
                Key=f"{self.prefix}{size:012d}.txt",
                Body=note.encode(),
                ContentType="text/plain; charset=utf-8",
                # A second note of one size would hide the first from readers who do not ask for versions.
                IfNoneMatch="*",
                ObjectLockMode="COMPLIANCE",
                ObjectLockRetainUntilDate=self.retain_until(),
            )
        except Exception as error:  # edge: what a client raises depends on the client
            raise UnavailableError(
                f"anchor {self.name}: {type(error).__name__}: {error}; look at the bucket"
            ) from error

    def notes(self) -> Sequence[str]:
        """Return every note, by size."""
        try:
            return [self._read(key) for key in self._keys()]
        except Exception as error:  # edge, as above
            raise UnavailableError(
                f"anchor {self.name}: {type(error).__name__}: {error}; look at the bucket"
            ) from error

    def _keys(self) -> list[str]:
        keys: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, **token)
            keys += [each["Key"] for each in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return sorted(keys)
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _read(self, key: str) -> str:
        content: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content.decode()


@dataclass(slots=True)
class MemoryAnchor:
    """An anchor in memory, for tests and studies."""

    name: str = "memory"
    kept: list[str] = field(default_factory=list)

    def publish(self, size: int, note: str) -> None:  # noqa: ARG002 the place of a note is its order here
        """Keep the note unless it is there."""
        if note not in self.kept:
            self.kept.append(note)

    def notes(self) -> Sequence[str]:
        """Return every note."""
        return list(self.kept)
