"""Parts of statements that mean the same to DuckDB, PostgreSQL and Spark: names, literals, conditions, whole numbers.

Nothing is left to what an engine takes rounding, NULL or NaN for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from seatrial.plan import Above, AtLeast, OneOf
from seatrial.stats.exceedance import BUCKETS, LARGEST, LOG_GAMMA, SMALLEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seatrial.plan import Condition, Term
    from seatrial.stats.scores import ScoreGrid

#: A key that a row is not grouped by, and a value that no count is asked for.
NOT_GROUPED, NOT_COUNTED = -1, -2
INFINITY = "CAST('Infinity' AS DOUBLE)"


def name(column: str) -> str:
    """Return `column` as an identifier."""
    return '"' + column.replace('"', '""') + '"'


def quoted(text: str) -> str:
    """Return `text` as a literal."""
    return "'" + text.replace("'", "''") + "'"


LATENCY = (
    f"CASE WHEN latency_ms > {LARGEST!r} THEN {BUCKETS - 1} WHEN latency_ms <= {SMALLEST!r} THEN 0"
    f" ELSE CAST(ceil(ln(latency_ms / {SMALLEST!r}) / {LOG_GAMMA!r}) AS BIGINT) END"
)


def is_nan(value: str) -> str:
    """Return whether a number is none: it is above infinity in every engine."""
    return f"{value} > {INFINITY}"


def place_in(column: str, values: Sequence[str]) -> str:
    """Return the number of the declared value; whoever has another is in no slice."""
    places = " ".join(f"WHEN {quoted(value)} THEN {at}" for at, value in enumerate(values))
    return f"CASE {column} {places} ELSE {NOT_COUNTED} END"


def pack(bits: Sequence[str], expression: Callable[[str], str]) -> str:
    """Return the whole number in which each bit stands for what `expression` says of it, from the lowest."""
    if not bits:
        return "0"
    return " + ".join(f"CASE WHEN {expression(bit)} THEN {1 << at} ELSE 0 END" for at, bit in enumerate(bits))


def bin_of(score: str, grid: ScoreGrid) -> str:
    """Return the bin of `ScoreGrid` in the same floating-point steps as `ScoreGrid.index`."""
    low, high = f"CAST({grid.low!r} AS DOUBLE)", f"CAST({grid.high!r} AS DOUBLE)"
    inner = f"CAST(floor(({score} - {low}) / ({high} - {low}) * {grid.bins}) AS BIGINT)"
    return (
        f"CASE WHEN {score} IS NULL OR {is_nan(score)} THEN 0 WHEN {score} < {low} OR {score} > {high} THEN 1"
        f" WHEN {score} = {low} THEN 2 WHEN {score} = {high} THEN {grid.bins + 3}"
        f" ELSE 3 + least({inner}, {grid.bins - 1}) END"
    )


#: Amounts of more steps than this are no measurement, and their squares would leave a whole number's range.
_MOST_STEPS = "4e18"


def whole_sum(value: str) -> str:
    """Return the sum of `value`, NULL when one of them is."""
    return f"CASE WHEN count({value}) = count(*) THEN sum({value}) END"


def fixed(value: str, step: float) -> str:
    """Return the nearest whole number of steps, half away from zero; NULL where there is no finite number."""
    number = f"CAST({value} AS DOUBLE)"
    steps = f"{number} / CAST({step!r} AS DOUBLE)"
    rounded = f"CASE WHEN {number} < 0 THEN -floor(-({steps}) + 0.5) ELSE floor({steps} + 0.5) END"
    is_finite = f"{number} - {number} = 0 AND abs({steps}) < {_MOST_STEPS}"
    return f"CASE WHEN {is_finite} THEN CAST({rounded} AS BIGINT) END"


def any_of(conditions: Sequence[Condition]) -> str:
    """Return the expression that is true when a condition surely holds, and not true when it does not or is unknown."""
    return " OR ".join(f"({all_of(condition.terms, 'NULL')})" for condition in conditions)


def all_of(terms: Sequence[Term], label: str) -> str:
    """Return the expression that is true when every term holds; the column label is the expression `label`."""
    return " AND ".join(_term(term, label) for term in terms) or "1 = 1"


def _term(term: Term, label: str) -> str:
    column = label if term.column == "label" else name(_ALIASES.get(term.column, term.column))
    match term:
        case OneOf():
            return f"{column} IN ({', '.join(_literal(value) for value in term.values)})"
        case AtLeast():
            return f"{column} >= {term.bound!r}"
        case Above():
            return f"{column} > {term.bound!r}"
        case unreachable:
            assert_never(unreachable)


#: What was done is what people mean by the action.
_ALIASES = {"action": "action_taken"}


def _literal(value: str | float | bool) -> str:
    if isinstance(value, str):
        return quoted(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)
