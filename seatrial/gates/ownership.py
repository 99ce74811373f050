"""Whether somebody answers for a release, and the right others may approve it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.plan import Approval
from seatrial.units import plain_name
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.plan import Ownership, Plan
    from seatrial.plan.asks import Tier
    from seatrial.release import Release


def ownership(
    challenger: Release, plan: Plan, ask: Ownership, approvers: Mapping[str, frozenset[str]]
) -> list[Finding]:
    """Return the findings on owner, roles, approval stages and the people who may approve.

    `approvers` are roles by name of the person, as the settings have them.
    """
    tier = ask.tiers[challenger.risk_tier]
    return [
        _owner(challenger, approvers),
        _roles(challenger, plan, tier),
        _approvals(challenger, plan, tier),
        _people(challenger, tier, approvers),
    ]


def _finding(subject: str, verdict: Verdict, reason: str, **numbers: int) -> Finding:
    return Finding(Question.CONTRACT, f"ownership{SUBJECT_MARK}{subject}", verdict, reason, numbers)


def _owner(challenger: Release, approvers: Mapping[str, frozenset[str]]) -> Finding:
    owner = challenger.owner
    known = plain_name(owner.person) in map(plain_name, approvers)
    said = "is known to the settings" if known else "has no role here, and can reject nothing"
    reason = f"{owner.person} of {owner.team} answers for the release and {said}; risk tier {challenger.risk_tier}"
    return _finding("owner", Verdict.PASS, reason)


def _roles(challenger: Release, plan: Plan, tier: Tier) -> Finding:
    others = sorted(set(plan.approvers.roles) - set(tier.roles))
    wanted = " or ".join(tier.roles)
    if others:
        reason = f"the plan lets {', '.join(others)} approve; risk tier {challenger.risk_tier} asks for {wanted}"
        return _finding("roles", Verdict.FAIL, reason)
    return _finding("roles", Verdict.PASS, f"{wanted} must approve a release of risk tier {challenger.risk_tier}")


def _approvals(challenger: Release, plan: Plan, tier: Tier) -> Finding:
    found = sum(isinstance(stage, Approval) for stage in plan.stages)
    noun = "approval" if found == 1 else "approvals"
    reason = f"the plan holds {found} {noun}, risk tier {challenger.risk_tier} asks for {tier.approvals}"
    verdict = Verdict.PASS if found >= tier.approvals else Verdict.FAIL
    return _finding("approvals", verdict, reason, found=found, wanted=tier.approvals)


def _people(challenger: Release, tier: Tier, approvers: Mapping[str, frozenset[str]]) -> Finding:
    makers = {plain_name(challenger.owner.person), plain_name(challenger.training.trained_by)}
    free = sorted(
        name for name, roles in approvers.items() if roles & set(tier.roles) and plain_name(name) not in makers
    )
    wanted = " or ".join(tier.roles)
    if not free:
        return _finding("people", Verdict.FAIL, f"nobody with the role {wanted} but those who made the release", free=0)
    return _finding("people", Verdict.PASS, f"{', '.join(free)} may approve as {wanted}", free=len(free))
