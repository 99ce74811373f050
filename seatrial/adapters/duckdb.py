"""Evidence from Parquet logs: one declaration, one pass, all guardrails and slices together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, assert_never

import duckdb

from seatrial.errors import UnavailableError
from seatrial.evidence import Arm, Cell, Epoch, Evidence, ShadowTally, Tally
from seatrial.plan import Above, AtLeast, OneOf, Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from seatrial.plan import Condition, Guardrail, Plan, Term
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
        labels = _files(self.root, "labels", scope.decision_point) or _NO_LABELS
        parameters = {"rollout": scope.rollout_id, "since": scope.since, "now": now}
        try:
            with duckdb.connect(config={"threads": 2}) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                newest = _one(connection, _NEWEST.format(decisions=decisions), {"now": now})[0]
                counted = connection.execute(_counts(plan, decisions, labels), parameters)
                names = [column[0] for column in counted.description or ()]
                rows = [dict(zip(names, row, strict=True)) for row in counted.fetchall()]
                shadow = _one(connection, _SHADOW.format(decisions=decisions, unit=_name(plan.unit)), parameters)
        except duckdb.Error as error:
            raise UnavailableError(f"{self.root}: the logs could not be read: {error}") from error
        return _assembled(plan, newest, rows, shadow)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_LABELS = (
    "(SELECT NULL::VARCHAR AS decision_id, NULL::VARCHAR AS name, NULL::DOUBLE AS value,"
    " NULL::TIMESTAMPTZ AS arrived_at WHERE false)"
)
_NEWEST = "SELECT epoch_us(max(ts)) FROM {decisions} WHERE ts <= $now AND arm <> 'shadow'"
#: Rows of the rollout in the dates since its start; the date is a partition, so older files are not opened.
_OF_ROLLOUT = """
    SELECT * FROM {decisions}
    WHERE date >= strftime($since::TIMESTAMPTZ, '%Y-%m-%d') AND ts >= $since AND ts <= $now AND rollout_id = $rollout
"""
_SHADOW = f"""
    WITH logged AS ({_OF_ROLLOUT}),
    pairs AS (
        SELECT copies.outcome AS copied, copies.action_recommended AS copied_action,
            served.outcome AS answered, served.action_recommended AS answered_action
        FROM logged AS copies JOIN logged AS served USING (decision_id)
        WHERE copies.arm = 'shadow' AND served.arm <> 'shadow'
        QUALIFY row_number() OVER (PARTITION BY served.{{unit}} ORDER BY served.ts, decision_id) = 1
    )
    SELECT count(*),
        count(*) FILTER (copied <> 'ok' AND answered = 'ok'),
        count(*) FILTER (copied = 'ok' AND answered <> 'ok'),
        count(*) FILTER (copied <> 'ok' AND answered <> 'ok'),
        count(*) FILTER (copied = 'ok' AND answered = 'ok'),
        count(*) FILTER (copied = 'ok' AND answered = 'ok' AND copied_action IS DISTINCT FROM answered_action)
    FROM pairs
