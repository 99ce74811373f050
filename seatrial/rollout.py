"""The only state machine: findings and time in, a decision with its reason out.

Nothing here acts. `decide` answers what should happen, `move` returns the rollout after it, and `TRANSITIONS` is the
complete table of what may follow what. The caller stores a move under compare-and-set on `Rollout.version`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

from seatrial.errors import RefusedError
from seatrial.gates.finding import Question
from seatrial.plan import Approval, Canary, Gates, Labels, Promotion, Shadow
from seatrial.units import format_duration, format_time
from seatrial.verdict import Verdict, worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from seatrial.gates.finding import Finding
    from seatrial.plan import Plan, Stage


class State(StrEnum):
    """Where a rollout is."""

    GATES = "gates"
    SHADOW = "shadow"
    SHADOW_PAUSED = "shadow paused"  #: copies cost more than they may; the champion serves undisturbed
    AWAITING_APPROVAL = "awaiting approval"
    CANARY = "canary"
    LABELS = "labels"
    AWAITING_DECISION = "awaiting decision"  #: undecided at its deadline; a person is asked, the champion serves
    PROMOTING = "promoting"
    CHAMPION = "champion"
    SUPERSEDED = "superseded"  #: a later release is champion; labels of this one still arrive
    RETIRED = "retired"
    REJECTED = "rejected"  #: refused before it saw any traffic
    ROLLING_BACK = "rolling back"
    ROLLED_BACK = "rolled back"
    ROLLBACK_INCOMPLETE = "rollback incomplete"  #: not seen on every live router; never reported as success


class Action(StrEnum):
    """What a decision says to do."""

    HOLD = "hold"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"
    ASK = "ask"
    PAUSE = "pause"  #: stop copying for the shadow for a while


_STAGES = frozenset({State.GATES, State.SHADOW, State.AWAITING_APPROVAL, State.CANARY, State.LABELS, State.PROMOTING})

#: What may follow what. Everything absent is refused.
TRANSITIONS: Mapping[tuple[State, Action], frozenset[State]] = {
    # A release that changes no score needs no shadow; whether this one does is asked when its rollout is opened.
    (State.GATES, Action.ADVANCE): frozenset({State.SHADOW, State.AWAITING_APPROVAL, State.CANARY}),
    (State.GATES, Action.ROLL_BACK): frozenset({State.REJECTED}),
    (State.GATES, Action.ASK): frozenset({State.AWAITING_DECISION}),
    (State.SHADOW, Action.ADVANCE): frozenset({State.AWAITING_APPROVAL, State.CANARY}),
    (State.SHADOW, Action.ROLL_BACK): frozenset({State.ROLLING_BACK}),
    (State.SHADOW, Action.ASK): frozenset({State.AWAITING_DECISION}),
    (State.SHADOW, Action.PAUSE): frozenset({State.SHADOW_PAUSED}),
    (State.SHADOW_PAUSED, Action.ADVANCE): frozenset({State.SHADOW}),
    (State.SHADOW_PAUSED, Action.ROLL_BACK): frozenset({State.ROLLING_BACK}),
    (State.SHADOW_PAUSED, Action.ASK): frozenset({State.AWAITING_DECISION}),
    (State.AWAITING_APPROVAL, Action.ADVANCE): frozenset({State.CANARY, State.LABELS, State.PROMOTING}),
    (State.AWAITING_APPROVAL, Action.ROLL_BACK): frozenset({State.ROLLING_BACK}),
    (State.CANARY, Action.ADVANCE): frozenset({State.CANARY, State.LABELS, State.AWAITING_APPROVAL}),
    (State.CANARY, Action.ROLL_BACK): frozenset({State.ROLLING_BACK}),
    (State.CANARY, Action.ASK): frozenset({State.AWAITING_DECISION}),
    (State.LABELS, Action.ADVANCE): frozenset({State.AWAITING_APPROVAL}),
    (State.LABELS, Action.ROLL_BACK): frozenset({State.ROLLING_BACK}),
    (State.LABELS, Action.ASK): frozenset({State.AWAITING_DECISION}),
    (State.AWAITING_DECISION, Action.ADVANCE): frozenset({State.GATES, State.SHADOW, State.CANARY, State.LABELS}),
    (State.AWAITING_DECISION, Action.ROLL_BACK): frozenset({State.ROLLING_BACK}),
    (State.PROMOTING, Action.PROMOTE): frozenset({State.CHAMPION}),
    (State.PROMOTING, Action.ROLL_BACK): frozenset({State.ROLLING_BACK}),
    (State.CHAMPION, Action.ADVANCE): frozenset({State.CHAMPION}),  # its label window closes
    (State.CHAMPION, Action.PROMOTE): frozenset({State.SUPERSEDED, State.RETIRED}),  # another is promoted
    (State.CHAMPION, Action.ROLL_BACK): frozenset({State.ROLLING_BACK}),
    (State.SUPERSEDED, Action.ADVANCE): frozenset({State.RETIRED}),
    (State.ROLLING_BACK, Action.ADVANCE): frozenset({State.ROLLED_BACK}),
    (State.ROLLING_BACK, Action.ASK): frozenset({State.ROLLBACK_INCOMPLETE}),
    (State.ROLLBACK_INCOMPLETE, Action.ADVANCE): frozenset({State.ROLLED_BACK}),
}

#: States in which a rollout holds its decision point: no second one may start.
ACTIVE = _STAGES | {State.SHADOW_PAUSED, State.AWAITING_DECISION, State.ROLLING_BACK, State.ROLLBACK_INCOMPLETE}
#: States in which the challenger may answer real requests.
SERVING = frozenset({State.AWAITING_APPROVAL, State.CANARY, State.LABELS, State.PROMOTING, State.CHAMPION})
#: States in which the champion was returned to service, and the routers are awaited.
RETURNING = frozenset({State.ROLLING_BACK, State.ROLLBACK_INCOMPLETE})
#: States in which nothing more can happen.
FINAL = frozenset({State.RETIRED, State.REJECTED, State.ROLLED_BACK})


class Choice(StrEnum):
    """What a person can answer."""

    APPROVE = "approve"
    REJECT = "reject"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Answer:
    """A named person's answer to exact evidence."""

    choice: Choice
    by: str
    reason: str
    evidence_digest: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """One challenger's whole way through one plan."""

    id: str
    decision_point: str
    champion: str  #: release id that serves if this one ends badly
    challenger: str  #: release id under trial
    plan_id: str
    requested_by: str
    created_at: datetime
    state: State
    stage: int  #: index into the plan's stages
    entered_at: datetime  #: when the present stage began
    deadline: datetime | None  #: when the present stage must be decided; for a champion, when its watch ends
    reason: str  #: why it is where it is
    version: int = 1  #: raised by every move; every act is fenced by it
    evidence_digest: str | None = None  #: evidence of the last move; approvals must name it
    flow_run_id: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether it holds its decision point."""
        return self.state in ACTIVE

    def document(self) -> dict[str, Any]:
        """Return the rollout as plain data."""
        return {
            "id": self.id,
            "decision_point": self.decision_point,
            "champion": self.champion,
            "challenger": self.challenger,
            "plan_id": self.plan_id,
            "requested_by": self.requested_by,
            "created_at": format_time(self.created_at),
            "state": self.state.value,
            "stage": self.stage,
            "entered_at": format_time(self.entered_at),
            "deadline": None if self.deadline is None else format_time(self.deadline),
            "reason": self.reason,
            "version": self.version,
            "evidence_digest": self.evidence_digest,
            "flow_run_id": self.flow_run_id,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What should happen, and why."""

    action: Action
    reason: str


