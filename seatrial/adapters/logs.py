"""Decision and label logs as Parquet files: what is written, and where.

``ROOT/decisions/decision_point=NAME/date=YYYY-MM-DD/part-*.parquet``, one row for each decision served or shadowed,
and ``ROOT/labels/...`` with one row for each label that arrived. A file appears under its name only when it is
complete and on disk, so that a reader never sees half of one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from seatrial.errors import InvalidDocumentError, Problem
from seatrial.units import digest_of, require_aware

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

_TIME = pa.timestamp("us", tz="UTC")

#: One row for each decision served or shadowed. Attributes of the unit follow as text columns.
DECISIONS = pa.schema(
    [
        pa.field("decision_id", pa.string(), nullable=False),
        pa.field("ts", _TIME, nullable=False),
        pa.field("decision_point", pa.string(), nullable=False),
        pa.field("rollout_id", pa.string()),
        pa.field("snapshot_no", pa.int64(), nullable=False),
        pa.field("stage", pa.int64(), nullable=False),
        pa.field("release_id", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
        pa.field("segment", pa.string(), nullable=False),
        pa.field("unit_key", pa.string(), nullable=False),
        pa.field("feature_digest", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("cut_off", pa.float64()),
        pa.field("rule", pa.string()),
        pa.field("action_recommended", pa.string()),
        pa.field("action_taken", pa.string()),
        pa.field("authority", pa.string(), nullable=False),
        pa.field("latency_ms", pa.float64(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("feature_misses", pa.int64(), nullable=False),
    ]
)
#: One row for each label that arrived; a later arrival of the same label replaces the earlier one.
LABELS = pa.schema(
    [
        pa.field("decision_id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("fact_at", _TIME, nullable=False),
        pa.field("arrived_at", _TIME, nullable=False),
    ]
)
#: Outcomes of a call; everything but the first is a failure of the release that was asked.
OUTCOMES = ("ok", "timeout", "error", "fallback")


@dataclass(slots=True)
class LogWriter:
    """Collects rows of one decision point and writes them as files; `flush` at the end of every batch."""

    root: Path
    decision_point: str
    attributes: tuple[str, ...]  #: text columns of the unit that segments and slices are declared on
    _decisions: list[Mapping[str, Any]] = field(default_factory=list)
    _labels: list[Mapping[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        taken = sorted(set(self.attributes) & set(DECISIONS.names))
        if taken:
            raise ValueError(f"attributes {', '.join(taken)}: names of the decision log itself; rename them")

    def decision(self, row: Mapping[str, Any]) -> None:
        """Add one row of the decision log; columns that are missing or unknown are refused on `flush`."""
        self._decisions.append(row)

    def label(self, row: Mapping[str, Any]) -> None:
        """Add one row of the label log."""
        self._labels.append(row)

    def flush(self) -> int:
        """Write what was added and return the number of rows; the same rows again replace the same files."""
        schema = pa.schema([*DECISIONS, *(pa.field(name, pa.string(), nullable=False) for name in self.attributes)])
        written = self._write("decisions", schema, "ts", ("decision_id", "arm"), self._decisions)
        written += self._write("labels", LABELS, "arrived_at", ("decision_id", "name", "value"), self._labels)
        self._decisions, self._labels = [], []
        return written

    def _write(
        self, kind: str, schema: pa.Schema, time: str, identity: tuple[str, ...], rows: Sequence[Mapping[str, Any]]
    ) -> int:
        _require_complete(rows, schema, kind)
        by_date: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            by_date[_date(row[time])].append(row)
        for date, some in sorted(by_date.items()):
            table = _table(some, schema, kind)
            folder = self.root / kind / f"decision_point={self.decision_point}" / f"date={date}"
            # Two batches may begin and end alike: a name that does not cover every row would replace the other's file.
            name = digest_of([[str(row[key]) for key in (*identity, time)] for row in some])[-16:]
            _write_whole(table, folder / f"part-{name}.parquet")
        return len(rows)


def _date(moment: datetime) -> str:
    return require_aware(moment).strftime("%Y-%m-%d")


def _require_complete(rows: Sequence[Mapping[str, Any]], schema: pa.Schema, kind: str) -> None:
    unknown = sorted({name for row in rows for name in row} - set(schema.names))
    missing = sorted({f.name for f in schema if not f.nullable and any(row.get(f.name) is None for row in rows)})
    problems = [Problem(f"{kind} log, column {name}", "not in the schema", "leave it out") for name in unknown]
    problems += [Problem(f"{kind} log, column {name}", "missing in a row", "it is mandatory") for name in missing]
    times = [f.name for f in schema if f.type == _TIME]
    zoneless = sorted({name for row in rows for name in times if name not in missing and row[name].tzinfo is None})
    problems += [Problem(f"{kind} log, column {name}", "a time without a zone", "give it in UTC") for name in zoneless]
    if problems:
        raise InvalidDocumentError(problems)


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema, kind: str) -> pa.Table:
    try:
        table = pa.Table.from_pylist(list(rows), schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidDocumentError([Problem(f"{kind} log", str(error), "give values of the declared type")]) from error
    return table


def _write_whole(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
