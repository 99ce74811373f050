"""Evidence from Parquet logs: one declaration, one pass, all guardrails and slices together."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb

from seatrial.adapters import counting
from seatrial.errors import UnavailableError
from seatrial.evidence import (
    Arm,
    Cell,
    Epoch,
    Evidence,
    Frozen,
    Moments,
    ScoreCell,
    ScoredPair,
    ScoreTally,
    ShadowTally,
    Tally,
    Wait,
)
from seatrial.plan import Source
from seatrial.stats.exceedance import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from seatrial.plan import Plan
    from seatrial.ports import Scope


@dataclass(frozen=True, slots=True)
class ParquetLogs:
    """Decision and label logs below `root`, as `LogWriter` lays them out."""

    root: Path

    def look(self, plan: Plan, scope: Scope, *, now: datetime) -> Evidence:
        """Return the counts of `scope` up to `now`; a unit counts once, by its first decision in the rollout.

        Raises UnavailableError when the logs cannot be read. A log without any decision gives evidence of nothing.
        """
        decisions = _files(self.root, "decisions", scope.decision_point)
        if decisions is None:
            return Evidence()
        labels = _files(self.root, "labels", scope.decision_point) or counting.NO_LABELS
        try:
            with duckdb.connect(config={"threads": 2}) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                return _Look(connection, plan, scope, now).evidence(decisions, labels)
        except duckdb.Error as error:
            raise UnavailableError(f"{self.root}: the logs could not be read: {error}") from error


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _files(root: Path, kind: str, decision_point: str) -> str | None:
    """Return the relation of all complete files of a log, or None when there is none."""
    folder = root / kind / f"decision_point={decision_point}"
    if not any(folder.glob("date=*/*.parquet")):
        return None
    pattern = str(folder / "date=*" / "*.parquet").replace("'", "''")
    # A NaN would pass a filter that excludes it: Parquet keeps none in its statistics, and DuckDB 2.0 believes them
    # (duckdb/duckdb#25521). Delete can_have_nan when that is closed.
    options = "hive_partitioning = true, hive_types = {'date': VARCHAR}, union_by_name = true, can_have_nan = true"
    return f"read_parquet('{pattern}', {options})"


@dataclass(frozen=True, slots=True)
class _Look:
    """One look: the connection holds the rows of the rollout, from which every count is taken."""

    connection: duckdb.DuckDBPyConnection
    plan: Plan
    scope: Scope
    now: datetime

    def evidence(self, decisions: str, labels: str) -> Evidence:
        newest_us = self._rows(counting.NEWEST.format(decisions=decisions))[0][0]
        self._run(counting.logged(decisions), counting.arrived(labels), counting.pairs(self.plan))
        frozen = self._frozen(decisions)
        self._run(counting.flagged(self.plan, {} if frozen is None else frozen.quantiles))
        if self.plan.scores is not None:
            self._run(counting.score_labels(self.plan.scores))
        epochs, assigned, cells, moments = self._tallies()
        latencies = self._rows(counting.LATENCIES.format(last=BUCKETS - 1))
        return Evidence(
            newest=None if newest_us is None else _EPOCH + timedelta(microseconds=newest_us),
            epochs=epochs,
            cells=cells,
            assigned=assigned,
            shadow=ShadowTally(*self._rows(counting.SHADOW)[0]),
            moments=moments,
            scores=self._scores(),
            pairs=self._pairs(),
            waits=self._waits(),
            latencies={(Arm(arm), bucket): count for arm, bucket, count in latencies},
            crossed=self._rows(counting.CROSSED.format(unit=counting.name(self.plan.unit)))[0][0],
            frozen=frozen,
        )

    def _frozen(self, decisions: str) -> Frozen | None:
        """Return what the plan asks of the champion before the rollout; a quantile that is too far out is left out."""
        asked = [each for each in self.plan.guardrails if each.exceeds is not None]
        if not asked and self.plan.scores is None:
            return None
        self._run(counting.reference(decisions))
        quantiles: dict[str, float] = {}
        for each in asked:
            value, count = self._rows(counting.reference_quantile(each))[0]
            if each.exceeds is not None and _has_quantile(value, count, each.exceeds.quantile):
                quantiles[each.name] = float(value)
        scores = {} if self.plan.scores is None else dict(self._rows(counting.reference_scores(self.plan.scores)))
        return Frozen(quantiles, scores)

    def _tallies(
        self,
    ) -> tuple[dict[int, Epoch], dict[tuple[int, Arm], int], dict[Cell, Tally], dict[Cell, Moments]]:
        epochs: dict[int, Epoch] = {}
        assigned: dict[tuple[int, Arm], int] = {}
        cells: dict[Cell, Tally] = {}
        moments: dict[Cell, Moments] = {}
        for row in self._named_rows(counting.tallies(self.plan)):
            number, arm = row["snapshot_no"], Arm(row["arm"])
            epoch = Epoch(row["share"], row["stage"])
            if row["epochs"] != 1 or epochs.setdefault(number, epoch) != epoch:
                raise UnavailableError(
                    f"decision log, snapshot {number}: found several shares or stages; expected one; find out who else"
                    " writes this log"
                )
            column, value = _slice(self.plan, row)
            if column is None:
                assigned[number, arm] = row["assigned"]
            for index, guardrail in enumerate(self.plan.guardrails):
                if column is not None and (column not in guardrail.slices or value not in self.plan.slices[column]):
                    continue
                cell = Cell(guardrail.name, column, value, number, arm)
                cells[cell] = Tally(*(row[f"c_{field.name}_{index}"] for field in fields(Tally)))
                if guardrail.mean is not None:
                    moments[cell] = Moments(*(row[f"m_{field.name}_{index}"] for field in fields(Moments)))
        return epochs, assigned, cells, moments

    def _scores(self) -> dict[ScoreCell, ScoreTally]:
        if self.plan.scores is None:
            return {}
        found: dict[ScoreCell, ScoreTally] = {}
        for column in (None, *self.plan.scores.slices):
            for number, arm, at, value, *counts in self._rows(counting.scores_of(self.plan.scores, column)):
                if column is None or value in self.plan.slices[column]:
                    found[ScoreCell(column, value, number, Arm(arm), at)] = ScoreTally(*counts)
        return found

    def _pairs(self) -> dict[ScoredPair, int]:
        if self.plan.scores is None:
            return {}
        return {ScoredPair(*pair): count for *pair, count in self._rows(counting.scored_pairs(self.plan.scores))}

    def _waits(self) -> dict[Wait, int]:
        return {
            Wait(guardrail.name, number, Arm(arm), is_bad, age, delay): count
            for index, guardrail in enumerate(self.plan.guardrails)
            if guardrail.source is Source.LABEL
            for number, arm, is_bad, age, delay, count in self._rows(counting.waits(index, guardrail))
        }

    def _run(self, *statements: str) -> None:
        for statement in statements:
            self.connection.execute(statement, self._parameters(statement))

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, self._parameters(query)).fetchall()

    def _named_rows(self, query: str) -> Iterator[dict[str, Any]]:
        answered = self.connection.execute(query, self._parameters(query))
        names = [column[0] for column in answered.description or ()]
        return (dict(zip(names, row, strict=True)) for row in answered.fetchall())

    def _parameters(self, statement: str) -> dict[str, Any]:
        """Return what `statement` names; DuckDB refuses a parameter that it does not."""
        settled = self.scope.since - counting.SETTLED
        known = {
            "now": self.now,
            "since": self.scope.since,
            "rollout": self.scope.rollout_id,
            "from": settled - counting.REFERENCE,
            "until": settled,
        }
        return {name: value for name, value in known.items() if f"${name}" in statement}


def _has_quantile(value: float | None, count: int, level: float) -> bool:
    """Return whether a number is expected above `value`; nothing exceeds an infinite one, or one that is no number."""
    # 10 times 1 - 0.9 is a little less than 1 in floats.
    return value is not None and math.isfinite(value) and round(count * (1.0 - level), 9) >= 1.0


def _slice(plan: Plan, row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the column and value by which a row is grouped; None and None when it is of all units."""
    for index, column in enumerate(plan.slices):
        if row[f"rest_{index}"] == 0:
            return column, row[f"value_{index}"]
    return None, None
