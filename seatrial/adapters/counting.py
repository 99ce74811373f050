"""What a plan counts, as SQL for DuckDB: one table of flagged units, from which every count is an aggregate.

Names and values come from a checked plan and are quoted here; times and identities are bound as parameters.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

from seatrial.evidence import AMOUNT_STEP, DIVISOR_STEP, WAIT_STEPS
from seatrial.plan import Above, AtLeast, OneOf, Source
from seatrial.stats.exceedance import LARGEST, LOG_GAMMA, SMALLEST
from seatrial.stats.scores import ScoreGrid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.plan import Condition, Guardrail, Mean, Plan, Scores, Term

#: How far before the rollout the champion is read for what is frozen.
REFERENCE = timedelta(days=7)
#: The reference ends this long before the rollout, so that it is on disk by then and no later look reads another one.
SETTLED = timedelta(minutes=10)

NO_LABELS = (
    "(SELECT NULL::VARCHAR AS decision_id, NULL::VARCHAR AS name, NULL::DOUBLE AS value,"
    " NULL::TIMESTAMPTZ AS arrived_at WHERE false)"
)
NEWEST = "SELECT epoch_us(max(ts)) FROM {decisions} WHERE ts <= $now AND arm <> 'shadow'"
#: Units that were seen in both arms of one snapshot.
CROSSED = """
    SELECT count(*) FROM (
        SELECT 1 FROM logged WHERE share > 0 AND share < 1 AND arm <> 'shadow'
        GROUP BY {unit}, snapshot_no HAVING count(DISTINCT arm) > 1
    )
"""
SHADOW = """
    SELECT count(*),
        count(*) FILTER (copied <> 'ok' AND answered = 'ok'),
        count(*) FILTER (copied = 'ok' AND answered <> 'ok'),
        count(*) FILTER (copied <> 'ok' AND answered <> 'ok'),
        count(*) FILTER (copied = 'ok' AND answered = 'ok'),
        count(*) FILTER (copied = 'ok' AND answered = 'ok' AND copied_action IS DISTINCT FROM answered_action)
    FROM pairs
"""
LATENCIES = f"""
    SELECT arm, CASE WHEN latency_ms > {LARGEST!r} THEN {{last}} ELSE
        ceil(ln(greatest(latency_ms, {SMALLEST!r}) / {SMALLEST!r}) / {LOG_GAMMA!r})::BIGINT END AS bucket, count(*)
    FROM flagged WHERE latency_ms >= 0 GROUP BY ALL
"""  # noqa: S608 constants of this project


def logged(decisions: str) -> str:
    """Return the statement that keeps the rows of the rollout, read once; the date spares files from before it."""
    return f"""CREATE TEMP TABLE logged AS
        SELECT * FROM {decisions} WHERE date >= strftime($since::TIMESTAMPTZ, '%Y-%m-%d')
            AND ts >= $since AND ts <= $now AND rollout_id = $rollout
    """  # noqa: S608 a relation of this adapter


def reference(decisions: str) -> str:
    """Return the statement that keeps what the champion answered before the rollout."""
    return f"""CREATE TEMP TABLE reference AS
        SELECT * FROM {decisions} WHERE date >= strftime($from::TIMESTAMPTZ, '%Y-%m-%d')
            AND ts >= $from AND ts < $until AND arm = 'champion'
    """  # noqa: S608 a relation of this adapter


def arrived(labels: str) -> str:
    """Return the statement that keeps the labels of the rollout that have arrived by now; NaN is no label."""
    return f"""CREATE TEMP TABLE arrived AS
        SELECT * FROM {labels} WHERE arrived_at <= $now AND decision_id IN (SELECT decision_id FROM logged)
            AND NOT isnan(value)
    """  # noqa: S608 a relation of this adapter


def pairs(plan: Plan) -> str:
    """Return the statement that pairs the first request of each unit with its copy."""
    return f"""CREATE TEMP TABLE pairs AS
        SELECT served.decision_id, served.ts, served.score AS served_score, copies.score AS copied_score,
            copies.outcome AS copied, copies.action_recommended AS copied_action,
            served.outcome AS answered, served.action_recommended AS answered_action
        FROM logged AS copies JOIN logged AS served USING (decision_id)
        WHERE copies.arm = 'shadow' AND served.arm <> 'shadow'
        QUALIFY row_number() OVER (PARTITION BY served.{name(plan.unit)} ORDER BY served.ts, decision_id) = 1
    """  # noqa: S608 quoted


def scored_pairs(scores: Scores) -> str:
    """Return the query of pairs by both scores and the label, -1 where it is not matured or missing."""
    label, join = "-1", ""
    if scores.label is not None:
        label, join = f"CASE WHEN {_IS_OUTCOME} THEN known_within::INTEGER ELSE -1 END", _score_label("pairs")
    return f"""
        SELECT {_bin("served_score", scores)} AS champion, {_bin("copied_score", scores)} AS challenger,
            {label} AS label, count(*)
        FROM pairs {join} WHERE copied = 'ok' AND answered = 'ok' GROUP BY ALL
    """  # noqa: S608 quoted


def flagged(plan: Plan, quantiles: Mapping[str, float]) -> str:
    """Return the statement that makes a row of each unit's first decision, with what each guardrail says of it."""
    columns = [_flags(i, guardrail, quantiles.get(guardrail.name)) for i, guardrail in enumerate(plan.guardrails)]
    joins = [_label(i, g) for i, g in enumerate(plan.guardrails) if g.source is Source.LABEL]
    windows = [_windowed(i, g.mean, plan) for i, g in enumerate(plan.guardrails) if g.mean and g.mean.window]
    return f"""CREATE TEMP TABLE flagged AS
        WITH decided AS (
            SELECT *, action_taken AS action FROM logged WHERE share > 0 AND share < 1 AND arm <> 'shadow'
            QUALIFY row_number() OVER (PARTITION BY {name(plan.unit)} ORDER BY ts, decision_id) = 1
        )
        SELECT decided.*, {", ".join(columns)} FROM decided {" ".join(joins + windows)}
    """  # noqa: S608 quoted


