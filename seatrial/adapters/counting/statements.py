"""The statements that a declaration compiles to, in a part of SQL that DuckDB, PostgreSQL and Spark understand alike.

Times are whole microseconds, amounts whole steps, flags bits: nothing is left to what an engine takes rounding, NULL
or NaN for. Names and values come from a checked plan and are quoted here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from seatrial.adapters.counting.declaration import ALWAYS, NEVER, ROW_BITS, Declaration, micros, packed
from seatrial.adapters.counting.expressions import (
    INFINITY,
    LATENCY,
    NOT_COUNTED,
    NOT_GROUPED,
    all_of,
    any_of,
    bin_of,
    fixed,
    is_nan,
    name,
    pack,
    place_in,
    quoted,
    whole_sum,
)
from seatrial.evidence import AMOUNT_STEP, DIVISOR_STEP, WAIT_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seatrial.plan import Guardrail, Mean
    from seatrial.ports import Scope
    from seatrial.stats.scores import ScoreGrid

#: How far before the rollout the champion is read for what is frozen.
REFERENCE = timedelta(days=7)
#: The reference ends this long before the rollout, so that it is on disk by then and no later look reads another one.
SETTLED = timedelta(minutes=10)

CHALLENGER, CHAMPION = 0, 1

ON_TRIAL = "arm <> 'shadow' AND share > 0 AND share < 1"
_ARM = f"CASE WHEN arm = 'challenger' THEN {CHALLENGER} ELSE {CHAMPION} END"
#: What a row of the decision log must fulfil, by the reason for which it is set aside otherwise.
_DECISION_RULES = {
    "ts.before_rollout": "decided_us >= {since}",
    "release.unknown": "release_id IN ({champion}, {challenger})",
    "arm.unknown": "arm IN ('champion', 'challenger', 'shadow')",
    "share.out_of_range": f"share >= 0 AND share <= 1 AND share < {INFINITY}",
}
DECISION_REASONS = tuple(_DECISION_RULES)
LABEL_REASONS = ("value.not_a_number", "label.before_decision")
#: Refused labels of one kind that a decision is counted with at most, less one.
REFUSED_LIMIT = 1000


class Dialect(Protocol):
    """Where engines differ."""

    def latest(self, value: str, time: str, where: str, *, first: bool) -> str:
        """Return the aggregate of the `value` with the greatest `time`, or the least, then the greatest value."""


def whole(moment: datetime) -> int:
    """Return `moment` in microseconds since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def oldest_step(maturity_us: int, now_us: int) -> int:
    """Return the step of a window in which a unit was decided that is just out of it; older ones are like it."""
    return now_us * WAIT_STEPS // maturity_us - WAIT_STEPS - 1


def newest(now: datetime) -> str:
    """Return the query of when the last decision was made."""
    return f"SELECT max(decided_us) FROM decisions WHERE decided_us <= {whole(now)} AND arm <> 'shadow'"  # noqa: S608


def rows(scope: Scope, now: datetime, *, is_sound: bool = False) -> str:
    """Return the query of the sound decisions of the rollout up to now, which all of them may be known to be."""
    rules = "" if is_sound else "".join(f" AND ({rule})" for rule in _rules(scope).values())
    return f"SELECT * FROM decisions WHERE {_is_of(scope, now)}{rules}"  # noqa: S608


def set_aside(scope: Scope, now: datetime) -> str:
    """Return the query of how many decisions there are, and how many break each rule; each is counted once."""
    rules = list(_rules(scope).values())
    counts = []
    for at, rule in enumerate(rules):
        before = "".join(f"({each}) AND " for each in rules[:at])
        counts.append(f"count(*) FILTER (WHERE {before}({rule}) IS NOT TRUE)")
    return f"SELECT count(*), {', '.join(counts)} FROM decisions WHERE {_is_of(scope, now)}"  # noqa: S608


