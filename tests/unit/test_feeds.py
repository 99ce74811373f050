import json
import resource
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from builders import HOUR, POINT, T0, World
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatrial.adapters.clock import SteadyClock
from seatrial.adapters.file_feed import FileFeed, KeptFeed
from seatrial.adapters.memory import MemoryStore
from seatrial.adapters.reports import report_document, report_of
from seatrial.adapters.router import InProcessRouter
from seatrial.errors import NotFoundError, TamperedError, UnavailableError
from seatrial.gates.load import ShadowLoad
from seatrial.ports import RouterReport
from seatrial.routing import RoutingSnapshot
from seatrial.routing.signing import Ed25519Check, Ed25519Key, HmacKey, sealed, signed
from seatrial.service.mirroring import Mirror
from seatrial.units import canonical

CANARY = RoutingSnapshot(
    POINT, 7, "champion", "champion", "challenger", "r1", slots=5_000, salt="s", lease_until=T0 + 12 * HOUR
)
LOAD = ShadowLoad("a", 2_500, sent=12, shed=3, per_s=1.5, dependencies={"features": 0.5})
REPORT = RouterReport("a", POINT, 7, T0, "champion", T0 + HOUR, LOAD, {"champion": 3}, {"older": 1}, T0 - HOUR)


@pytest.fixture
def feed(tmp_path):
    return FileFeed(tmp_path / "snapshots")


def held_by(feed, keys=None):
    router = InProcessRouter("a", feed, POINT, keys)
    router.refresh(now=T0)
    return router


def refused(router, feed):
    router.refresh(now=T0)
    return dict(feed.reports()[0].refused)


def test_a_snapshot_that_is_published_is_read(feed):
    feed.publish(CANARY)
    assert feed.snapshot(POINT) == CANARY
    feed.publish(replace(CANARY, number=8))
    assert feed.snapshot(POINT).number == 8
    assert [path.name for path in feed.folder.iterdir()] == [f"{POINT}.json"]


def test_a_folder_without_the_file_knows_no_such_decision_point(feed):
    with pytest.raises(NotFoundError, match="elsewhere"):
        feed.snapshot("elsewhere")


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_torn_file_is_refused_and_the_last_good_snapshot_stays(feed, keep):
    feed.publish(CANARY)
    router = held_by(feed)
    path = feed.folder / f"{POINT}.json"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TamperedError, match="no sound snapshot"):
        feed.snapshot(POINT)
    assert refused(router, feed) == {"malformed": 1}
    assert router.snapshot == CANARY


