"""What an answer of a monitoring system is worth, and the twin in memory that answers by the same rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seatrial.evidence import Arm
from seatrial.ports import NoReading, Quantity, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.ports import Scope

#: Arms that the runtime can tell apart.
ARMS = (Arm.CHAMPION, Arm.CHALLENGER)


def reading_of(rollout_id: str, arm: Arm, quantity: Quantity, values: Sequence[float]) -> Reading:
    """Return the one number that `values` of all series found are, or why they are none.

    >>> reading_of("r1", Arm.CHAMPION, Quantity.ERROR_RATE, []).absent
    <NoReading.NO_SERIES: 'no_series'>
    """
    match values:
        case []:
            return absent_reading(rollout_id, arm, quantity, NoReading.NO_SERIES, "no series")
        case [value]:
            return _checked(rollout_id, arm, quantity, float(value))
        case several:
            found = f"{len(several)} series, expected one"
            return absent_reading(rollout_id, arm, quantity, NoReading.SEVERAL_SERIES, found)


def _checked(rollout_id: str, arm: Arm, quantity: Quantity, value: float) -> Reading:
    if math.isnan(value):
        return absent_reading(rollout_id, arm, quantity, NoReading.NOT_A_NUMBER, "NaN")
    most = 1.0 if quantity is Quantity.ERROR_RATE else math.inf
    if math.isinf(value) or not 0.0 <= value <= most:
        return absent_reading(rollout_id, arm, quantity, NoReading.OUT_OF_RANGE, f"{value:g}")
    return Reading(rollout_id, arm, quantity, value)


def absent_reading(rollout_id: str, arm: Arm, quantity: Quantity, reason: NoReading, detail: str) -> Reading:
    """Return that there is no number, and why."""
    return Reading(rollout_id, arm, quantity, None, reason, detail)


@dataclass(slots=True)
class MemoryRuntime:
    """A monitoring system in one process: the values of all series that answer to a query, as a test sets them."""

    series: dict[tuple[str, Arm, Quantity], Sequence[float]] = field(default_factory=dict)  #: by release, not rollout
    asked: tuple[Quantity, ...] = tuple(Quantity)
    failure: NoReading | None = None  #: why nothing at all is answered

    def read(self, scopes: Sequence[Scope]) -> Sequence[Reading]:
        """Return a reading for each scope, arm and quantity that is asked for; a missing number is one of them."""
        return [self._read(scope, arm, quantity) for scope in scopes for arm in ARMS for quantity in self.asked]

    def _read(self, scope: Scope, arm: Arm, quantity: Quantity) -> Reading:
        if self.failure is not None:
            return absent_reading(scope.rollout_id, arm, quantity, self.failure, "set by the test")
        values = self.series.get((release_of(scope, arm), arm, quantity), ())
        return reading_of(scope.rollout_id, arm, quantity, list(values))


def release_of(scope: Scope, arm: Arm) -> str:
    """Return the id of the release that answers in `arm`."""
    return scope.challenger if arm is Arm.CHALLENGER else scope.champion


def names_of(scope: Scope, arm: Arm) -> Mapping[str, str]:
    """Return what a query may name, by the name of its placeholder."""
    release = release_of(scope, arm)
    return {
        "decision_point": scope.decision_point,
        "rollout": scope.rollout_id,
        "arm": arm.value,
        "release": release,
        "release_digits": release.removeprefix("sha256:"),
    }


#: Placeholders that a query may hold, each after a dollar sign.
PLACEHOLDERS = ("arm", "decision_point", "release", "release_digits", "rollout")
