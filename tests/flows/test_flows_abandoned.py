from __future__ import annotations

import requests

from seatrial.rollout import State


def test_cancelling_the_run_returns_the_champion(live):
    point = live.point("cancelled")
    point.start()
    point.drive(State.CANARY)
    assert live.plant.store.snapshot(point.name).share == 0.2
    live.post(f"/flow_runs/{point.run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    point.until(State.ROLLED_BACK)
    assert "its flow run was cancelled" in point.rollout.reason
    assert live.plant.store.snapshot(point.name).share == 0.0
    assert live.plant.store.champions()[point.name] == point.champion


def test_deleting_the_run_returns_the_champion(live):
    point = live.point("deleted")
    point.start()
    requests.delete(f"{live.stack.api_url}/flow_runs/{point.run_id}", timeout=30).raise_for_status()
    point.until(State.ROLLED_BACK)
    assert "its flow run was deleted" in point.rollout.reason
    assert not live.plant.store.snapshot(point.name).shadow
