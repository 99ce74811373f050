"""Replay one rollout by the real control plane, with one draw of who answers whom."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from seatrial.adapters.memory import MemoryStore
from seatrial.adapters.router import InProcessRouter
from seatrial.backtest.drawing import ARMS, Draw
from seatrial.backtest.requests import moment
from seatrial.backtest.serving import ServedLogs
from seatrial.backtest.standing_in import stand_in
from seatrial.control.assessing import assess
from seatrial.control.moving import step
from seatrial.control.opening import start
from seatrial.control.publishing import agree
from seatrial.control.recording import decided
from seatrial.evidence import Cell, Evidence, Tally
from seatrial.gates.finding import Finding, Question
from seatrial.plan import Canary, Gates, Shadow
from seatrial.ports import Commit, Ports, Registered, Scope
from seatrial.report.findings import number
from seatrial.report.moves import moves
from seatrial.report.wording import serving_share
from seatrial.rollout import FINAL, REQUIRED, Action, Answer, Choice, Decision, State, move
from seatrial.routing import RoutingSnapshot
from seatrial.verdict import Verdict, worst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from seatrial.backtest.requests import Requests
    from seatrial.control.moving import Outcome
    from seatrial.plan import Guardrail, Plan, Stage
    from seatrial.ports import Case
    from seatrial.report.moves import Move
    from seatrial.rollout import Rollout

#: Who acts in the ledger of a replay, and who is assumed to answer.
_ACTOR, _PERSON = "backtest", "assumed"
#: What the person's reason says in the ledger.
_ASSUMED = {
    Choice.APPROVE: "a person would have been asked here, on this evidence; assumed yes",
    Choice.REJECT: "a person would have been asked here, on this evidence; assumed no",
}
#: Looks of the default rhythm in the shortest soak.
_LOOKS_PER_SOAK = 4
#: A look counts what is known by its time, a log serves what came before it.
_TICK = timedelta(microseconds=1)
#: How long before its rollout the champion is read for what is frozen: seven days, which end ten minutes before it.
REFERENCE = timedelta(days=7, minutes=10)


class End(StrEnum):
    """How one draw ended."""

    PROMOTED = "promoted"
    DEMOTED = "promoted, then rolled back"
    PASSED = "passed, for one segment"  #: every step; a plan for one segment never promotes
    ROLLED_BACK = "rolled back"
    REJECTED = "rejected by the assumed answer"
    UNDECIDED = "undecided at a deadline"
    OVER = "log over before a decision"


@dataclass(frozen=True, slots=True)
class Replay:
    """What is replayed, and when."""

    plan: Plan
    requests: Requests
    start: datetime
    end: datetime  #: of the traffic; labels may arrive later
    every: timedelta  #: time between two looks
    is_approved: bool = True  #: what a person who is asked is assumed to answer


@dataclass(frozen=True, slots=True)
class Glance:
    """One look of a replay."""

    at: datetime
    share: float  #: of the challenger after the look, in [0, 1]
    #: log10 of the strongest evidence of harm, as a part of what rolls back; NaN where nothing was asked or known
    harm: float


@dataclass(frozen=True, slots=True)
class Ending:
    """How one draw ended, when, and at what price."""

    end: End
    at: datetime  #: when it was decided, or the log was over
    after: timedelta  #: from the start
    reason: str
    stage: str  #: name of the stage in which it was decided
    exposed: int  #: units that the challenger answered in the comparison until then
    #: by guardrail, bad units among these beyond what the champion's rate would have given; None where that is unknown
    excess: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Play:
    """One draw: every move with its reason, every look, and the end."""

    moves: Sequence[Move]
    shares: Sequence[float]  #: of the challenger after each move
    glances: Sequence[Glance]
    ending: Ending


def default_start(plan: Plan, requests: Requests) -> datetime:
    """Return the first request, or a reference window later when the plan freezes what the champion did before."""
    is_frozen = plan.scores is not None or any(each.exceeds is not None for each in plan.guardrails)
    if not is_frozen:
        return requests.first
    return max(requests.first, moment(int(requests.at[0])) + REFERENCE)


def default_every(plan: Plan) -> timedelta:
    """Return a quarter of the shortest canary soak, and never more than the lease, which a look renews."""
    soaks = [stage.soak for stage in plan.stages if isinstance(stage, Canary)]
    return min([plan.lease, *(soak / _LOOKS_PER_SOAK for soak in soaks if soak)])


def play(replay: Replay, *, salt: str, folder: Path) -> Play:
    """Return what becomes of the rollout when units are drawn by `salt`; the same salt, the same play.

    `folder` is empty and is filled with the logs of this draw.
    """
    return _Player(replay, salt=salt, folder=folder).played()


@dataclass(frozen=True, slots=True)
class _NotReplayed:
    """A probe and an examiner for releases whose files and sources a log does not hold."""

    def probe(self, registered: Registered) -> Sequence[Finding]:
        """Return PASS by assumption, and say so."""
        reason = f"not replayed, assumed: a log holds no files of {registered.release.name}"
        return [Finding(Question.CONTRACT, "load", Verdict.PASS, reason)]

    def reads(self, case: Case) -> Mapping[str, str]:  # noqa: ARG002 nothing is read
        """Return nothing."""
        return {}

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return PASS by assumption, and say so: a declared gate asks files and sources that a log does not hold."""
        reason = f"not replayed, assumed: gate {case.gate} asks more than a log holds"
        return [Finding(Question.CONTRACT, case.gate, Verdict.PASS, reason)]


