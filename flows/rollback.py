"""Return the champion to service because a person says so."""

from __future__ import annotations

from time import sleep

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from seatrial.rollout import State as RolloutState
from tasks.rollbacks import roll_back, verify_rollback


@flow(name="rollback", flow_run_name="{decision_point}: {reason}")
def rollback(decision_point: str, reason: str, requested_by: str, wait_s: float = 60.0) -> State[None]:
    """End the active rollout of a decision point, or demote its champion, and see that the routers follow.

    Args:
        decision_point: what callers address, for example flight-delay
        reason: why; kept in the ledger
        requested_by: your name
        wait_s: seconds to wait for the routers; a rollback that was not seen is never reported as done
    """
    rollout_id = roll_back(decision_point, reason, requested_by)
    for _ in range(int(wait_s) + 1):
        if verify_rollback(rollout_id) is RolloutState.ROLLED_BACK:
            return Completed(name="Rolled back", message=reason)
        sleep(1.0)
    return Failed(name="Rollback incomplete", message="not every router was seen serving the champion alone")
