"""Whether units were assigned as recorded; if not, no other verdict counts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, assert_never

import numpy as np

from seatrial.evidence import Key
from seatrial.gates.finding import Finding, Question
from seatrial.stats import kernel, srm
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from seatrial.evidence import Evidence
    from seatrial.plan import Guardrail, Plan

#: E from which a sound assignment is doubted: nothing is widened while it is, which happens to one rollout in five at
#: most and passes by itself. A loss of two percent in one arm is seen by it before a promotion, by a FAIL often not.
DOUBTED = 5.0
#: So many labels and slices that PASS, and more, have one finding together.
FOLDED_FROM = 2
#: Subject of the finding that all labels and slices share which PASS.
AS_ASSIGNED = "labels and slices"


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
    verdict = _Bounds.of(alpha).verdict(log_e)
    seen = f"{int(challenger.sum()):,} of {units:,} units went to the challenger, {expected:,.0f} were expected"
    return Finding(
        Question.ASSIGNMENT,
        "units",
        verdict,
        _told(verdict, seen),
        {
            "challenger_units": int(challenger.sum()),
            "champion_units": int(champion.sum()),
            "expected_challenger_units": expected,
            "log_e": log_e,
            "anytime_p": float(kernel.anytime_p(log_e)),
        },
    )


def losses(evidence: Evidence, plan: Plan, *, alpha: float) -> list[Finding]:
    """Return whether the units of each slice, and the labels of each guardrail, are as assigned, where there are any.

    Units can be lost after assignment: a slice that one arm logs worse, a label join that misses one arm. Each part
    gets an equal share of `alpha`. Those that PASS have one finding together, every other one has its own. Without
    units there is none, for a label that has not arrived yet says nothing; promotion asks for label coverage on its
    own.
    """
    keys, units = _counts(evidence, plan)
    asked = np.flatnonzero(units.any(axis=(1, 2))).tolist()
    if not asked:
        return []
    rho = evidence.rho
    log_es = np.atleast_1d(srm.odds_tilt(units[asked, 0], units[asked, 1], rho))
    bounds = _Bounds.of(alpha, questions=len(keys))
    passed = np.flatnonzero(log_es < min(bounds)).tolist()
    folded = set(passed) if len(passed) >= FOLDED_FROM else set()
    found = [
        _loss(_Part.of(keys[at], units[at], rho, log_e), bounds)
        for place, (at, log_e) in enumerate(zip(asked, log_es.tolist(), strict=True))
        if place not in folded
    ]
    if not folded:
        return found
    least = max(folded, key=log_es.__getitem__)
    part = _Part.of(keys[asked[least]], units[asked[least]], rho, float(log_es[least]))
    return [*found, _as_assigned(part, len(folded), silent=len(keys) - len(asked))]


def _counts(evidence: Evidence, plan: Plan) -> tuple[list[Key], NDArray[np.int64]]:
    """Return the labels of guardrails and the units of slices, with what was counted of both arms by epoch."""
    labels = [Key(each.name, None, None) for each in _with_label(plan)]
    slices = [
        Key(each.name, column, value)
        for each in plan.guardrails
        for column in each.slices
        for value in plan.slices[column]
    ]
    counts = [evidence.counts_of(labels, "labelled"), evidence.counts_of(slices, "units")]
    return [*labels, *slices], np.concatenate(counts)


def _with_label(plan: Plan) -> list[Guardrail]:
    """Return the guardrails whose labels both arms have in proportion; not so where an action can hide them."""
    return [each for each in plan.guardrails if each.source.is_delayed and not each.is_censored]


class _Part(NamedTuple):
    """Units of both arms that should be as assigned: the labels of a guardrail, or the units of one of its slices."""

    key: Key
    units: Sequence[int]  #: challenger, champion
    expected: float  #: of the challenger
    log_e: float

    @classmethod
    def of(cls, key: Key, units: NDArray[np.int64], rho: NDArray[np.float64], log_e: float) -> _Part:
        """Return the part with `units` of both arms by epoch."""
        return cls(key, units.sum(axis=-1).tolist(), float(units.sum(axis=0) @ rho), log_e)

    @property
    def subject(self) -> str:
        guardrail, column, value = self.key
        return f"labels · {guardrail}" if column is None else f"units · {guardrail} · {column}={value}"

    @property
    def described(self) -> str:
        return f"{self.subject}: {self.units[0]:,} are the challenger's, {self.expected:,.0f} were expected"

    @property
    def numbers(self) -> dict[str, float | int | str | None]:
        return {
            "challenger_units": self.units[0],
            "champion_units": self.units[1],
            "expected_challenger_units": self.expected,
            "log_e": self.log_e,
        }


def _loss(part: _Part, bounds: _Bounds) -> Finding:
    verdict = bounds.verdict(part.log_e)
    return Finding(Question.ASSIGNMENT, part.subject, verdict, _told(verdict, part.described), part.numbers)


def _as_assigned(least: _Part, parts: int, *, silent: int) -> Finding:
    """Return the finding of several parts that PASS, with the counts of the one that fits least."""
    without = f"; {silent} {'has' if silent == 1 else 'have'} no unit yet" if silent else ""
    return Finding(
        Question.ASSIGNMENT,
        AS_ASSIGNED,
        Verdict.PASS,
        f"{parts} counts of labels and of units in slices are as assigned; the least likely is"
        f" {least.described}{without}",
        {**least.numbers, "least_likely": least.subject, "parts": parts, "parts_without_units": silent},
    )


class _Bounds(NamedTuple):
    """From which log E the assignment fails, and from which it is in doubt."""

    fails: float
    doubted: float

    @classmethod
    def of(cls, alpha: float, *, questions: int = 1) -> _Bounds:
        """Return the bounds of one of several questions that share `alpha` and the right to doubt."""
        return cls(math.log(questions / alpha), math.log(DOUBTED * questions))

    def verdict(self, log_e: float) -> Verdict:
        """Return the verdict, which is PASS of a number only."""
        if log_e >= self.fails:
            return Verdict.FAIL
        return Verdict.PASS if log_e < self.doubted else Verdict.INCONCLUSIVE


def _told(verdict: Verdict, seen: str) -> str:
    match verdict:
        case Verdict.PASS:
            return seen
        case Verdict.FAIL:
            return f"sample ratio mismatch: {seen}; find the loss before any verdict"
        case Verdict.INCONCLUSIVE | Verdict.ERROR:
            return f"assignment in doubt: {seen}; nothing is widened until it fits"
        case unreachable:
            assert_never(unreachable)
