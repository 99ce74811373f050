"""What every data plane keeps to, whoever computes it: the in-process router, the gateway and Envoy, each for real."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from builders import POINT, a_release
from gateway_site import LEAVES, Site
from model_servers import ModelServer, running

from deployments import envoys
from seatrial.adapters.memory import MemoryStore
from seatrial.adapters.router import InProcessRouter
from seatrial.ports import Commit
from seatrial.routing import Kill, KillMode, KillScope, Pin, RoutingSnapshot, assign, parts_of

HOUR = timedelta(hours=1)
PARTS = parts_of(a_release())
UNITS = [f"card-{n}" for n in range(150)]
#: Answered by no release.
NOBODY = None


def now():
    return datetime.now(UTC)


@dataclass
class Plane:
    """One data plane: its releases by role, and what it is asked and told."""

    champion: str
    challenger: str
    older: str
    number: int = 1

    def publish(self, **changes):
        """Publish a canary at 20 %, with `changes`, wait until it is served, and return it."""
        self.number += 1
        canary = RoutingSnapshot(
            POINT,
            self.number,
            self.champion,
            self.champion,
            self.challenger,
            "r1",
            slots=2_000,
            salt="s/",
            lease_until=now() + HOUR,
            parts=dict.fromkeys((self.champion, self.challenger, self.older), PARTS),
        )
        snapshot = replace(canary, **changes)
        self.serve(snapshot)
        return snapshot


class InProcess(Plane):
    def __init__(self):
        super().__init__("champion", "challenger", "older", 0)
        self.store = MemoryStore()
        self.router = InProcessRouter("router", self.store, POINT)

    def serve(self, snapshot):
        self.store.commit(Commit((), snapshot=snapshot))
        assert self.router.refresh(now=now())

    def who(self, units, carrier="UA"):
        found = [self.router.assign(unit, {"carrier": carrier}, now=now()) for unit in units]
        return [NOBODY if each.kill is not None else each.release_id for each in found]


class OverHttp(Plane):
    def __init__(self, site, gateway):
        super().__init__(site.champion, site.challenger, site.impatient, site.number)
        self.site, self.gateway = site, gateway

    def serve(self, snapshot):
        kept = {"number", "challenger", "slots", "signature", "parts"}
        fields = {f: getattr(snapshot, f) for f in snapshot.__dataclass_fields__ if f not in kept}
        served = self.site.publish(snapshot.challenger, slots=snapshot.slots, **fields)
        assert served.number == snapshot.number
        self.gateway.serves(served)

    def who(self, units, carrier="UA"):
        answers = [self.gateway.ask(unit, carrier) for unit in units]
        return [NOBODY if each.status_code == 503 else each.json()["release"] for each in answers]


class OverEnvoy(Plane):
    def __init__(self, stack):
        super().__init__("champion", "challenger", "older", stack.feed.present.number)
        self.stack = stack

    def serve(self, snapshot):
        assert self.stack.publish(replace(snapshot, decision_point=envoys.POINT), now())

    def who(self, units, carrier="UA"):
        answers = self.stack.asked(units, x_seatrial_carrier=carrier)
        return [NOBODY if each["status"] == "503" else each["x-seatrial-release"] for each in answers]


@pytest.fixture(scope="module", params=["in process", "gateway", "envoy"])
def plane(request, tmp_path_factory):
    if request.param == "in process":
        yield InProcess()
        return
    home = tmp_path_factory.mktemp("plane")
    if request.param == "envoy":
        feed = envoys.Feed(RoutingSnapshot(envoys.POINT, 1, "champion", "champion"))
        with envoys.running(home, feed, now()) as stack:
            yield OverEnvoy(stack)
        return
    models = ModelServer()
    models.says = dict.fromkeys(("first", "second", "third"), LEAVES)
    with running(models) as models.url:
        site = Site(home, models)
        site.publish()
        with site.gateway() as gateway:
            yield OverHttp(site, gateway)
        site.store.close()


def expected(snapshot, units, carrier="UA"):
    found = [assign(snapshot, unit, {"carrier": carrier}, now=now()) for unit in units]
    return [NOBODY if each.kill is not None else each.release_id for each in found]


def kill(scope, mode, **changes):
    return Kill("k1", scope, mode, "oncall", "wrong since noon", now(), **changes)


def test_units_are_assigned_as_the_snapshot_says(plane):
    canary = plane.publish()
    assert plane.who(UNITS) == expected(canary, UNITS)
    assert set(plane.who(UNITS)) == {plane.champion, plane.challenger}


def test_only_units_of_the_segment_take_part(plane):
    canary = plane.publish(segment="commuter", when={"carrier": ("OO", "Y.V")}, slots=10_000)
    for carrier in ("OO", "Y.V", "YxV", "UA"):
        assert plane.who(UNITS[:20], carrier) == expected(canary, UNITS[:20], carrier)
    assert set(plane.who(UNITS[:20], "OO")) == {plane.challenger}
    assert set(plane.who(UNITS[:20], "YxV")) == {plane.champion}


def test_when_the_lease_is_over_the_fallback_answers_everybody(plane):
    plane.publish(slots=10_000, lease_until=now() - HOUR)
    assert set(plane.who(UNITS)) == {plane.champion}


def test_a_pinned_unit_is_answered_by_its_release(plane):
    pins = (Pin(plane.older, "oncall", "in dispute", now() + HOUR, UNITS[3]),)
    canary = plane.publish(pins=pins)
    assert plane.who(UNITS) == expected(canary, UNITS)
    assert plane.who(UNITS[3:4]) == [plane.older]


def test_a_pin_that_has_expired_holds_no_more(plane):
    plane.publish(slots=0, lease_until=None, pins=(Pin(plane.older, "oncall", "over", now() - HOUR, UNITS[3]),))
    assert plane.who(UNITS[3:4]) == [plane.champion]


def test_a_killed_release_answers_nobody(plane):
    order = kill(KillScope.RELEASE, KillMode.PREVIOUS_RELEASE, name=plane.challenger, to=plane.champion)
    pins = (Pin(plane.challenger, "oncall", "in dispute", now() + HOUR, UNITS[3]),)
    plane.publish(slots=10_000, kills=(order,), pins=pins)
    assert set(plane.who(UNITS)) == {plane.champion}


def test_a_decision_point_that_refuses_is_answered_by_nobody(plane):
    plane.publish(kills=(kill(KillScope.DECISION_POINT, KillMode.REFUSE),))
    for unit in UNITS[:3]:
        assert plane.who([unit]) == [NOBODY]


def test_a_drill_changes_no_answer(plane):
    canary = plane.publish()
    before = plane.who(UNITS)
    plane.publish(kills=(kill(KillScope.DECISION_POINT, KillMode.REFUSE, is_drill=True),))
    assert plane.who(UNITS) == before == expected(canary, UNITS)


def test_a_shadow_answers_nobody(plane):
    plane.publish(slots=0, lease_until=None, shadow=True)
    assert set(plane.who(UNITS)) == {plane.champion}
