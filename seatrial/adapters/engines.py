"""Databases that count: DuckDB in this process, PostgreSQL, Spark; each gets the same statements in its own dialect.

The statements are written in DuckDB's dialect and translated by sqlglot. What no translation knows (a moment as whole
microseconds, the latest value of a group) each engine says in its own words.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import duckdb
import sqlglot

from seatrial.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import sqlalchemy as sa
    from pyspark.sql import SparkSession

#: Beyond this a look of DuckDB goes on on disk.
MEMORY = "1400MB"
THREADS = 2


@dataclass(frozen=True, slots=True)
class DuckDB:
    """DuckDB in this process."""

    connection: duckdb.DuckDBPyConnection

    def latest(self, value: str, time: str, where: str, *, first: bool) -> str:
        """Return the aggregate of the `value` with the greatest `time`, or the least, then the greatest value."""
        if first:
            return f"arg_max({value}, (-{time}, {value})) FILTER (WHERE {where})"
        return f"arg_max({value}, ({time}, {value})) FILTER (WHERE {where})"

    def view(self, name: str, query: str) -> None:
        """Name `query`, without running it."""
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")

    def keep(self, name: str, query: str) -> None:
        """Run `query` and keep its rows under `name`."""
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")

    def rows(self, query: str) -> Sequence[tuple[Any, ...]]:
        """Run `query` and return its rows."""
        return self.connection.execute(query).fetchall()


@contextmanager
def duck_engine() -> Iterator[DuckDB]:
    """Yield an engine whose rows are gone afterwards, from memory and from disk."""
    with TemporaryDirectory(prefix="seatrial-look-") as folder:
        # Rows that were kept may come back in any order: every statement says what it depends on.
        settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": THREADS,
            "memory_limit": MEMORY,
            "temp_directory": folder,
            "preserve_insertion_order": False,
        }
        with duckdb.connect(config=settings) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield DuckDB(connection)


def _ordered(value: str, time: str, where: str, *, first: bool) -> str:
    order = f"{time} {'ASC' if first else 'DESC'}, {value} DESC"
    return f"(array_agg({value} ORDER BY {order}) FILTER (WHERE {where}))[1]"


@dataclass(frozen=True, slots=True)
class PostgreSQL:
    """A connection to PostgreSQL, in a transaction that is rolled back: what is kept lasts for the look."""

    connection: sa.Connection

    def latest(self, value: str, time: str, where: str, *, first: bool) -> str:
        """Return the aggregate of the `value` with the greatest `time`, or the least, then the greatest value."""
        return _ordered(value, time, where, first=first)

    def view(self, name: str, query: str) -> None:
        """Name `query`, without running it."""
        self._run(f"CREATE OR REPLACE TEMP VIEW {name} AS {_translated(query, 'postgres')}")

    def keep(self, name: str, query: str) -> None:
        """Run `query` and keep its rows under `name`."""
        self._run(f"DROP TABLE IF EXISTS pg_temp.{name}")
        self._run(f"CREATE TEMP TABLE {name} ON COMMIT DROP AS {_translated(query, 'postgres')}")
        # Without it the planner takes a table of millions for one of a thousand rows.
        self._run(f"ANALYZE {name}")

    def rows(self, query: str) -> Sequence[tuple[Any, ...]]:
        """Run `query` and return its rows."""
        return [tuple(row) for row in self._run(_translated(query, "postgres"))]

    def _run(self, statement: str) -> sa.CursorResult[Any]:
        return self.connection.exec_driver_sql(statement)


@dataclass(slots=True)
class Spark:
    """A Spark session; what is kept lies in the memory and on the disks of the cluster for the look."""

    session: SparkSession
    _kept: dict[str, Any] = field(default_factory=dict)

    def latest(self, value: str, time: str, where: str, *, first: bool) -> str:
        """Return the aggregate of the `value` with the greatest `time`, or the least, then the greatest value."""
        return f"max_by({value}, struct({'-' if first else ''}{time}, {value})) FILTER (WHERE {where})"

    def view(self, name: str, query: str) -> None:
        """Name `query`, without running it."""
        self.session.sql(_translated(query, "spark")).createOrReplaceTempView(name)

    def keep(self, name: str, query: str) -> None:
        """Run `query` and keep its rows under `name`."""
        frame = self.session.sql(_translated(query, "spark")).persist()
        frame.count()
        frame.createOrReplaceTempView(name)
        self._forget(name)
        self._kept[name] = frame

    def rows(self, query: str) -> Sequence[tuple[Any, ...]]:
        """Run `query` and return its rows."""
        return [tuple(row) for row in self.session.sql(_translated(query, "spark")).collect()]

    def close(self) -> None:
        """Free what was kept."""
        for name in list(self._kept):
            self._forget(name)

    def _forget(self, name: str) -> None:
        if name in self._kept:
            self._kept.pop(name).unpersist()


def _translated(query: str, dialect: str) -> str:
    try:
        (statement,) = sqlglot.transpile(query, read="duckdb", write=dialect)
    except sqlglot.errors.SqlglotError as error:
        raise UnavailableError(f"a statement could not be translated for {dialect}: {error}") from error
    return statement
