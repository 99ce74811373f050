"""Measure how long a kill takes from the order to every router.

``python -m benchmarks.routing.kill [--kills N] [--routers N]``

PostgreSQL with its ordinary settings, the snapshot server, and each router run in processes of their own on loopback.
A router waits over HTTP for what is newer, takes it when its signature is right, and reports. The time begins before
the order is written and ends on each router when the snapshot that carries it is in force there.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from deployments import processes
from deployments.postgres import Cluster
from seatrial.adapters.http_feed import HttpFeed
from seatrial.adapters.keys import keyring, new_key
from seatrial.adapters.router import InProcessRouter
from seatrial.control.killing import KillWish, lift, order_kill
from seatrial.documents import check, load_yaml
from seatrial.errors import SeatrialError, UnavailableError
from seatrial.ports import Commit, Registered
from seatrial.release import Release
from seatrial.routing import KillMode, KillScope, RoutingSnapshot, parts_of
from seatrial.routing.signing import signed
from seatrial.wiring import open_plant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from seatrial.ports import Ports

KILLS, ROUTERS = 60, 3
WARM_UP = 5  #: kills before those that count
TARGET_MS = 10.0  #: median from the order until the last router obeys
PATIENCE_S = 60.0  #: a router that needs longer fails the benchmark
RELEASE = Path("config/releases/example-release.yaml")
SHOW = "import sys; from seatrial.cli import main; sys.exit(main())"


@dataclass(frozen=True, slots=True)
class Taken:
    """One snapshot on one router; times are of the machine's monotonic clock, which its processes share."""

    router: str
    number: int
    in_force_s: float
    reported_s: float  #: when the control plane had taken the report


@dataclass(frozen=True, slots=True)
class Timed:
    """One kill, in milliseconds from the order."""

    written: float  #: the transaction was committed
    obeyed: float  #: the last router had it in force
    reported: float  #: the control plane knew that of the last router


def serve(name: str, url: str, key: Path, decision_point: str, taken: Any, ends: Any) -> None:
    """Be one router until told to end, and put on `taken` what was taken."""
    router = InProcessRouter(name, HttpFeed(url, wait_s=1.0), decision_point, keyring([key]))
    number = 0
    while not ends.is_set():
        router.take(now=datetime.now(UTC))
        in_force_s = time.monotonic()
        with suppress(UnavailableError):
            if router.snapshot.number != number:
                router.report(now=datetime.now(UTC))
                number = router.snapshot.number
                taken.put(Taken(name, number, in_force_s, time.monotonic()))


def measure(ports: Ports, decision_point: str, taken: Any, *, kills: int, routers: int) -> list[Timed]:
    """Return how long each of `kills` took; each is lifted and seen to be before the next."""
    found = []
    await_all(taken, 1, routers)
    for turn in range(WARM_UP + kills):
        wish = KillWish(KillScope.DECISION_POINT, KillMode.SAFE_FALLBACK, f"benchmark {turn}", "benchmark")
        began_s = time.monotonic()
        kill = order_kill(ports, decision_point, wish, now=datetime.now(UTC))
        written_s = time.monotonic()
        seen = await_all(taken, kill.since, routers)
        ends_s = [written_s, max(each.in_force_s for each in seen), max(each.reported_s for each in seen)]
        if turn >= WARM_UP:
            found.append(Timed(*(1_000 * (end_s - began_s) for end_s in ends_s)))
        lift(ports, decision_point, kill.id, reason="benchmark", actor="benchmark", now=datetime.now(UTC))
        await_all(taken, kill.since + 1, routers)
    return found


def await_all(taken: Any, number: int, routers: int) -> list[Taken]:
    """Return how `routers` took snapshot `number`; raises UnavailableError when one does not."""
    seen: dict[str, Taken] = {}
    while len(seen) < routers:
        try:
            one = taken.get(timeout=PATIENCE_S)
        except Empty as error:
            raise UnavailableError(f"{routers - len(seen)} routers: no snapshot {number}; see their output") from error
        if one.number >= number:
            seen[one.router] = one
    return list(seen.values())


