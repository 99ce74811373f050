"""Simulated rollouts: counts that arrive look by look, judged by the kernel with the alphas of the plan.

Many rollouts run side by side; the first axis of every array is the rollout. Units arrive as a Poisson stream, so that
bad and good units of both arms are independent. Slices are not simulated, and every label arrives within its maturity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.special import rel_entr

from seatrial.plan import Canary, Consequence, Labels, Promotion
from seatrial.stats import kernel
from seatrial.stats.power import units_to_show

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from numpy.random import Generator
    from numpy.typing import NDArray

    from seatrial.forecast.expectations import Expectations, Expected
    from seatrial.plan import Margin, Plan

Floats: TypeAlias = "NDArray[np.float64]"
Counts: TypeAlias = "NDArray[np.int64]"

#: Intervals between two looks that a forecast may use, in hours.
_INTERVALS_H = (0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 24)
#: Looks that the shortest soak should have, and more than which no label should have to wait.
_LEAST_LOOKS, _MOST_LOOKS = 6, 120
#: What is counted of a guardrail: reported bad by now, bad among the matured, good among the matured.
_BAD, _MATURED_BAD, _GOOD = range(3)


def days(duration: timedelta) -> float:
    """Return `duration` in days."""
    return duration.total_seconds() / 86_400.0


@dataclass(frozen=True, slots=True)
class Step:
    """A stage in which the challenger serves beside the champion."""

    name: str
    stage: Canary | Labels | Promotion
    share: float
    epoch: int  #: allocation epoch in which its units are counted

    @property
    def soak(self) -> float:
        """The least days it lasts."""
        return days(self.stage.soak) if isinstance(self.stage, Canary) else 0.0

    @property
    def limit(self) -> float:
        """The days after which it is undecided or, for promotion, over."""
        return days(self.stage.watch if isinstance(self.stage, Promotion) else self.stage.deadline)


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """The steps of a plan, the epochs they count in, and the interval between two looks."""

    plan: Plan
    expectations: Expectations
    steps: tuple[Step, ...]
    rho: Floats  #: share of each epoch
    stage: Counts  #: stage in which each epoch began
    interval: float  #: days between two looks

    @classmethod
    def of(cls, plan: Plan, expectations: Expectations) -> Course:
        """Return the course of `plan`; the labels stage goes on in the epoch of the last canary step."""
        steps: list[Step] = []
        began: list[int] = []
        for at, (name, stage) in enumerate(zip(plan.stage_names(), plan.stages, strict=True)):
            if isinstance(stage, Canary) or (isinstance(stage, Promotion) and stage.holdback > 0):
                share = stage.share if isinstance(stage, Canary) else 1.0 - stage.holdback
                steps.append(Step(name, stage, share, len(began)))
                began.append(at)
            elif isinstance(stage, Labels):
                steps.append(Step(name, stage, steps[-1].share, len(began) - 1))
        rho = np.array([next(s.share for s in steps if s.epoch == epoch) for epoch in range(len(began))])
        return cls(plan, expectations, tuple(steps), rho, np.array(began), _interval(steps, expectations))

    def looks(self, duration: float) -> int:
        """Return the number of the first look after `duration` days, at least 1."""
        return max(1, math.ceil(duration / self.interval - 1e-9))


def _interval(steps: Sequence[Step], expectations: Expectations) -> float:
    """Return the days between two looks: one, or less when a step is short, but never so few that labels wait long."""
    shortest = min((step.soak for step in steps if step.soak > 0), default=math.inf)
    slowest = max((each.maturity for each in expectations.guardrails), default=0.0)
    wanted = 24.0 * max(min(1.0, shortest / _LEAST_LOOKS), slowest / _MOST_LOOKS)
    return max((each for each in _INTERVALS_H if each <= wanted), default=_INTERVALS_H[0]) / 24.0


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Counts of one guardrail in many rollouts, and those that are still on their way."""

    #: by rollout, what is counted, arm (challenger first) and epoch
    counts: Counts
    #: the same by look at which it is counted, the next one first
    pending: Counts

    @classmethod
    def empty(cls, expected: Expected, course: Course, rollouts: int) -> Tally:
        """Return counts of nothing."""
        shape = (rollouts, 3, 2, course.rho.size)
        lags = 1 if expected.delay is None else expected.delay.by_look(course.interval).size
        return cls(np.zeros(shape, dtype=np.int64), np.zeros((*shape, lags), dtype=np.int64))

    def take(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> Tally:
        """Return the counts of the chosen rollouts."""
        return Tally(self.counts[chosen], self.pending[chosen])

    def served(self, expected: Expected, course: Course, step: Step, ratio: float, rng: Generator) -> Tally:
        """Return the counts one look later, when the challenger's rate is `ratio` times the champion's."""
        rollouts, lags = self.counts.shape[0], self.pending.shape[-1]
        arms = np.array([step.share, 1.0 - step.share]) * course.expectations.units_per_day * course.interval
        bad = arms * expected.rate * np.array([ratio, 1.0])
        parts = np.ones(1) if expected.delay is None else expected.delay.by_look(course.interval)
        arrivals = rng.poisson(bad[:, None] * parts, (rollouts, 2, lags))
        pending = self.pending.copy()
        pending[:, _BAD, :, step.epoch] += arrivals
        pending[:, _MATURED_BAD, :, step.epoch, -1] += arrivals.sum(axis=-1)
        pending[:, _GOOD, :, step.epoch, -1] += rng.poisson(arms - bad, (rollouts, 2))
        counts = self.counts + pending[..., 0]
        pending[..., :-1] = pending[..., 1:]
        pending[..., -1] = 0
        return Tally(counts, pending)


def joined(tallies: Sequence[Tally]) -> Tally:
    """Return the rollouts of all `tallies`, one after another."""
    return Tally(np.concatenate([t.counts for t in tallies]), np.concatenate([t.pending for t in tallies]))


def log_e_harm(expected: Expected, course: Course, tally: Tally, *, at_least: float = 0.0) -> Floats:
    """Return log E of harm by rollout, as the gate of harm computes it.

    Where no mixture could come to `at_least`, which is not negative, minus infinity stands for the number: most
    rollouts are quiet at most looks, and what they lack is clear from their counts at a fraction of the cost.
    """
    log_e = np.full(tally.counts.shape[0], -np.inf)
    loud = np.flatnonzero(_most_evidence(expected, course, tally.counts) >= at_least)
    if loud.size:
        log_e[loud] = _log_e(expected, course, tally.counts[loud])
    return log_e


def _most_evidence(expected: Expected, course: Course, counts: Counts) -> Floats:
    """Return what log E could be at most: each epoch's log likelihood ratio against the ratio that fits it best."""
    most = _best_fit(counts[:, _BAD], course.rho, sign=1)
    if expected.declared_rate is not None:
        most = most + _best_fit(counts[:, _GOOD], course.rho, sign=-1)
    return most


def _best_fit(counts: Counts, rho: Floats, *, sign: int) -> Floats:
    units = np.maximum(counts.sum(axis=1), 1)
    part = counts[:, 0] / units
    fit = units * (rel_entr(part, rho) + rel_entr(1.0 - part, 1.0 - rho))
    return np.asarray(np.where(sign * (part - rho) > 0, fit, 0.0).sum(axis=-1))


def _log_e(expected: Expected, course: Course, counts: Counts) -> Floats:
    bad, good = counts[:, _BAD], counts[:, _GOOD]
    onsets: dict[str, Any] = {"stage": course.stage, "stages": len(course.plan.stages)}
    rate = expected.declared_rate
    if rate is None:
        return np.atleast_1d(kernel.harm(bad[:, 0], bad[:, 1], course.rho, **onsets))
    counted = (bad[:, 0], bad[:, 1], good[:, 0], good[:, 1])
    return np.atleast_1d(kernel.harm_of_all(*counted, course.rho, rate=rate, **onsets))


def is_shown(course: Course, tally: Tally, *, margin: Margin, matured: bool) -> NDArray[np.bool_]:
    """Return by rollout whether harm beyond `margin` is ruled out, as the gates of exposure and promotion ask."""
    alpha = course.plan.budgets.promote
    if margin.is_relative:
        bad = tally.counts[:, _MATURED_BAD if matured else _BAD]
        log_e = np.atleast_1d(kernel.noninferiority(bad[:, 0], bad[:, 1], course.rho, margin=margin.value))
        return np.asarray(log_e >= math.log(1.0 / alpha), dtype=np.bool_)
    bad = tally.counts[:, _MATURED_BAD, 0].sum(axis=-1)
    units = bad + tally.counts[:, _GOOD, 0].sum(axis=-1)
    different, at = np.unique(bad, return_inverse=True)
    needed = np.array([units_to_show(int(count), bound=margin.value, alpha=alpha) for count in different])
    return np.asarray(units >= needed[at], dtype=np.bool_)


class Fate(IntEnum):
    """What became of a rollout in a step."""

    LEFT = 0  #: all questions answered
    ROLLED_BACK = 1
    UNDECIDED = 2  #: at the deadline


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """What became of rollouts in one step."""

    fate: Counts  #: `Fate` of each
    lasted: Floats  #: days in the step
    #: position of the rollouts that left, and their counts of each guardrail, in the same order
    left: Counts
    tallies: tuple[Tally, ...]


def pass_through(course: Course, step: Step, tallies: Sequence[Tally], *, ratio: float, rng: Generator) -> Passage:
    """Return what becomes of rollouts that enter `step` with these counts, by the rules of `seatrial.rollout.decide`.

    Harm comes first; then the step is left when it has soaked, no guardrail warns and all rule out harm beyond the
    margin; otherwise the deadline ends it. A watched promotion is left when its watch is over.
    """
    rollouts = tallies[0].counts.shape[0]
    fate, lasted = np.full(rollouts, Fate.UNDECIDED), np.full(rollouts, step.limit)
    present, live = np.arange(rollouts), list(tallies)
    left, gone = [present[:0]], [[t.take(present[:0]) for t in live]]
    last = course.looks(step.limit)
    for look in range(1, last + 1):
        if not present.size:
            break
        guardrails = course.expectations.guardrails
        live = [t.served(e, course, step, ratio, rng) for e, t in zip(guardrails, live, strict=True)]
        is_harmed, is_passed = _judged(course, step, live, look)
        for became, chosen in ((Fate.ROLLED_BACK, is_harmed), (Fate.LEFT, is_passed & ~is_harmed)):
            fate[present[chosen]] = became
            lasted[present[chosen]] = look * course.interval
        is_leaving = is_passed & ~is_harmed
        left.append(present[is_leaving])
        gone.append([t.take(is_leaving) for t in live])
        stays = ~(is_harmed | is_leaving)
        present, live = present[stays], [t.take(stays) for t in live]
    return Passage(fate, lasted, np.concatenate(left), tuple(joined(each) for each in zip(*gone, strict=True)))


def _judged(
    course: Course, step: Step, live: Sequence[Tally], look: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rollouts are harmed, and which may leave the step at this look."""
    alphas, hold = overall_alphas(course.plan), math.log(1.0 / course.plan.budgets.hold)
    watches = isinstance(step.stage, Promotion)
    soaked = look >= course.looks(step.limit if watches else step.soak)
    is_harmed = np.zeros(live[0].counts.shape[0], dtype=bool)
    is_passed = np.full(is_harmed.shape, soaked)
    for expected, tally in zip(course.expectations.guardrails, live, strict=True):
        rolls_back = expected.guardrail.consequence is Consequence.ROLL_BACK
        if not rolls_back and (watches or not soaked):
            continue
        proof = math.log(1.0 / alphas[expected.name]) if rolls_back else math.inf
        asks = soaked and not watches
        log_e = log_e_harm(expected, course, tally, at_least=min(proof, hold) if asks else proof)
        is_harmed |= log_e >= proof
        if asks:
            is_passed &= log_e < hold
    if soaked and not watches:
        for expected, tally in zip(course.expectations.guardrails, live, strict=True):
            asked = np.flatnonzero(is_passed & ~is_harmed)
            margin, matured = _asked_of(expected, step)
            if asked.size:
                is_passed[asked] = is_shown(course, tally.take(asked), margin=margin, matured=matured)
    return is_harmed, is_passed


def _asked_of(expected: Expected, step: Step) -> tuple[Margin, bool]:
    """Return the margin that a guardrail must rule out to leave `step`, and whether on matured units alone."""
    own = expected.guardrail.margin
    if isinstance(step.stage, Canary) and own.is_relative:
        return step.stage.rule_out, False
    return own, True


def overall_alphas(plan: Plan) -> dict[str, float]:
    """Return by guardrail its part of the rollback budget for all units; its slices have theirs."""
    return {h.guardrail: h.alpha for h in plan.hypotheses() if h.slice_column is None}


def time_to_harm(
    course: Course, step: Step, expected: Expected, tally: Tally, *, ratio: float, rng: Generator
) -> Floats:
    """Return by rollout the days from entering `step`, where the harm begins, until it is found.

    The share is held; the harm is found when the guardrail rolls back or, for one that freezes, when it warns.
    Infinite when it is not found by the limit of the step.
    """
    needed = math.log(1.0 / overall_alphas(course.plan).get(expected.name, course.plan.budgets.hold))
    found = np.full(tally.counts.shape[0], np.inf)
    present = np.arange(found.size)
    for look in range(1, course.looks(step.limit) + 1):
        tally = tally.served(expected, course, step, ratio, rng)
        is_found = log_e_harm(expected, course, tally, at_least=needed) >= needed
        found[present[is_found]] = look * course.interval
        present, tally = present[~is_found], tally.take(~is_found)
        if not present.size:
            break
    return found


def resampled(tally: Tally, rollouts: int, rng: Generator) -> Tally:
    """Return counts of as many rollouts, drawn from those there are."""
    return tally.take(rng.integers(tally.counts.shape[0], size=rollouts))
