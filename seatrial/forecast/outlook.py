"""What a forecast says: exposure, time to find harm, time to leave each step, and how rollouts may end."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seatrial.forecast.demands import Demand
    from seatrial.forecast.expectations import Expectations


@dataclass(frozen=True, slots=True)
class Detection:
    """How soon harm that begins with a step is found there, at the share of the step."""

    guardrail: str
    ratio: float
    consequence: str  #: what then happens: roll_back or freeze
    found: float  #: part of the rollouts in which it is found within the limit of the step
    days_p50: float | None  #: from entering the step; None when that many are not found within its limit
    days_p80: float | None
    exposed_p50: float | None  #: challenger units served in the step by then
    exposed_p80: float | None
    #: challenger units of a test of ten planned looks with a power of 80 %; None when that was not asked, or when so
    #: few of them would be bad that its normal approximation does not hold
    planned: float | None


@dataclass(frozen=True, slots=True)
class StepOutlook:
    """One step in which the challenger serves."""

    name: str
    kind: str
    share: float
    units_per_day: float  #: of the challenger
    soak_days: float
    limit_days: float  #: deadline, or watch
    exposed_by_soak: float
    exposed_by_limit: float
    label_wait_days: float  #: until the first unit of the step is mature in every guardrail
    reached: float  #: part of the equal releases that come here
    leaves_p50: float | None  #: days until an equal release leaves; None when so many do not within the limit
    leaves_p80: float | None
    in_time: float | None  #: part of the equal releases that leave, of those that come here; None when none does
    detections: tuple[Detection, ...]  #: empty when no equal release comes here


@dataclass(frozen=True, slots=True)
class Ending:
    """How rollouts of a release with one ratio to the champion end; parts of all rollouts."""

    ratio: float  #: of every guardrail
    promoted: float  #: pass every stage before promotion, those rolled back in the watch included
    rolled_back: float  #: before promotion
    rolled_back_in_watch: float  #: after promotion
    undecided: float  #: at a deadline
    days_p50: float | None  #: until promotion, of those promoted
    days_p80: float | None
    days_mean: float  #: until promotion, rollback or the deadline at which nothing was decided
    promoted_by: tuple[tuple[int, float], ...]  #: day, and the part of all rollouts promoted by then


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a plan costs and can show, given what is expected."""

    plan: str
    expectations: Expectations
    replicates: int
    look_every_days: float
    lead_days: float  #: stages before the first canary step, when they pass at the first moment
    slices_alpha: float  #: the part of the rollback budget that slices may spend on top of what is simulated
    demands: tuple[Demand, ...]
    steps: tuple[StepOutlook, ...]
    equal: Ending
    better: Ending

    @property
    def shortfalls(self) -> tuple[Demand, ...]:
        """The margins that cannot be shown in the time given."""
        return tuple(each for each in self.demands if not each.is_met)

    def document(self) -> dict[str, Any]:
        """Return the forecast as plain data; infinite and unknown numbers are None."""
        return {
            "plan": self.plan,
            "expected": {
                "units_per_day": self.expectations.units_per_day,
                "guardrails": [
                    {
                        "name": each.name,
                        "rate": each.rate,
                        "delay_s": None if each.delay is None else each.delay.median * 86_400.0,
                        "maturity_s": None if each.delay is None else each.delay.maturity * 86_400.0,
                    }
                    for each in self.expectations.guardrails
                ],
                "left_out": list(self.expectations.left_out),
            },
            "replicates": self.replicates,
            "look_every_s": self.look_every_days * 86_400.0,
            "lead_days": self.lead_days,
            "slices_alpha": self.slices_alpha,
            "margins": [_demand_document(each) for each in self.demands],
            "steps": [asdict(each) for each in self.steps],
            "equal": asdict(self.equal),
            "better": asdict(self.better),
        }


def _demand_document(demand: Demand) -> dict[str, Any]:
    return {
        "step": demand.step,
        "guardrail": demand.guardrail,
        "margin": str(demand.margin),
        "is_met": demand.is_met,
        "needed": demand.needed if math.isfinite(demand.needed) else None,
        "arrives": demand.arrives,
        "counted": "bad units of both arms" if demand.margin.is_relative else "matured units of the challenger",
        "smallest_margin": None if demand.smallest_margin is None else str(demand.smallest_margin),
        "suffices": {
            "margin": None if demand.is_met or demand.smallest_margin is None else str(demand.smallest_margin),
            "deadline_days": demand.longer_deadline,
            "units_per_day": demand.more_traffic,
            "share": demand.larger_share,
        },
    }
