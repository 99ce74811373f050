import copy
from dataclasses import replace

import pytest
from builders import (
    CANARY,
    CANARY_2,
    DAY,
    HOUR,
    PLAN,
    POINT,
    STAGES,
    T0,
    World,
    a_plan,
    a_release,
    evidence_at,
)

from seatrial.adapters.memory import MemoryStore
from seatrial.adapters.router import InProcessRouter
from seatrial.adapters.sql import SqlStore
from seatrial.control.ending import kill, roll_back_decision_point
from seatrial.control.judging import judge
from seatrial.control.moving import WATCH
from seatrial.control.observing import is_observed
from seatrial.control.opening import register
from seatrial.control.publishing import agree, parts_in
from seatrial.control.watching import RESTARTS, SWEEP, evaluate_labels, is_open, may_restart, watch
from seatrial.errors import ConflictError, InvalidDocumentError, NotFoundError, RefusedError, UnavailableError
from seatrial.evidence import Evidence
from seatrial.gates.finding import Question
from seatrial.ledger import verify
from seatrial.ports import Commit, RouterReport
from seatrial.rollout import FINAL, SERVING, Action, Choice, State, share_of
from seatrial.routing import RoutingSnapshot
from seatrial.units import plain_name
from seatrial.verdict import Verdict

SERVING_STATES = [State.CANARY, State.LABELS, State.AWAITING_APPROVAL, State.PROMOTING, State.CHAMPION]
LEASE = 12 * HOUR


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "files")


@pytest.fixture(params=["memory", "sqlite"])
def either(request, tmp_path):
    """A world on each of the stores that need no server."""
    if request.param == "memory":
        yield World(tmp_path / "files")
        return
    store = SqlStore(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.create_tables()
    yield World(tmp_path / "files", store)
    store.close()


def harmful(now):
    return evidence_at(now, ratio=3.0)


def kinds(world, rollout=None):
    return [entry.record.kind for entry in world.store.entries(None if rollout is None else rollout.id)]


def path(world, rollout):
    return [e.record.body["to"] for e in world.store.entries(rollout.id) if e.record.kind == "rollout.decided"]


def test_a_release_without_harm_comes_from_the_gates_to_champion(either):
    rollout, now = either.advance_to(State.CHAMPION)
    assert path(either, rollout) == [
        "shadow",
        "canary",
        "canary",
        "labels",
        "awaiting approval",
        "promoting",
        "champion",
    ]
    assert dict(either.store.champions()) == {POINT: either.challenger}
    assert either.share == pytest.approx(0.95)
    assert either.store.snapshot(POINT).fallback == either.challenger
    shares = [e.record.body["slots"] for e in either.store.entries() if e.record.kind == "share.intended"]
    assert shares == [0, 500, 2_000, 9_500]
    assert verify(either.store.entries()) == len(either.store.entries())
    now += 14 * DAY
    watch(either.ports, now=now)
    closed = either.store.rollout(rollout.id)
    assert (closed.state, closed.deadline) == (State.CHAMPION, None)
    assert not is_open(closed)
    alone = either.store.snapshot(POINT)
    assert (alone.champion, alone.fallback, alone.challenger, alone.slots) == (
        either.challenger,
        either.challenger,
        None,
        0,
    )


def test_every_decided_move_names_stored_evidence_and_its_findings(either):
    rollout, _ = either.advance_to(State.CHAMPION)
    for entry in either.store.entries(rollout.id):
        if entry.record.kind == "rollout.decided":
            digest = entry.record.body["evidence_digest"]
            assert either.store.evidence(digest)
            assert entry.record.body["findings"] or entry.record.body["to"] in ("promoting", "champion")
    answer = next(e.record.body["answer"] for e in either.store.entries() if "answer" in e.record.body)
    assert (answer["choice"], answer["by"], answer["reason"]) == ("approve", "approver", "read it")


@pytest.mark.parametrize("state", SERVING_STATES)
def test_harm_takes_a_serving_release_out_in_one_watch(either, state):
    rollout, now = either.advance_to(state)
    assert either.share > 0
    now += HOUR
    either.router.refresh(now=now)
    either.evidence.says = harmful(now)
    (watched,) = watch(either.ports, now=now)
    assert watched.is_due
    assert either.store.rollout(rollout.id).state is State.ROLLING_BACK
    assert either.share == 0
    snapshot = either.store.snapshot(POINT)
    assert (snapshot.champion, snapshot.fallback) == (either.champion, either.champion)
    assert dict(either.store.champions()) == {POINT: either.champion}
    either.router.refresh(now=now)
    watch(either.ports, now=now)
    assert either.store.rollout(rollout.id).state is State.ROLLED_BACK
    assert "wrong-decision" in either.store.rollout(rollout.id).reason
    verify(either.store.entries())


@pytest.mark.parametrize(
    "says",
    [
        Evidence(),
        UnavailableError("down"),
        evidence_at(T0 - 100 * DAY),
        evidence_at(T0 + 100 * DAY, lost=0.5),
        evidence_at(T0 + 100 * DAY, units=10),
        evidence_at(T0 + 100 * DAY, ratio=1.4),
    ],
    ids=["nothing", "down", "stale", "mismatch", "little", "worse"],
)
@pytest.mark.parametrize(("stage", "share"), [(CANARY, 0.05), (CANARY_2, 0.2)])
def test_only_evidence_that_rules_harm_out_raises_the_share(world, stage, share, says):
    rollout, now = world.advance_to(State.CANARY, stage=stage)
    world.evidence.says = says
    for _ in range(20):
        now += DAY
        world.router.refresh(now=now)
        rollout = world.step(rollout, now).rollout
        assert world.share <= share
        assert world.share <= share_of(rollout, a_plan())
    assert rollout.state in (State.AWAITING_DECISION, State.ROLLING_BACK, State.ROLLED_BACK)


@pytest.mark.parametrize("labelled", [0.0, 0.5, 0.79])
def test_too_few_labels_never_promote(world, labelled):
    rollout, now = world.advance_to(State.LABELS)
    while rollout.state is State.LABELS:
        now += DAY
        world.evidence.says = evidence_at(now, labelled=labelled)
        rollout = world.step(rollout, now).rollout
    assert rollout.state is State.AWAITING_DECISION
    assert "have a label" in rollout.reason


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.ERROR, None, UnavailableError("down")])
def test_a_release_that_could_not_be_probed_sees_no_traffic(world, verdict):
    rollout = world.start()
    world.probe.verdict = verdict
    outcome = world.step(rollout, T0)
    assert outcome.decision.action is Action.HOLD
    assert world.step(rollout, T0 + DAY).rollout.state is State.AWAITING_DECISION
    assert world.store.snapshot(POINT).number == 1


