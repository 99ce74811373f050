"""The same counts as statements that somebody wrote by hand for this one plan, knowing DuckDB well.

Units, tallies, amounts, waits, label quality, latencies, bad rows: what a look returns for ``plan.yaml``, with nothing
that another plan would need.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import duckdb

from benchmarks.evidence.logs import CHALLENGER, CHAMPION, POINT, ROLLOUT
from seatrial.adapters.engines import MEMORY, THREADS
from seatrial.stats.exceedance import BUCKETS, LARGEST, LOG_GAMMA, SMALLEST

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_WINDOW = 3 * 86_400_000_000
_SLICES = {"country": "c", "product": "p", "device": "d", "size": "s"}
_MATURED, _LABELLED, _BAD, _WITHIN, _PASSED = 128, 256, 512, 1024, 2048


def count_by_hand(root: Path, now: datetime) -> dict[str, int]:
    """Return some totals, by which it is told that the counts are the same."""
    with TemporaryDirectory() as folder:
        settings = {
            "threads": THREADS,
            "memory_limit": MEMORY,
            "temp_directory": folder,
            "preserve_insertion_order": False,
        }
        with duckdb.connect(config=settings) as connection:
            return _counted(connection, root, round(now.timestamp() * 1e6))


def _counted(connection: duckdb.DuckDBPyConnection, root: Path, now: int) -> dict[str, int]:
    decisions = f"read_parquet('{root}/decisions/decision_point={POINT}/*/*.parquet')"
    labels = f"read_parquet('{root}/labels/decision_point={POINT}/*/*.parquet')"
    sound = (
        f"rollout_id = '{ROLLOUT}' AND epoch_us(ts) <= {now} AND release_id IN ('{CHAMPION}', '{CHALLENGER}')"
        " AND arm IN ('champion', 'challenger') AND share > 0 AND share < 1"
    )
    rows, bad = connection.execute(f"""
        SELECT count(*), count(*) FILTER (NOT (release_id IN ('{CHAMPION}', '{CHALLENGER}')
            AND arm IN ('champion', 'challenger', 'shadow') AND share BETWEEN 0 AND 1))
        FROM {decisions} WHERE rollout_id = '{ROLLOUT}' AND epoch_us(ts) <= {now}
    """).fetchone() or (0, 0)
    if not bad:
        sound = f"rollout_id = '{ROLLOUT}' AND epoch_us(ts) <= {now} AND arm <> 'shadow' AND share > 0 AND share < 1"
    connection.execute(f"""
        CREATE TEMP TABLE units AS SELECT unit_key, min(epoch_us(ts)) AS us,
            min(CASE WHEN arm = 'challenger' THEN snapshot_no END) AS low,
            max(CASE WHEN arm = 'champion' THEN snapshot_no END) AS high
        FROM {decisions} WHERE {sound} GROUP BY unit_key
    """)
    places = ", ".join(
        f"CASE {column} {' '.join(f'''WHEN '{letter}{at}' THEN {at}''' for at in range(5))} ELSE -2 END AS {column}"
        for column, letter in _SLICES.items()
    )
    connection.execute(f"""
        CREATE TEMP TABLE firsts AS SELECT decision_id, us, snapshot_no, (arm = 'champion')::INTEGER AS arm, share,
            stage, {places},
            (outcome IN ('timeout', 'error', 'fallback'))::INTEGER + 2 * (latency_ms > 20)::INTEGER
                + 4 * (latency_ms > 24)::INTEGER + 8 * (action_taken = 'review')::INTEGER
                + 16 * (score >= 0.95)::INTEGER + 32 * (cut_off >= 0.9)::INTEGER
                + 64 * (action_taken = 'pass')::INTEGER AS early,
            CASE WHEN latency_ms > {LARGEST!r} THEN {BUCKETS - 1} WHEN latency_ms <= {SMALLEST!r} THEN 0
                ELSE ceil(ln(latency_ms / {SMALLEST!r}) / {LOG_GAMMA!r})::INTEGER END AS latency,
            floor(latency_ms / (8 * 1e-4) + 0.5)::BIGINT AS k
        FROM {decisions} AS rows_of JOIN units ON rows_of.unit_key = units.unit_key AND epoch_us(ts) = us
        WHERE {sound}
    """)
    connection.execute(f"""
        CREATE TEMP TABLE known AS SELECT decision_id,
            arg_max(value, (arrived, value)) AS value,
            arg_max(value, (arrived, value)) FILTER (arrived <= us + {_WINDOW}) AS within, min(arrived) AS first,
            count(*) AS times, min(value) AS least, max(value) AS most
        FROM (SELECT decision_id, value, epoch_us(arrived_at) AS arrived FROM {labels} WHERE NOT isnan(value))
        JOIN firsts USING (decision_id) WHERE arrived <= {now} AND arrived >= us GROUP BY decision_id
    """)
    every = "snapshot_no, arm, code"
    sets = ", ".join(f"({every}, {column})" for column in _SLICES)
    found = connection.execute(f"""
        SELECT coalesce(arm, -1), coalesce(code, -1), coalesce(country, -1), coalesce(product, -1),
            coalesce(device, -1), coalesce(size, -1), count(*), count(k), count(*) FILTER (k <> 0), sum(k),
            sum(k::HUGEINT * k), count(label_k), count(*) FILTER (label_k <> 0), sum(label_k),
            sum(label_k::HUGEINT * label_k)
        FROM (
            SELECT snapshot_no, arm, share, stage, {", ".join(_SLICES)}, latency, k,
                early + CASE WHEN us <= {now - _WINDOW} THEN {_MATURED} ELSE 0 END
                    + CASE WHEN within IS NOT NULL THEN {_LABELLED} ELSE 0 END
                    + CASE WHEN value = 1 THEN {_BAD} ELSE 0 END + CASE WHEN within = 1 THEN {_WITHIN} ELSE 0 END
                    + CASE WHEN value = 0 THEN {_PASSED} ELSE 0 END
                    + CASE WHEN within = 0 THEN {2 * _PASSED} ELSE 0 END AS code,
                greatest(us * 50 // {_WINDOW}, {now * 50 // _WINDOW - 51}) AS decided,
                CASE WHEN first IS NULL THEN -2 ELSE least((first - us) * 50 // {_WINDOW}, 50) END AS delay,
                CASE WHEN value = 1 THEN 1 ELSE 0 END + CASE WHEN value = 1 AND early & 64 > 0 THEN 2 ELSE 0 END
                    + CASE WHEN value = 0 AND early & 8 > 0 THEN 4 ELSE 0 END AS waiting,
                (times > 1)::INTEGER + 2 * (least <> most)::INTEGER + 4 * (first > us + {_WINDOW})::INTEGER AS quality,
                CASE WHEN us <= {now - _WINDOW} THEN floor(within / (0.14 * 1e-4) + 0.5)::BIGINT END AS label_k
            FROM firsts LEFT JOIN known USING (decision_id)
        ) GROUP BY GROUPING SETS (({every}), {sets}, (snapshot_no, arm, waiting, decided, delay), (arm, latency),
            (arm, quality), (snapshot_no, share, stage))
    """).fetchall()
    connection.execute(f"SELECT max(ts) FROM {decisions} WHERE epoch_us(ts) <= {now} AND arm <> 'shadow'").fetchall()
    connection.execute("SELECT count(*) FROM units WHERE low <= high").fetchall()
    every_unit = [row for row in found if row[1] >= 0 and row[2:6] == (-1, -1, -1, -1)]
    return {
        "rows": rows,
        "units": sum(row[6] for row in every_unit),
        "slow": sum(row[6] for row in every_unit if row[1] & 2),
        "fraud": sum(row[6] for row in every_unit if row[1] & _BAD),
        "fraud within": sum(row[6] for row in every_unit if row[1] & _WITHIN and row[1] & _MATURED),
        "labelled": sum(row[6] for row in every_unit if row[1] & _LABELLED and row[1] & _MATURED),
        "needless in p3": sum(
            row[6] for row in found if row[1] >= 0 and row[3] == 3 and row[1] & _PASSED and row[1] & 8
        ),
        "time": sum(row[9] for row in every_unit),
        "time squared": sum(row[10] for row in every_unit),
    }
