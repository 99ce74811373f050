"""Promises of whole rollouts on a year of real flights: 200 replays of each trial, which differ in their salt alone.

The flights and both answers to each are fixed; chance is only in who is drawn for the challenger, which is what the
guarantees of the plan are about. A budget is an upper limit: no more than that share of the seeds may be hit. A system
whose true rate is 2 % exceeds 5 % of 200 once in three hundred sets of seeds, one at 10 % stays below once in a
hundred (exact binomial). Power is shown from below: a system just at the promised
rate passes once in a thousand sets, and one fails no more often than that when its true rate is 99.1 % where 90 % are
promised, 99.98 % where 95 % are. The seeds are fixed, so that a test passes always or never.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import binom

from examples.flight_delay.study import ATTRIBUTES, STRIDE, TRIALS, Replay, Study, play, play_all, summary
from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.logs import LogWriter
from seatrial.evidence import Evidence
from seatrial.rollout import State
from seatrial.routing import assign

#: Eight hundred whole rollouts take minutes on a busy machine.
pytestmark = pytest.mark.timeout(1_800)

ERROR = 1e-3
SEEDS = range(200)
#: One look in so many is counted by DuckDB too.
EVERY = 4
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def is_at_most(rate, hits):
    """Return whether no more than the share `rate` was hit."""
    return sum(hits) <= rate * len(hits)


def is_shown_at_least(rate, hits):
    """Return whether so many hits refute every probability below `rate`."""
    return binom.sf(sum(hits) - 1, len(hits), rate) <= ERROR


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("releases"))
    return {trial.name: study.scene(trial) for trial in TRIALS}


@pytest.fixture(scope="module")
def endings(scenes):
    played = {}

    def of(name):
        if name not in played:
            played[name] = play_all(scenes[name], SEEDS)
        return played[name]

    return of


def is_rolled_back(endings):
    return [each.state is State.ROLLED_BACK for each in endings]


def is_promoted(endings):
    return [each.is_promoted for each in endings]


def test_a_better_challenger_is_promoted_and_rolled_back_within_the_budget(endings, scenes):
    found = endings("better")
    assert is_shown_at_least(0.90, is_promoted(found)), summary("better", found)
    assert is_at_most(scenes["better"].plan.budgets.rollback, is_rolled_back(found)), summary("better", found)


def test_a_harmful_challenger_is_rolled_back_and_never_promoted(endings):
    found = endings("harmful")
    assert is_shown_at_least(0.95, is_rolled_back(found)), summary("harmful", found)
    assert not any(is_promoted(found))


def test_a_copy_of_the_champion_is_rolled_back_within_the_budget(endings, scenes):
    found = endings("copy")
    assert is_at_most(scenes["copy"].plan.budgets.rollback, is_rolled_back(found)), summary("copy", found)


def test_where_nothing_can_be_proven_a_person_is_asked_and_nothing_is_promoted(endings):
    found = endings("undecidable")
    assert is_shown_at_least(0.90, [each.state is State.AWAITING_DECISION for each in found]), summary("small", found)
    assert not any(is_promoted(found))


def test_a_seed_names_one_ending_and_another_one_draws_other_units(endings, scenes):
    found = endings("harmful")
    assert play(scenes["harmful"], seed=SEEDS[-1]) == found[-1]
    assert len({(each.exposed, each.reason) for each in found}) > len(found) / 2


@dataclass
class WrittenLogs:
    """The rows of a replay as files, beside its fast counts: one look in `EVERY` is counted twice."""

    replay: Replay
    log: LogWriter
    pairs: list[tuple[Evidence, Evidence]] = field(default_factory=list)
    looks: int = 0
    lapsed: int = 0

    def serve(self):
        """Write what the router and the releases make of the next stride, and the labels that arrive in it."""
        scene, snapshot = self.replay.scene, self.replay.router.snapshot
        start, end = ((at - EPOCH) // MICROSECOND for at in (self.replay.now, self.replay.now + STRIDE))
        first, last = np.searchsorted(scene.scheduled, [start, end])
        for unit in range(first, last):
            self._decide(unit, snapshot)
        arrives = scene.arrives[:last]
        for unit in np.flatnonzero((arrives > start) & (arrives <= end)):
            at = EPOCH + int(arrives[unit]) * MICROSECOND
            row = {"name": "late", "value": float(scene.late[unit]), "fact_at": at, "arrived_at": at}
            self.log.label({"decision_id": scene.unit_keys[unit], **row})
        self.log.flush()
        self.replay.serve()

    def _decide(self, unit, snapshot):
        scene = self.replay.scene
        key, at = scene.unit_keys[unit], EPOCH + int(scene.scheduled[unit]) * MICROSECOND
        attributes = {name: str(scene.attributes[name][unit]) for name in ATTRIBUTES}
        assigned = assign(snapshot, key, attributes, now=at)
        self.lapsed += assigned.share < snapshot.share and snapshot.is_in_segment(attributes)
        actions = [str(action) for action in scene.actions[:, unit]]
        by_challenger = int(assigned.release_id == self.replay.rollout.challenger)
        action = actions[by_challenger]
        row = {
            **attributes,
            "decision_id": key,
            "ts": at,
            "decision_point": snapshot.decision_point,
            "rollout_id": snapshot.rollout_id,
            "snapshot_no": assigned.snapshot_no,
            "stage": snapshot.stage,
            "release_id": assigned.release_id,
            "arm": assigned.arm.value,
            "share": assigned.share,
            "segment": "everyone",
            "unit_key": key,
            "feature_digest": "none",
            "score": float(scene.scores[by_challenger, unit]),
            "action_recommended": action,
            "action_taken": action,
            "authority": "DECIDE",
            "latency_ms": 1.0,
            "outcome": "ok",
            "feature_misses": 0,
        }
        self.log.decision(row)
        if assigned.shadow_release_id is not None:
            copied = {"arm": "shadow", "release_id": assigned.shadow_release_id, "action_taken": None}
            self.log.decision(
                {**row, **copied, "action_recommended": actions[1], "score": float(scene.scores[1, unit])}
            )

    def look(self, plan, scope, *, now):
        """Return the fast counts, and keep both now and then."""
        counted = self.replay.logs.look(plan, scope, now=now)
        if self.looks % EVERY == 0:
            self.pairs.append((counted, ParquetLogs(self.log.root).look(plan, scope, now=now)))
        self.looks += 1
        return counted


@pytest.mark.parametrize("seed", [0])
@pytest.mark.parametrize("name", ["better", "undecidable"])
def test_the_replayed_counts_are_those_of_the_written_logs_also_when_a_lease_lapses(scenes, tmp_path, name, seed):
    replay = Replay(scenes[name], seed=seed)
    logs = WrittenLogs(replay, LogWriter(tmp_path, replay.scene.plan.decision_point, ATTRIBUTES))
    replay.ports = replace(replay.ports, evidence=logs)
    replay.settle()
    while not replay.has_ended:
        is_silent = replay.rollout.state is State.CANARY and not logs.lapsed
        for _ in range(5 if is_silent else 1):
            logs.serve()
        replay.settle()
    assert logs.lapsed
    assert len(logs.pairs) >= 8
    assert len({counted.digest for counted, _ in logs.pairs}) == len(logs.pairs)
    assert any(counted.waits for counted, _ in logs.pairs)
    if replay.scene.plan.scores is not None:
        assert any(counted.scores for counted, _ in logs.pairs)
        assert any(counted.pairs for counted, _ in logs.pairs)
    for counted, written in logs.pairs:
        # The replay measures no time.
        assert counted.document() == replace(written, latencies={}).document()