def decide(
    rollout: Rollout, plan: Plan, findings: Sequence[Finding], *, now: datetime, answer: Answer | None = None
) -> Decision:
    """Return what to do with `rollout`, given what the gates found at `now` and what a person answered.

    Harm ends a rollout in any state that serves. Otherwise only findings that PASS widen exposure: no finding, an
    INCONCLUSIVE one and an ERROR hold, and at the deadline the plan says whether a person is asked or the champion
    returns.
    """
    harm = [f for f in findings if f.question is Question.HARM and f.is_binding and f.verdict is Verdict.FAIL]
    if harm and rollout.state in SERVING:
        return Decision(Action.ROLL_BACK, harm[0].reason)
    match rollout.state:
        case State.GATES:
            return _decide_stage(rollout, plan, _of(findings, Question.CONTRACT), now=now)
        case State.SHADOW | State.SHADOW_PAUSED:
            return _decide_shadow(rollout, plan, findings, now=now)
        case State.CANARY:
            asked = _of(findings, Question.CONTRACT, Question.FRESHNESS, Question.ASSIGNMENT, Question.EXPOSURE)
            return _decide_stage(rollout, plan, [*asked, *_warnings(findings)], now=now)
        case State.LABELS:
            asked = _of(findings, Question.CONTRACT, Question.FRESHNESS, Question.ASSIGNMENT, Question.PROMOTION)
            return _decide_stage(rollout, plan, [*asked, *_warnings(findings)], now=now)
        case State.AWAITING_APPROVAL:
            return _decide_approval(rollout, _of(findings, Question.CONTRACT), answer, now=now)
        case State.AWAITING_DECISION:
            return _decide_undecided(rollout, answer)
        case State.CHAMPION | State.SUPERSEDED if rollout.deadline is not None and now >= rollout.deadline:
            return _close_window(rollout, findings)
        case State.PROMOTING | State.CHAMPION | State.SUPERSEDED | State.ROLLING_BACK | State.ROLLBACK_INCOMPLETE:
            return Decision(Action.HOLD, rollout.reason)
        case State.RETIRED | State.REJECTED | State.ROLLED_BACK:
            return Decision(Action.HOLD, f"ended: {rollout.reason}")
        case unreachable:
            assert_never(unreachable)


