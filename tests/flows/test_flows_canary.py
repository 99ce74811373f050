from __future__ import annotations

import pytest
from live_stack import STRIDE, until

from seatrial.ledger import verify
from seatrial.rollout import Action, State
from seatrial.verdict import Verdict


@pytest.fixture(scope="module")
def canary(live):
    """A canary that two watches brought there; each test leaves it as it was, except the last."""
    point = live.point("canary")
    live.start_sweep("second sweep")
    try:
        point.start()
        point.drive(State.CANARY)
    finally:
        live.stack.stop_process("second sweep")
    return point


def test_two_watches_at_once_make_each_move_once(live, canary):
    decided = [record.body["to"] for record in canary.records if record.kind == "rollout.decided"]
    assert decided == ["shadow", "canary"]
    keys = [record.key for record in canary.records]
    assert len(keys) == len(set(keys))
    verify(live.plant.store.entries())


def test_a_second_rollout_on_the_same_decision_point_fails_and_names_the_first(live, canary):
    run_id = live.api.start("rollout/rollout", canary.parameters)
    until(lambda: live.api.flow_run(run_id)["state_type"] == "FAILED", "the refusal of the second rollout")
    message = live.api.flow_run(run_id)["state"]["message"]
    assert f"rollout {canary.rollout.id} holds 'canary'" in message
    assert len(live.plant.store.rollouts("canary")) == 1


def test_a_flow_run_that_is_started_twice_opens_one_rollout(live, canary):
    before = canary.rollout
    live.post(f"/flow_runs/{canary.run_id}/set_state", {"state": {"type": "SCHEDULED"}, "force": True})
    until(lambda: canary.flow_state == "Running", "the second start")
    canary.until_asleep(State.CANARY)
    assert live.plant.store.rollouts("canary") == [before]


def test_logs_that_cannot_be_read_are_an_error_and_do_not_renew_the_lease(live, canary):
    store = live.plant.store
    lease = store.snapshot("canary").lease_until
    folder = live.plant.logs / "decisions" / "decision_point=canary" / "date=2013-06-01"
    broken = folder / "part-broken.parquet"
    broken.write_bytes(b"not a table")
    try:
        now = live.now + STRIDE / 3
        live.clock.advance(now)
        until(lambda: live.has_swept(now), "a round of the watch")
        look = store.looks(canary.rollout.id)[-1]
        assert (look.at, look.action) == (now, Action.HOLD)
        assert [finding.verdict for finding in look.findings] == [Verdict.ERROR]
        assert store.snapshot("canary").lease_until == lease
        assert canary.state is State.CANARY
    finally:
        broken.unlink()


def test_a_rollback_waits_for_a_part_that_does_not_answer_and_then_is_carried_out(live, canary):
    live.stack.stop_process("sweep")
    hidden = live.clock.path.with_name("hidden")
    live.clock.path.rename(hidden)
    try:
        asked = {"decision_point": "canary", "reason": "refuses a whole airport", "requested_by": "oncall"}
        run_id = live.api.start("rollback/rollback", asked)
        tries = {"flow_runs": {"id": {"any_": [run_id]}}, "task_runs": {"state": {"name": {"any_": ["AwaitingRetry"]}}}}
        until(lambda: live.post("/task_runs/filter", tries), "a second try of the rollback")
    finally:
        hidden.rename(live.clock.path)
        live.start_sweep()
    canary.until(State.ROLLED_BACK)
    until(lambda: live.api.flow_run(run_id)["state_name"] == "Rolled back", "the end of the rollback")
    assert "refuses a whole airport" in canary.rollout.reason
    assert live.plant.store.snapshot("canary").share == 0.0