def tallies(plan: Plan) -> str:
    """Return the query whose rows are the counts of one snapshot, arm and slice value, all guardrails side by side."""
    columns = list(plan.slices)
    sets = ["(snapshot_no, arm)", *(f"(snapshot_no, arm, {name(column)})" for column in columns)]
    keys = "".join(f", {name(c)} AS value_{i}, grouping({name(c)}) AS rest_{i}" for i, c in enumerate(columns))
    counts = "".join(f", {_tally(i)}{f', {_moments(i)}' if g.mean else ''}" for i, g in enumerate(plan.guardrails))
    return f"""
        SELECT snapshot_no, arm, any_value(share) AS share, any_value(stage) AS stage,
            count(DISTINCT struct_pack(share, stage)) AS epochs, count(*) AS assigned
            {keys}{counts}
        FROM flagged GROUP BY GROUPING SETS ({", ".join(sets)})
    """  # noqa: S608 quoted


def scores_of(scores: Scores, column: str | None) -> str:
    """Return the query of scores by snapshot, arm, bin and the values of one slice."""
    value = "NULL" if column is None else name(column)
    join = "" if scores.label is None else _score_label("flagged")
    is_outcome = "false" if scores.label is None else _IS_OUTCOME
    is_positive = "false" if scores.label is None else "known_within = 1"
    return f"""
        SELECT snapshot_no, arm, {_bin("score", scores)} AS bin, {value} AS value, count(*),
            count(*) FILTER ({is_outcome}), count(*) FILTER ({is_positive})
        FROM flagged {join} WHERE outcome = 'ok' GROUP BY ALL
    """  # noqa: S608 quoted


def score_labels(scores: Scores) -> str:
    """Return the statement that keeps what the label of the scores was when its window closed."""
    within = f"arrived_at <= ts + {_micros(_seconds(scores.maturity))}"
    return f"""CREATE TEMP TABLE score_labels AS
        SELECT decision_id, {_LAST} FILTER ({within}) AS known_within
        FROM arrived JOIN (SELECT DISTINCT decision_id, ts FROM logged WHERE arm <> 'shadow') USING (decision_id)
        WHERE name = {_quoted(scores.label or "")} AND ts + {_micros(_seconds(scores.maturity))} <= $now
        GROUP BY decision_id
    """  # noqa: S608 quoted


def waits(index: int, guardrail: Guardrail) -> str:
    """Return the query of how long units wait for their label, in steps of the maturity window."""
    window = round(_seconds(guardrail.maturity) * 1e6)

    def steps(since: str) -> str:
        return f"least(greatest(({since}) * {WAIT_STEPS} // {window}, 0), {WAIT_STEPS})::INTEGER"

    return f"""
        SELECT snapshot_no, arm, bad_{index} AS is_bad,
            {steps("epoch_us($now::TIMESTAMPTZ) - epoch_us(ts)")} AS age,
            CASE WHEN first_{index} IS NULL THEN -1
                ELSE {steps(f"epoch_us(first_{index}) - epoch_us(ts)")} END AS delay,
            count(*)
        FROM flagged WHERE in_{index} AND NOT hidden_{index} GROUP BY ALL
    """  # noqa: S608 quoted


