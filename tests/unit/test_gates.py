import copy
import math
from dataclasses import replace

import pytest
from builders import CANARY, HOUR, PLAN, SHADOW, T0, a_finding, a_plan, a_release, evidence_at

from seatrial.evidence import Arm, Cell, Epoch, Evidence, ShadowTally
from seatrial.gates.assignment import assignment, losses
from seatrial.gates.contract import contract
from seatrial.gates.delays import delays
from seatrial.gates.finding import Question
from seatrial.gates.freshness import freshness, soundness
from seatrial.gates.guardrails import exposure, harm, promotion, warnings
from seatrial.gates.load import load
from seatrial.gates.pairs import paired_losses
from seatrial.gates.scores import scores, shadow_scores
from seatrial.gates.shadow import shadow
from seatrial.plan import Bound
from seatrial.units import canonical
from seatrial.verdict import Verdict

STANDARD = a_plan()
#: A plan that asks something of the score as well, and of its losses in shadow.
SCORED = a_plan(
    stages=[{**stage, "max_brier_increase": 0.02} if stage["stage"] == "shadow" else stage for stage in PLAN["stages"]],
    scores={"range": [0, 1], "label": "late", "maturity": "36 h", "slices": ["origin"], "consequence": "freeze"},
)
MAX_AGE = 6 * HOUR
RULE_OUT = STANDARD.stages[CANARY].rule_out


def verdicts(findings):
    return {finding.subject: finding.verdict for finding in findings}


def guardrail(name, **changes):
    """Return the plan with one guardrail changed."""
    guardrails = copy.deepcopy(PLAN["guardrails"])
    for each in guardrails:
        if each["name"] == name:
            each.update(changes)
    return a_plan(guardrails=guardrails)


def test_no_evidence_answers_no_question_with_a_pass():
    nothing = Evidence()
    findings = [
        freshness(nothing, max_age=MAX_AGE, now=T0),
        soundness(nothing, max_set_aside=0.001),
        assignment(nothing, alpha=0.005),
        load([]),
        *shadow(nothing.shadow, STANDARD.stages[SHADOW], alpha=0.05),
        *harm(nothing, STANDARD),
        *warnings(nothing, STANDARD),
        *exposure(nothing, STANDARD, rule_out=RULE_OUT),
        *promotion(nothing, STANDARD),
        *scores(nothing, SCORED),
        *shadow_scores(nothing, SCORED),
        *paired_losses(nothing, SCORED, SCORED.stages[SHADOW]),
        *delays(nothing, SCORED),
    ]
    assert {f.question for f in findings} == set(Question) - {Question.CONTRACT}
    assert all(f.verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR) for f in findings)


def test_every_guardrail_and_declared_slice_is_answered_for_even_without_a_unit():
    whole, slices = harm(Evidence(), STANDARD)
    assert (whole.subject, slices.subject) == ("wrong-decision", "wrong-decision · quiet slices")
    assert slices.verdict is Verdict.INCONCLUSIVE
    assert (slices.numbers["quiet_slices"], slices.numbers["empty_slices"]) == (2, 2)
    assert "2 of them without a unit in one arm or in both" in slices.reason
    names = ["call-failed", "wrong-decision"]
    for found in (
        warnings(Evidence(), STANDARD),
        exposure(Evidence(), STANDARD, rule_out=RULE_OUT),
        promotion(Evidence(), STANDARD),
    ):
        assert [f.subject for f in found] == names


def test_units_without_a_bad_one_show_neither_harm_nor_its_absence():
    quiet = evidence_at(T0, ratio=0.0)
    quiet = replace(quiet, cells={cell: replace(tally, bad=0, matured_bad=0) for cell, tally in quiet.cells.items()})
    for found in (harm(quiet, STANDARD), exposure(quiet, STANDARD, rule_out=RULE_OUT), promotion(quiet, STANDARD)):
        assert {f.verdict for f in found} == {Verdict.INCONCLUSIVE}


def test_findings_of_nothing_can_be_written_to_the_ledger():
    found = [*harm(Evidence(), STANDARD), *shadow(ShadowTally(), STANDARD.stages[SHADOW], alpha=0.05)]
    assert canonical([f.document() for f in found])


@pytest.mark.parametrize(
    ("age", "verdict"),
    [
        (0 * HOUR, Verdict.PASS),
        (MAX_AGE, Verdict.PASS),
        (MAX_AGE + HOUR / 3600, Verdict.ERROR),
        (999 * HOUR, Verdict.ERROR),
    ],
)
def test_evidence_older_than_the_plan_allows_is_an_error(age, verdict):
    assert freshness(Evidence(newest=T0 - age), max_age=MAX_AGE, now=T0).verdict is verdict


