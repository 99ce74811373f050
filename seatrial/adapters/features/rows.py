"""What is seen in rows, whichever source they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from seatrial.gates.features import Kind, Seen, SeenColumn
from seatrial.units import parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class FeatureSource(Protocol):
    """Where the serving path has its features from."""

    def look(self, columns: Sequence[str], timestamp: str, *, rows: int) -> Seen:
        """Return what the newest `rows` are like, rows without a `timestamp` first among them.

        A column that the source does not have is left out. Raises UnavailableError when it does not answer, and
        NotFoundError when there is no such table, file or timestamp.
        """


@dataclass(frozen=True, slots=True)
class MemorySource:
    """Rows that a test or a study holds; a value of a column that no row has is no column."""

    rows: Sequence[Mapping[str, object]] = field(default_factory=tuple)

    def look(self, columns: Sequence[str], timestamp: str, *, rows: int) -> Seen:
        """Return what the newest `rows` are like, rows without a `timestamp` first among them."""
        held = [name for name in columns if any(name in row for row in self.rows)]
        table = [(moment_of(row.get(timestamp)), [row.get(name) for name in held]) for row in self.rows]
        return seen_in(newest_first(table)[:rows], held)


def newest_first(
    table: Sequence[tuple[datetime | None, Sequence[object]]],
) -> list[tuple[datetime | None, Sequence[object]]]:
    """Return rows without a moment, then the others from the newest on."""
    undated = [row for row in table if row[0] is None]
    dated = [(moment, values) for moment, values in table if moment is not None]
    return [*undated, *sorted(dated, key=lambda row: row[0], reverse=True)]


def moment_of(value: object) -> datetime | None:
    """Return the moment that `value` names, as a time or as text with a zone; None when it names none."""
    if isinstance(value, datetime):
        return value if value.tzinfo is not None and value.utcoffset() is not None else None
    if isinstance(value, str):
        try:
            return parse_time(value)
        except ValueError:
            return None
    return None


def seen_in(
    table: Sequence[tuple[datetime | None, Sequence[object]]],
    columns: Sequence[str],
    kinds: Mapping[str, Kind] | None = None,
) -> Seen:
    """Return what is seen in `table`: the moment of each row, and its values in the order of `columns`.

    `kinds` are the types that the source declares; a value of another type is believed more than its declaration, for
    SQLite keeps text in a column of numbers.
    """
    moments = [moment for moment, _ in table if moment is not None]
    told = kinds or {}
    found = {name: _column([values[at] for _, values in table], told.get(name)) for at, name in enumerate(columns)}
    return Seen(len(table), found, max(moments, default=None), len(table) - len(moments))


def _column(values: Sequence[object], declared: Kind | None) -> SeenColumn:
    present = [value for value in values if not _is_missing(value)]
    numbers = [
        float(value)
        for value in present
        # True is a number to Python, and none to a model's schema.
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    ]
    finite = [number for number in numbers if math.isfinite(number)]
    kinds = {_kind(value) for value in present}
    return SeenColumn(
        kind=_common(kinds, declared),
        missing=len(values) - len(present),
        infinite=len(numbers) - len(finite),
        least=min(finite, default=None),
        greatest=max(finite, default=None),
    )


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def _kind(value: object) -> Kind:
    match value:
        case bool():
            return Kind.BOOL
        case int():
            return Kind.INT
        case float() | Decimal():
            return Kind.FLOAT
        case str():
            return Kind.TEXT
        case _:
            return Kind.OTHER


def _common(kinds: set[Kind], declared: Kind | None) -> Kind:
    """Return the one kind of all values; whole numbers stand among others, and anything else mixed is OTHER."""
    if not kinds:
        return declared or Kind.UNKNOWN
    if declared is not None and declared not in (Kind.OTHER, Kind.UNKNOWN):
        kinds = kinds | {declared}
    # SQLite and MySQL know no truth values and keep 0 and 1.
    if declared is Kind.BOOL and kinds == {Kind.BOOL, Kind.INT}:
        return Kind.BOOL
    if kinds == {Kind.INT, Kind.FLOAT}:
        return Kind.FLOAT
    return kinds.pop() if len(kinds) == 1 else Kind.OTHER