def reference_quantile(guardrail: Guardrail) -> str:
    """Return the query of the champion's quantile in the reference, and of how many values it rests on."""
    if guardrail.exceeds is None:
        raise ValueError(f"{guardrail.name}: no quantile to freeze; ask only guardrails with exceeds")
    column = name(guardrail.exceeds.column)
    return f"SELECT quantile_disc({column}, {guardrail.exceeds.quantile!r}), count({column}) FROM reference"  # noqa: S608 quoted


def reference_scores(scores: Scores) -> str:
    """Return the query of the champion's scores in the reference, by bin."""
    return f"SELECT {_bin('score', scores)} AS bin, count(*) FROM reference WHERE outcome = 'ok' GROUP BY ALL"  # noqa: S608 quoted


def name(column: str) -> str:
    """Return `column` as an identifier of SQL."""
    return '"' + column.replace('"', '""') + '"'


#: A score predicts 1 or 0; another label is none of its outcomes.
_IS_OUTCOME = "known_within IN (0, 1)"
_LAST = "arg_max(value, struct_pack(arrived_at := arrived_at, value := value))"


def _score_label(table: str) -> str:
    return f"LEFT JOIN score_labels ON score_labels.decision_id = {table}.decision_id"


def _bin(score: str, scores: Scores) -> str:
    """Return the bin of `ScoreGrid` in the same floating-point steps as `ScoreGrid.index`."""
    grid = ScoreGrid(*scores.range)
    low, high = f"({grid.low!r}::DOUBLE)", f"({grid.high!r}::DOUBLE)"
    inner = f"floor(({score} - {low}) / ({high} - {low}) * {grid.bins})::BIGINT"
    return (
        f"(CASE WHEN {score} IS NULL OR isnan({score}) THEN 0 WHEN {score} < {low} OR {score} > {high} THEN 1"
        f" WHEN {score} = {low} THEN 2 WHEN {score} = {high} THEN {grid.bins + 3}"
        f" ELSE 3 + least({inner}, {grid.bins - 1}) END)::INTEGER"
    )


def _label(index: int, guardrail: Guardrail) -> str:
    """Return the join with the label as known now, and as known when its window closed; the last arrival wins."""
    within = f"arrived_at <= ts + {_micros(_seconds(guardrail.maturity))}"
    return f"""LEFT JOIN (
        SELECT decided.decision_id, {_LAST} AS known_now, {_LAST} FILTER ({within}) AS known_within,
            min(arrived_at) AS first_arrived
        FROM decided JOIN arrived USING (decision_id) WHERE arrived.name = {_quoted(guardrail.label or "")}
        GROUP BY decided.decision_id
    ) AS label_{index} ON label_{index}.decision_id = decided.decision_id"""  # noqa: S608 quoted


def _flags(index: int, guardrail: Guardrail, quantile: float | None) -> str:
    counted = _any_of(guardrail.only_when, "NULL") if guardrail.only_when else "true"
    now = within = first = "NULL"
    matured = labelled = "true"
    if guardrail.source is Source.LABEL:
        now, within, first = (f"label_{index}.{column}" for column in ("known_now", "known_within", "first_arrived"))
        matured = f"ts + {_micros(_seconds(guardrail.maturity))} <= $now"
        labelled = f"{within} IS NOT NULL"
    hidden = f"NOT {_any_of(guardrail.observed_when, 'NULL')}" if guardrail.is_censored else "false"
    if guardrail.mean is not None:
        amount, divisor = _amounts(index, guardrail.mean, within)
        labelled = f"{amount} IS NOT NULL AND {divisor} IS NOT NULL"
        matured = matured if guardrail.mean.window is None else f"window_{index}.is_closed IS NOT NULL"
    flags = (
        f"{counted} AS in_{index}, {_bad(guardrail, now, quantile)} AS bad_{index},"
        f" {_bad(guardrail, within, quantile)} AS bad_within_{index}, {matured} AS matured_{index},"
        f" {labelled} AS labelled_{index}, {hidden} AS hidden_{index}, {first} AS first_{index}"
    )
    return flags if guardrail.mean is None else f"{flags}, {amount} AS k_{index}, {divisor} AS n_{index}"


def _bad(guardrail: Guardrail, label: str, quantile: float | None) -> str:
    if guardrail.exceeds is None:
        return _any_of(guardrail.bad_when, label) if guardrail.bad_when else "false"
    # Who gives no number has not stayed below: DuckDB puts NaN above all numbers, and NULL would be no exceedance.
    return "false" if quantile is None else f"NOT coalesce({name(guardrail.exceeds.column)} <= {quantile!r}, false)"