def turned_away(scope: Scope, now: datetime) -> str:
    """Return the query of rows in quarantine by reason: decisions of the rollout, and labels since its start.

    A label names no rollout; one that was turned away may have been about any decision of its decision point. A
    writer without a clock does not say when it turned a row away.
    """
    return f"""
        SELECT reason, count(*) FROM quarantine
        WHERE (
            kind = 'decisions' AND rollout_id = {quoted(scope.rollout_id)}
            AND (seen_us IS NULL OR seen_us <= {whole(now)})
        ) OR (kind = 'labels' AND seen_us <= {whole(now)} AND seen_us >= {whole(scope.since)})
        GROUP BY reason
    """  # noqa: S608


def _rules(scope: Scope) -> dict[str, str]:
    known = {
        "since": whole(scope.since),
        "champion": quoted(scope.champion),
        "challenger": quoted(scope.challenger),
    }
    return {reason: rule.format(**known) for reason, rule in _DECISION_RULES.items()}


def _is_of(scope: Scope, now: datetime) -> str:
    return f"rollout_id = {quoted(scope.rollout_id)} AND decided_us <= {whole(now)}"


def reference(scope: Scope, columns: Iterable[str]) -> str:
    """Return the query of some columns of what the champion answered before the rollout."""
    until = scope.since - SETTLED
    return f"""
        SELECT {", ".join(map(name, sorted(columns)))} FROM decisions
        WHERE decided_us >= {whole(until - REFERENCE)} AND decided_us < {whole(until)} AND arm = 'champion'
    """  # noqa: S608


def reference_size(column: str) -> str:
    """Return the query of how many values of a column the reference has."""
    return f"SELECT count({name(column)}) FROM reference"  # noqa: S608


def reference_value(column: str, rank: int) -> str:
    """Return the query of the value of a rank, the least having rank 1."""
    column = name(column)
    return f"SELECT {column} FROM reference WHERE {column} IS NOT NULL ORDER BY {column} LIMIT 1 OFFSET {rank - 1}"  # noqa: S608


def reference_scores(grid: ScoreGrid) -> str:
    """Return the query of the champion's scores in the reference, by bin."""
    return f"""
        SELECT bin, count(*) FROM (SELECT {bin_of("score", grid)} AS bin FROM reference WHERE outcome = 'ok') AS binned
        GROUP BY bin
    """  # noqa: S608


def units_on_trial(unit: str) -> str:
    """Return the query of each unit on trial: its first decision, first challenger's and last champion's snapshot."""
    return f"""
        SELECT {name(unit)}, min(decided_us) AS decided_us,
            min(CASE WHEN arm = 'challenger' THEN snapshot_no END) AS from_snapshot,
            max(CASE WHEN arm = 'champion' THEN snapshot_no END) AS to_snapshot
        FROM rows_of WHERE {ON_TRIAL} GROUP BY {name(unit)}
    """  # noqa: S608


#: Only a unit that the challenger had no later than the champion can have been in both arms of one snapshot.
SUSPECTS = "SELECT count(*) FROM units WHERE from_snapshot <= to_snapshot"


def crossed(unit: str) -> str:
    """Return the query of how many units were in both arms of one snapshot."""
    unit = name(unit)
    return f"""
        SELECT count(DISTINCT unit) FROM (
            SELECT rows_of.{unit} AS unit, snapshot_no
            FROM rows_of JOIN units ON rows_of.{unit} = units.{unit}
            WHERE from_snapshot <= to_snapshot AND {ON_TRIAL}
            GROUP BY rows_of.{unit}, snapshot_no HAVING min(arm) <> max(arm)
        ) AS both_arms
    """  # noqa: S608


