"""Guardrails on means and on tails: what they find, on what counts, and when they bind."""

import copy
import math
from dataclasses import replace

import pytest
from builders import CANARY, PLAN, T0, a_plan, evidence_at

from seatrial.evidence import AMOUNT_STEP, DIVISOR_STEP, Arm, Cell, Frozen, Moments
from seatrial.gates.guardrails import exposure, harm, promotion, warnings
from seatrial.units import canonical
from seatrial.verdict import Verdict

TYPICAL, DEVIATION = 12.0, 8.0


def a_plan_with(guardrail, **changes):
    """Return the plan with one more guardrail."""
    return a_plan(guardrails=[*copy.deepcopy(PLAN["guardrails"]), {**guardrail, **changes}])


def spent(*, worse="higher", **changes):
    mean = {"of": "latency_ms", "worse": worse, "typical": TYPICAL, "deviation": DEVIATION}
    guardrail = {"name": "spent", "source": "runtime", "mean": mean, "margin": "20 % relative", "consequence": "freeze"}
    return a_plan_with(guardrail, **changes)


def slow(**changes):
    tail = {"column": "latency_ms", "quantile": "95 %"}
    guardrail = {"name": "slow", "source": "runtime", "exceeds": tail, "margin": "20 % relative"}
    return a_plan_with({**guardrail, "consequence": "freeze"}, **changes)


def moments_of(units, mean, *, nonzero=None):
    """Return the moments of `units` with that mean, and the deviation that the plan expects."""
    step = DEVIATION * AMOUNT_STEP
    k, kk = round(units * mean / step), round(units * (mean**2 + DEVIATION**2) / step**2)
    return Moments(units, units if nonzero is None else nonzero, k, units, kk, k, units)


def averaged(plan, challenger, champion=TYPICAL, *, units=20_000, seen=1.0):
    """Return evidence of both means; `seen` is the part of the challenger's units with an amount."""
    evidence = evidence_at(T0, plan=plan, units=units)
    moments, cells = {}, dict(evidence.cells)
    for arm, mean, part in ((Arm.CHALLENGER, challenger, seen), (Arm.CHAMPION, champion, 1.0)):
        cell = Cell("spent", None, None, 2, arm)
        count = round(cells[cell].units * part)
        cells[cell] = replace(cells[cell], bad=0, matured_bad=0, labelled=count)
        moments[cell] = moments_of(count, mean)
    return replace(evidence, cells=cells, moments=moments)


def about(found, name="spent"):
    (finding,) = [f for f in found if f.subject == name]
    return finding


def rule_out(plan):
    return plan.stages[CANARY].rule_out


@pytest.mark.parametrize(("worse", "challenger"), [("higher", 14.0), ("lower", 10.0)])
def test_a_mean_that_moved_the_wrong_way_warns_and_passes_nothing(worse, challenger):
    plan = spent(worse=worse)
    evidence = averaged(plan, challenger)
    assert about(warnings(evidence, plan)).verdict is Verdict.FAIL
    assert about(promotion(evidence, plan)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("worse", "challenger"), [("higher", 10.0), ("higher", 12.0), ("lower", 12.0), ("lower", 14.0)]
)
def test_a_mean_that_is_no_worse_passes_and_warns_of_nothing(worse, challenger):
    plan = spent(worse=worse)
    evidence = averaged(plan, challenger)
    assert about(warnings(evidence, plan)).verdict is Verdict.INCONCLUSIVE
    for found in (exposure(evidence, plan, rule_out=rule_out(plan)), promotion(evidence, plan)):
        assert about(found).verdict is Verdict.PASS


@pytest.mark.parametrize(("worse", "inside", "outside"), [("higher", 1.1, 1.3), ("lower", 1 / 1.1, 1 / 1.3)])
def test_the_margin_of_a_mean_is_relative_to_the_champions(worse, inside, outside):
    plan = spent(worse=worse)
    for factor, verdict in ((inside, Verdict.PASS), (outside, Verdict.INCONCLUSIVE)):
        assert about(promotion(averaged(plan, factor * TYPICAL), plan)).verdict is verdict
        # The canary asks for less: twice as bad must be impossible.
        assert about(exposure(averaged(plan, factor * TYPICAL), plan, rule_out=rule_out(plan))).verdict is Verdict.PASS


def test_a_mean_that_may_roll_back_is_harm_at_its_part_of_the_budget():
    plan = spent(consequence="roll_back", weight=4)
    alphas = {h.guardrail: h.alpha for h in plan.hypotheses() if h.slice_column is None}
    found = about(harm(averaged(plan, 15.0), plan))
    assert (found.verdict, found.is_binding) == (Verdict.FAIL, True)
    assert found.numbers["threshold"] == pytest.approx(math.log(1 / alphas["spent"]))
    assert found.numbers["log_e"] >= found.numbers["threshold"]
    assert (found.numbers["challenger_mean"], found.numbers["champion_mean"]) == pytest.approx((15.0, 12.0))
    assert found.reason.startswith("spent is worse: mean 15 over 4,000 units against 12 over 16,000")


def test_a_warning_about_a_mean_needs_the_hold_budget_and_harm_more():
    plan = spent(consequence="roll_back")
    likely = averaged(plan, 12.45)
    assert about(warnings(likely, plan)).verdict is Verdict.FAIL
    assert about(harm(likely, plan)).verdict is Verdict.INCONCLUSIVE
    assert math.log(1 / plan.budgets.hold) <= about(warnings(likely, plan)).numbers["log_e"]


