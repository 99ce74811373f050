"""What was promised, and what this run reached; every figure is computed from the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.decisions.scoring import wilson
from benchmarks.decisions.suites import Truth

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.decisions.identity import Identity
    from benchmarks.decisions.scoring import Score

OURS = "seatrial"
#: Mean exposure of an earlier prototype of the kernel, without planned onsets, at a stationary base rate.
PROTOTYPE = {1.25: 7_606, 1.5: 1_903, 2.0: 539, 3.0: 189}


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the final table."""

    promise: str
    reached: str
    is_met: bool | None  #: None when the run had no cell that could tell


def targets(scores: Sequence[Score], identity: Identity | None) -> list[Target]:
    """Return every target with what the rule of seatrial reached in this run."""
    ours = [each for each in scores if each.rule == OURS]
    step = [each for each in ours if each.cell.suite == "S2" and max(each.cell.stream.ratio) >= 1.25]
    return [
        _at_most(
            "A/A false rollback <= 5 % in every suite, one guardrail",
            [each for each in ours if each.cell.truth is Truth.HARMLESS and each.cell.stream.guardrails == 1],
        ),
        _at_most(
            "A/A false rollback <= 5 %, 10 guardrails x 20 slices",
            [each for each in ours if each.cell.truth is Truth.HARMLESS and each.cell.stream.has_slices],
        ),
        _regret("regret <= 1.5, one guardrail, r >= 1.25", [e for e in step if e.cell.stream.guardrails == 1], 1.5),
        _regret(
            "regret <= 2.5, 10 guardrails x 20 slices, r >= 1.25", [e for e in step if e.cell.stream.has_slices], 2.5
        ),
        _regret(
            "regret <= 1.5 with delayed labels, against positives as they arrive",
            [e for e in ours if e.cell.suite == "S6" and e.limit and e.cell.stream.delay_is_equal],
            1.5,
        ),
        _at_most("false promotion <= 5 % at the margin", [e for e in ours if e.cell.truth is Truth.AT_MARGIN]),
        _none("no promotion under sample ratio mismatch", [e for e in ours if e.cell.suite == "S7"]),
        _none("no promotion where the action hides the label", [e for e in ours if e.cell.suite == "S10"]),
        _identical(identity),
        *(_prototype(ours, ratio, figure) for ratio, figure in PROTOTYPE.items()),
    ]


def _at_most(promise: str, scores: Sequence[Score]) -> Target:
    if not scores:
        return Target(promise, "not in this run", None)
    worst = max(scores, key=lambda each: each.wrong[0] / each.replicates)
    hits = worst.wrong[0]
    low, high = wilson(hits, worst.replicates)
    reached = (
        f"at most {hits / worst.replicates:.1%} ({low:.1%} to {high:.1%}) of {worst.replicates}, in {worst.cell.title};"
        f" {sum(each.wrong[0] for each in scores)} of {sum(each.replicates for each in scores)} over"
        f" {len(scores)} cells"
    )
    return Target(promise, reached, hits <= 0.05 * worst.replicates)


def _regret(promise: str, scores: Sequence[Score], at_most: float) -> Target:
    found = sorted((regret, each.cell.name) for each in scores if (regret := each.regret) is not None)
    if not found:
        return Target(promise, "not in this run", None)
    shown = ", ".join(f"{regret:.2f} ({name})" for regret, name in found[::-1])
    return Target(promise, shown, found[-1][0] <= at_most)


def _none(promise: str, scores: Sequence[Score]) -> Target:
    if not scores:
        return Target(promise, "not in this run", None)
    promoted = sum(each.promoted for each in scores)
    return Target(promise, f"{promoted} of {sum(each.replicates for each in scores)} rollouts", promoted == 0)


def _identical(identity: Identity | None) -> Target:
    promise = "verdict bit-identical after restart, duplicates, late and unordered rows, missed looks"
    if identity is None:
        return Target(promise, "not in this run", None)
    reached = f"{identity.differing} of {identity.looks} looks differ ({identity.verdicts} different verdicts)"
    return Target(promise, reached, identity.differing == 0)


def _prototype(scores: Iterable[Score], ratio: float, figure: int) -> Target:
    promise = f"mean exposure at r={ratio:g}: prototype {figure:,}"
    for each in scores:
        if each.cell.title == f"S2 r={ratio:g}":
            reached = f"{each.exposed:,.0f} +- {2 * each.exposed_error:,.0f}"
            return Target(promise, reached, each.exposed <= figure + 2 * each.exposed_error)
    return Target(promise, "not in this run", None)
