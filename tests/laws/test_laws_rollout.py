import tempfile
from datetime import timedelta
from pathlib import Path

from builders import (
    DAY,
    HOUR,
    POINT,
    STAGES,
    T0,
    World,
    a_finding,
    a_plan,
    a_release,
    a_rollout,
    an_answer,
    evidence_at,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from seatrial.control.ending import kill, roll_back_decision_point
from seatrial.control.watching import watch
from seatrial.errors import ConflictError, RefusedError, UnavailableError
from seatrial.evidence import Evidence
from seatrial.gates.finding import Question
from seatrial.ledger import verify
from seatrial.rollout import (
    FINAL,
    REQUIRED,
    RETURNING,
    SERVING,
    Action,
    Choice,
    State,
    decide,
    move,
    share_of,
)
from seatrial.units import digest_of, share_to_slots
from seatrial.verdict import Verdict

PLANS = [a_plan(), a_plan(on_deadline="roll_back"), a_plan(segment="commuter", stages=STAGES[:5])]
FINDINGS = st.lists(
    st.builds(a_finding, st.sampled_from(Question), st.sampled_from(Verdict), is_binding=st.booleans()), max_size=9
)
ANSWERS = st.none() | st.builds(
    an_answer, st.sampled_from(Choice), evidence_digest=st.sampled_from([digest_of("evidence"), digest_of("other")])
)
HOURS = st.integers(0, 30 * 24).map(lambda hours: hours * HOUR)


@st.composite
def rollouts(draw):
    plan = draw(st.sampled_from(PLANS))
    state, stage = draw(st.sampled_from(State)), draw(st.integers(0, len(plan.stages) - 1))
    deadline = draw(st.none() | st.just(T0 + 10 * DAY))
    return a_rollout(state, stage, deadline=deadline), plan


def decided(rollout, plan, findings, age, answer):
    """Return the rollout after what was decided, or as it was when nothing could be."""
    try:
        decision = decide(rollout, plan, findings, now=T0 + age, answer=answer)
        return decision, move(rollout, plan, decision, now=T0 + age)
    except RefusedError:
        return None, rollout


@settings(max_examples=600)
@given(rollouts(), FINDINGS, HOURS, ANSWERS)
def test_a_share_grows_only_on_binding_passes_or_a_persons_word_about_the_present_evidence(
    given, findings, age, answer
):
    rollout, plan = given
    decision, after = decided(rollout, plan, findings, age, answer)
    if share_of(after, plan) <= share_of(rollout, plan):
        return
    if rollout.state in REQUIRED:
        passed = {f.question for f in findings if f.is_binding and f.verdict is Verdict.PASS}
        assert passed >= REQUIRED[rollout.state]
    elif rollout.state in (State.AWAITING_APPROVAL, State.AWAITING_DECISION):
        assert answer is not None
        assert answer.choice is not Choice.REJECT
        assert answer.evidence_digest == rollout.evidence_digest
    else:
        raise AssertionError(f"{decision} raised the share of {rollout.state}")


@given(rollouts(), FINDINGS, HOURS, ANSWERS)
def test_harm_leaves_no_share(given, findings, age, answer):
    rollout, plan = given
    harm = a_finding(Question.HARM, Verdict.FAIL)
    _, after = decided(rollout, plan, [*findings, harm], age, answer)
    if rollout.state in SERVING:
        assert (after.state, share_of(after, plan)) == (State.ROLLING_BACK, 0.0)


@given(rollouts(), FINDINGS, HOURS, ANSWERS)
def test_what_was_decided_does_not_depend_on_the_order_of_the_findings(given, findings, age, answer):
    rollout, plan = given
    forth, back = (decided(rollout, plan, some, age, answer) for some in (findings, findings[::-1]))
    assert forth[1].state == back[1].state
    assert (forth[0] and forth[0].action) == (back[0] and back[0].action)


@given(rollouts(), FINDINGS, st.sampled_from([v for v in Verdict if v is not Verdict.PASS]), HOURS)
def test_a_worse_verdict_never_widens_what_a_better_one_did_not(given, findings, worse, age):
    rollout, plan = given
    better = [a_finding(f.question, Verdict.PASS, is_binding=f.is_binding) for f in findings]
    worsened = [a_finding(f.question, worse, is_binding=f.is_binding) for f in findings]
    widest = share_of(decided(rollout, plan, better, age, None)[1], plan)
    assert share_of(decided(rollout, plan, worsened, age, None)[1], plan) <= max(widest, share_of(rollout, plan))


class Life(RuleBasedStateMachine):
    """A control plane in which anything happens in any order: looks, answers, kills, silence, lost logs."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name))
        self.now = T0
        self.count = 0
        self.plan = PLANS[0]
        self.widest = {}

    def teardown(self):
        self.folder.cleanup()

    @initialize(plan=st.sampled_from(PLANS))
    def choose(self, plan):
        self.plan = plan

    def rollouts(self):
        return self.world.store.rollouts()

    @property
    def latest(self):
        return self.rollouts()[-1]

    @rule()
    def start(self):
        self.count += 1
        release = a_release(f"release-{self.count}", self.world.store.champions()[POINT])
        held = [r for r in self.rollouts() if r.is_active]
        try:
            self.world.start(self.world.register(release), self.plan, request=str(self.count), now=self.now)
        except ConflictError:
            assert held
        else:
            assert not held

    @rule(hours=st.sampled_from([1, 6, 13, 24, 48, 24 * 15]))
    def time_passes(self, hours):
        self.now += timedelta(hours=hours)

    @rule()
    def routers_read(self):
        self.world.router.refresh(now=self.now)

    @rule(kind=st.sampled_from(["calm", "calm", "calm", "little", "harm", "stale", "nothing", "down", "mismatch"]))
    def logs_say(self, kind):
        self.world.evidence.look = lambda plan, _scope, *, now: self.said(kind, plan, now)

    @staticmethod
    def said(kind, plan, now):
        match kind:
            case "down":
                raise UnavailableError("down")
            case "nothing":
                return Evidence()
            case "stale":
                return evidence_at(now - DAY, plan=plan)
            case "mismatch":
                return evidence_at(now, plan=plan, lost=0.5)
            case "harm":
                return evidence_at(now, plan=plan, ratio=3.0)
            case "little":
                return evidence_at(now, plan=plan, units=200)
        return evidence_at(now, plan=plan)

    @precondition(lambda self: self.rollouts())
    @rule(choice=st.none() | st.sampled_from(Choice))
    def flow_steps(self, choice):
        try:
            self.world.step(self.latest, self.now, choice)
        except RefusedError:
            assert choice is not None

    @rule()
    def watch_looks(self):
        watch(self.world.ports, now=self.now)

    @precondition(lambda self: self.rollouts())
    @rule()
    def person_kills(self):
        rollout = self.latest
        try:
            ended = kill(self.world.ports, rollout.challenger, reason="fire", actor="on-call", now=self.now)
        except RefusedError:
            assert rollout.state in FINAL | {State.SUPERSEDED}
        else:
            assert ended.state in RETURNING | {State.REJECTED}
            assert self.world.store.snapshot(POINT).challenger != rollout.challenger

    @rule()
    def person_rolls_back(self):
        try:
            roll_back_decision_point(self.world.ports, POINT, reason="fire", actor="on-call", now=self.now)
        except RefusedError:
            assert all(r.state in FINAL | {State.SUPERSEDED} for r in self.rollouts())

    @invariant()
    def no_snapshot_gives_a_challenger_more_than_its_state_allows(self):
        snapshot = self.world.store.snapshot(POINT)
        if snapshot.slots:
            rollout = self.world.store.rollout(snapshot.rollout_id)
            assert snapshot.slots <= share_to_slots(share_of(rollout, self.plan))
            assert snapshot.challenger == rollout.challenger

    @invariant()
    def what_serves_in_doubt_is_the_champion_or_what_is_promoted(self):
        snapshot, champion = self.world.store.snapshot(POINT), self.world.store.champions()[POINT]
        promoting = {r.challenger for r in self.rollouts() if r.state is State.PROMOTING}
        assert snapshot.fallback in {champion} | promoting

    @invariant()
    def one_rollout_is_on_trial_at_most_and_returns_to_the_champion(self):
        on_trial = [r for r in self.rollouts() if r.is_active and r.state not in RETURNING]
        assert len(on_trial) <= 1
        assert all(r.champion == self.world.store.champions()[POINT] for r in on_trial)

    @invariant()
    def the_champion_is_the_release_of_the_one_rollout_that_says_so(self):
        champions = [r.challenger for r in self.rollouts() if r.state is State.CHAMPION]
        assert len(champions) <= 1
        assert set(champions) <= {self.world.store.champions()[POINT]}

    @invariant()
    def the_ledger_holds_every_move_and_nobody_touched_it(self):
        entries = self.world.store.entries()
        verify(entries)
        for rollout in self.rollouts():
            moves = [e for e in entries if e.record.kind == "rollout.decided" and e.record.rollout_id == rollout.id]
            assert [e.record.body["version"] for e in moves] == list(range(2, rollout.version + 1))
            if moves:
                assert moves[-1].record.body["to"] == rollout.state.value

    @invariant()
    def nothing_promoted_was_tried_on_a_segment_alone(self):
        if self.plan.segment is not None:
            assert all(r.state not in (State.PROMOTING, State.CHAMPION) for r in self.rollouts())

    @invariant()
    def a_lease_reaches_no_further_than_the_plan_says(self):
        lease = self.world.store.snapshot(POINT).lease_until
        assert lease is None or lease <= self.now + self.plan.lease


TestLife = Life.TestCase
# Without shrinking, which takes minutes here: the steps that led to a failure are printed either way.
PHASES = [phase for phase in Phase if phase is not Phase.shrink]
TestLife.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, phases=PHASES)


def test_the_machine_above_can_come_to_a_champion_and_to_a_rollback():
    for harms in (False, True):
        life = Life()
        life.choose(PLANS[0])
        life.start()
        for _ in range(30):
            life.time_passes(24)
            life.routers_read()
            if harms and life.latest.state is State.LABELS:
                life.logs_say("harm")
            life.flow_steps(Choice.APPROVE if life.latest.state is State.AWAITING_APPROVAL else None)
        assert life.latest.state is (State.ROLLED_BACK if harms else State.CHAMPION)
        assert Action.HOLD in {look.action for look in life.world.store.looks(life.latest.id)}
        life.teardown()