def test_a_release_that_fails_its_probe_is_rejected_without_any_snapshot(either):
    rollout = either.start()
    either.probe.verdict = Verdict.FAIL
    assert either.step(rollout, T0).rollout.state is State.REJECTED
    assert either.store.snapshot(POINT).number == 1
    either.start(request="again")


def test_the_watch_never_widens_exposure(world):
    rollout, now = world.start(), T0
    for _ in range(30):
        now += DAY
        world.router.refresh(now=now)
        watch(world.ports, now=now)
        assert world.share == 0
        assert world.store.rollout(rollout.id).state is State.GATES


def test_what_waits_for_its_flow_is_due_and_what_waits_for_time_is_not(world):
    rollout, now = world.advance_to(State.CANARY)
    world.router.refresh(now=now)
    (waiting,) = watch(world.ports, now=now + HOUR)
    assert (waiting.rollout.id, waiting.is_due) == (rollout.id, False)
    (due,) = watch(world.ports, now=now + 2 * DAY)
    assert due.is_due
    assert world.store.last_beat(SWEEP) == now + 2 * DAY


def lease_of(world):
    return world.store.snapshot(POINT).lease_until


def test_a_lease_is_renewed_after_fresh_evidence_was_judged(either):
    _, now = either.advance_to(State.CANARY)
    assert lease_of(either) == now + LEASE
    watch(either.ports, now=now + HOUR)
    assert lease_of(either) == now + HOUR + LEASE


@pytest.mark.parametrize("state", [State.LABELS, State.AWAITING_APPROVAL, State.PROMOTING, State.CHAMPION])
def test_a_lease_is_renewed_in_every_state_that_serves(world, state):
    _, now = world.advance_to(state)
    watch(world.ports, now=now + HOUR)
    assert lease_of(world) == now + HOUR + LEASE


@pytest.mark.parametrize(
    "says",
    [UnavailableError("down"), Evidence(), evidence_at(T0), evidence_at(T0 + 100 * DAY, lost=0.5)],
    ids=["down", "nothing", "stale", "mismatch"],
)
def test_a_lease_is_not_renewed_without_fresh_evidence_that_counts(world, says):
    _, now = world.advance_to(State.CANARY)
    before = lease_of(world)
    world.evidence.says = says
    for hours in (1, 6, 11):
        watch(world.ports, now=now + hours * HOUR)
        assert lease_of(world) == before


