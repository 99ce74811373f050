from __future__ import annotations

import random
import threading
from time import sleep

import pytest

from seatrial.control.ending import kill
from seatrial.ledger import verify
from seatrial.rollout import State, share_of


class Killer(threading.Thread):
    """Kills the flow whenever the ledger of its rollout has grown to one of `lengths`, and watches the share."""

    def __init__(self, point, lengths):
        super().__init__(daemon=True)
        self.point, self.lengths = point, sorted(lengths)
        self.is_over = threading.Event()
        self.killed = []
        self.wrong_shares = []

    def run(self):
        while not self.is_over.is_set():
            rollout = self.point.rollout
            if rollout is not None:
                self._look_at_share(rollout)
                if self.lengths and self._acts() >= self.lengths[0]:
                    self._strike()
            sleep(0.01)

    def _look_at_share(self, before):
        store = self.point.live.plant.store
        snapshot = store.snapshot(self.point.name)
        if store.rollout(before.id).version == before.version:
            allowed = share_of(before, store.plan(before.plan_id))
            if snapshot.share > allowed:
                self.wrong_shares.append((before.state, snapshot.share, allowed))

    def _acts(self):
        return sum(record.kind != "flow.restarted" for record in self.point.records)

    def _strike(self):
        for process in self.point.live.flow_processes(self.point.run_id):
            process.kill()
            self.killed.append(self.lengths.pop(0))
            return


@pytest.mark.parametrize("seed", [1])
def test_a_killed_flow_is_started_again_and_repeats_no_act(live, seed):
    rng = random.Random(seed)  # noqa: S311 it chooses when to strike
    point = live.point("crash")
    killer = Killer(point, [1, rng.randint(2, 5), rng.randint(6, 9)])
    killer.start()
    try:
        point.start()
        point.drive(State.AWAITING_APPROVAL)
    finally:
        killer.is_over.set()
        killer.join()
    assert len(killer.killed) == 3
    assert killer.wrong_shares == []
    keys = [record.key for record in point.records]
    assert len(keys) == len(set(keys))
    decided = [record.body for record in point.records if record.kind == "rollout.decided"]
    assert [body["version"] for body in decided] == list(range(2, point.rollout.version + 1))
    assert [body["to"] for body in decided] == ["shadow", "canary", "labels", "awaiting approval"]
    assert sum(record.kind == "flow.restarted" for record in point.records) >= 3
    verify(live.plant.store.entries())
    kill(live.plant.ports, point.challenger, reason="the test is over", actor="test", now=live.now)
