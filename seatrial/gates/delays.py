"""Whether labels of both arms take equally long, which evidence from early labels rests on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seatrial.evidence import WAIT_STEPS, Arm
from seatrial.gates.finding import Finding, Question
from seatrial.plan import Consequence
from seatrial.stats.maturity import delay_equality
from seatrial.stats.means import Score, log_e_above, log_e_below
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from seatrial.evidence import Evidence, Wait
    from seatrial.plan import Guardrail, Plan

#: Variance of the log-rank score at which the test is sharpest: some hundred bad units of each arm.
PLANNED_VARIANCE = 50.0


def delays(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return one finding for each label guardrail: FAIL when the arms wait unequally long for their labels.

    Compared are labelled units whose window is over, by the steps after which the first label arrived; bad
    ones alone would not do, for two releases are wrong about units of other kinds, whose labels differ by nature. It is
    done within allocation epochs (stratified log-rank). The score is a martingale in the time of the rollout, so the
    mixture boundary of `seatrial.stats.means` holds at all looks, asymptotically; both directions share the hold
    budget. A FAIL says that rates of noticing were compared, not rates of harm: the share stands still.
    """
    return [_compared(evidence, each, alpha=plan.budgets.hold) for each in plan.guardrails if _has_waits(each)]


def _has_waits(guardrail: Guardrail) -> bool:
    return guardrail.source.is_delayed and guardrail.mean is None


def _compared(evidence: Evidence, guardrail: Guardrail, *, alpha: float) -> Finding:
    waits = {
        wait: count
        for wait, count in evidence.waits.items()
        if wait.guardrail == guardrail.name and wait.age == WAIT_STEPS and 0 <= wait.delay < WAIT_STEPS
    }
    counts = list(waits.values())
    found = delay_equality(
        np.repeat([float(wait.delay) for wait in waits], counts),
        np.repeat([wait.arm is Arm.CHALLENGER for wait in waits], counts),
        np.repeat([wait.snapshot_no for wait in waits], counts),
    )
    middle = {arm: _median(waits, arm) for arm in (Arm.CHALLENGER, Arm.CHAMPION)}
    numbers: dict[str, float | int | str | None] = {
        "challenger_labels": sum(count for wait, count in waits.items() if wait.arm is Arm.CHALLENGER),
        "champion_labels": sum(count for wait, count in waits.items() if wait.arm is Arm.CHAMPION),
        "challenger_median_delay": middle[Arm.CHALLENGER],
        "champion_median_delay": middle[Arm.CHAMPION],
    }
    is_binding = not guardrail.dry_run and guardrail.consequence is not Consequence.NOTIFY
    if found is None:
        reason = f"{guardrail.name}: too few labels past their window to compare, or all took equally long"
        return Finding(Question.DELAY, guardrail.name, Verdict.INCONCLUSIVE, reason, numbers, is_binding=is_binding)
    score = Score(found.excess, found.variance, 1.0)
    sides = [test(score, tuned_at=PLANNED_VARIANCE, alpha=alpha / 2.0) for test in (log_e_above, log_e_below)]
    log_e = float(np.logaddexp(sides[0], sides[1])) - math.log(2.0)
    is_unequal = log_e >= math.log(1.0 / alpha)
    soon = "sooner" if found.z > 0 else "later"
    reason = (
        f"{guardrail.name}: labels of the challenger's units arrive {soon} than the champion's;"
        " early labels compare how soon, not how often"
        if is_unequal
        else f"{guardrail.name}: labels of both arms take equally long, as far as can be told"
    )
    verdict = Verdict.FAIL if is_unequal else Verdict.INCONCLUSIVE
    numbers |= {"log_e": log_e, "threshold": math.log(1.0 / alpha), "z": found.z}
    return Finding(Question.DELAY, guardrail.name, verdict, reason, numbers, is_binding=is_binding)


def _median(waits: dict[Wait, int], arm: Arm) -> float | None:
    """Return the median delay of one arm as a part of the maturity window."""
    steps = np.repeat(
        [wait.delay for wait in waits if wait.arm is arm],
        [count for wait, count in waits.items() if wait.arm is arm],
    )
    return float(np.median(steps)) / WAIT_STEPS if steps.size else None
