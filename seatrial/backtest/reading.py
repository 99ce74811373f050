"""Read logs for a replay, and refuse those that compare nothing.

Two kinds are evidence. In the log of one experiment each unit was given to one release at random, with a probability
that was recorded. In a pair of logs both releases answered the same requests. Everything else, such as one release in
March and another in April, differs by its weeks and its units too, and no arithmetic tells the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seatrial.adapters.log_files import present_files
from seatrial.adapters.log_schema import DECISIONS, LABELS, LogKind
from seatrial.adapters.logs import folder_of
from seatrial.backtest.requests import Answers, Labels, Requests, moment
from seatrial.errors import InvalidDocumentError, Problem, UnavailableError
from seatrial.evidence import Arm
from seatrial.units import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from seatrial.backtest.requests import Flags, Floats, Integers
    from seatrial.plan import Plan

#: The part of the units of either log that must be in both: one release may have answered a few that the other missed.
LEAST_SHARED = 0.95
#: Requests that are paired by their order must be as close in time as two copies of one are.
_SAME_TIME_US = 60_000_000
_TIME = pa.timestamp("us", tz="UTC")
#: Columns without which a row says nothing.
_MANDATORY = ("decision_id", "ts", "release_id", "arm", "unit_key", "outcome")
_RANDOMISE = (
    "such a comparison proves nothing, for the two releases differ by weeks and units as well; give the log of an"
    " experiment with its probabilities, or both releases' answers to the same requests with --champion-log and"
    " --challenger-log"
)


def read_experiment(
    plan: Plan, root: Path, *, propensity: str = "share", champion: str | None = None, challenger: str | None = None
) -> Requests:
    """Return the requests of one experiment, in which units were given to a release at random.

    Parameters
    ----------
    plan
        The plan to replay; its decision point says which log is read.
    root
        Root directory of decision and label logs.
    propensity
        Column with the probability that the unit was the challenger's, at its assignment.
    champion, challenger
        Release ids or their first characters; each may be left out when the arm holds one release.

    Raises
    ------
    InvalidDocumentError
        With every problem at once: a column or label that the plan needs is missing, no row was drawn at random, the
        arms were served at different times, or units changed their arm within one assignment.
    UnavailableError
        When a file cannot be read.
    """
    log = _Log(plan, root, "--log")
    rows = log.decisions(propensity)
    labels = log.labels()
    if rows is None:
        raise InvalidDocumentError(log.problems)
    rows, left_out = _of_arms(rows)
    chance = _numbers(rows, propensity)
    is_drawn = (chance > 0.0) & (chance < 1.0)
    if not is_drawn.any():
        finding = f"found no row whose {propensity} lies between 0 and 1: nothing was drawn at random"
        raise InvalidDocumentError([*log.problems, Problem(str(root), finding, _RANDOMISE)])
    named = {
        arm: log.release(rows.filter(pa.array(is_drawn & (_texts(rows, "arm") == arm))), wanted, f"--{arm}")
        for arm, wanted in ((Arm.CHAMPION, champion), (Arm.CHALLENGER, challenger))
    }
    is_named = np.isin(_texts(rows, "release_id"), [name for name in named.values() if name is not None])
    left_out["rows of other releases"] = int((~is_named).sum())
    rows, chance, is_drawn = rows.filter(pa.array(is_named)), chance[is_named], is_drawn[is_named]
    left_out["rows that were not drawn at random"] = int((~is_drawn).sum())
    log.problems += _unsound(rows.filter(pa.array(is_drawn)), propensity, root)
    at, units, unit = _keys(rows)
    is_challenger = _texts(rows, "arm") == Arm.CHALLENGER
    found = _labels(labels, rows, rows, at)
    requests = Requests(
        {
            Arm.CHAMPION: Answers(named[Arm.CHAMPION] or "", rows, ~is_challenger, found),
            Arm.CHALLENGER: Answers(named[Arm.CHALLENGER] or "", rows, is_challenger, found),
        },
        at=at,
        unit=unit,
        units=units,
        takes_part=is_drawn & _in_segment(rows, plan),
        propensity=chance,
        left_out={reason: count for reason, count in left_out.items() if count},
    )
    return log.checked(requests)


def read_pair(
    plan: Plan,
    champion_root: Path,
    challenger_root: Path,
    *,
    champion: str | None = None,
    challenger: str | None = None,
) -> Requests:
    """Return the requests that both releases answered, each log telling what one of them did.

    Requests are paired by ``decision_id`` where the logs share any, otherwise by unit and order, when their times
    agree to a minute. The time and everything that was known before the decision is that of the champion's row. A
    copy that nobody acted on (arm ``shadow``) counts as if its recommendation had been taken.

    Parameters
    ----------
    plan
        The plan to replay; its decision point says which log is read.
    champion_root, challenger_root
        Root directories of the two logs; they may be the same, as where a release was shadowed.
    champion, challenger
        Release ids or their first characters; each may be left out when its log holds one release.

    Raises
    ------
    InvalidDocumentError
        With every problem at once: a column or label that the plan needs is missing, a log holds several releases, or
        fewer than `LEAST_SHARED` of the units are in both.
    UnavailableError
        When a file cannot be read.
    """
    logs = (_Log(plan, champion_root, "--champion-log"), _Log(plan, challenger_root, "--challenger-log"))
    labels = [log.labels() for log in logs]
    named, sides = _sides(logs, (champion, challenger))
    pairs, left_out = _paired(logs, sides)
    rows = [side.take(pa.array(paired)) for side, paired in zip(sides, pairs, strict=True)]
    at, units, unit = _keys(rows[0])
    served = (_acted(rows[0], rows[1]), _with(_acted(rows[1], rows[0]), _known_before(rows[0], plan)))
    # Labels of either log under the ids of the requests, those of the release first.
    found = [_labels(each, logged, rows[0], at) for each, logged in zip(labels, rows, strict=True)]
    preferred = (_preferred(found[0], found[1]), _preferred(found[1], found[0]))
    known = np.ones(at.size, dtype=np.bool_)
    requests = Requests(
        {
            arm: Answers(release, answers, known, label)
            for arm, release, answers, label in zip(
                (Arm.CHAMPION, Arm.CHALLENGER), named, served, preferred, strict=True
            )
        },
        at=at,
        unit=unit,
        units=units,
        takes_part=_in_segment(rows[0], plan),
        propensity=None,
        left_out={reason: count for reason, count in left_out.items() if count},
    )
    logs[0].problems += logs[1].problems
    return logs[0].checked(requests)


def _sides(logs: Sequence[_Log], wanted: Sequence[str | None]) -> tuple[list[str], list[pa.Table]]:
    """Return the release of each log and its rows, each decision once."""
    named: list[str] = []
    sides: list[pa.Table] = []
    for log, name, option in zip(logs, wanted, ("--champion", "--challenger"), strict=True):
        rows = log.decisions()
        release = None if rows is None else log.release(rows, name, option)
        if rows is not None and release is not None:
            named.append(release)
            sides.append(_once(rows.filter(pc.equal(rows["release_id"], release)))[0])
    problems = [problem for log in logs for problem in log.problems]
    if len(sides) < len(logs):
        raise InvalidDocumentError(problems)
    if named[0] == named[1]:
        finding = f"found release {short(named[0])} in both logs, expected two releases"
        raise InvalidDocumentError([*problems, Problem(logs[1].place, finding, "name them: --challenger ID")])
    return named, sides


def _known_before(rows: pa.Table, plan: Plan) -> dict[str, Any]:
    """Return what says which request it is, and what was known before any release answered it."""
    asked = {c for each in plan.guardrails for condition in each.only_when for c in condition.columns()}
    columns = ("decision_id", "ts", "unit_key", "segment", *sorted({*plan.slices, *asked}))
    return {column: rows[column] for column in columns if column in rows.column_names}


@dataclass(slots=True)
class _Log:
    """One log that was named on the command line, and what is wrong with it."""

    plan: Plan
    root: Path
    option: str
    problems: list[Problem] = field(default_factory=list)

    @property
    def place(self) -> str:
        """The option and its directory."""
        return f"{self.option} {self.root}"

    def decisions(self, *more: str) -> pa.Table | None:
        """Return the rows with an id, time, unit and release, in the order of time; None when there are none."""
        asked = {*_MANDATORY, *_columns(self.plan), *more}
        rows = self._rows(LogKind.DECISIONS, sorted({*asked, *DECISIONS.names}))
        if rows is None:
            self._complain(f"no decision log of {self.plan.decision_point!r}", self._known())
            return None
        missing = sorted(asked - set(rows.column_names))
        for column in missing:
            self._complain(f"no column {column} in the decision log", "log it, or take it out of the plan")
        if "ts" in rows.column_names and getattr(rows.schema.field("ts").type, "tz", None) is None:
            self._complain("times ts without a zone", "write them in UTC")
            return None
        if set(missing) & {*_MANDATORY, *more}:
            return None
        for name in DECISIONS.names:
            if name not in rows.column_names:
                rows = rows.append_column(name, pa.nulls(rows.num_rows, DECISIONS.field(name).type))
        whole = [pc.is_valid(rows[name]) for name in ("decision_id", "ts", "release_id", "arm", "unit_key")]
        rows = rows.filter(whole[0] if len(whole) == 1 else _all(whole))
        if not rows.num_rows:
            self._complain("a decision log without a row", self._known())
            return None
        rows = _with(rows, {"ts": rows["ts"].cast(_TIME), "decision_id": rows["decision_id"].cast(pa.string())})
        return rows.sort_by([("ts", "ascending"), ("decision_id", "ascending")])

    def labels(self) -> pa.Table:
        """Return the labels that the plan asks for; no row when there is no label log."""
        asked = _label_names(self.plan)
        rows = self._rows(LogKind.LABELS, LABELS.names) if asked else None
        if rows is None:
            return LABELS.empty_table()
        if missing := sorted({"decision_id", "name", "value", "arrived_at"} - set(rows.column_names)):
            self._complain(f"no column {', '.join(missing)} in the label log", "write labels as seatrial does")
            return LABELS.empty_table()
        if getattr(rows.schema.field("arrived_at").type, "tz", None) is None:
            self._complain("times arrived_at without a zone", "write them in UTC")
            return LABELS.empty_table()
        if "fact_at" not in rows.column_names:
            rows = rows.append_column("fact_at", rows["arrived_at"])
        rows = rows.filter(pc.is_in(rows["name"], value_set=pa.array(sorted(asked), pa.string())))
        return rows.filter(_all([pc.is_valid(rows[name]) for name in ("decision_id", "arrived_at")])).select(
            LABELS.names
        )

    def release(self, rows: pa.Table, wanted: str | None, option: str) -> str | None:
        """Return the one release of `rows`, or the one that `wanted` names; None after a complaint."""
        found: list[str] = sorted(pc.unique(rows["release_id"]).to_pylist())
        fits = [name for name in found if wanted is None or _is_named(name, wanted)]
        if len(fits) == 1:
            return fits[0]
        seen = ", ".join(map(short, found[:_MOST_NAMED])) + (", ..." if len(found) > _MOST_NAMED else "")
        if not found:
            self._complain(f"no row of the {option.removeprefix('--')}", _RANDOMISE)
        elif wanted is None:
            self._complain(f"{len(found)} releases ({seen})", f"name one: {option} ID")
        else:
            self._complain(f"{len(fits)} releases that {wanted!r} names, of {seen}", f"name one: {option} ID")
        return None

    def checked(self, requests: Requests) -> Requests:
        """Return `requests`, or raise InvalidDocumentError with everything that is wrong."""
        if not requests.takes_part.any():
            where = "" if self.plan.segment is None else f" in segment {self.plan.segment!r}"
            self._complain(f"no request{where} that can be replayed", "give a log of the plan's traffic")
        for name in sorted(_label_names(self.plan)):
            if not any((_texts(each.labels.rows, "name") == name).any() for each in requests.answers.values()):
                self._complain(f"no label {name!r} of any of these decisions", "give the label log, below labels/")
        if self.problems:
            raise InvalidDocumentError(self.problems)
        return requests

    def _complain(self, finding: str, remedy: str) -> None:
        self.problems.append(Problem(self.place, f"found {finding}", remedy))

    def _known(self) -> str:
        known = sorted(path.name.partition("=")[2] for path in (self.root / "decisions").glob("decision_point=*"))
        return f"give the directory that holds decisions/ and labels/; it has {', '.join(known) or 'no decision point'}"

    def _rows(self, kind: LogKind, columns: Sequence[str]) -> pa.Table | None:
        folder = folder_of(self.root, kind, self.plan.decision_point)
        files = [str(path) for date in sorted(folder.glob("date=*")) for path in present_files(date)]
        if not files:
            return None
        relation = "read_parquet($files, hive_partitioning = false, union_by_name = true)"
        try:
            with duckdb.connect(config={"threads": 2}) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                there = {row[0] for row in connection.execute(f"DESCRIBE FROM {relation}", {"files": files}).fetchall()}
                named = ", ".join('"' + name.replace('"', '""') + '"' for name in columns if name in there)
                if not named:
                    return None
                query = f"SELECT {named} FROM {relation}"  # noqa: S608 names are quoted
                return connection.sql(query, params={"files": files}).to_arrow_table()
        except duckdb.Error as error:
            raise UnavailableError(f"{folder}: the log could not be read: {error}") from error


#: Releases that a message lists.
_MOST_NAMED = 6


def _is_named(release_id: str, wanted: str) -> bool:
    return release_id == wanted or release_id.removeprefix("sha256:").startswith(wanted.removeprefix("sha256:"))


def _columns(plan: Plan) -> set[str]:
    """Return the columns of the decision log that `plan` reads."""
    asked = {plan.unit, *plan.slices}
    for each in plan.guardrails:
        for condition in (*each.bad_when, *each.only_when, *each.observed_when):
            asked |= condition.columns()
        asked |= set() if each.exceeds is None else {each.exceeds.column}
        asked |= set() if each.mean is None else {each.mean.of, each.mean.per or each.mean.of}
    asked |= set() if plan.scores is None else {"score"}
    asked |= set() if plan.segment is None else {"segment"}
    return {"action_taken" if column == "action" else column for column in asked} - {"label", "decisions"}


def _label_names(plan: Plan) -> set[str]:
    asked = {each.label for each in plan.guardrails if each.source.is_delayed}
    asked |= set() if plan.scores is None else {plan.scores.label}
    return {name for name in asked if name is not None}


def _of_arms(rows: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """Return the rows that were served, each decision once, and how many were left out."""
    is_served = pc.is_in(rows["arm"], value_set=pa.array([Arm.CHAMPION.value, Arm.CHALLENGER.value]))
    served, repeated = _once(rows.filter(is_served))
    return served, {"copies that nobody acted on": rows.num_rows - served.num_rows - repeated, "rows twice": repeated}


def _once(rows: pa.Table) -> tuple[pa.Table, int]:
    """Return the first row of each decision, and how many others there are."""
    _, first = np.unique(_texts(rows, "decision_id"), return_index=True)
    return rows.take(pa.array(np.sort(first))), rows.num_rows - first.size


def _unsound(drawn: pa.Table, propensity: str, root: Path) -> list[Problem]:
    """Return why rows that say they were drawn at random cannot have been."""
    arms, at = _texts(drawn, "arm"), _times(drawn, "ts")
    spans = {arm: at[arms == arm] for arm in (Arm.CHAMPION, Arm.CHALLENGER)}
    if not all(span.size for span in spans.values()):
        return []
    problems = []
    first, second = sorted(spans.values(), key=lambda span: int(span[0]))
    if first[-1] < second[0]:
        finding = f"found one release until {_day(first[-1])} and the other one from {_day(second[0])}"
        problems.append(Problem(str(root), finding, _RANDOMISE))
    grouped = drawn.group_by(["unit_key", "snapshot_no", propensity]).aggregate([("arm", "count_distinct")])
    crossed = int(pc.sum(pc.greater(grouped["arm_count_distinct"], 1)).as_py() or 0)
    if crossed:
        finding = f"found {crossed:,} units in both arms of one assignment, expected each in one"
        remedy = "requests were drawn, not units, so that no unit shows what one release does to it; draw by unit"
        problems.append(Problem(str(root), finding, remedy))
    return problems


def _paired(logs: Sequence[_Log], sides: Sequence[pa.Table]) -> tuple[tuple[Integers, Integers], dict[str, int]]:
    """Return the rows of the same requests in both logs, and how many have no counterpart."""
    ids = [_texts(rows, "decision_id").tolist() for rows in sides]
    keys = [_texts(rows, "unit_key").tolist() for rows in sides]
    at = [_times(rows, "ts") for rows in sides]
    by_id = not set(ids[0]).isdisjoint(ids[1])
    names: list[list[Any]] = ids if by_id else [_ordered(units) for units in keys]
    where = {name: row for row, name in enumerate(names[1])}
    candidates = ((row, where[name]) for row, name in enumerate(names[0]) if name in where)
    pairs = [
        (row, other)
        for row, other in candidates
        if keys[0][row] == keys[1][other] and (by_id or abs(int(at[0][row] - at[1][other])) <= _SAME_TIME_US)
    ]
    shared, everyone = {keys[0][row] for row, _ in pairs}, {*keys[0], *keys[1]}
    if len(shared) < LEAST_SHARED * len(everyone):
        finding = (
            f"found {len(shared):,} of {len(everyone):,} units in both logs ({_span(at[0])} in {logs[0].root},"
            f" {_span(at[1])} in {logs[1].root}), expected {LEAST_SHARED:.0%}: the releases did not answer the same"
            " requests"
        )
        problems = [problem for log in logs for problem in log.problems]
        raise InvalidDocumentError([*problems, Problem(logs[1].place, finding, _RANDOMISE)])
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return (both[:, 0], both[:, 1]), {
        "units that only one log has": len(everyone) - len(shared),
        "rows without a counterpart": sum(unit in shared for side in keys for unit in side) - 2 * len(pairs),
    }


def _ordered(units: Iterable[str]) -> list[tuple[str, int]]:
    """Return each unit with the number of its request."""
    seen: dict[str, int] = {}
    named = []
    for unit in units:
        seen[unit] = seen.get(unit, 0) + 1
        named.append((unit, seen[unit]))
    return named


def _acted(own: pa.Table, other: pa.Table) -> pa.Table:
    """Return the rows of one release as if it had served: its recommendation was taken, or the other's where none."""
    is_copy = pc.equal(own["arm"], Arm.SHADOW.value)
    taken = pc.if_else(is_copy, pa.scalar(None, pa.string()), own["action_taken"])
    acted = pc.coalesce(taken, own["action_recommended"], other["action_taken"])
    return _with(own, {"action_taken": acted})


