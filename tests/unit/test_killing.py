from dataclasses import replace

import pytest
from builders import DAY, HOUR, POINT, T0, World, a_plan, a_release

from seatrial.adapters.router import InProcessRouter
from seatrial.adapters.sql import SqlStore
from seatrial.control.drilling import begin_drill, end_drill, seen
from seatrial.control.ending import kill
from seatrial.control.killing import KillWish, lift, order_kill
from seatrial.control.moving import step
from seatrial.control.observing import Standing, forget, is_observed, is_taken_up, observe, standing_of
from seatrial.control.pinning import lift_pin, set_pin
from seatrial.control.publishing import agree
from seatrial.control.watching import watch
from seatrial.errors import ConflictError, NotFoundError, RefusedError
from seatrial.rollout import State
from seatrial.routing import KillMode, KillScope, Pin
from seatrial.routing.signing import HmacKey, require_signed


@pytest.fixture(params=["memory", "sqlite"])
def world(request, tmp_path):
    if request.param == "memory":
        yield World(tmp_path / "files")
        return
    store = SqlStore(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.create_tables()
    yield World(tmp_path / "files", store)
    store.close()


def a_wish(scope=KillScope.DECISION_POINT, mode=KillMode.SAFE_FALLBACK, **changes):
    return KillWish(scope, mode, "wrong since noon", "oncall", **changes)


def order(world, wish, now=T0):
    return order_kill(world.ports, POINT, wish, now=now)


def kinds(world, prefix):
    return [entry.record.kind for entry in world.store.entries() if entry.record.kind.startswith(prefix)]


def assigned(world, unit="u1", attributes=None, now=T0):
    world.router.refresh(now=now)
    return world.router.assign(unit, attributes or {}, now=now)


@pytest.mark.parametrize("mode", [KillMode.SAFE_FALLBACK, KillMode.PERSON, KillMode.REFUSE])
def test_a_killed_decision_point_is_answered_by_nobody_until_the_kill_is_lifted(world, mode):
    kill = order(world, a_wish(mode=mode))
    assert assigned(world).kill == kill
    lift(world.ports, POINT, kill.id[:6], reason="mended", actor="oncall", now=T0 + HOUR)
    assert assigned(world).kill is None
    assert kinds(world, "kill.") == ["kill.ordered", "kill.lifted"]


def test_the_same_kill_is_ordered_once(world):
    first = order(world, a_wish())
    assert order(world, a_wish(), T0 + HOUR) == first
    assert world.store.snapshot(POINT).kills == (first,)
    assert kinds(world, "kill.") == ["kill.ordered"]


def test_killing_a_decision_point_rolls_back_what_is_tried_on_it(world):
    rollout, now = world.advance_to(State.CANARY)
    order(world, a_wish(), now)
    after = world.store.rollout(rollout.id)
    assert after.state is State.ROLLING_BACK
    assert after.reason == "oncall: the decision point was killed: wrong since noon"
    assert [kill.scope for kill in world.store.snapshot(POINT).kills] == [KillScope.DECISION_POINT]


def test_whoever_publishes_next_carries_the_kill_on(world):
    kill = order(world, a_wish())
    world.advance_to(State.SHADOW)
    assert world.store.snapshot(POINT).kills == (kill,)
    assert not agree(world.ports, POINT, now=T0 + DAY, actor="sweep")


def test_killing_the_segment_on_trial_rolls_it_back_and_another_segment_goes_on(tmp_path):
    world = World(tmp_path)
    plan = a_plan(segment="commuter", stages=a_plan().document()["stages"][:5])
    rollout, now = world.advance_to(State.CANARY, plan)
    kill = order(world, a_wish(KillScope.SEGMENT, name="commuter"), now)
    assert kill.when == {"carrier": ("OO", "YV")}
    assert world.store.rollout(rollout.id).state is State.ROLLING_BACK
    assert assigned(world, attributes={"carrier": "OO"}, now=now).kill == kill
    assert assigned(world, attributes={"carrier": "UA"}, now=now).kill is None


@pytest.mark.parametrize("role", ["champion", "challenger"])
def test_killing_a_release_that_is_compared_ends_the_comparison(world, role):
    rollout, now = world.advance_to(State.CANARY)
    order(world, a_wish(KillScope.RELEASE, name=getattr(world, role)), now)
    assert world.store.rollout(rollout.id).state is State.ROLLING_BACK


def test_a_release_that_was_promoted_returns_to_the_one_before_it(world):
    _, now = world.advance_to(State.CHAMPION)
    kill = order(world, a_wish(KillScope.RELEASE, KillMode.PREVIOUS_RELEASE, name=world.challenger[7:15]), now)
    assert (kill.name, kill.to) == (world.challenger, world.champion)
    for n in range(50):
        assert assigned(world, f"u{n}", now=now).release_id == world.champion


def test_the_first_release_has_none_before_it(world):
    with pytest.raises(RefusedError, match="choose another mode: safe fallback, person, refuse"):
        order(world, a_wish(mode=KillMode.PREVIOUS_RELEASE))
    assert world.store.snapshot(POINT).kills == ()


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        (a_wish(KillScope.SEGMENT, name="nobody"), NotFoundError, "known|mean"),
        (a_wish(KillScope.SEGMENT, name="everyone"), RefusedError, "default segment"),
        (a_wish(KillScope.ACTION, name="reebook"), NotFoundError, "did you mean 'rebook'"),
        (a_wish(KillScope.RELEASE, name="sha256:none"), NotFoundError, "release"),
        (a_wish(KillScope.RELEASE), RefusedError, "is named"),
        (a_wish(name="x"), RefusedError, "decision point is not"),
        (a_wish(KillScope.ACTION, KillMode.PREVIOUS_RELEASE, name="rebook"), RefusedError, "no"),
    ],
)
def test_what_cannot_be_ordered_is_refused_and_nothing_is_written(world, wish, error, words):
    before = world.store.entries()
    with pytest.raises(error, match=words):
        order(world, wish)
    assert world.store.entries() == before
    with pytest.raises(NotFoundError):
        order_kill(world.ports, "elsewhere", a_wish(), now=T0)