@pytest.mark.parametrize(("lost", "verdict"), [(0.0, Verdict.PASS), (0.05, Verdict.FAIL), (1.0, Verdict.FAIL)])
def test_units_that_one_arm_lost_break_the_assignment(lost, verdict):
    found = assignment(evidence_at(T0, lost=lost), alpha=0.005)
    assert found.verdict is verdict
    assert found.numbers["expected_challenger_units"] == pytest.approx(0.2 * (100_000 - lost * 20_000))


@pytest.mark.parametrize(
    ("column", "counted", "broken"),
    [
        (None, "labelled", "labels · wrong-decision"),
        ("origin", "units", "units · wrong-decision · origin=JFK"),
    ],
)
def test_units_lost_after_assignment_break_it_where_they_were_lost(column, counted, broken):
    sound = evidence_at(T0)
    assert {f.verdict for f in losses(sound, STANDARD, alpha=0.0025)} == {Verdict.PASS}
    value = None if column is None else "JFK"
    cells = {
        cell: replace(tally, **{counted: round(0.9 * getattr(tally, counted))})
        if (cell.slice_column, cell.slice_value, cell.arm) == (column, value, Arm.CHALLENGER)
        else tally
        for cell, tally in sound.cells.items()
    }
    found = verdicts(losses(replace(sound, cells=cells), STANDARD, alpha=0.0025))
    assert [subject for subject, verdict in found.items() if verdict is Verdict.FAIL] == [broken]


def test_labels_and_slices_without_units_have_no_finding_that_could_pass():
    assert losses(Evidence(), STANDARD, alpha=0.0025) == []


@pytest.mark.parametrize(("lost", "verdict"), [(0.05, Verdict.INCONCLUSIVE), (0.2, Verdict.FAIL)])
def test_a_slice_that_is_not_as_assigned_or_in_doubt_is_named_beside_those_that_pass(lost, verdict):
    evidence = sliced_evidence(THREE, {})
    cells = {
        cell: replace(tally, units=round((1.0 - lost) * tally.units))
        if (cell.slice_value, cell.arm) == ("JFK", Arm.CHALLENGER)
        else tally
        for cell, tally in evidence.cells.items()
    }
    found = verdicts(losses(replace(evidence, cells=cells), THREE, alpha=0.0025))
    assert found == {"units · wrong-decision · origin=JFK": verdict, "labels and slices": Verdict.PASS}


def test_the_shares_of_several_epochs_are_not_pooled():
    # Simpson: 3 % of both days together, although each day kept its share.
    both = evidence_at(T0, share=0.01, units=40_000) + replace(
        evidence_at(T0, share=0.5, units=2_000),
        epochs={3: Epoch(0.5, 3)},
        cells={},
        assigned={(3, Arm.CHALLENGER): 1_000, (3, Arm.CHAMPION): 1_000},
    )
    assert assignment(both, alpha=0.005).verdict is Verdict.PASS


def test_proven_harm_fails_and_names_its_numbers():
    found = harm(evidence_at(T0, ratio=2.0), STANDARD)
    assert {f.verdict for f in found} == {Verdict.FAIL}
    assert found[0].numbers["challenger_bad"] == 2_000
    assert found[0].numbers["threshold"] == pytest.approx(math.log(1 / 0.025))
    assert "2,000 of 20,000 against 4,000 of 80,000" in found[0].reason


@pytest.mark.parametrize("ratio", [0.2, 1.0])
def test_a_release_that_is_no_worse_is_never_a_pass_of_harm(ratio):
    assert {f.verdict for f in harm(evidence_at(T0, ratio=ratio), STANDARD)} == {Verdict.INCONCLUSIVE}


def test_harm_in_one_slice_alone_is_found_there():
    calm, bad = evidence_at(T0), evidence_at(T0, ratio=3.0)
    cells = {cell: (bad if cell.slice_value == "JFK" else calm).cells[cell] for cell in calm.cells}
    assert verdicts(harm(replace(calm, cells=cells), STANDARD)) == {
        "wrong-decision": Verdict.INCONCLUSIVE,
        "wrong-decision · origin=EWR": Verdict.INCONCLUSIVE,
        "wrong-decision · origin=JFK": Verdict.FAIL,
    }


