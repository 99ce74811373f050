import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from builders import CANARY, DAY, HOUR, POINT, T0, ScriptedEvidence, World, a_plan, evidence_at

from seatrial.adapters.readings import MemoryRuntime
from seatrial.control.ending import kill
from seatrial.control.watching import watch
from seatrial.errors import NotFoundError, UnavailableError
from seatrial.evidence import (
    AMOUNT_STEP,
    Arm,
    Cell,
    Epoch,
    Evidence,
    Moments,
    ScoreCell,
    ScoredPair,
    ScoreTally,
    ShadowTally,
)
from seatrial.metrics import ABSENT, FAMILIES, UP, Absence, Category, document, markdown, metrics, rows
from seatrial.metrics.collecting import RECENT
from seatrial.metrics.counted import OF_EVIDENCE
from seatrial.metrics.exposition import MetricsCollector, exposition
from seatrial.metrics.seen import metric
from seatrial.ports import NoReading, Quantity
from seatrial.rollout import Choice, State
from seatrial.stats.exceedance import LatencySketch

ROOT = Path(__file__).parents[2]
MINUTE = HOUR / 60


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def look(world, rollout, now, evidence=None):
    """Take a look that is kept and moves nothing."""
    world.evidence.says = evidence
    world.router.refresh(now=now)
    outcome = world.step(rollout, now)
    assert not outcome.is_moved
    return outcome


def found(world, name, *, now, **labels):
    """Return the values of the series of a family that have `labels`; an absent one as its reason."""
    return [
        each.absent if each.value is None else each.value
        for each in metrics(world.ports, now=now)
        if each.family.name == f"seatrial_{name}" and labels.items() <= each.labels.items()
    ]


def the(world, name, *, now, **labels):
    (one,) = found(world, name, now=now, **labels)
    return one


class Scored(ScriptedEvidence):
    """Recent evidence of no harm, with scores of both releases on the same requests."""

    def look(self, plan, scope, *, now):
        seen = super().look(plan, scope, now=now)
        pairs = {ScoredPair(at, at, -1): 10 for at in range(10, 90)}
        return replace(seen, pairs=pairs) if self.says is None else seen


def in_canary(world, plan=None):
    if plan is not None and plan.scores is not None:
        world.evidence = Scored()
        world.ports = replace(world.ports, evidence=world.evidence)
    rollout, now = world.advance_to(State.CANARY, plan)
    world.router.refresh(now=now)
    return rollout, now


# -- values


@pytest.mark.parametrize(
    ("value", "absent"),
    [(math.nan, Absence.NOT_A_NUMBER), (math.inf, Absence.UNBOUNDED), (-math.inf, Absence.UNBOUNDED)],
)
def test_a_number_that_is_not_finite_is_absent(value, absent):
    one = metric("watch_age_seconds", value)
    assert (one.value, one.absent) == (None, absent)


def test_a_zero_is_a_number():
    assert metric("watch_age_seconds", 0.0).value == 0.0


@pytest.mark.parametrize("labels", [{}, {"decision_point": "p"}, {"decision_point": "p", "outcome": "open", "x": "y"}])
def test_a_value_has_exactly_the_labels_of_its_family(labels):
    with pytest.raises(ValueError, match="name them all"):
        metric("rollouts", 1.0, **labels)


def test_an_absent_metric_may_leave_labels_out_and_invents_none():
    assert metric("rollouts", Absence.NOT_YET, decision_point="p").absent is Absence.NOT_YET
    with pytest.raises(ValueError, match="name them all"):
        metric("rollouts", Absence.NOT_YET, arm="p")


# -- release


def test_without_any_rollout_ratios_are_absent_and_counts_are_zero(world):
    assert the(world, "rollback_ratio", now=T0) is Absence.NOT_YET
    assert the(world, "rollouts", now=T0, outcome="rolled_back") == 0.0
    assert the(world, "watch_age_seconds", now=T0) is Absence.NOT_YET
    assert found(world, "lead_time_seconds", now=T0) == []


def test_lead_time_runs_from_registration_to_promotion(world):
    rollout, now = world.advance_to(State.CHAMPION)
    assert the(world, "lead_time_seconds", now=now + DAY) == (now - T0).total_seconds()
    assert the(world, "rollouts", now=now, outcome="promoted") == 1.0
    assert the(world, "rollback_ratio", now=now) == 0.0
    assert rollout.state is State.CHAMPION


