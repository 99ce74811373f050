"""One real control plane for all tests that need a Prefect server, with traffic that a test scripts."""

from __future__ import annotations

import copy
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import psutil
import pytest
import requests
import yaml
from builders import PLAN, T0, a_release

from deployments.local import PROJECT, Stack
from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.logs import LogWriter
from seatrial.adapters.prefect_api import PrefectApi
from seatrial.adapters.router import InProcessRouter
from seatrial.control.opening import register
from seatrial.control.watching import SWEEP
from seatrial.evidence import Arm
from seatrial.rollout import Action, Rollout, State
from seatrial.routing import slot_of
from seatrial.units import SLOTS, digest_bytes
from seatrial.wiring import SETTINGS_VARIABLE, Plant, open_plant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from seatrial.release import Release

APPROVERS = {"approver": ["risk-owner"], "author": ["risk-owner"], "requester": ["risk-owner"], "reader": ["reader"]}
STAGES: list[dict[str, Any]] = [
    {"stage": "gates", "bounds": [{"metric": "log_loss", "at_most": 0.6}], "probe_max_age": "10 d"},
    {"stage": "shadow", "soak": "1 h", "deadline": "30 d", "min_units": 200, "max_flip_rate": "40 %"},
    {"stage": "canary", "share": "20 %", "soak": "1 h", "deadline": "30 d", "rule_out": "100 % relative"},
    {"stage": "labels", "deadline": "30 d"},
    {"stage": "approval", "expires": "30 d"},
    {"stage": "promotion", "holdback": "20 %", "watch": "60 d"},
]
GUARDRAILS: list[dict[str, Any]] = [
    {
        "name": "call-failed",
        "source": "runtime",
        "bad_when": [{"outcome": ["timeout", "error", "fallback"]}],
        "margin": "5 % absolute",
        "consequence": "roll_back",
    },
    {
        "name": "wrong-decision",
        "source": "label",
        "label": "late",
        "maturity": "1 h",
        "bad_when": [{"label": 1, "action": "none"}],
        "margin": "100 % relative",
        "weight": 4,
        "slices": ["origin"],
        "consequence": "roll_back",
    },
]
LEASE = timedelta(hours=12)
#: Event time between two looks, and units served in it.
STRIDE = timedelta(hours=3)
UNITS = 2_000
USUAL = 0.3
DEADLINE_S = 180.0
_SWEEP = "from flows.sweep import sweep; sweep(for_s=3600.0, every_s=1.0)"