def sliced_evidence(plan, ratios):
    """Return evidence in which the challenger's bad units are `ratios` times as many in slices, and as many overall."""
    cells = {}
    for value in ("", *plan.slices["origin"]):
        found = evidence_at(T0, plan=plan, ratio=ratios.get(value, 1.0)).cells
        cells |= {cell: tally for cell, tally in found.items() if (cell.slice_value or "") == value}
    return replace(evidence_at(T0, plan=plan), cells=cells)


THREE = a_plan(slices={"origin": ["EWR", "JFK", "LGA"]})


def test_quiet_slices_share_a_finding_that_names_the_one_nearest_to_harm():
    whole, slices = harm(sliced_evidence(THREE, {"JFK": 1.05}), THREE)
    alone = harm(sliced_evidence(THREE, {"JFK": 1.05, "LGA": 9.0}), THREE)
    assert whole.subject == "wrong-decision"
    assert slices.numbers["nearest"] == "origin=JFK"
    assert (slices.numbers["quiet_slices"], slices.numbers["empty_slices"]) == (3, 0)
    assert slices.numbers["challenger_bad"] == 350
    assert "3 slices are not shown to be worse; the most evidence is in origin=JFK: 350 of 6,666" in slices.reason
    assert slices.is_binding
    assert "wrong-decision · origin=LGA" in verdicts(alone)


@pytest.mark.parametrize(("ratio", "is_told"), [(1.0, False), (1.2, True)])
def test_a_slice_that_is_likely_worse_is_told_by_itself(ratio, is_told):
    found = verdicts(harm(sliced_evidence(THREE, {"JFK": ratio}), THREE))
    assert ("wrong-decision · origin=JFK" in found) is is_told
    assert set(found.values()) == {Verdict.INCONCLUSIVE}


def test_a_slice_that_is_named_as_a_culprit_is_told_by_itself_however_little_evidence_it_has():
    plan = a_plan(slices={"origin": [f"S{at}" for at in range(8)]})
    ratios = {f"S{at}": 9.0 for at in range(6)} | {"S6": 1.25, "S7": 1.25}
    found = {f.subject: f for f in harm(sliced_evidence(plan, ratios), plan)}
    named = found["wrong-decision · origin=S7"]
    assert "origin=S7" in found["wrong-decision · origin=S0"].numbers["slices"].split(", ")
    assert named.verdict is Verdict.INCONCLUSIVE
    assert named.numbers["log_e"] < math.log(1.0 / plan.budgets.hold)
    assert "wrong-decision · quiet slices" not in found


def test_one_quiet_slice_keeps_its_own_name():
    found = verdicts(harm(sliced_evidence(THREE, {"EWR": 3.0, "JFK": 3.0}), THREE))
    assert list(found) == ["wrong-decision", *(f"wrong-decision · origin={each}" for each in ("EWR", "JFK", "LGA"))]


def test_a_slice_of_which_nothing_can_be_counted_is_never_called_quiet():
    slow = {
        "name": "slow",
        "source": "runtime",
        "exceeds": {"column": "latency_ms", "quantile": "95 %"},
        "margin": "20 % relative",
        "slices": ["origin"],
        "consequence": "roll_back",
    }
    plan = a_plan(guardrails=[*PLAN["guardrails"], slow])
    found = [f for f in harm(Evidence(), plan) if f.subject.startswith("slow")]
    assert [f.subject for f in found] == ["slow", "slow · origin=EWR", "slow · origin=JFK"]
    assert all("too few units before the rollout" in f.reason for f in found)


def test_labels_and_slices_that_pass_share_a_finding_and_the_others_are_named():
    (together,) = losses(evidence_at(T0), STANDARD, alpha=0.0025)
    assert (together.subject, together.verdict) == ("labels and slices", Verdict.PASS)
    assert (together.numbers["parts"], together.numbers["parts_without_units"]) == (3, 0)
    assert together.numbers["least_likely"] in together.reason
    without_labels = {c: replace(t, labelled=0) for c, t in evidence_at(T0).cells.items()}
    (some,) = losses(replace(evidence_at(T0), cells=without_labels), STANDARD, alpha=0.0025)
    assert (some.numbers["parts"], some.numbers["parts_without_units"]) == (2, 1)
    assert "1 has no unit yet" in some.reason


def test_a_dry_run_is_judged_and_does_not_bind():
    for name, ask in (("wrong-decision", harm), ("call-failed", warnings)):
        with_dry_run = copy.deepcopy(PLAN["guardrails"])
        with_dry_run.append(
            {**next(g for g in PLAN["guardrails"] if g["name"] == name), "name": "dry", "dry_run": True}
        )
        plan = a_plan(guardrails=with_dry_run)
        found = [f for f in ask(evidence_at(T0, plan=plan, ratio=3.0), plan) if f.subject == "dry"]
        assert [(f.verdict, f.is_binding) for f in found] == [(Verdict.FAIL, False)]