@contextmanager
def plane(home: Path, routers: int) -> Iterator[tuple[Ports, str, Any]]:
    """Give a control plane on PostgreSQL, its decision point, and what its routers take."""
    cluster = Cluster.prepare(home, port=processes.free_port("PostgreSQL"))
    children = [cluster.start()]
    try:
        children[0].await_ready(cluster.is_ready, deadline_s=PATIENCE_S)
        cluster.create_databases(["kill"])
        signs, checks = new_key(home / "keys", "benchmark")
        settings = home / "seatrial.yaml"
        url = cluster.url("kill", driver="psycopg")
        settings.write_text(f"database: {url}\nlogs: logs\napprovers: {{dana: [owner]}}\nsigning_key: {signs}\n")
        plant = open_plant(settings, {})
        decision_point = open_point(plant.ports)
        port = processes.free_port("snapshot server")
        words = [sys.executable, "-c", SHOW, "publish", "--port", str(port), "--settings", str(settings)]
        here = Path.cwd()
        children.append(
            processes.start("snapshot server", words, home=home, environment=dict(os.environ), directory=here)
        )
        server = f"http://127.0.0.1:{port}"
        children[1].await_ready(lambda: is_up(server, decision_point), deadline_s=PATIENCE_S)
        with running(routers, server, checks, decision_point) as taken:
            yield plant.ports, decision_point, taken
        plant.store.close()
    finally:
        for child in reversed(children):
            child.stop(grace_s=10)


def open_point(ports: Ports) -> str:
    """Let the example release serve and return its decision point; its files are not needed."""
    release, now = check(load_yaml(RELEASE), Release), datetime.now(UTC)
    name = release.decision_point
    first = RoutingSnapshot(name, 1, release.id, release.id, parts={release.id: parts_of(release)})
    ports.store.add_release(Registered(release, RELEASE.parent, now), [])
    ports.store.commit(
        Commit((), snapshot=signed(first, ports.signer) if ports.signer else first, champion=(name, release.id))
    )
    return name


def is_up(url: str, decision_point: str) -> bool:
    """Return whether the snapshot server answers."""
    feed = HttpFeed(url)
    try:
        return feed.snapshot(decision_point).number > 0
    except SeatrialError:
        return False
    finally:
        feed.close()


@contextmanager
def running(count: int, url: str, key: Path, decision_point: str) -> Iterator[Any]:
    """Give the queue of what `count` routers take, each a process."""
    context = get_context("spawn")
    taken, ends = context.Queue(), context.Event()
    routers = [
        context.Process(target=serve, args=(f"router-{at}", url, key, decision_point, taken, ends), daemon=True)
        for at in range(count)
    ]
    for router in routers:
        router.start()
    try:
        yield taken
    finally:
        ends.set()
        for router in routers:
            router.join(PATIENCE_S)


def row(name: str, times: Sequence[float]) -> str:
    """Return the median, the tenth that is slowest and the slowest, in milliseconds."""
    slow = quantiles(times, n=10)[-1]
    return f"{name:<44}{median(times):>9.2f}{slow:>9.2f}{max(times):>9.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure how long a kill takes to every router.")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--routers", type=int, default=ROUTERS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, plane(Path(home), asked.routers) as (ports, decision_point, taken):
        times = measure(ports, decision_point, taken, kills=asked.kills, routers=asked.routers)
    print(f"{asked.kills} kills of a decision point, {asked.routers} routers over HTTP long-poll, Ed25519, PostgreSQL")
    print(f"with fsync, {os.cpu_count()} cores, Python {platform.python_version()}; milliseconds from the order")
    print(f"{'':<44}{'median':>9}{'p90':>9}{'max':>9}")
    print(row("written with its record, one transaction", [each.written for each in times]))
    print(row("in force on the last router", [each.obeyed for each in times]))
    print(row("reported by the last router", [each.reported for each in times]))
    obeyed = median(each.obeyed for each in times)
    print(f"target {TARGET_MS:g} ms median: {'met' if obeyed <= TARGET_MS else 'missed'}")


if __name__ == "__main__":
    main()
