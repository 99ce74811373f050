"""Effects of a rollback that a person asks for."""

from __future__ import annotations

from prefect import task

from seatrial.control.ending import roll_back_decision_point
from seatrial.control.moving import WATCH, step
from seatrial.rollout import State
from tasks.plant import OPTIONS, plant


@task(name="Roll back", **OPTIONS)
def roll_back(decision_point: str, reason: str, requested_by: str) -> str:
    """Return the champion of `decision_point` to service and return the rollout that ended."""
    here = plant()
    rollout = roll_back_decision_point(
        here.ports, decision_point, reason=reason, actor=requested_by, now=here.clock.now()
    )
    return rollout.id


@task(name="See it on the routers", **OPTIONS)
def verify_rollback(rollout_id: str) -> State:
    """Return the state of `rollout_id` after asking the routers what they serve."""
    here = plant()
    return step(here.ports, rollout_id, now=here.clock.now(), actor="rollback flow", may=WATCH).rollout.state
