"""Simulate rollouts of an equal and a better release, and of harm that begins with each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seatrial.forecast.course import Course, Fate, Step, Tally, overall_alphas, pass_through, resampled, time_to_harm
from seatrial.forecast.course import days as in_days
from seatrial.forecast.demands import demands
from seatrial.forecast.outlook import Detection, Ending, Forecast, StepOutlook
from seatrial.plan import Labels, Promotion, Shadow
from seatrial.stats.power import planned_units

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator

    from seatrial.forecast.course import Floats, Passage
    from seatrial.forecast.expectations import Expectations, Expected
    from seatrial.plan import Plan

#: Harm that a forecast looks for: the challenger's rate over the champion's.
RATIOS = (1.25, 1.5, 2.0, 3.0)
#: A release that is really better.
BETTER = 0.8
#: The part of releases that a planned time or exposure is enough for.
_MOST = 0.8
#: Fewer replicates tell nothing about a percentile of eighty.
_FEWEST = 20
#: Bad units of the challenger below which a normal approximation says nothing.
_FEWEST_BAD = 10


def forecast(
    plan: Plan,
    expectations: Expectations,
    *,
    rng: Generator,
    replicates: int = 400,
    is_planned_asked: bool = False,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Forecast:
    """Return what rollouts by `plan` will look like.

    Parameters
    ----------
    plan
        Its stages, margins and alphas are used as the gates use them.
    expectations
        From `seatrial.forecast.expect`.
    rng
        Source of chance; the same state gives the same forecast.
    replicates
        Rollouts that are simulated for each question, at least 20.
    is_planned_asked
        Whether to compute what a test with a planned horizon would need.
    on_progress
        Called with the part that is done, in [0, 1].

    Raises
    ------
    ValueError
        When `replicates` is below 20, or no guardrail that rolls back is left to plan with.

    Notes
    -----
    Assumed: units arrive as a Poisson stream of constant rate, ratios are constant, labels arrive as
    `seatrial.forecast.Delay` says and none is missing, gates and shadow pass at once or after soak and units, approvals
    are given at once. Slices are left out, which makes rollback a little rarer than it will be. A percentile of 400
    replicates has a standard error of 2 to 2.5 points of probability.
    """
    if replicates < _FEWEST or not expectations.guardrails:
        raise ValueError(
            f"forecast: found {replicates} replicates and {len(expectations.guardrails)} guardrails; expected at least"
            f" {_FEWEST} and one; ask for more, or plan with a rate instead of a mean"
        )
    course = Course.of(plan, expectations)
    done = _Progress(
        2 * len(course.steps) + len(course.steps) * len(expectations.guardrails) * len(RATIOS), on_progress
    )
    equal = _Run.of(course, 1.0, replicates, rng, done)
    better = _Run.of(course, BETTER, replicates, rng, done)
    lasts = {step.name: _typical(step, equal) for step in course.steps}
    return Forecast(
        plan=f"{plan.name} {plan.version}",
        expectations=expectations,
        replicates=replicates,
        look_every_days=course.interval,
        lead_days=_lead_days(plan, expectations),
        slices_alpha=math.fsum(h.alpha for h in plan.hypotheses() if h.slice_column is not None),
        demands=tuple(demands(course, lasts)),
        steps=tuple(_outlook(course, step, equal, rng, done, is_planned_asked) for step in course.steps),
        equal=equal.ending(),
        better=better.ending(),
    )


@dataclass(slots=True)
class _Progress:
    """How much of the simulation is done."""

    total: int
    tell: Callable[[float], None]
    finished: int = 0

    def advance(self) -> None:
        self.finished += 1
        self.tell(self.finished / self.total)


def _lead_days(plan: Plan, expectations: Expectations) -> float:
    """Return the days of shadow, the only stage before the first canary step that must last."""
    shadows = [stage for stage in plan.stages if isinstance(stage, Shadow)]
    return math.fsum(max(in_days(s.soak), s.min_units / expectations.units_per_day) for s in shadows)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Many rollouts of one release through all steps."""

    ratio: float
    course: Course
    entered: dict[str, tuple[Tally, ...]]  #: by step, counts of the rollouts that came there
    passages: dict[str, Passage]
    fate: dict[str, int]  #: rollouts by what became of them
    ended: Floats  #: days until promotion, rollback or deadline, of each rollout
    promoted: Floats  #: days until promotion, of those promoted
    replicates: int

    @classmethod
    def of(cls, course: Course, ratio: float, replicates: int, rng: Generator, done: _Progress) -> _Run:
        """Simulate `replicates` rollouts whose challenger has `ratio` times the champion's rates."""
        tallies = tuple(Tally.empty(each, course, replicates) for each in course.expectations.guardrails)
        spent = np.full(replicates, _lead_days(course.plan, course.expectations))
        fate = {"rolled_back": 0, "undecided": 0, "rolled_back_in_watch": 0}
        entered: dict[str, tuple[Tally, ...]] = {}
        passages: dict[str, Passage] = {}
        ended: list[Floats] = []
        for step in course.steps:
            if isinstance(step.stage, Promotion):
                break
            passage = pass_through(course, step, tallies, ratio=ratio, rng=rng)
            entered[step.name], passages[step.name] = tallies, passage
            fate["rolled_back"] += int((passage.fate == Fate.ROLLED_BACK).sum())
            fate["undecided"] += int((passage.fate == Fate.UNDECIDED).sum())
            ended.append((spent + passage.lasted)[passage.fate != Fate.LEFT])
            spent, tallies = (spent + passage.lasted)[passage.left], passage.tallies
            done.advance()
        watch = course.steps[-1]
        if isinstance(watch.stage, Promotion):
            passage = pass_through(course, watch, tallies, ratio=ratio, rng=rng)
            entered[watch.name], passages[watch.name] = tallies, passage
            fate["rolled_back_in_watch"] = int((passage.fate == Fate.ROLLED_BACK).sum())
            done.advance()
        return cls(ratio, course, entered, passages, fate, np.concatenate([*ended, spent]), np.sort(spent), replicates)

    def ending(self) -> Ending:
        """Return how they ended."""
        last = math.ceil(self.promoted[-1]) if self.promoted.size else 0
        by_day = [(day, float((self.promoted <= day).sum()) / self.replicates) for day in range(last + 1)]
        return Ending(
            ratio=self.ratio,
            promoted=self.promoted.size / self.replicates,
            **{name: count / self.replicates for name, count in self.fate.items()},
            days_p50=_quantile(self.promoted, 0.5),
            days_p80=_quantile(self.promoted, _MOST),
            days_mean=float(self.ended.mean()),
            promoted_by=tuple(by_day),
        )


