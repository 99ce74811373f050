"""Whether people can review what the release sends them, and whether what cannot be undone stays rare and apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom

from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.stats.bounds import mean_limits
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from seatrial.plan.asks import Capacity
    from seatrial.release import Release

GATE = "capacity"
#: Chance of letting through a release that asks too much of anybody, and of failing one that does not.
LEVEL = 0.05


def capacity(
    challenger: Release, actions: NDArray[np.object_], ask: Capacity, groups: NDArray[np.int64] | None
) -> list[Finding]:
    """Return whether the review queue and the caps on irreversible actions hold for the expected load."""
    irreversible = [name for name, action in challenger.policy.actions.items() if not action.reversible]
    alpha = LEVEL / (1 + len(irreversible))
    review = [name for name in ask.review if name in challenger.policy.actions]
    found = [_room("review", review, ask.reviews_per_day, actions, ask, groups, alpha=alpha)]
    for name in irreversible:
        found += [_apart(name, challenger)]
        if name in ask.irreversible_per_day:
            cap = ask.irreversible_per_day[name]
            found.append(_room(name, [name], cap, actions, ask, groups, alpha=alpha))
        else:
            reason = f"{name} cannot be undone, and the plan does not say how often a day it may be taken"
            found.append(_found(name, Verdict.INCONCLUSIVE, reason))
    return found


def _room(
    subject: str,
    taken: list[str],
    per_day: float,
    actions: NDArray[np.object_],
    ask: Capacity,
    groups: NDArray[np.int64] | None,
    *,
    alpha: float,
) -> Finding:
    if not actions.size:
        return _found(subject, Verdict.INCONCLUSIVE, "there is no row to see how often anything is done")
    is_taken = np.isin(actions, taken).astype(np.float64)
    rate = mean_limits(is_taken, groups, alpha=min(2.0 * alpha, 0.5))
    low, high = max(rate.low, 0.0), min(rate.high, 1.0)
    requests = round(ask.requests_per_day)
    busiest = float(binom.isf(ask.max_overflow, requests, high))
    numbers: dict[str, float | int | str | None] = {
        "rows": len(actions),
        "rate": rate.estimate,
        "rate_low": low,
        "rate_high": high,
        "expected_per_day": rate.estimate * requests,
        "busiest_day": busiest,
        "capacity": per_day,
        "level": LEVEL,
    }
    often = f"{rate.estimate:.1%} of {len(actions):,} rows, {rate.estimate * requests:,.0f} a day"
    seen = f"{' or '.join(taken) or 'no action'} on {often}"
    if busiest <= per_day:
        return _found(subject, Verdict.PASS, f"{seen}; {per_day:,.0f} suffice but for {ask.max_overflow:.1%}", numbers)
    if binom.isf(ask.max_overflow, requests, low) > per_day:
        return _found(subject, Verdict.FAIL, f"{seen}; {per_day:,.0f} do not suffice", numbers)
    return _found(
        subject, Verdict.INCONCLUSIVE, f"{seen}; too few rows to tell whether {per_day:,.0f} suffice", numbers
    )


def _apart(name: str, challenger: Release) -> Finding:
    """Return whether an irreversible action is taken for its score alone, never because nothing was known."""
    policy, subject = challenger.policy, f"{name} apart"
    unasked = [
        words
        for words, action in (("by default", policy.default_action), ("as fallback", policy.safe_action))
        if action == name
    ]
    if unasked:
        return _found(subject, Verdict.FAIL, f"{name} cannot be undone and is taken {' and '.join(unasked)}")
    least = challenger.output.range[0]
    always = [
        segment
        for segment, rules in policy.cut_offs.items()
        if any(rule.action == name and rule.at_least <= least for rule in rules)
    ]
    if always:
        return _found(
            subject, Verdict.FAIL, f"{name} cannot be undone and is taken at every score in {', '.join(always)}"
        )
    return _found(subject, Verdict.PASS, f"{name} is taken from a cut-off on, neither by default nor as fallback")


def _found(
    subject: str, verdict: Verdict, reason: str, numbers: Mapping[str, float | int | str | None] | None = None
) -> Finding:
    return Finding(Question.CONTRACT, f"{GATE}{SUBJECT_MARK}{subject}", verdict, reason, numbers or {})