def test_harm_of_a_dry_run_is_recorded_and_the_lease_renewed_all_the_same(world):
    guardrails = copy.deepcopy(PLAN["guardrails"])
    guardrails.append({**guardrails[0], "name": "trial", "consequence": "roll_back", "dry_run": True})
    plan = a_plan(guardrails=guardrails)
    rollout, now = world.advance_to(State.CANARY, plan)
    now += HOUR
    calm, bad = evidence_at(now, plan=plan), evidence_at(now, plan=plan, ratio=3.0)
    world.evidence.says = replace(
        calm, cells={cell: (bad if cell.guardrail == "trial" else calm).cells[cell] for cell in calm.cells}
    )
    watch(world.ports, now=now)
    found = [f for f in world.store.looks(rollout.id)[-1].findings if f.subject == "trial"]
    assert (Question.HARM, Verdict.FAIL) in [(f.question, f.verdict) for f in found]
    assert lease_of(world) == now + LEASE


def test_when_the_control_plane_stops_every_unit_returns_to_the_champion_with_the_lease(world):
    _, now = world.advance_to(State.CANARY)
    world.router.refresh(now=now)

    def served(at):
        return {world.router.assign(f"u{n}", {}, now=at).release_id for n in range(500)}

    assert served(now + LEASE - HOUR) == {world.champion, world.challenger}
    assert served(now + LEASE) == served(now + 100 * DAY) == {world.champion}


@pytest.mark.parametrize("state", [State.GATES, State.SHADOW, State.AWAITING_DECISION, *SERVING_STATES])
def test_a_person_can_kill_a_release_in_every_state_before_its_end(either, state):
    if state is State.AWAITING_DECISION:
        rollout, now = either.start(), T0 + 2 * DAY
        either.probe.verdict = None
        either.step(rollout, now)
    else:
        rollout, now = either.advance_to(state)
    # Neither logs nor model files may be needed.
    either.evidence.says = AssertionError("not asked")
    (either.folder / "model.txt").unlink()
    ended = kill(either.ports, either.challenger, reason="fire", actor="on-call", now=now)
    assert ended.state is (State.REJECTED if state is State.GATES else State.ROLLING_BACK)
    assert ended.reason == "on-call: fire"
    assert either.share == 0
    snapshot = either.store.snapshot(POINT)
    assert snapshot.champion == snapshot.fallback == either.champion
    assert either.store.entries(rollout.id)[-1].record.actor == "on-call"
    if ended.state is State.REJECTED:
        with pytest.raises(RefusedError, match="serves nothing"):
            kill(either.ports, either.challenger, reason="again", actor="on-call", now=now)
    else:
        again = kill(either.ports, either.challenger, reason="again", actor="on-call", now=now)
        assert again == either.store.rollout(rollout.id) == ended


def test_the_first_champion_cannot_be_killed_for_there_is_nothing_to_return_to(world):
    with pytest.raises(RefusedError, match="no release to return to"):
        kill(world.ports, world.champion, reason="fire", actor="on-call", now=T0)
    with pytest.raises(RefusedError, match="nothing to roll back"):
        roll_back_decision_point(world.ports, POINT, reason="fire", actor="on-call", now=T0)


def test_unknown_names_are_not_found(world):
    with pytest.raises(NotFoundError, match="nothing"):
        kill(world.ports, "nothing", reason="fire", actor="on-call", now=T0)
    with pytest.raises(NotFoundError, match=POINT):
        roll_back_decision_point(world.ports, "flight-delays", reason="fire", actor="on-call", now=T0)


def with_second(world):
    """Promote the challenger, take a second one to its first canary, and return both rollouts with the time."""
    promoted, now = world.advance_to(State.CHAMPION)
    second = world.start(world.register(a_release("second", world.challenger)), request="second", now=now)
    while second.state is not State.CANARY:
        now += DAY
        world.router.refresh(now=now)
        second = world.step(second, now).rollout
    return world.store.rollout(promoted.id), second, now