def _typical(step: Step, equal: _Run) -> float:
    """Return how long an equal release stays in `step`: the median, or all of it when half of them do not leave."""
    return _quantile(_left_after(equal.passages[step.name]), 0.5) or step.limit


def _left_after(passage: Passage) -> Floats:
    """Return the days until leaving of those not rolled back, infinite for those that were not decided."""
    stayed = passage.fate != Fate.ROLLED_BACK
    return np.where(passage.fate[stayed] == Fate.LEFT, passage.lasted[stayed], np.inf)


def _quantile(values: Floats, chance: float) -> float | None:
    """Return the least value that so many of `values` do not exceed, or None when it is infinite or there is none."""
    if not values.size:
        return None
    found = float(np.quantile(values, chance, method="inverted_cdf"))
    return found if math.isfinite(found) else None


def _outlook(
    course: Course, step: Step, equal: _Run, rng: Generator, done: _Progress, is_planned_asked: bool
) -> StepOutlook:
    passage, tallies = equal.passages[step.name], equal.entered[step.name]
    leaves = _left_after(passage)
    per_day = step.share * course.expectations.units_per_day
    waits = isinstance(step.stage, Labels)
    detections = []
    for expected, tally in zip(course.expectations.guardrails, tallies, strict=True):
        for ratio in RATIOS:
            if passage.fate.size and ratio * expected.rate < 1.0:
                many = resampled(tally, equal.replicates, rng)
                found = time_to_harm(course, step, expected, many, ratio=ratio, rng=rng)
                detections.append(_detection(course, step, expected, ratio, found, is_planned_asked))
            done.advance()
    return StepOutlook(
        name=step.name,
        kind=step.stage.stage,
        share=step.share,
        units_per_day=per_day,
        soak_days=step.soak,
        limit_days=step.limit,
        exposed_by_soak=per_day * step.soak,
        exposed_by_limit=per_day * step.limit,
        label_wait_days=max(each.maturity for each in course.expectations.guardrails) if waits else 0.0,
        reached=passage.fate.size / equal.replicates,
        leaves_p50=_quantile(leaves, 0.5),
        leaves_p80=_quantile(leaves, _MOST),
        in_time=float(np.isfinite(leaves).mean()) if leaves.size else None,
        detections=tuple(detections),
    )


def _detection(
    course: Course,
    step: Step,
    expected: Expected,
    ratio: float,
    times: Floats,
    is_planned_asked: bool,
) -> Detection:
    per_day = step.share * course.expectations.units_per_day
    p50, p80 = _quantile(times, 0.5), _quantile(times, _MOST)
    alpha = overall_alphas(course.plan).get(expected.name, course.plan.budgets.hold)
    return Detection(
        guardrail=expected.name,
        ratio=ratio,
        consequence=expected.guardrail.consequence.value,
        found=float(np.isfinite(times).mean()),
        days_p50=p50,
        days_p80=p80,
        exposed_p50=None if p50 is None else per_day * p50,
        exposed_p80=None if p80 is None else per_day * p80,
        planned=_planned(step, expected, ratio, alpha) if is_planned_asked else None,
    )


def _planned(step: Step, expected: Expected, ratio: float, alpha: float) -> float | None:
    units = planned_units(ratio, rate=expected.rate, rho=step.share, alpha=alpha, power=_MOST)
    return units if units * ratio * expected.rate >= _FEWEST_BAD else None