@contextmanager
def full_disk(room=100):
    """Let no file grow beyond `room` bytes, as on a disk that is full after so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_file_whole(feed):
    feed.publish(CANARY)
    with full_disk(), pytest.raises(UnavailableError, match="File too large"):
        feed.publish(replace(CANARY, number=8))
    assert feed.snapshot(POINT) == CANARY
    assert [path.name for path in feed.folder.iterdir()] == [f"{POINT}.json"]


def test_a_full_disk_keeps_no_snapshot_from_being_served(tmp_path, feed):
    feed.publish(CANARY)
    kept = FileFeed(tmp_path / "kept")
    router = InProcessRouter("a", KeptFeed(feed, kept), POINT)
    with full_disk():
        assert router.take(now=T0)
    assert router.snapshot == CANARY
    with pytest.raises(NotFoundError):
        kept.snapshot(POINT)


def test_what_a_full_disk_refused_is_written_as_soon_as_there_is_room(tmp_path, feed):
    world = World(tmp_path)
    mirror = Mirror(world.ports, Scripted(), feed)
    present = world.store.snapshot(POINT)
    with full_disk():
        mirror.write(present)
        mirror.collect()
        with pytest.raises(NotFoundError):
            feed.snapshot(POINT)
    mirror.collect()
    assert feed.snapshot(POINT) == present


@pytest.mark.parametrize("name", ["../escape", "a/b", "point with spaces", "pöint", "."])
def test_a_name_never_leaves_the_folder_and_two_never_share_a_file(feed, name):
    snapshot = replace(CANARY, decision_point=name)
    feed.publish(snapshot)
    assert feed.snapshot(name) == snapshot
    (path,) = feed.folder.parent.rglob("*.json")
    assert path.parent == feed.folder
    with pytest.raises(NotFoundError):
        feed.snapshot("".join(c for c in name if c.isascii() and c.isalnum()) or "x")


def test_reports_come_back_as_they_were_written(feed):
    feed.report(REPORT)
    feed.report(replace(REPORT, router="b", shadow=None, lease_until=None))
    (feed.folder / "reports" / POINT / "torn.json").write_text("{")
    assert feed.reports() == [REPORT, replace(REPORT, router="b", shadow=None, lease_until=None)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("served", {"champion": -1}),
        ("served", {"champion": True}),
        ("refused", {"older": "1"}),
        ("number", "7"),
        ("at", "now"),
        ("shadow", {}),
        ("shadow", {**LOAD.document(), "is_held": 1}),
    ],
)
def test_a_malformed_report_is_refused(key, value):
    with pytest.raises(ValueError, match=r"."):
        report_of({**report_document(REPORT), key: value})


def test_a_report_survives_being_sent():
    assert report_of(json.loads(json.dumps(report_document(REPORT)))) == REPORT


@pytest.mark.parametrize(
    ("published", "reason"),
    [
        (replace(CANARY, number=6, slots=9_999), "older"),
        (replace(CANARY, lease_until=T0 + HOUR), "older"),
        (replace(CANARY, slots=9_999, lease_until=T0 + 13 * HOUR), "another one of the same number"),
        (replace(CANARY, number=8, decision_point="elsewhere"), "of another decision point"),
    ],
)
def test_what_a_router_must_not_take_is_counted_by_reason(feed, published, reason):
    feed.publish(CANARY)
    router = held_by(feed)
    (feed.folder / f"{POINT}.json").write_bytes(canonical(sealed(published)))
    assert refused(router, feed) == {reason: 1}
    assert router.snapshot == CANARY


def test_a_renewed_lease_is_taken(feed):
    feed.publish(CANARY)
    router = held_by(feed)
    feed.publish(replace(CANARY, lease_until=T0 + 13 * HOUR))
    assert refused(router, feed) == {}
    assert router.snapshot.lease_until == T0 + 13 * HOUR


def test_a_router_with_keys_takes_only_what_they_signed_and_a_new_key_may_come_before_the_old_one_goes(feed):
    private = Ed25519PrivateKey.generate()
    keys = {"old": HmacKey("old", b"secret"), "new": Ed25519Check(private.public_key())}
    feed.publish(signed(CANARY, HmacKey("old", b"secret")))
    router = held_by(feed, keys)
    assert router.snapshot == CANARY
    for wrong in (replace(CANARY, number=8), signed(replace(CANARY, number=8), HmacKey("old", b"guessed"))):
        feed.publish(wrong)
        router.refresh(now=T0)
    assert feed.reports()[0].refused == {"not signed by a known key": 2}
    assert router.snapshot == CANARY
    feed.publish(signed(replace(CANARY, number=9), Ed25519Key("new", private)))
    router.refresh(now=T0)
    assert router.snapshot.number == 9


def test_what_was_assigned_is_counted_for_each_snapshot_anew(feed):
    feed.publish(CANARY)
    router = held_by(feed)
    for n in range(200):
        router.assign(f"u{n}", {}, now=T0)
    router.refresh(now=T0)
    served = feed.reports()[0].served
    assert sum(served.values()) == 200
    assert served.keys() == {"champion", "challenger"}
    feed.publish(replace(CANARY, number=8))
    router.refresh(now=T0)
    assert feed.reports()[0].served == {}


class Gone:
    """A control plane that does not answer any more."""

    def snapshot(self, _decision_point):
        raise UnavailableError("gone")

    def report(self, _report):
        raise UnavailableError("gone")


def test_a_router_starts_again_from_what_it_kept_while_the_control_plane_is_gone(tmp_path, feed):
    kept = FileFeed(tmp_path / "kept")
    feed.publish(CANARY)
    held_by(KeptFeed(feed, kept))
    again = InProcessRouter("a", KeptFeed(Gone(), kept), POINT)
    assert not again.refresh(now=T0)
    assert again.snapshot == CANARY
    assert again.assign("u1", {}, now=CANARY.lease_until).release_id == "champion"
    with pytest.raises(UnavailableError):
        KeptFeed(Gone(), FileFeed(tmp_path / "nothing")).snapshot(POINT)


def test_a_store_is_a_feed():
    store = MemoryStore()
    router = InProcessRouter("a", store, POINT)
    assert not router.refresh(now=T0)


class Scripted:
    """A wall clock and a stopwatch that a test moves."""

    def __init__(self):
        self.wall, self.passed_s = T0, 100.0

    def now(self):
        return self.wall

    def elapsed_s(self):
        return self.passed_s


@pytest.mark.parametrize(
    ("wall", "passed_s", "shows"),
    [
        (timedelta(seconds=60), 60.0, timedelta(seconds=60)),
        (timedelta(hours=-5), 60.0, timedelta(seconds=60)),
        (timedelta(0), 60.0, timedelta(seconds=60)),
        (timedelta(hours=5), 60.0, timedelta(hours=5)),
    ],
)
def test_a_clock_that_is_set_back_does_not_lengthen_a_lease(wall, passed_s, shows):
    scripted = Scripted()
    steady = SteadyClock(scripted, scripted.elapsed_s)
    scripted.wall, scripted.passed_s = T0 + wall, 100.0 + passed_s
    assert steady.now() == T0 + shows
