"""Conditions on columns of the logs, margins, and the small values that a plan is written in."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from seatrial.documents import SCALAR_SCHEMA, Number, Scalar, Share, parse_scalar, require_column, shown


@dataclass(frozen=True, slots=True)
class Margin:
    """How much harm is tolerated; evidence must rule out more."""

    #: relative: ratio of the bad rates minus one, so that 0.15 tolerates 1.15 times the champion's rate;
    #: absolute: the challenger's bad rate itself, in (0, 1)
    value: float
    is_relative: bool = True

    def __str__(self) -> str:
        percent = f"{Decimal(repr(self.value)) * 100:f}"
        whole = percent.rstrip("0").rstrip(".") if "." in percent else percent
        return f"{whole} % {'relative' if self.is_relative else 'absolute'}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The column has one of these values."""

    column: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The column is a number of at least the bound."""

    column: str
    bound: float


@dataclass(frozen=True, slots=True)
class Above:
    """The column is a number above the bound."""

    column: str
    bound: float


Term: TypeAlias = OneOf | AtLeast | Above


@dataclass(frozen=True, slots=True)
class Condition:
    """A conjunction of terms, each about another column."""

    terms: tuple[Term, ...]

    def columns(self) -> frozenset[str]:
        """Return the columns that the condition reads."""
        return frozenset(term.column for term in self.terms)

    def implies(self, other: "Condition") -> bool:
        """Return whether `other` surely holds for every unit for which this condition does."""
        own = {term.column: term for term in self.terms}
        return all(_implies(own.get(term.column), term) for term in other.terms)


def _implies(own: Term | None, other: Term) -> bool:
    match own, other:
        case OneOf(values=few), OneOf(values=many):
            return set(few) <= set(many)
        case _:
            return own == other


def _margin(value: object) -> Margin:
    if isinstance(value, Margin):
        return value
    match = _MARGIN.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'found {shown(value)}, expected a margin with its unit, such as "15 % relative"')
    margin = Margin(float(Decimal(match["percent"]) / 100), match["unit"] == "relative")
    greatest = MAX_MARGIN if margin.is_relative else 1.0
    if not 0.0 < margin.value < greatest:
        raise ValueError(f"found {shown(value)}, expected a margin above 0 % and below {greatest:.0%}")
    return margin


def _condition(value: object) -> Condition:
    if isinstance(value, Condition):
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"found {shown(value)}, expected a mapping of columns to values")
    return Condition(tuple(_term(require_column(name), value[name]) for name in sorted(value, key=str)))


def _term(column: str, value: object) -> Term:
    match value:
        case {"at_least": bound, **others} if not others:
            return AtLeast(column, _bound(column, bound))
        case {"above": bound, **others} if not others:
            return Above(column, _bound(column, bound))
        case Mapping():
            keys = ", ".join(map(str, value)) or "no key"
            raise ValueError(f"found {column} with {keys}, expected at_least or above, one of them")
        case [] | ():
            raise ValueError(f"found {column} with an empty list, expected at least one value")
        case list() | tuple():
            return OneOf(column, tuple(parse_scalar(item) for item in value))
        case _:
            return OneOf(column, (parse_scalar(value),))


def _bound(column: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"found {column} compared with {shown(value)}, expected a finite number")
    return float(value)


def _condition_document(condition: Condition) -> dict[str, Any]:
    return {term.column: _term_document(term) for term in condition.terms}


def _term_document(term: Term) -> Any:
    match term:
        case OneOf(values=(value,)):
            return value
        case OneOf():
            return list(term.values)
        case AtLeast():
            return {"at_least": term.bound}
        case Above():
            return {"above": term.bound}


_MARGIN = re.compile(r"(?P<percent>\d{1,9}(?:\.\d{1,9})?)\s*%\s*(?P<unit>relative|absolute)")
#: A guardrail that tolerates eleven times the champion's bad rate guards nothing.
MAX_MARGIN = 10.0

_MARGIN_SCHEMA = {"type": "string", "pattern": r"^\s*\d{1,9}(\.\d{1,9})?\s*%\s*(relative|absolute)\s*$"}
_CONDITION_SCHEMA = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {
        "anyOf": [
            *SCALAR_SCHEMA["anyOf"],
            {"type": "array", "minItems": 1, "items": SCALAR_SCHEMA},
            *(
                {"type": "object", "properties": {key: {"type": "number"}}, "required": [key]}
                | {"additionalProperties": False}
                for key in ("at_least", "above")
            ),
        ]
    },
}

MarginField = Annotated[Margin, PlainValidator(_margin), PlainSerializer(str), WithJsonSchema(_MARGIN_SCHEMA)]
ConditionField = Annotated[
    Condition, PlainValidator(_condition), PlainSerializer(_condition_document), WithJsonSchema(_CONDITION_SCHEMA)
]
#: A share of traffic that leaves some to each side.
InnerShare = Annotated[Share, Field(gt=0, lt=1)]
#: A probability of being wrong; above one half, tossing a coin is better.
Budget = Annotated[Share, Field(gt=0, le=0.5)]
Weight = Annotated[Number, Field(ge=1e-6, le=1e6)]

#: The column whose hash assigns a unit to an arm, and so the only one whose values may be counted.
ASSIGNED_BY = "unit_key"

#: The columns that say what was done, or would have been.
ACTION_COLUMNS = frozenset({"action", "action_recommended", "action_taken"})

#: Columns that the release, or what came after it, has written: to choose units by them is to choose by the outcome.
AFTER_DECISION = frozenset(
    {
        "action",
        "action_recommended",
        "action_taken",
        "arm",
        "authority",
        "cut_off",
        "feature_digest",
        "feature_misses",
        "label",
        "latency_ms",
        "outcome",
        "release_id",
        "rule",
        "score",
    }
)


def is_unset(value: object) -> bool:
    """Return whether an optional key was left out; it then stays out of the canonical form.

    A key that is new in the language of plans must not change the digest of plans that ledgers name already.
    """
    return value is None or value == ()


def is_after_decision(column: str) -> bool:
    """Return whether `column` is written by the decision or after it, in any spelling that SQL takes for it."""
    return column.lower() in AFTER_DECISION