@pytest.mark.parametrize(("consequence", "binds"), [("notify", False), ("freeze", True), ("roll_back", True)])
def test_a_guardrail_binds_unless_it_only_notifies(consequence, binds):
    plan = guardrail("call-failed", consequence=consequence)
    evidence = evidence_at(T0, ratio=2.0)
    for found in (warnings(evidence, plan), exposure(evidence, plan, rule_out=RULE_OUT), promotion(evidence, plan)):
        assert [f.is_binding for f in found if f.subject == "call-failed"] == [binds]
    failed = [f for f in harm(evidence, plan) if f.subject == "call-failed"]
    assert len(failed) == (consequence == "roll_back")


def test_a_warning_fires_before_harm_is_proven():
    likely = evidence_at(T0, ratio=1.4, units=7_000)
    assert verdicts(warnings(likely, STANDARD))["wrong-decision"] is Verdict.FAIL
    assert verdicts(harm(likely, STANDARD))["wrong-decision"] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("ratio", "units", "rules_out_double", "rules_out_margin"),
    [(1.0, 100_000, True, True), (1.0, 100, False, False), (1.4, 100_000, True, False), (2.2, 100_000, False, False)],
)
def test_harm_beyond_a_margin_is_ruled_out_by_enough_units_alone(ratio, units, rules_out_double, rules_out_margin):
    evidence = evidence_at(T0, ratio=ratio, units=units)
    found = verdicts(exposure(evidence, STANDARD, rule_out=RULE_OUT))
    assert (found["wrong-decision"] is Verdict.PASS) == rules_out_double
    assert (verdicts(promotion(evidence, STANDARD))["wrong-decision"] is Verdict.PASS) == rules_out_margin
    assert Verdict.FAIL not in found.values()


def test_an_absolute_margin_bounds_the_challengers_own_rate():
    plan = guardrail("call-failed", margin="6 % absolute")
    assert verdicts(exposure(evidence_at(T0), plan, rule_out=RULE_OUT))["call-failed"] is Verdict.PASS
    worse = evidence_at(T0, ratio=1.3)
    assert verdicts(exposure(worse, plan, rule_out=RULE_OUT))["call-failed"] is Verdict.INCONCLUSIVE
    assert verdicts(promotion(worse, plan))["call-failed"] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("arm", [Arm.CHALLENGER, Arm.CHAMPION])
@pytest.mark.parametrize(
    ("labelled", "verdict"), [(0.0, Verdict.INCONCLUSIVE), (0.79, Verdict.INCONCLUSIVE), (0.8, Verdict.PASS)]
)
def test_units_without_a_label_are_not_counted_as_good(arm, labelled, verdict):
    evidence = evidence_at(T0)
    cells = {
        cell: replace(tally, labelled=round(tally.matured * labelled)) if cell.arm is arm else tally
        for cell, tally in evidence.cells.items()
    }
    assert {f.verdict for f in promotion(replace(evidence, cells=cells), STANDARD)} == {verdict}