def _close_window(rollout: Rollout, findings: Sequence[Finding]) -> Decision:
    """Return whether the window closes: a holdback is a comparison, which a look that judged nothing cannot end."""
    if rollout.state is State.SUPERSEDED:
        return Decision(Action.ADVANCE, "label window closed")
    if is_judged(findings):
        return Decision(Action.ADVANCE, "label window closed without harm")
    return Decision(Action.HOLD, "the label window is over, and stays open until fresh evidence was judged")


def _decide_shadow(rollout: Rollout, plan: Plan, findings: Sequence[Finding], *, now: datetime) -> Decision:
    if rollout.state is State.SHADOW_PAUSED:
        return _decide_paused(rollout, plan, now=now)
    asked = _of(findings, Question.CONTRACT, Question.FRESHNESS, Question.LOAD, Question.SHADOW)
    overloaded = [f for f in asked if f.question is Question.LOAD and f.verdict is Verdict.FAIL]
    is_failed = any(f.verdict is Verdict.FAIL for f in asked if f not in overloaded and not f.is_waivable)
    if overloaded and not is_failed:
        return Decision(Action.PAUSE, overloaded[0].reason)
    return _decide_stage(rollout, plan, [f for f in asked if f not in overloaded], now=now)


def _decide_paused(rollout: Rollout, plan: Plan, *, now: datetime) -> Decision:
    """Return whether the shadow is tried again; pauses count against its deadline."""
    stage = plan.stages[rollout.stage]
    until = rollout.entered_at + (stage.cost.pause if isinstance(stage, Shadow) and stage.cost else timedelta(0))
    if rollout.deadline is not None and now >= rollout.deadline:
        return _at_deadline(rollout, plan, rollout.reason)
    if now >= until:
        return Decision(Action.ADVANCE, f"tried again after a pause: {rollout.reason}")
    return Decision(Action.HOLD, f"paused for another {format_duration(until - now)}: {rollout.reason}")


def _of(findings: Iterable[Finding], *questions: Question) -> list[Finding]:
    """Return the binding findings on `questions`, of which every question needs one of its own."""
    return [f for f in findings if f.question in questions and f.is_binding]


def _warnings(findings: Iterable[Finding]) -> list[Finding]:
    """Return the binding findings that stop a ramp when they fire; one that did not fire says nothing about safety."""
    return [f for f in _of(findings, *FREEZING) if f.verdict is Verdict.FAIL]


#: Questions whose FAIL keeps the share where it is, and whose other answers widen nothing.
FREEZING = (Question.WARNING, Question.SCORES, Question.CALIBRATION, Question.DELAY)


#: Questions that must have been answered before a stage may be left.
REQUIRED: Mapping[State, frozenset[Question]] = {
    State.GATES: frozenset({Question.CONTRACT}),
    State.SHADOW: frozenset({Question.CONTRACT, Question.FRESHNESS, Question.SHADOW}),
    State.CANARY: frozenset({Question.FRESHNESS, Question.ASSIGNMENT, Question.EXPOSURE}),
    State.LABELS: frozenset({Question.FRESHNESS, Question.ASSIGNMENT, Question.PROMOTION}),
}


def _decide_stage(rollout: Rollout, plan: Plan, asked: Sequence[Finding], *, now: datetime) -> Decision:
    failed = [f for f in asked if f.verdict is Verdict.FAIL and not f.is_waivable]
    if failed and rollout.state in (State.GATES, State.SHADOW):
        return Decision(Action.ROLL_BACK, failed[0].reason)
    missing = REQUIRED[rollout.state] - {f.question for f in asked}
    verdict = Verdict.ERROR if missing else worst(f.verdict for f in asked)
    soak = soak_of(plan.stages[rollout.stage])
    soaked_at = rollout.entered_at + soak if soak is not None else rollout.entered_at
    if verdict is Verdict.PASS and now >= soaked_at:
        return _passed(rollout, plan, asked)
    open_questions = [f.reason for f in asked if f.verdict is not Verdict.PASS]
    open_questions += [f"no answer to the question of {question}" for question in sorted(missing)]
    if verdict is Verdict.PASS:
        open_questions = [f"soaking for another {format_duration(soaked_at - now)}"]
    if rollout.deadline is not None and now >= rollout.deadline:
        return _at_deadline(rollout, plan, open_questions[0])
    return Decision(Action.HOLD, open_questions[0])


