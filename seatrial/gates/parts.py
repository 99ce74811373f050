"""Whether the parts of a release belong together, and to the plan that it follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.change import changed_parts, changes, described, keeps_scores
from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.units import short
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from seatrial.plan import Plan
    from seatrial.release import Release


def parts(challenger: Release, champion: Release, plan: Plan) -> list[Finding]:
    """Return what the challenger changes, and whether its cut-offs were chosen for its own model."""
    return [_change(challenger, champion, plan), _cut_offs(challenger, champion)]


def _change(challenger: Release, champion: Release, plan: Plan) -> Finding:
    others = changes(challenger, champion) - set(plan.changes) if plan.changes else frozenset()
    wrong = f"; the plan is for changes of {', '.join(plan.changes)}" if others else ""
    return Finding(
        Question.CONTRACT,
        f"parts{SUBJECT_MARK}change",
        Verdict.FAIL if others else Verdict.PASS,
        f"{described(challenger, champion)}{wrong}",
        {"changed": len(changed_parts(challenger, champion)), "kinds": len(changes(challenger, champion))},
    )


def _cut_offs(challenger: Release, champion: Release) -> Finding:
    subject, chosen_for = f"parts{SUBJECT_MARK}cut-offs", challenger.policy.chosen_for
    if chosen_for is not None:
        reason = f"the cut-offs were chosen for this model, {short(chosen_for)}"
        return Finding(Question.CONTRACT, subject, Verdict.PASS, reason)
    if keeps_scores(challenger, champion):
        reason = "the scores are those of the champion, for which its cut-offs were chosen"
        return Finding(Question.CONTRACT, subject, Verdict.PASS, reason)
    is_same = challenger.components()["policy"] == champion.components()["policy"]
    whose = "are those of the champion" if is_same else "are new"
    reason = f"the scores change, the cut-offs {whose}, and policy.chosen_for names no model that they were chosen for"
    return Finding(Question.CONTRACT, subject, Verdict.INCONCLUSIVE, reason)
