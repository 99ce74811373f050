"""Whether the serving path has what the releases read: columns, types, missing values, signs, and fresh rows.

What a manifest declares is a promise; this is about what a real source answered just now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.units import format_duration, format_time
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from seatrial.plan.asks import Features
    from seatrial.release import Column, Release

GATE = "features"
#: How far a source's clock may be ahead of ours.
_AHEAD = timedelta(minutes=5)


class Kind(StrEnum):
    """What the values of a column are."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    TEXT = "text"
    OTHER = "other"  #: something that no feature is, such as bytes or a list
    UNKNOWN = "unknown"  #: no value, and no declared type


#: What a column may be in the source, by what a release declares it to be.
_COMPATIBLE = {
    "float": frozenset({Kind.FLOAT, Kind.INT}),
    "int": frozenset({Kind.INT}),
    "bool": frozenset({Kind.BOOL}),
    "category": frozenset({Kind.TEXT, Kind.INT}),
}


@dataclass(frozen=True, slots=True)
class SeenColumn:
    """One column of the newest rows of a source."""

    kind: Kind
    missing: int = 0  #: rows without a value, NaN among them
    infinite: int = 0
    least: float | None = None  #: None for no number
    greatest: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest rows of a source."""

    rows: int
    columns: Mapping[str, SeenColumn]  #: those of the asked ones that the source has
    newest: datetime | None  #: None when no row says when it became true
    undated: int = 0  #: rows that do not say when, or without a zone


def features(challenger: Release, champion: Release, seen: Seen, ask: Features, *, now: datetime) -> list[Finding]:
    """Return a finding for each column that either release reads, and one on how fresh the rows are."""
    declared: dict[str, list[Column]] = {}
    for release in (challenger, champion):
        for column in release.features.columns:
            declared.setdefault(column.name, []).append(column)
    return [_fresh(seen, ask, now=now), *(_column(name, columns, seen, ask) for name, columns in declared.items())]


def _fresh(seen: Seen, ask: Features, *, now: datetime) -> Finding:
    if not seen.rows:
        return _found("freshness", Verdict.ERROR, f"the source {ask.source} has no row")
    numbers: dict[str, float | int | str | None] = {"rows": seen.rows, "undated": seen.undated}
    if seen.newest is None or seen.undated:
        reason = f"{seen.undated} of {seen.rows} rows have no {ask.timestamp} with a zone, so their age is unknown"
        return _found("freshness", Verdict.ERROR, reason, numbers)
    age = now - seen.newest
    numbers |= {"newest": format_time(seen.newest), "age_s": age.total_seconds()}
    if age < -_AHEAD:
        reason = f"the newest row is of {format_time(seen.newest)}, which has not come yet; a clock or a zone is wrong"
        return _found("freshness", Verdict.ERROR, reason, numbers)
    said = f"the newest row is {format_duration(max(age, timedelta(0)))} old, {format_duration(ask.max_age)} is allowed"
    return _found("freshness", Verdict.PASS if age <= ask.max_age else Verdict.FAIL, said, numbers)


def _column(name: str, columns: Sequence[Column], seen: Seen, ask: Features) -> Finding:
    if not seen.rows:
        return _found(name, Verdict.ERROR, f"the source {ask.source} has no row to see {name} in")
    if name not in seen.columns:
        return _found(name, Verdict.FAIL, f"the source {ask.source} has no column {name}")
    found = seen.columns[name]
    numbers = {
        "rows": seen.rows,
        "missing": found.missing,
        "infinite": found.infinite,
        "kind": found.kind.value,
        "least": found.least,
        "greatest": found.greatest,
    }
    if found.kind is Kind.UNKNOWN:
        return _found(name, Verdict.ERROR, f"{name} has no value in {seen.rows} rows, so its type is unknown", numbers)
    wrong = [reason for column in columns for reason in _wrong(column, found, seen.rows, ask)]
    if wrong:
        return _found(name, Verdict.FAIL, f"{name} {'; '.join(dict.fromkeys(wrong))}", numbers)
    if seen.rows < ask.min_rows:
        reason = f"{name} is as declared in {seen.rows} rows; to speak of missing values {ask.min_rows} are needed"
        return _found(name, Verdict.INCONCLUSIVE, reason, numbers)
    missing = f", missing in {found.missing}" if found.missing else ""
    return _found(name, Verdict.PASS, f"{name} is {found.kind} in {seen.rows:,} rows{missing}", numbers)


def _wrong(column: Column, found: SeenColumn, rows: int, ask: Features) -> list[str]:
    """Return what of `found` is not as one release declares it."""
    wrong = []
    if found.kind not in _COMPATIBLE[column.dtype]:
        wrong.append(f"is {found.kind} where {column.dtype} is declared")
    if found.missing and not column.nullable:
        wrong.append(f"is missing in {found.missing} of {rows} rows, and declared never to be")
    elif found.missing > ask.max_missing * rows:
        wrong.append(f"is missing in {found.missing} of {rows} rows, more than {ask.max_missing:.0%}")
    if found.infinite:
        wrong.append(f"is infinite in {found.infinite} rows")
    if column.sign == "non_negative" and found.least is not None and found.least < 0:
        wrong.append(f"falls to {found.least:g}, and is declared non_negative")
    if column.sign == "non_positive" and found.greatest is not None and found.greatest > 0:
        wrong.append(f"rises to {found.greatest:g}, and is declared non_positive")
    return wrong


def _found(
    subject: str, verdict: Verdict, reason: str, numbers: Mapping[str, float | int | str | None] | None = None
) -> Finding:
    return Finding(Question.CONTRACT, f"{GATE}{SUBJECT_MARK}{subject}", verdict, reason, numbers or {})
