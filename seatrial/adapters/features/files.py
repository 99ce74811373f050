"""Features in Parquet files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from seatrial.adapters.features.rows import moment_of, seen_in
from seatrial.errors import NotFoundError, UnavailableError
from seatrial.gates.features import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.gates.features import Seen

_FLOATS = ("FLOAT", "DOUBLE", "DECIMAL")


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """The Parquet files that `pattern` names, such as ``/features/*.parquet``."""

    pattern: str

    def look(self, columns: Sequence[str], timestamp: str, *, rows: int) -> Seen:
        """Return what the newest `rows` are like, rows without a `timestamp` first among them."""
        try:
            with duckdb.connect(":memory:") as connection:
                connection.execute("SET TimeZone = 'UTC'")
                files = connection.read_parquet(self.pattern, union_by_name=True)
                kinds = dict(zip(files.columns, map(_kind, map(str, files.types)), strict=True))
                if timestamp not in kinds:
                    raise NotFoundError.of(f"column of {self.pattern}", timestamp, kinds)
                held = [name for name in columns if name in kinds]
                order = f"{_quoted(timestamp)} IS NOT NULL, {_quoted(timestamp)} DESC"
                names = ", ".join(map(_quoted, [timestamp, *held]))
                found = files.project(names).order(order).limit(rows).fetchall()
        except duckdb.Error as error:
            if "No files found" in str(error):
                raise NotFoundError(f"{self.pattern}: no such file; correct the settings") from error
            raise UnavailableError(f"{self.pattern}: {_first_line(error)}; restore the files") from error
        table = [(moment_of(row[0]), row[1:]) for row in found]
        return seen_in(table, held, {name: kinds[name] for name in held})


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _kind(declared: str) -> Kind:
    if declared.startswith(_FLOATS):
        return Kind.FLOAT
    if declared.removeprefix("U") in {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}:
        return Kind.INT
    if declared == "BOOLEAN":
        return Kind.BOOL
    return Kind.TEXT if declared.startswith(("VARCHAR", "ENUM")) else Kind.OTHER
