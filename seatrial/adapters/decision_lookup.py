"""Find one decision and its labels in the logs, wherever they are."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import duckdb
import sqlalchemy as sa

from seatrial.adapters.warehouse import PostgresLogs
from seatrial.errors import NotFoundError, UnavailableError
from seatrial.units import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from seatrial.ports import EvidenceSource

#: Order in which labels are shown: later corrections after what they correct.
_BY_ARRIVAL = "arrived_at"


def decision_and_labels(
    source: EvidenceSource, logs: Path, decision_id: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of a decision (one for each arm that answered) and its labels in the order of arrival.

    Raises NotFoundError for an unknown decision, UnavailableError when the logs cannot be read.
    """
    if isinstance(source, PostgresLogs):
        decisions, labels = _of_tables(source.engine, decision_id)
    else:
        decisions, labels = (_of_files(logs / kind, decision_id) for kind in ("decisions", "labels"))
    if not decisions:
        raise NotFoundError(f"decision {decision_id!r}: not in the logs; it may have been erased, or be too old")
    return decisions, sorted(labels, key=lambda label: str(label[_BY_ARRIVAL]))


def _of_files(folder: Path, decision_id: str) -> list[dict[str, Any]]:
    if not any(folder.glob("**/*.parquet")):
        return []
    query = "SELECT * FROM read_parquet(?, union_by_name = true, hive_partitioning = true) WHERE decision_id = ?"
    try:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            found = connection.execute(query, [f"{folder}/**/*.parquet", decision_id])
            names = [column[0] for column in found.description]
            return [_plain(dict(zip(names, row, strict=True))) for row in found.fetchall()]
    except duckdb.Error as error:
        raise UnavailableError(f"{folder}: {error}; mend the files, then ask again") from error


def _of_tables(engine: sa.Engine, decision_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    def rows(connection: sa.Connection, query: str) -> Sequence[sa.RowMapping]:
        return connection.execute(sa.text(query), {"id": decision_id}).mappings().all()

    try:
        with engine.connect() as connection:
            decisions = rows(connection, "SELECT * FROM decision_log WHERE decision_id = :id")
            labels = rows(connection, "SELECT * FROM label_log WHERE decision_id = :id")
    except sa.exc.SQLAlchemyError as error:
        raise UnavailableError(
            f"the warehouse did not answer: {type(error).__name__}; start it, then ask again"
        ) from error
    return [_plain(dict(row)) for row in decisions], [_plain(dict(row)) for row in labels]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_time(value)
    return value if value is None or isinstance(value, (str, int, float, dict, list)) else str(value)