def test_a_rollback_takes_from_the_decision_to_the_last_router(world):
    rollout, now = in_canary(world)
    harmed = now + HOUR
    world.evidence.says = evidence_at(harmed, ratio=3.0)
    assert world.step(rollout, harmed).rollout.state is State.ROLLING_BACK
    assert the(world, "rollback_seconds", now=harmed + MINUTE) is Absence.NOT_YET
    assert the(world, "rollback_pending_seconds", now=harmed + MINUTE) == 60.0
    assert the(world, "lead_time_seconds", now=harmed) is Absence.NEVER
    world.router.refresh(now=harmed + 2 * MINUTE)
    assert world.step(rollout, harmed + 3 * MINUTE).rollout.state is State.ROLLED_BACK
    later = harmed + HOUR
    assert the(world, "rollback_seconds", now=later) == 180.0
    assert the(world, "rollback_pending_seconds", now=later) is Absence.NEVER
    assert the(world, "rollback_ratio", now=later) == 1.0


def test_time_to_detect_begins_when_routers_were_seen_to_serve_the_share(world):
    rollout, now = in_canary(world)
    seen = now + HOUR
    look(world, rollout, seen)
    harmed = seen + 5 * HOUR
    world.evidence.says = evidence_at(harmed, ratio=3.0)
    world.step(rollout, harmed)
    assert the(world, "time_to_detect_seconds", now=harmed) == (5 * HOUR).total_seconds()
    assert found(world, "gate_fail_cause_info", now=harmed, cause="harm", subject="wrong-decision") == [1.0]


def test_what_a_person_took_out_was_not_detected(world):
    rollout, served = in_canary(world)
    now = served + HOUR
    look(world, rollout, now)
    kill(world.ports, rollout.challenger, reason="no", actor="oncall", now=now)
    assert the(world, "time_to_detect_seconds", now=now) is Absence.NEVER
    assert found(world, "gate_fail_cause_info", now=now, cause="request", outcome="rolled_back") == [1.0]


def test_an_approval_that_was_refused_ended_by_an_answer(world):
    rollout, now = world.advance_to(State.AWAITING_APPROVAL)
    assert the(world, "approval_age_seconds", now=now + HOUR) == 3600.0
    world.step(rollout, now + HOUR, Choice.REJECT)
    assert found(world, "gate_fail_cause_info", now=now + HOUR, cause="answer") == [1.0]
    assert the(world, "approval_age_seconds", now=now + HOUR) is Absence.NOT_YET


def test_an_approval_that_nobody_gave_ended_by_its_deadline(world):
    rollout, now = world.advance_to(State.AWAITING_APPROVAL)
    world.router.refresh(now=now + 3 * DAY)
    world.step(rollout, now + 3 * DAY)
    assert found(world, "gate_fail_cause_info", now=now + 3 * DAY, cause="deadline") == [1.0]


def test_a_gate_that_failed_is_named(world):
    rollout = world.start(
        plan=a_plan(
            stages=[
                {**a_plan().document()["stages"][0], "bounds": [{"metric": "log_loss", "at_most": 0.1}]},
                *a_plan().document()["stages"][1:],
            ]
        )
    )
    world.step(rollout, T0 + HOUR)
    (cause,) = [e for e in metrics(world.ports, now=T0 + HOUR) if e.family is FAMILIES["gate_fail_cause_info"]]
    assert (cause.labels["outcome"], cause.labels["cause"], cause.value) == ("rejected", "contract", 1.0)
    assert cause.labels["subject"]


def test_a_rollout_that_ended_is_shown_for_a_while(world):
    rollout, now = in_canary(world)
    kill(world.ports, rollout.challenger, reason="no", actor="oncall", now=now)
    world.router.refresh(now=now)
    world.step(rollout, now)
    assert found(world, "rollout_info", now=now + RECENT)
    assert not found(world, "rollout_info", now=now + RECENT + MINUTE)
    asked = metrics(world.ports, now=now + 100 * DAY, rollout_id=rollout.id)
    assert any(each.family is FAMILIES["rollout_info"] for each in asked)


def test_the_age_of_the_watch_is_that_of_its_last_complete_round(world):
    watch(world.ports, now=T0)
    assert the(world, "watch_age_seconds", now=T0 + HOUR) == 3600.0


def test_an_unknown_name_is_no_empty_answer(world):
    with pytest.raises(NotFoundError):
        metrics(world.ports, now=T0, decision_point="flight-dealy")
    with pytest.raises(NotFoundError):
        metrics(world.ports, now=T0, rollout_id="nothing")