def test_an_unknown_kill_is_not_lifted(world):
    order(world, a_wish())
    for kill_id in ("", "nothing"):
        with pytest.raises(NotFoundError, match="kill"):
            lift(world.ports, POINT, kill_id, reason="mended", actor="oncall", now=T0)


class Quick:
    """A store in which somebody else publishes first, as often as a test says."""

    def __init__(self, store, times):
        self.store, self.times = store, times

    def __getattr__(self, name):
        return getattr(self.store, name)

    def commit(self, commit):
        if self.times:
            self.times -= 1
            raise ConflictError("somebody published first")
        self.store.commit(commit)


def test_a_kill_outranks_whoever_publishes_at_the_same_moment(world):
    kill = order_kill(replace(world.ports, store=Quick(world.store, 7)), POINT, a_wish(), now=T0)
    assert world.store.snapshot(POINT).kills == (kill,)
    with pytest.raises(ConflictError, match="run it again"):
        order_kill(
            replace(world.ports, store=Quick(world.store, 8)), POINT, a_wish(KillScope.ACTION, name="rebook"), now=T0
        )


def test_the_time_to_effect_is_recorded_when_every_router_took_the_kill(world):
    other = InProcessRouter("other", world.store, POINT)
    for router in (world.router, other):
        router.refresh(now=T0)
    kill = order(world, a_wish(), T0 + HOUR)
    world.router.refresh(now=T0 + HOUR + HOUR / 3_600)
    observe(world.ports, POINT, now=T0 + 2 * HOUR)
    assert kinds(world, "kill.observed") == []
    other.refresh(now=T0 + HOUR + 3 * HOUR / 3_600)
    other.refresh(now=T0 + 2 * HOUR)
    observe(world.ports, POINT, now=T0 + 2 * HOUR)
    observe(world.ports, POINT, now=T0 + 3 * HOUR)
    (entry,) = [e for e in world.store.entries() if e.record.kind == "kill.observed"]
    assert entry.record.body == {"kill": kill.id, "seconds": {"other": "3.000", "router": "1.000"}}
    assert entry.record.at == T0 + HOUR + 3 * HOUR / 3_600


def test_a_router_that_cannot_know_a_kill_is_not_safe_however_long_it_is_silent(world):
    world.router.refresh(now=T0)
    order(world, a_wish(mode=KillMode.REFUSE))
    assert not is_observed(world.ports, POINT, now=T0 + 100 * DAY)
    world.router.refresh(now=T0 + 100 * DAY)
    assert is_observed(world.ports, POINT, now=T0 + 100 * DAY)


