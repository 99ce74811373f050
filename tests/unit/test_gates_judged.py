"""Guardrails with common harm, culprits and limits, and what `decide` makes of findings that freeze or block."""

import copy
import math
from dataclasses import replace

import pytest
from builders import APPROVAL, CANARY, DAY, LABELS, PLAN, T0, a_finding, a_plan, a_rollout, evidence_at

from seatrial.evidence import Arm
from seatrial.gates.assignment import DOUBTED, assignment, losses
from seatrial.gates.finding import Question
from seatrial.gates.guardrails import harm, warnings
from seatrial.rollout import FREEZING, REQUIRED, Action, State, decide, is_judged
from seatrial.stats import kernel
from seatrial.verdict import Verdict

STANDARD = a_plan()


def common(rate, **changes):
    """Return the plan in which the labels of a guardrail are expected to be bad at `rate`."""
    guardrails = copy.deepcopy(PLAN["guardrails"])
    guardrails[1] |= {"expected": {"rate": rate}, **changes}
    return a_plan(guardrails=guardrails)


def with_good(evidence, *, bad=0.25, ratio=1.1):
    """Return `evidence` with a common rate of bad units, and everybody else good."""
    cells = {}
    for cell, tally in evidence.cells.items():
        count = round(tally.units * bad * (ratio if cell.arm is Arm.CHALLENGER else 1.0))
        cells[cell] = replace(tally, bad=count, matured_bad=count, good=tally.units - count)
    return replace(evidence, cells=cells)


def first(findings):
    return findings[0]


@pytest.mark.parametrize(("rate", "counts_good"), [("25 %", True), ("5 %", True), ("4.9 %", False), (None, False)])
def test_good_units_are_counted_from_a_rate_of_a_twentieth_on(rate, counts_good):
    plan = STANDARD if rate is None else common(rate)
    evidence = with_good(evidence_at(T0, plan=plan))
    series = evidence.series("wrong-decision")
    where = {"stage": series.stage, "stages": len(plan.stages)}
    bad_alone = kernel.harm(*series.of("bad"), evidence.rho, **where)
    found = first(harm(evidence, plan)).numbers["log_e"]
    if counts_good:
        expected = float(rate.removesuffix(" %")) / 100
        assert found == pytest.approx(
            kernel.harm_of_all(*series.of("bad"), *series.of("good"), evidence.rho, rate=expected, **where)
        )
    else:
        assert found == pytest.approx(bad_alone)


def test_good_units_give_more_evidence_of_a_common_harm():
    plan = common("25 %")
    evidence = with_good(evidence_at(T0, plan=plan, units=10_000), ratio=1.2)
    with_all, alone = (first(harm(evidence, each)).numbers["log_e"] for each in (plan, STANDARD))
    assert with_all > alone + 1.0


def test_a_declared_rate_moves_no_threshold():
    evidence = with_good(evidence_at(T0, plan=STANDARD))
    for mine, theirs in zip(harm(evidence, common("25 %")), harm(evidence, STANDARD), strict=True):
        assert mine.numbers["threshold"] == theirs.numbers["threshold"]


def sliced(times):
    """Return evidence in which the challenger's bad units are `times` as many in each slice, and on average overall."""
    calm = evidence_at(T0)
    cells = {
        cell: evidence_at(T0, ratio=times.get(cell.slice_value, sum(times.values()) / len(times))).cells[cell]
        for cell in calm.cells
    }
    return replace(calm, cells=cells)


def test_culprits_are_named_on_what_failed_and_on_nothing_else():
    found = {f.subject: f for f in harm(sliced({"EWR": 1.0, "JFK": 3.0}), STANDARD)}
    assert found["wrong-decision"].verdict is Verdict.FAIL
    for subject in ("wrong-decision", "wrong-decision · origin=JFK"):
        assert found[subject].numbers["slices"] == "origin=JFK"
        assert "worse in origin=JFK (at most 5% of such names are wrong)" in found[subject].reason
    assert "slices" not in found["wrong-decision · origin=EWR"].numbers


@pytest.mark.parametrize(("ratio", "named"), [(1.10, "origin=JFK"), (1.17, "origin=EWR, origin=JFK")])
def test_a_slice_can_be_named_beside_a_proven_one_without_being_proven_alone(ratio, named):
    # Closed e-BH asks for E of 10 beside a very bad slice; to roll back by itself the slice needs 80.
    found = {f.subject: f for f in harm(sliced({"EWR": ratio, "JFK": 3.0}), STANDARD)}
    alone = found["wrong-decision · origin=EWR"]
    assert (alone.verdict, math.exp(alone.numbers["threshold"])) == (Verdict.INCONCLUSIVE, pytest.approx(80.0))
    assert found["wrong-decision"].numbers["slices"] == named


def test_a_release_that_is_no_worse_has_no_culprit():
    assert all("slices" not in f.numbers for f in harm(evidence_at(T0), STANDARD))


def test_limits_of_the_ratio_stand_in_what_failed_and_hold_the_ratio():
    for found in harm(evidence_at(T0, ratio=2.0), STANDARD):
        assert 1.0 < found.numbers["ratio_low"] < 2.0 < found.numbers["ratio_high"] < 3.0
        assert f"{found.numbers['ratio_low']:.2f} to {found.numbers['ratio_high']:.2f} at all looks" in found.reason
    assert all("ratio_low" not in f.numbers for f in harm(evidence_at(T0), STANDARD))


# --- what decide makes of it ---

STAGES = [(State.CANARY, CANARY), (State.LABELS, LABELS)]
LATER = T0 + 3 * DAY


def passes(state):
    """Return what lets a rollout leave `state`, with the question of harm answered."""
    return [*(a_finding(q) for q in sorted(REQUIRED[state])), a_finding(Question.HARM, Verdict.INCONCLUSIVE)]


