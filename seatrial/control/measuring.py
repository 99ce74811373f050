"""Find the counts to show beside findings: those that a decision names, or those of the logs as they are now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.errors import NotFoundError, SeatrialError
from seatrial.evidence import stored_evidence
from seatrial.ports import Scope
from seatrial.rollout import SERVING, State

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.evidence import Evidence
    from seatrial.plan import Plan
    from seatrial.ports import Ports
    from seatrial.rollout import Rollout


def measured(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> Evidence | None:
    """Return the counts of a look at `now` while `rollout` is on trial, and what moved it last otherwise.

    None when the logs cannot be read, or nothing that can be read is stored.
    """
    if rollout.state not in SERVING | {State.SHADOW}:
        return decided_on(ports, rollout)
    scope = Scope(rollout.decision_point, rollout.id, rollout.champion, rollout.challenger, rollout.created_at)
    try:
        return ports.evidence.look(plan, scope, now=now)
    except SeatrialError:
        # For display alone: what judges the same logs has recorded the failure as an ERROR.
        return None


def decided_on(ports: Ports, rollout: Rollout) -> Evidence | None:
    """Return the counts that the last move of `rollout` rests on, and that an answer names; None when unreadable."""
    if rollout.evidence_digest is None:
        return None
    try:
        return stored_evidence(ports.store.evidence(rollout.evidence_digest), digest=rollout.evidence_digest)
    except (NotFoundError, ValueError):
        return None
