"""How many copies for the shadow are sent: fewer when they cost too much, as planned again when they do not."""

import asyncio
from types import SimpleNamespace

import pytest
from builders import POINT, T0

from seatrial.adapters.decisions import Answered, Entry, Unit
from seatrial.adapters.gateway.shadowing import Shadows
from seatrial.routing import RoutingSnapshot, ShadowBudget

FAST, SLOW = [10.0] * 50, [16.0] * 50


def a_snapshot(**budget):
    return RoutingSnapshot(
        POINT, 7, "first", "first", "second", "r1", shadow=True, salt="s", budget=ShadowBudget(**budget)
    )


def an_entry(unit):
    answered = Answered("ok", 1.0, "everyone", 0, 0.1, None, "default_action", "none")
    asked = Unit(unit, {}, {"distance": 1.0})
    return Entry("d1", T0, asked, "r1", 7, 1, "first", "champion", 0.0, "DECIDE", "ok", "none", answered)


class Lane:
    """Answers every copy at once and remembers it."""

    parts = SimpleNamespace(timeout_ms=60_000.0)

    def __init__(self):
        self.asked = []

    async def ask(self, unit, _timeout_s):
        self.asked.append(unit.key)
        return Answered("ok", 1.0, "everyone", 0, 0.2, None, "default_action", "none")


def offered(snapshot, units, *, needs=(), lane=None):
    """Offer a copy of each unit in one moment, let them be sent, and return the shadows."""
    lane, logged = lane or Lane(), []

    async def run():
        shadows = Shadows("a", lambda _release: lane, lambda _shadow, _champion: needs, logged.append)
        for unit in units:
            shadows.offer(snapshot, an_entry(unit), "second")
        await asyncio.gather(*shadows._tasks)  # noqa: SLF001 what is under way
        return shadows

    return asyncio.run(run()), logged


def began(snapshot):
    shadows = Shadows("a", lambda _release: None, lambda _shadow, _champion: (), lambda _entry: None)
    assert shadows.load(snapshot).sampling == snapshot.budget.sampling
    shadows.adjust(FAST, 1.0)
    return shadows


def test_a_champion_that_becomes_slower_halves_the_copies_and_a_quiet_second_gives_a_twentieth_back():
    snapshot = a_snapshot(sampling=8_000)
    shadows = began(snapshot)
    shadows.adjust(SLOW, 1.0)
    assert shadows.sampling == 4_000
    shadows.adjust(FAST, 1.0)
    assert shadows.sampling == 4_400
    for _ in range(100):
        shadows.adjust(FAST, 1.0)
    assert shadows.sampling == 8_000


def test_a_router_that_is_too_dear_at_the_least_part_says_so_and_takes_it_back_when_it_is_quiet():
    snapshot = a_snapshot(sampling=6_400)
    shadows = began(snapshot)
    for _ in range(6):
        shadows.adjust(SLOW, 1.0)
    assert (shadows.sampling, shadows.load(snapshot).is_held) == (100, True)
    shadows.adjust(SLOW, 1.0)
    assert (shadows.sampling, shadows.load(snapshot).is_held) == (100, False)
    shadows.adjust(FAST, 1.0)
    assert shadows.load(snapshot).is_held


@pytest.mark.parametrize("latencies", [[], [99.0] * 19])
def test_too_few_decisions_say_nothing_about_latency(latencies):
    shadows = began(a_snapshot(sampling=8_000))
    shadows.adjust(latencies, 1.0)
    assert shadows.sampling == 8_000


def test_a_slow_second_does_not_become_what_is_usual():
    shadows = began(a_snapshot(sampling=8_000))
    for _ in range(3):
        shadows.adjust(SLOW, 1.0)
    assert shadows.sampling == 1_000


def test_copies_are_sent_logged_and_counted_by_what_they_cost():
    snapshot = a_snapshot(max_concurrent=64)
    lane = Lane()
    shadows, logged = offered(snapshot, [f"u{n}" for n in range(20)], needs=("features",), lane=lane)
    shadows.adjust([], 2.0)
    load = shadows.load(snapshot)
    assert (load.sent, load.shed, load.per_s, load.dependencies) == (20, 0, 10.0, {"features": 10.0})
    assert sorted(lane.asked) == sorted(entry.unit.key for entry in logged)
    assert {entry.arm for entry in logged} == {"shadow"}


@pytest.mark.parametrize(
    ("budget", "needs"),
    [({"max_per_s": 5.0}, ()), ({"dependencies": {"features": 5.0}}, ("features",))],
)
def test_what_a_second_may_cost_is_not_exceeded_and_the_next_one_copies_less(budget, needs):
    snapshot = a_snapshot(max_concurrent=64, **budget)
    shadows, _ = offered(snapshot, [f"u{n}" for n in range(200)], needs=needs)
    # A moment on a busy machine may last longer than one, so that some more become due.
    assert 5 <= shadows.sent < 100
    assert shadows.shed["budget"] == 200 - shadows.sent
    shadows.adjust(FAST, 1.0)
    assert shadows.sampling == 5_000


def test_more_copies_than_may_wait_are_shed():
    snapshot = a_snapshot(max_concurrent=2)
    shadows, logged = offered(snapshot, [f"u{n}" for n in range(50)])
    assert (shadows.sent, shadows.shed["queue"], len(logged)) == (8, 42, 8)


def test_a_dependency_without_a_limit_is_counted_and_not_limited():
    shadows, _ = offered(a_snapshot(max_concurrent=64), [f"u{n}" for n in range(100)], needs=("features",))
    assert shadows.sent == 100
