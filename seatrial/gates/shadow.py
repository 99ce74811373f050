"""Whether the challenger runs on copies of real requests, without anybody acting on its answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from seatrial.gates.finding import Finding, Question
from seatrial.stats import kernel
from seatrial.stats.rate import below
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from seatrial.evidence import ShadowTally
    from seatrial.plan import Shadow


def shadow(tally: ShadowTally, stage: Shadow, *, alpha: float) -> list[Finding]:
    """Return one finding on failed calls and one on changed actions.

    Failures are compared in pairs on the same unit (McNemar: of the units on which exactly one release failed, half
    are the challenger's when it is no worse) and bounded absolutely; both at error rate `alpha` over all looks.
    """
    return [_failures(tally, stage, alpha=alpha), _flips(tally, stage, alpha=alpha)]


def _failures(tally: ShadowTally, stage: Shadow, *, alpha: float) -> Finding:
    failed = tally.challenger_failed + tally.both_failed
    numbers: dict[str, float | int | str | None] = {
        "units": tally.units,
        "challenger_failed": tally.challenger_failed,
        "champion_failed": tally.champion_failed,
        "both_failed": tally.both_failed,
    }
    seen = f"{failed:,} of {tally.units:,} shadow calls failed"
    worse = float(kernel.harm([tally.challenger_failed], [tally.champion_failed], [0.5]))
    if worse >= math.log(1.0 / alpha):
        reason = f"{seen}, on the same units the champion failed {tally.champion_failed + tally.both_failed:,} times"
        return Finding(Question.SHADOW, "shadow failures", Verdict.FAIL, reason, {**numbers, "log_e": worse})
    bounded = below(failed, tally.units, bound=stage.max_failed)
    is_shown = tally.units >= stage.min_units and bounded >= math.log(1.0 / alpha)
    return Finding(
        Question.SHADOW,
        "shadow failures",
        Verdict.PASS if is_shown else Verdict.INCONCLUSIVE,
        f"{seen}; "
        + (f"below {stage.max_failed:.2%} is shown" if is_shown else f"{stage.max_failed:.2%} not ruled out yet"),
        {**numbers, "log_e": bounded},
    )


def _flips(tally: ShadowTally, stage: Shadow, *, alpha: float) -> Finding:
    rate = tally.flipped / tally.compared if tally.compared else math.nan
    numbers: dict[str, float | int | str | None] = {
        "compared": tally.compared,
        "flipped": tally.flipped,
        "flip_rate": rate,
    }
    if tally.compared < stage.min_units:
        return Finding(
            Question.SHADOW,
            "flipped actions",
            Verdict.INCONCLUSIVE,
            f"{tally.compared:,} units compared, the plan asks for {stage.min_units:,}",
            numbers,
        )
    seen = f"{rate:.1%} of {tally.compared:,} actions would change"
    bound = stage.max_flip_rate
    if below(tally.compared - tally.flipped, tally.compared, bound=1.0 - bound) >= math.log(1.0 / alpha):
        return Finding(
            Question.SHADOW, "flipped actions", Verdict.FAIL, f"{seen}, the plan allows {bound:.1%}", numbers
        )
    is_shown = below(tally.flipped, tally.compared, bound=bound) >= math.log(1.0 / alpha)
    return Finding(
        Question.SHADOW,
        "flipped actions",
        Verdict.PASS if is_shown else Verdict.INCONCLUSIVE,
        f"{seen}; " + (f"below {bound:.1%} is shown" if is_shown else f"{bound:.1%} not ruled out yet"),
        numbers,
    )
