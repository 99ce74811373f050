from __future__ import annotations

from datetime import timedelta

import pytest
from live_stack import STAGES

from seatrial.control.assessing import assess
from seatrial.control.waiving import waive
from seatrial.rollout import State
from seatrial.verdict import Verdict

#: An action of both releases is carried out by nobody; who asks for the contract finds that the settings name none.
ASKS = {
    "parts": {},
    "catalogue": {"actions": {"none": True, "review": True}, "waivable": "failed"},
    "served": {"contract": "flights"},
}


@pytest.fixture(scope="module")
def held(live):
    """A rollout whose flow has put its gates, and sleeps because two of them did not pass."""
    point = live.point("gates", [{**STAGES[0], "deadline": "300 d", **ASKS}, *STAGES[1:]])
    point.run_id = live.api.start("rollout/rollout", point.parameters)
    point.until_asleep(State.GATES)
    return point


def test_each_declared_gate_is_a_task_of_its_own_and_leaves_an_answer(live, held):
    asked = {"flow_runs": {"id": {"any_": [held.run_id]}}, "task_runs": {"name": {"like_": "gate "}}}
    runs = live.post("/task_runs/filter", asked)
    assert {f"gate {name}" for name in ASKS} <= {run["name"] for run in runs}
    answers = live.plant.store.gate_answers(held.rollout.id)
    assert {name: answer.verdict for name, answer in answers.items()} == {
        "parts": Verdict.PASS,
        "catalogue": Verdict.FAIL,
        "served": Verdict.ERROR,
    }


def test_a_gate_is_mended_and_another_waived_and_the_watch_wakes_the_flow(live, held):
    rollout, folder = held.rollout, live.home / "contracts"
    waive(
        live.plant.ports,
        rollout.id,
        "catalogue",
        by="approver",
        reason="done by hand",
        expires=live.now + timedelta(days=89),
        now=live.now,
    )
    folder.mkdir()
    (folder / "flights.yaml").write_text(
        "contract: {name: flights, version: '1', owner: data}\n"
        "features:\n"
        "  - {name: distance, dtype: float, unit: mi, nullable: false, meaning: distance, owner: data}\n"
    )
    examiner = live.plant.ports.examiner
    object.__setattr__(examiner.by_gate["served"], "folder", folder)
    assert assess(live.plant.ports, rollout.id, "served", now=live.now, actor="test").verdict is Verdict.PASS
    held.until_asleep(State.SHADOW)
    words = live.artifact(f"rollout-{rollout.id}")["data"]
    assert "done by hand" in words