def _passed(rollout: Rollout, plan: Plan, asked: Sequence[Finding]) -> Decision:
    noun = "finding" if len(asked) == 1 else "findings"
    reason = f"{rollout.state}: {len(asked)} {noun}, all PASS"
    if rollout.stage + 1 < len(plan.stages):
        return Decision(Action.ADVANCE, reason)
    return Decision(Action.ASK, f"{reason}, on segment {plan.segment!r}; promotion needs a plan for all segments")


def _at_deadline(rollout: Rollout, plan: Plan, reason: str) -> Decision:
    text = f"undecided at the deadline of {rollout.state}: {reason}"
    match plan.on_deadline:
        case "ask":
            return Decision(Action.ASK, text)
        case "roll_back":
            return Decision(Action.ROLL_BACK, text)
        case unreachable:
            assert_never(unreachable)


def _decide_approval(
    rollout: Rollout, contract: Sequence[Finding], answer: Answer | None, *, now: datetime
) -> Decision:
    if rollout.deadline is not None and now >= rollout.deadline:
        return Decision(Action.ROLL_BACK, "the approval expired unanswered; a time-out is not a yes")
    if answer is None:
        return Decision(Action.HOLD, "a person must approve")
    _require_current(rollout, answer)
    match answer.choice:
        case Choice.APPROVE if open_gates := [f for f in contract if f.verdict is not Verdict.PASS]:
            raise RefusedError(
                f"answer 'approve': a gate stands open again ({open_gates[0].reason}); waive it anew, then approve"
            )
        case Choice.APPROVE:
            return Decision(Action.ADVANCE, f"approved by {answer.by}: {answer.reason}")
        case Choice.REJECT:
            return Decision(Action.ROLL_BACK, f"rejected by {answer.by}: {answer.reason}")
        case Choice.CONTINUE:
            raise RefusedError("answer 'continue': an approval is answered with approve or reject")
        case unreachable:
            assert_never(unreachable)


def _decide_undecided(rollout: Rollout, answer: Answer | None) -> Decision:
    if answer is None:
        return Decision(Action.HOLD, rollout.reason)
    _require_current(rollout, answer)
    match answer.choice:
        case Choice.CONTINUE:
            return Decision(Action.ADVANCE, f"continued by {answer.by}: {answer.reason}")
        case Choice.REJECT:
            return Decision(Action.ROLL_BACK, f"ended undecided by {answer.by}: {answer.reason}")
        case Choice.APPROVE:
            raise RefusedError(
                "answer 'approve': undecided evidence cannot be approved; continue (one more deadline) or reject"
            )
        case unreachable:
            assert_never(unreachable)


def _require_current(rollout: Rollout, answer: Answer) -> None:
    if answer.evidence_digest != rollout.evidence_digest:
        raise RefusedError(
            f"rollout {rollout.id}: the answer of {answer.by} names evidence {answer.evidence_digest}, the question"
            f" is about {rollout.evidence_digest}; read the present evidence and answer again"
        )


def is_judged(findings: Sequence[Finding]) -> bool:
    """Return whether fresh evidence was really judged, so that a lease may be renewed.

    Stale or missing evidence, broken assignment and a harm question that could not be asked do not count.
    """
    by_question = {question: [f.verdict for f in findings if f.question is question] for question in Question}
    return (
        worst(by_question[Question.FRESHNESS]) is Verdict.PASS
        and worst(by_question[Question.ASSIGNMENT]) < Verdict.ERROR
        and bool(by_question[Question.HARM])
        and Verdict.ERROR not in by_question[Question.HARM]
    )


def state_of(stage: Stage) -> State:
    """Return the state of a rollout that enters `stage`."""
    match stage:
        case Gates():
            return State.GATES
        case Shadow():
            return State.SHADOW
        case Approval():
            return State.AWAITING_APPROVAL
        case Canary():
            return State.CANARY
        case Labels():
            return State.LABELS
        case Promotion():
            return State.PROMOTING
        case unreachable:
            assert_never(unreachable)