def test_rolling_back_a_champion_ends_its_challenger_too(either):
    promoted, second, now = with_second(either)
    ended = kill(either.ports, promoted.challenger, reason="fire", actor="on-call", now=now)
    assert (ended.id, ended.state) == (promoted.id, State.ROLLING_BACK)
    other = either.store.rollout(second.id)
    assert other.state is State.ROLLING_BACK
    assert "its champion was demoted" in other.reason
    assert dict(either.store.champions()) == {POINT: either.champion}
    for _ in range(3):
        watch(either.ports, now=now)
        snapshot = either.store.snapshot(POINT)
        assert (snapshot.champion, snapshot.fallback, snapshot.slots) == (either.champion, either.champion, 0)
        either.router.refresh(now=now)
    assert {either.store.rollout(r.id).state for r in (promoted, second)} == {State.ROLLED_BACK}


def test_harm_shown_by_late_labels_demotes_a_champion_and_ends_its_challenger(either):
    promoted, second, now = with_second(either)
    either.evidence.says = harmful(now)
    after, judged = evaluate_labels(either.ports, promoted, now=now, actor="labels")
    assert after.state is State.ROLLING_BACK
    assert either.store.rollout(second.id).state is State.ROLLING_BACK
    assert any(f.verdict is Verdict.FAIL for f in judged.findings)
    assert either.store.snapshot(POINT).fallback == either.champion


def test_a_second_release_supersedes_the_first_which_retires_when_its_window_closes(either):
    promoted, second, now = with_second(either)
    while second.state is not State.CHAMPION:
        now += DAY
        either.router.refresh(now=now)
        choice = Choice.APPROVE if second.state is State.AWAITING_APPROVAL else None
        second = either.step(second, now, choice).rollout
    assert either.store.rollout(promoted.id).state is State.SUPERSEDED
    watch(either.ports, now=now + 20 * DAY)
    assert either.store.rollout(promoted.id).state is State.RETIRED
    verify(either.store.entries())


def test_after_a_rejected_challenger_the_champions_holdback_is_in_force_again(world):
    _, second, now = with_second(world)
    kill(world.ports, second.challenger, reason="fire", actor="on-call", now=now)
    world.router.refresh(now=now)
    watch(world.ports, now=now)
    watch(world.ports, now=now)
    snapshot = world.store.snapshot(POINT)
    assert (snapshot.challenger, snapshot.fallback, snapshot.slots) == (world.challenger, world.challenger, 9_500)


class Interrupted(MemoryStore):
    """A store in which something happens right after the rollouts were read."""

    then = None

    def rollouts(self, decision_point=None):
        seen = super().rollouts(decision_point)
        act, self.then = self.then, None
        if act is not None:
            act()
        return seen


def test_a_correction_that_was_decided_before_a_rollback_never_returns_the_share(tmp_path):
    store = Interrupted()
    world = World(tmp_path / "files", store)
    _, now = world.advance_to(State.CANARY)
    store.then = lambda: kill(world.ports, world.challenger, reason="fire", actor="on-call", now=now)
    assert not agree(world.ports, POINT, now=now, actor="test")
    assert world.share == 0


def test_a_correction_of_a_share_that_changed_meanwhile_is_refused_and_the_watch_goes_on(tmp_path):
    store = Interrupted()
    world = World(tmp_path / "files", store)
    rollout, now = world.advance_to(State.CANARY)
    present = store.snapshot(POINT)
    for ask in (agree, watch):
        wrong = replace(present, number=store.snapshot(POINT).number + 1, slots=7)
        corrected = replace(present, number=wrong.number + 1)
        store.commit(Commit((), snapshot=wrong))
        store.then = lambda snapshot=corrected: store.commit(Commit((), snapshot=snapshot))
        if ask is watch:
            assert [seen.rollout.id for seen in watch(world.ports, now=now)] == [rollout.id]
        else:
            with pytest.raises(ConflictError, match="is present"):
                agree(world.ports, POINT, now=now, actor="test")
        assert store.snapshot(POINT).slots == 500
    assert kinds(world, rollout).count("share.corrected") == 0


def test_a_kill_outranks_whoever_moves_the_rollout_at_the_same_moment(tmp_path):
    store = Interrupted()
    world = World(tmp_path / "files", store)
    rollout, now = world.advance_to(State.CANARY)
    now += 2 * DAY
    world.router.refresh(now=now)

    def meanwhile():
        store.then = lambda: world.step(rollout, now)

    # The first reading finds the release's rollout, the second is of the rollback itself.
    store.then = meanwhile
    ended = kill(world.ports, world.challenger, reason="fire", actor="on-call", now=now)
    assert ended.state is State.ROLLING_BACK
    assert path(world, rollout)[-2:] == ["canary", "rolling back"]
    assert world.share == 0