# -- the counts of the last look


def test_without_a_look_every_metric_of_counts_is_absent(world):
    world.start()
    for name in OF_EVIDENCE:
        assert Absence.NO_EVIDENCE in found(world, name, now=T0), name


@pytest.mark.parametrize("name", sorted(OF_EVIDENCE))
def test_no_counts_give_no_numbers(world, name):
    rollout, now = in_canary(world, a_plan(scores={"range": [0, 1], "label": "late", "maturity": "36 h"}))
    look(world, rollout, now + HOUR, Evidence())
    numbers = [v for v in found(world, name, now=now + HOUR) if not isinstance(v, str)]
    assert numbers == []


def test_numbers_are_those_of_the_last_look_and_not_of_the_last_move(world):
    rollout, now = in_canary(world)
    look(world, rollout, now + 2 * HOUR, evidence_at(now + 2 * HOUR, units=777_000))
    assert sum(found(world, "assigned_units", now=now + 2 * HOUR)) == 777_000


def test_the_logs_are_not_read_for_a_scrape(world):
    rollout, now = in_canary(world)
    look(world, rollout, now + HOUR)
    asked = len(world.evidence.scopes)
    world.evidence.says = UnavailableError("no logs")
    assert the(world, "share_observed_ratio", now=now + HOUR) == pytest.approx(0.2)
    assert len(world.evidence.scopes) == asked


def test_numbers_of_a_look_that_is_too_old_are_absent(world):
    rollout, now = in_canary(world)
    look(world, rollout, now + HOUR)
    patience = a_plan().evidence.max_age + a_plan().lease / 12
    assert the(world, "share_observed_ratio", now=now + HOUR + patience) == pytest.approx(0.2)
    late = now + HOUR + patience + MINUTE
    for name in (*OF_EVIDENCE, "findings"):
        assert set(found(world, name, now=late)) <= {Absence.STALE, Absence.NOT_DECLARED}, name
    assert the(world, "evidence_age_seconds", now=late) == (patience + MINUTE).total_seconds()


def test_counts_that_were_changed_are_no_counts(world):
    rollout, now = in_canary(world)
    look(world, rollout, now + HOUR)
    body = world.store.evidence(world.store.last_look(rollout.id).evidence_digest)
    body["crossed"] = 5
    assert the(world, "crossed_units", now=now + HOUR) is Absence.NO_EVIDENCE


def test_shares_are_intended_expected_and_observed(world):
    rollout, now = in_canary(world)
    lossy = evidence_at(now + HOUR, share=0.05, lost=0.5)
    look(world, rollout, now + HOUR, lossy)
    assert the(world, "share_intended_ratio", now=now + HOUR) == 0.05
    assert the(world, "share_expected_ratio", now=now + HOUR) == pytest.approx(0.05)
    assert the(world, "share_observed_ratio", now=now + HOUR) == pytest.approx(2_500 / 97_500)
    assert the(world, "srm_log_e", now=now + HOUR) > math.log(1000)
    assert the(world, "srm_p_value", now=now + HOUR) < 0.001


def test_an_arm_without_units_has_none_beside_one_that_has_some(world):
    rollout, now = in_canary(world)
    one = Evidence(now, {2: Epoch(0.05, CANARY)}, assigned={(2, Arm.CHAMPION): 10})
    look(world, rollout, now + HOUR, one)
    assert the(world, "assigned_units", now=now + HOUR, arm="challenger") == 0.0
    assert (
        the(world, "guardrail_bad_ratio", now=now + HOUR, guardrail="call-failed", arm="champion") is Absence.NO_UNITS
    )


def test_latencies_are_quantiles_in_seconds_or_absent(world):
    rollout, now = in_canary(world)
    sketch = LatencySketch.of([10.0] * 150 + [200.0] * 50)
    served = {(Arm.CHAMPION, b): int(n) for b, n in enumerate(sketch.counts) if n}
    few = LatencySketch.of([5.0, 5.0, 5.0])
    served |= {(Arm.CHALLENGER, b): int(n) for b, n in enumerate(few.counts) if n}
    look(world, rollout, now + HOUR, replace(evidence_at(now + HOUR), latencies=served))
    log = {"now": now + HOUR, "source": "log"}
    assert the(world, "latency_seconds", **log, arm="champion", quantile="0.5") == pytest.approx(0.010, rel=0.02)
    assert the(world, "latency_seconds", **log, arm="champion", quantile="0.99") == pytest.approx(0.200, rel=0.02)
    assert the(world, "latency_seconds", **log, arm="challenger", quantile="0.5") == pytest.approx(0.005, rel=0.02)
    assert the(world, "latency_seconds", **log, arm="challenger", quantile="0.99") is Absence.TOO_FEW_UNITS


