from dataclasses import replace

import pytest
from builders import DAY, HOUR, POINT, SHADOW, STAGES, T0, World, a_finding, a_plan, a_rollout

from seatrial.control.replaying import Result, replay
from seatrial.control.watching import watch
from seatrial.errors import RefusedError
from seatrial.gates.finding import Question
from seatrial.gates.load import ShadowLoad, load
from seatrial.ports import RouterReport
from seatrial.rollout import REQUIRED, Action, State, decide, move
from seatrial.routing import ShadowBudget
from seatrial.verdict import Verdict

COST = {"sampling": "50 %", "max_per_s": 20, "dependencies": {"features": 5}, "pause": "2 h"}
PLAN = a_plan(stages=[{**stage, "cost": COST} if stage["stage"] == "shadow" else stage for stage in STAGES])
HELD = ShadowLoad("a", 5_000, sent=900, shed=10, per_s=18.0, dependencies={"features": 4.0})
BROKEN = replace(HELD, router="b", sampling=1, is_held=False)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def said(world, now, *loads):
    number = world.store.snapshot(POINT).number
    for each in loads:
        world.store.report(RouterReport(each.router, POINT, number, now, world.champion, None, each))


def in_shadow(world):
    rollout, now = world.advance_to(State.SHADOW, PLAN)
    world.router.refresh(now=now)
    return rollout, now


@pytest.mark.parametrize(
    ("loads", "verdict"),
    [([HELD], Verdict.PASS), ([HELD, BROKEN], Verdict.FAIL), ([], Verdict.INCONCLUSIVE)],
)
def test_one_router_that_cannot_keep_to_the_budget_is_enough_and_none_that_says_so_is_no_pass(loads, verdict):
    assert load(loads).verdict is verdict


def test_routers_are_told_the_budget_while_the_shadow_lasts(world):
    in_shadow(world)
    assert world.store.snapshot(POINT).budget == ShadowBudget(5_000, 20.0, 8, {"features": 5.0})


def test_a_shadow_that_costs_too_much_is_paused_by_whoever_sees_it_and_copies_stop(world):
    rollout, now = in_shadow(world)
    said(world, now, HELD, BROKEN)
    watch(world.ports, now=now)
    paused = world.store.rollout(rollout.id)
    assert (paused.state, paused.reason) == (State.SHADOW_PAUSED, "b cannot keep to the budget")
    assert paused.deadline == rollout.deadline
    assert not world.store.snapshot(POINT).shadow


def test_a_paused_shadow_is_tried_again_after_its_pause_and_soaks_anew(world):
    rollout, now = in_shadow(world)
    said(world, now, BROKEN)
    assert world.step(rollout, now).rollout.state is State.SHADOW_PAUSED
    waits = world.step(rollout, now + HOUR)
    assert (waits.is_moved, waits.decision.reason) == (False, "paused for another 1 h: b cannot keep to the budget")
    again = world.step(rollout, now + 2 * HOUR).rollout
    assert (again.state, again.entered_at, again.deadline) == (State.SHADOW, now + 2 * HOUR, rollout.deadline)
    assert world.store.snapshot(POINT).shadow


def test_the_watch_does_not_begin_the_shadow_again(world):
    rollout, now = in_shadow(world)
    said(world, now, BROKEN)
    watch(world.ports, now=now)
    (seen,) = [each for each in watch(world.ports, now=now + 2 * HOUR) if each.rollout.id == rollout.id]
    assert (seen.rollout.state, seen.is_due) == (State.SHADOW_PAUSED, True)


def test_pauses_count_against_the_deadline(world):
    rollout, now = in_shadow(world)
    said(world, now, BROKEN)
    world.step(rollout, now)
    assert world.step(rollout, rollout.deadline).rollout.state is State.AWAITING_DECISION


def test_a_shadow_whose_cost_nobody_reports_does_not_advance(world):
    rollout, now = in_shadow(world)
    outcome = world.step(rollout, now + 2 * DAY)
    assert (outcome.is_moved, outcome.decision.reason) == (False, "no router reports what copies for the shadow cost")
    said(world, now + 2 * DAY, HELD)
    assert world.step(rollout, now + 2 * DAY).rollout.state is State.CANARY


@pytest.mark.parametrize("changes", [{"number": 1}, {"at": T0}])
def test_what_a_router_said_of_another_snapshot_or_long_ago_is_no_report(world, changes):
    rollout, now = in_shadow(world)
    number = world.store.snapshot(POINT).number
    report = RouterReport("a", POINT, number, now + 2 * DAY, world.champion, None, HELD)
    world.store.report(replace(report, **changes))
    assert not world.step(rollout, now + 2 * DAY).is_moved


def test_a_shadow_that_fails_is_not_saved_by_its_cost():
    findings = [
        *[a_finding(question) for question in sorted(REQUIRED[State.SHADOW])],
        load([BROKEN]),
        a_finding(Question.SHADOW, Verdict.FAIL),
    ]
    decision = decide(a_rollout(State.SHADOW, SHADOW), PLAN, findings, now=T0)
    assert (decision.action, decision.reason) == (Action.ROLL_BACK, findings[-1].reason)


def test_only_a_shadow_can_be_paused():
    pause = decide(a_rollout(State.SHADOW, SHADOW), PLAN, [load([BROKEN])], now=T0)
    assert pause.action is Action.PAUSE
    with pytest.raises(RefusedError, match="pause is not possible from canary"):
        move(a_rollout(), PLAN, pause, now=T0)


def test_a_pause_is_replayed_from_what_is_stored(world):
    rollout, now = in_shadow(world)
    said(world, now, BROKEN)
    world.step(rollout, now)
    world.step(rollout, now + 2 * HOUR)
    moves = replay(world.store, rollout.id).moves
    assert {move.result for move in moves} == {Result.SAME}
    assert len(moves) == 3
