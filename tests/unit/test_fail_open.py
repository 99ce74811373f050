"""Where respected systems answer "fine" because they do not know, and what is answered here.

Each case ends in INCONCLUSIVE, ERROR or a refused document, and no decision ADVANCEs or PROMOTEs. What the peers do was
read in their code or documentation: argo-rollouts `analysis/`, Kayenta's NetflixACAJudge, Flagger's scheduler and
metrics, Keptn 1 and 2, Harness, SageMaker deployment guardrails, gbstats.
"""

import copy
import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from builders import (
    CANARY,
    DAY,
    HOUR,
    LABELS,
    PLAN,
    POINT,
    STAGES,
    T0,
    World,
    a_finding,
    a_plan,
    a_rollout,
    evidence_at,
)

from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.logs import LogWriter
from seatrial.control.ending import kill
from seatrial.control.watching import watch
from seatrial.errors import InvalidDocumentError, UnavailableError
from seatrial.evidence import Arm, Cell, Epoch, Evidence, Frozen, Moments, ScoreCell, ScoreTally
from seatrial.gates.finding import Question
from seatrial.gates.guardrails import exposure, harm, promotion, warnings
from seatrial.gates.scores import scores
from seatrial.ports import Scope
from seatrial.rollout import RETURNING, Action, State, decide
from seatrial.stats.scores import ScoreGrid
from seatrial.verdict import Verdict

WIDENS = {Action.ADVANCE, Action.PROMOTE}
#: A mean and a tail of one column beside the guardrails of the standard plan.
MEASURED = [
    {
        "name": "spent",
        "source": "proxy",
        "mean": {"of": "score", "typical": 0.5, "deviation": 0.3},
        "margin": "20 % relative",
        "consequence": "freeze",
    },
    {
        "name": "slow",
        "source": "runtime",
        "exceeds": {"column": "latency_ms", "quantile": "90 %"},
        "margin": "50 % relative",
        "consequence": "freeze",
    },
]
MEASURING = a_plan(
    guardrails=[*copy.deepcopy(PLAN["guardrails"]), *MEASURED],
    scores={"range": [0, 1], "consequence": "freeze"},
)


def asked(evidence, plan):
    """Return what is found of exposure and promotion."""
    rule_out = plan.stages[CANARY].rule_out
    return [*exposure(evidence, plan, rule_out=rule_out), *promotion(evidence, plan)]


def relieving(evidence, plan, name):
    return {f.verdict for f in asked(evidence, plan) if f.subject == name}


def refused(**changes):
    with pytest.raises(InvalidDocumentError) as caught:
        a_plan(**changes)
    return str(caught.value)


def without(key, at=1):
    """Return the guardrails of the plan, one of them without `key`."""
    guardrails = copy.deepcopy(PLAN["guardrails"])
    del guardrails[at][key]
    return guardrails


def stays(world, rollout, now):
    """Return what a step decides; it must widen nothing."""
    share = world.share
    outcome = world.step(rollout, now)
    assert outcome.decision.action not in WIDENS
    assert world.share <= share
    return outcome


@pytest.fixture(params=[(State.CANARY, CANARY), (State.LABELS, LABELS)], ids=["canary", "labels"])
def ramp(request, tmp_path):
    """Return a control plane whose rollout is at the end of its soak, one step before more traffic."""
    world = World(tmp_path)
    state, stage = request.param
    rollout, now = world.advance_to(state, stage=stage)
    return world, rollout, now + 3 * DAY


# --- no condition ---


@pytest.mark.parametrize(
    ("guardrails", "finding"),
    [
        ([], "found an empty list"),
        (None, "found no such key"),
        (without("bad_when"), "expected one of bad_when, exceeds and mean"),
        ([{**PLAN["guardrails"][1], "bad_when": []}], "found an empty list"),
        ([{**PLAN["guardrails"][1], "bad_when": [{}]}], "expected a mapping of columns to values"),
    ],
)
def test_a_plan_without_a_condition_is_refused(guardrails, finding):
    """Argo Rollouts counts a measurement without any condition as successful; Keptn passes without an SLO."""
    assert finding in refused(guardrails=guardrails)