def test_a_router_that_disagrees_with_the_rollouts_is_corrected_once(either):
    rollout, now = either.advance_to(State.CANARY)
    present = either.store.snapshot(POINT)
    either.store.commit(Commit((), snapshot=replace(present, number=present.number + 1, slots=9_999)))
    assert agree(either.ports, POINT, now=now, actor="test")
    assert not agree(either.ports, POINT, now=now, actor="test")
    assert either.share == 0.05
    assert kinds(either, rollout).count("share.corrected") == 1


def rolling_back(world):
    rollout, now = world.advance_to(State.CANARY)
    world.router.refresh(now=now)
    kill(world.ports, world.challenger, reason="fire", actor="on-call", now=now)
    return rollout, now


def test_a_rollback_that_a_router_did_not_follow_is_incomplete_until_its_lease_is_over(either):
    rollout, now = rolling_back(either)
    # The router last took a lease that was renewed since, and is silent.
    held = RouterReport("router", POINT, 3, now, either.champion, now + 30 * HOUR)
    either.store.report(held)
    for hours in (0, 1, 11.9):
        assert either.step(rollout, now + hours * HOUR).rollout.state is State.ROLLING_BACK
    for hours in (12, 20, 29.9):
        assert either.step(rollout, now + hours * HOUR).rollout.state is State.ROLLBACK_INCOMPLETE
        assert either.store.rollout(rollout.id).is_active
    assert either.step(rollout, now + 30 * HOUR).rollout.state is State.ROLLED_BACK


def test_a_silent_router_is_safe_only_when_its_fallback_is_the_present_one(world):
    rollout, now = rolling_back(world)
    late = now + 100 * DAY
    world.store.report(RouterReport("router", POINT, 3, now, world.challenger, now + LEASE))
    assert not is_observed(world.ports, POINT, now=late)
    world.store.report(RouterReport("router", POINT, 3, now, world.champion, now + LEASE))
    assert is_observed(world.ports, POINT, now=now + LEASE)
    assert not is_observed(world.ports, POINT, now=now + LEASE - HOUR)
    world.store.report(RouterReport("other", POINT, 3, now, world.challenger, None))
    assert not is_observed(world.ports, POINT, now=late)
    assert world.step(rollout, late).rollout.state is State.ROLLBACK_INCOMPLETE


def test_no_router_at_all_is_not_an_observation(tmp_path):
    world = World(tmp_path / "files")
    rollout = world.start()
    world.step(rollout, T0)
    world.step(rollout, T0 + DAY)
    assert not is_observed(world.ports, POINT, now=T0 + DAY)
    kill(world.ports, world.challenger, reason="fire", actor="on-call", now=T0 + DAY)
    for days in (1, 2, 1000):
        state = world.step(rollout, T0 + days * DAY).rollout.state
    assert state is State.ROLLBACK_INCOMPLETE
    assert "share.observed" not in kinds(world)


def test_every_router_must_have_followed(world):
    _, now = rolling_back(world)
    other = InProcessRouter("other", world.store, POINT)
    world.router.refresh(now=now)
    assert is_observed(world.ports, POINT, now=now)
    world.store.report(RouterReport("other", POINT, 3, now, world.champion, now + LEASE))
    assert not is_observed(world.ports, POINT, now=now)
    other.refresh(now=now)
    assert is_observed(world.ports, POINT, now=now)


def test_nothing_is_promoted_before_every_router_serves_it(world):
    rollout, now = world.advance_to(State.PROMOTING)
    assert world.step(rollout, now).rollout.state is State.PROMOTING
    assert dict(world.store.champions()) == {POINT: world.champion}
    world.router.refresh(now=now)
    assert world.step(rollout, now).rollout.state is State.CHAMPION


@pytest.mark.parametrize(("fallback", "state"), [("champion", State.CHAMPION), ("another", State.PROMOTING)])
def test_a_router_that_is_gone_holds_a_promotion_up_unless_it_can_serve_the_champion_alone(world, fallback, state):
    rollout, now = world.advance_to(State.PROMOTING)
    world.router.refresh(now=now)
    served = world.champion if fallback == "champion" else fallback
    world.store.report(RouterReport("gone", POINT, 3, now, served, now + HOUR))
    assert world.step(rollout, now).rollout.state is State.PROMOTING
    assert world.step(rollout, now + HOUR).rollout.state is state