def test_calls_that_were_never_answered_have_no_latency(world):
    rollout, now = in_canary(world)
    sketch = LatencySketch.of([10.0] * 10 + [math.inf] * 190)
    lost = {(Arm.CHALLENGER, b): int(n) for b, n in enumerate(sketch.counts) if n}
    look(world, rollout, now + HOUR, replace(evidence_at(now + HOUR), latencies=lost))
    where = {"now": now + HOUR, "arm": "challenger", "source": "log"}
    assert the(world, "latency_seconds", **where, quantile="0.5") is Absence.NO_ANSWER


def test_errors_in_shadow_are_those_of_each_release(world):
    rollout, now = in_canary(world)
    tally = ShadowTally(units=100, challenger_failed=4, champion_failed=1, both_failed=2, compared=93, flipped=31)
    look(world, rollout, now + HOUR, replace(evidence_at(now + HOUR), shadow=tally))
    assert the(world, "error_ratio", now=now + HOUR, source="shadow", arm="challenger") == pytest.approx(0.06)
    assert the(world, "error_ratio", now=now + HOUR, source="shadow", arm="champion") == pytest.approx(0.03)
    assert the(world, "flip_ratio", now=now + HOUR) == pytest.approx(31 / 93)


def test_labels_are_counted_among_matured_units(world):
    rollout, now = in_canary(world)
    look(world, rollout, now + HOUR, evidence_at(now + HOUR, labelled=0.6))
    where = {"now": now + HOUR, "guardrail": "wrong-decision", "arm": "challenger"}
    assert the(world, "matured_label_ratio", **where) == pytest.approx(0.6)
    assert the(world, "guardrail_bad_ratio", **where) == pytest.approx(0.05)


def test_the_rate_ratio_counts_matured_units_only_and_has_limits(world):
    rollout, now = in_canary(world)
    plain = evidence_at(now + HOUR, ratio=1.1)
    fresh = {cell: replace(tally, bad=tally.units) for cell, tally in plain.cells.items()}
    world.evidence.says = replace(plain, cells=fresh)
    at = {"now": now + HOUR, "guardrail": "call-failed"}
    world.router.refresh(now=now + HOUR)
    world.step(rollout, now + HOUR)
    low, estimate, high = (the(world, "matured_rate_ratio", **at, bound=b) for b in ("low", "estimate", "high"))
    assert low < estimate < high
    assert estimate == pytest.approx(1.1, rel=1e-3)


def test_without_a_matured_unit_in_one_arm_there_is_no_ratio(world):
    rollout, now = in_canary(world)
    plain = evidence_at(now + HOUR)
    one = {
        c: (replace(t, matured=0, matured_bad=0, labelled=0) if c.arm is Arm.CHALLENGER else t)
        for c, t in plain.cells.items()
    }
    look(world, rollout, now + HOUR, replace(plain, cells=one))
    assert set(found(world, "matured_rate_ratio", now=now + HOUR)) == {Absence.NO_UNITS}
    where = {"now": now + HOUR, "guardrail": "wrong-decision", "arm": "challenger"}
    assert the(world, "matured_label_ratio", **where) is Absence.NO_UNITS


def test_a_limit_that_the_data_did_not_set_is_absent(world):
    rollout, now = in_canary(world)
    plain = evidence_at(now + HOUR, units=200)
    none = {c: replace(t, bad=0, matured_bad=0) if c.arm is Arm.CHAMPION else t for c, t in plain.cells.items()}
    look(world, rollout, now + HOUR, replace(plain, cells=none))
    at = {"now": now + HOUR, "guardrail": "call-failed"}
    assert the(world, "matured_rate_ratio", **at, bound="high") is Absence.UNBOUNDED
    assert the(world, "matured_rate_ratio", **at, bound="estimate") is Absence.UNBOUNDED


