"""The architecture review of a rollout: each question answered from what is recorded, never from what is intended.

A question that no evidence answers is INCONCLUSIVE. Readiness is the worst answer: seven do not make up for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.change import described, keeps_scores
from seatrial.control.assessing import weighed_answers
from seatrial.control.judging import TARGET_PROBED
from seatrial.control.replaying import read_chain
from seatrial.gates.finding import gate_of
from seatrial.plan import Approval, Canary, Consequence, Shadow
from seatrial.plan.conditions import ACTION_COLUMNS, OneOf
from seatrial.release import Authority
from seatrial.rollout import State
from seatrial.units import format_duration, short
from seatrial.verdict import Verdict, worst

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from seatrial.gates.finding import Finding
    from seatrial.ledger import Entry
    from seatrial.plan import Plan
    from seatrial.ports import Store
    from seatrial.release import Release
    from seatrial.rollout import Rollout

#: Declared gates that hold what the releases read against something outside of them.
SCHEMA_GATES = ("served", "features", "semantics")


@dataclass(frozen=True, slots=True)
class Reviewed:
    """One question of the review, with its answer and where it can be looked up."""

    question: str
    verdict: Verdict
    answer: str
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Review:
    """A rollout, reviewed."""

    rollout: Rollout
    answers: tuple[Reviewed, ...]

    @property
    def readiness(self) -> Verdict:
        """The worst answer."""
        return worst(answer.verdict for answer in self.answers)


@dataclass(frozen=True, slots=True)
class _Known:
    """All that the questions are answered from."""

    store: Store
    rollout: Rollout
    plan: Plan
    challenger: Release
    champion: Release
    entries: Sequence[Entry]  #: of the rollout, and the registration of its challenger; every link verified
    gates: Sequence[Finding]  #: what declared gates say, waivers counted
    now: datetime

    def of_gates(self, *gates: str) -> list[Finding]:
        """Return what these declared gates say; of a gate that is not declared nothing."""
        return [finding for finding in self.gates if gate_of(finding) in gates]

    def of_kind(self, *kinds: str) -> list[Entry]:
        """Return the entries of these kinds, oldest first."""
        return [entry for entry in self.entries if entry.record.kind in kinds]


def review(store: Store, rollout_id: str, *, now: datetime) -> Review:
    """Return every question of the review about a rollout, answered from ledger, plan, releases and gates at `now`.

    Raises TamperedError when the ledger's chain is broken: then nothing is answered.
    """
    rollout = store.rollout(rollout_id)
    chain = read_chain(store)
    plan = store.plan(rollout.plan_id)
    registered = f"{rollout.challenger}/registered"
    known = _Known(
        store,
        rollout,
        plan,
        store.release(rollout.challenger).release,
        store.release(rollout.champion).release,
        [entry for entry in chain if entry.record.rollout_id == rollout.id or entry.record.key == registered],
        weighed_answers(store, rollout, plan, now=now),
        now,
    )
    asked = (_separate, _schemas, _cut_offs, _shadow, _guardrails, _rollback, _labels, _irreversible)
    return Review(rollout, tuple(ask(known) for ask in asked))


def _entry(entry: Entry) -> str:
    return f"ledger {entry.number} ({entry.record.kind})"


def _separate(known: _Known) -> Reviewed:
    question = "Is promotion separate from deploying a service?"
    registered, started = known.of_kind("release.registered"), known.of_kind("rollout.started")
    moved = known.of_kind("share.intended", "share.observed")
    references = tuple(map(_entry, [*registered, *started, *moved[-1:]]))
    reports = known.store.reports(known.rollout.decision_point)
    if not registered or not started:
        return Reviewed(question, Verdict.FAIL, "registration and start are not acts of their own", references)
    if not reports:
        answer = "traffic is moved by routing snapshots, but no router has ever reported that it follows them"
        return Reviewed(question, Verdict.INCONCLUSIVE, answer, references)
    names = ", ".join(sorted(report.router for report in reports))
    answer = f"the release was registered first; traffic is moved by routing snapshots, which {names} reads and reports"
    return Reviewed(question, Verdict.PASS, answer, references)


def _schemas(known: _Known) -> Reviewed:
    question = "Are schemas validated against what is served?"
    findings = known.of_gates(*SCHEMA_GATES)
    if not findings:
        answer = f"only against the champion's manifest; the plan declares none of {', '.join(SCHEMA_GATES)}"
        return Reviewed(question, Verdict.INCONCLUSIVE, answer, (f"plan {short(known.plan.id)}",))
    verdict = worst(finding.verdict for finding in findings)
    answers = [finding.reason for finding in findings if finding.verdict is verdict]
    answered = [e for e in known.of_kind("gate.answered", "gate.waived") if e.record.body["gate"] in SCHEMA_GATES]
    return Reviewed(question, verdict, answers[0], tuple(map(_entry, answered)))


def _cut_offs(known: _Known) -> Reviewed:
    question = "Are cut-offs versioned with the model?"
    parts = known.challenger.components()
    references = (f"policy {short(parts['policy'])}", f"model {short(known.challenger.model.digest)}")
    if known.challenger.policy.chosen_for is not None:
        answer = "the policy is a part of the release and names the model that its cut-offs were chosen for"
        return Reviewed(question, Verdict.PASS, answer, references)
    if keeps_scores(known.challenger, known.champion):
        answer = f"the policy is a part of the release, which keeps every score: {_change(known)}"
        return Reviewed(question, Verdict.PASS, answer, references)
    answer = "the policy is a part of the release, but names no model that its cut-offs were chosen for"
    return Reviewed(question, Verdict.INCONCLUSIVE, answer, references)


def _change(known: _Known) -> str:
    return described(known.challenger, known.champion)


def _shadow(known: _Known) -> Reviewed:
    question = "Is the shadow isolated?"
    shadows = [stage for stage in known.plan.stages if isinstance(stage, Shadow)]
    if not shadows:
        is_spared = keeps_scores(known.challenger, known.champion)
        answer = f"there is none, and {'none is needed' if is_spared else 'one is needed'}: {_change(known)}"
        return Reviewed(
            question, Verdict.PASS if is_spared else Verdict.FAIL, answer, (f"plan {short(known.plan.id)}",)
        )
    copied = [entry for entry in known.of_kind("share.intended") if entry.record.body["shadow"]]
    left = [e for e in known.of_kind("rollout.decided") if e.record.body["from"] == State.SHADOW.value]
    references = tuple(map(_entry, [*copied, *left[:1]]))
    if not copied:
        return Reviewed(question, Verdict.INCONCLUSIVE, "no copy was sent yet", references)
    if copied[0].record.body["slots"]:
        return Reviewed(question, Verdict.FAIL, "the challenger had a share while it was in shadow", references)
    if shadows[0].cost is None:
        answer = "nobody acts on the copies; the plan does not limit what they may cost the champion"
        return Reviewed(question, Verdict.INCONCLUSIVE, answer, references)
    return Reviewed(question, Verdict.PASS, "nobody acts on the copies, and what they may cost is limited", references)


def _guardrails(known: _Known) -> Reviewed:
    question = "Were guardrails defined before launch?"
    started = known.of_kind("rollout.started")
    references = (*map(_entry, started), f"plan {short(known.plan.id)}")
    if not started or started[0].record.body["plan_id"] != known.plan.id:
        return Reviewed(question, Verdict.FAIL, "the rollout was not started with this plan", references)
    acting = [g.name for g in known.plan.guardrails if g.consequence is Consequence.ROLL_BACK and not g.dry_run]
    answer = f"the digest of the plan stands in the start of the rollout; {', '.join(acting)} roll back"
    return Reviewed(question, Verdict.PASS, answer, references)


def _rollback(known: _Known) -> Reviewed:
    question = "Does a rollback need no code deploy?"
    probes = known.of_kind(TARGET_PROBED)
    if not probes:
        answer = "a rollback is a routing snapshot, but nobody has loaded the rollback target yet"
        return Reviewed(question, Verdict.INCONCLUSIVE, answer, ())
    last = probes[-1].record
    age = format_duration(known.now - last.at)
    failed = [f for f in last.body["findings"] if f["verdict"] != Verdict.PASS.name]
    if failed:
        verdict, answer = (
            Verdict[failed[0]["verdict"]],
            f"the rollback target did not load {age} ago: {failed[0]['reason']}",
        )
    elif known.rollout.state in (State.GATES, State.SHADOW) and known.now - last.at > known.plan.gates.probe_max_age:
        verdict, answer = Verdict.INCONCLUSIVE, f"the rollback target last loaded {age} ago, which is too long"
    else:
        lease = format_duration(known.plan.lease)
        verdict = Verdict.PASS
        answer = f"it is a routing snapshot; the target loaded {age} ago, and unattended routers return within {lease}"
    return Reviewed(question, verdict, answer, (_entry(probes[-1]),))


def _labels(known: _Known) -> Reviewed:
    question = "Are delayed labels in the plan?"
    delayed = [g for g in known.plan.guardrails if g.source.is_delayed and not g.dry_run and g.maturity is not None]
    has_stage = any(stage.stage == "labels" for stage in known.plan.stages)
    references = (f"plan {short(known.plan.id)}",)
    if not delayed or not has_stage:
        return Reviewed(question, Verdict.FAIL, "nothing waits for what turns out true later", references)
    named = ", ".join(f"{g.name} after {format_duration(g.maturity)}" for g in delayed if g.maturity is not None)
    coverage = f"{known.plan.label_coverage.at_least:.0%}"
    answer = f"promotion waits for {named}, with labels of {coverage} of the matured units"
    return Reviewed(question, Verdict.PASS, answer, references)


def _irreversible(known: _Known) -> Reviewed:
    question = "Are irreversible actions protected?"
    policy = known.challenger.policy
    taken = {policy.default_action, *(c.action for rules in policy.cut_offs.values() for c in rules)}
    lasting = sorted(name for name in taken if not policy.actions[name].reversible)
    references = (f"policy {short(known.challenger.components()['policy'])}", f"plan {short(known.plan.id)}")
    if not lasting:
        return Reviewed(question, Verdict.PASS, "no action of the policy is irreversible", references)
    named = ", ".join(lasting)
    if policy.authority <= Authority.DECIDE_REVERSIBLE:
        answer = (
            f"{named} cannot be undone; the release has authority {policy.authority.name.lower()}, and a person decides"
        )
        return Reviewed(question, Verdict.PASS, answer, references)
    found = list(_protections(known, lasting))
    if not found:
        return Reviewed(question, Verdict.FAIL, f"{named} cannot be undone, and nothing watches over it", references)
    is_known = worst(f.verdict for f in known.of_gates("catalogue")) is Verdict.PASS
    verdict = Verdict.PASS if is_known else Verdict.INCONCLUSIVE
    unknown = "" if is_known else "; no passed gate `catalogue` says that downstream knows it"
    return Reviewed(question, verdict, f"{named} cannot be undone; {'; '.join(found)}{unknown}", references)


def _protections(known: _Known, lasting: Sequence[str]) -> Iterator[str]:
    """Give what stands between a release that decides alone and an action that cannot be undone."""
    stages = known.plan.stages
    first = next((at for at, stage in enumerate(stages) if isinstance(stage, Canary)), None)
    if first is not None and any(isinstance(stage, Approval) for stage in stages[:first]):
        yield "a person approves before any exposure"
    for guardrail in known.plan.guardrails:
        counts = {
            value
            for condition in guardrail.bad_when
            for term in condition.terms
            if isinstance(term, OneOf) and term.column in ACTION_COLUMNS
            for value in term.values
        }
        is_acting = not guardrail.dry_run and guardrail.consequence is not Consequence.NOTIFY
        if is_acting and counts & set(lasting):
            yield f"guardrail {guardrail.name} counts it, and {guardrail.consequence.replace('_', 's ')}"
