"""What waits to be written: rows from any thread, sealed into batches that are written once or again, never mixed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from seatrial.adapters.log_schema import LABEL_ROWS, QUARANTINE_ROWS, LogKind, faults, require_known, turned_away

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from seatrial.adapters.log_schema import RowFormat
    from seatrial.ports import Clock

    Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Flushed:
    """What a flush wrote."""

    written: int = 0  #: rows of the decision and the label log
    quarantined: int = 0  #: rows that did not fit

    def __add__(self, other: Flushed) -> Flushed:
        return Flushed(self.written + other.written, self.quarantined + other.quarantined)


class DecisionLog(Protocol):
    """Where a service leaves what it decided and what turned out to be true."""

    def decision(self, row: Row) -> None:
        """Add one row of the decision log; raises InvalidDocumentError for a column that it does not have."""

    def label(self, row: Row) -> None:
        """Add one row of the label log; raises InvalidDocumentError for a column that it does not have."""

    def flush(self) -> Flushed:
        """Write what was added; what could not be written is written by the next flush."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are written together; the same batch again must change nothing."""

    parts: tuple[tuple[RowFormat, Sequence[Row]], ...]  #: decisions, labels, quarantine
    seen_at: datetime | None  #: by the writer's clock, or without one the newest time of its rows

    @property
    def flushed(self) -> Flushed:
        """What is written with this batch."""
        sizes = {of.kind: len(rows) for of, rows in self.parts}
        return Flushed(sizes[LogKind.DECISIONS] + sizes[LogKind.LABELS], sizes[LogKind.QUARANTINE])


@dataclass(slots=True)
class Intake:
    """Rows of one decision point on their way to disk."""

    decision_point: str
    decisions: RowFormat
    clock: Clock | None
    max_rows: int | None
    _lock: Lock = field(default_factory=Lock, init=False)
    _waiting: list[tuple[RowFormat, Row]] = field(default_factory=list, init=False)
    _sealed: deque[Batch] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError(f"max_rows {self.max_rows}: expected 1 or more, or None")

    def add(self, row: Row, of: RowFormat) -> bool:
        """Keep a copy of `row` and return whether as many wait as may; refuses a column that the log does not have."""
        require_known(row, of)
        with self._lock:
            self._waiting.append((of, dict(row)))
            return self.max_rows is not None and len(self._waiting) >= self.max_rows

    def batches(self) -> Iterator[Batch]:
        """Seal what waits, and give every batch that is not written yet; one is dropped when the next is asked for.

        A batch that could not be written stays as it is. Joined with later rows it would get another name, and what
        was written of it would be there twice.
        """
        # A clock that does not answer must not cost a row.
        now = None if self.clock is None else self.clock.now()
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if waiting:
            self._sealed.append(self._seal(waiting, now))
        while self._sealed:
            yield self._sealed[0]
            self._sealed.popleft()

    def _seal(self, waiting: Sequence[tuple[RowFormat, Row]], now: datetime | None) -> Batch:
        fit: dict[LogKind, list[Row]] = {self.decisions.kind: [], LABEL_ROWS.kind: []}
        bad, newest = [], now
        for of, row in waiting:
            if found := faults(row, of, decision_point=self.decision_point, now=now):
                bad.append((of.kind, row, found))
                continue
            fit[of.kind].append(row)
            if now is None:
                newest = row[of.time] if newest is None else max(newest, row[of.time])
        away = [turned_away(kind, row, found, newest) for kind, row, found in bad]
        kept = ((of, fit[of.kind]) for of in (self.decisions, LABEL_ROWS))
        return Batch((*kept, (QUARANTINE_ROWS, away)), newest)
