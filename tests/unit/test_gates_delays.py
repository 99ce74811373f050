"""Labels that arrive late, unequally late, or never because an action hides them."""

import copy
import math
from dataclasses import replace

import pytest
from builders import CANARY, LABELS, PLAN, T0, a_finding, a_plan, a_rollout, evidence_at

from seatrial.evidence import WAIT_STEPS, Arm, Epoch, Evidence, Wait
from seatrial.gates.assignment import losses
from seatrial.gates.delays import delays
from seatrial.gates.finding import Question
from seatrial.gates.guardrails import exposure, harm, promotion
from seatrial.rollout import Action, State, decide
from seatrial.units import canonical
from seatrial.verdict import Verdict

STANDARD = a_plan()


def waiting(challenger, champion, *, age=WAIT_STEPS, is_bad=True, snapshot_no=2, name="wrong-decision"):
    """Return evidence of waits, given as counts by the step at which the label arrived."""
    waits = {
        Wait(name, snapshot_no, arm, is_bad, age, delay): count
        for arm, counts in ((Arm.CHALLENGER, challenger), (Arm.CHAMPION, champion))
        for delay, count in counts.items()
    }
    return Evidence(epochs={snapshot_no: Epoch(0.2, 2)}, waits=waits)


def even(count, first=0):
    """Return `count` labels at each of 20 steps."""
    return dict.fromkeys(range(first, first + 20), count)


def only(evidence, plan=STANDARD):
    (finding,) = delays(evidence, plan)
    return finding


@pytest.mark.parametrize(
    ("challenger", "verdict", "says"),
    [
        (even(10), Verdict.INCONCLUSIVE, "labels of both arms take equally long, as far as can be told"),
        (even(10, first=12), Verdict.FAIL, "labels of the challenger's units arrive later than the champion's"),
        ({0: 200}, Verdict.FAIL, "labels of the challenger's units arrive sooner than the champion's"),
        ({0: 3}, Verdict.INCONCLUSIVE, "too few labels"),
        ({}, Verdict.INCONCLUSIVE, "too few labels"),
    ],
)
def test_unequal_waits_fail_and_equal_ones_pass_nothing(challenger, verdict, says):
    finding = only(waiting(challenger, even(40)))
    assert (finding.question, finding.subject, finding.verdict) == (Question.DELAY, "wrong-decision", verdict)
    assert says in finding.reason
    assert finding.numbers["challenger_labels"] == sum(challenger.values())
    assert canonical(finding.document())


def test_delays_are_judged_at_the_hold_budget_in_both_directions():
    finding = only(waiting(even(10, first=12), even(40)))
    assert finding.numbers["threshold"] == pytest.approx(math.log(1 / STANDARD.budgets.hold))
    assert finding.numbers["log_e"] >= finding.numbers["threshold"]
    assert finding.numbers["challenger_median_delay"] == pytest.approx(21.5 / WAIT_STEPS)
    assert finding.numbers["champion_median_delay"] == pytest.approx(9.5 / WAIT_STEPS)
    assert finding.numbers["z"] < 0


@pytest.mark.parametrize("changes", [{"age": WAIT_STEPS - 1}, {"name": "another"}])
def test_only_units_past_their_window_are_compared(changes):
    found = only(waiting(even(10, first=12), even(40), **changes))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.numbers["challenger_labels"] == 0


@pytest.mark.parametrize("delay", [-1, WAIT_STEPS])
def test_a_label_that_is_missing_or_too_late_is_no_delay(delay):
    calm = waiting(even(10), even(40))
    more = calm + waiting({delay: 5_000}, {})
    assert only(more) == only(calm)


def test_labels_of_bad_and_good_units_are_compared_together():
    # Two releases are wrong about units of other kinds: the bad ones alone may differ without any loss of time.
    bad = waiting({0: 200}, {19: 200})
    good = waiting({19: 200}, {0: 200}, is_bad=False)
    assert only(bad).verdict is Verdict.FAIL
    assert only(bad + good).verdict is Verdict.INCONCLUSIVE


def test_delays_are_compared_within_epochs():
    # All labels are late in the second epoch, in which most of the challenger's units are.
    early, late = even(1), even(1, first=25)
    first = waiting(early, {step: 40 * count for step, count in early.items()})
    second = waiting({step: 40 * count for step, count in late.items()}, late, snapshot_no=3)
    assert only(first + second).verdict is Verdict.INCONCLUSIVE
    pooled = {Wait(w.guardrail, 2, *w[2:]): 0 for w in [*first.waits, *second.waits]}
    for wait, count in [*first.waits.items(), *second.waits.items()]:
        pooled[Wait(wait.guardrail, 2, *wait[2:])] += count
    assert only(Evidence(waits=pooled)).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("changes", "binds"),
    [
        ({}, True),
        ({"consequence": "freeze"}, True),
        ({"consequence": "notify"}, False),
        ({"dry_run": True}, False),
    ],
)
def test_a_finding_on_delays_binds_as_its_guardrail_does(changes, binds):
    guardrails = copy.deepcopy(PLAN["guardrails"])
    guardrails.append({**guardrails[1], "name": "other", **changes})
    found = delays(waiting(even(10, first=12), even(40), name="other"), a_plan(guardrails=guardrails))
    assert [(f.subject, f.verdict, f.is_binding) for f in found] == [
        ("wrong-decision", Verdict.INCONCLUSIVE, True),
        ("other", Verdict.FAIL, binds),
    ]


