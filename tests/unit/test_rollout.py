import math
from dataclasses import replace

import pytest
from builders import (
    APPROVAL,
    CANARY,
    CANARY_2,
    DAY,
    GATES,
    HOUR,
    LABELS,
    PROMOTION,
    SHADOW,
    STAGES,
    T0,
    a_finding,
    a_plan,
    a_rollout,
    an_answer,
)

from seatrial.errors import RefusedError
from seatrial.gates.finding import Finding, Question
from seatrial.rollout import (
    ACTIVE,
    FINAL,
    REQUIRED,
    SERVING,
    TRANSITIONS,
    Action,
    Choice,
    Decision,
    State,
    decide,
    is_judged,
    move,
    share_of,
    state_of,
)
from seatrial.verdict import Verdict

PLAN = a_plan()
STAGE_OF = {State.GATES: GATES, State.SHADOW: SHADOW, State.CANARY: CANARY, State.LABELS: LABELS}
WIDENS = (Action.ADVANCE, Action.PROMOTE)
NOT_PASS = [verdict for verdict in Verdict if verdict is not Verdict.PASS]
STAGE_QUESTIONS = [(state, question) for state in STAGE_OF for question in sorted(REQUIRED[state])]
#: Moments within a stage that is soaked after two days and has its deadline after ten.
HOURS = [0, 47.999, 48, 100, 239.999, 240, 1000]


def in_stage(state):
    return a_rollout(state, STAGE_OF[state])


def passing(state):
    return [a_finding(question) for question in sorted(REQUIRED[state])]


@pytest.mark.parametrize("state", STAGE_OF)
def test_findings_that_all_pass_advance_a_soaked_stage(state):
    decision = decide(in_stage(state), PLAN, passing(state), now=T0 + 2 * DAY)
    assert decision.action is Action.ADVANCE
    assert "all PASS" in decision.reason


@pytest.mark.parametrize("hours", HOURS)
@pytest.mark.parametrize("verdict", NOT_PASS)
@pytest.mark.parametrize(("state", "question"), STAGE_QUESTIONS)
def test_only_a_pass_widens_exposure(state, question, verdict, hours):
    findings = [*passing(state), a_finding(question, verdict)]
    assert decide(in_stage(state), PLAN, findings, now=T0 + hours * HOUR).action not in WIDENS


@pytest.mark.parametrize("hours", HOURS)
@pytest.mark.parametrize(("state", "question"), STAGE_QUESTIONS)
def test_a_question_that_nobody_answered_widens_nothing(state, question, hours):
    findings = [f for f in passing(state) if f.question is not question]
    decision = decide(in_stage(state), PLAN, findings, now=T0 + hours * HOUR)
    assert decision.action not in WIDENS
    assert f"no answer to the question of {question}" in decision.reason


@pytest.mark.parametrize("hours", HOURS)
@pytest.mark.parametrize(("state", "question"), STAGE_QUESTIONS)
def test_an_answer_that_does_not_bind_is_no_answer(state, question, hours):
    findings = [replace(f, is_binding=f.question is not question) for f in passing(state)]
    assert decide(in_stage(state), PLAN, findings, now=T0 + hours * HOUR).action not in WIDENS


@pytest.mark.parametrize("hours", HOURS)
@pytest.mark.parametrize("state", STAGE_OF)
def test_no_finding_at_all_widens_nothing(state, hours):
    assert decide(in_stage(state), PLAN, [], now=T0 + hours * HOUR).action not in WIDENS


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("verdict", NOT_PASS)
def test_numbers_that_are_none_never_turn_a_verdict_into_a_pass(verdict, number):
    findings = [*passing(State.CANARY), a_finding(Question.EXPOSURE, verdict, numbers={"log_e": number})]
    assert decide(a_rollout(), PLAN, findings, now=T0 + 3 * DAY).action is Action.HOLD


def test_a_warning_that_fired_holds_and_one_that_did_not_says_nothing():
    quiet = [*passing(State.CANARY), a_finding(Question.WARNING, Verdict.INCONCLUSIVE)]
    fired = [*passing(State.CANARY), a_finding(Question.WARNING, Verdict.FAIL)]
    told = [*passing(State.CANARY), a_finding(Question.WARNING, Verdict.FAIL, is_binding=False)]
    assert decide(a_rollout(), PLAN, quiet, now=T0 + 3 * DAY).action is Action.ADVANCE
    assert decide(a_rollout(), PLAN, fired, now=T0 + 3 * DAY).action is Action.HOLD
    assert decide(a_rollout(), PLAN, told, now=T0 + 3 * DAY).action is Action.ADVANCE