def test_a_router_that_is_gone_for_good_is_taken_off_the_list_by_name(world):
    gone = InProcessRouter("gone", world.store, POINT)
    gone.refresh(now=T0)
    order(world, a_wish())
    world.router.refresh(now=T0)
    assert not is_observed(world.ports, POINT, now=T0)
    forget(world.ports, POINT, "gone", reason="its host was scrapped", actor="oncall", now=T0)
    assert is_observed(world.ports, POINT, now=T0)
    with pytest.raises(NotFoundError, match="router"):
        forget(world.ports, POINT, "gone", reason="again", actor="oncall", now=T0)
    assert kinds(world, "router.") == ["router.forgotten"]


def test_a_drill_goes_to_every_router_changes_no_answer_and_is_lifted(world):
    world.router.refresh(now=T0)
    before = [assigned(world, f"u{n}").release_id for n in range(50)]
    kill = begin_drill(world.ports, POINT, reason="monthly", actor="oncall", now=T0)
    assert begin_drill(world.ports, POINT, reason="monthly", actor="oncall", now=T0 + HOUR) == kill
    assert seen(world.ports, POINT, kill).missing == ("router",)
    assert [assigned(world, f"u{n}", now=T0 + HOUR / 3_600).release_id for n in range(50)] == before
    drill = seen(world.ports, POINT, kill)
    assert (drill.is_complete, drill.seconds) == (True, {"router": 1.0})
    end_drill(world.ports, POINT, drill, actor="oncall", now=T0 + HOUR)
    assert world.store.snapshot(POINT).kills == ()
    (entry,) = [e for e in world.store.entries() if e.record.kind == "kill.drilled"]
    assert entry.record.body["seconds"] == {"router": "1.000"}


def test_a_drill_that_no_router_saw_is_not_complete(world):
    kill = begin_drill(world.ports, POINT, reason="monthly", actor="oncall", now=T0)
    assert not seen(world.ports, POINT, kill).is_complete


def a_pin(world, **changes):
    return replace(Pin(world.champion, "oncall", "in dispute", T0 + 30 * DAY, "u1"), **changes)


def test_a_pinned_unit_keeps_its_release_through_a_rollout_until_the_pin_expires(world):
    pin = set_pin(world.ports, POINT, a_pin(world), now=T0)
    _, now = world.advance_to(State.CANARY)
    assert world.store.snapshot(POINT).pins == (pin,)
    assert assigned(world, now=now).share == 0.0
    assert assigned(world, "u2", now=now).share > 0
    watch(world.ports, now=pin.expires_at)
    assert world.store.snapshot(POINT).pins == ()


def test_pins_are_set_and_lifted_once_and_the_ledger_does_not_name_the_unit(world):
    pin = set_pin(world.ports, POINT, a_pin(world, release_id=world.champion[7:15]), now=T0)
    assert set_pin(world.ports, POINT, pin, now=T0) == pin
    lift_pin(world.ports, POINT, pin, reason="settled", actor="oncall", now=T0)
    with pytest.raises(NotFoundError):
        lift_pin(world.ports, POINT, pin, reason="settled", actor="oncall", now=T0)
    entries = [e for e in world.store.entries() if e.record.kind.startswith("pin.")]
    assert [e.record.kind for e in entries] == ["pin.set", "pin.lifted"]
    assert all("u1" not in str(e.record.body) for e in entries)


def test_a_pin_is_no_way_past_the_gates(world):
    with pytest.raises(RefusedError, match="never served"):
        set_pin(world.ports, POINT, a_pin(world, release_id=world.challenger), now=T0)
    _, now = world.advance_to(State.SHADOW)
    with pytest.raises(RefusedError, match="never served"):
        set_pin(world.ports, POINT, a_pin(world, release_id=world.challenger), now=now)


def test_a_pin_that_contradicts_or_is_over_is_refused(world):
    set_pin(world.ports, POINT, a_pin(world), now=T0)
    with pytest.raises(RefusedError, match="same unit"):
        set_pin(world.ports, POINT, a_pin(world, reason="other"), now=T0)
    with pytest.raises(RefusedError, match="is over"):
        set_pin(world.ports, POINT, a_pin(world, unit_key="u2", expires_at=T0), now=T0)
    elsewhere = world.register(a_release(release={"name": "other", "version": "1", "decision_point": "elsewhere"}))
    with pytest.raises(RefusedError, match="decides for 'elsewhere'"):
        set_pin(world.ports, POINT, a_pin(world, release_id=elsewhere, unit_key="u3"), now=T0)