def test_guardrails_without_a_label_and_means_of_one_wait_for_nothing():
    mean = {"of": "label", "typical": 0.2, "deviation": 0.4}
    guardrails = copy.deepcopy(PLAN["guardrails"])
    averaged = {key: value for key, value in guardrails[1].items() if key != "bad_when"}
    guardrails.append({**averaged, "name": "lateness", "mean": mean, "slices": []})
    assert [f.subject for f in delays(Evidence(), a_plan(guardrails=guardrails))] == ["wrong-decision"]


@pytest.mark.parametrize(("state", "stage"), [(State.CANARY, CANARY), (State.LABELS, LABELS)])
def test_unequal_waits_stop_the_ramp_and_roll_nothing_back(state, stage):
    passes = [
        a_finding(q)
        for q in (Question.FRESHNESS, Question.ASSIGNMENT, Question.EXPOSURE, Question.PROMOTION, Question.HARM)
    ]
    now = T0 + 5 * (STANDARD.stages[LABELS].deadline / 21)
    equal, unequal = only(waiting(even(10), even(40))), only(waiting(even(10, first=12), even(40)))
    rollout = a_rollout(state, stage)
    assert decide(rollout, STANDARD, [*passes, equal], now=now).action is Action.ADVANCE
    held = decide(rollout, STANDARD, [*passes, unequal], now=now)
    assert (held.action, held.reason) == (Action.HOLD, unequal.reason)


# --- labels that an action hides ---

HIDDEN = {
    "name": "defaulted",
    "source": "label",
    "label": "default",
    "maturity": "36 h",
    "bad_when": [{"label": 1, "action": "none"}],
    "observed_when": [{"action": "none"}],
    "margin": "15 % relative",
    "consequence": "roll_back",
}
DECLINED = {
    "name": "declined",
    "source": "proxy",
    "bad_when": [{"action": "rebook"}],
    "margin": "20 % relative",
    "consequence": "freeze",
}


def declining(plan, part, *, champion=0.3, harm=1.0, units=100_000):
    """Return evidence in which the challenger declines `part` of its units, and a unit that it accepts is as bad."""
    evidence = evidence_at(T0, plan=plan, units=units)
    cells = {}
    for cell, tally in evidence.cells.items():
        refused = part if cell.arm is Arm.CHALLENGER else champion
        times = harm if cell.arm is Arm.CHALLENGER else 1.0
        hidden = round(tally.units * refused)
        seen = tally.units - hidden
        bad = round(seen * 0.1 * times)
        if cell.guardrail == "defaulted":
            changed = {"bad": bad, "matured_bad": bad, "labelled": seen, "good": seen - bad, "hidden": hidden}
        else:
            changed = {"bad": hidden, "matured_bad": hidden, "good": seen}
        cells[cell] = replace(tally, **changed)
    return replace(evidence, cells=cells)


def verdicts(findings):
    return {f.subject: f.verdict for f in findings}


def test_who_declines_everybody_is_promoted_by_no_hidden_label():
    plan = a_plan(guardrails=[HIDDEN, DECLINED])
    everybody = declining(plan, 1.0)
    assert verdicts(promotion(everybody, plan)) == {
        "defaulted": Verdict.INCONCLUSIVE,
        "declined": Verdict.INCONCLUSIVE,
    }
    assert verdicts(promotion(declining(plan, 0.3), plan)) == {"defaulted": Verdict.PASS, "declined": Verdict.PASS}


@pytest.mark.parametrize("part", [0.5, 0.9, 0.999])
def test_who_declines_more_has_fewer_bad_labels_and_is_held_by_the_rate_of_the_action(part):
    plan = a_plan(guardrails=[HIDDEN, DECLINED])
    evidence = declining(plan, part, harm=2.0)
    assert verdicts(promotion(evidence, plan))["declined"] is Verdict.INCONCLUSIVE
    rule_out = plan.stages[CANARY].rule_out
    assert (verdicts(exposure(evidence, plan, rule_out=rule_out))["declined"] is Verdict.PASS) == (part < 0.6)


def test_hidden_labels_are_not_asked_for_when_coverage_is():
    plan = a_plan(guardrails=[HIDDEN, DECLINED])
    numbers = promotion(declining(plan, 0.3), plan)[0].numbers
    assert (numbers["challenger_coverage"], numbers["champion_coverage"]) == (1.0, 1.0)


def test_who_declines_more_is_not_proven_worse_by_the_good_units_that_nobody_sees():
    plan = a_plan(guardrails=[{**HIDDEN, "expected": {"rate": "10 %"}}, DECLINED])
    for part in (0.5, 0.9, 1.0):
        assert verdicts(harm(declining(plan, part), plan)) == {"defaulted": Verdict.INCONCLUSIVE}
    assert verdicts(harm(declining(plan, 0.3, harm=1.5), plan)) == {"defaulted": Verdict.FAIL}


def test_hidden_labels_are_no_lost_ones():
    plan = a_plan(guardrails=[HIDDEN, DECLINED])
    assert losses(declining(plan, 0.6), plan, alpha=0.0025) == []
    seen = {key: value for key, value in HIDDEN.items() if key != "observed_when"}
    always = a_plan(guardrails=[{**seen, "bad_when": [{"label": 1}]}, DECLINED])
    assert verdicts(losses(declining(always, 0.6), always, alpha=0.0025)) == {"labels · defaulted": Verdict.FAIL}
