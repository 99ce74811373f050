"""Watch all open rollouts."""

from __future__ import annotations

from time import monotonic, sleep

from prefect import flow

from tasks.pages import publish_metrics
from tasks.watch import end_finished, look_at_rollouts, sign_ledger, tend


@flow(name="sweep", flow_run_name="watch")
def sweep(for_s: float = 50.0, every_s: float = 10.0) -> None:
    """Judge every open rollout again and again, roll back on harm, renew leases, and wake what is due.

    Args:
        for_s: seconds for which one run keeps watch; the schedule starts the next
        every_s: seconds between two rounds
    """
    ends_at = monotonic() + for_s
    while True:
        for due in look_at_rollouts():
            tend(due)
        end_finished()
        if monotonic() >= ends_at:
            # For a reader alone: a page that cannot be written must not look like a watch that failed.
            publish_metrics(return_state=True)
            # Last, for a ledger that was changed must fail the run and not keep it from its watch.
            sign_ledger()
            return
        sleep(every_s)