@pytest.mark.parametrize("scope", ["all", "labels stage"])
def test_a_plan_without_the_analysis_is_refused(scope):
    """Harness verifies nothing where no analysis is configured, and goes on."""
    kinds = {"labels"} if scope == "labels stage" else {"shadow", "canary", "labels"}
    assert "expected" in refused(stages=[stage for stage in STAGES if stage["stage"] not in kinds])


@pytest.mark.parametrize("change", [{"consequence": "notify"}, {"consequence": "freeze"}, {"dry_run": True}])
def test_a_plan_in_which_nothing_can_roll_back_is_refused(change):
    """SageMaker never rolls back when no alarm is listed."""
    guardrails = copy.deepcopy(PLAN["guardrails"])
    guardrails[1] |= change
    assert "found none with consequence roll_back" in refused(guardrails=guardrails)


@pytest.mark.parametrize("metric", [{"metric": "log_loss"}, {}])
def test_a_metric_without_a_range_is_refused(metric):
    """Flagger passes every value when the threshold range is empty."""
    stages = [{**STAGES[0], "bounds": [metric]}, *STAGES[1:]]
    refused(stages=stages)


def test_a_guardrail_without_a_margin_is_refused():
    """Flagger passes every value when the threshold range is empty."""
    assert "margin" in refused(guardrails=without("margin"))


@pytest.mark.parametrize("measure", MEASURED)
def test_a_tolerance_in_absolute_units_is_refused_where_a_metric_has_units(measure):
    """Kayenta solves its interval to an absolute 1e-4, whatever the unit; small metrics never differ."""
    guardrails = [*PLAN["guardrails"], {**measure, "margin": "2 % absolute"}]
    assert "expected a margin relative to the champion" in refused(guardrails=guardrails)


@pytest.mark.parametrize("state", [State.GATES, State.SHADOW, State.CANARY, State.LABELS])
def test_no_finding_at_all_moves_nothing_ahead(state):
    """Argo Rollouts completes an analysis run without metrics; Kayenta scores a group of nothing 100."""
    stage = {State.GATES: 0, State.SHADOW: 1, State.CANARY: CANARY, State.LABELS: LABELS}[state]
    for hours in (0, 72, 10 * 24, 100 * 24):
        decision = decide(a_rollout(state, stage), a_plan(), [], now=T0 + hours * HOUR)
        assert decision.action not in WIDENS


# --- a value that is no number ---