def _labels(labels: pa.Table, logged: pa.Table, requests: pa.Table, at: Integers) -> Labels:
    """Return `labels` of the decisions in `logged`, under the ids of `requests`, in the order in which they show."""
    index = {name: row for row, name in enumerate(_texts(logged, "decision_id").tolist())}
    request = np.array([index.get(name, -1) for name in _texts(labels, "decision_id").tolist()], dtype=np.int64)
    rows, request = labels.filter(pa.array(request >= 0)), request[request >= 0]
    seen_at = np.maximum(_times(rows, "arrived_at"), at[request]) if request.size else request
    order = np.argsort(seen_at, kind="stable")
    names = requests["decision_id"].take(pa.array(request))
    return Labels(_with(rows, {"decision_id": names}).take(pa.array(order)), request[order], seen_at[order])


def _preferred(own: Labels, other: Labels) -> Labels:
    """Return the release's own labels, and the other log's where it has none of that name for a request."""
    known = set(zip(own.request.tolist(), _texts(own.rows, "name").tolist(), strict=True))
    more = zip(other.request.tolist(), _texts(other.rows, "name").tolist(), strict=True)
    is_new = np.array([each not in known for each in more], dtype=np.bool_)
    rows = pa.concat_tables([own.rows, other.rows.filter(pa.array(is_new))], promote_options="permissive")
    request = np.concatenate([own.request, other.request[is_new]])
    seen_at = np.concatenate([own.seen_at, other.seen_at[is_new]])
    order = np.argsort(seen_at, kind="stable")
    return Labels(rows.take(pa.array(order)), request[order], seen_at[order])