def test_promotion_counts_matured_units_alone():
    evidence = evidence_at(T0)
    for matured in (0, 40):
        unripe = {
            cell: replace(tally, matured=matured, matured_bad=matured // 20, labelled=matured)
            for cell, tally in evidence.cells.items()
        }
        found = promotion(replace(evidence, cells=unripe), STANDARD)
        assert {f.verdict for f in found} == {Verdict.INCONCLUSIVE}
        coverage = 1.0 if matured else 0.0
        assert {f.numbers["challenger_coverage"] for f in found} == {coverage}


def test_an_epoch_of_another_rollouts_guardrail_does_not_count():
    evidence = evidence_at(T0, ratio=3.0)
    others = {Cell("another", *cell[1:]): tally for cell, tally in evidence.cells.items()}
    assert {f.verdict for f in harm(replace(evidence, cells=others), STANDARD)} == {Verdict.INCONCLUSIVE}


STAGE = STANDARD.stages[SHADOW]
GOOD = ShadowTally(units=5_000, compared=5_000, flipped=100)


def shadow_verdicts(**changes):
    return verdicts(shadow(replace(GOOD, **changes), STAGE, alpha=0.05))


@pytest.mark.parametrize(
    ("changes", "failures", "flips"),
    [
        ({}, Verdict.PASS, Verdict.PASS),
        ({"units": 499, "compared": 499, "flipped": 1}, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        ({"challenger_failed": 400}, Verdict.FAIL, Verdict.PASS),
        ({"both_failed": 400}, Verdict.INCONCLUSIVE, Verdict.PASS),
        ({"champion_failed": 400}, Verdict.PASS, Verdict.PASS),
        ({"flipped": 2_000}, Verdict.PASS, Verdict.INCONCLUSIVE),
        ({"flipped": 4_000}, Verdict.PASS, Verdict.FAIL),
        ({"compared": 0, "flipped": 0}, Verdict.PASS, Verdict.INCONCLUSIVE),
    ],
)
def test_a_shadow_passes_when_few_calls_fail_and_few_actions_change(changes, failures, flips):
    assert shadow_verdicts(**changes) == {"shadow failures": failures, "flipped actions": flips}


CHAMPION = a_release("champion")
BOUND = Bound(metric="log_loss", at_most=0.6)


def contract_verdicts(bound=BOUND, **changes):
    return verdicts(contract(a_release("challenger", CHAMPION.id, **changes), CHAMPION, bounds=[bound]))


def test_a_release_that_fits_its_champion_passes_every_question():
    assert set(contract_verdicts().values()) == {Verdict.PASS}


def test_the_same_column_in_another_unit_or_type_fails():
    column = CHAMPION.document()["features"]["columns"][0]
    for change in ({"unit": "km"}, {"dtype": "int"}):
        features = {"version": "2", "columns": [{**column, **change}]}
        assert contract_verdicts(features=features)["feature schema"] is Verdict.FAIL
    added = {"version": "2", "columns": [column, {**column, "name": "wind"}]}
    assert contract_verdicts(features=added)["feature schema"] is Verdict.PASS


def test_another_kind_or_range_of_score_fails():
    for output in (
        {"kind": "rank", "range": [0, 1], "positive": "late"},
        {"kind": "probability", "range": [0, 0.9], "positive": "late"},
    ):
        assert contract_verdicts(output=output)["output contract"] is Verdict.FAIL


def test_an_action_that_nobody_downstream_knows_fails():
    policy = CHAMPION.document()["policy"]
    actions = {**policy["actions"], "cancel": {"reversible": False}}
    assert contract_verdicts(policy={**policy, "actions": actions})["actions"] is Verdict.FAIL


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [
        ({"at_most": 0.4}, Verdict.PASS),
        ({"at_most": 0.399}, Verdict.FAIL),
        ({"at_least": 0.4}, Verdict.PASS),
        ({"at_least": 0.401}, Verdict.FAIL),
        ({"at_least": 0.3, "at_most": 0.5}, Verdict.PASS),
        ({"at_least": 0.3, "at_most": 0.35}, Verdict.FAIL),
    ],
)
def test_an_offline_metric_keeps_its_bound(bound, verdict):
    assert contract_verdicts(Bound(metric="log_loss", **bound))["offline log_loss"] is verdict


def test_a_metric_that_nobody_reported_is_an_error():
    found = contract_verdicts(Bound(metric="auc", at_least=0.5))
    assert found["offline auc"] is Verdict.ERROR


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_is_an_error(value):
    release = a_release("challenger", CHAMPION.id)
    metrics = release.evaluation.model_copy(update={"metrics": {"log_loss": value}})
    broken = release.model_copy(update={"evaluation": metrics})
    assert verdicts(contract(broken, CHAMPION, bounds=[BOUND]))["offline log_loss"] is Verdict.ERROR


def test_a_finding_is_written_with_its_numbers_as_text():
    document = a_finding(Question.HARM, numbers={"a": 1 / 3, "b": 2, "c": None, "d": math.nan}).document()
    assert document["numbers"] == {"a": "0.333333", "b": "2", "c": None, "d": "nan"}
    assert canonical(document)


@pytest.mark.parametrize(
    ("rows", "bad", "verdict"),
    [
        (1_000, 0, Verdict.PASS),
        (1_000, 1, Verdict.PASS),
        (1_000, 2, Verdict.ERROR),
        (0, 1, Verdict.ERROR),
        (0, 0, Verdict.INCONCLUSIVE),
    ],
)
def test_a_log_with_more_bad_rows_than_the_plan_allows_is_not_judged(rows, bad, verdict):
    set_aside = {"share.out_of_range": bad} if bad else {}
    found = soundness(Evidence(rows=rows, set_aside=set_aside), max_set_aside=0.001)
    assert (found.question, found.verdict) == (Question.FRESHNESS, verdict)
    assert ("share.out_of_range" in found.reason) is bool(bad)
