"""Put the questions of the present stage to the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

from seatrial.errors import SeatrialError
from seatrial.evidence import Evidence
from seatrial.gates.assignment import assignment, losses
from seatrial.gates.contract import contract
from seatrial.gates.delays import delays
from seatrial.gates.finding import Finding, Question
from seatrial.gates.freshness import freshness
from seatrial.gates.guardrails import exposure, harm, harm_and_warnings, promotion
from seatrial.gates.pairs import advice, paired_losses
from seatrial.gates.scores import scores, shadow_scores
from seatrial.gates.shadow import shadow
from seatrial.ledger import Record
from seatrial.plan import Canary, Gates, Shadow
from seatrial.ports import Scope
from seatrial.rollout import State
from seatrial.units import format_duration, format_time
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.plan import Plan
    from seatrial.ports import Ports
    from seatrial.rollout import Rollout


#: Kind of the record that a rollback target was loaded, or was not.
TARGET_PROBED = "target.probed"


@dataclass(frozen=True, slots=True)
class Judged:
    """Evidence of one look and what the gates found in it."""

    evidence: Evidence
    findings: tuple[Finding, ...]


def judge(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> Judged:
    """Return what the gates of the present stage find; a question that could not be asked is verdict ERROR."""
    match rollout.state:
        case State.GATES:
            return Judged(Evidence(), _contract(ports, rollout, plan, now=now))
        case State.SHADOW | State.CANARY | State.LABELS | State.AWAITING_APPROVAL | State.PROMOTING:
            return _judge_logs(ports, rollout, plan, now=now)
        case State.CHAMPION if rollout.deadline is not None:
            return _judge_logs(ports, rollout, plan, now=now)
        case (
            State.CHAMPION
            | State.AWAITING_DECISION
            | State.SUPERSEDED
            | State.RETIRED
            | State.REJECTED
            | State.ROLLING_BACK
            | State.ROLLED_BACK
            | State.ROLLBACK_INCOMPLETE
        ):
            return Judged(Evidence(), ())
        case unreachable:
            assert_never(unreachable)


def _contract(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> tuple[Finding, ...]:
    stage = plan.stages[rollout.stage]
    bounds = stage.bounds if isinstance(stage, Gates) else ()
    challenger = ports.store.release(rollout.challenger)
    champion = ports.store.release(rollout.champion)
    return (
        *contract(challenger.release, champion.release, bounds=bounds),
        *_probe(ports, rollout.challenger, "challenger"),
        *_probe_target(ports, rollout, now=now),
    )


def _probe(ports: Ports, release_id: str, role: str) -> list[Finding]:
    try:
        found = ports.probe.probe(ports.store.release(release_id))
    except SeatrialError as error:
        reason = f"{role} could not be probed: {error}"
        return [Finding(Question.CONTRACT, f"load · {role}", Verdict.ERROR, reason)]
    if not found:
        return [Finding(Question.CONTRACT, f"load · {role}", Verdict.ERROR, f"{role}: the probe found nothing")]
    return [Finding(f.question, f"{f.subject} · {role}", f.verdict, f.reason, f.numbers) for f in found]


def _probe_target(ports: Ports, rollout: Rollout, *, now: datetime) -> list[Finding]:
    """Probe the rollback target and record what was found, so that its age is known when the canary is to begin."""
    found = _probe(ports, rollout.champion, "rollback target")
    record = Record(
        now,
        TARGET_PROBED,
        "probe",
        rollout.decision_point,
        rollout.id,
        f"{rollout.id}/target-probed/{format_time(now)}",
        {"release_id": rollout.champion, "findings": [finding.document() for finding in found]},
    )
    ports.store.append([record])
    return found


def _recent_target(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> list[Finding]:
    """Return PASS when the rollback target loaded recently enough, or what a probe finds now."""
    gates = plan.stages[0]
    max_age = gates.probe_max_age if isinstance(gates, Gates) else timedelta(0)
    for entry in reversed(ports.store.entries(rollout.id)):
        record = entry.record
        passed = record.kind == TARGET_PROBED and all(
            finding["verdict"] == Verdict.PASS.name for finding in record.body["findings"]
        )
        if passed and now - record.at <= max_age:
            reason = f"rollback target loaded {format_duration(now - record.at)} ago"
            return [Finding(Question.CONTRACT, "load · rollback target", Verdict.PASS, reason)]
    return _probe_target(ports, rollout, now=now)


def _judge_logs(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> Judged:
    scope = Scope(rollout.decision_point, rollout.id, rollout.champion, rollout.challenger, rollout.created_at)
    try:
        evidence = ports.evidence.look(plan, scope, now=now)
    except SeatrialError as error:
        return Judged(
            Evidence(),
            (Finding(Question.FRESHNESS, "decision log", Verdict.ERROR, f"the logs could not be read: {error}"),),
        )
    fresh = freshness(evidence, max_age=plan.evidence.max_age, now=now)
    found = (fresh, *_about(rollout, plan, evidence))
    if rollout.state is State.SHADOW:
        policy = ports.store.release(rollout.challenger).release.policy
        cut_offs = [cut_off.at_least for rules in policy.cut_offs.values() for cut_off in rules]
        found = (
            *found,
            *advice(evidence, plan, cut_off=min(cut_offs, default=None)),
            *_recent_target(ports, rollout, plan, now=now),
        )
    return Judged(evidence, found)


def _about(rollout: Rollout, plan: Plan, evidence: Evidence) -> tuple[Finding, ...]:
    stage = plan.stages[rollout.stage]
    if isinstance(stage, Shadow):
        return (
            *shadow(evidence.shadow, stage, alpha=plan.budgets.promote),
            *shadow_scores(evidence, plan),
            *paired_losses(evidence, plan, stage),
        )
    watched = (
        *_assigned(evidence, plan),
        *harm_and_warnings(evidence, plan),
        *scores(evidence, plan),
        *delays(evidence, plan),
    )
    if isinstance(stage, Canary):
        return (*watched, *exposure(evidence, plan, rule_out=stage.rule_out))
    if rollout.state is State.LABELS:
        return (*watched, *promotion(evidence, plan))
    return watched


def _assigned(evidence: Evidence, plan: Plan) -> tuple[Finding, ...]:
    """Return what is found on assignment: half of the budget on all units, half on labels and slices."""
    half = plan.budgets.srm / 2
    return (assignment(evidence, alpha=half), *losses(evidence, plan, alpha=half))


def judge_labels(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> Judged:
    """Return what matured labels say about harm and about promotion, whatever the stage."""
    scope = Scope(rollout.decision_point, rollout.id, rollout.champion, rollout.challenger, rollout.created_at)
    evidence = ports.evidence.look(plan, scope, now=now)
    return Judged(
        evidence,
        (
            *_assigned(evidence, plan),
            *harm(evidence, plan),
            *promotion(evidence, plan),
        ),
    )