"""  # noqa: S608 a template; what is filled in is quoted


def _files(root: Path, kind: str, decision_point: str) -> str | None:
    """Return the relation of all complete files of a log, or None when there is none."""
    folder = root / kind / f"decision_point={decision_point}"
    if not any(folder.glob("date=*/*.parquet")):
        return None
    pattern = _quoted(str(folder / "date=*" / "*.parquet"))
    return f"read_parquet({pattern}, hive_partitioning = true, hive_types = {{'date': VARCHAR}}, union_by_name = true)"


def _one(connection: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(query, parameters).fetchone()
    if row is None:
        raise UnavailableError("DuckDB: an aggregate without groups gave no row; report this as a defect")
    return row


def _counts(plan: Plan, decisions: str, labels: str) -> str:
    """Return the query whose rows are the cells of one snapshot, arm and slice value, all guardrails beside another."""
    columns = list(plan.slices)
    sets = ["(snapshot_no, arm)", *(f"(snapshot_no, arm, {_name(column)})" for column in columns)]
    keys = "".join(f", {_name(c)} AS value_{i}, grouping({_name(c)}) AS rest_{i}" for i, c in enumerate(columns))
    flags = "".join(f", {_flags(i, guardrail)}" for i, guardrail in enumerate(plan.guardrails))
    joins = " ".join(_join(i, g) for i, g in enumerate(plan.guardrails) if g.source is Source.LABEL)
    tallies = "".join(f", {_tally(i)}" for i in range(len(plan.guardrails)))
    unit = _name(plan.unit)
    return f"""
        WITH logged AS ({_OF_ROLLOUT.format(decisions=decisions)}),
        decided AS (
            SELECT *, action_taken AS action FROM logged WHERE share > 0 AND share < 1 AND arm <> 'shadow'
            QUALIFY row_number() OVER (PARTITION BY {unit} ORDER BY ts, decision_id) = 1
        ),
        arrived AS (SELECT * FROM {labels} WHERE arrived_at <= $now),
        flagged AS (SELECT decided.*{flags} FROM decided {joins})
        SELECT snapshot_no, arm, any_value(share) AS share, any_value(stage) AS stage,
            count(DISTINCT struct_pack(share, stage)) AS epochs, count(*) AS assigned
            {keys}{tallies}
        FROM flagged GROUP BY GROUPING SETS ({", ".join(sets)})
    """  # noqa: S608 names and values are quoted, and come from a checked plan


def _join(index: int, guardrail: Guardrail) -> str:
    """Return the join with the label as known now, and as known when its window closed; the last arrival wins."""
    seconds = 0.0 if guardrail.maturity is None else guardrail.maturity.total_seconds()
    within = f"arrived_at <= ts + to_microseconds({round(seconds * 1e6)})"
    last = "arg_max(value, struct_pack(arrived_at := arrived_at, value := value))"
    return f"""LEFT JOIN (
        SELECT decided.decision_id, {last} AS known_now, {last} FILTER ({within}) AS known_within
        FROM decided JOIN arrived USING (decision_id) WHERE arrived.name = {_quoted(guardrail.label or "")}
        GROUP BY decided.decision_id
    ) AS label_{index} ON label_{index}.decision_id = decided.decision_id"""  # noqa: S608 as above


def _flags(index: int, guardrail: Guardrail) -> str:
    counted = _any_of(guardrail.only_when, "NULL") if guardrail.only_when else "true"
    if guardrail.source is Source.LABEL and guardrail.maturity is not None:
        window = f"to_microseconds({round(guardrail.maturity.total_seconds() * 1e6)})"
        now, within = f"label_{index}.known_now", f"label_{index}.known_within"
        matured, labelled = f"ts + {window} <= $now", f"{within} IS NOT NULL"
    else:
        now = within = "NULL"
        matured = labelled = "true"
    return (
        f"{counted} AS in_{index}, {_any_of(guardrail.bad_when, now)} AS bad_{index},"
        f" {_any_of(guardrail.bad_when, within)} AS bad_within_{index},"
        f" {matured} AS matured_{index}, {labelled} AS labelled_{index}"
    )


def _tally(index: int) -> str:
    i = index
    return (
        f"count(*) FILTER (in_{i}) AS n_units_{i}, count(*) FILTER (in_{i} AND bad_{i}) AS n_bad_{i},"
        f" count(*) FILTER (in_{i} AND matured_{i}) AS n_matured_{i},"
        f" count(*) FILTER (in_{i} AND matured_{i} AND bad_within_{i}) AS n_matured_bad_{i},"
        f" count(*) FILTER (in_{i} AND matured_{i} AND labelled_{i}) AS n_labelled_{i}"
    )


def _any_of(conditions: Sequence[Condition], label: str) -> str:
    """Return the expression that is true when a condition surely holds, and false when it does not or is unknown."""
    alternatives = " OR ".join(
        f"({' AND '.join(_term(term, label) for term in condition.terms)})" for condition in conditions
    )
    return f"coalesce({alternatives}, false)"


def _term(term: Term, label: str) -> str:
    column = label if term.column == "label" else _name(term.column)
    match term:
        case OneOf():
            return f"{column} IN ({', '.join(_literal(value) for value in term.values)})"
        case AtLeast():
            return f"{column} >= {term.bound!r}"
        case Above():
            return f"{column} > {term.bound!r}"
        case unreachable:
            assert_never(unreachable)


def _literal(value: object) -> str:
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _assembled(plan: Plan, newest_us: int | None, rows: Sequence[dict[str, Any]], shadow: tuple[Any, ...]) -> Evidence:
    epochs: dict[int, Epoch] = {}
    assigned: dict[tuple[int, Arm], int] = {}
    cells: defaultdict[Cell, Tally] = defaultdict(Tally)
    for row in rows:
        number, arm = row["snapshot_no"], Arm(row["arm"])
        epoch = Epoch(row["share"], row["stage"])
        if row["epochs"] != 1 or epochs.setdefault(number, epoch) != epoch:
            raise UnavailableError(
                f"decision log, snapshot {number}: found several shares or stages; expected one; find out who else"
                " writes this log"
            )
        column, value = _slice(plan, row)
        if column is None:
            assigned[number, arm] = row["assigned"]
        for index, guardrail in enumerate(plan.guardrails):
            if column is not None and (column not in guardrail.slices or value not in plan.slices[column]):
                continue
            tally = Tally(
                *(row[f"n_{name}_{index}"] for name in ("units", "bad", "matured", "matured_bad", "labelled"))
            )
            cells[Cell(guardrail.name, column, value, number, arm)] = tally
    return Evidence(
        newest=None if newest_us is None else _EPOCH + timedelta(microseconds=newest_us),
        epochs=epochs,
        cells=dict(cells),
        assigned=assigned,
        shadow=ShadowTally(*shadow),
    )


def _slice(plan: Plan, row: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the column and value by which a row is grouped; None and None when it is of all units."""
    for index, column in enumerate(plan.slices):
        if row[f"rest_{index}"] == 0:
            return column, row[f"value_{index}"]
    return None, None
