"""The snapshot server as a process of its own on a real PostgreSQL: what routers read, report and obey."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from builders import POINT, World

from deployments import processes
from seatrial.adapters.file_feed import FileFeed, KeptFeed
from seatrial.adapters.http_feed import HttpFeed
from seatrial.adapters.keys import keyring, new_key, signing_key
from seatrial.adapters.router import InProcessRouter
from seatrial.adapters.sql import SqlStore
from seatrial.control.killing import KillWish, lift, order_kill
from seatrial.control.publishing import parts_in, sealed_by
from seatrial.errors import NotFoundError, UnavailableError
from seatrial.ports import Commit
from seatrial.routing import KillMode, KillScope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 60.0
TOKEN = "a token of a test"  # noqa: S105 no secret of anybody


def now() -> datetime:
    return datetime.now(UTC)


def until(what: Callable[[], object]) -> object:
    ends_at = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < ends_at, what
        time.sleep(0.02)
    return found


@dataclass
class Served:
    """A control plane, its server, and where the server answers."""

    world: World
    child: processes.Child
    url: str
    folder: Path
    keys: dict
    home: Path

    def publish(self, **changes):
        present = self.world.store.snapshot(POINT)
        changed = replace(present, number=present.number + 1, **changes)
        whole = replace(changed, parts=parts_in(self.world.ports, changed.releases(), known=present.parts))
        self.world.store.commit(Commit((), snapshot=sealed_by(self.world.ports, whole)))
        return self.world.store.snapshot(POINT)

    def canary(self, lease=timedelta(hours=1)):
        return self.publish(challenger=self.world.challenger, slots=5_000, salt="s", lease_until=now() + lease)

    def ask(self, path, **document):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return requests.post(f"{self.url}{path}", json=document, headers=headers, timeout=PATIENCE_S)

    def kinds(self, prefix):
        return [e.record for e in self.world.store.entries() if e.record.kind.startswith(prefix)]


@contextmanager
def served(home: Path, store: SqlStore, database: str) -> Iterator[Served]:
    world = World(home / "files", store)
    signs, checks = new_key(home / "keys", "k1")
    world.ports = replace(world.ports, signer=signing_key(signs))
    settings = home / "seatrial.yaml"
    settings.write_text(
        f"database: {database}\nlogs: logs\napprovers: {{dana: [risk-owner]}}\nsigning_key: {signs}\n"
        f"keyring: [{checks}]\noperators: {{oncall: {sha256(TOKEN.encode()).hexdigest()}}}\n"
    )
    port = processes.free_port("snapshot server")
    url, folder = f"http://127.0.0.1:{port}", home / "snapshots"
    words = ["publish", "--port", str(port), "--folder", str(folder), "--settings", str(settings)]
    program = "import sys; from seatrial.cli import main; sys.exit(main())"
    child = processes.start(
        "snapshot server",
        [sys.executable, "-c", program, *words],
        home=home,
        environment=dict(os.environ),
        directory=Path.cwd(),
    )
    try:
        child.await_ready(lambda: is_up(url), deadline_s=PATIENCE_S)
        plane = Served(world, child, url, folder, keyring([checks]), home)
        signed = plane.publish()  # the first one came before the key
        until(lambda: HttpFeed(url).snapshot(POINT) == signed)
        yield plane
    finally:
        child.stop(grace_s=10)


def is_up(url):
    try:
        return requests.get(f"{url}/snapshots/{POINT}", timeout=5).ok
    except requests.RequestException:
        return False


@contextmanager
def opened(home: Path, database: str) -> Iterator[Served]:
    store = SqlStore(database)
    store.create_tables()
    try:
        with served(home, store, database) as plane:
            yield plane
    finally:
        store.close()


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def plane(request, tmp_path_factory):
    """One server for the tests of the module; each leaves it with no kill and no report."""
    home = tmp_path_factory.mktemp("plane")
    if request.param == "sqlite":
        database = f"sqlite:///{home / 'store.sqlite'}"
    else:
        cluster = request.getfixturevalue("postgres")
        cluster.create_databases(["snapshot_server"])
        database = cluster.url("snapshot_server", driver="psycopg")
    with opened(home, database) as plane:
        yield plane


def test_routers_over_http_and_files_follow_what_is_published_and_are_observed(plane):
    over_http = InProcessRouter("http", HttpFeed(plane.url, wait_s=30), POINT, plane.keys)
    over_files = InProcessRouter("files", FileFeed(plane.folder), POINT, plane.keys)
    for router in (over_http, over_files):
        until(lambda router=router: router.refresh(now=now()))
    until(lambda: len(plane.world.store.reports(POINT)) == 2)
    canary = plane.canary()
    # The first look answers with what is new although it may wait for half a minute.
    until(lambda: over_http.refresh(now=now()) and over_http.snapshot.number == canary.number)
    until(lambda: over_files.refresh(now=now()) and over_files.snapshot.number == canary.number)
    assert over_http.snapshot == over_files.snapshot == canary
    reported = dict.fromkeys(("http", "files"), canary.number)
    until(lambda: {r.router: r.number for r in plane.world.store.reports(POINT)} == reported)
    observed = until(lambda: [r for r in plane.kinds("share.observed") if r.body["number"] == canary.number])
    assert observed[0].body["routers"] == ["files", "http"]
    for router in ("files", "http"):
        plane.world.store.forget(POINT, router)


def test_whoever_waits_is_answered_when_something_is_published_and_not_before(plane):
    feed = HttpFeed(plane.url, wait_s=50)
    feed.snapshot(POINT)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(feed.snapshot, POINT)
        time.sleep(0.3)
        assert not waiting.done()
        canary = plane.canary()
        assert waiting.result(timeout=PATIENCE_S) == canary


def test_what_is_held_already_is_not_sent_again(plane):
    first = requests.get(f"{plane.url}/snapshots/{POINT}", timeout=PATIENCE_S)
    tag = first.headers["ETag"]
    again = requests.get(f"{plane.url}/snapshots/{POINT}", headers={"If-None-Match": tag}, timeout=PATIENCE_S)
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)


def test_an_operator_kills_over_http_and_every_router_is_seen_to_obey(plane):
    routers = [InProcessRouter(f"r{n}", HttpFeed(plane.url), POINT, plane.keys) for n in range(3)]
    for router in routers:
        until(lambda router=router: router.refresh(now=now()))
    wish = {"decision_point": POINT, "scope": "decision point", "mode": "refuse", "reason": "wrong"}
    made = plane.ask("/kill", **wish)
    assert made.status_code == 201
    assert plane.ask("/kill", **wish).json() == made.json()
    for router in routers:
        until(lambda router=router: router.refresh(now=now()) and router.snapshot.kills)
        assert router.assign("u1", {}, now=now()).kill.by == "oncall"
    (record,) = until(lambda: plane.kinds("kill.observed"))
    assert record.body["seconds"].keys() == {"r0", "r1", "r2"}
    lifted = plane.ask("/lift", decision_point=POINT, kill=made.json()["id"], reason="mended")
    assert lifted.status_code == 200
    assert plane.world.store.snapshot(POINT).kills == ()
    for n in range(3):
        plane.world.store.forget(POINT, f"r{n}")


def test_who_has_no_token_kills_nothing_and_is_recorded_once_a_minute(plane):
    wish = {"decision_point": POINT, "scope": "decision point", "mode": "refuse", "reason": "wrong"}
    for headers in ({}, {"Authorization": "Bearer guessed"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = requests.post(f"{plane.url}/kill", json=wish, headers=headers, timeout=PATIENCE_S)
        assert answer.status_code == 401
    assert plane.world.store.snapshot(POINT).kills == ()
    records = plane.kinds("operator.refused")
    # A minute may end between two of them.
    assert 1 <= len(records) <= 2
    assert "guessed" not in str(records)


def test_bad_requests_are_told_what_was_expected(plane):
    wish = {"decision_point": POINT, "scope": "decision point", "mode": "refuse", "reason": "wrong"}
    for changes, status, words in (
        ({"mode": "explode"}, 422, "safe fallback"),
        ({"scope": "planet"}, 422, "segment"),
        ({"scope": "action", "name": "reebook"}, 404, "did you mean 'rebook'"),
        ({"decision_point": "elsewhere"}, 404, "elsewhere"),
        ({"mode": "previous release"}, 409, "choose another mode"),
        ({"reason": 7}, 422, "reason"),
        ({"colour": "red"}, 422, "expected the keys"),
    ):
        answer = plane.ask("/kill", **{**wish, **changes})
        assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    for wait in ("soon", "-1", "9999", "nan"):
        answer = requests.get(f"{plane.url}/snapshots/{POINT}", params={"wait": wait}, timeout=PATIENCE_S)
        assert answer.status_code == 422
    assert requests.post(f"{plane.url}/reports", data=b"{", timeout=PATIENCE_S).status_code == 422
    assert requests.post(f"{plane.url}/reports", data=b"x" * 300_000, timeout=PATIENCE_S).status_code == 413
    with pytest.raises(NotFoundError):
        HttpFeed(plane.url).snapshot("elsewhere")


@pytest.fixture
def doomed(tmp_path):
    with opened(tmp_path, f"sqlite:///{tmp_path / 'store.sqlite'}") as plane:
        yield plane


def test_when_the_server_is_killed_the_lease_ends_the_experiment_and_a_router_starts_again_from_what_it_kept(doomed):
    plane = doomed
    lease = timedelta(seconds=2)
    kept = FileFeed(plane.home / "kept")
    canary = plane.canary(lease)
    router = InProcessRouter("a", KeptFeed(HttpFeed(plane.url), kept), POINT, plane.keys)
    until(lambda: router.refresh(now=now()) and router.snapshot.number == canary.number)
    taken = canary.lease_until - lease
    units = [f"u{n}" for n in range(200)]
    assert any(router.assign(unit, {}, now=taken).release_id == plane.world.challenger for unit in units)
    os.kill(plane.child.process.pid, signal.SIGKILL)
    plane.child.process.wait(timeout=PATIENCE_S)
    again = InProcessRouter("a", KeptFeed(HttpFeed(plane.url), kept), POINT, plane.keys)
    for each in (router, again):
        assert not each.refresh(now=now())
        served = {each.assign(unit, {}, now=max(now(), canary.lease_until)).release_id for unit in units}
        assert served == {plane.world.champion}
    with pytest.raises(UnavailableError):
        HttpFeed(plane.url).snapshot(POINT)


def test_a_kill_by_another_process_reaches_who_waits(plane):
    feed = HttpFeed(plane.url, wait_s=50)
    feed.snapshot(POINT)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(feed.snapshot, POINT)
        wish = KillWish(KillScope.ACTION, KillMode.PERSON, "wrong", "oncall", "rebook")
        kill = order_kill(plane.world.ports, POINT, wish, now=now())
        assert waiting.result(timeout=PATIENCE_S).kills == (kill,)
    lift(plane.world.ports, POINT, kill.id, reason="mended", actor="oncall", now=now())
