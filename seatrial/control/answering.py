"""Who may answer a question about a rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.errors import RefusedError
from seatrial.rollout import Answer, Choice, Rollout
from seatrial.units import plain_name

if TYPE_CHECKING:
    from seatrial.plan import Plan
    from seatrial.ports import Ports


def require_may_answer(ports: Ports, rollout: Rollout, plan: Plan, answer: Answer) -> None:
    """Raise RefusedError unless the person who gives `answer` may, and gives a reason; anybody listed may reject."""
    if answer.choice is Choice.REJECT:
        _roles_of(ports, answer.by)
    else:
        require_independent(ports, rollout, plan, answer.by)
    require_reason(answer.by, answer.reason)


def require_independent(ports: Ports, rollout: Rollout, plan: Plan, name: str) -> None:
    """Raise RefusedError unless `name` has a role of the plan, and neither asked for nor made the release."""
    roles = _roles_of(ports, name)
    if not roles & set(plan.approvers.roles):
        raise RefusedError(
            f"approver {name!r} has the roles {', '.join(sorted(roles)) or 'none'}; the plan asks for one of"
            f" {', '.join(plan.approvers.roles)}"
        )
    release = ports.store.release(rollout.challenger).release
    makers = (rollout.requested_by, release.owner.person, release.training.trained_by)
    if plain_name(name) in map(plain_name, makers):
        raise RefusedError(f"approver {name!r} asked for this rollout or made the release; somebody else must approve")


def require_reason(name: str, reason: str) -> None:
    """Raise RefusedError when the answer of `name` says nothing."""
    if not reason.strip():
        raise RefusedError(f"the answer of {name!r} has no reason; give one, it is kept for ever")


def _roles_of(ports: Ports, name: str) -> frozenset[str]:
    roles = ports.approvers.get(name)
    if roles is None:
        raise RefusedError(
            f"approver {name!r}: not among the approvers; known: {', '.join(sorted(ports.approvers)) or 'none'}"
        )
    return roles
