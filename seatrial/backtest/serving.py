"""The logs of a replay, as files that the control plane's own reader counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.log_files import PART
from seatrial.adapters.log_schema import DECISIONS, LogKind
from seatrial.adapters.logs import folder_of
from seatrial.backtest.drawing import ARMS, OPEN
from seatrial.backtest.requests import micros, moment
from seatrial.evidence import Arm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from seatrial.backtest.drawing import Draw, Served
    from seatrial.backtest.requests import Floats, Integers, Requests
    from seatrial.evidence import Evidence
    from seatrial.plan import Plan
    from seatrial.ports import Scope
    from seatrial.routing import RoutingSnapshot

_DAY_US = 86_400_000_000


class ServedLogs:
    """Decisions and labels of one draw up to the time that was served, below `root`, and what a look counts of them."""

    def __init__(
        self, requests: Requests, draw: Draw, root: Path, *, decision_point: str, champion: str, challenger: str
    ) -> None:
        self._requests = requests
        self._draw = draw
        self._root = root
        self._logs = ParquetLogs(root)
        self._decision_point = decision_point
        self._releases = (champion, challenger)  #: ids by which snapshots name them, in the order of `ARMS`
        self._until = 0  #: requests served
        self._release = np.full(requests.at.size, OPEN, dtype=np.int64)  #: who answered, as `Served.release`
        self._tried = np.zeros(requests.at.size, dtype=np.bool_)
        self._seen = [0, 0]  #: labels of each release that were written or passed by
        self._counted: tuple[datetime, Evidence] | None = None  #: the last look, while nothing was written since
        self._written: dict[tuple[LogKind, int], pa.Table] = {}  #: by the day that a file holds

    def look(self, plan: Plan, scope: Scope, *, now: datetime) -> Evidence:
        """Return the counts of `scope` up to `now`."""
        # Moves follow one another at one time, and ask again what was counted a moment ago.
        if self._counted is None or self._counted[0] != now:
            self._counted = (now, self._logs.look(plan, scope, now=now))
        return self._counted[1]

    def serve_until(self, end: datetime, snapshot: RoutingSnapshot) -> None:
        """Let `snapshot` decide who answers each request before `end`, and let the labels that are known by then in."""
        part = slice(self._until, int(np.searchsorted(self._requests.at, micros(end), side="left")))
        served = self._draw.serve(part, snapshot, challenger=self._releases[1])
        self._until = part.stop
        self._release[part] = served.release
        self._tried[part] = served.is_compared & (served.release == ARMS.index(Arm.CHALLENGER))
        answered = [self._answered(served, at, snapshot) for at in range(len(ARMS))]
        self._write(LogKind.DECISIONS, [*answered, self._copied(served, snapshot)], "ts")
        self.label_until(end)

    def label_until(self, end: datetime) -> None:
        """Let every label in that is known by `end` and belongs to an answer of this draw."""
        for at, arm in enumerate(ARMS):
            labels = self._requests.answers[arm].labels
            stop = int(np.searchsorted(labels.seen_at, micros(end), side="left"))
            rows = np.arange(self._seen[at], stop)
            self._seen[at] = max(stop, self._seen[at])
            rows = rows[self._release[labels.request[rows]] == at]
            self._write(LogKind.LABELS, [labels.rows.take(pa.array(rows))], "arrived_at")

    def exposed(self) -> int:
        """Return the units that the challenger has answered in the comparison so far."""
        return int(np.unique(self._requests.unit[self._tried]).size)

    def _answered(self, served: Served, at: int, snapshot: RoutingSnapshot) -> pa.Table:
        """Return the rows of what one release answered."""
        chosen = np.flatnonzero(served.release == at)
        is_tried = served.is_compared[chosen]
        # Who serves alone is the champion of the moment, whichever release it is.
        alone = Arm.CHALLENGER if snapshot.fallback == snapshot.challenger else Arm.CHAMPION
        arms = np.where(is_tried, ARMS[at].value, alone.value).tolist()
        return self._rows(chosen + served.part.start, at, snapshot, arms, np.where(is_tried, snapshot.share, 0.0))

    def _copied(self, served: Served, snapshot: RoutingSnapshot) -> pa.Table:
        """Return the rows of what the challenger made of copies."""
        at = ARMS.index(Arm.CHALLENGER)
        is_known = self._requests.answers[Arm.CHALLENGER].is_known[served.part]
        copied = np.flatnonzero(served.is_shadowed & is_known & (served.release == ARMS.index(Arm.CHAMPION)))
        arms = [Arm.SHADOW.value] * copied.size
        return self._rows(copied + served.part.start, at, snapshot, arms, np.zeros(copied.size))

    def _rows(self, rows: Integers, at: int, snapshot: RoutingSnapshot, arms: list[str], shares: Floats) -> pa.Table:
        table = self._requests.answers[ARMS[at]].rows.take(pa.array(rows))
        columns = {
            "decision_point": [self._decision_point] * rows.size,
            "rollout_id": [snapshot.rollout_id] * rows.size,
            "snapshot_no": [snapshot.number] * rows.size,
            "stage": [snapshot.stage] * rows.size,
            "release_id": [self._releases[at]] * rows.size,
            "arm": arms,
            "share": shares.tolist(),
        }
        for name, values in columns.items():
            column = pa.array(values, DECISIONS.field(name).type)
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return table

    def _write(self, kind: LogKind, tables: Sequence[pa.Table], time: str) -> None:
        """Add rows to the file of each date that they are of: a look opens every file, so that few are faster."""
        self._counted = None
        table = pa.concat_tables(tables, promote_options="permissive")
        days = table[time].cast(pa.int64()).to_numpy() // _DAY_US
        for day in np.unique(days).tolist():
            folder = folder_of(self._root, kind, self._decision_point) / f"date={moment(day * _DAY_US):%Y-%m-%d}"
            folder.mkdir(parents=True, exist_ok=True)
            added = table.filter(pa.array(days == day))
            before = self._written.get((kind, day))
            whole = added if before is None else pa.concat_tables([before, added], promote_options="permissive")
            self._written[kind, day] = whole
            pq.write_table(whole, folder / f"{PART}{day}.parquet")
