"""One challenger's way through its plan; one run of this flow is one rollout."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.waiting import ApprovalForm, UndecidedForm, ask, sleep_until_woken
from seatrial.errors import RefusedError
from seatrial.rollout import Answer, Choice
from seatrial.units import short
from tasks.gates import answer_gate, open_gates
from tasks.pages import publish_page, show_progress
from tasks.rollouts import Next, Progress, agree_routers, open_rollout, put_question, take_step


def _run_name() -> str:
    """Return a name that fits where Prefect shows it: the release's first digits and the plan's file."""
    given = flow_run.parameters
    return f"{short(given['release'])} by {Path(given['plan']).stem}"


@flow(name="rollout", flow_run_name=_run_name)
def rollout(release: str, plan: str, requested_by: str) -> State[None]:
    """Take a registered release through the stages of a plan, to promotion or back.

    The run holds no process while it waits. Whenever it starts, it makes the routers agree with the ledger, then goes
    on from what the ledger says is done.

    Args:
        release: id of a registered release, or its first characters
        plan: path of the plan file, relative to the project
        requested_by: your name; whoever approves must be somebody else
    """
    rollout_id = open_rollout(release, plan, requested_by, flow_run_id=str(flow_run.id))
    agree_routers(rollout_id)
    _ask_gates(rollout_id)
    progress = take_step(rollout_id)
    while progress.next is not Next.END:
        show_progress(rollout_id)
        publish_page(rollout_id)
        match progress.next:
            case Next.WAIT:
                key = f"wait-{progress.version}-{flow_run.run_count}"
                sleep_until_woken(title=progress.title, reason=progress.reason, key=key)
            case Next.ASK:
                progress = _answered(progress)
                continue
        if progress.is_at_gates:
            _ask_gates(rollout_id)
        progress = take_step(rollout_id)
    show_progress(rollout_id)
    publish_page(rollout_id)
    return Completed(name=progress.state.value.capitalize(), message=progress.reason)


def _ask_gates(rollout_id: str) -> None:
    """Put every declared gate that has no answer; one that failed has left an ERROR, which the next step reads."""
    for group in open_gates(rollout_id):
        wait([answer_gate.submit(rollout_id, gate) for gate in group])


def _answered(progress: Progress) -> Progress:
    """Ask until a person gives an answer that counts, and take the step that it calls for."""
    objection = ""
    attempt = 0
    while True:
        attempt += 1
        try:
            asked = put_question(progress.rollout_id)
        except RefusedError:
            # It left the state that asks while the run was starting: there is nothing to answer any more.
            return take_step(progress.rollout_id)
        form = UndecidedForm if Choice.CONTINUE in asked.choices else ApprovalForm
        text = f"{objection}\n\n{asked.text}".strip()
        key = f"ask-{progress.version}-{attempt}"
        filled = ask(form, text=text, key=key, timeout_s=asked.expires_s)
        answer = Answer(Choice(filled.decision), filled.approver, filled.reason, asked.evidence_digest)
        try:
            return take_step(progress.rollout_id, answer)
        except RefusedError as error:
            objection = f"> **That answer does not count.** {error}"
