"""Whether units were assigned as recorded; if not, no other verdict counts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seatrial.evidence import Key
from seatrial.gates.finding import Finding, Question
from seatrial.plan import Source
from seatrial.stats import kernel, srm
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from seatrial.evidence import Evidence
    from seatrial.plan import Guardrail, Plan

#: E from which a sound assignment is doubted: nothing is widened while it is, which happens to one rollout in five at
#: most and passes by itself. A loss of two percent in one arm is seen by it before a promotion, by a FAIL often not.
DOUBTED = 5.0


def assignment(evidence: Evidence, *, alpha: float) -> Finding:
    """Return FAIL when the units of both arms contradict the recorded shares at error rate `alpha`.

    INCONCLUSIVE when they do not fit well enough for a PASS, which E >= `DOUBTED` says.

    A sample-ratio mismatch means that routing, logging or joining loses units of one arm; then rates of the two arms
    are not comparable. Source: odds-tilt process over allocation epochs, `seatrial.stats.srm`.
    """
    challenger, champion, rho = evidence.assigned_series()
    units = int(challenger.sum() + champion.sum())
    if evidence.crossed:
        return Finding(
            Question.ASSIGNMENT,
            "units",
            Verdict.FAIL,
            f"{evidence.crossed:,} units were seen in both arms of one snapshot: assignment is not sticky, so that"
            " units are no units; find out whether routers disagree or the log writes another key",
            {"crossed": evidence.crossed, "challenger_units": int(challenger.sum())},
        )
    if units == 0:
        return Finding(
            Question.ASSIGNMENT,
            "units",
            Verdict.INCONCLUSIVE,
            "no unit has been assigned in a comparison yet",
        )
    expected = float(((challenger + champion) * rho).sum())
    log_e = float(srm.odds_tilt(challenger, champion, rho))
    seen = f"{int(challenger.sum()):,} of {units:,} units went to the challenger, {expected:,.0f} were expected"
    return Finding(
        Question.ASSIGNMENT,
        "units",
        *_judged(seen, log_e, alpha=alpha),
        {
            "challenger_units": int(challenger.sum()),
            "champion_units": int(champion.sum()),
            "expected_challenger_units": expected,
            "log_e": log_e,
            "anytime_p": float(kernel.anytime_p(log_e)),
        },
    )


def losses(evidence: Evidence, plan: Plan, *, alpha: float) -> list[Finding]:
    """Return one finding for each slice, and for the labels of each guardrail, that has units at all.

    Units can be lost after assignment: a slice that one arm logs worse, a label join that misses one arm. Each finding
    gets an equal part of `alpha`. Without units there is none, for a label that has not arrived yet says nothing;
    promotion asks for label coverage on its own.
    """
    asked = [(f"labels · {each.name}", "labelled", Key(each.name, None, None)) for each in _with_label(plan)]
    asked += [
        (f"units · {each.name} · {column}={value}", "units", Key(each.name, column, value))
        for each in plan.guardrails
        for column in each.slices
        for value in plan.slices[column]
    ]
    series = evidence.series_of(key for _, _, key in asked)
    counted = [
        (subject, each, name) for (subject, name, _), each in zip(asked, series, strict=True) if any(each.total(name))
    ]
    if not counted:
        return []
    units = np.stack([each.of(name) for _, each, name in counted])
    log_es = np.atleast_1d(srm.odds_tilt(units[:, 0], units[:, 1], evidence.rho))
    expected = (units.sum(axis=1) * evidence.rho).sum(axis=-1)
    return [
        _loss(subject, each.total(name), expected=among, log_e=log_e, alpha=alpha, questions=len(asked))
        for (subject, each, name), among, log_e in zip(counted, expected.tolist(), log_es.tolist(), strict=True)
    ]


def _with_label(plan: Plan) -> list[Guardrail]:
    """Return the guardrails whose labels both arms have in proportion; not so where an action can hide them."""
    return [each for each in plan.guardrails if each.source is Source.LABEL and not each.is_censored]


def _judged(seen: str, log_e: float, *, alpha: float, questions: int = 1) -> tuple[Verdict, str]:
    """Return verdict and reason of one of several questions that share `alpha` and the right to doubt."""
    if log_e >= math.log(questions / alpha):
        return Verdict.FAIL, f"sample ratio mismatch: {seen}; find the loss before any verdict"
    if log_e >= math.log(DOUBTED * questions):
        return Verdict.INCONCLUSIVE, f"assignment in doubt: {seen}; nothing is widened until it fits"
    return Verdict.PASS, seen


def _loss(
    subject: str, units: tuple[int, int], *, expected: float, log_e: float, alpha: float, questions: int
) -> Finding:
    challenger, champion = units
    seen = f"{subject}: {challenger:,} are the challenger's, {expected:,.0f} were expected"
    return Finding(
        Question.ASSIGNMENT,
        subject,
        *_judged(seen, log_e, alpha=alpha, questions=questions),
        {
            "challenger_units": challenger,
            "champion_units": champion,
            "expected_challenger_units": expected,
            "log_e": log_e,
        },
    )