def test_harm_outranks_the_routers_that_already_serve_a_promotion(world):
    rollout, now = world.advance_to(State.PROMOTING)
    world.router.refresh(now=now)
    world.evidence.says = harmful(now)
    assert world.step(rollout, now).rollout.state is State.ROLLING_BACK
    assert dict(world.store.champions()) == {POINT: world.champion}


def test_each_snapshot_is_recorded_as_observed_once(world):
    _, now = world.advance_to(State.CANARY)
    for hours in range(5):
        world.router.refresh(now=now + hours * HOUR)
        watch(world.ports, now=now + hours * HOUR)
    numbers = [e.record.body["number"] for e in world.store.entries() if e.record.kind == "share.observed"]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == world.store.snapshot(POINT).number


class Published(MemoryStore):
    """A store in which somebody publishes between two readings of the snapshot."""

    following = None

    def snapshot(self, decision_point):
        present = super().snapshot(decision_point)
        if self.following is not None:
            self.commit(Commit((), snapshot=replace(self.following, number=present.number + 1)))
            self.following = None
        return present


def test_a_snapshot_that_was_published_meanwhile_is_not_recorded_as_observed(tmp_path):
    store = Published()
    world = World(tmp_path / "files", store)
    rollout, now = world.advance_to(State.CANARY)
    world.router.refresh(now=now)
    present = store.snapshot(POINT)
    store.following = replace(present, slots=2_000)
    world.step(rollout, now)
    numbers = [e.record.body["number"] for e in store.entries() if e.record.kind == "share.observed"]
    assert present.number + 1 not in numbers


def test_a_plan_for_a_segment_tries_it_alone_and_ends_with_a_question(world):
    plan = a_plan(segment="commuter", stages=STAGES[:5])
    rollout, now = world.advance_to(State.CANARY, plan)
    snapshot = world.store.snapshot(POINT)
    assert (snapshot.segment, dict(snapshot.when)) == ("commuter", {"carrier": ("OO", "YV")})
    rollout = world.start(plan=plan)
    for _ in range(10):
        now += DAY
        world.router.refresh(now=now)
        rollout = world.step(rollout, now).rollout
        world.router.refresh(now=now)
        outside = {world.router.assign(f"u{n}", {"carrier": "UA"}, now=now).release_id for n in range(100)}
        assert outside == {world.champion}
    assert rollout.state is State.AWAITING_DECISION
    assert "promotion needs a plan for all segments" in rollout.reason
    assert "promoting" not in path(world, rollout)
    with pytest.raises(RefusedError, match="cannot be approved"):
        world.step(rollout, now, Choice.APPROVE)


@pytest.mark.parametrize("by", ["nobody", "", "Approver"])
@pytest.mark.parametrize("choice", [Choice.APPROVE, Choice.REJECT])
def test_an_answer_of_somebody_unknown_is_refused(world, by, choice):
    refused(world, choice, "not among the approvers", by=by)


def refused(world, choice, why, **changes):
    rollout, now = world.advance_to(State.AWAITING_APPROVAL)
    before = len(world.store.entries())
    with pytest.raises(RefusedError, match=why):
        world.step(rollout, now, choice, **changes)
    assert world.store.rollout(rollout.id) == rollout
    assert [e.record.kind for e in world.store.entries()[before:]] in ([], ["share.observed"])


def test_an_approval_needs_a_role_that_the_plan_names(world):
    refused(world, Choice.APPROVE, "risk-owner", by="reader")


@pytest.mark.parametrize("by", ["requester", "author", "trainer"])
def test_nobody_approves_what_they_asked_for_or_made(world, by):
    refused(world, Choice.APPROVE, "somebody else must approve", by=by)


@pytest.mark.parametrize("reason", ["", " ", "\n\t"])
@pytest.mark.parametrize("choice", [Choice.APPROVE, Choice.REJECT])
def test_an_answer_needs_a_reason(world, choice, reason):
    refused(world, choice, "has no reason", reason=reason)


@pytest.mark.parametrize("by", ["reader", "author", "requester"])
def test_everybody_who_is_known_may_reject(world, by):
    rollout, now = world.advance_to(State.AWAITING_APPROVAL)
    assert world.step(rollout, now, Choice.REJECT, by=by).rollout.state is State.ROLLING_BACK
    assert world.share == 0


def test_an_answer_to_evidence_that_changed_is_void(world):
    refused(world, Choice.APPROVE, "answer again", evidence_digest="sha256:" + "0" * 64)


