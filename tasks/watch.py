"""Effects of the watch: look at every rollout, and wake, start again or give up the flows that belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import get_client, task
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled

from seatrial.control.checkpointing import checkpoint
from seatrial.control.ending import kill
from seatrial.control.watching import evaluate_labels, may_restart, watch
from seatrial.errors import RefusedError
from seatrial.rollout import FINAL, State
from tasks.plant import OPTIONS, plant

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

#: A flow run works for seconds and then sleeps; one that runs longer than this has lost its process.
LOST_AFTER = timedelta(minutes=10)
#: Declared gates may each take minutes, and those that measure the machine run one after the other.
LOST_AT_GATES_AFTER = timedelta(hours=1)
#: Who acts, in the ledger.
ACTOR = "sweep"


@dataclass(frozen=True, slots=True)
class Due:
    """A rollout and what its flow run should know."""

    rollout_id: str
    flow_run_id: str
    state: State
    is_due: bool
    reason: str


@task(name="Look at every rollout", **OPTIONS)
def look_at_rollouts() -> list[Due]:
    """Judge every open rollout once, roll back on harm, renew leases, and return what was seen."""
    here = plant()
    return [
        Due(w.rollout.id, w.rollout.flow_run_id, w.rollout.state, w.is_due, w.reason)
        for w in watch(here.ports, now=here.clock.now(), actor=ACTOR)
        if w.rollout.flow_run_id is not None
    ]


@task(name="Sign the ledger", **OPTIONS)
def sign_ledger() -> None:
    """Make a checkpoint of the ledger if it grew, and keep it outside the database, where a key is configured."""
    here = plant()
    checkpoint(here.ports, now=here.clock.now())


@task(name="Tend the flow run", **OPTIONS)
def tend(due: Due) -> str:
    """Make the flow run of one rollout live up to its state, and return what was done."""
    if due.state in (State.CHAMPION, State.SUPERSEDED):
        return "nothing to do: its flow has ended"
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(UUID(due.flow_run_id))
        except ObjectNotFound:
            return _give_up(due, "its flow run was deleted")
        return _tend(client, run, due)


@task(name="End what has its verdict", **OPTIONS)
def end_finished() -> list[str]:
    """Start every sleeping flow run whose rollout has ended, so that it ends too, and return those runs."""
    ended = {
        rollout.flow_run_id
        for rollout in plant().store.rollouts()
        if rollout.state in FINAL | {State.CHAMPION, State.SUPERSEDED}
    }
    paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    with get_client(sync_client=True) as client:
        of_rollouts = FlowFilter(name=FlowFilterName(any_=["rollout"]))
        runs = client.read_flow_runs(flow_filter=of_rollouts, flow_run_filter=paused)
        stale = [run for run in runs if str(run.id) in ended]
        for run in stale:
            _start_again(client, run, "its rollout has ended")
    return [str(run.id) for run in stale]


def _tend(client: SyncPrefectClient, run: FlowRun, due: Due) -> str:
    state = run.state
    if state is None or state.is_scheduled():
        return "nothing to do: it starts by itself"
    if state.is_paused():
        asks = state.state_details.run_input_keyset is not None
        is_awaited = due.state in (State.AWAITING_APPROVAL, State.AWAITING_DECISION)
        if asks and not is_awaited:
            # The question is void: the run ends it by itself when it starts again and finds the new state.
            return _start_again(client, run, "the question it asks is void")
        if due.is_due and not asks:
            client.resume_flow_run(run.id)
            return f"woken: {due.reason}"
        return "nothing to do: it waits"
    if state.is_cancelled() or state.is_cancelling():
        return _give_up(due, "its flow run was cancelled")
    patience = LOST_AT_GATES_AFTER if due.state is State.GATES else LOST_AFTER
    is_lost = state.timestamp < datetime.now(UTC) - patience
    if state.is_final() or is_lost:
        here = plant()
        rollout = here.store.rollout(due.rollout_id)
        if may_restart(here.ports, rollout, reason=f"its flow run was {state.name}", now=here.clock.now()):
            return _start_again(client, run, f"it was {state.name}")
        return _give_up(due, f"its flow run was {state.name} again and again")
    return "nothing to do: it runs"


def _start_again(client: SyncPrefectClient, run: FlowRun, why: str) -> str:
    client.set_flow_run_state(run.id, Scheduled(message=f"started again: {why}"), force=True)
    return f"started again: {why}"


def _give_up(due: Due, reason: str) -> str:
    """Return the champion to service: a rollout without its flow has nobody to take it on."""
    here = plant()
    rollout = here.store.rollout(due.rollout_id)
    try:
        kill(here.ports, rollout.challenger, reason=reason, actor=ACTOR, now=here.clock.now())
    except RefusedError as error:
        return str(error)
    return f"rolled back: {reason}"


@task(name="Evaluate the labels", **OPTIONS)
def evaluate(rollout_id: str) -> str:
    """Judge one rollout by its labels, demote it on harm, and return what was decided."""
    here = plant()
    rollout = here.store.rollout(rollout_id)
    after, _ = evaluate_labels(here.ports, rollout, now=here.clock.now(), actor="label evaluation")
    return f"{after.state}: {after.reason}"
