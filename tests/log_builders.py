"""Rows of the logs, and what the files of a log hold."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from builders import HOUR, POINT, T0

from seatrial.adapters.log_files import present_files
from seatrial.adapters.logs import LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path

    import pytest

    from seatrial.adapters.log_intake import Flushed


def a_row(at: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a decision of the champion about a unit of its own, `at` hours after T0."""
    row = {
        "decision_id": f"d{at}",
        "ts": T0 + at * HOUR,
        "decision_point": POINT,
        "rollout_id": "r1",
        "snapshot_no": 2,
        "stage": 2,
        "release_id": "champion" if changes.get("arm", "champion") == "champion" else "challenger",
        "arm": "champion",
        "share": 0.05,
        "segment": "everyone",
        "unit_key": f"u{at}",
        "feature_digest": "sha256:f",
        "action_recommended": "none",
        "action_taken": "none",
        "authority": "DECIDE",
        "latency_ms": 1.0,
        "outcome": "ok",
        "feature_misses": 0,
        "origin": "EWR",
    }
    return {**row, **changes}


def a_label(at: int = 0, **changes: Any) -> dict[str, Any]:
    """Return the label of the decision `at` hours after T0, an hour later."""
    arrived = T0 + at * HOUR + HOUR
    return {"decision_id": f"d{at}", "name": "late", "value": 1.0, "fact_at": arrived, "arrived_at": arrived, **changes}


class CutOffError(BaseException):
    """The power goes: nothing that comes after it happens, not even clearing up."""


class Power:
    """Lets a number of changes to the disk happen, then none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, changes: int) -> None:
        self.left = changes
        for name in ("replace", "unlink", "rename", "rmdir"):
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name)))

    def _guarded(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise CutOffError
            return real(*args, **options)

        return act


def cut_off_at(monkeypatch: pytest.MonkeyPatch, changes: int, act: Callable[[], object]) -> bool:
    """Do `act` until the power goes; return whether it went."""
    with monkeypatch.context() as patch:
        power = Power(patch, changes)
        with suppress(CutOffError):
            act()
        return power.left < 0


class ClockAt:
    """A clock that a test sets."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        """Return the time that the test set."""
        return self.at


def write(
    root: Path, rows: Iterable[dict[str, Any]] = (), labels: Iterable[dict[str, Any]] = (), **options: Any
) -> Flushed:
    """Write one batch."""
    writer = LogWriter(root, POINT, options.pop("attributes", ("origin",)), **options)
    for row in rows:
        writer.decision(row)
    for label in labels:
        writer.label(label)
    return writer.flush()


def files(root: Path, kind: str = "decisions") -> list[Path]:
    """Return every file of a log, whether it counts or not."""
    return sorted((root / kind).rglob("*.parquet"))


def rows_of(root: Path, kind: str = "decisions") -> list[dict[str, Any]]:
    """Return the rows of a log as a reader sees them, in an order of their own."""
    folders = sorted(root.glob(f"{kind}/decision_point=*/date=*"))
    tables = [pq.read_table(path, partitioning=None) for folder in folders for path in present_files(folder)]
    return sorted((row for table in tables for row in table.to_pylist()), key=repr)


def all_bytes(root: Path) -> bytes:
    """Return everything that lies below `root`, hidden files too."""
    return b"\n".join(path.name.encode() + path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())
