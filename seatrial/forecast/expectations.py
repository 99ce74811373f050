"""What a forecast counts on: traffic, and the champion's rate and label delay of each guardrail; nothing is guessed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq

from seatrial.documents import suggestion
from seatrial.errors import InvalidDocumentError, Problem
from seatrial.plan import Consequence, Promotion
from seatrial.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray

    from seatrial.plan import Guardrail, Plan

#: A guardrail of which at least this part of the units is expected to be bad is judged by its good units too.
COMMON = 0.05
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Delay:
    """When labels arrive: exponentially, cut off at the maturity, with the median that the plan expects.

    Both are in days, 0 < median < maturity. Every label is taken to arrive before it is mature, for the plan counts
    what arrives later as missing.
    """

    median: float
    maturity: float

    @property
    def _speed(self) -> float:
        """The rate of the exponential law a day, negative when most labels come late."""
        if self.median > self.maturity / 2.0:
            return -Delay(self.maturity - self.median, self.maturity)._speed  # noqa: SLF001 its mirror image
        if math.isclose(self.median, self.maturity / 2.0):
            return 1e-6 / self.maturity  # as good as even, which the formulas cannot divide by

        def excess(speed: float) -> float:
            return math.expm1(-speed * self.median) / math.expm1(-speed * self.maturity) - 0.5

        return float(brentq(excess, 1e-6 / self.maturity, math.log(2.0) / self.median))

    def arrived(self, age: ArrayLike) -> NDArray[np.float64]:
        """Return the part of the labels of units of this age that are there, for ages in days.

        >>> Delay(1 / 3, 1.5).arrived([0.0, 1 / 3, 1.5, 9.0]).round(6).tolist()
        [0.0, 0.5, 1.0, 1.0]
        """
        ages = np.clip(np.asarray(age, dtype=np.float64), 0.0, self.maturity)
        return np.asarray(np.expm1(-self._speed * ages) / math.expm1(-self._speed * self.maturity))

    def accumulated(self, age: ArrayLike) -> NDArray[np.float64]:
        """Return the integral of `arrived` from 0 to the age, in days: labels per daily unit since the beginning."""
        ages = np.maximum(np.asarray(age, dtype=np.float64), 0.0)
        young, speed = np.minimum(ages, self.maturity), self._speed
        rising = (young + np.expm1(-speed * young) / speed) / -math.expm1(-speed * self.maturity)
        return np.asarray(rising + ages - young)

    def by_look(self, interval: float) -> NDArray[np.float64]:
        """Return the part of labels that come 0, 1, ... looks after the one that ends the interval of service."""
        edges = np.arange(math.ceil(self.maturity / interval - 1e-9) + 2) * interval
        known = np.diff(self.accumulated(edges)) / interval
        known[-1] = 1.0
        return np.diff(known, prepend=0.0)


@dataclass(frozen=True, slots=True)
class Expected:
    """One guardrail as a forecast sees it."""

    guardrail: Guardrail
    rate: float  #: the champion's rate of bad units, in (0, 1)
    delay: Delay | None  #: None when badness is known at once

    @property
    def name(self) -> str:
        """What people call the guardrail."""
        return self.guardrail.name

    @property
    def declared_rate(self) -> float | None:
        """The rate with which the gate of harm counts good units; None when it counts bad ones alone."""
        declared = self.guardrail.expected
        return declared.rate if declared is not None and declared.rate >= COMMON else None

    @property
    def maturity(self) -> float:
        """Days until a unit is mature."""
        return 0.0 if self.delay is None else self.delay.maturity


@dataclass(frozen=True, slots=True)
class Expectations:
    """All that a forecast counts on."""

    units_per_day: float
    guardrails: tuple[Expected, ...]
    #: one sentence for each guardrail that is left out, and why; likewise for a watch without a holdback
    left_out: tuple[str, ...]


def expect(
    plan: Plan,
    *,
    units_per_day: float | None = None,
    rates: Mapping[str, float] | None = None,
    delays: Mapping[str, timedelta] | None = None,
) -> Expectations:
    """Return what `plan` expects, with the given numbers in place of its own.

    Parameters
    ----------
    plan
        Read for ``expected`` of the plan and of its guardrails. A guardrail with ``exceeds`` has one minus its
        quantile for a rate. One that only notifies, a dry run, and one with ``mean`` are left out, with a sentence.
    units_per_day
        New units a day, above 0.
    rates
        By guardrail, the champion's rate of bad units, in (0, 1).
    delays
        By guardrail of labels, the time after which half of them have arrived, shorter than the maturity.

    Raises
    ------
    InvalidDocumentError
        With every number that is missing, impossible, or given for a guardrail that the plan has not.
    """
    given = _Given(plan, units_per_day, rates or {}, delays or {})
    if problems := list(given.problems()):
        raise InvalidDocumentError(problems)
    traffic = given.traffic()
    if traffic is None:  # refused above
        raise AssertionError
    planned = tuple(given.expected(each) for each in plan.guardrails if _why_left_out(each) is None)
    left_out = [f"{each.name} {why}" for each in plan.guardrails if (why := _why_left_out(each)) is not None]
    last = plan.stages[-1]
    if isinstance(last, Promotion) and last.holdback == 0:
        left_out.append("the promotion has no holdback, so that its watch compares nothing and is left out")
    return Expectations(traffic, planned, tuple(left_out))


def _why_left_out(guardrail: Guardrail) -> str | None:
    if guardrail.dry_run:
        return "is a dry run and is left out"
    if guardrail.consequence is Consequence.NOTIFY:
        return "only notifies and is left out"
    if guardrail.mean is not None:
        return "is a mean and is not planned: what it needs comes on top of everything below"
    return None


@dataclass(frozen=True, slots=True)
class _Given:
    plan: Plan
    units_per_day: float | None
    rates: Mapping[str, float]
    delays: Mapping[str, timedelta]

    def traffic(self) -> float | None:
        if self.units_per_day is not None:
            return self.units_per_day
        return None if self.plan.expected is None else float(self.plan.expected.units_per_day)

    def rate(self, guardrail: Guardrail) -> float | None:
        if guardrail.name in self.rates:
            return self.rates[guardrail.name]
        if guardrail.expected is not None:
            return guardrail.expected.rate
        return None if guardrail.exceeds is None else 1.0 - guardrail.exceeds.quantile

    def delay(self, guardrail: Guardrail) -> timedelta | None:
        if guardrail.name in self.delays:
            return self.delays[guardrail.name]
        return None if guardrail.expected is None else guardrail.expected.delay

    def expected(self, guardrail: Guardrail) -> Expected:
        rate, delay, maturity = self.rate(guardrail), self.delay(guardrail), guardrail.maturity
        if rate is None:  # refused before
            raise AssertionError
        if delay is None or maturity is None:
            return Expected(guardrail, rate, None)
        return Expected(guardrail, rate, Delay(delay / _DAY, maturity / _DAY))

    def problems(self) -> Iterator[Problem]:
        place = f"plan {self.plan.name}"
        traffic = self.traffic()
        if traffic is None:
            yield Problem(
                f"{place} expected.units_per_day",
                "found no such number, expected the new units a day",
                "add it, or give --units-per-day N",
            )
        elif not (math.isfinite(traffic) and traffic > 0):
            yield Problem(f"{place} expected.units_per_day", f"found {traffic!r}, expected a number above 0", "mend it")
        known = [each.name for each in self.plan.guardrails]
        for option, names in (("--rate", self.rates), ("--delay", self.delays)):
            for name in names:
                if name not in known:
                    yield Problem(
                        option, f"found no guardrail {name!r} in plan {self.plan.name}", suggestion(name, known)
                    )
        for each in self.plan.guardrails:
            if _why_left_out(each) is None:
                yield from self._of(each, f"{place} guardrail {each.name} expected")

    def _of(self, guardrail: Guardrail, place: str) -> Iterator[Problem]:
        rate, delay, maturity = self.rate(guardrail), self.delay(guardrail), guardrail.maturity
        if rate is None:
            remedy = f'add it, or give --rate "{guardrail.name}=2 %"'
            yield Problem(f"{place}.rate", "found no such number, expected the champion's rate of bad units", remedy)
        elif not 0 < rate < 1:
            yield Problem(f"{place}.rate", f"found {rate!r}, expected a rate above 0 % and below 100 %", "mend it")
        if not guardrail.source.is_delayed or maturity is None:
            if guardrail.name in self.delays:
                yield Problem(f"{place}.delay", "found it without labels, expected it with source label", "remove it")
        elif delay is None:
            remedy = f'add it, or give --delay "{guardrail.name}=24 h"'
            yield Problem(f"{place}.delay", "found no such time, expected when half of the labels are there", remedy)
        elif not timedelta(0) < delay < maturity:
            finding = f"found {format_duration(delay)}, expected less than the maturity, {format_duration(maturity)}"
            yield Problem(f"{place}.delay", finding, "correct the one that is wrong")