def logged(root, units=600, *, column="score", value=math.nan, part=1.0):
    """Write a reference and a comparison in which `part` of the challenger's units has `value` in `column`."""
    rng = np.random.default_rng(0)
    writer = LogWriter(root, POINT, ("origin",))
    for at in range(2 * units):
        is_before = at % 2 == 1
        arm = "challenger" if not is_before and at % 4 == 0 else "champion"
        row = {
            "decision_id": f"d{at}",
            "ts": T0 + (-HOUR if is_before else HOUR),
            "decision_point": POINT,
            "rollout_id": None if is_before else "r1",
            "snapshot_no": 1 if is_before else 2,
            "stage": CANARY,
            "release_id": "champion",
            "arm": arm,
            "share": 0.0 if is_before else 0.5,
            "segment": "everyone",
            "unit_key": f"u{at}",
            "feature_digest": "sha256:f",
            "score": float(rng.uniform()),
            "action_recommended": "none",
            "action_taken": "none",
            "authority": "DECIDE",
            "latency_ms": float(rng.lognormal()),
            "outcome": "ok",
            "feature_misses": 0,
            "origin": "EWR",
        }
        if arm == "challenger" and at % 4 == 0 and rng.uniform() < part:
            row[column] = value
        writer.decision(row)
    writer.flush()
    scope = Scope(POINT, "r1", "champion", "challenger", T0)
    return ParquetLogs(root).look(MEASURING, scope, now=T0 + 2 * DAY)


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_amounts_that_are_no_numbers_pass_nothing(tmp_path, value):
    """Argo Rollouts: NaN against a failure condition alone is success. Keptn 2: NaN matches no target and passes."""
    assert relieving(logged(tmp_path / "whole", part=0.0), MEASURING, "spent") == {Verdict.PASS}
    assert relieving(logged(tmp_path / "all", value=value), MEASURING, "spent") == {Verdict.INCONCLUSIVE}
    some = logged(tmp_path / "some", value=value, part=0.3)
    assert relieving(some, MEASURING, "spent") == {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_latencies_that_are_no_numbers_are_above_the_quantile(tmp_path, value):
    """Argo Rollouts: NaN against a failure condition alone is success."""
    evidence = logged(tmp_path, column="latency_ms", value=value)
    assert relieving(evidence, MEASURING, "slow") == {Verdict.INCONCLUSIVE}
    assert {f.verdict for f in warnings(evidence, MEASURING) if f.subject == "slow"} == {Verdict.FAIL}


@pytest.mark.parametrize("value", [math.nan, None, math.inf, 7.0])
def test_scores_that_are_no_scores_are_a_finding(tmp_path, value):
    """Kayenta removes NaN before it compares, or replaces it by 0."""
    evidence = logged(tmp_path, 2_400, value=value)
    (collapse,) = [f for f in scores(evidence, MEASURING) if f.subject == "score collapse"]
    assert collapse.verdict is Verdict.FAIL


# --- measured too little, or not at all ---


def test_what_could_not_be_computed_is_not_known():
    """Gbstats turns "could not compute" into an effect of 0 with p = 1."""
    few = replace(evidence_at(T0, plan=MEASURING), moments={Cell("spent", None, None, 2, Arm.CHALLENGER): Moments(9)})
    for finding in [*asked(few, MEASURING), *harm(few, MEASURING), *warnings(few, MEASURING)]:
        if finding.subject == "spent":
            assert (finding.verdict, finding.numbers["log_e"]) == (Verdict.INCONCLUSIVE, None)
            assert "too few units to tell" in finding.reason or finding.question is Question.WARNING


@pytest.mark.parametrize("frozen", [None, Frozen({}, {})])
def test_without_a_history_of_the_champion_a_tail_and_a_shift_are_not_judged(frozen):
    """Keptn passes a relative criterion when there is no earlier evaluation."""
    evidence = replace(evidence_at(T0, plan=MEASURING), frozen=frozen)
    assert relieving(evidence, MEASURING, "slow") == {Verdict.INCONCLUSIVE}
    assert {f.verdict for f in scores(evidence, MEASURING)} == {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize("arm", [Arm.CHALLENGER, Arm.CHAMPION])
def test_a_side_without_units_is_not_replaced(arm):
    """Kayenta passes a metric of which one side is empty, when it is told to replace missing values."""
    full = evidence_at(T0)
    half = replace(
        full,
        cells={cell: tally for cell, tally in full.cells.items() if cell.arm is not arm},
        assigned={where: count for where, count in full.assigned.items() if where[1] is not arm},
    )
    assert {f.verdict for f in asked(full, a_plan())} == {Verdict.PASS}
    assert {f.verdict for f in asked(half, a_plan())} == {Verdict.INCONCLUSIVE}


@pytest.mark.parametrize("arm", [Arm.CHALLENGER, Arm.CHAMPION])
def test_a_rollout_in_which_one_side_is_missing_gets_no_more_traffic(ramp, arm):
    """Kayenta passes a metric of which one side is empty, when it is told to replace missing values."""
    world, rollout, now = ramp
    full = evidence_at(now)
    world.evidence.says = replace(
        full,
        cells={cell: tally for cell, tally in full.cells.items() if cell.arm is not arm},
        assigned={where: count for where, count in full.assigned.items() if where[1] is not arm},
    )
    assert stays(world, rollout, now).decision.action in (Action.HOLD, Action.ROLL_BACK)


def test_a_distribution_that_changes_its_shape_alone_is_seen():
    """Kayenta's Mann-Whitney test does not see a change of shape around the same middle."""
    grid = ScoreGrid()
    middle, wide = np.zeros(grid.size, dtype=int), np.zeros(grid.size, dtype=int)
    middle[40:60], wide[20:80] = 300, 100
    counts = {Arm.CHALLENGER: wide, Arm.CHAMPION: middle}
    found = scores(
        Evidence(
            epochs={2: Epoch(0.5, CANARY)},
            scores={
                ScoreCell(None, None, 2, arm, at): ScoreTally(int(each[at]))
                for arm, each in counts.items()
                for at in np.flatnonzero(each).tolist()
            },
            frozen=Frozen({}, dict.fromkeys(range(40, 60), 300)),
        ),
        MEASURING,
    )
    (shift,) = [f for f in found if f.subject == "score distribution"]
    assert abs(shift.numbers["mean_difference"]) < 1e-9
    assert shift.verdict is Verdict.FAIL


# --- errors, silence and an early end ---


@pytest.mark.parametrize("says", [UnavailableError("down"), Evidence(), "stale"])
def test_when_every_metric_erred_nothing_is_widened(ramp, says):
    """Kayenta leaves errors out of its score, so that nothing but errors scores 100."""
    world, rollout, now = ramp
    world.evidence.says = evidence_at(now - DAY) if says == "stale" else says
    outcome = stays(world, rollout, now)
    assert outcome.decision.action is Action.HOLD
    assert Verdict.ERROR in {f.verdict for f in outcome.judged.findings if f.question is Question.FRESHNESS}


@pytest.mark.parametrize("verdict", [Verdict.ERROR, Verdict.INCONCLUSIVE])
@pytest.mark.parametrize("at_deadline", [False, True])
@pytest.mark.parametrize("on_deadline", ["ask", "roll_back"])
def test_findings_of_errors_alone_end_in_a_hold_a_question_or_the_champion(verdict, at_deadline, on_deadline):
    """Kayenta: all errors score 100. Argo Rollouts: only consecutive errors above a limit count."""
    plan = a_plan(on_deadline=on_deadline)
    now = T0 + (10 if at_deadline else 3) * DAY
    action = (Action.ASK if on_deadline == "ask" else Action.ROLL_BACK) if at_deadline else Action.HOLD
    found = [a_finding(question, verdict) for question in Question]
    for state, stage in ((State.CANARY, CANARY), (State.LABELS, LABELS)):
        assert decide(a_rollout(state, stage), plan, found, now=now).action is action


def test_a_rollout_that_nobody_measured_before_its_deadline_is_undecided(ramp):
    """Argo Rollouts counts an analysis that was terminated before its first measurement as successful."""
    world, rollout, _ = ramp
    world.evidence.says = Evidence()
    outcome = stays(world, rollout, rollout.deadline + timedelta(seconds=1))
    assert outcome.decision.action is Action.ASK
    assert outcome.rollout.state is State.AWAITING_DECISION
    assert "undecided at the deadline" in outcome.decision.reason


def test_a_rollout_that_is_stopped_before_it_was_measured_returns_to_the_champion(ramp):
    """Argo Rollouts counts an analysis that was terminated before its first measurement as successful."""
    world, rollout, now = ramp
    world.evidence.says = Evidence()
    ended = kill(world.ports, rollout.challenger, reason="fire", actor="on-call", now=now)
    assert ended.state in RETURNING
    assert world.share == 0.0


def test_a_lease_is_not_renewed_by_a_look_that_measured_nothing(ramp):
    """SageMaker and Argo Rollouts keep the traffic where it is while nothing is measured."""
    world, rollout, now = ramp
    world.evidence.says = Evidence()
    before = world.store.snapshot(POINT).lease_until
    (watched,) = watch(world.ports, now=now)
    assert watched.rollout.state is rollout.state
    assert world.store.snapshot(POINT).lease_until == before
    world.router.refresh(now=now)
    later = now + a_plan().lease
    assert {world.router.assign(f"u{n}", {}, now=later).release_id for n in range(200)} == {world.champion}