def until(condition: Callable[[], Any], what: str, *, deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true answer of `condition`, or fail saying `what` never came."""
    end = monotonic() + deadline_s
    while not (answer := condition()):
        if monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        sleep(0.05)
    return answer


@dataclass
class Point:
    """One decision point of its own for one test: two releases, a router, and traffic."""

    live: Live
    name: str
    champion: str
    challenger: str
    plan: Path
    #: part of the units that each arm decides wrongly
    wrong: dict[Arm, float] = field(default_factory=lambda: dict.fromkeys(Arm, USUAL))
    run_id: str = ""

    def __post_init__(self) -> None:
        self.router = InProcessRouter(self.name, self.live.plant.store, self.name)
        self.log = LogWriter(self.live.plant.logs, self.name, ("origin",))

    @property
    def rollout(self) -> Rollout | None:
        """The rollout that `run_id` opened."""
        return next((r for r in self.live.plant.store.rollouts(self.name) if r.flow_run_id == self.run_id), None)

    @property
    def parameters(self) -> dict[str, str]:
        """What the run form of the deployment asks for."""
        return {"release": self.challenger, "plan": str(self.plan), "requested_by": "requester"}

    @property
    def state(self) -> State | None:
        """Where the rollout is; the router looks for a newer snapshot on the way."""
        self.router.refresh(now=self.live.now)
        rollout = self.rollout
        return None if rollout is None else rollout.state

    @property
    def flow_state(self) -> str:
        """Name of the flow run's state."""
        return str(self.live.api.flow_run(self.run_id)["state_name"])

    @property
    def records(self) -> list[Any]:
        """What the ledger says of the rollout."""
        assert self.rollout is not None
        return [entry.record for entry in self.live.plant.store.entries(self.rollout.id)]

    def start(self) -> None:
        """Start the flow run and stay until it sleeps in shadow."""
        self.run_id = self.live.api.start("rollout/rollout", self.parameters)
        self.until_asleep(State.SHADOW)

    def until(self, state: State) -> None:
        """Stay until the rollout is in `state`."""
        until(lambda: self.state is state, f"{self.name}: {state}; {self.rollout}")

    def until_asleep(self, state: State) -> None:
        """Stay until the rollout is in `state` and its flow run waits without a process."""
        self.until(state)
        until(lambda: self.live.api.flow_run(self.run_id)["state_type"] == "PAUSED", f"{self.name}: paused")

    def serve(self, start: datetime, end: datetime) -> None:
        """Serve and log `UNITS` units between `start` and `end`."""
        for index in range(UNITS):
            ts = start + (end - start) * index / UNITS
            unit = f"{ts:%d%H%M%S%f}"
            origin = ("EWR", "JFK")[index % 2]
            assignment = self.router.assign(unit, {"origin": origin}, now=ts)
            snapshot = self.router.snapshot
            row = {
                "decision_id": unit,
                "ts": ts,
                "decision_point": self.name,
                "rollout_id": snapshot.rollout_id,
                "snapshot_no": assignment.snapshot_no,
                "stage": snapshot.stage,
                "release_id": assignment.release_id,
                "arm": assignment.arm.value,
                "share": assignment.share,
                "segment": "everyone",
                "unit_key": unit,
                "feature_digest": "none",
                "action_recommended": "none",
                "action_taken": "none",
                "authority": "DECIDE",
                "latency_ms": 1.0,
                "outcome": "ok",
                "feature_misses": 0,
                "origin": origin,
            }
            self.log.decision(row)
            if assignment.shadow_release_id is not None:
                copied = {"release_id": assignment.shadow_release_id, "arm": "shadow", "action_taken": None}
                self.log.decision({**row, **copied})
            is_wrong = slot_of("truth", unit) < SLOTS * self.wrong[assignment.arm]
            arrived = ts + timedelta(minutes=30)
            label = {"decision_id": unit, "name": "late", "value": float(is_wrong)}
            self.log.label({**label, "fact_at": arrived, "arrived_at": arrived})
        self.log.flush()

    def advance(self, *, is_watched: bool = True) -> None:
        """Serve one stride; with a watch stay until it has judged it and the rollout has nothing to do."""
        self.router.refresh(now=self.live.now)
        now = self.live.now + STRIDE
        self.serve(self.live.now, now)
        self.live.clock.advance(now)
        if is_watched:
            until(lambda: self.live.has_swept(now), "a round of the watch")
            until(lambda: not self._is_moving(), f"{self.name}: to come to rest; {self.rollout}")

    def _is_moving(self) -> bool:
        state, rollout = self.state, self.rollout
        if rollout is None or state in (State.GATES, State.PROMOTING, State.ROLLING_BACK):
            return True
        looks = self.live.plant.store.looks(rollout.id)
        is_due = looks[-1].at > rollout.entered_at and looks[-1].action is not Action.HOLD
        return is_due and state in (State.SHADOW, State.CANARY, State.LABELS)

    def drive(self, state: State) -> None:
        """Serve stride after stride until the rollout is in `state` and its flow sleeps."""
        for _ in range(20):
            if self.state is state:
                return self.until_asleep(state)
            self.advance()
        raise AssertionError(f"{self.name} never came to {state}: {self.rollout}")


class Live:
    """The stack, the control plane in this process, and the watch as a process that a test can stop."""

    def __init__(self, home: Path, undo: ExitStack) -> None:
        self.home = home
        patch = undo.enter_context(pytest.MonkeyPatch.context())
        settings = {"logs": "log", "replay_clock": "event-time", "approvers": APPROVERS}
        (home / "seatrial.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        patch.setenv(SETTINGS_VARIABLE, str(home / "seatrial.yaml"))
        patch.setenv("SEATRIAL_PROJECT", str(PROJECT))
        self.clock = ReplayClock(home / "event-time")
        self.clock.advance(T0)
        self.stack = undo.enter_context(Stack(home))
        self.stack.deploy()
        self.plant: Plant = open_plant(home / "seatrial.yaml", self.stack.environment)
        undo.callback(self.plant.store.close)
        self.api = PrefectApi(self.stack.api_url)
        self.deployments = self.post("/deployments/filter", {})
        # The watch is a part of its own here, for tests stop it.
        for scheduled in ("sweep/sweep", "evaluate_labels/evaluate-labels"):
            self.api.set_schedules(scheduled, active=False)
        self.start_sweep()

    @property
    def now(self) -> datetime:
        """The event time."""
        return self.clock.now()

    def start_sweep(self, name: str = "sweep") -> None:
        """Start a watch that looks once a second."""
        self.stack.start_process(name, [sys.executable, "-c", _SWEEP])

    def has_swept(self, now: datetime) -> bool:
        """Return whether a whole round of the watch was done at or after `now`."""
        beat = self.plant.store.last_beat(SWEEP)
        return beat is not None and beat >= now

    def post(self, path: str, body: object) -> Any:
        """Return what the Prefect server answers to a POST."""
        answer = requests.post(f"{self.stack.api_url}{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def artifact(self, key: str) -> dict[str, Any] | None:
        """Return the newest artifact of `key`, or None; its own id is `latest_id`, `id` is that of the key."""
        found = self.post("/artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
        return found[0] if found else None

    def flow_processes(self, run_id: str) -> list[psutil.Process]:
        """Return the live processes of a flow run."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PREFECT__FLOW_RUN_ID") == run_id and process.status() != "zombie":
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def point(self, name: str, stages: Sequence[dict[str, Any]] = STAGES) -> Point:
        """Register two releases of a new decision point and return it."""
        champion = self._register(name, "champion", None)
        challenger = self._register(name, "challenger", champion)
        plan = self.home / f"{name}.yaml"
        document = {**copy.deepcopy(PLAN), "stages": list(stages), "guardrails": GUARDRAILS}
        document["plan"] = {"name": f"{name}-standard", "version": "1", "decision_point": name}
        plan.write_text(yaml.safe_dump(json.loads(json.dumps(document))), encoding="utf-8")
        return Point(self, name, champion, challenger, plan)

    def _register(self, point: str, role: str, target: str | None) -> str:
        release = self._release(point, role, target)
        registered = register(self.plant.ports, release, location=self._files, now=self.now, actor="author")
        return registered.release.id

    def _release(self, point: str, role: str, target: str | None) -> Release:
        model, report = ((self._files / name).read_bytes() for name in ("model.txt", "evaluation.json"))
        return a_release(
            role,
            target,
            release={"name": f"{point}-{role}", "version": "1", "decision_point": point},
            model={"artifact": "model.txt", "digest": digest_bytes(model), "format": "lightgbm-text"},
            evaluation={
                "report": "evaluation.json",
                "digest": digest_bytes(report),
                "metrics": {"log_loss": 0.4},
                "dataset_digest": digest_bytes(b"data"),
            },
        )

    @cached_property
    def _files(self) -> Path:
        """A folder with a small model that really loads, and its report."""
        folder = self.home / "release"
        folder.mkdir()
        x = np.arange(200.0).reshape(-1, 1)
        data = lightgbm.Dataset(x, (x[:, 0] > 99.0).astype(float), feature_name=["distance"])
        booster = lightgbm.train({"objective": "binary", "num_threads": 1, "verbose": -1}, data, num_boost_round=2)
        (folder / "model.txt").write_text(booster.model_to_string())
        scores = np.asarray(booster.predict(x[:3], num_threads=1))
        examples = [{"features": {"distance": float(i)}, "score": float(s)} for i, s in enumerate(scores)]
        report = {"metrics": {"log_loss": 0.4}, "dataset_digest": digest_bytes(b"data"), "examples": examples}
        (folder / "evaluation.json").write_text(json.dumps(report))
        return folder


_LIVE = pytest.StashKey[Live]()


@pytest.fixture(scope="session")
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Return the one stack of this session; it ends with pytest, whichever folder asked first."""
    config = request.config
    if _LIVE not in config.stash:
        undo = ExitStack()
        config.add_cleanup(undo.close)
        config.stash[_LIVE] = Live(tmp_path_factory.mktemp("live"), undo)
    return config.stash[_LIVE]
