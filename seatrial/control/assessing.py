"""Put declared gates to the parts that can answer them, once for the same inputs, and keep the answers.

Every answer is written with its record in the ledger. A gate that could not be asked leaves an ERROR, never nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from seatrial.errors import NotFoundError, RefusedError, UnavailableError
from seatrial.gates.finding import Finding, Question, gate_of
from seatrial.ledger import Record
from seatrial.ports import Case, GateAnswer
from seatrial.rollout import State
from seatrial.units import digest_of, short
from seatrial.verdict import Verdict
from seatrial.waiver import waived_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from seatrial.ledger import Entry
    from seatrial.plan import Ask, Plan
    from seatrial.ports import Examiner, Ports, Store
    from seatrial.rollout import Rollout
    from seatrial.waiver import Waived

#: Kind of the record that a declared gate was answered.
ANSWERED = "gate.answered"
#: States in which the gates of a rollout are behind it and its exposure may still grow.
_GROWING = frozenset({State.SHADOW, State.CANARY, State.LABELS, State.AWAITING_APPROVAL})


def open_gates(store: Store, rollout: Rollout) -> tuple[tuple[str, ...], ...]:
    """Return the declared gates of a rollout in its gates that have no answer, or an ERROR, by group.

    The gates of one group may be asked side by side; one that measures the machine is a group of its own, after them.
    """
    if rollout.state is not State.GATES:
        return ()
    answers = store.gate_answers(rollout.id)
    asked = store.plan(rollout.plan_id).gates.asked()
    wanted = [name for name in asked if name not in answers or answers[name].verdict is Verdict.ERROR]
    together = tuple(name for name in wanted if not asked[name].is_alone)
    alone = tuple((name,) for name in wanted if asked[name].is_alone)
    return (together, *alone) if together else alone


def assess(
    ports: Ports, rollout_id: str, gate: str, *, now: datetime, actor: str, is_again: bool = False
) -> GateAnswer:
    """Answer one declared gate of a rollout and keep the answer; asked before for the same inputs, that one counts.

    Parameters
    ----------
    is_again
        Whether the gate is asked again although an answer to the same inputs is known.

    Raises
    ------
    NotFoundError
        When the plan declares no such gate.
    RefusedError
        When the rollout has left its gates: what let it pass is not changed afterwards.
    UnavailableError
        When a part did not answer; an ERROR is stored, and asking again may mend it.
    """
    rollout = ports.store.rollout(rollout_id)
    if rollout.state not in (State.GATES, State.AWAITING_DECISION) or rollout.stage != 0:
        raise RefusedError(f"rollout {rollout.id}: found state {rollout.state}, expected its gates; they are behind it")
    case = case_of(ports.store, rollout, gate)
    reads: dict[str, str] = {}
    try:
        reads = dict(_examiner(ports, gate).reads(case))
        known = None if is_again else ports.store.answered_before(inputs_of(case, reads))
        findings = _examined(ports, case) if known is None else known.findings
    except Exception as error:
        reason = f"gate {gate} could not be asked: {type(error).__name__}: {error}"
        findings = (Finding(Question.CONTRACT, gate, Verdict.ERROR, reason),)
        answer = GateAnswer(rollout.id, gate, now, inputs_of(case, reads), findings)
        _keep(ports, rollout, answer, reads, actor=actor)
        if isinstance(error, UnavailableError):
            raise
        return answer
    answer = GateAnswer(rollout.id, gate, now, inputs_of(case, reads), findings)
    _keep(ports, rollout, answer, reads, actor=actor)
    return answer


def _examiner(ports: Ports, gate: str) -> Examiner:
    if ports.examiner is None:
        raise RefusedError(f"gate {gate!r}: no part answers declared gates here; connect one in the settings")
    return ports.examiner


def _examined(ports: Ports, case: Case) -> tuple[Finding, ...]:
    """Return a fresh answer, or raise ValueError for one that answers something else, or nothing."""
    findings = tuple(_examiner(ports, case.gate).examine(case))
    if not findings:
        raise ValueError("it answered nothing, expected a finding")
    for finding in findings:
        if finding.question is not Question.CONTRACT or gate_of(finding) != case.gate:
            raise ValueError(f"it answered about {finding.question} {finding.subject!r}, expected {case.gate!r}")
    return findings


def case_of(store: Store, rollout: Rollout, gate: str) -> Case:
    """Return the declared gate with all that it may ask about; raises NotFoundError when the plan declares none."""
    plan = store.plan(rollout.plan_id)
    asked = plan.gates.asked()
    if gate not in asked:
        raise NotFoundError.of(f"gate of plan {plan.name!r}", gate, asked)
    return Case(gate, asked[gate], plan, store.release(rollout.challenger), store.release(rollout.champion))


def inputs_of(case: Case, reads: Mapping[str, str]) -> str:
    """Return the digest of everything that the answer to `case` rests on."""
    releases = [case.challenger.release.id, case.champion.release.id]
    return digest_of([case.gate, case.ask.document(), case.plan.id, *releases, dict(reads)])


def _keep(ports: Ports, rollout: Rollout, answer: GateAnswer, reads: Mapping[str, str], *, actor: str) -> None:
    body = {
        "gate": answer.gate,
        "verdict": answer.verdict.name,
        "inputs": answer.inputs,
        "digest": answer.digest,
        "read": dict(sorted(reads.items())),
        "findings": [finding.document() for finding in answer.findings],
    }
    known = [e.record for e in ports.store.entries(rollout.id) if e.record.kind == ANSWERED]
    own = [record for record in known if record.body["gate"] == answer.gate]
    # The same answer again is no news; one that returns after another is.
    is_news = not own or own[-1].body["digest"] != answer.digest
    key = f"{rollout.id}/gate/{answer.gate}/{len(own) + is_news}/{short(answer.digest)}"
    record = Record(answer.at, ANSWERED, actor, rollout.decision_point, rollout.id, key, body)
    ports.store.add_gate_answer(answer, [record])


def gate_findings(store: Store, rollout: Rollout, plan: Plan, *, now: datetime) -> list[Finding]:
    """Return what the declared gates say about `rollout` at `now`, waivers counted.

    In its gates every declared gate speaks, one without an answer as INCONCLUSIVE. While its exposure may still grow,
    those speak whose waiver has ended since: they hold it where it is until somebody waives them anew.
    """
    return _of_state(rollout, weighed_answers(store, rollout, plan, now=now))


def weighed_answers(store: Store, rollout: Rollout, plan: Plan, *, now: datetime) -> list[Finding]:
    """Return what every declared gate says, with the waivers that count at `now`, whatever the state."""
    if not plan.gates.asked():
        return []
    return _weigh(plan, store.gate_answers(rollout.id), waived_of(store.entries(rollout.id)), now=now)


def recorded_findings(entries: Sequence[Entry], rollout: Rollout, plan: Plan, *, now: datetime) -> list[Finding]:
    """Return what `gate_findings` said when the ledger ended with `entries`, from what they record alone.

    Raises KeyError, TypeError or ValueError when a record cannot be read.
    """
    answers: dict[str, GateAnswer] = {}
    for record in (entry.record for entry in entries if entry.record.kind == ANSWERED):
        findings = tuple(map(Finding.of_document, record.body["findings"]))
        gate = record.body["gate"]
        answers[gate] = GateAnswer(rollout.id, gate, record.at, record.body["inputs"], findings)
    return _of_state(rollout, _weigh(plan, answers, waived_of(entries), now=now))


def _of_state(rollout: Rollout, found: list[Finding]) -> list[Finding]:
    if rollout.state is State.GATES:
        return found
    if rollout.state in _GROWING:
        return [finding for finding in found if finding.is_binding and finding.verdict is not Verdict.PASS]
    return []


def _weigh(plan: Plan, answers: Mapping[str, GateAnswer], waived: Sequence[Waived], *, now: datetime) -> list[Finding]:
    return [
        finding
        for gate, ask in plan.gates.asked().items()
        for finding in _answered(gate, ask, answers.get(gate), waived, now=now)
    ]


def _answered(
    gate: str, ask: Ask, answer: GateAnswer | None, waived: Sequence[Waived], *, now: datetime
) -> list[Finding]:
    if answer is None:
        reason = f"gate {gate} has not been answered yet"
        return [Finding(Question.CONTRACT, gate, Verdict.INCONCLUSIVE, reason)]
    own = [each for each in waived if each.gate == gate and each.digest == answer.digest]
    standing = next((each for each in reversed(own) if now < each.expires), None)
    return [_weighed(finding, ask, standing, own) for finding in answer.findings]


def _weighed(finding: Finding, ask: Ask, standing: Waived | None, own: Sequence[Waived]) -> Finding:
    """Return `finding` as it counts: waived, open to a waiver, or as the gate gave it."""
    if not ask.may_waive(finding.verdict):
        return finding
    if standing is not None:
        reason = f"{standing.fact}, by a reason in the ledger; the answer was: {finding.reason}"
        return replace(finding, reason=reason, is_binding=False, is_waivable=True)
    ended = f"; the waiver of {own[-1].by} ended {own[-1].expires:%Y-%m-%d %H:%M} UTC" if own else ""
    return replace(finding, reason=f"{finding.reason}{ended}", is_waivable=True)