def test_an_answer_moves_nothing_that_waits_for_no_answer(world):
    rollout, now = world.advance_to(State.CANARY)
    assert world.step(rollout, now, Choice.APPROVE).rollout.state is State.CANARY


def test_a_person_continues_undecided_evidence_for_one_more_deadline(world):
    rollout, now = world.advance_to(State.LABELS)
    world.evidence.says = evidence_at(now + 21 * DAY, units=100)
    now += 21 * DAY
    assert world.step(rollout, now).rollout.state is State.AWAITING_DECISION
    assert world.share == 0
    again = world.step(rollout, now, Choice.CONTINUE).rollout
    assert (again.state, again.deadline, world.share) == (State.LABELS, now + 21 * DAY, 0.2)


def test_registering_refuses_all_problems_at_once_and_writes_nothing(world):
    before = len(world.store.entries())
    release = a_release("third", "sha256:" + "0" * 64)
    (world.folder / "model.txt").write_bytes(b"another")
    (world.folder / "evaluation.json").unlink()
    with pytest.raises(InvalidDocumentError) as raised:
        register(world.ports, release, location=world.folder, now=T0, actor="author")
    places = " ".join(problem.place for problem in raised.value.problems)
    assert len(raised.value.problems) == 3
    assert all(word in places for word in ("model.artifact", "evaluation.report", "rollback_target"))
    assert len(world.store.releases()) == 2
    assert len(world.store.entries()) == before


@pytest.mark.parametrize("target", ["sha256:" + "0" * 64, None])
def test_a_release_returns_to_one_that_is_known(world, target):
    with pytest.raises(InvalidDocumentError, match="rollback_target"):
        world.register(a_release("third", target))


def test_a_release_does_not_return_to_one_of_another_decision_point(world):
    head = {"name": "other", "version": "1", "decision_point": "elsewhere"}
    elsewhere = world.register(a_release(release=head))
    with pytest.raises(InvalidDocumentError, match="elsewhere"):
        world.register(a_release("third", elsewhere))


def test_registering_again_changes_nothing(world):
    before = world.store.entries()
    assert world.register(a_release("champion")) == world.champion
    assert world.store.entries() == before
    parts = parts_in(world.ports, [world.champion], known={})
    assert world.store.snapshot(POINT) == RoutingSnapshot(POINT, 1, world.champion, world.champion, parts=parts)


def test_the_same_request_opens_one_rollout(either):
    assert either.start() == either.start(now=T0 + DAY)
    assert len(either.store.rollouts()) == 1
    assert kinds(either).count("rollout.started") == 1


def test_a_second_rollout_on_the_decision_point_is_refused(either):
    first = either.start()
    with pytest.raises(ConflictError, match=first.id):
        either.start(request="other")
    assert len(either.store.rollouts()) == 1


@pytest.mark.parametrize("state", [State.ROLLING_BACK, State.ROLLBACK_INCOMPLETE])
def test_no_rollout_starts_before_the_one_before_is_seen_rolled_back(world, state):
    rollout, now = rolling_back(world)
    if state is State.ROLLBACK_INCOMPLETE:
        world.step(rollout, now + LEASE - HOUR)
        world.store.report(RouterReport("router", POINT, 3, now, world.champion, now + 30 * HOUR))
        world.step(rollout, now + LEASE)
    assert world.store.rollout(rollout.id).state is state
    with pytest.raises(ConflictError, match=rollout.id):
        world.start(request="other", now=now)


def test_a_rollout_that_does_not_fit_is_refused_and_nothing_is_written(world):
    before = world.store.entries()
    third = world.register(a_release("third", world.challenger))
    risky = world.register(a_release("risky", world.champion, risk_tier="high"))
    elsewhere = a_plan(plan={**PLAN["plan"], "decision_point": "elsewhere"})
    no_approval = a_plan().model_copy(update={"stages": a_plan().stages[:5]})
    cases = [
        (None, elsewhere, "is for 'elsewhere'"),
        (world.champion, a_plan(), "champion of 'flight-delay' already"),
        (third, a_plan(), "rollback_target is the present champion"),
        (None, a_plan(segment="nowhere", stages=STAGES[:5]), "segment 'nowhere'"),
        (risky, no_approval, "high risk needs"),
    ]
    for release, plan, why in cases:
        with pytest.raises(RefusedError, match=why):
            world.start(release, plan)
    assert world.store.rollouts() == []
    assert len(world.store.entries()) == len(before) + 2