def test_a_rollback_takes_pinned_units_along_and_a_router_that_cannot_know_is_not_safe(world):
    rollout, now = world.advance_to(State.CANARY)
    set_pin(world.ports, POINT, a_pin(world, release_id=world.challenger), now=now)
    assert assigned(world, now=now).release_id == world.challenger
    kill(world.ports, world.challenger, reason="wrong", actor="oncall", now=now)
    (order,) = world.store.snapshot(POINT).kills
    assert (order.name, order.to, order.by) == (world.challenger, world.champion, "oncall")
    assert kinds(world, "kill.") == ["kill.ordered"]
    assert not is_observed(world.ports, POINT, now=now + 100 * DAY)
    assert assigned(world, now=now).release_id == world.champion
    assert is_observed(world.ports, POINT, now=now)
    assert world.step(rollout, now).rollout.state is State.ROLLED_BACK


def test_a_rollback_without_pins_orders_no_kill(world):
    _, now = world.advance_to(State.CANARY)
    kill(world.ports, world.challenger, reason="wrong", actor="oncall", now=now)
    assert world.store.snapshot(POINT).kills == ()


def test_a_release_that_is_killed_is_not_rolled_out_until_the_kill_is_lifted(world):
    standing = order(world, a_wish(KillScope.RELEASE, name=world.challenger))
    with pytest.raises(RefusedError, match="is killed"):
        world.start()
    lift(world.ports, POINT, standing.id, reason="mended", actor="oncall", now=T0)
    assert world.start().state is State.GATES


def test_a_release_that_only_an_order_serves_is_killed_with_a_mode(world):
    _, now = world.advance_to(State.CHAMPION)
    set_pin(world.ports, POINT, a_pin(world), now=now)
    with pytest.raises(RefusedError, match="add --mode with 'previous release'"):
        kill(world.ports, world.champion, reason="wrong", actor="oncall", now=now)
    order(world, a_wish(KillScope.RELEASE, KillMode.PREVIOUS_RELEASE, name=world.champion), now)
    assert assigned(world, now=now).release_id == world.challenger
    with pytest.raises(RefusedError, match="serves nothing"):
        kill(world.ports, world.champion, reason="wrong", actor="oncall", now=now)


def test_a_drill_that_was_cut_off_keeps_no_rollback_waiting_and_is_no_kill(world):
    world.router.refresh(now=T0)
    begin_drill(world.ports, POINT, reason="monthly", actor="oncall", now=T0)
    (report,) = world.store.reports(POINT)
    assert standing_of(report, world.store.snapshot(POINT), now=T0) is Standing.SAFE
    world.router.refresh(now=T0)
    observe(world.ports, POINT, now=T0)
    assert kinds(world, "kill.observed") == []


def test_a_promotion_is_not_taken_up_while_a_router_cannot_know_a_kill(world):
    gone = InProcessRouter("gone", world.store, POINT)
    gone.refresh(now=T0)
    order(world, a_wish(KillScope.ACTION, name="rebook"))
    world.router.refresh(now=T0)
    assert not is_taken_up(world.ports, POINT, world.champion, now=T0)
    gone.refresh(now=T0)
    assert is_taken_up(world.ports, POINT, world.champion, now=T0)


def test_every_snapshot_that_is_published_or_renewed_is_signed(tmp_path):
    world = World(tmp_path)
    world.ports = replace(world.ports, signer=HmacKey("k", b"secret"))
    keys = {"k": HmacKey("k", b"secret")}
    rollout, now = world.advance_to(State.CANARY)
    require_signed(world.store.snapshot(POINT), keys)
    lease = world.store.snapshot(POINT).lease_until
    step(world.ports, rollout.id, now=now + HOUR, actor="sweep", may=frozenset())
    assert world.store.snapshot(POINT).lease_until > lease
    require_signed(world.store.snapshot(POINT), keys)
    order(world, a_wish(), now + HOUR)
    require_signed(world.store.snapshot(POINT), keys)
