"""Synthetic logs of any size, made by DuckDB: five epochs, four slice columns of five values, one label of a fifth."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from pathlib import Path

POINT, ROLLOUT = "synthetic", "r1"
CHAMPION, CHALLENGER = "sha256:a", "sha256:b"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 25
#: Decisions for each unit that decides.
DECISIONS_PER_UNIT = 2.5
LABELS = 0.2


@dataclass(frozen=True)
class Size:
    """How many rows the logs have."""

    decisions: int

    @property
    def labels(self) -> int:
        """Number of labels."""
        return round(self.decisions * LABELS)


def end() -> datetime:
    """Return when the last decision has been made."""
    return BEGIN + timedelta(days=DAYS)


def write_logs(root: Path, size: Size) -> None:
    """Write all days of the logs."""
    with duckdb.connect(config={"threads": 2, "memory_limit": "3GB"}) as connection:
        for day in range(DAYS):
            _write_day(connection, root, size, day)


def add_rows(root: Path, size: Size, part: float) -> None:
    """Write `part` as many rows for the time after the last: decisions, half of known units, and labels of old ones."""
    count = round(size.decisions * part)
    with duckdb.connect(config={"threads": 2}) as connection:
        folder = _folder(root, "decisions", DAYS)
        units = round(size.decisions / DECISIONS_PER_UNIT)
        source = f"""
            SELECT range + {size.decisions} AS i,
                CASE WHEN range % 2 = 0 THEN (hash(range) % {units})::BIGINT ELSE {units} + range END AS u
            FROM range({count})
        """
        _copy(
            connection,
            _decisions(source, size.decisions, 5, DAYS * 86_400_000_000, DAYS * 86_400_000_000 / size.decisions),
            folder,
        )
        folder = _folder(root, "labels", DAYS)
        added = round(size.labels * part)
        labels = _labels(
            f"range({added})",
            size,
            f"{size.decisions}",
            BEGIN + timedelta(days=DAYS),
            DAYS * 86_400_000_000 / size.labels,
        )
        _copy(connection, labels, folder)


def _write_day(connection: duckdb.DuckDBPyConnection, root: Path, size: Size, day: int) -> None:
    per_day, units = size.decisions // DAYS, round(size.decisions / DECISIONS_PER_UNIT)
    source = f"""
        SELECT range AS i, (hash(range * 3) % {units})::BIGINT AS u
        FROM range({day * per_day}, {(day + 1) * per_day})
    """
    step = DAYS * 86_400_000_000 / size.decisions
    decisions = _decisions(source, 0, 1 + day * 5 // DAYS, 0, step)
    _copy(connection, decisions, _folder(root, "decisions", day))
    some = size.labels // DAYS
    labels = _labels(
        f"range({day * some}, {(day + 1) * some})",
        size,
        f"(range * {1 / LABELS})::BIGINT",
        BEGIN,
        DAYS * 86_400_000_000 / size.labels,
    )
    _copy(connection, labels, _folder(root, "labels", day))


def _decisions(source: str, first: int, number: int, offset_us: float, step_us: float) -> str:
    share = [0.05, 0.1, 0.2, 0.35, 0.5][number - 1]
    return f"""
        SELECT 'd' || lpad(i::VARCHAR, 12, '0') AS decision_id,
            TIMESTAMPTZ '{BEGIN.isoformat()}'
                + to_microseconds(({offset_us} + (i - {first}) * {step_us})::BIGINT) AS ts,
            '{POINT}' AS decision_point, '{ROLLOUT}' AS rollout_id, {number}::BIGINT AS snapshot_no,
            1::BIGINT AS stage, CASE WHEN is_tried THEN '{CHALLENGER}' ELSE '{CHAMPION}' END AS release_id,
            CASE WHEN is_tried THEN 'challenger' ELSE 'champion' END AS arm, {share}::DOUBLE AS share,
            'all' AS segment, 'u' || u AS unit_key, '' AS feature_digest, score, 0.5::DOUBLE AS cut_off, '' AS rule,
            action AS action_recommended, action AS action_taken, 'DECIDE' AS authority,
            5 + 20 * luck * luck AS latency_ms, CASE WHEN luck > 0.999 THEN 'timeout' ELSE 'ok' END AS outcome,
            0::BIGINT AS feature_misses, 'c' || (h % 5) AS country, 'p' || (h // 7 % 5) AS product,
            'd' || (h // 41 % 5) AS device, 's' || (h // 283 % 5) AS size
        FROM (
            SELECT i, u, h, (h // 1000 % 10000) / 10000.0 < {share} AS is_tried,
                (hash(i) % 1000003) / 1000003.0 AS score, (hash(i + 77) % 1000003) / 1000003.0 AS luck,
                CASE WHEN (hash(i) % 1000003) / 1000003.0 > 0.9 THEN 'review' ELSE 'pass' END AS action
            FROM (SELECT i, u, (hash(u) >> 2)::BIGINT AS h FROM ({source}))
        )
    """


def _labels(source: str, size: Size, newest: str, begins: datetime, step_us: float) -> str:
    """Return labels in the order in which they arrive, each of one of the decisions of the two days before."""
    before = size.decisions * 2 // DAYS
    return f"""
        SELECT 'd' || lpad(greatest({newest} - (hash(range * 7) % {before})::BIGINT, 0)::VARCHAR, 12, '0')
                AS decision_id,
            'fraud' AS name, (hash(range * 13) % 50 = 0)::INTEGER::DOUBLE AS value,
            arrived AS fact_at, arrived AS arrived_at
        FROM (
            SELECT range, TIMESTAMPTZ '{begins.isoformat()}' + to_microseconds((range * {step_us})::BIGINT) AS arrived
            FROM {source}
        )
    """


def _folder(root: Path, kind: str, day: int) -> Path:
    folder = root / kind / f"decision_point={POINT}" / f"date={BEGIN + timedelta(days=day):%Y-%m-%d}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _copy(connection: duckdb.DuckDBPyConnection, query: str, folder: Path) -> None:
    path = folder / f"part-{len(list(folder.iterdir()))}.parquet"
    connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)")
