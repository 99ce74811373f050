"""Snapshots in a folder: one file for each decision point, replaced in one piece.

A reader sees the old file or the new one. A file that was torn all the same, by a disk that lost power, is no
snapshot, and its reader keeps the one it holds.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.adapters.reports import report_document, report_of
from seatrial.errors import NotFoundError, TamperedError, UnavailableError
from seatrial.routing.signing import sealed, unsealed
from seatrial.units import canonical, digest_bytes, short

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from seatrial.ports import RouterReport, SnapshotFeed
    from seatrial.routing import RoutingSnapshot

_REPORTS = "reports"


@dataclass(frozen=True, slots=True)
class FileFeed:
    """Snapshots and reports in the files of a folder that control plane and routers share."""

    folder: Path

    def snapshot(self, decision_point: str) -> RoutingSnapshot:
        """Return the snapshot in the file; raises NotFoundError, UnavailableError or TamperedError."""
        path = _place(self.folder, decision_point)
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"{path}: found no file; expected a snapshot; publish {decision_point!r}") from error
        except OSError as error:
            raise UnavailableError(f"{path}: {error.strerror}; give the router leave to read it") from error
        try:
            return unsealed(json.loads(content))
        except (ValueError, RecursionError) as error:
            raise TamperedError(f"{path}: found no sound snapshot ({error}); publish it again") from error

    def publish(self, snapshot: RoutingSnapshot) -> None:
        """Replace the decision point's file; raises UnavailableError when the disk refuses, and the old one stays."""
        write_whole(_place(self.folder, snapshot.decision_point), canonical(sealed(snapshot)))

    def report(self, report: RouterReport) -> None:
        """Replace the router's file; raises UnavailableError when the disk refuses."""
        path = _place(self.folder / _REPORTS / _name(report.decision_point), report.router)
        write_whole(path, canonical(report_document(report)))

    def reports(self) -> Sequence[RouterReport]:
        """Return the last report of each router; a file that is none is passed over, for it observes nothing."""
        found = []
        for path in sorted((self.folder / _REPORTS).glob("*/*.json")):
            with suppress(OSError, ValueError):
                found.append(report_of(json.loads(path.read_bytes())))
        return found


@dataclass(frozen=True, slots=True)
class KeptFeed:
    """Another feed, whose last snapshots are kept in a folder: a router starts while its control plane is gone."""

    feed: SnapshotFeed
    kept: FileFeed

    def snapshot(self, decision_point: str) -> RoutingSnapshot:
        """Return what the feed has, or without an answer what is kept."""
        try:
            snapshot = self.feed.snapshot(decision_point)
        except UnavailableError:
            with suppress(NotFoundError):
                return self.kept.snapshot(decision_point)
            raise
        with suppress(UnavailableError):  # a full disk must not keep a snapshot from being served
            self.kept.publish(snapshot)
        return snapshot

    def report(self, report: RouterReport) -> None:
        """Say what a router serves, to the feed."""
        self.feed.report(report)


def _place(folder: Path, name: str) -> Path:
    return folder / f"{_name(name)}.json"


def _name(name: str) -> str:
    """Return a file's name for `name`, which people chose: it never leaves the folder, and two never share one."""
    plain = "".join(c for c in name if c.isascii() and (c.isalnum() or c in "-_"))
    return plain if plain == name else f"{plain}-{short(digest_bytes(name.encode()))}"


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path`, all of it or nothing; raises UnavailableError when the disk refuses."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UnavailableError(f"{path}: {error.strerror}; free the disk or give leave to write") from error