@pytest.mark.parametrize("state", [State.SHADOW, State.CANARY])
def test_a_stage_lasts_its_soak_whatever_the_numbers_say(state):
    soak = PLAN.stages[STAGE_OF[state]].soak
    before = decide(in_stage(state), PLAN, passing(state), now=T0 + soak - HOUR)
    assert before == Decision(Action.HOLD, "soaking for another 1 h")
    assert decide(in_stage(state), PLAN, passing(state), now=T0 + soak).action is Action.ADVANCE


@pytest.mark.parametrize("state", [State.GATES, State.SHADOW])
def test_a_failure_before_any_exposure_ends_the_rollout(state):
    findings = [*passing(state), a_finding(next(iter(sorted(REQUIRED[state]))), Verdict.FAIL, reason="it broke")]
    assert decide(in_stage(state), PLAN, findings, now=T0) == Decision(Action.ROLL_BACK, "it broke")


@pytest.mark.parametrize("now", [T0, T0 + 100 * DAY])
@pytest.mark.parametrize("state", sorted(SERVING))
def test_harm_ends_every_state_that_serves(state, now):
    harm = a_finding(Question.HARM, Verdict.FAIL, reason="wrong decisions doubled")
    everything = [a_finding(question) for question in Question]
    rollout = a_rollout(state, PROMOTION if state in (State.PROMOTING, State.CHAMPION) else CANARY)
    for answer in (None, an_answer()):
        decision = decide(rollout, PLAN, [*everything, harm], now=now, answer=answer)
        assert decision == Decision(Action.ROLL_BACK, "wrong decisions doubled")
    assert move(rollout, PLAN, decision, now=now).state is State.ROLLING_BACK


@pytest.mark.parametrize("state", sorted(SERVING))
def test_harm_in_a_dry_run_ends_nothing(state):
    harm = a_finding(Question.HARM, Verdict.FAIL, is_binding=False)
    assert decide(a_rollout(state), PLAN, [harm], now=T0).action is not Action.ROLL_BACK


@pytest.mark.parametrize("verdict", NOT_PASS[:2])
@pytest.mark.parametrize(("state", "question"), STAGE_QUESTIONS)
@pytest.mark.parametrize(("on_deadline", "action"), [("ask", Action.ASK), ("roll_back", Action.ROLL_BACK)])
def test_undecided_at_the_deadline_a_person_is_asked_or_the_champion_returns_as_the_plan_says(
    on_deadline, action, state, question, verdict
):
    plan = a_plan(on_deadline=on_deadline)
    findings = [f for f in passing(state) if f.question is not question]
    findings.append(a_finding(question, verdict, reason="too few units"))
    rollout = in_stage(state)
    assert decide(rollout, plan, findings, now=rollout.deadline - HOUR).action is Action.HOLD
    decision = decide(rollout, plan, findings, now=rollout.deadline)
    assert decision == Decision(action, f"undecided at the deadline of {state}: too few units")


def awaiting(state):
    return a_rollout(state, APPROVAL if state is State.AWAITING_APPROVAL else LABELS)


def test_an_approval_is_a_persons_yes():
    rollout = awaiting(State.AWAITING_APPROVAL)
    assert decide(rollout, PLAN, [], now=T0).action is Action.HOLD
    yes = decide(rollout, PLAN, [], now=T0, answer=an_answer(Choice.APPROVE))
    assert yes == Decision(Action.ADVANCE, "approved by approver: read it")
    no = decide(rollout, PLAN, [], now=T0, answer=an_answer(Choice.REJECT))
    assert no == Decision(Action.ROLL_BACK, "rejected by approver: read it")


@pytest.mark.parametrize("answer", [None, *(an_answer(choice) for choice in Choice)])
@pytest.mark.parametrize("late", [0 * HOUR, HOUR, 1000 * DAY])
def test_an_approval_that_expired_is_never_a_yes(answer, late):
    rollout = awaiting(State.AWAITING_APPROVAL)
    everything = [a_finding(question) for question in Question]
    decision = decide(rollout, PLAN, everything, now=rollout.deadline + late, answer=answer)
    assert decision.action is Action.ROLL_BACK
    assert "not a yes" in decision.reason


def test_undecided_evidence_can_be_continued_or_ended_by_a_person():
    rollout = awaiting(State.AWAITING_DECISION)
    assert decide(rollout, PLAN, [], now=T0).action is Action.HOLD
    continued = decide(rollout, PLAN, [], now=T0, answer=an_answer(Choice.CONTINUE))
    assert continued.action is Action.ADVANCE
    again = move(rollout, PLAN, continued, now=T0 + 40 * DAY)
    assert (again.state, again.stage, again.deadline) == (State.LABELS, LABELS, T0 + 61 * DAY)
    assert decide(rollout, PLAN, [], now=T0, answer=an_answer(Choice.REJECT)).action is Action.ROLL_BACK


