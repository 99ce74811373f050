"""Whether units were assigned as recorded; if not, no other verdict counts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from seatrial.gates.finding import Finding, Question
from seatrial.stats import kernel, srm
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from seatrial.evidence import Evidence


def assignment(evidence: Evidence, *, alpha: float) -> Finding:
    """Return FAIL when the units of both arms contradict the recorded shares at error rate `alpha`.

    A sample-ratio mismatch means that routing, logging or joining loses units of one arm; then rates of the two arms
    are not comparable. Source: odds-tilt process over allocation epochs, `seatrial.stats.srm`.
    """
    challenger, champion, rho = evidence.assigned_series()
    units = int(challenger.sum() + champion.sum())
    if units == 0:
        return Finding(
            Question.ASSIGNMENT,
            "units",
            Verdict.INCONCLUSIVE,
            "no unit has been assigned in a comparison yet",
        )
    expected = float(((challenger + champion) * rho).sum())
    log_e = float(srm.odds_tilt(challenger, champion, rho))
    is_broken = log_e >= math.log(1.0 / alpha)
    seen = f"{int(challenger.sum()):,} of {units:,} units went to the challenger, {expected:,.0f} were expected"
    return Finding(
        Question.ASSIGNMENT,
        "units",
        Verdict.FAIL if is_broken else Verdict.PASS,
        f"sample ratio mismatch: {seen}; find the loss before any verdict" if is_broken else seen,
        {
            "challenger_units": int(challenger.sum()),
            "champion_units": int(champion.sum()),
            "expected_challenger_units": expected,
            "log_e": log_e,
            "anytime_p": float(kernel.anytime_p(log_e)),
        },
    )
