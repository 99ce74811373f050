"""Decision and label logs as Parquet files: what is written, and where.

``ROOT/decisions/decision_point=NAME/date=YYYY-MM-DD/part-*.parquet``, one row for each decision served or shadowed,
``ROOT/labels/...`` with one row for each label that arrived, and ``ROOT/quarantine/...`` with one for each row that
did not fit. A file appears under its name only when it is complete and on disk, so that a reader never sees half of
one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from seatrial.adapters.log_files import PART, clear_abandoned, write_whole
from seatrial.adapters.log_intake import Flushed, Intake
from seatrial.adapters.log_schema import LABEL_ROWS, LogKind, decision_rows, table_of
from seatrial.units import digest_of, require_aware

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from seatrial.adapters.log_schema import RowFormat
    from seatrial.ports import Clock

    Row = Mapping[str, Any]

#: Date partition of rows in quarantine of which nobody can say when they came.
UNDATED = "unknown"


@dataclass(slots=True)
class LogWriter:
    """Collects rows of one decision point, from any thread, and writes them as files; `flush` after every batch.

    What a writer that was killed left half-written is deleted when the next one of its decision point is made.
    """

    root: Path
    decision_point: str
    attributes: tuple[str, ...]  #: text columns of the unit that segments and slices are declared on
    clock: Clock | None = None  #: finds rows from the future and dates the quarantine; None does not look
    max_rows: int | None = None  #: rows that wait before they are written unasked; None waits for `flush`
    _intake: Intake = field(init=False)
    _writing: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        self._intake = Intake(self.decision_point, decision_rows(self.attributes), self.clock, self.max_rows)
        for kind in LogKind:
            clear_abandoned(folder_of(self.root, kind, self.decision_point))

    def decision(self, row: Row) -> None:
        """Add one row of the decision log; raises InvalidDocumentError for a column that it does not have."""
        if self._intake.add(row, self._intake.decisions):
            self.flush()

    def label(self, row: Row) -> None:
        """Add one row of the label log; raises InvalidDocumentError for a column that it does not have."""
        if self._intake.add(row, LABEL_ROWS):
            self.flush()

    def flush(self) -> Flushed:
        """Write what was added and say how many rows fitted; the same rows again replace the same files.

        A row that does not fit goes to the quarantine and takes no other one with it. Rows may be added meanwhile.
        After an error of the disk nothing is lost: the next flush begins with the same rows.
        """
        done = Flushed()
        with self._writing:
            for batch in self._intake.batches():
                for of, rows in batch.parts:
                    self._write(of, rows, batch.seen_at)
                done += batch.flushed
        return done

    def _write(self, of: RowFormat, rows: Sequence[Row], seen_at: datetime | None) -> None:
        by_date: defaultdict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_date[_date(row[of.time])].append(row)
        for date, some in sorted(by_date.items()):
            # Two batches may begin and end alike: a name that does not cover every row would replace the other's file.
            identity = of.identity if of.kind is LogKind.QUARANTINE else (*of.identity, of.time)
            name = f"{PART}{digest_of([[str(row[key]) for key in identity] for row in some])[-16:]}.parquet"
            folder = folder_of(self.root, of.kind, self.decision_point)
            path = folder / f"date={date}" / name
            if of.kind is LogKind.QUARANTINE and seen_at is not None:
                # Seen again on another day it is the same row.
                path = next(iter(folder.glob(f"date=*/{name}")), path)
            write_whole(table_of(some, of), path)


def folder_of(root: Path, kind: LogKind, decision_point: str) -> Path:
    """Return where a log of one decision point lies."""
    return root / kind / f"decision_point={decision_point}"


def _date(moment: datetime | None) -> str:
    return UNDATED if moment is None else require_aware(moment).date().isoformat()
