from __future__ import annotations

import pytest
import requests
from live_stack import until

from seatrial.errors import RefusedError
from seatrial.evidence import Arm
from seatrial.ledger import verify
from seatrial.rollout import State


def asked_form(live, run_id):
    """Return what the form of a suspended run shows, or an empty text."""
    run = live.api.flow_run(run_id)
    keyset = run["state"]["state_details"].get("run_input_keyset") or {}
    if run["state_name"] != "Suspended" or not keyset:
        return ""
    answer = requests.get(f"{live.stack.api_url}/flow_runs/{run_id}/input/{keyset['description']}", timeout=30)
    return answer.json() if answer.ok else ""


@pytest.fixture(scope="module")
def asked(live):
    point = live.point("approval")
    point.start()
    point.drive(State.AWAITING_APPROVAL)
    return point


def test_a_rollout_that_waits_for_a_person_holds_no_process(live, asked):
    until(lambda: not live.flow_processes(asked.run_id), "the end of the flow's process", deadline_s=30)
    assert asked.flow_state == "Suspended"
    assert live.plant.store.snapshot(asked.name).share == 0.2


def test_the_form_shows_the_evidence_as_a_table_and_a_plot(live, asked):
    shown = until(lambda: asked_form(live, asked.run_id), "the form")
    assert "| verdict |" in shown
    assert "wrong-decision" in shown
    assert "](data:image/png;base64," in shown


def test_a_form_without_a_name_is_refused_before_the_flow_wakes(live, asked):
    with pytest.raises(RefusedError, match="approver"):
        live.api.answer(asked.run_id, {"decision": "approve", "approver": "", "reason": "read"})
    assert asked.flow_state == "Suspended"


@pytest.mark.parametrize(
    ("name", "why"),
    [("stranger", "not among the approvers"), ("author", "somebody else must approve")],
)
def test_whoever_may_not_approve_is_told_why_and_the_question_is_put_again(live, asked, name, why):
    until(lambda: asked_form(live, asked.run_id), "the form")
    live.api.answer(asked.run_id, {"decision": "approve", "approver": name, "reason": "looks fine"})
    until(lambda: why in asked_form(live, asked.run_id), f"the form with {why!r}")
    assert asked.state is State.AWAITING_APPROVAL


def test_an_approval_makes_the_challenger_champion_and_stands_in_the_ledger(live, asked):
    evidence = asked.rollout.evidence_digest
    until(lambda: asked_form(live, asked.run_id), "the form")
    live.api.answer(asked.run_id, {"decision": "approve", "approver": "approver", "reason": "read the slices"})
    asked.until(State.CHAMPION)
    until(lambda: asked.flow_state == "Champion", "the end of the run")
    answers = [record.body["answer"] for record in asked.records if "answer" in record.body]
    assert answers == [
        {"choice": "approve", "by": "approver", "reason": "read the slices", "evidence_digest": evidence}
    ]
    assert live.plant.store.champions()[asked.name] == asked.challenger
    verify(live.plant.store.entries())


def test_labels_that_prove_harm_after_promotion_demote_the_champion(live, asked):
    asked.advance()
    live.stack.stop_process("sweep")
    try:
        asked.wrong[Arm.CHALLENGER] = 0.9
        asked.advance(is_watched=False)
        live.api.start("evaluate_labels/evaluate-labels", {})
        asked.until(State.ROLLING_BACK)
    finally:
        live.start_sweep()
    asked.until(State.ROLLED_BACK)
    demoted = next(record for record in asked.records if record.body.get("to") == "rolling back")
    assert demoted.actor == "label evaluation"
    assert "wrong-decision is worse" in asked.rollout.reason
    assert live.plant.store.champions()[asked.name] == asked.champion
    report = until(lambda: live.artifact(f"rollout-{asked.rollout.id}-label-evaluation"), "the labels' report")
    assert "wrong-decision" in report["data"]
    assert "FAIL" in report["data"]