@dataclass(slots=True)
class _Trial:
    """When the trial was decided, before it is watched as a champion."""

    end: End
    at: datetime
    stage: int
    reason: str
    exposed: int
    last_epoch: int  #: number of the last snapshot that belongs to it


class _Player:
    def __init__(self, replay: Replay, *, salt: str, folder: Path) -> None:
        self._replay = replay
        self._now = replay.start
        plan, point = replay.plan, replay.plan.decision_point
        champion = stand_in(plan, "champion", salt=salt)
        challenger = stand_in(plan, "challenger", salt=salt, target=champion.id)
        draw = Draw(replay.requests, salt=salt)
        self._logs = ServedLogs(
            replay.requests, draw, folder, decision_point=point, champion=champion.id, challenger=challenger.id
        )
        missing, people = _NotReplayed(), {_PERSON: frozenset(plan.approvers.roles)}
        self._ports = Ports(MemoryStore(), self._logs, missing, people, examiner=missing)
        for release in (champion, challenger):
            self._ports.store.add_release(Registered(release, folder, self._now), ())
        alone = RoutingSnapshot(point, 1, champion=champion.id, fallback=champion.id)
        self._ports.store.commit(Commit(records=(), snapshot=alone, champion=(point, champion.id)))
        # What is frozen is read off what the champion did before the rollout.
        self._logs.serve_until(self._now, alone)
        self._router = InProcessRouter(_ACTOR, self._ports.store, point)
        self._shares = [0.0]  #: of the challenger after each move, the opening the first
        self._glances: list[Glance] = []
        self._trial: _Trial | None = None
        self._open = ""  #: what the last look has left open
        self._rollout = self._opened(challenger.id, request=salt)

    def played(self) -> Play:
        """Replay until the rollout has ended or the log is over."""
        self._settle()
        while not self._has_ended and self._now < self._replay.end:
            self._now = min(self._now + self._replay.every, self._replay.end)
            self._logs.serve_until(self._now, self._router.snapshot)
            self._settle()
        if self._trial is None:
            self._decide_trial(End.OVER, f"the log ends; open: {self._open}")
        made = moves(self._ports.store.entries(self._rollout.id))
        return Play(made, self._shares, self._glances, self._ending())

    @property
    def _has_ended(self) -> bool:
        is_settled = self._rollout.state is State.CHAMPION and self._rollout.deadline is None
        return is_settled or self._rollout.state in FINAL | {State.AWAITING_DECISION}

    def _opened(self, challenger: str, *, request: str) -> Rollout:
        """Return the rollout at its first stage with logs; what is skipped stands in the ledger with its reason."""
        plan = self._replay.plan
        rollout = start(self._ports, challenger, plan, request=request, requested_by=_ACTOR, now=self._now)
        for gate in plan.gates.asked():
            assess(self._ports, rollout.id, gate, now=self._now, actor=_ACTOR)
        while (lack := self._lack(plan.stages[rollout.stage])) is not None:
            passed = Decision(Action.ADVANCE, f"not replayed, assumed passed: a log holds {lack}")
            after = move(rollout, plan, passed, now=self._now, evidence_digest=Evidence().digest)
            records = (decided(rollout, after, _ACTOR, None, None, now=self._now),)
            self._ports.store.commit(Commit(records=records, moved=(after,)))
            self._shares.append(serving_share(after, plan))
            rollout = after
        agree(self._ports, plan.decision_point, now=self._now, actor=_ACTOR)
        self._router.refresh(now=self._now)
        return rollout

    def _lack(self, stage: Stage) -> str | None:
        """Return what the log lacks for `stage`, or None when it can be replayed."""
        if isinstance(stage, Gates):
            return "no release files"
        is_shadow = isinstance(stage, Shadow) and not self._replay.requests.is_paired
        return "one answer to each request, and no copy" if is_shadow else None

    def _settle(self) -> None:
        """Take every step that is due; the router follows at once and a person answers at once."""
        is_moved = True
        while is_moved:
            before = self._rollout
            answer = self._answer() if before.state is State.AWAITING_APPROVAL else None
            outcome = step(self._ports, before.id, now=self._now, actor=_ACTOR, answer=answer)
            self._rollout, is_moved = outcome.rollout, outcome.is_moved
            self._note(before, outcome)
            self._router.refresh(now=self._now)
            self._open = outcome.decision.reason

    def _answer(self) -> Answer:
        choice = Choice.APPROVE if self._replay.is_approved else Choice.REJECT
        return Answer(choice, _PERSON, _ASSUMED[choice], self._rollout.evidence_digest or "")

    def _note(self, before: Rollout, outcome: Outcome) -> None:
        share = serving_share(outcome.rollout, self._replay.plan)
        self._glances.append(Glance(self._now, share, _harm(outcome.judged.findings)))
        if outcome.is_moved:
            self._shares.append(share)
            end = _end(before, outcome)
            if end is not None and (self._trial is None or end is End.DEMOTED):
                self._decide_trial(end, outcome.decision.reason)

    def _decide_trial(self, end: End, reason: str) -> None:
        last_epoch = self._router.snapshot.number
        self._trial = _Trial(end, self._now, self._rollout.stage, reason, self._logs.exposed(), last_epoch)

    def _ending(self) -> Ending:
        if (trial := self._trial) is None:
            raise ValueError("trial: found none decided; expected it before its ending is told")
        return Ending(
            trial.end,
            trial.at,
            trial.at - self._replay.start,
            trial.reason,
            self._replay.plan.stage_names()[trial.stage],
            trial.exposed,
            self._excess(trial.last_epoch),
        )

    def _excess(self, last_epoch: int) -> dict[str, float | None]:
        """Return what the challenger's units cost up to `last_epoch`, by every label that came in time."""
        plan, rollout = self._replay.plan, self._rollout
        maturities = [each.maturity for each in plan.guardrails if each.maturity is not None]
        now = self._now + max(maturities, default=timedelta(0)) + _TICK
        self._logs.label_until(now)
        scope = Scope(rollout.decision_point, rollout.id, rollout.champion, rollout.challenger, rollout.created_at)
        evidence = self._logs.look(plan, scope, now=now)
        return {each.name: _beyond(evidence, each, last_epoch) for each in plan.guardrails if each.mean is None}


