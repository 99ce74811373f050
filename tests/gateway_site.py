"""A control plane with releases on a model server, and gateways as processes of their own."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import yaml
from builders import POINT, World, a_release

from deployments import processes
from seatrial.adapters.sql import SqlStore
from seatrial.ports import Commit
from seatrial.routing import RoutingSnapshot, parts_of

PATIENCE_S = 60.0
PROGRAM = str(Path(sys.executable).parent / "seatrial")
LIMITS = {"p99_ms": 50, "timeout_ms": 60_000, "memory_mb": 512}
#: Only where the time limit is the subject.
SHORT = {**LIMITS, "timeout_ms": 300}
POLICY = {**a_release().document()["policy"], "fallback": "review"}
REBOOKS, LEAVES = 0.9, 0.1


def until(what):
    ends = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < ends, what
        time.sleep(0.02)
    return found


def a_served_release(name, target=None, limits=LIMITS):
    runtime = {
        "engine": "open-inference",
        "version": "2",
        "python": "3.11",
        "served": {"server": "models", "model": name},
    }
    model = {**a_release().document()["model"], "format": "open-inference"}
    return a_release(name, target, runtime=runtime, model=model, limits=limits, policy=POLICY)


class Site:
    """A control plane with three releases on one model server, and its gateways."""

    def __init__(self, folder, models):
        self.folder = folder
        self.models = models
        self.store = SqlStore(f"sqlite:///{folder / 'seatrial.sqlite'}")
        self.store.create_tables()
        self.world = World(folder / "files", self.store)
        self.champion = self.world.register(a_served_release("first", self.world.champion))
        self.challenger = self.world.register(a_served_release("second", self.world.champion))
        self.impatient = self.world.register(a_served_release("third", self.world.champion, SHORT))
        self.number = self.store.snapshot(POINT).number
        self.started = 0

    def publish(self, challenger=None, *, slots=10_000, **changes):
        self.number += 1
        named = {} if challenger is None else {"challenger": challenger, "rollout_id": "r1", "salt": "s"}
        lease = datetime.now(UTC) + timedelta(days=1) if named and slots else None
        snapshot = RoutingSnapshot(
            POINT, self.number, self.champion, self.champion, slots=slots if named else 0, lease_until=lease, **named
        )
        snapshot = replace(snapshot, **changes)
        snapshot = replace(
            snapshot, parts={each: parts_of(self.store.release(each).release) for each in snapshot.releases()}
        )
        self.store.commit(Commit((), snapshot=snapshot))
        return snapshot

    @contextmanager
    def gateway(self, *, database=None, **changes):
        self.started += 1
        given = {"port": 0, "attributes": ["carrier"], "total_ms": 120_000.0, "refresh_s": 0.05, **changes}
        settings = {
            "logs": "logs",
            "approvers": {},
            "model_servers": {"models": self.models.url},
            "gateways": {POINT: given},
            **({} if database is None else {"database": database}),
        }
        path = self.folder / f"seatrial-{self.started}.yaml"
        path.write_text(yaml.safe_dump(settings))
        name = f"gateway-{self.started}"
        child = processes.start(
            name,
            [PROGRAM, "serve", POINT, "--settings", str(path)],
            home=self.folder,
            environment=dict(os.environ),
            directory=self.folder,
        )
        try:
            child.await_ready(lambda: "http://" in child.output(), deadline_s=PATIENCE_S)
            url = child.output().split(" ")[-1].strip().splitlines()[0]
            with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
                until(lambda: _is_up(client))
                yield Gateway(child, client, self)
        finally:
            child.stop(grace_s=30.0)

    def rows(self, kind="decisions"):
        return [
            row
            for path in sorted((self.folder / "logs" / kind).rglob("*.parquet"))
            if not path.name.startswith(".")
            for row in pq.read_table(path, partitioning=None).to_pylist()
        ]


def _is_up(client):
    try:
        return client.get("/v2/health/live").status_code == 200
    except httpx.TransportError:
        return False


class Gateway:
    """A running gateway."""

    def __init__(self, child, client, site):
        self.child, self.client, self.site = child, client, site

    def serves(self, snapshot):
        def is_held():
            answer = self.client.get("/snapshot")
            return answer.status_code == 200 and answer.json()["snapshot"]["number"] == snapshot.number

        until(is_held)
        return snapshot

    def ask(self, unit="u1", carrier="UA", **changes):
        question = {"unit_key": unit, "attributes": {"carrier": carrier}, "features": {"distance": 1.0}, **changes}
        return self.client.post("/decisions", json=question)

    def decide(self, unit="u1", carrier="UA", **changes):
        answer = self.ask(unit, carrier, **changes)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def row_of(self, decision_id, arm=None):
        def find():
            return [r for r in self.site.rows() if r["decision_id"] == decision_id and arm in (None, r["arm"])]

        return until(find)[0]

    def metric(self, name):
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} ")), None)
