"""Whether each margin can be shown in the time that a plan gives, and which other number would suffice.

What must be counted for an equal release to be shown not to be worse follows from the margin; what is counted by the
deadline follows from traffic, shares and delays. Both are medians: half of the equal releases need less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.plan import Canary, Labels, Margin
from seatrial.stats.power import information_to_show, margin_shown, units_to_show, units_to_stay_below

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.forecast.course import Course, Step
    from seatrial.forecast.expectations import Expected

#: Days beyond which a deadline is no advice.
_FARTHEST_D = 3_650.0
#: Days that do not matter.
_RESOLUTION_D = 0.01
#: Largest margins that are advice, relative and absolute.
_WIDEST, _WIDEST_PER_MILLE = 10.0, 990
#: Margins below it are rounded to a tenth of a percent.
_TENTH = 0.1


@dataclass(frozen=True, slots=True)
class Demand:
    """What one guardrail must show in one step, against what arrives by its deadline."""

    step: str
    guardrail: str
    margin: Margin
    #: at the step's share: bad units of both arms or, for an absolute margin, the challenger's matured units;
    #: infinite when the expected rate itself is not below the margin
    needed: float
    arrives: float  #: of these, by the deadline, earlier steps included
    share: float  #: the challenger's share in the step
    deadline: float  #: days from entering the step
    smallest_margin: Margin | None  #: what can be shown by the deadline; None when no margin can
    #: what would suffice when nothing else changes; None when the margin is met, or no such number would do
    longer_deadline: float | None  #: days from entering the step
    more_traffic: float | None  #: units a day
    larger_share: float | None

    @property
    def is_met(self) -> bool:
        """Whether half of the equal releases can show the margin in time."""
        return self.arrives >= self.needed


def demands(course: Course, lasts: Mapping[str, float]) -> list[Demand]:
    """Return one demand for each guardrail in each canary step and in the labels stage.

    `lasts` is how many days each step lasts for an equal release, by the name of the step.
    """
    before: list[tuple[Step, float]] = []
    found = []
    for step in course.steps:
        if isinstance(step.stage, Canary | Labels):
            found += [
                _Question(course, expected, tuple(before), step).demand() for expected in course.expectations.guardrails
            ]
            before.append((step, lasts[step.name]))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """One guardrail in one step, after steps that lasted so many days."""

    course: Course
    expected: Expected
    before: Sequence[tuple[Step, float]]
    step: Step

    @property
    def margin(self) -> Margin:
        own = self.expected.guardrail.margin
        return self.step.stage.rule_out if isinstance(self.step.stage, Canary) and own.is_relative else own

    @property
    def alpha(self) -> float:
        return self.course.plan.budgets.promote

    def demand(self) -> Demand:
        """Return what is needed and what arrives, with what would suffice."""
        unit = self.step.share * (1.0 - self.step.share) if self.margin.is_relative else 1.0
        needed, gathered = self._needed(), self._gathered(self.step.limit)
        is_met = gathered >= needed
        return Demand(
            step=self.step.name,
            guardrail=self.expected.name,
            margin=self.margin,
            needed=needed / unit,
            arrives=gathered / unit,
            share=self.step.share,
            deadline=self.step.limit,
            smallest_margin=self._smallest_margin(gathered),
            longer_deadline=None if is_met else self._longer_deadline(needed),
            more_traffic=None if is_met else self._more_traffic(needed, gathered),
            larger_share=None if is_met else self._larger_share(needed),
        )

    def _needed(self) -> float:
        if self.margin.is_relative:
            return information_to_show(self.margin.value, alpha=self.alpha)
        return units_to_stay_below(self.expected.rate, bound=self.margin.value, alpha=self.alpha)

    def _gathered(self, lasts: float, share: float | None = None) -> float:
        """Return what is there `lasts` days after the step was entered, at its share or another one."""
        earlier = self._gathered_before(lasts)
        return earlier + self._flow(self.step.share if share is None else share) * self._known_days(0.0, lasts)

    def _gathered_before(self, lasts: float) -> float:
        """Return the part of the earlier steps at that time."""
        total, ago = 0.0, lasts
        for step, days in reversed(self.before):
            total += self._flow(step.share) * self._known_days(ago, ago + days)
            ago += days
        return total

    def _flow(self, share: float) -> float:
        """Return what a day of service at `share` tells once everything about it is known."""
        units = self.course.expectations.units_per_day
        if self.margin.is_relative:
            return units * self.expected.rate * share * (1.0 - share)
        return units * share

    def _known_days(self, youngest: float, oldest: float) -> float:
        """Return how many days of full knowledge the service between these two ages is worth."""
        if self.expected.delay is None:
            return oldest - youngest
        if isinstance(self.step.stage, Canary) and self.margin.is_relative:
            old, young = self.expected.delay.accumulated([oldest, youngest])
            return float(old - young)
        maturity = self.expected.delay.maturity
        return max(oldest - maturity, 0.0) - max(youngest - maturity, 0.0)

    def _smallest_margin(self, gathered: float) -> Margin | None:
        if self.margin.is_relative:
            wanted = margin_shown(gathered, alpha=self.alpha)
            return Margin(_rounded_up(wanted)) if wanted < _WIDEST else None
        units = math.floor(gathered)
        bad = round(self.expected.rate * units)
        # In steps of a thousandth: nobody writes a rate finer than that.
        low, high = math.floor(1e3 * self.expected.rate), _WIDEST_PER_MILLE
        if units_to_show(bad, bound=high / 1e3, alpha=self.alpha) > units:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            is_enough = units_to_show(bad, bound=middle / 1e3, alpha=self.alpha) <= units
            low, high = (low, middle) if is_enough else (middle, high)
        return Margin(high / 1e3, is_relative=False)

    def _longer_deadline(self, needed: float) -> float | None:
        if self._gathered(_FARTHEST_D) < needed:
            return None
        low, high = self.step.limit, _FARTHEST_D
        while high - low > _RESOLUTION_D:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if self._gathered(middle) >= needed else (middle, high)
        return high

    def _more_traffic(self, needed: float, gathered: float) -> float | None:
        if gathered <= 0 or math.isinf(needed):
            return None
        return math.ceil(self.course.expectations.units_per_day * needed / gathered)

    def _larger_share(self, needed: float) -> float | None:
        """Return the share of this step that suffices when the earlier ones stay as they are, at most one half."""
        larger = (percent / 100.0 for percent in range(1, 51) if percent / 100.0 > self.step.share)
        return next((share for share in larger if self._gathered(self.step.limit, share) >= needed), None)


def _rounded_up(value: float) -> float:
    """Return `value` rounded up to a whole percent, or to a tenth of one below ten percent."""
    parts = 100 if value >= _TENTH else 1_000
    return math.ceil(value * parts - 1e-9) / parts