def _end(before: Rollout, outcome: Outcome) -> End | None:
    """Return how the trial ended with this move, or None when it goes on."""
    findings = [finding for finding in outcome.judged.findings if finding.is_binding]
    match outcome.rollout.state:
        case State.PROMOTING:
            return End.PROMOTED
        case State.AWAITING_DECISION:
            asked = [f.verdict for f in findings if f.question in REQUIRED[before.state]]
            return End.PASSED if worst(asked) is Verdict.PASS else End.UNDECIDED
        case State.ROLLING_BACK if before.state in (State.PROMOTING, State.CHAMPION):
            return End.DEMOTED
        case State.ROLLING_BACK if any(f.verdict is Verdict.FAIL and f.question in _ends(before) for f in findings):
            return End.ROLLED_BACK
        case State.ROLLING_BACK:
            return End.REJECTED if before.state is State.AWAITING_APPROVAL else End.UNDECIDED
        case _:
            return None


def _ends(rollout: Rollout) -> frozenset[Question]:
    """Return the questions whose FAIL ends `rollout` at once."""
    of_shadow = {Question.SHADOW, Question.CONTRACT} if rollout.state is State.SHADOW else set()
    return frozenset({Question.HARM, *of_shadow})


def _harm(findings: Sequence[Finding]) -> float:
    """Return log10 of the strongest evidence of harm, as a part of what rolls back; NaN where there is none."""
    beyond = [
        (log_e - threshold) / math.log(10.0)
        for finding in findings
        if finding.question is Question.HARM and finding.is_binding
        if (log_e := number(finding, "log_e")) is not None and (threshold := number(finding, "threshold")) is not None
    ]
    return max(beyond, default=math.nan)


def _beyond(evidence: Evidence, guardrail: Guardrail, last_epoch: int) -> float | None:
    """Return the challenger's bad units beyond those that the champion's rate of the same epochs would have given.

    None when the champion's rate is unknown in an epoch in which the challenger answered.
    """
    total = 0.0
    for epoch in evidence.numbers:
        tallies = (evidence.cells.get(Cell(guardrail.name, None, None, epoch, arm), Tally()) for arm in ARMS)
        (champion_bad, champion), (bad, units) = (_counted(tally, guardrail) for tally in tallies)
        if units == 0 or epoch > last_epoch:
            continue
        if champion == 0:
            return None
        total += bad - units * champion_bad / champion
    return total


def _counted(tally: Tally, guardrail: Guardrail) -> tuple[int, int]:
    """Return bad units and all of which that is known."""
    if not guardrail.source.is_delayed:
        return tally.bad, tally.units
    return tally.matured_bad, tally.matured if guardrail.is_censored else tally.labelled
