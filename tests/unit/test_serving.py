import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow.parquet as pq
import pytest
from builders import HOUR, POINT, T0, a_release

from seatrial.adapters import serving
from seatrial.adapters.logs import LogWriter
from seatrial.adapters.memory import MemoryStore
from seatrial.adapters.router import InProcessRouter
from seatrial.adapters.serving import DecisionService
from seatrial.errors import RefusedError, TamperedError, UnavailableError
from seatrial.ports import Commit, Registered
from seatrial.release import Authority
from seatrial.routing import Course, Kill, KillMode, KillScope, Pin, RoutingSnapshot

POLICY = {**a_release().document()["policy"], "fallback": "review"}
CHAMPION = a_release("champion", policy=POLICY)
CHALLENGER = a_release("challenger", CHAMPION.id, policy=POLICY)
ALONE = RoutingSnapshot(POINT, 1, CHAMPION.id, CHAMPION.id)
CANARY = RoutingSnapshot(
    POINT, 1, CHAMPION.id, CHAMPION.id, CHALLENGER.id, "r1", slots=10_000, stage=2, salt="s", lease_until=T0 + HOUR
)
SHADOW = replace(ALONE, challenger=CHALLENGER.id, rollout_id="r1", shadow=True)


@dataclass
class FakeScorer:
    """Answers what a test says."""

    says: Callable[[], float]
    columns: tuple[str, ...] = ("distance",)

    def score(self, _vector):
        return self.says()


def boom():
    raise RuntimeError("the model is broken")


class Served:
    """A decision service whose releases answer as a test says."""

    def __init__(self, folder, monkeypatch, snapshot, **answers):
        self.folder = folder
        store = MemoryStore()
        for release in (CHAMPION, CHALLENGER):
            store.add_release(Registered(release, folder, T0), [])
        store.commit(Commit((), snapshot=snapshot))

        def load(release, _location):
            says = answers.get(release.name, 0.1)
            if isinstance(says, Exception):
                raise says
            return FakeScorer(says if callable(says) else lambda: says)

        monkeypatch.setattr(serving, "load_scorer", load)
        router = InProcessRouter("router", store, POINT)
        router.refresh(now=T0)
        self.log = LogWriter(folder, POINT, ("carrier",))
        self.service = DecisionService(router, store, self.log)

    def decide(self, *, now=T0, carrier="UA", features=None):
        decided = self.service.decide("unit", {"carrier": carrier}, features or {"distance": 1.0}, now=now)
        self.log.flush()
        rows = []
        for path in sorted(self.folder.rglob("*.parquet")):
            rows += pq.read_table(path, partitioning=None).to_pylist()
            path.unlink()
        return decided, sorted(rows, key=lambda row: row["arm"] == "shadow")


@pytest.fixture
def served(tmp_path, monkeypatch):
    return lambda snapshot, **answers: Served(tmp_path, monkeypatch, snapshot, **answers)


def test_a_decision_is_logged_as_it_came_about(served):
    decided, (row,) = served(CANARY, challenger=0.7).decide()
    assert decided.action == "rebook"
    assert row["decision_id"] == decided.decision_id
    wanted = {
        "ts": T0,
        "decision_point": POINT,
        "rollout_id": "r1",
        "snapshot_no": 1,
        "stage": 2,
        "release_id": CHALLENGER.id,
        "arm": "challenger",
        "share": 1.0,
        "segment": "everyone",
        "unit_key": "unit",
        "score": 0.7,
        "cut_off": 0.6,
        "rule": "default[0]",
        "action_recommended": "rebook",
        "action_taken": "rebook",
        "outcome": "ok",
        "feature_misses": 0,
        "carrier": "UA",
    }
    assert {key: row[key] for key in wanted} == wanted


def test_when_the_lease_is_over_the_champion_decides(served):
    _, (row,) = served(CANARY, champion=0.1, challenger=0.7).decide(now=CANARY.lease_until)
    assert (row["release_id"], row["arm"], row["share"], row["action_taken"]) == (CHAMPION.id, "champion", 0.0, "none")


