"""Let a flow run sleep without a process until the watch, or a person, wakes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from uuid import UUID

from prefect import get_client
from prefect.exceptions import Pause
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Paused
from prefect.utilities.engine import propose_state_sync
from pydantic import Field

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


class AnswerForm(RunInput):
    """What every answer says beside the decision itself."""

    decision: str
    approver: str = Field(
        title="Approver", min_length=1, description="your name as it stands among the approvers in the settings"
    )
    reason: str = Field(title="Reason", min_length=1, description="kept in the ledger with your name")


class ApprovalForm(AnswerForm):
    """Answer to a question about exposure or promotion."""

    decision: Literal["approve", "reject"] = Field(
        title="Decision", description="approve: go on as described; reject: the champion returns to service now"
    )


class UndecidedForm(AnswerForm):
    """Answer to evidence that was undecided at the deadline."""

    decision: Literal["continue", "reject"] = Field(
        title="Decision",
        description="continue: one more deadline for this stage; reject: the champion keeps all traffic",
    )


def sleep_until_woken(*, title: str, reason: str, key: str) -> None:
    """Pause the flow run under `title` and end its process; the run starts from the top when it is resumed.

    With a `key` that was woken before it returns at once. Prefect 3 has no call for a pause of this kind with a name
    of its own (PrefectHQ/prefect#7989), so the state is proposed directly.
    """
    state: State[None] = Paused(name=title, message=reason, reschedule=True, pause_key=key)
    with get_client(sync_client=True) as client:
        answered = propose_state_sync(client, state, flow_run_id=UUID(str(flow_run.id)))
    if answered.is_paused():
        raise Pause(state=answered)


def ask(form: type[AnswerForm], *, text: str, key: str, timeout_s: int) -> AnswerForm:
    """Suspend the flow run until a person has filled in `form`, and return the answer.

    Nobody answering within `timeout_s` fails the flow run, which is never a yes.
    """
    return suspend_flow_run(wait_for_input=form.with_initial_data(description=text), key=key, timeout=timeout_s)
