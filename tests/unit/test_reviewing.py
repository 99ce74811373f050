from datetime import timedelta

import pytest
from builders import DAY, PLAN, STAGES, T0, World, a_plan, a_release

from seatrial.control.assessing import assess
from seatrial.control.reviewing import review
from seatrial.control.waiving import waive
from seatrial.errors import TamperedError
from seatrial.gates.finding import Finding, Question
from seatrial.rollout import Choice, State
from seatrial.verdict import Verdict

SEPARATE, SCHEMAS, CUT_OFFS, SHADOW, GUARDRAILS, ROLLBACK, LABELS, IRREVERSIBLE = range(8)
ACTIONS = {"none": True, "review": True, "rebook": False}
REBOOKED = {
    "name": "rebooked",
    "source": "proxy",
    "bad_when": [{"action": "rebook"}],
    "margin": "30 % relative",
    "consequence": "freeze",
}
#: Nothing counts how often the action is taken that cannot be undone.
UNWATCHED = {**PLAN["guardrails"][1], "bad_when": [{"label": 1, "action": "none"}]}


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.router.refresh(now=T0)
    return world


def a_sound_plan(**changes):
    gates = {**STAGES[0], "served": {"contract": "flights"}, "catalogue": {"actions": ACTIONS}}
    return a_plan(stages=[gates, *STAGES[1:]], guardrails=[*PLAN["guardrails"], REBOOKED], **changes)


def says(world, gate, verdict=Verdict.PASS):
    world.examiner.answers[gate] = [Finding(Question.CONTRACT, f"{gate} · challenger", verdict, f"{gate} said so")]


def answered(world, rollout, *, served=Verdict.PASS):
    says(world, "served", served)
    says(world, "catalogue")
    for gate in ("served", "catalogue"):
        assess(world.ports, rollout.id, gate, now=T0, actor="test")


def on_the_way(world, rollout, state):
    """Take a rollout without harm to `state`, and return the time."""
    now = T0
    for _ in range(40):
        rollout = world.store.rollout(rollout.id)
        if rollout.state is state:
            return now
        now += DAY
        world.router.refresh(now=now)
        world.step(rollout, now, Choice.APPROVE if rollout.state is State.AWAITING_APPROVAL else None)
    raise AssertionError(f"never came to {state}")


def verdicts(world, rollout, now):
    return [each.verdict for each in review(world.store, rollout.id, now=now).answers]


def test_a_rollout_that_has_only_begun_has_shown_little(world):
    rollout = world.start(plan=a_plan(guardrails=[UNWATCHED]))
    found = review(world.store, rollout.id, now=T0)
    by_question = {each.question: each.verdict for each in found.answers}
    assert len(by_question) == 8
    assert found.answers[SHADOW].verdict is Verdict.INCONCLUSIVE
    assert found.answers[ROLLBACK].verdict is Verdict.INCONCLUSIVE
    assert found.answers[SCHEMAS].verdict is Verdict.INCONCLUSIVE
    assert found.answers[IRREVERSIBLE].verdict is Verdict.FAIL
    assert found.readiness is Verdict.FAIL


def test_every_answer_but_that_of_nothing_has_a_reference(world):
    rollout = world.start(plan=a_sound_plan())
    answered(world, rollout)
    now = on_the_way(world, rollout, State.CANARY)
    for answer in review(world.store, rollout.id, now=now).answers:
        assert answer.references, answer.question


def test_readiness_is_the_worst_answer_and_evidence_mends_it(world):
    rollout = world.start(plan=a_sound_plan())
    answered(world, rollout)
    now = on_the_way(world, rollout, State.CANARY)
    found = review(world.store, rollout.id, now=now)
    left = [each.question for each in found.answers if each.verdict is not Verdict.PASS]
    assert left == ["Is the shadow isolated?"]
    assert found.readiness is Verdict.INCONCLUSIVE


def test_a_gate_that_was_waived_is_no_pass(world):
    rollout = world.start(plan=a_sound_plan())
    answered(world, rollout, served=Verdict.INCONCLUSIVE)
    waive(world.ports, rollout.id, "served", by="approver", reason="for now", expires=T0 + 30 * DAY, now=T0)
    now = on_the_way(world, rollout, State.CANARY)
    answer = review(world.store, rollout.id, now=now).answers[SCHEMAS]
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert answer.answer.startswith("waived by approver")
    assert any("gate.waived" in reference for reference in answer.references)


def test_without_a_router_that_reports_nobody_shows_that_traffic_follows(tmp_path):
    world = World(tmp_path)
    assert verdicts(world, world.start(), T0)[SEPARATE] is Verdict.INCONCLUSIVE


def test_a_target_that_did_not_load_is_no_way_back(world):
    rollout = world.start()
    world.probe.verdict = Verdict.FAIL
    world.step(rollout, T0)
    assert verdicts(world, rollout, T0)[ROLLBACK] is Verdict.FAIL


def test_a_target_that_loaded_long_ago_must_be_loaded_again(world):
    rollout = world.start()
    world.step(rollout, T0)
    assert verdicts(world, rollout, T0 + timedelta(hours=1))[ROLLBACK] is Verdict.PASS
    assert verdicts(world, rollout, T0 + 2 * DAY)[ROLLBACK] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, Verdict.FAIL),
        ({"authority": "decide_reversible"}, Verdict.PASS),
        ({"cut_offs": {"default": [{"action": "review", "at_least": 0.5}]}}, Verdict.PASS),
    ],
)
def test_an_action_that_cannot_be_undone_needs_protection(world, policy, expected):
    changed = a_release().document()["policy"] | policy
    release = world.register(a_release("other", world.champion, policy=changed))
    assert verdicts(world, world.start(release, a_plan(guardrails=[UNWATCHED])), T0)[IRREVERSIBLE] is expected


def test_a_guardrail_protects_once_downstream_is_known_to_carry_the_action_out(world):
    rollout = world.start(plan=a_sound_plan())
    assert verdicts(world, rollout, T0)[IRREVERSIBLE] is Verdict.INCONCLUSIVE
    answered(world, rollout)
    assert verdicts(world, rollout, T0)[IRREVERSIBLE] is Verdict.PASS


def test_a_review_of_a_broken_chain_is_refused(world):
    rollout = world.start()
    world.store._entries[0] = world.store._entries[-1]  # noqa: SLF001 what no caller can do
    with pytest.raises(TamperedError):
        review(world.store, rollout.id, now=T0)