def test_the_worst_slice_is_named(world):
    rollout, now = in_canary(world)
    plain = evidence_at(now + HOUR, units=20_000)
    worse = {
        c: replace(t, bad=round(t.bad * 1.4)) if (c.slice_value, c.arm) == ("JFK", Arm.CHALLENGER) else t
        for c, t in plain.cells.items()
    }
    look(world, rollout, now + HOUR, replace(plain, cells=worse))
    assert the(world, "harm_log_e", now=now + HOUR, slice="origin=JFK") > the(
        world, "harm_log_e", now=now + HOUR, slice=""
    )
    assert found(world, "harm_log_e", now=now + HOUR, slice="origin=EWR") == []
    assert the(world, "harm_log_e_needed", now=now + HOUR, slice="origin=JFK") > 0


SCORES = {"range": [0, 1], "label": "late", "maturity": "36 h"}


def test_scores_of_both_releases_are_compared_once_both_have_some(world):
    rollout, now = in_canary(world, a_plan(scores=SCORES))
    cells = {}
    for arm, missing in ((Arm.CHALLENGER, 5), (Arm.CHAMPION, 0)):
        cells |= {ScoreCell(None, None, 2, arm, at): ScoreTally(units=95) for at in (30, 60, 90)}
        cells[ScoreCell(None, None, 2, arm, 0)] = ScoreTally(units=missing)
    look(world, rollout, now + HOUR, replace(evidence_at(now + HOUR), scores=cells))
    assert the(world, "no_score_ratio", now=now + HOUR, arm="challenger") == pytest.approx(5 / 290)
    assert the(world, "no_score_ratio", now=now + HOUR, arm="champion") == 0.0
    assert the(world, "score_distance", now=now + HOUR) is Absence.NO_REFERENCE


AMOUNT = {
    "name": "cost",
    "source": "proxy",
    "mean": {"of": "cost", "typical": 10, "deviation": 5},
    "margin": "10 % relative",
    "consequence": "notify",
}


def test_amounts_are_averaged_for_each_arm(world):
    plan = a_plan(guardrails=[*(g for g in a_plan().document()["guardrails"]), AMOUNT])
    rollout, now = in_canary(world, plan)
    each = round(10.0 / (5.0 * AMOUNT_STEP))
    of_four = Moments(4, 4, 4 * each, 4, 4 * each**2, 4 * each, 4)
    moments = {Cell("cost", None, None, 2, Arm.CHAMPION): of_four}
    look(world, rollout, now + HOUR, replace(evidence_at(now + HOUR), moments=moments))
    at = {"now": now + HOUR, "guardrail": "cost"}
    assert the(world, "amount_mean", **at, arm="champion") == pytest.approx(10.0)
    assert the(world, "amount_mean", **at, arm="challenger") is Absence.NO_UNITS
    assert the(world, "amount_units", **at, arm="champion") == 4.0


def test_counts_that_cannot_be_computed_with_leave_the_other_metrics_alone(world, monkeypatch):
    def fails(_seen, _evidence):
        raise ValueError("no such counts")

    rollout, now = in_canary(world)
    look(world, rollout, now + HOUR)
    monkeypatch.setitem(OF_EVIDENCE, "flip_ratio", fails)
    assert the(world, "flip_ratio", now=now + HOUR) is Absence.FAILED
    assert the(world, "shadow_units", now=now + HOUR) == 5_000.0


def test_findings_of_the_last_look_are_counted_by_question(world):
    rollout, now = in_canary(world)
    look(world, rollout, now + HOUR)
    assert the(world, "findings", now=now + HOUR, question="freshness", verdict="PASS") == 2.0
    assert the(world, "findings", now=now + HOUR, question="freshness", verdict="FAIL") == 0.0
    assert found(world, "findings", now=now + HOUR, question="promotion") == []


def test_routers_that_never_reported_are_not_zero_routers(tmp_path):
    world = World(tmp_path)
    assert the(world, "routers", now=T0) is Absence.NO_ROUTER
    world.router.refresh(now=T0)
    assert the(world, "routers", now=T0, on="present") == 1.0


# -- from the monitoring system


def test_without_a_monitoring_system_its_numbers_are_absent(world):
    rollout, now = in_canary(world)
    assert rollout.state is State.CANARY
    assert the(world, "error_ratio", now=now, source="prometheus") is Absence.NOT_DECLARED


def test_numbers_of_the_monitoring_system_stand_beside_those_of_the_log(world):
    rollout, now = in_canary(world)
    runtime = MemoryRuntime({(rollout.challenger, Arm.CHALLENGER, Quantity.P99_MS): [250.0]})
    world.ports = replace(world.ports, runtime=runtime)
    at = {"now": now, "source": "prometheus", "arm": "challenger"}
    assert the(world, "latency_seconds", **at, quantile="0.99") == pytest.approx(0.25)
    assert the(world, "latency_seconds", **at, quantile="0.5") is NoReading.NO_SERIES
    assert the(world, "error_ratio", **at) is NoReading.NO_SERIES
    runtime.failure = NoReading.TIMEOUT
    assert the(world, "latency_seconds", **at, quantile="0.99") is NoReading.TIMEOUT