@pytest.mark.parametrize(("state", "stage"), STAGES)
@pytest.mark.parametrize("question", FREEZING)
def test_a_question_that_freezes_stops_the_ramp_when_it_fails_and_never_rolls_back(state, stage, question):
    rollout = a_rollout(state, stage)
    assert decide(rollout, STANDARD, passes(state), now=LATER).action is Action.ADVANCE
    failed = a_finding(question, Verdict.FAIL)
    held = decide(rollout, STANDARD, [*passes(state), failed], now=LATER)
    assert (held.action, held.reason) == (Action.HOLD, failed.reason)


@pytest.mark.parametrize(("state", "stage"), STAGES)
@pytest.mark.parametrize("question", FREEZING)
@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR])
def test_a_question_that_freezes_widens_nothing_and_holds_nothing_by_another_answer(state, stage, question, verdict):
    rollout = a_rollout(state, stage)
    answered = a_finding(question, verdict)
    assert decide(rollout, STANDARD, [*passes(state), answered], now=LATER).action is Action.ADVANCE
    for missing in REQUIRED[state]:
        few = [f for f in passes(state) if f.question is not missing]
        assert decide(rollout, STANDARD, [*few, answered], now=LATER).action is Action.HOLD


@pytest.mark.parametrize(("state", "stage"), STAGES)
@pytest.mark.parametrize("question", FREEZING)
def test_what_does_not_bind_freezes_nothing(state, stage, question):
    shown = a_finding(question, Verdict.FAIL, is_binding=False)
    assert decide(a_rollout(state, stage), STANDARD, [*passes(state), shown], now=LATER).action is Action.ADVANCE


@pytest.mark.parametrize(("state", "stage"), STAGES)
@pytest.mark.parametrize("question", FREEZING)
def test_a_ramp_that_stands_still_at_its_deadline_asks_a_person(state, stage, question):
    rollout = a_rollout(state, stage)
    failed = [*passes(state), a_finding(question, Verdict.FAIL)]
    assert decide(rollout, STANDARD, failed, now=rollout.deadline).action is Action.ASK


@pytest.mark.parametrize("state", [State.AWAITING_APPROVAL, State.PROMOTING, State.CHAMPION])
@pytest.mark.parametrize("question", FREEZING)
def test_outside_the_ramp_a_freezing_question_decides_nothing(state, question):
    found = [a_finding(question, Verdict.FAIL)]
    assert decide(a_rollout(state, APPROVAL), STANDARD, found, now=LATER).action is Action.HOLD


def crossed(evidence, count=1):
    return assignment(replace(evidence, crossed=count), alpha=0.0025)


@pytest.mark.parametrize("count", [1, 5_000])
def test_units_in_both_arms_break_the_assignment_whatever_the_shares_say(count):
    sound = evidence_at(T0)
    assert assignment(sound, alpha=0.0025).verdict is Verdict.PASS
    found = crossed(sound, count)
    assert (found.verdict, found.numbers["crossed"]) == (Verdict.FAIL, count)
    assert f"{count:,} units were seen in both arms" in found.reason


def broken_assignments():
    sound = evidence_at(T0)
    unlabelled = {
        cell: replace(tally, labelled=round(0.9 * tally.labelled)) if cell.arm is Arm.CHALLENGER else tally
        for cell, tally in sound.cells.items()
    }
    lost = [f for f in losses(replace(sound, cells=unlabelled), STANDARD, alpha=0.0025) if f.verdict is Verdict.FAIL]
    return {
        "crossed": crossed(sound),
        "mismatch": assignment(evidence_at(T0, lost=0.1), alpha=0.0025),
        "labels": first(lost),
    }


@pytest.mark.parametrize(("state", "stage"), STAGES)
@pytest.mark.parametrize("kind", ["crossed", "mismatch", "labels"])
def test_a_broken_assignment_widens_nothing_promotes_nothing_and_renews_no_lease(state, stage, kind):
    broken = broken_assignments()[kind]
    assert (broken.question, broken.verdict) == (Question.ASSIGNMENT, Verdict.FAIL)
    found = [*passes(state), broken]
    held = decide(a_rollout(state, stage), STANDARD, found, now=LATER)
    assert (held.action, held.reason) == (Action.HOLD, broken.reason)
    assert is_judged(passes(state))
    assert not is_judged(found)


def test_likely_harm_freezes_before_it_is_proven():
    evidence = evidence_at(T0, ratio=1.4, units=7_000)
    found = [*passes(State.CANARY), *harm(evidence, STANDARD), *warnings(evidence, STANDARD)]
    assert decide(a_rollout(), STANDARD, found, now=LATER).action is Action.HOLD
    proven = evidence_at(T0, ratio=2.0)
    found = [*passes(State.CANARY), *harm(proven, STANDARD), *warnings(proven, STANDARD)]
    assert decide(a_rollout(), STANDARD, found, now=LATER).action is Action.ROLL_BACK


def test_an_assignment_in_doubt_widens_nothing_and_keeps_its_lease():
    doubted = assignment(evidence_at(T0, lost=0.026), alpha=0.0025)
    assert doubted.verdict is Verdict.INCONCLUSIVE
    assert math.log(DOUBTED) <= doubted.numbers["log_e"] < math.log(1 / 0.0025)
    for state, stage in STAGES:
        found = [*(f for f in passes(state) if f.question is not Question.ASSIGNMENT), doubted]
        held = decide(a_rollout(state, stage), STANDARD, found, now=LATER)
        assert (held.action, held.reason) == (Action.HOLD, doubted.reason)
        assert is_judged([*passes(state), doubted])
