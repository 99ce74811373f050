"""Measure what the gateway costs beside a bare handler, what a shadow adds, and whether share changes lose a request.

``python -m benchmarks.routing.gateway [--seconds N] [--changes N]``

The bare handler is the same server (uvicorn, uvloop, httptools) that reads the same request and answers a constant. The
gateway scores a small LightGBM model in its own process and logs every decision to Parquet. wrk asks both with one
thread and 32 connections.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import requests

from deployments import processes
from seatrial.adapters.sql import SqlStore
from seatrial.documents import check, load_yaml
from seatrial.ports import Commit, Registered
from seatrial.release import Release
from seatrial.routing import RoutingSnapshot, parts_of
from seatrial.units import digest_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

RELEASE = Path("config/releases/example-release.yaml")
TARGET, SHADOW_TARGET = 0.7, 0.05
CONNECTIONS = 32
PATIENCE_S = 60.0
SHOW = "import sys; from seatrial.cli import main; sys.exit(main())"
BARE = """
import sys, orjson, uvicorn
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    orjson.loads((await receive())["body"])
    body = orjson.dumps({"decision_id": "d", "action": "none", "course": "act", "release": "r", "snapshot": 1})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, lifespan="off",
            log_level="warning", server_header=False, date_header=False)
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw."""

    per_s: float
    p99_ms: float
    requests: int
    failed: int  #: answers other than 2xx, and errors of the connection

    def __str__(self) -> str:
        return f"{self.per_s:10,.0f}/s   p99 {self.p99_ms:7.2f} ms   {self.failed} failed of {self.requests:,}"


class Site:
    """A decision point with two releases of one model, on SQLite, and what its gateway is told."""

    def __init__(self, home: Path) -> None:
        self.home = home
        manifest = check(load_yaml(RELEASE), Release)
        names = [column.name for column in manifest.features.columns]
        content = _model(names)
        (home / "model.txt").write_bytes(content)
        model = manifest.model.model_copy(
            update={"artifact": "model.txt", "digest": digest_bytes(content), "format": "lightgbm-text"}
        )
        limits = manifest.limits.model_copy(update={"timeout_ms": 1_000.0})
        first = manifest.model_copy(update={"model": model, "limits": limits})
        second = first.model_copy(update={"release": first.release.model_copy(update={"version": "2"})})
        self.store = SqlStore(f"sqlite:///{home / 'seatrial.sqlite'}")
        self.store.create_tables()
        for release in (first, second):
            self.store.add_release(Registered(release, home, datetime.now(UTC)), [])
        self.first, self.second, self.point = first, second, first.decision_point
        self.parts = {each.id: parts_of(each) for each in (first, second)}
        self.number = 0
        question = {"unit_key": "UA1/EWR", "attributes": {}, "features": dict.fromkeys(names, 0.5)}
        self.script = home / "post.lua"
        headers = "wrk.headers['Content-Type'] = 'application/json'"
        self.script.write_text(f"wrk.method = 'POST'\nwrk.body = '{json.dumps(question)}'\n{headers}\n")
        self.question = question

    def publish(self, **changes: Any) -> None:
        """Publish the next snapshot: the first release alone, with `changes`."""
        self.number += 1
        alone = RoutingSnapshot(self.point, self.number, self.first.id, self.first.id, parts=self.parts)
        champion = (self.point, self.first.id)
        self.store.commit(Commit((), snapshot=replace(alone, **changes), champion=champion))

    def canary(self, slots: int) -> None:
        """Give the second release `slots` of 10,000."""
        lease = datetime.now(UTC) + timedelta(hours=1)
        self.publish(challenger=self.second.id, rollout_id="r1", salt="s", slots=slots, lease_until=lease)


def _model(names: list[str]) -> bytes:
    rng = np.random.default_rng(1)
    rows = rng.random((2_000, len(names)))
    data = lightgbm.Dataset(rows, (rows[:, 0] > rng.random(2_000)).astype(float), feature_name=names)
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1}
    return str(lightgbm.train(settings, data, num_boost_round=20).model_to_string()).encode()


@contextmanager
def bare(home: Path) -> Iterator[str]:
    """Give the address of the bare handler."""
    port = processes.free_port("bare handler")
    with _child("bare", [sys.executable, "-c", BARE, str(port)], home, f"http://127.0.0.1:{port}/") as url:
        yield url


@contextmanager
def gateway(site: Site) -> Iterator[str]:
    """Give the address at which the gateway decides."""
    port = processes.free_port("gateway")
    settings = site.home / "seatrial.yaml"
    settings.write_text(
        f"database: sqlite:///{site.home / 'seatrial.sqlite'}\nlogs: logs\napprovers: {{}}\n"
        f"gateways: {{{site.point}: {{port: {port}, refresh_s: 0.05}}}}\n"
    )
    words = [sys.executable, "-c", SHOW, "serve", site.point, "--settings", str(settings)]
    with _child("gateway", words, site.home, f"http://127.0.0.1:{port}/decisions", site.question) as url:
        yield url


@contextmanager
def _child(name: str, words: list[str], home: Path, url: str, question: Any = None) -> Iterator[str]:
    child = processes.start(name, words, home=home, environment=dict(os.environ), directory=Path.cwd())
    try:
        child.await_ready(lambda: _is_up(url, question), deadline_s=PATIENCE_S)
        yield url
    finally:
        child.stop(grace_s=PATIENCE_S)


def _is_up(url: str, question: Any) -> bool:
    try:
        return requests.post(url, json=question or {}, timeout=5).ok
    except requests.RequestException:
        return False


def wrk(url: str, script: Path, seconds: int) -> Load:
    """Return what 32 connections saw in `seconds`, after two that are not counted."""
    for lasting in (2, seconds):
        words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{lasting}s", "--latency", "-s", str(script), url]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return read(text)


def read(text: str) -> Load:
    """Return what wrk printed."""
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return Load(
        float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),  # type: ignore[index]
        float(value) * {"us": 0.001, "ms": 1.0, "s": 1_000.0}[unit],
        int(re.search(r"(\d+) requests in", text)[1]),  # type: ignore[index]
        (int(failed[1]) if failed else 0) + (sum(map(int, errors.groups())) if errors else 0),
    )


def changing(site: Site, url: str, changes: int, seconds: int) -> Load:
    """Return what callers saw while the share changed `changes` times."""
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(site.script), url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        for turn in range(changes):
            site.canary(10_000 if turn % 2 else 1)
            time.sleep(0.9 * seconds / changes)
        text, _ = running.communicate()
    return read(text)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--changes", type=int, default=500, help="share changes under load; 0 leaves them out")
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk: not found; expected the load generator; install it (Debian, Ubuntu: apt-get install wrk)")
    with tempfile.TemporaryDirectory() as home:
        site = Site(Path(home))
        site.publish()
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; wrk with 1 thread, {CONNECTIONS} connections")
        with bare(site.home) as url:
            plain = wrk(url, site.script, asked.seconds)
            print(f"bare handler         {plain}")
        with gateway(site) as url:
            alone = wrk(url, site.script, asked.seconds)
            ratio = alone.per_s / plain.per_s
            said = "met" if ratio >= TARGET else "missed"
            print(f"gateway              {alone}   {ratio:.2f} of bare, target {TARGET}: {said}")
            site.publish(challenger=site.second.id, rollout_id="r1", shadow=True)
            time.sleep(2)
            copied = wrk(url, site.script, asked.seconds)
            more = copied.p99_ms / alone.p99_ms - 1.0
            said = "met" if more <= SHADOW_TARGET else "missed"
            print(f"with shadow at 100 % {copied}   p99 {more:+.0%}, target {SHADOW_TARGET:+.0%}: {said}")
            if asked.changes:
                seen = changing(site, url, asked.changes, max(10, asked.changes // 4))
                print(f"{asked.changes} share changes    {seen}")
        site.store.close()


if __name__ == "__main__":
    main()