def _amounts(index: int, mean: Mean, label: str) -> tuple[str, str]:
    """Return amount and divisor of a unit in fixed point; NULL where the unit has none yet, or no number."""
    if mean.window is not None:
        return f"window_{index}.k", f"window_{index}.n"
    value = label if mean.of == "label" else name(mean.of)
    return _fixed(value, mean.deviation * AMOUNT_STEP), "1::HUGEINT"


def _windowed(index: int, mean: Mean, plan: Plan) -> str:
    """Return the join with the sums over a unit's decisions in its window.

    A window counts when it ended by now and before the next snapshot began. Both are known without the arm, while a
    champion's unit that turns into a challenger's with a larger share would mix the two. A decision without a number
    leaves its unit without an amount, for what was not measured is not nothing; one that was logged twice counts once.
    """
    unit, window = name(plan.unit), _micros(_seconds(mean.window))
    divisor = "count(*)::HUGEINT" if mean.per == "decisions" else "1::HUGEINT"
    if mean.per not in (None, "decisions"):
        divisor = _whole_sum(_fixed(f"rows_of.{name(mean.per or '')}", DIVISOR_STEP))
    amount = _whole_sum(_fixed(f"rows_of.{name(mean.of)}", mean.deviation * AMOUNT_STEP))
    return f"""LEFT JOIN (
        SELECT decided.{unit}, {amount} AS k, {divisor} AS n, true AS is_closed
        FROM decided JOIN (
            SELECT * FROM logged WHERE arm <> 'shadow'
            QUALIFY row_number() OVER (PARTITION BY decision_id ORDER BY ts) = 1
        ) AS rows_of USING ({unit}) LEFT JOIN (
            SELECT snapshot_no, lead(min(ts)) OVER (ORDER BY snapshot_no) AS ended FROM logged GROUP BY snapshot_no
        ) AS epoch ON epoch.snapshot_no = decided.snapshot_no
        WHERE rows_of.ts >= decided.ts AND rows_of.ts < decided.ts + {window}
            AND decided.ts + {window} <= least(coalesce(ended, $now), $now)
        GROUP BY decided.{unit}
    ) AS window_{index} ON window_{index}.{unit} = decided.{unit}"""  # noqa: S608 quoted


def _whole_sum(value: str) -> str:
    """Return the sum of `value`, NULL when one of them is."""
    return f"CASE WHEN count({value}) = count(*) THEN sum({value}) END"


def _fixed(value: str, step: float) -> str:
    """Return a whole number of steps, NULL where there is no finite number."""
    return f"CASE WHEN isfinite({value}::DOUBLE) THEN round({value} / ({step!r}::DOUBLE))::HUGEINT END"


def _tally(index: int) -> str:
    i = index
    seen = f"in_{i} AND matured_{i} AND labelled_{i} AND NOT hidden_{i}"
    return (
        f"count(*) FILTER (in_{i}) AS c_units_{i}, count(*) FILTER (in_{i} AND bad_{i}) AS c_bad_{i},"
        f" count(*) FILTER (in_{i} AND matured_{i}) AS c_matured_{i},"
        f" count(*) FILTER (in_{i} AND matured_{i} AND bad_within_{i}) AS c_matured_bad_{i},"
        f" count(*) FILTER ({seen}) AS c_labelled_{i}, count(*) FILTER ({seen} AND NOT bad_{i}) AS c_good_{i},"
        f" count(*) FILTER (in_{i} AND matured_{i} AND hidden_{i}) AS c_hidden_{i}"
    )


def _moments(index: int) -> str:
    i = index
    has = f"FILTER (in_{i} AND matured_{i} AND k_{i} IS NOT NULL AND n_{i} IS NOT NULL)"
    products = {"k": f"k_{i}", "n": f"n_{i}", "kk": f"k_{i} * k_{i}", "kn": f"k_{i} * n_{i}", "nn": f"n_{i} * n_{i}"}
    sums = ", ".join(f"coalesce(sum({value}) {has}, 0) AS m_{key}_{i}" for key, value in products.items())
    return f"count(*) {has} AS m_units_{i}, coalesce(sum((k_{i} <> 0)::BIGINT) {has}, 0) AS m_nonzero_{i}, {sums}"


def _any_of(conditions: Sequence[Condition], label: str) -> str:
    """Return the expression that is true when a condition surely holds, and false when it does not or is unknown."""
    alternatives = " OR ".join(
        f"({' AND '.join(_term(term, label) for term in condition.terms)})" for condition in conditions
    )
    return f"coalesce({alternatives}, false)"


def _term(term: Term, label: str) -> str:
    column = label if term.column == "label" else name(term.column)
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


def _seconds(duration: timedelta | None) -> float:
    return 0.0 if duration is None else duration.total_seconds()


def _micros(seconds: float) -> str:
    return f"to_microseconds({round(seconds * 1e6)})"