@pytest.mark.parametrize("evidence", ["nothing", "few", "few amounts other than 0", "no epoch"])
def test_below_the_least_number_of_units_a_mean_answers_nothing(evidence):
    plan = spent(consequence="roll_back")
    base = averaged(plan, 12.0, units=200 if evidence == "few" else 20_000)
    if evidence == "nothing":
        base = replace(base, moments={})
    if evidence == "few amounts other than 0":
        base = replace(base, moments={cell: replace(each, nonzero=9) for cell, each in base.moments.items()})
    if evidence == "no epoch":
        base = replace(base, epochs={})
    for found in (
        harm(base, plan),
        warnings(base, plan),
        exposure(base, plan, rule_out=rule_out(plan)),
        promotion(base, plan),
    ):
        finding = about(found)
        assert (finding.verdict, finding.numbers["log_e"]) == (Verdict.INCONCLUSIVE, None)
        assert canonical(finding.document())


@pytest.mark.parametrize("missing", [0.21, 1.0])
def test_units_without_a_number_are_not_taken_for_average_ones(missing):
    plan = spent()
    complete, holed = averaged(plan, 11.0), averaged(plan, 11.0, seen=1.0 - missing)
    for ask in (promotion, lambda evidence, plan: exposure(evidence, plan, rule_out=rule_out(plan))):
        assert about(ask(complete, plan)).verdict is Verdict.PASS
        assert about(ask(holed, plan)).verdict is Verdict.INCONCLUSIVE
    found = about(promotion(holed, plan))
    assert f"{1.0 - missing:.0%} (challenger) and 100% (champion) of the matured units have a number" in found.reason
    assert found.numbers["challenger_units"] == round(4_000 * (1.0 - missing))


def test_a_ratio_of_sums_is_read_in_the_units_of_both():
    guardrail = {"of": "feature_misses", "per": "latency_ms", "window": "1 d", "typical": 2.0, "deviation": 4.0}
    plan = spent(mean=guardrail)
    k, n = round(3.0 / (4.0 * AMOUNT_STEP)), round(1.5 / DIVISOR_STEP)
    arms = {Arm.CHALLENGER: 4_000, Arm.CHAMPION: 16_000}
    moments = {
        Cell("spent", None, None, 2, arm): Moments(u, u, u * k, u * n, u * k * k, u * k * n, u * n * n)
        for arm, u in arms.items()
    }
    numbers = about(promotion(replace(averaged(plan, 1.0), moments=moments), plan)).numbers
    assert (numbers["challenger_mean"], numbers["champion_mean"]) == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize(
    "changes", [{"consequence": "freeze"}, {"consequence": "roll_back"}, {"consequence": "notify"}]
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_mean_and_a_tail_bind_unless_they_only_notify_or_run_dry(changes, dry_run):
    for name, plan in (("spent", spent(dry_run=dry_run, **changes)), ("slow", slow(dry_run=dry_run, **changes))):
        evidence = evidence_at(T0, plan=plan)
        binds = not dry_run and changes["consequence"] != "notify"
        for found in (
            warnings(evidence, plan),
            exposure(evidence, plan, rule_out=rule_out(plan)),
            promotion(evidence, plan),
        ):
            assert about(found, name).is_binding == binds
        failing = [f for f in harm(evidence, plan) if f.subject == name]
        assert [f.is_binding for f in failing] == [not dry_run] * (changes["consequence"] == "roll_back")


FROZEN = Frozen({"slow": 200.0}, {})


@pytest.mark.parametrize("frozen", [None, Frozen({}, {}), Frozen({"another": 200.0}, {})])
@pytest.mark.parametrize("ratio", [0.2, 1.0, 3.0])
def test_a_tail_without_its_frozen_quantile_is_inconclusive_whatever_was_counted(frozen, ratio):
    plan = slow(consequence="roll_back")
    evidence = replace(evidence_at(T0, plan=plan, ratio=ratio), frozen=frozen)
    for found in (exposure(evidence, plan, rule_out=rule_out(plan)), promotion(evidence, plan)):
        finding = about(found, "slow")
        assert (finding.verdict, finding.numbers["log_e"]) == (Verdict.INCONCLUSIVE, None)
        assert "too few units before the rollout to freeze its quantile" in finding.reason
    nothing = {cell: replace(each, bad=0) if cell[0] == "slow" else each for cell, each in evidence.cells.items()}
    for found in (harm(replace(evidence, cells=nothing), plan), warnings(replace(evidence, cells=nothing), plan)):
        assert about(found, "slow").verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("ratio", "warned", "passed"),
    [
        (1.0, Verdict.INCONCLUSIVE, Verdict.PASS),
        (1.3, Verdict.FAIL, Verdict.INCONCLUSIVE),
        (2.0, Verdict.FAIL, Verdict.INCONCLUSIVE),
    ],
)
def test_a_tail_is_judged_by_how_often_it_is_exceeded(ratio, warned, passed):
    plan = slow()
    evidence = replace(evidence_at(T0, plan=plan, ratio=ratio), frozen=FROZEN)
    assert about(warnings(evidence, plan), "slow").verdict is warned
    assert about(promotion(evidence, plan), "slow").verdict is passed


def test_units_without_a_label_do_not_keep_an_absolute_rate_low():
    guardrail = {**copy.deepcopy(PLAN["guardrails"][1]), "name": "late", "margin": "6 % absolute", "slices": []}
    plan = a_plan_with(guardrail)
    for labelled, verdict in ((1.0, Verdict.PASS), (0.5, Verdict.INCONCLUSIVE), (0.0, Verdict.INCONCLUSIVE)):
        evidence = evidence_at(T0, plan=plan, labelled=labelled)
        quiet = {cell: replace(each, bad=0, matured_bad=0) for cell, each in evidence.cells.items()}
        for cells in (evidence.cells, quiet):
            found = exposure(replace(evidence, cells=cells), plan, rule_out=rule_out(plan))
            assert about(found, "late").verdict is verdict
