"""What a row of each log holds, and what is wrong with a row that does not fit.

A fault belongs to one row and has a stable code, such as ``ts.in_future``: its row goes to the quarantine, all others
are written. A column that the log does not have is a mistake of the program, and refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from seatrial.errors import InvalidDocumentError, Problem
from seatrial.evidence import Arm
from seatrial.units import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    Row = Mapping[str, Any]
    Check = Callable[[str, Any], "Fault | None"]

#: Version of the schemas below, in the metadata of every file.
SCHEMA_VERSION = 1
#: Outcomes of a call; everything but the first is a failure of the release that was asked.
OUTCOMES = ("ok", "timeout", "error", "fallback")
_ARMS = frozenset(Arm)
#: How far a row may be ahead of the writer's clock, for clocks of serving machines differ.
AHEAD = timedelta(minutes=5)

_TIME = pa.timestamp("us", tz="UTC")
#: Whole numbers up to here have a float of their own.
_EXACT = 2**53
_INT64 = 2**63
#: Columns that layout and tables add: `date` to a Parquet file, `batch` to a row of a table.
_RESERVED = ("batch", "date")


class LogKind(StrEnum):
    """The logs, by the name of their folder."""

    DECISIONS = "decisions"
    LABELS = "labels"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class RowFormat:
    """The columns of one log, and which of them order and name its rows."""

    kind: LogKind
    columns: pa.Schema
    time: str  #: the column whose date is the partition, and by which compacted files are sorted
    identity: tuple[str, ...]  #: the same values are the same row, written again
    names: frozenset[str]  #: of the columns
    checks: tuple[tuple[str, bool, Check], ...]  #: of each column: name, whether it may be empty, what fits

    @classmethod
    def of(cls, kind: LogKind, columns: pa.Schema, time: str, identity: tuple[str, ...]) -> RowFormat:
        """Return the format; what a row is checked for is looked up here, once, and not for every row."""
        checks = tuple((each.name, each.nullable, _CHECKS[each.type]) for each in columns)
        return cls(kind, columns, time, identity, frozenset(columns.names), checks)


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
#: One row for each row that was turned away.
QUARANTINE = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("rollout_id", pa.string()),
        pa.field("decision_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("row", pa.string(), nullable=False),
        pa.field("seen_at", _TIME),
    ]
)


def decision_rows(attributes: Sequence[str]) -> RowFormat:
    """Return the decision log with the text columns `attributes`; refuses names that the log has itself."""
    taken = sorted(set(attributes) & {*DECISIONS.names, *_RESERVED})
    if taken:
        raise ValueError(f"attributes {', '.join(taken)}: names of the decision log itself; rename them")
    columns = pa.schema([*DECISIONS, *(pa.field(name, pa.string(), nullable=False) for name in attributes)])
    return RowFormat.of(LogKind.DECISIONS, columns, "ts", ("decision_id", "arm"))


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one row."""

    code: str  #: stable: ``column.what``
    detail: str  #: what was found and what was expected


def faults(row: Row, of: RowFormat, *, decision_point: str, now: datetime | None = None) -> tuple[Fault, ...]:
    """Return what is wrong with `row`, in the order of the columns; of a row that may be written, nothing.

    Parameters
    ----------
    of
        `LABEL_ROWS`, or what `decision_rows` returns.
    decision_point
        Whose log it is; a decision of another one is a fault.
    now
        Time by the writer's clock; None leaves out the question whether the row comes from the future.

    Examples
    --------
    >>> at = datetime(2013, 6, 1, tzinfo=UTC)
    >>> row = {"decision_id": "d1", "name": "late", "value": math.nan, "fact_at": at, "arrived_at": at}
    >>> [fault.code for fault in faults(row, LABEL_ROWS, decision_point="flight-delay")]
    ['value.not_a_number']
    """
    found = [fault for check in of.checks if (fault := _column_fault(row, *check)) is not None]
    # A rule between columns says nothing of values that are no values.
    if not found:
        rules = _label_faults(row) if of.kind is LogKind.LABELS else _decision_faults(row, decision_point)
        found += [*rules, *_future_faults(row, of.time, now)]
    return tuple(found)


def unknown_columns(row: Row, of: RowFormat) -> list[Problem]:
    """Return a problem for each column of `row` that the log does not have."""
    if row.keys() <= of.names:
        return []
    unknown = sorted(str(name) for name in row.keys() - of.names)
    return [Problem(f"{of.kind} log, column {name}", "not in the schema", "leave it out") for name in unknown]


def require_known(row: Row, of: RowFormat) -> None:
    """Refuse a row with a column that the log does not have."""
    if problems := unknown_columns(row, of):
        raise InvalidDocumentError(problems)


def _column_fault(row: Row, name: str, may_be_empty: bool, check: Check) -> Fault | None:
    value = row.get(name)
    if value is None:
        return None if may_be_empty else Fault(f"{name}.missing", f"{name}: found nothing; it is mandatory")
    return check(name, value)


