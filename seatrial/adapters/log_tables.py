"""Decision and label logs as tables of PostgreSQL or SQLite: the same rows and rules as the files.

Every row carries the number of its batch. Numbers are given in the order in which batches become visible, so that a
reader who has seen all up to one number misses nothing by asking for what is above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from seatrial.adapters.ledger_tables import AwareTime
from seatrial.adapters.log_intake import Flushed, Intake
from seatrial.adapters.log_schema import LABEL_ROWS, QUARANTINE_ROWS, LogKind, decision_rows, plain, table_of
from seatrial.errors import InvalidDocumentError, Problem, UnavailableError
from seatrial.units import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from seatrial.adapters.log_schema import RowFormat
    from seatrial.ports import Clock

    Row = Mapping[str, Any]

TABLE_NAMES = {
    LogKind.DECISIONS: "decision_log",
    LogKind.LABELS: "label_log",
    LogKind.QUARANTINE: "quarantine_log",
}


class Number(sa.types.UserDefinedType[float]):
    """A float, NaN included, for which SQLite has no number: there it is the text ``NaN``."""

    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        """Return the name of the type, which both engines know."""
        return "DOUBLE PRECISION"

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any] | None:
        """Return what makes the stored form."""
        return _nan_as_text if dialect.name == "sqlite" else None

    def result_processor(self, dialect: sa.Dialect, _coltype: object) -> Callable[[Any], Any] | None:
        """Return what makes the float again."""
        return _float_or_none if dialect.name == "sqlite" else None


def _nan_as_text(value: float | None) -> float | str | None:
    return "NaN" if value is not None and math.isnan(value) else value


def _float_or_none(value: float | str | None) -> float | None:
    return None if value is None else float(value)


_TYPES: Mapping[pa.DataType, type[sa.types.TypeEngine[Any]]] = {
    pa.string(): sa.Text,
    pa.float64(): Number,
    pa.int64(): sa.BigInteger,
    pa.timestamp("us", tz="UTC"): AwareTime,
}


@dataclass(frozen=True, slots=True)
class LogTables:
    """The tables of the logs with the attribute columns of one decision point."""

    metadata: sa.MetaData
    rows: Mapping[LogKind, sa.Table]
    batches: sa.Table


def log_tables(attributes: Sequence[str]) -> LogTables:
    """Return the tables; attribute columns may be empty, for an attribute may come later than the first row."""
    metadata = sa.MetaData()
    batches = sa.Table(
        "log_batches",
        metadata,
        sa.Column("batch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("decision_point", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("written_at", AwareTime, nullable=False),
        sa.UniqueConstraint("kind", "decision_point", "digest"),
    )
    formats = (decision_rows(attributes), LABEL_ROWS, QUARANTINE_ROWS)
    return LogTables(metadata, {of.kind: _table(metadata, of, set(attributes)) for of in formats}, batches)


def _table(metadata: sa.MetaData, of: RowFormat, attributes: set[str]) -> sa.Table:
    name = TABLE_NAMES[of.kind]
    columns = [
        sa.Column(
            f.name, _TYPES[f.type], nullable=f.nullable or (of.kind is LogKind.DECISIONS and f.name in attributes)
        )
        for f in of.columns
    ]
    if "decision_point" not in of.columns.names:
        columns.insert(0, sa.Column("decision_point", sa.Text, nullable=False))
    return sa.Table(
        name,
        metadata,
        sa.Column("batch", sa.BigInteger, nullable=False, index=True),
        *columns,
        sa.Index(f"{name}_by_time", "decision_point", of.time),
    )


@dataclass(slots=True)
class SqlLogWriter:
    """Collects rows of one decision point, from any thread, and writes them to tables; `flush` after every batch.

    Creates missing tables. Raises InvalidDocumentError when a table lacks a column, UnavailableError when the database
    does not answer.
    """

    engine: sa.Engine
    decision_point: str
    attributes: tuple[str, ...]  #: text columns of the unit that segments and slices are declared on
    clock: Clock  #: finds rows from the future, and dates batches and the quarantine
    max_rows: int | None = None  #: rows that wait before they are written unasked; None waits for `flush`
    _intake: Intake = field(init=False)
    _tables: LogTables = field(init=False)
    _writing: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        self._intake = Intake(self.decision_point, decision_rows(self.attributes), self.clock, self.max_rows)
        self._tables = log_tables(self.attributes)
        try:
            self._tables.metadata.create_all(self.engine)
            problems = list(_missing(self._tables, self.engine))
        except OperationalError as error:
            raise self._unavailable() from error
        if problems:
            raise InvalidDocumentError(problems)

    def decision(self, row: Row) -> None:
        """Add one row of the decision log; raises InvalidDocumentError for a column that it does not have."""
        if self._intake.add(row, self._intake.decisions):
            self.flush()

    def label(self, row: Row) -> None:
        """Add one row of the label log; raises InvalidDocumentError for a column that it does not have."""
        if self._intake.add(row, LABEL_ROWS):
            self.flush()

    def flush(self) -> Flushed:
        """Write what was added and say how many rows fitted; the same batch again changes nothing.

        A row that does not fit goes to the quarantine and takes no other one with it. Rows may be added meanwhile.
        Raises UnavailableError when the database does not answer; the next flush begins with the same rows.
        """
        done = Flushed()
        with self._writing:
            for batch in self._intake.batches():
                for of, rows in batch.parts:
                    if rows:
                        self._write(of, rows)
                done += batch.flushed
        return done

    def _write(self, of: RowFormat, rows: Sequence[Row]) -> None:
        names = [name for name in of.columns.names if of.kind is not LogKind.QUARANTINE or name != of.time]
        digest = digest_of([[plain(row.get(name)) for name in names] for row in rows])
        try:
            with self.engine.begin() as connection:
                number = self._claim(connection, of, len(rows), digest)
                if number is not None:
                    columns = {"decision_point": self.decision_point, "batch": number}
                    values = [{**row, **columns} for row in table_of(rows, of).to_pylist()]
                    connection.execute(sa.insert(self._tables.rows[of.kind]), values)
        except OperationalError as error:
            raise self._unavailable() from error

    def _claim(self, connection: sa.Connection, of: RowFormat, count: int, digest: str) -> int | None:
        """Return the number of this batch, or None when it is written already."""
        table = self._tables.batches
        if connection.dialect.name == "postgresql":
            # Two writers would read the same last number, and a later number could become visible first.
            connection.execute(sa.text("LOCK TABLE log_batches IN SHARE ROW EXCLUSIVE MODE"))
        same = sa.select(table.c.batch).where(
            table.c.kind == of.kind.value, table.c.decision_point == self.decision_point, table.c.digest == digest
        )
        # One statement that begins as a writer: SQLite refuses a reader that turns writer behind another one's back.
        number = sa.select(sa.func.coalesce(sa.func.max(table.c.batch), 0) + 1).scalar_subquery()
        row = {
            "batch": number,
            "kind": sa.literal(of.kind.value),
            "decision_point": sa.literal(self.decision_point),
            "rows": sa.literal(count),
            "digest": sa.literal(digest),
            "written_at": sa.literal(self.clock.now(), AwareTime),
        }
        unless_there = sa.insert(table).from_select(list(row), sa.select(*row.values()).where(~sa.exists(same)))
        inserted = connection.execute(unless_there, execution_options={"preserve_rowcount": True})
        if inserted.rowcount != 1:
            return None
        return int(connection.execute(same).scalar_one())

    def _unavailable(self) -> UnavailableError:
        where = self.engine.url.render_as_string(hide_password=True)
        return UnavailableError(f"{where}: the database of the logs did not answer; start it, then try again")


def _missing(tables: LogTables, engine: sa.Engine) -> Iterator[Problem]:
    inspector = sa.inspect(engine)
    for table in tables.metadata.sorted_tables:
        present = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:
                name = sa.column(column.name).compile(dialect=engine.dialect)
                remedy = f"ALTER TABLE {table.name} ADD COLUMN {name} {column.type.compile(engine.dialect)}"
                yield Problem(f"table {table.name}, column {column.name}", "not there", remedy)