# -- what is shown


def a_collector(world, now, **options):
    return MetricsCollector(lambda: metrics(world.ports, now=now), **{"elapsed": lambda: 0.0, **options})


def collected(collector):
    return {family.name: family.samples for family in collector.collect()}


def test_an_absent_metric_says_so_and_has_no_sample(world):
    rollout, now = in_canary(world)
    samples = collected(a_collector(world, now))
    assert "seatrial_lead_time_seconds" not in samples
    absent = [s.labels for s in samples[ABSENT.name] if s.labels["metric"] == "seatrial_lead_time_seconds"]
    assert [(a["reason"], a["rollout"], a["decision_point"]) for a in absent] == [("not_yet", rollout.id, POINT)]


def test_every_series_is_told_apart(world):
    rollout, now = in_canary(world, a_plan(scores=SCORES))
    look(world, rollout, now + HOUR, Evidence())
    for name, samples in collected(a_collector(world, now + HOUR)).items():
        labels = [tuple(sorted(sample.labels.items())) for sample in samples]
        assert len(labels) == len(set(labels)), name


def test_a_store_that_does_not_answer_leaves_no_number_but_up_zero():
    complaints = []

    def compute():
        raise UnavailableError("no database")

    collector = MetricsCollector(compute, elapsed=lambda: 0.0, on_failure=complaints.append)
    samples = collected(collector)
    assert list(samples) == [UP.name]
    assert samples[UP.name][0].value == 0.0
    assert [str(each) for each in complaints] == ["no database"]


def test_an_old_number_is_never_shown_for_a_store_that_went_away(world):
    clock, answers = [0.0], [metrics(world.ports, now=T0), UnavailableError("gone")]

    def compute():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    collector = MetricsCollector(compute, elapsed=lambda: clock[0], keep_s=5.0)
    assert collected(collector)[UP.name][0].value == 1.0
    clock[0] = 4.9
    assert collected(collector)[UP.name][0].value == 1.0
    clock[0] = 5.0
    assert collected(collector)[UP.name][0].value == 0.0


def test_the_text_of_prometheus_escapes_what_people_write():
    quoted = metric("rollouts", 1.0, decision_point='a"b\n\\', outcome="open")
    assert 'decision_point="a\\"b\\n\\\\"' in exposition([quoted])


def test_a_table_says_why_a_number_is_absent(world):
    rollout, now = in_canary(world)
    found_rows = rows(metrics(world.ports, now=now))
    lead = next(row for row in found_rows if row.metric == "lead_time_seconds")
    assert lead.value == "absent: not_yet"
    assert [row.category for row in found_rows] == sorted(
        (row.category for row in found_rows), key=list(Category).index
    )
    assert rollout.id in markdown("metrics", metrics(world.ports, now=now))


def test_json_has_a_value_or_a_reason(world):
    _, now = in_canary(world)
    for each in metrics(world.ports, now=now):
        plain = json.loads(json.dumps(document(each), allow_nan=False))
        assert (plain["value"] is None) != (plain["absent"] is None)


# -- the documentation and the dashboard


def documented():
    text = (ROOT / "docs" / "metrics.md").read_text()
    return {m[1]: m[0] for m in re.finditer(r"^\| `(seatrial_\w+)` \|.*$", text, re.MULTILINE)}


@pytest.mark.parametrize("family", [*FAMILIES.values(), ABSENT, UP], ids=lambda family: family.name)
def test_every_metric_has_its_row_in_the_documentation(family):
    _, name, labels, unit, *rest = [cell.strip() for cell in documented()[family.name].split("|")][:-1]
    assert name == f"`{family.name}`"
    assert labels == (", ".join(family.labels) or "none")
    assert unit == family.unit
    assert len(rest) == 3
    assert all(rest)


def test_the_documentation_names_no_metric_that_does_not_exist():
    assert set(documented()) == {f.name for f in [*FAMILIES.values(), ABSENT, UP]}


@pytest.mark.parametrize("reason", [*Absence, *NoReading])
def test_every_reason_of_absence_is_documented(reason):
    assert f"| `{reason.value}` |" in (ROOT / "docs" / "metrics.md").read_text()