class Statements:
    """What a declaration asks of an engine, from the rows of a rollout to the counts."""

    def __init__(self, declaration: Declaration, scope: Scope, now: datetime, dialect: Dialect) -> None:
        self.declaration = declaration
        self._plan = declaration.plan
        self._scope = scope
        self._now_us = whole(now)
        self._dialect = dialect
        self._unit = name(declaration.plan.unit)
        self._early = packed(declaration.early, ROW_BITS)
        self._late = self._late_bits()
        self._firsts = self._first_columns()

    # --- the first decision of each unit ---

    def firsts(self) -> str:
        """Return the query of the first decision of each unit in `units`, with everything that it alone decides.

        A unit with two decisions at its first moment stands there twice, which `distinct_firsts` mends.
        """
        columns = ", ".join(f"{sql} AS {column}" for column, sql in self._firsts.items())
        return f"SELECT {columns} {self._first_rows}"

    def distinct_firsts(self) -> str:
        """Return the same, with one row for each unit whatever its first moment holds."""
        order = ", ".join(
            f"rows_of.{column}"
            for column in ("decision_id", "arm", "snapshot_no", "outcome", "action_taken", "score", "latency_ms")
        )
        columns = ", ".join(f"{sql} AS {column}" for column, sql in self._firsts.items())
        nth = f"row_number() OVER (PARTITION BY rows_of.{self._unit} ORDER BY {order}) AS nth"
        return f"""
            SELECT {", ".join(self._firsts)} FROM (SELECT {columns}, {nth} {self._first_rows}) AS ordered WHERE nth = 1
        """  # noqa: S608

    @property
    def _first_rows(self) -> str:
        return (
            f"FROM rows_of JOIN units ON rows_of.{self._unit} = units.{self._unit}"
            f" AND rows_of.decided_us = units.decided_us WHERE {ON_TRIAL}"
        )

    def _first_columns(self) -> dict[str, str]:
        """Return the expression of each column of `firsts`."""
        # Only sums over a unit's decisions ask who it was, and names are what a row is longest by.
        found = {"unit": f"rows_of.{self._unit}"} if self.declaration.windowed else {}
        found |= {
            "decision_id": "rows_of.decision_id",
            "decided_us": "rows_of.decided_us",
            "snapshot_no": "rows_of.snapshot_no",
            "arm": _ARM,
            "share": "rows_of.share",
            "stage": "rows_of.stage",
            "latency": f"CASE WHEN latency_ms >= 0 THEN {LATENCY} ELSE {NOT_COUNTED} END",
        }
        for at, column in enumerate(self.declaration.columns):
            found[f"slice_{at}"] = place_in(name(column), self._plan.slices[column])
        for at, bits in enumerate(self._early):
            found[f"early_{at}"] = pack(bits, self._early_bit)
        if self.declaration.grid is not None:
            is_scored = bin_of("score", self.declaration.grid)
            found["score_bin"] = f"CASE WHEN outcome = 'ok' THEN {is_scored} ELSE {NOT_COUNTED} END"
        for index in self.declaration.means:
            mean = self._plan.guardrails[index].mean
            if mean is not None and mean.window is None and mean.of != "label":
                found[f"amount_{index}"] = fixed(name(mean.of), mean.deviation * AMOUNT_STEP)
        return found

    def _early_bit(self, bit: str) -> str:
        kind, index, *rest = bit.split("_")
        guardrail = self._plan.guardrails[int(index)]
        match kind:
            case "inside":
                return any_of(guardrail.only_when)
            case "hidden":
                return f"({any_of(guardrail.observed_when)}) IS NOT TRUE"
            case "terms":
                terms = [term for term in guardrail.bad_when[int(rest[0])].terms if term.column != "label"]
                return all_of(terms, "NULL")
            case _:
                return self._bad(guardrail)

    def _bad(self, guardrail: Guardrail) -> str:
        if guardrail.exceeds is None:
            return any_of(guardrail.bad_when)
        # Who gives no number has not stayed below: NaN is above all numbers, and NULL would be no exceedance.
        threshold = self.declaration.quantiles[guardrail.name]
        return f"({name(guardrail.exceeds.column)} <= {threshold!r}) IS NOT TRUE"

    # --- labels ---

    def labels(self, base: str = "firsts", relation: str = "labels", only: Iterable[str] | None = None) -> str:
        """Return the query of what is known of the labels of the decisions in `base`, one row for each decision."""
        wanted = self.declaration.maturities
        asked = {label: wanted[label] for label in (wanted if only is None else only)}
        columns = [sql for label in asked for sql in self._label_columns(label)]
        names = ", ".join(quoted(label) for label in asked)
        return f"""
            SELECT base_of.decision_id, {", ".join(columns)}
            FROM {relation} AS labels_of JOIN {base} AS base_of ON labels_of.decision_id = base_of.decision_id
            WHERE labels_of.name IN ({names}) AND arrived_us <= {self._now_us}
            GROUP BY base_of.decision_id
        """  # noqa: S608

    def _label_columns(self, label: str) -> list[str]:
        at = self.declaration.label_at(label)
        is_first = self._plan.evidence.conflicts == "first"
        is_named = f"labels_of.name = {quoted(label)}"
        is_sound = f"{is_named} AND NOT ({is_nan('value')}) AND arrived_us >= decided_us"

        def known(where: str) -> str:
            return self._dialect.latest("value", "arrived_us", where, first=is_first)

        within = [
            f"{known(f'{is_sound} AND arrived_us <= decided_us + {window}')} AS within_{at}_{window}"
            for window in self.declaration.maturities[label]
        ]
        return [
            f"{known(is_sound)} AS known_{at}",
            f"min(arrived_us) FILTER (WHERE {is_sound}) AS first_{at}",
            f"count(*) FILTER (WHERE {is_sound}) AS times_{at}",
            f"min(value) FILTER (WHERE {is_sound}) AS least_{at}",
            f"max(value) FILTER (WHERE {is_sound}) AS most_{at}",
            f"count(*) FILTER (WHERE {is_named} AND {is_nan('value')}) AS nan_{at}",
            f"count(*) FILTER (WHERE {is_named} AND NOT ({is_nan('value')}) AND arrived_us < decided_us) AS soon_{at}",
            *within,
        ]

    # --- amounts over a time ---

    def epochs(self) -> str:
        """Return the query of when each snapshot ended, which is when the next one began."""
        return """
            SELECT snapshot_no, lead(began) OVER (ORDER BY snapshot_no) AS ended
            FROM (SELECT snapshot_no, min(decided_us) AS began FROM rows_of GROUP BY snapshot_no) AS began_of
        """

    def window(self, index: int) -> str:
        """Return the query of the sums over a unit's decisions in its window, of units whose window counts.

        A window counts when it ended by now and before the next snapshot began. Both are known without the arm, while
        a champion's unit that turns into a challenger's with a larger share would mix the two. A decision without a
        number leaves its unit without an amount, for what was not measured is not nothing; one that was logged twice
        counts once.
        """
        mean = self._plan.guardrails[index].mean
        if mean is None or mean.window is None:
            raise ValueError(f"guardrail {index}: found no window; ask only guardrails with one")
        window = micros(mean.window)
        amount, divisor = self._window_sums(mean)
        order = "decided_us, arm, snapshot_no, outcome, action_taken, score, latency_ms"
        once = f"""
            SELECT * FROM (
                SELECT rows_of.*, row_number() OVER (PARTITION BY decision_id ORDER BY {order}) AS nth
                FROM rows_of WHERE arm <> 'shadow'
            ) AS numbered WHERE nth = 1
        """  # noqa: S608
        return f"""
            SELECT firsts.unit AS unit, {amount} AS k, {divisor} AS n
            FROM firsts JOIN ({once}) AS each_of ON each_of.{self._unit} = firsts.unit
            LEFT JOIN epochs ON epochs.snapshot_no = firsts.snapshot_no
            WHERE each_of.decided_us >= firsts.decided_us AND each_of.decided_us < firsts.decided_us + {window}
                AND firsts.decided_us + {window} <= {self._now_us}
                AND (ended IS NULL OR firsts.decided_us + {window} <= ended)
            GROUP BY firsts.unit
        """  # noqa: S608

    @staticmethod
    def _window_sums(mean: Mean) -> tuple[str, str]:
        amount = whole_sum(fixed(f"each_of.{name(mean.of)}", mean.deviation * AMOUNT_STEP))
        if mean.per is None:
            return amount, "1"
        if mean.per == "decisions":
            return amount, "count(*)"
        return amount, whole_sum(fixed(f"each_of.{name(mean.per)}", DIVISOR_STEP))

    # --- what is counted ---

    def counts(self, base: str = "firsts", labels: str = "labels_of_units") -> str:
        """Return the query that counts everything in one pass: the keys, the number of units, and the sums."""
        declaration = self.declaration
        keys = [f"coalesce({key}, {f'{NOT_GROUPED}.0' if key == 'share' else NOT_GROUPED})" for key in declaration.keys]
        sums = [self._sum(measure) for measure in declaration.measures]
        sets = ", ".join(f"({', '.join(columns)})" for columns in declaration.sets)
        return f"""
            SELECT {", ".join([*keys, "count(*)", *sums])}
            FROM ({self._flagged(base, labels)}) AS flagged GROUP BY GROUPING SETS ({sets})
        """  # noqa: S608

    def _sum(self, measure: str) -> str:
        field, index = measure.rsplit("_", 1)
        k, n = (f"CAST({each}_{index} AS DECIMAL(19, 0))" for each in ("k", "n"))
        products = {"k": f"k_{index}", "n": f"n_{index}", "kk": f"{k} * {k}", "kn": f"{k} * {n}", "nn": f"{n} * {n}"}
        match field:
            case "units":
                return f"count(k_{index})"
            case "nonzero":
                return f"coalesce(sum(CASE WHEN k_{index} <> 0 THEN 1 ELSE 0 END), 0)"
            case _:
                return f"coalesce(sum({products[field]}), 0)"

    def _flagged(self, base: str, labels: str) -> str:
        declaration = self.declaration
        columns = ["base_of.snapshot_no", "base_of.arm", "base_of.share", "base_of.stage", "base_of.latency"]
        columns += [f"base_of.slice_{at}" for at, _ in enumerate(declaration.columns)]
        columns += [f"{pack(code.bits, self._late_bit)} AS code_{at}" for at, code in enumerate(declaration.codes)]
        columns += [sql for at, _ in enumerate(declaration.awaited) for sql in self._waits(at)]
        columns += [sql for label in declaration.maturities for sql in self._label_quality(label)]
        columns += [sql for index in declaration.means for sql in self._amounts(index)]
        if self._plan.scores is not None:
            columns += ["base_of.score_bin", f"{self.score_label('base_of', 'labels_of')} AS score_label"]
        joins = ""
        if declaration.maturities:
            joins = f"LEFT JOIN {labels} AS labels_of ON labels_of.decision_id = base_of.decision_id"
        for index in declaration.windowed:
            joins += f" LEFT JOIN window_{index} ON window_{index}.unit = base_of.unit"
        return f"SELECT {', '.join(columns)} FROM {base} AS base_of {joins}"  # noqa: S608

    def _late_bit(self, bit: str) -> str:
        return self._late[bit]

    def _late_bits(self) -> dict[str, str]:
        """Return the expression of every bit over a unit's first decision and what is known of its labels."""
        found = {
            bit: f"(early_{at} & {1 << place}) > 0"
            for at, bits in enumerate(self._early)
            for place, bit in enumerate(bits)
        }
        for window in self.declaration.boundaries:
            found[f"matured_{window}"] = f"base_of.decided_us <= {self._now_us - window}"
        for at, (_, windows) in enumerate(self.declaration.maturities.items()):
            found |= {f"labelled_{at}_{window}": f"within_{at}_{window} IS NOT NULL" for window in windows}
        for index, guardrail in enumerate(self._plan.guardrails):
            if guardrail.mean is not None:
                found[f"amount_{index}"] = " AND ".join(f"{each} IS NOT NULL" for each in self._amount_of(index))
                found[f"closed_{index}"] = f"window_{index}.unit IS NOT NULL"
            elif guardrail.source.is_delayed:
                at = self.declaration.label_at(guardrail.label)
                found[f"bad_{index}"] = self._bad_label(index, guardrail, f"known_{at}", found)
                within = f"within_{at}_{micros(guardrail.maturity)}"
                found[f"within_{index}"] = self._bad_label(index, guardrail, within, found)
        return found

    @staticmethod
    def _bad_label(index: int, guardrail: Guardrail, label: str, bits: dict[str, str]) -> str:
        alternatives = []
        for at, condition in enumerate(guardrail.bad_when):
            terms = [term for term in condition.terms if term.column == "label"]
            alternatives.append(f"({bits[f'terms_{index}_{at}']} AND {all_of(terms, label)})")
        return " OR ".join(alternatives)

    def _amount_of(self, index: int) -> tuple[str, ...]:
        guardrail = self._plan.guardrails[index]
        mean = guardrail.mean
        if mean is None:
            raise ValueError(f"guardrail {guardrail.name}: found no mean; ask only guardrails with one")
        if mean.window is not None:
            return f"window_{index}.k", f"window_{index}.n"
        if mean.of == "label":
            within = f"within_{self.declaration.label_at(guardrail.label)}_{micros(guardrail.maturity)}"
            return (fixed(within, mean.deviation * AMOUNT_STEP),)
        return (f"base_of.amount_{index}",)

    def _amounts(self, index: int) -> list[str]:
        flags = self.declaration.flags[index]
        asked = [self._late[bit] for bit in (flags.inside, flags.matured, flags.labelled) if bit != ALWAYS]
        counted = " AND ".join(f"({each})" for each in asked)
        return [
            f"CASE WHEN {counted} THEN {value} END AS {column}_{index}"
            for column, value in zip(("k", "n"), self._amount_of(index), strict=False)
        ]

    def _waits(self, at: int) -> list[str]:
        """Return who waits, since which step of the window and how long; the age follows from the time of a look."""
        group = self.declaration.awaited[at]
        codes = []
        for place, index in enumerate(group.guardrails):
            flags = self.declaration.flags[index]
            is_counted = " AND ".join(f"({self._waits_if(flag)})" for flag in (flags.inside, f"-{flags.hidden}"))
            codes.append(f"CASE WHEN {is_counted} THEN {1 << 2 * place} ELSE 0 END")
            if flags.bad != NEVER:
                is_bad = f"{is_counted} AND ({self._late[flags.bad]})"
                codes.append(f"CASE WHEN {is_bad} THEN {2 << 2 * place} ELSE 0 END")
        first = f"first_{self.declaration.label_at(group.label)}"
        step = f"(({first}) - base_of.decided_us) * {WAIT_STEPS} // {group.maturity_us}"
        is_over = f"{first} - base_of.decided_us >= {group.maturity_us}"
        delay = (
            f"CASE WHEN {first} IS NULL THEN {NOT_COUNTED} WHEN {is_over} THEN {WAIT_STEPS}"
            f" ELSE CAST({step} AS BIGINT) END"
        )
        decided = f"CAST(base_of.decided_us * {WAIT_STEPS} // {group.maturity_us} AS BIGINT)"
        oldest = oldest_step(group.maturity_us, self._now_us)
        decided = f"greatest({decided}, {oldest})"
        return [f"{' + '.join(codes)} AS waiting_{at}", f"{decided} AS decided_{at}", f"{delay} AS delay_{at}"]

    def _waits_if(self, flag: str) -> str:
        bit = flag.removeprefix("-")
        if bit in (ALWAYS, NEVER):
            return "1 = 1"
        return f"NOT ({self._late[bit]})" if flag.startswith("-") else self._late[bit]

    def _label_quality(self, label: str) -> list[str]:
        at = self.declaration.label_at(label)
        longest = self.declaration.maturities[label][-1]
        parts = (f"times_{at} > 1", f"least_{at} <> most_{at}", f"first_{at} > base_of.decided_us + {longest}")
        quality = " + ".join(f"CASE WHEN {part} THEN {1 << place} ELSE 0 END" for place, part in enumerate(parts))
        refused = f"coalesce(nan_{at}, 0) * {REFUSED_LIMIT} + least(coalesce(soon_{at}, 0), {REFUSED_LIMIT - 1})"
        return [
            f"CASE WHEN times_{at} > 0 THEN {quality} ELSE {NOT_COUNTED} END AS quality_{at}",
            f"{refused} AS refused_{at}",
        ]

    # --- pairs ---

    def pairs(self) -> str:
        """Return the query of the first request of each unit that has a copy, with what both releases answered."""
        grid = self.declaration.grid
        bins = ["0", "0"] if grid is None else [bin_of(f"{side}.score", grid) for side in ("served", "copies")]
        order = "served.decided_us, served.decision_id, " + ", ".join(
            f"{side}.{column}"
            for side in ("served", "copies")
            for column in ("snapshot_no", "arm", "outcome", "action_recommended", "score")
        )
        return f"""
            SELECT * FROM (
                SELECT served.decision_id AS decision_id, served.decided_us AS decided_us,
                    CASE WHEN served.outcome = 'ok' THEN 1 ELSE 0 END AS answered,
                    CASE WHEN copies.outcome = 'ok' THEN 1 ELSE 0 END AS copied,
                    CASE WHEN served.action_recommended IS DISTINCT FROM copies.action_recommended
                        THEN 1 ELSE 0 END AS flipped,
                    {bins[0]} AS champion_bin, {bins[1]} AS challenger_bin,
                    row_number() OVER (PARTITION BY served.{self._unit} ORDER BY {order}) AS nth
                FROM rows_of AS copies JOIN rows_of AS served ON copies.decision_id = served.decision_id
                WHERE copies.arm = 'shadow' AND served.arm <> 'shadow'
            ) AS numbered WHERE nth = 1
        """  # noqa: S608

    def pair_counts(self, base: str = "pairs", labels: str = "labels_of_pairs") -> str:
        """Return the query of pairs by who answered, whether the action differs, both scores and the label."""
        scores = self._plan.scores
        label, join = str(NOT_COUNTED), ""
        if scores is not None and scores.label is not None:
            label = self.score_label("base_of", "labels_of")
            join = f"LEFT JOIN {labels} AS labels_of ON labels_of.decision_id = base_of.decision_id"
        keys = "answered, copied, flipped, champion_bin, challenger_bin"
        return f"""
            SELECT {keys}, label, count(*) FROM (
                SELECT {keys}, {label} AS label FROM {base} AS base_of {join}
            ) AS labelled GROUP BY {keys}, label
        """  # noqa: S608

    def score_label(self, base: str, labels: str) -> str:
        """Return the label that a score predicts, once its window has closed; a label but 0 and 1 is no outcome."""
        scores = self._plan.scores
        if scores is None or scores.label is None:
            return str(NOT_COUNTED)
        window = micros(scores.maturity)
        known = f"{labels}.within_{self.declaration.label_at(scores.label)}_{window}"
        is_outcome = f"{base}.decided_us <= {self._now_us - window} AND {known} IN (0, 1)"
        return f"CASE WHEN {is_outcome} THEN CAST({known} AS INTEGER) ELSE {NOT_COUNTED} END"


def orphans(labels: Iterable[str], scope: Scope, now: datetime) -> str:
    """Return the query of labels that arrived during the rollout without any decision, by name."""
    names = ", ".join(quoted(label) for label in labels)
    return f"""
        SELECT labels.name, count(*) FROM labels LEFT JOIN (SELECT DISTINCT decision_id FROM decisions) AS known
            ON known.decision_id = labels.decision_id
        WHERE known.decision_id IS NULL AND labels.name IN ({names})
            AND arrived_us >= {whole(scope.since)} AND arrived_us <= {whole(now)}
        GROUP BY labels.name
    """  # noqa: S608