def soak_of(stage: Stage) -> timedelta | None:
    """Return the least time that `stage` lasts, or None when it has no such time."""
    return stage.soak if isinstance(stage, Shadow | Canary) else None


def limit_of(stage: Stage) -> timedelta:
    """Return the time after which `stage` counts as undecided, unanswered or, for promotion, watched."""
    match stage:
        case Approval():
            return stage.expires
        case Promotion():
            return stage.watch
        case Gates() | Shadow() | Canary() | Labels():
            return stage.deadline
        case unreachable:
            assert_never(unreachable)


def share_of(rollout: Rollout, plan: Plan) -> float:
    """Return the challenger's share that `rollout` calls for in its present state, in [0, 1]."""
    match rollout.state:
        case State.CANARY | State.LABELS | State.AWAITING_APPROVAL:
            shares = [s.share for s in plan.stages[: rollout.stage + 1] if isinstance(s, Canary)]
            return shares[-1] if shares else 0.0
        case State.CHAMPION if rollout.deadline is None:
            return 0.0
        case State.PROMOTING | State.CHAMPION:
            promotion = plan.stages[-1]
            return 1.0 - promotion.holdback if isinstance(promotion, Promotion) else 0.0
        case _:
            return 0.0


def move(
    rollout: Rollout, plan: Plan, decision: Decision, *, now: datetime, evidence_digest: str | None = None
) -> Rollout:
    """Return `rollout` after `decision`; raises RefusedError when the table has no such move.

    `evidence_digest` is that of the evidence the decision rests on.
    """
    state, stage = _target(rollout, plan, decision)
    allowed = TRANSITIONS.get((rollout.state, decision.action), frozenset())
    if state not in allowed:
        raise RefusedError(
            f"rollout {rollout.id}: {decision.action} is not possible from {rollout.state}; possible:"
            f" {', '.join(sorted(a for s, a in TRANSITIONS if s is rollout.state)) or 'nothing, it has ended'}"
        )
    return replace(
        rollout,
        state=state,
        stage=stage,
        entered_at=now,
        deadline=_deadline(rollout, plan, state, stage, now=now),
        reason=decision.reason,
        version=rollout.version + 1,
        evidence_digest=evidence_digest or rollout.evidence_digest,
    )


def _target(rollout: Rollout, plan: Plan, decision: Decision) -> tuple[State, int]:
    match decision.action:
        case Action.HOLD:
            raise RefusedError(f"rollout {rollout.id}: hold is not a move")
        case Action.ASK if rollout.state is State.ROLLING_BACK:
            return State.ROLLBACK_INCOMPLETE, rollout.stage
        case Action.ASK | Action.PAUSE:
            is_asked = decision.action is Action.ASK
            return State.AWAITING_DECISION if is_asked else State.SHADOW_PAUSED, rollout.stage
        case Action.ROLL_BACK:
            return (State.REJECTED if rollout.state is State.GATES else State.ROLLING_BACK), rollout.stage
        case Action.PROMOTE if rollout.state is State.CHAMPION:
            return (State.RETIRED if rollout.deadline is None else State.SUPERSEDED), rollout.stage
        case Action.PROMOTE:
            return State.CHAMPION, rollout.stage
        case Action.ADVANCE if rollout.state in (State.ROLLING_BACK, State.ROLLBACK_INCOMPLETE):
            return State.ROLLED_BACK, rollout.stage
        case Action.ADVANCE if rollout.state is State.CHAMPION:
            return State.CHAMPION, rollout.stage
        case Action.ADVANCE if rollout.state is State.SUPERSEDED:
            return State.RETIRED, rollout.stage
        case Action.ADVANCE if rollout.state in (State.AWAITING_DECISION, State.SHADOW_PAUSED):
            return state_of(plan.stages[rollout.stage]), rollout.stage
        case Action.ADVANCE if rollout.stage + 1 < len(plan.stages):
            return state_of(plan.stages[rollout.stage + 1]), rollout.stage + 1
        case Action.ADVANCE:
            raise RefusedError(f"rollout {rollout.id}: no stage follows {rollout.state}")
        case unreachable:
            assert_never(unreachable)


def _deadline(rollout: Rollout, plan: Plan, state: State, stage: int, *, now: datetime) -> datetime | None:
    if state is State.SHADOW_PAUSED or (rollout.state is State.SHADOW_PAUSED and state is State.SHADOW):
        return rollout.deadline  # pauses count against it
    if state in _STAGES or (state is State.CHAMPION and rollout.state is State.PROMOTING):
        return now + limit_of(plan.stages[stage])
    return rollout.deadline if state is State.SUPERSEDED else None