FAILURES = {
    "raises": boom,
    "cannot be loaded": UnavailableError("gone"),
    "was tampered with": TamperedError("another"),
    "is code": RefusedError("a pickle"),
    "gives no number": math.nan,
    "gives infinity": math.inf,
    "leaves its range": 1.5,
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_challenger_that_fails_is_answered_for_and_the_failure_stays_its_own(served, failure):
    decided, (row,) = served(CANARY, champion=0.7, challenger=failure).decide()
    assert decided.action == "rebook"
    assert (row["arm"], row["release_id"], row["outcome"]) == ("challenger", CHALLENGER.id, "fallback")
    assert (row["action_recommended"], row["action_taken"]) == (None, "rebook")


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize(("snapshot", "outcome"), [(ALONE, "error"), (CANARY, "fallback")])
def test_when_the_fallback_fails_too_the_safe_action_is_taken(served, failure, snapshot, outcome):
    decided, (row,) = served(snapshot, champion=failure, challenger=failure).decide()
    assert decided.action == "review"
    assert row["outcome"] == outcome


def test_a_challenger_that_answers_too_late_is_answered_for(served, monkeypatch):
    moments = iter([0.0, CHALLENGER.limits.timeout_ms / 1000 + 0.001, 1.0, 1.001])
    monkeypatch.setattr(serving, "perf_counter", lambda: next(moments))
    decided, (row,) = served(CANARY, champion=0.1, challenger=0.7).decide()
    assert (decided.action, row["outcome"], row["score"]) == ("none", "fallback", 0.7)
    assert row["latency_ms"] > CHALLENGER.limits.timeout_ms


def test_a_shadow_answers_a_copy_and_nobody_acts_on_it(served):
    decided, (row, copy) = served(SHADOW, champion=0.1, challenger=0.7).decide()
    assert (decided.action, row["arm"], row["release_id"]) == ("none", "champion", CHAMPION.id)
    assert (copy["arm"], copy["release_id"], copy["authority"]) == ("shadow", CHALLENGER.id, "OBSERVE")
    assert (copy["action_recommended"], copy["action_taken"]) == ("rebook", None)
    assert copy["decision_id"] == row["decision_id"]


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_shadow_that_fails_changes_nothing_for_the_caller(served, failure):
    decided, (row, copy) = served(SHADOW, champion=0.7, challenger=failure).decide()
    assert (decided.action, row["outcome"], copy["outcome"]) == ("rebook", "ok", "error")


@pytest.mark.parametrize("features", [{}, {"distance": math.nan}, {"other": 1.0}])
def test_features_that_are_missing_are_counted(served, features):
    _, (row,) = served(ALONE).decide(features=features or {"other": 1.0})
    assert row["feature_misses"] == 1


def test_the_same_unit_at_the_same_time_has_the_same_decision_id(served):
    world = served(ALONE)
    first, again, later = world.decide()[0], world.decide()[0], world.decide(now=T0 + HOUR)[0]
    assert first.decision_id == again.decision_id != later.decision_id


def test_a_segment_has_its_own_cut_offs(served):
    _, (row,) = served(ALONE).decide(carrier="OO")
    assert row["segment"] == "commuter"


def a_kill(scope=KillScope.DECISION_POINT, mode=KillMode.SAFE_FALLBACK, **changes):
    return Kill("k1", scope, mode, "oncall", "wrong since noon", T0, **changes)


@pytest.mark.parametrize(
    ("mode", "course", "action"),
    [
        (KillMode.SAFE_FALLBACK, Course.ACT, "review"),
        (KillMode.PERSON, Course.PERSON, "review"),
        (KillMode.REFUSE, Course.REFUSE, None),
    ],
)
def test_a_killed_decision_point_asks_no_model_and_is_in_no_comparison(served, mode, course, action):
    killed = replace(CANARY, kills=(a_kill(mode=mode),))
    decided, (row,) = served(killed, challenger=0.7).decide()
    assert (decided.course, decided.action) == (course, action)
    assert (row["share"], row["score"], row["outcome"], row["action_taken"]) == (0.0, None, "fallback", action)


def test_the_fallback_does_not_answer_for_a_failed_challenger_when_it_is_killed_itself(served):
    kill = a_kill(KillScope.RELEASE, KillMode.PERSON, name=CHAMPION.id)
    decided, (row,) = served(replace(CANARY, kills=(kill,)), champion=0.1, challenger=boom).decide()
    assert (decided.course, decided.action) == (Course.PERSON, "review")
    assert (row["release_id"], row["outcome"]) == (CHALLENGER.id, "fallback")


def test_a_killed_action_is_recommended_and_not_taken(served):
    kill = a_kill(KillScope.ACTION, KillMode.PERSON, name="rebook")
    decided, (row,) = served(replace(CANARY, kills=(kill,)), challenger=0.7).decide()
    assert (decided.course, decided.action) == (Course.PERSON, "review")
    assert (row["action_recommended"], row["action_taken"], row["outcome"]) == ("rebook", "review", "ok")


def test_what_the_authority_leaves_to_a_person_is_the_safe_action_until_then(served, monkeypatch):
    parts = serving.parts_of(CHALLENGER)
    asks = replace(parts, policy=parts.policy.model_copy(update={"authority": Authority.RECOMMEND}))
    monkeypatch.setattr(serving, "parts_of", lambda _release: asks)
    decided, (row,) = served(CANARY, challenger=0.7).decide()
    assert (decided.course, decided.action, row["authority"]) == (Course.PERSON, "review", "RECOMMEND")


def test_a_pinned_unit_is_answered_by_its_release(served):
    pin = Pin(CHAMPION.id, "oncall", "in dispute", T0 + HOUR, "unit")
    decided, (row,) = served(replace(CANARY, pins=(pin,)), champion=0.1, challenger=0.7).decide()
    assert (decided.release_id, decided.action, row["share"]) == (CHAMPION.id, "none", 0.0)