@pytest.mark.parametrize(
    ("state", "choice"),
    [(State.AWAITING_DECISION, Choice.APPROVE), (State.AWAITING_APPROVAL, Choice.CONTINUE)],
)
def test_an_answer_to_another_question_is_refused(state, choice):
    with pytest.raises(RefusedError, match=choice.value):
        decide(awaiting(state), PLAN, [], now=T0, answer=an_answer(choice))


@pytest.mark.parametrize("named", ["", "sha256:" + "0" * 64])
@pytest.mark.parametrize("choice", Choice)
@pytest.mark.parametrize("state", [State.AWAITING_APPROVAL, State.AWAITING_DECISION])
def test_an_answer_that_names_other_evidence_is_refused(state, choice, named):
    with pytest.raises(RefusedError, match="read the present evidence and answer again"):
        decide(awaiting(state), PLAN, [], now=T0, answer=an_answer(choice, evidence_digest=named))


@pytest.mark.parametrize("state", sorted(FINAL))
def test_an_ended_rollout_decides_nothing_more(state):
    everything = [a_finding(question, verdict) for question in Question for verdict in Verdict]
    decision = decide(a_rollout(state), PLAN, everything, now=T0 + 100 * DAY, answer=an_answer())
    assert decision.action is Action.HOLD


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("state", State)
def test_the_table_is_the_whole_of_what_may_follow_what(state, action):
    allowed = TRANSITIONS.get((state, action), frozenset())
    reached = set()
    for stage in range(len(STAGES)):
        for deadline in (None, T0):
            try:
                after = move(a_rollout(state, stage, deadline=deadline), PLAN, Decision(action, "why"), now=T0)
            except RefusedError:
                continue
            reached.add(after.state)
            assert (after.version, after.reason, after.entered_at) == (2, "why", T0)
    assert reached <= allowed
    assert bool(reached) == bool(allowed)


@pytest.mark.parametrize("state", sorted(FINAL))
def test_no_path_leads_out_of_an_ended_state(state):
    assert [key for key in TRANSITIONS if key[0] is state] == []
    with pytest.raises(RefusedError, match="nothing, it has ended"):
        move(a_rollout(state), PLAN, Decision(Action.ROLL_BACK, "why"), now=T0)


def reachable_from(state):
    found, new = set(), {state}
    while new:
        found |= new
        new = {after for (before, _), afters in TRANSITIONS.items() if before in new for after in afters} - found
    return found


@pytest.mark.parametrize("state", sorted(SERVING))
def test_from_every_serving_state_one_move_leads_to_rolling_back_and_on_to_rolled_back(state):
    assert TRANSITIONS[state, Action.ROLL_BACK] == {State.ROLLING_BACK}
    assert State.ROLLED_BACK in reachable_from(State.ROLLING_BACK)


def test_nothing_that_rolls_back_can_serve_again():
    assert reachable_from(State.ROLLING_BACK) == {State.ROLLING_BACK, State.ROLLED_BACK, State.ROLLBACK_INCOMPLETE}


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_every_active_rollout_can_end(state):
    assert reachable_from(state) & FINAL


def test_every_state_is_reached_and_none_but_the_first_has_no_way_in():
    assert reachable_from(State.GATES) == set(State)
    assert {after for afters in TRANSITIONS.values() for after in afters} >= set(State) - {State.GATES}


@pytest.mark.parametrize(
    ("state", "stage", "share"),
    [
        (State.GATES, GATES, 0.0),
        (State.SHADOW, SHADOW, 0.0),
        (State.CANARY, CANARY, 0.05),
        (State.CANARY, CANARY_2, 0.2),
        (State.LABELS, LABELS, 0.2),
        (State.AWAITING_APPROVAL, APPROVAL, 0.2),
        (State.PROMOTING, PROMOTION, 0.95),
        (State.CHAMPION, PROMOTION, 0.95),
    ],
)
def test_the_share_is_that_of_the_state(state, stage, share):
    assert share_of(a_rollout(state, stage), PLAN) == pytest.approx(share)


@pytest.mark.parametrize("state", sorted(set(State) - SERVING))
@pytest.mark.parametrize("stage", range(len(STAGES)))
def test_a_state_that_does_not_serve_has_no_share(state, stage):
    assert share_of(a_rollout(state, stage), PLAN) == 0.0


def test_an_approval_before_the_first_canary_has_no_share():
    plan = a_plan(stages=[*STAGES[:2], {"stage": "approval", "expires": "3 d"}, *STAGES[2:]])
    assert share_of(a_rollout(State.AWAITING_APPROVAL, 2), plan) == 0.0


