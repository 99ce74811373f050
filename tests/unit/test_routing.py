from dataclasses import replace
from datetime import datetime

import pytest
from builders import HOUR, POINT, T0

from seatrial.adapters.memory import MemoryStore
from seatrial.adapters.router import InProcessRouter
from seatrial.errors import NotFoundError, TamperedError, UnavailableError
from seatrial.evidence import Arm
from seatrial.ports import Commit
from seatrial.routing import RoutingSnapshot, assign, slot_of

CANARY = RoutingSnapshot(
    POINT,
    7,
    champion="champion",
    fallback="champion",
    challenger="challenger",
    rollout_id="r1",
    slots=500,
    stage=2,
    salt="salt/r1/",
    lease_until=T0 + 12 * HOUR,
)
COMMUTER = replace(CANARY, segment="commuter", when={"carrier": ("OO", "YV"), "origin": ("EWR",)}, slots=10_000)


@pytest.mark.parametrize(
    ("text", "slot"),
    # xxh64 with seed 0, of the reference implementation's own tests: "" ef46db3751d8e999, "a" d24ec4f1a98c6e5b,
    # "abc" 44bc2cf5ad770999
    [("", 0xEF46DB3751D8E999), ("a", 0xD24EC4F1A98C6E5B), ("abc", 0x44BC2CF5AD770999)],
)
def test_a_slot_is_xxh64_with_seed_zero_modulo_ten_thousand(text, slot):
    for at in range(len(text) + 1):
        assert slot_of(text[:at], text[at:]) == slot % 10_000


def test_a_share_needs_a_challenger_and_a_lease():
    for missing in ({"challenger": None}, {"lease_until": None}):
        with pytest.raises(ValueError, match="names the challenger and carries lease_until"):
            replace(CANARY, **missing)
    with pytest.raises(ValueError, match="shadow traffic names the challenger"):
        replace(CANARY, slots=0, challenger=None, shadow=True)


@pytest.mark.parametrize("slots", [-1, 10_001])
def test_slots_outside_the_ten_thousand_are_refused(slots):
    with pytest.raises(ValueError, match="expected 0 to 10000"):
        replace(CANARY, slots=slots)


def units(count=2_000):
    return [f"UA{n}/EWR" for n in range(count)]


def test_while_the_lease_lasts_units_go_where_their_slot_says():
    for unit in units():
        got = assign(CANARY, unit, {}, now=T0)
        is_challenger = slot_of(CANARY.salt, unit) < 500
        assert got.arm is (Arm.CHALLENGER if is_challenger else Arm.CHAMPION)
        assert got.release_id == got.arm.value
        assert (got.share, got.snapshot_no, got.shadow_release_id) == (0.05, 7, None)


def test_a_share_of_500_slots_has_the_slots_0_to_499():
    unit_of = {slot_of(CANARY.salt, f"u{n}"): f"u{n}" for n in range(200_000)}
    arms = [assign(CANARY, unit_of[slot], {}, now=T0).arm for slot in (0, 499, 500, 9_999)]
    assert arms == [Arm.CHALLENGER, Arm.CHALLENGER, Arm.CHAMPION, Arm.CHAMPION]


@pytest.mark.parametrize("late", [0 * HOUR, HOUR, 1000 * HOUR])
def test_when_the_lease_is_over_every_unit_goes_to_the_fallback(late):
    everybody = replace(CANARY, slots=10_000)
    for unit in units(200):
        assert assign(everybody, unit, {}, now=everybody.lease_until - HOUR).release_id == "challenger"
        got = assign(everybody, unit, {}, now=everybody.lease_until + late)
        assert (got.release_id, got.arm, got.share) == ("champion", Arm.CHAMPION, 0.0)


def test_when_a_promoted_releases_lease_is_over_it_serves_every_unit():
    promoting = replace(CANARY, slots=9_500, fallback="challenger")
    for unit in units(200):
        got = assign(promoting, unit, {}, now=promoting.lease_until)
        assert (got.release_id, got.arm, got.share) == ("challenger", Arm.CHALLENGER, 0.0)


@pytest.mark.parametrize(
    ("attributes", "takes_part"),
    [
        ({"carrier": "OO", "origin": "EWR"}, True),
        ({"carrier": "YV", "origin": "EWR", "dest": "ORD"}, True),
        ({"carrier": "UA", "origin": "EWR"}, False),
        ({"carrier": "OO", "origin": "JFK"}, False),
        ({"carrier": "OO"}, False),
        ({}, False),
    ],
)
def test_a_unit_takes_part_when_every_column_of_the_segment_matches(attributes, takes_part):
    got = assign(COMMUTER, "unit", attributes, now=T0)
    assert got.release_id == ("challenger" if takes_part else "champion")
    assert got.share == (1.0 if takes_part else 0.0)
    shadow = assign(replace(COMMUTER, slots=0, shadow=True), "unit", attributes, now=T0)
    assert shadow.release_id == "champion"
    assert shadow.shadow_release_id == ("challenger" if takes_part else None)