def _keys(rows: pa.Table) -> tuple[Integers, Sequence[str], Integers]:
    """Return the time of each row, the units, and which of them each row is about."""
    units, unit = np.unique(_texts(rows, "unit_key"), return_inverse=True)
    return _times(rows, "ts"), units.tolist(), unit.astype(np.int64)


def _in_segment(rows: pa.Table, plan: Plan) -> Flags:
    if plan.segment is None:
        return np.ones(rows.num_rows, dtype=np.bool_)
    is_in: Flags = _texts(rows, "segment") == plan.segment
    return is_in


def _all(flags: Sequence[Any]) -> Any:
    whole = flags[0]
    for each in flags[1:]:
        whole = pc.and_(whole, each)
    return whole


def _with(rows: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """Return `rows` with some columns replaced."""
    for name, values in columns.items():
        at = rows.schema.get_field_index(name)
        rows = rows.append_column(name, values) if at < 0 else rows.set_column(at, name, values)
    return rows


def _texts(rows: pa.Table, column: str) -> Any:
    return np.array(rows[column].to_pylist(), dtype=object)


def _numbers(rows: pa.Table, column: str) -> Floats:
    """Return a column of numbers; what is none, is NaN."""
    values: Floats = np.array(pc.cast(rows[column], pa.float64(), safe=False).to_pylist(), dtype=np.float64)
    return values


def _times(rows: pa.Table, column: str) -> Integers:
    times: Integers = rows[column].cast(_TIME).cast(pa.int64()).to_numpy().astype(np.int64)
    return times


def _span(at: Integers) -> str:
    return f"{_day(at[0])} to {_day(at[-1])}"


def _day(micros: int) -> str:
    return f"{moment(int(micros)):%Y-%m-%d}"
