"""The page of results."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks.decisions import report
from benchmarks.decisions.running import WORKERS, Options, rules_shown
from benchmarks.decisions.suites import Truth
from benchmarks.decisions.targets import targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.decisions.identity import Identity
    from benchmarks.decisions.scoring import Score

READING = """\
A cell is a stream of requests that each rule watches on its own draws from one seed: a ramp of 1-5-10-25-50 %, 60 ticks
at each share, 2,000 requests a tick, a champion's bad rate of 2 %, unless its name says otherwise. "10 x 20" is ten
guardrails with twenty slices each, the traffic of four ticks between two looks in cells without harm. With labels, a
tick is an hour. Rollouts end in a promotion, a rollback, a question to a person ("asked"), or as invalid because the
arms are not as assigned. `seatrial` waits at a share until harm of 100 % is ruled out, promotes when 15 % is ruled out
on matured labels, and has a person approve; the others follow the schedule and promote at its end.

*Wrong* is a false rollback in a harmless cell, a challenger that was not rolled back in a harmful one, and a promotion
where the challenger is at the margin or the arms cannot be compared. *Exposed* are requests that the challenger
answered, from the onset of the harm; *regret* is their mean divided by the information limit log(1/alpha) / kl(p1, p0)
at alpha = 5 %, which no rule with that error can beat on average. With delayed labels it is the exposure at which the
bad labels that have arrived are expected to hold log(1/alpha) of information; as the ramp is not linear in it, a mean
can come out a little below. On flights the year's mean rate stands in for that of the hour. The regret of a rule that
does not keep 5 % in the harmless cells means nothing. Intervals are Wilson's, at 95 %. A target is held against the
worst of many cells, so that chance alone can miss one by a little; its interval says so.

Why `seatrial` cannot reach a regret of 1: the limit belongs to a test that knows both rates and when the harm began,
while the kernel mixes over ratios and over planned onsets; it counts whole bad units, and at r = 3 the limit is reached
with seven of them; and with ten guardrails in slices each guardrail has a twentieth of the budget, so that the limit at
its own alpha is twice the one shown. S7 asks whether lost units are noticed before a promotion: a loss of 2 % is near
what the budget for the assignment can find in one ramp.

Simplifications. Guardrails of one stream are independent, which is the worst case for many of them. Requests of an
entity come in one tick. Peers count what is not yet known to be bad as good, and see totals only, not slices. A person
approves at once. The Kayenta rule inverts its test by ranks, without ties; real installations of Argo and Flagger stand
or fall with thresholds that their operators choose."""


def written(options: Options, scores: Sequence[Score], identity: Identity | None, seconds: float) -> str:
    """Return the page of results."""
    kind = "full run" if options.is_full else "two-minute subset"
    found = targets(scores, identity)
    began = (
        f"`python -m benchmarks.decisions{' --full' if options.is_full else ''} --seed {options.seed}`: {kind},"
        f" {options.replicates} rollouts of each rule in each cell, more or fewer where a table says so,"
        f" {seconds:.0f} s on {WORKERS} cores."
    )
    parts = [
        "# Decision quality of rollout rules",
        began,
        READING,
        "## Targets",
        report.targets_table(found),
        "## Harmless challengers rolled back",
        f"![rates]({options.name}-false-rollbacks.png)",
        report.matrix(scores, [Truth.HARMLESS]),
        "Under unequal delays the assumption of early positives does not hold, and nothing is promised:",
        report.matrix(scores, [Truth.UNEQUAL]),
        "## Exposure until harm is found",
        f"![exposure]({options.name}-exposure.png)",
        report.exposure_matrix(scores),
        "Harmful challengers not rolled back by the end:",
        report.matrix(scores, [Truth.HARMFUL]),
        "Of these, promoted; the others were left to a person:",
        report.matrix(scores, [Truth.HARMFUL], lambda each: each.promoted),
        "## Promoted although at the margin, or although the arms cannot be compared",
        report.matrix(scores, [Truth.AT_MARGIN, Truth.BROKEN]),
        "## Settings of the rules",
        report.settings(rules_shown()),
        "## Every cell",
        report.cell_tables(scores),
    ]
    return _compact("\n\n".join(parts) + "\n")


def _compact(page: str) -> str:
    """Return `page` without the blanks that align its tables: most of it would be blanks."""
    return re.sub(r" {2,}\|", " |", re.sub(r"-{4,}\|", "---|", page))