def _text_fault(name: str, value: Any) -> Fault | None:
    if not isinstance(value, str):
        return _wrong_type(name, value, "text")
    # Parquet holds no lone surrogate and PostgreSQL no zero: either would take its whole batch down.
    if "\0" in value or not (value.isascii() or _is_encodable(value)):
        return Fault(f"{name}.not_text", f"{name}: found a character that cannot be stored; expected text")
    return None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _time_fault(name: str, value: Any) -> Fault | None:
    if not isinstance(value, datetime):
        return _wrong_type(name, value, "a time")
    if value.utcoffset() is None:
        return Fault(f"{name}.no_zone", f"{name}: found a time without a zone; give it in UTC")
    try:
        value.astimezone(UTC)
    except OverflowError:
        return Fault(f"{name}.out_of_range", f"{name}: found a time that has no date in UTC")
    return None


def _number_fault(name: str, value: Any) -> Fault | None:
    if type(value) is float:
        return None
    if not isinstance(value, Real):
        return _wrong_type(name, value, "a number")
    return _size_fault(name, int(value), _EXACT) if isinstance(value, Integral) else None


def _whole_number_fault(name: str, value: Any) -> Fault | None:
    if not isinstance(value, Integral) or isinstance(value, bool):
        return _wrong_type(name, value, "a whole number")
    return _size_fault(name, int(value), _INT64 - 1)


def _size_fault(name: str, value: int, largest: int) -> Fault | None:
    if abs(value) <= largest:
        return None
    return Fault(f"{name}.out_of_range", f"{name}: found a whole number that its column cannot hold")


def _wrong_type(name: str, value: Any, expected: str) -> Fault:
    # What was found is in the row itself; a value in a sentence would spread personal data.
    return Fault(f"{name}.wrong_type", f"{name}: found {type(value).__name__}, expected {expected}")


def _decision_faults(row: Row, decision_point: str) -> Iterator[Fault]:
    if row["decision_point"] != decision_point:
        yield Fault("decision_point.mismatch", f"decision_point: expected {decision_point}, whose log this is")
    if row["arm"] not in _ARMS:
        yield Fault("arm.unknown", f"arm: expected {', '.join(Arm)}")
    if row["outcome"] not in OUTCOMES:
        yield Fault("outcome.unknown", f"outcome: expected {', '.join(OUTCOMES)}")
    if not 0.0 <= row["share"] <= 1.0:
        yield Fault("share.out_of_range", f"share: found {float(row['share'])}, expected a fraction from 0 to 1")


def _label_faults(row: Row) -> Iterator[Fault]:
    if math.isnan(row["value"]):
        yield Fault("value.not_a_number", "value: found NaN, expected what turned out to be true")
    if row["arrived_at"] < row["fact_at"]:
        finding = f"found {format_time(row['arrived_at'])}, before the fact at {format_time(row['fact_at'])}"
        yield Fault("arrived_at.before_fact", f"arrived_at: {finding}")


def _future_faults(row: Row, time: str, now: datetime | None) -> Iterator[Fault]:
    if now is not None and row[time] > now + AHEAD:
        finding = f"found {format_time(row[time])}, while the writer's clock said {format_time(now)}"
        yield Fault(f"{time}.in_future", f"{time}: {finding}")


def turned_away(kind: LogKind, row: Row, why: Sequence[Fault], seen_at: datetime | None) -> dict[str, Any]:
    """Return the row of the quarantine for a `row` with faults: the first one names it, all are told."""
    return {
        "kind": kind.value,
        "rollout_id": _text_or_none(row.get("rollout_id")),
        "decision_id": _text_or_none(row.get("decision_id")),
        "reason": why[0].code,
        "detail": "; ".join(fault.detail for fault in why),
        "row": json.dumps(plain(dict(row))),
        "seen_at": seen_at,
    }


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and _text_fault("", value) is None else None


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: times and numbers that are none as text, other objects as their type.

    >>> plain({"ts": datetime(2013, 6, 1, tzinfo=UTC), "value": math.nan, "row": [1, object()]})
    {'ts': '2013-06-01T00:00:00+00:00', 'value': 'nan', 'row': [1, '<object>']}
    """
    match value:
        case None | bool() | str():
            found: Any = value
        case dict():
            found = {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            found = [plain(inner) for inner in value]
        case datetime():
            found = value.isoformat()
        case bytes():
            found = value.decode(errors="backslashreplace")
        case Integral():
            found = int(value) if abs(int(value)) < _INT64 else f"<{int(value).bit_length()} bits>"
        case Real():
            found = float(value) if math.isfinite(value) else str(float(value))
        case _:
            found = f"<{type(value).__name__}>"
    return found


def table_of(rows: Sequence[Row], of: RowFormat) -> pa.Table:
    """Return `rows`, which have no faults, as one table."""
    arrays = [pa.array(_column(rows, field), field.type) for field in of.columns]
    return pa.Table.from_arrays(arrays, schema=of.columns)


def _column(rows: Iterable[Row], field: pa.Field) -> list[Any]:
    values = [row.get(field.name) for row in rows]
    if field.type == pa.float64():
        return [None if value is None else float(value) for value in values]
    return values


_CHECKS: Mapping[pa.DataType, Check] = {
    pa.string(): _text_fault,
    _TIME: _time_fault,
    pa.float64(): _number_fault,
    pa.int64(): _whole_number_fault,
}
LABEL_ROWS = RowFormat.of(LogKind.LABELS, LABELS, "arrived_at", ("decision_id", "name", "value"))
QUARANTINE_ROWS = RowFormat.of(LogKind.QUARANTINE, QUARANTINE, "seen_at", ("kind", "decision_id", "reason", "row"))