def test_a_plan_for_a_segment_ends_with_a_question_and_never_promotes():
    plan = a_plan(segment="commuter", stages=STAGES[:5])
    decision = decide(in_stage(State.LABELS), plan, passing(State.LABELS), now=T0 + DAY)
    assert decision.action is Action.ASK
    assert "promotion needs a plan for all segments" in decision.reason
    assert move(in_stage(State.LABELS), plan, decision, now=T0 + DAY).state is State.AWAITING_DECISION


def test_a_plan_for_a_segment_goes_on_while_a_canary_or_labels_follow():
    plan = a_plan(segment="commuter", stages=STAGES[:5])
    for state in (State.GATES, State.SHADOW, State.CANARY):
        assert decide(in_stage(state), plan, passing(state), now=T0 + 2 * DAY).action is Action.ADVANCE


def test_a_move_keeps_the_evidence_that_it_rests_on_and_gives_the_next_stage_its_deadline():
    after = move(a_rollout(), PLAN, Decision(Action.ADVANCE, "why"), now=T0 + 2 * DAY, evidence_digest="sha256:e")
    assert (after.state, after.stage, after.evidence_digest) == (State.CANARY, CANARY_2, "sha256:e")
    assert after.deadline == T0 + 16 * DAY


def test_a_label_window_closes_once_and_a_superseded_champion_keeps_its_own():
    champion = a_rollout(State.CHAMPION, PROMOTION)
    assert decide(champion, PLAN, judged(), now=champion.deadline - HOUR).action is Action.HOLD
    closed = decide(champion, PLAN, judged(), now=champion.deadline)
    after = move(champion, PLAN, closed, now=champion.deadline)
    assert (after.state, after.deadline) == (State.CHAMPION, None)
    assert decide(after, PLAN, [], now=T0 + 1000 * DAY).action is Action.HOLD
    replaced = Decision(Action.PROMOTE, "superseded")
    assert move(after, PLAN, replaced, now=T0).state is State.RETIRED
    superseded = move(champion, PLAN, replaced, now=T0)
    assert (superseded.state, superseded.deadline) == (State.SUPERSEDED, champion.deadline)
    assert decide(superseded, PLAN, [], now=champion.deadline).action is Action.ADVANCE


@pytest.mark.parametrize("question", [Question.FRESHNESS, Question.HARM])
def test_a_holdback_does_not_end_on_a_look_that_judged_nothing(question):
    champion = a_rollout(State.CHAMPION, PROMOTION)
    unasked = [f for f in judged() if f.question is not question]
    for findings in ([], unasked, [*unasked, a_finding(question, Verdict.ERROR)]):
        assert decide(champion, PLAN, findings, now=T0 + 1000 * DAY).action is Action.HOLD


def judged(**changed):
    verdicts = {
        Question.FRESHNESS: Verdict.PASS,
        Question.ASSIGNMENT: Verdict.PASS,
        Question.HARM: Verdict.INCONCLUSIVE,
    }
    verdicts |= {Question(name): verdict for name, verdict in changed.items()}
    return [Finding(q, "subject", v, f"{q} {v.name}") for q, v in verdicts.items() if v is not None]


def test_fresh_evidence_without_harm_counts_as_judged():
    assert is_judged(judged())


@pytest.mark.parametrize("verdict", [*NOT_PASS, None])
def test_evidence_that_is_not_fresh_does_not_count_as_judged(verdict):
    findings = [f for f in judged() if f.question is not Question.FRESHNESS]
    if verdict is not None:
        findings.append(a_finding(Question.FRESHNESS, verdict))
    assert not is_judged(findings)


@pytest.mark.parametrize("verdict", [Verdict.ERROR, Verdict.FAIL])
def test_broken_assignment_does_not_count_as_judged(verdict):
    assert not is_judged(judged(assignment=verdict))


@pytest.mark.parametrize("question", [Question.FRESHNESS, Question.HARM])
def test_a_question_that_was_not_asked_does_not_count_as_judged(question):
    assert not is_judged([f for f in judged() if f.question is not question])
    assert not is_judged([])


def test_a_harm_question_that_could_not_be_asked_does_not_count_as_judged():
    assert not is_judged(judged(harm=Verdict.ERROR))


def test_harm_in_a_dry_run_was_judged_all_the_same():
    assert is_judged([*judged(), a_finding(Question.HARM, Verdict.FAIL, is_binding=False)])


def test_every_stage_of_a_plan_has_a_state():
    assert [state_of(stage) for stage in PLAN.stages] == [
        State.GATES,
        State.SHADOW,
        State.CANARY,
        State.CANARY,
        State.LABELS,
        State.AWAITING_APPROVAL,
        State.PROMOTING,
    ]