def test_a_snapshot_is_newer_by_its_number_and_then_by_its_lease():
    renewed = replace(CANARY, lease_until=T0 + 13 * HOUR)
    ended = RoutingSnapshot(POINT, 8, champion="champion", fallback="champion")
    ascending = [replace(CANARY, number=6, lease_until=T0 + 99 * HOUR), CANARY, renewed, ended]
    for at, later in enumerate(ascending):
        assert not later.is_newer_than(later)
        assert all(later.is_newer_than(earlier) and not earlier.is_newer_than(later) for earlier in ascending[:at])


def test_the_same_assignment_under_another_number_or_lease_is_the_same():
    assert CANARY.has_same_assignment(replace(CANARY, number=9, stage=5, lease_until=T0 + 99 * HOUR))
    for changed in ({"slots": 501}, {"fallback": "x"}, {"salt": "x"}, {"segment": "x"}, {"when": {"a": ("b",)}}):
        assert not CANARY.has_same_assignment(replace(CANARY, **changed))


def test_renewing_a_lease_keeps_the_digest_and_nothing_else_does():
    assert replace(CANARY, lease_until=T0 + 99 * HOUR).digest == CANARY.digest
    assert replace(CANARY, slots=501).digest != CANARY.digest


WRONG = {
    "decision_point": [None, 1],
    "number": [None, "7", 7.0, True],
    "champion": [None, 1],
    "fallback": [None, 1],
    "challenger": [1, None],
    "rollout_id": [1],
    "segment": [1],
    "when": [None, [], {"carrier": "OO"}, {"carrier": [1]}, {"carrier": None}],
    "slots": [None, "500", 500.5, -1, 10_001, float("nan"), True],
    "shadow": [None, "yes", 1],
    "stage": [None, "2", 2.5],
    "salt": [None, 1],
    "lease_until": [None, 1, "tomorrow", "2013-06-01T12:00:00", datetime(2013, 6, 1)],  # noqa: DTZ001 what is refused
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_malformed_snapshot_is_refused(key, value):
    with pytest.raises((ValueError, TypeError)):
        RoutingSnapshot.of_document({**CANARY.document(), key: value})


@pytest.mark.parametrize("key", sorted(CANARY.document()))
def test_a_snapshot_with_a_key_too_few_or_too_many_is_refused(key):
    less = {name: value for name, value in CANARY.document().items() if name != key}
    for document in (less, {**CANARY.document(), f"{key}_": 1}):
        with pytest.raises((ValueError, TypeError)):
            RoutingSnapshot.of_document(document)


class Broken(MemoryStore):
    """A store that raises the error, or answers with the old snapshot, that a test sets."""

    error = None
    old = None

    def snapshot(self, decision_point):
        if self.error is not None:
            raise self.error
        return self.old or super().snapshot(decision_point)


@pytest.fixture
def store():
    store = Broken()
    store.commit(Commit(records=(), snapshot=CANARY))
    return store


def test_a_router_takes_what_is_newer_and_says_what_it_serves(store):
    router = InProcessRouter("a", store, POINT)
    assert router.refresh(now=T0)
    (report,) = store.reports(POINT)
    assert (report.router, report.number, report.at, report.fallback) == ("a", 7, T0, "champion")
    assert report.lease_until == CANARY.lease_until
    store.commit(Commit(records=(), snapshot=RoutingSnapshot(POINT, 8, champion="champion", fallback="champion")))
    router.refresh(now=T0 + HOUR)
    (report,) = store.reports(POINT)
    assert (report.number, report.at, report.lease_until) == (8, T0 + HOUR, None)


def test_a_router_never_takes_an_older_snapshot(store):
    router = InProcessRouter("a", store, POINT)
    router.refresh(now=T0)
    store.old = replace(CANARY, number=6, slots=9_999)
    router.refresh(now=T0)
    assert router.snapshot == CANARY


@pytest.mark.parametrize("error", [UnavailableError("down"), TamperedError("not what was recorded"), NotFoundError("")])
def test_a_router_keeps_the_last_good_snapshot_until_its_lease_is_over(store, error):
    router = InProcessRouter("a", store, POINT)
    router.refresh(now=T0)
    store.error = error
    assert not router.refresh(now=T0 + HOUR)
    assert router.snapshot == CANARY
    challengers = [u for u in units() if router.assign(u, {}, now=T0 + HOUR).release_id == "challenger"]
    assert challengers
    assert {router.assign(u, {}, now=CANARY.lease_until).release_id for u in challengers} == {"champion"}


def test_a_router_without_any_snapshot_says_so_and_assigns_nobody():
    store = Broken()
    router = InProcessRouter("a", store, POINT)
    assert not router.refresh(now=T0)
    with pytest.raises(UnavailableError, match="no snapshot"):
        router.assign("unit", {}, now=T0)
    assert store.reports(POINT) == []