def test_a_decision_point_without_a_champion_has_nothing_to_roll_out_against(world, monkeypatch):
    monkeypatch.setattr(world.store.__class__, "champions", lambda _: {})
    with pytest.raises(RefusedError, match="has no champion"):
        world.start()


def test_a_flow_that_died_is_started_again_a_few_times_in_each_state(world):
    rollout, now = world.advance_to(State.CANARY)
    asked = [may_restart(world.ports, rollout, reason="it crashed", now=now) for _ in range(RESTARTS + 2)]
    assert asked == [True] * RESTARTS + [False] * 2
    assert kinds(world, rollout).count("flow.restarted") == RESTARTS
    moved = world.step(rollout, now + 2 * DAY).rollout
    assert may_restart(world.ports, moved, reason="it crashed", now=now)


def test_a_watch_that_finds_a_rollout_moved_leaves_it_to_the_next_round(tmp_path):
    store = Interrupted()
    world = World(tmp_path / "files", store)
    rollout, now = world.advance_to(State.CANARY)
    world.evidence.says = harmful(now)
    look = world.evidence.look

    def moved_meanwhile(plan, scope, *, now):
        world.evidence.look = look
        kill(world.ports, world.challenger, reason="fire", actor="on-call", now=now)
        return look(plan, scope, now=now)

    world.evidence.look = moved_meanwhile
    assert watch(world.ports, now=now) == []
    assert path(world, rollout).count("rolling back") == 1
    assert world.store.last_beat(SWEEP) == now


@pytest.mark.parametrize("state", sorted(FINAL | {State.AWAITING_DECISION, State.ROLLING_BACK}))
def test_states_that_do_not_serve_put_no_question_to_the_logs(world, state):
    rollout, now = world.advance_to(State.CANARY)
    world.evidence.says = AssertionError("not asked")
    assert state not in SERVING
    assert judge(world.ports, replace(rollout, state=state), a_plan(), now=now).findings == ()


def test_a_look_asks_about_this_rollout_since_its_start(world):
    rollout, _ = world.advance_to(State.CANARY)
    scope = world.evidence.scopes[-1]
    assert (scope.decision_point, scope.rollout_id, scope.since) == (POINT, rollout.id, T0)
    assert (scope.champion, scope.challenger) == (world.champion, world.challenger)


def test_the_watch_may_do_nothing_but_what_takes_traffic_away():
    assert {Action.ROLL_BACK, Action.PAUSE} == WATCH


def test_the_stages_of_these_tests_are_those_of_the_plan():
    assert len(a_plan().stages) == len(STAGES)


def test_a_router_that_is_gone_for_good_does_not_hold_up_a_promotion_once_its_lease_is_over(world):
    rollout, now = world.advance_to(State.PROMOTING)
    present = world.store.snapshot(POINT)
    gone = RouterReport("gone", POINT, present.number - 1, now, world.champion, now + HOUR)
    world.store.report(gone)
    world.router.refresh(now=now)
    assert world.step(rollout, now).rollout.state is State.PROMOTING
    assert world.step(rollout, now + HOUR).rollout.state is State.CHAMPION


def test_a_promotion_that_no_router_serves_has_not_arrived(world):
    rollout, now = world.advance_to(State.PROMOTING)
    present = world.store.snapshot(POINT)
    for report in world.store.reports(POINT):
        silent = RouterReport(report.router, POINT, present.number - 1, now, world.champion, None)
        world.store.report(silent)
    assert world.step(rollout, now + 10 * DAY).rollout.state is State.PROMOTING


@pytest.mark.parametrize("approver", ["ada-marin", "ada.marin"])
def test_the_owner_in_the_manifest_is_the_approver_however_the_name_is_written(approver):
    assert plain_name(approver) == plain_name("Ada Marin")


def test_a_rollout_that_cannot_be_judged_is_recorded_once_and_does_not_end_the_watch(either):
    rollout, now = either.advance_to(State.CANARY)
    either.evidence.says = ValueError("a share that is none")
    lease = either.store.snapshot(POINT).lease_until
    for hours in (1, 2):
        (watched,) = watch(either.ports, now=now + hours * HOUR)
        assert not watched.is_due
        assert "a share that is none" in watched.reason
        assert either.store.last_beat(SWEEP) == now + hours * HOUR
    assert either.store.snapshot(POINT).lease_until == lease
    unjudged = [e.record for e in either.store.entries(rollout.id) if e.record.kind == "rollout.unjudged"]
    assert [record.body["verdict"] for record in unjudged] == ["ERROR"]
