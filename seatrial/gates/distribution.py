"""Whether the challenger's scores are as varied as the champion's on the same rows, and in the same order.

What is a collapse or an explosion is told by `seatrial.stats.scores.collapses`, whose bounds lie far outside chance and
have no error rate. That scores have turned round is judged at `LEVEL`. How far they moved is shown and decides nothing:
a better model scores differently.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.stats.scores import MINIMUM_UNITS, ScoreGrid, collapses
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from seatrial.release import Release

GATE = "distribution"
#: Chance of saying that scores have turned round when they have not.
LEVEL = 0.05


def distribution(
    challenger: Release, champion: Release, mine: NDArray[np.float64], theirs: NDArray[np.float64]
) -> list[Finding]:
    """Return whether the scores of both releases on the same rows have one shape, and one order."""
    return [_shape(challenger, champion, mine, theirs), _order(mine, theirs)]


def _shape(challenger: Release, champion: Release, mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> Finding:
    numbers: dict[str, float | int | str | None] = {"rows": len(mine)}
    if challenger.output.range != champion.output.range:
        reason = "the releases promise scores of different ranges, so that their shapes cannot be compared"
        return _found("shape", Verdict.INCONCLUSIVE, reason, numbers)
    grid = ScoreGrid(*challenger.output.range)
    wrong = collapses(*(np.bincount(grid.index(scores), minlength=grid.size) for scores in (mine, theirs)))
    if wrong is None:
        reason = f"{len(mine)} rows are too few to tell a collapse; expected {MINIMUM_UNITS}"
        return _found("shape", Verdict.INCONCLUSIVE, reason, numbers)
    numbers |= {"mean_difference": float((mine - theirs).mean()), "largest_move": float(np.abs(mine - theirs).max())}
    said = "; ".join(wrong) or f"the scores of {len(mine):,} rows are as varied as the champion's"
    return _found("shape", Verdict.FAIL if wrong else Verdict.PASS, said, numbers)


def _order(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> Finding:
    if len(mine) < MINIMUM_UNITS or np.ptp(mine) == 0.0 or np.ptp(theirs) == 0.0:
        reason = f"too few rows or values to compare the order of scores; expected {MINIMUM_UNITS} that differ"
        return _found("order", Verdict.INCONCLUSIVE, reason, {"rows": len(mine)})
    rank = float(np.corrcoef(rankdata(mine), rankdata(theirs))[0, 1])
    # Fisher's z with the variance of Bonett and Wright (Psychometrika 2000) for Spearman's correlation.
    error = math.sqrt((1.0 + rank**2 / 2.0) / (len(mine) - 3))
    at = math.atanh(max(-1.0 + 1e-12, min(1.0 - 1e-12, rank)))
    low, high = math.tanh(at - 1.644854 * error), math.tanh(at + 1.644854 * error)
    numbers = {"rows": len(mine), "rank_correlation": rank, "low": low, "high": high, "level": LEVEL}
    seen = f"rank correlation with the champion's scores {rank:.3f}"
    if high < 0.0:
        return _found("order", Verdict.FAIL, f"the scores have turned round: {seen}", numbers)
    if low > 0.0:
        return _found("order", Verdict.PASS, seen, numbers)
    return _found("order", Verdict.INCONCLUSIVE, f"no order in common is proven: {seen}", numbers)


def _found(
    subject: str, verdict: Verdict, reason: str, numbers: Mapping[str, float | int | str | None] | None = None
) -> Finding:
    return Finding(Question.CONTRACT, f"{GATE}{SUBJECT_MARK}{subject}", verdict, reason, numbers or {})
