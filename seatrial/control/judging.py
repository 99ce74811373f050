"""Put the questions of the present stage to the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from seatrial.control.assessing import gate_findings
from seatrial.errors import SeatrialError
from seatrial.evidence import Evidence
from seatrial.gates.assignment import assignment, losses
from seatrial.gates.contract import contract
from seatrial.gates.delays import delays
from seatrial.gates.finding import Finding, Question, gate_of
from seatrial.gates.freshness import freshness, soundness
from seatrial.gates.guardrails import exposure, harm, harm_and_warnings, promotion
from seatrial.gates.load import load
from seatrial.gates.pairs import advice, paired_losses
from seatrial.gates.scores import scores, shadow_scores
from seatrial.gates.shadow import shadow
from seatrial.ledger import Record
from seatrial.plan import Canary, Shadow
from seatrial.ports import Scope
from seatrial.rollout import State
from seatrial.units import format_duration, format_time
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.plan import Plan
    from seatrial.ports import Ports, Releases
    from seatrial.rollout import Rollout


#: Kind of the record that a rollback target was loaded, or was not.
TARGET_PROBED = "target.probed"


@dataclass(frozen=True, slots=True)
class Judged:
    """Evidence of one look and what the gates found in it."""

    evidence: Evidence
    findings: tuple[Finding, ...]


#: Roles in which a release is probed; a finding of a probe ends with one of them.
_CHALLENGER, _TARGET = "challenger", "rollback target"
#: How the reason begins when there is no evidence because nobody could read the logs.
_UNREAD = "the logs could not be read"
#: States in which the logs are asked; a champion's are while its label window is open.
_MEASURED = frozenset({State.SHADOW, State.CANARY, State.LABELS, State.AWAITING_APPROVAL, State.PROMOTING})


def judge(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> Judged:
    """Return what the gates of the present stage find; a question that could not be asked is verdict ERROR."""
    evidence = Evidence()
    if is_measured(rollout):
        try:
            evidence = ports.evidence.look(plan, scope_of(rollout), now=now)
        except SeatrialError as error:
            reason = f"{_UNREAD}: {error}"
            return Judged(evidence, (Finding(Question.FRESHNESS, "decision log", Verdict.ERROR, reason),))
    found = judged_from(evidence, rollout, plan, ports.store, now=now)
    outside = (
        *_probed(ports, rollout, plan, now=now),
        *_loaded(ports, rollout, plan, now=now),
        *gate_findings(ports.store, rollout, plan, now=now),
    )
    return Judged(evidence, (*found, *outside))


def is_measured(rollout: Rollout) -> bool:
    """Return whether the logs are asked about `rollout` in its present state."""
    return rollout.state in _MEASURED or (rollout.state is State.CHAMPION and rollout.deadline is not None)


def scope_of(rollout: Rollout) -> Scope:
    """Return which decisions a look at `rollout` covers."""
    return Scope(rollout.decision_point, rollout.id, rollout.champion, rollout.challenger, rollout.created_at)


def is_from_outside(finding: Finding, plan: Plan) -> bool:
    """Return whether `finding` says what a probe, a router or the logs answered then, which no evidence holds."""
    if gate_of(finding) in plan.gates.asked():
        return False
    is_probed = finding.question is Question.CONTRACT and finding.subject.endswith((f"· {_CHALLENGER}", f"· {_TARGET}"))
    return is_probed or is_unread(finding) or finding.question is Question.LOAD


def is_unread(finding: Finding) -> bool:
    """Return whether `finding` says that the logs could not be read."""
    return finding.question is Question.FRESHNESS and finding.reason.startswith(_UNREAD)


def judged_from(
    evidence: Evidence, rollout: Rollout, plan: Plan, releases: Releases, *, now: datetime
) -> tuple[Finding, ...]:
    """Return what the gates of the present stage find in `evidence` at `now`: all findings but those from outside.

    The same evidence, rollout, plan and releases give the same findings for ever, which is what a replay relies on.
    """
    match rollout.state:
        case State.GATES:
            challenger, champion = releases.release(rollout.challenger), releases.release(rollout.champion)
            return tuple(contract(challenger.release, champion.release, bounds=plan.gates.bounds))
        case State.SHADOW | State.CANARY | State.LABELS | State.AWAITING_APPROVAL | State.PROMOTING | State.CHAMPION:
            return _found(evidence, rollout, plan, releases, now=now) if is_measured(rollout) else ()
        case (
            State.SHADOW_PAUSED
            | State.AWAITING_DECISION
            | State.SUPERSEDED
            | State.RETIRED
            | State.REJECTED
            | State.ROLLING_BACK
            | State.ROLLED_BACK
            | State.ROLLBACK_INCOMPLETE
        ):
            return ()
        case unreachable:
            assert_never(unreachable)


def _probed(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> list[Finding]:
    """Return what is known of loading the releases, in the stages that ask it."""
    if rollout.state is State.GATES:
        return [*_probe(ports, rollout.challenger, _CHALLENGER), *_probe_target(ports, rollout, now=now)]
    return _recent_target(ports, rollout, plan, now=now) if rollout.state is State.SHADOW else []


def _loaded(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> list[Finding]:
    """Return what live routers say of the cost of copies, in a shadow whose plan limits it."""
    stage = plan.stages[rollout.stage]
    if rollout.state is not State.SHADOW or not isinstance(stage, Shadow) or stage.cost is None:
        return []
    number = ports.store.snapshot(rollout.decision_point).number
    reports = ports.store.reports(rollout.decision_point)
    live = [report for report in reports if report.number == number and now - report.at <= plan.evidence.max_age]
    return [load([report.shadow for report in live if report.shadow is not None])]


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
    found = _probe(ports, rollout.champion, _TARGET)
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
    for entry in reversed(ports.store.entries(rollout.id)):
        record = entry.record
        passed = record.kind == TARGET_PROBED and all(
            finding["verdict"] == Verdict.PASS.name for finding in record.body["findings"]
        )
        if passed and now - record.at <= plan.gates.probe_max_age:
            reason = f"rollback target loaded {format_duration(now - record.at)} ago"
            return [Finding(Question.CONTRACT, f"load · {_TARGET}", Verdict.PASS, reason)]
    return _probe_target(ports, rollout, now=now)


def _found(
    evidence: Evidence, rollout: Rollout, plan: Plan, releases: Releases, *, now: datetime
) -> tuple[Finding, ...]:
    fresh = freshness(evidence, max_age=plan.evidence.max_age, now=now)
    sound = soundness(evidence, max_set_aside=plan.evidence.max_set_aside)
    found = (fresh, sound, *_about(rollout, plan, evidence))
    if rollout.state is State.SHADOW:
        policy = releases.release(rollout.challenger).release.policy
        cut_offs = [cut_off.at_least for rules in policy.cut_offs.values() for cut_off in rules]
        found = (*found, *advice(evidence, plan, cut_off=min(cut_offs, default=None)))
    return found


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
    evidence = ports.evidence.look(plan, scope_of(rollout), now=now)
    return Judged(
        evidence,
        (
            *_assigned(evidence, plan),
            *harm(evidence, plan),
            *promotion(evidence, plan),
        ),
    )
