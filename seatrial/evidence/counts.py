"""The integers that evidence consists of, each with what it counts and where it belongs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A maturity window is cut into so many steps to say how old a unit is and how late its label came.
WAIT_STEPS = 50
#: Fixed-point step of an amount, as a part of the declared deviation of a unit: sums stay whole numbers.
AMOUNT_STEP = 1e-4
#: Fixed-point step of a divisor that is a column.
DIVISOR_STEP = 1e-3


class Arm(StrEnum):
    """Which release a unit was assigned to, whoever answered in the end."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    SHADOW = "shadow"


class Epoch(NamedTuple):
    """A period in which the challenger's assignment probability was constant and known."""

    share: float  #: in (0, 1)
    stage: int  #: index of the plan's stage in which it was set


class Cell(NamedTuple):
    """Where a tally belongs: one hypothesis, one allocation epoch, one arm."""

    guardrail: str
    slice_column: str | None
    slice_value: str | None
    snapshot_no: int
    arm: Arm


class ScoreCell(NamedTuple):
    """Where counts of scores belong: all units or one slice, one allocation epoch, one arm, one bin of the grid."""

    slice_column: str | None
    slice_value: str | None
    snapshot_no: int
    arm: Arm
    bin: int  #: index of `seatrial.stats.scores.ScoreGrid`


class ScoredPair(NamedTuple):
    """What both releases scored one request, and what turned out to be true."""

    champion: int  #: bin of the champion's score
    challenger: int  #: bin of the challenger's score
    label: int  #: 0 or 1; -1 while the label is not matured or missing


class Wait(NamedTuple):
    """How long a unit of a label guardrail has waited, in steps of its maturity window."""

    guardrail: str
    snapshot_no: int
    arm: Arm
    is_bad: bool  #: by what is known now
    age: int  #: steps since the decision, `WAIT_STEPS` when the window is over
    delay: int  #: steps until the first label arrived, `WAIT_STEPS` when after the window; -1 when none has


class LabelCell(NamedTuple):
    """Where counts of labels belong: one label, one arm."""

    label: str
    arm: Arm


class _Additive:
    """Whole numbers that add up field by field; the slots are the fields, in their order."""

    __slots__: tuple[str, ...] = ()

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(add, self.values(), other.values()))

    def values(self) -> list[int]:
        """Return the numbers in the order of the fields."""
        return [getattr(self, name) for name in self.__slots__]


@dataclass(frozen=True, slots=True)
class Tally(_Additive):
    """Counts of units of one metric, slice, epoch and arm."""

    units: int = 0  #: units assigned
    bad: int = 0  #: of these, reported bad by now
    matured: int = 0  #: older than the maturity window, so that both answers had time to arrive
    matured_bad: int = 0  #: of the matured, reported bad within the window
    labelled: int = 0  #: of the matured that can have a label, with one of either value within the window
    good: int = 0  #: of the labelled, not bad by what is known now; of a guardrail without label, all that are not bad
    hidden: int = 0  #: of the matured, the action taken keeps the label from ever being known


@dataclass(frozen=True, slots=True)
class Moments(_Additive):
    """Sums over units in fixed point: K is the amount of a unit, N its divisor (1 for a mean)."""

    units: int = 0  #: units with an amount
    nonzero: int = 0  #: of these, with an amount other than 0
    k: int = 0  #: sum of K in steps
    n: int = 0  #: sum of N
    kk: int = 0  #: sum of K^2
    kn: int = 0  #: sum of K N
    nn: int = 0  #: sum of N^2


@dataclass(frozen=True, slots=True)
class ScoreTally(_Additive):
    """Counts of units in one bin of the score."""

    units: int = 0  #: units answered with such a score
    labelled: int = 0  #: of these, matured with a label within the window
    positive: int = 0  #: of the labelled, with label 1


@dataclass(frozen=True, slots=True)
class LabelTally(_Additive):
    """Counts of units by how their labels came, whatever the window."""

    units: int = 0  #: units that have the label by now
    repeated: int = 0  #: of these, it arrived more than once
    contradictory: int = 0  #: of these, it arrived with different values
    late: int = 0  #: of these, it first arrived after the longest window that a plan waits for it


@dataclass(frozen=True, slots=True)
class ShadowTally(_Additive):
    """Counts of units that both releases scored, the challenger in shadow."""

    units: int = 0  #: units with both answers logged
    challenger_failed: int = 0  #: the challenger alone timed out, erred or broke its contract
    champion_failed: int = 0  #: the champion alone did
    both_failed: int = 0  #: both did, on the same unit
    compared: int = 0  #: units on which both answered
    flipped: int = 0  #: of the compared, the challenger recommends another action


@dataclass(frozen=True, slots=True)
class Frozen:
    """What was read off the champion in the week before the rollout, and does not move with it."""

    #: by guardrail, the quantile above which a unit is bad
    quantiles: Mapping[str, float]
    #: by bin, how many of the champion's units had such a score
    scores: Mapping[int, int]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Frozen:
        """Return what `document` wrote as plain data."""
        return cls({name: float(value) for name, value in document["quantiles"]}, dict(document["scores"]))

    def document(self) -> dict[str, object]:
        """Return it as plain data; numbers as text, so that one value has one digest."""
        return {
            "quantiles": [[name, repr(value)] for name, value in sorted(self.quantiles.items())],
            "scores": [[at, count] for at, count in sorted(self.scores.items())],
        }
