"""Evidence on guardrails that average amounts: whether the challenger's mean is worse, or shown not to be.

The arms are compared within allocation epochs by the overlap-weighted score of `seatrial.stats.means`. A margin is
relative, so the challenger's amounts are divided by what is tolerated and the difference is held against 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from seatrial.evidence import AMOUNT_STEP, DIVISOR_STEP, Arm, Cell, Moments
from seatrial.stats import means

if TYPE_CHECKING:
    from seatrial.evidence import Evidence
    from seatrial.plan import Guardrail, Mean

#: Overlap weight at which the test is sharpest: some 2,200 units at a share of 10 %, for a quarter of a deviation.
PLANNED_WEIGHT = 200.0
#: Log E of a difference on the other side of the null; E is 0 there, which no table shows and no plot draws.
_NONE = -50.0


def log_e_worse(evidence: Evidence, guardrail: Guardrail, column: str | None, value: str | None) -> float | None:
    """Return log E against "the challenger's mean is not worse"; None below the minimum counts of the theorem."""
    return _log_e(evidence, guardrail, column, value, margin=0.0, is_worse=True)


def log_e_not_worse(evidence: Evidence, guardrail: Guardrail, *, margin: float) -> float | None:
    """Return log E against "the challenger's mean is worse by `margin` or more"; None below the minimum counts."""
    return _log_e(evidence, guardrail, None, None, margin=margin, is_worse=False)


class Average(NamedTuple):
    """A mean, and how many units have an amount at all."""

    mean: float  #: NaN without units
    units: int


def averages(evidence: Evidence, guardrail: Guardrail, column: str | None, value: str | None) -> dict[Arm, Average]:
    """Return the mean of each arm over all epochs, so for reading only."""
    return {
        arm: Average(float(each.k.sum() / each.n.sum()) if each.n.sum() > 0 else math.nan, int(each.units.sum()))
        for arm, each in _sums(evidence, guardrail, column, value).items()
    }


def _log_e(
    evidence: Evidence,
    guardrail: Guardrail,
    column: str | None,
    value: str | None,
    *,
    margin: float,
    is_worse: bool,
) -> float | None:
    mean = _mean(guardrail)
    sums = _sums(evidence, guardrail, column, value)
    tolerated = 1.0 + margin if mean.worse == "higher" else 1.0 / (1.0 + margin)
    challenger = _divided(sums[Arm.CHALLENGER], tolerated)
    score = means.overlap_score(challenger, sums[Arm.CHAMPION], evidence.rho, center=mean.typical)
    if score is None:
        return None
    asks_above = is_worse == (mean.worse == "higher")
    test = means.log_e_above if asks_above else means.log_e_below
    return max(test(score, tuned_at=PLANNED_WEIGHT * mean.deviation**2), _NONE)


def _sums(evidence: Evidence, guardrail: Guardrail, column: str | None, value: str | None) -> dict[Arm, means.Sums]:
    """Return the sums of both arms in the units of the amount, one entry for each epoch."""
    mean = _mean(guardrail)
    k = mean.deviation * AMOUNT_STEP
    n = DIVISOR_STEP if mean.per not in (None, "decisions") else 1.0
    steps = np.array([1.0, 1.0, k, n, k * k, k * n, n * n])
    sums = {}
    for arm in (Arm.CHALLENGER, Arm.CHAMPION):
        cells = [Cell(guardrail.name, column, value, number, arm) for number in evidence.numbers]
        counted = [evidence.moments.get(cell, Moments()).values() for cell in cells]
        sums[arm] = means.Sums(*(np.array(counted, dtype=np.float64).reshape(-1, steps.size) * steps).T)
    return sums


def _divided(sums: means.Sums, by: float) -> means.Sums:
    """Return the sums of amounts that are all divided by one number."""
    return means.Sums(sums.units, sums.nonzero, sums.k / by, sums.n, sums.kk / by**2, sums.kn / by, sums.nn)


def _mean(guardrail: Guardrail) -> Mean:
    if guardrail.mean is None:
        raise ValueError(f"{guardrail.name}: counts units; expected a guardrail with mean; ask `kernel` about counts")
    return guardrail.mean
