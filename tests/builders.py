"""Small builders of valid values and ten-line fakes, so that a test names only what it is about."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import yaml

from seatrial.adapters.memory import MemoryExaminer, MemoryStore
from seatrial.adapters.router import InProcessRouter
from seatrial.control.moving import EVERYTHING, Outcome, step
from seatrial.control.opening import register, start
from seatrial.documents import check, parse_yaml
from seatrial.evidence import Arm, Cell, Epoch, Evidence, ShadowTally, Tally
from seatrial.gates.finding import Finding, Question
from seatrial.plan import Plan
from seatrial.ports import Ports
from seatrial.release import Release
from seatrial.rollout import Action, Answer, Choice, Rollout, State
from seatrial.units import digest_bytes, digest_of
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from seatrial.ports import Registered, Scope, Store

T0 = datetime(2013, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
POINT = "flight-delay"

STAGES: list[dict[str, Any]] = [
    {"stage": "gates", "bounds": [{"metric": "log_loss", "at_most": 0.6}], "probe_max_age": "1 d"},
    {"stage": "shadow", "soak": "1 d", "deadline": "7 d", "min_units": 500, "max_flip_rate": "40 %"},
    {"stage": "canary", "share": "5 %", "soak": "2 d"},
    {"stage": "canary", "share": "20 %", "soak": "2 d"},
    {"stage": "labels", "deadline": "21 d"},
    {"stage": "approval", "expires": "3 d"},
    {"stage": "promotion", "holdback": "5 %", "watch": "14 d"},
]
#: Indices of the stages above.
GATES, SHADOW, CANARY, CANARY_2, LABELS, APPROVAL, PROMOTION = range(7)

PLAN: dict[str, Any] = {
    "plan": {"name": "standard", "version": "1", "decision_point": POINT},
    "unit": "unit_key",
    "stages": STAGES,
    "guardrails": [
        {
            "name": "call-failed",
            "source": "runtime",
            "bad_when": [{"outcome": ["timeout", "error", "fallback"]}],
            "margin": "50 % relative",
            "consequence": "freeze",
        },
        {
            "name": "wrong-decision",
            "source": "label",
            "label": "late",
            "maturity": "36 h",
            "bad_when": [{"label": 1, "action": "none"}, {"label": 0, "action": "rebook"}],
            "margin": "15 % relative",
            "weight": 4,
            "slices": ["origin"],
            "consequence": "roll_back",
        },
    ],
    "slices": {"origin": ["EWR", "JFK"]},
    "budgets": {"rollback": "5 %", "hold": "20 %", "promote": "5 %", "srm": "0.5 %"},
    "label_coverage": {"at_least": "80 %"},
    "evidence": {"max_age": "6 h"},
    "lease": "12 h",
    "on_deadline": "ask",
    "approvers": {"roles": ["risk-owner"]},
}

MODEL = b"tree\n"
REPORT = json.dumps({"metrics": {"log_loss": 0.4}, "dataset_digest": digest_bytes(b"data")}).encode()


def a_plan(**changes: Any) -> Plan:
    """Return the plan above with top-level keys changed; a key set to None is left out."""
    document = {key: value for key, value in {**copy.deepcopy(PLAN), **changes}.items() if value is not None}
    return check(parse_yaml(_written(document), "plan.yaml"), Plan)


def a_release(name: str = "challenger", target: str | None = None, **changes: Any) -> Release:
    """Return a release that returns to `target`; a first release without one."""
    document: dict[str, Any] = {
        "release": {"name": name, "version": "1", "decision_point": POINT},
        "model": {"artifact": "model.txt", "digest": digest_bytes(MODEL), "format": "lightgbm-text"},
        "training": {
            "snapshot": "2013-04",
            "digest": digest_bytes(b"training"),
            "as_of": "2013-04-01T00:00:00+00:00",
            "code": "git 1",
            "trained_by": "trainer",
            "features_digest": digest_bytes(b"features"),
        },
        "features": {
            "version": "1",
            "columns": [
                {
                    "name": "distance",
                    "dtype": "float",
                    "unit": "mi",
                    "nullable": False,
                    "meaning": "distance",
                    "owner": "data",
                }
            ],
        },
        "output": {"kind": "probability", "range": [0, 1], "positive": "late"},
        "policy": {
            "version": "1",
            "default_action": "none",
            "actions": {
                "none": {"reversible": True},
                "review": {"reversible": True},
                "rebook": {"reversible": False},
            },
            "cut_offs": {"default": [{"action": "rebook", "at_least": 0.6}]},
        },
        "segments": {
            "salt": "salt",
            "default": "everyone",
            "rules": [{"name": "commuter", "when": {"carrier": ["OO", "YV"]}}],
        },
        "runtime": {"engine": "lightgbm", "version": "4.7", "python": "3.11"},
        "evaluation": {
            "report": "evaluation.json",
            "digest": digest_bytes(REPORT),
            "metrics": {"log_loss": 0.4},
            "dataset_digest": digest_bytes(b"data"),
        },
        "limits": {"p99_ms": 50, "timeout_ms": 60_000, "memory_mb": 512},
        "rollback_target": target or "none",
        "first_release": target is None,
        "owner": {"team": "operations", "person": "author"},
        "risk_tier": "medium",
    }
    return check(parse_yaml(_written({**document, **changes}), "release.yaml"), Release)


def _written(document: Mapping[str, Any]) -> str:
    # Through JSON, for shared parts would come out as YAML anchors.
    return yaml.safe_dump(json.loads(json.dumps(document)))


def write_files(folder: Path) -> Path:
    """Write the files that `a_release` names and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.txt").write_bytes(MODEL)
    (folder / "evaluation.json").write_bytes(REPORT)
    return folder


def a_rollout(state: State = State.CANARY, stage: int = CANARY, **changes: Any) -> Rollout:
    """Return a rollout that entered `state` at T0 and must be decided ten days later."""
    rollout = Rollout(
        id="r1",
        decision_point=POINT,
        champion=digest_bytes(b"champion"),
        challenger=digest_bytes(b"challenger"),
        plan_id=digest_bytes(b"plan"),
        requested_by="requester",
        created_at=T0 - DAY,
        state=state,
        stage=stage,
        entered_at=T0,
        deadline=T0 + 10 * DAY,
        reason="because",
        evidence_digest=digest_of("evidence"),
    )
    return replace(rollout, **changes)


def a_finding(question: Question, verdict: Verdict = Verdict.PASS, **changes: Any) -> Finding:
    """Return a binding finding."""
    return replace(Finding(question, "subject", verdict, f"{question} {verdict.name}"), **changes)


def an_answer(choice: Choice = Choice.APPROVE, **changes: Any) -> Answer:
    """Return the answer of a person who may give it, to the evidence of `a_rollout`."""
    return replace(Answer(choice, "approver", "read it", digest_of("evidence")), **changes)


def evidence_at(
    newest: datetime | None,
    *,
    plan: Plan | None = None,
    share: float = 0.2,
    ratio: float = 1.0,
    units: int = 100_000,
    labelled: float = 1.0,
    lost: float = 0.0,
) -> Evidence:
    """Return counts of `units` of which 5 % are bad, in the challenger `ratio` times as many.

    `labelled` is the part with a label; `lost` the part of the challenger's units that never reached the log.
    """
    plan = plan or a_plan()
    arms = {Arm.CHALLENGER: (share * (1.0 - lost), ratio), Arm.CHAMPION: (1.0 - share, 1.0)}
    cells, assigned = {}, {}
    for arm, (part, times) in arms.items():
        assigned[2, arm] = count = round(units * part)
        for guardrail in plan.guardrails:
            places = [(None, None), *((c, v) for c in guardrail.slices for v in plan.slices[c])]
            for column, value in places:
                size = count if column is None else count // len(plan.slices[column])
                bad = round(size * 0.05 * times)
                tally = Tally(size, bad, size, bad, round(size * labelled))
                cells[Cell(guardrail.name, column, value, 2, arm)] = tally
    shadow = ShadowTally(units=5_000, compared=5_000, flipped=100)
    return Evidence(newest, {2: Epoch(share, CANARY)}, cells, assigned, shadow)


@dataclass
class ScriptedEvidence:
    """Evidence as a test sets it; an exception is raised, None is recent evidence of no harm."""

    says: Evidence | Exception | None = None
    scopes: list[Scope] = field(default_factory=list)

    def look(self, plan: Plan, scope: Scope, *, now: datetime) -> Evidence:
        """Return what the test says."""
        self.scopes.append(scope)
        if isinstance(self.says, Exception):
            raise self.says
        return evidence_at(now, plan=plan) if self.says is None else self.says


@dataclass
class ScriptedProbe:
    """A probe with the verdict that a test sets; None finds nothing."""

    verdict: Verdict | Exception | None = Verdict.PASS

    def probe(self, registered: Registered) -> Sequence[Finding]:
        """Return what the test says."""
        if isinstance(self.verdict, Exception):
            raise self.verdict
        if self.verdict is None:
            return []
        return [Finding(Question.CONTRACT, "load", self.verdict, f"{registered.release.name} probed")]


APPROVERS: Mapping[str, frozenset[str]] = {
    "approver": frozenset({"risk-owner"}),
    "requester": frozenset({"risk-owner"}),
    "author": frozenset({"risk-owner"}),
    "trainer": frozenset({"risk-owner"}),
    "reader": frozenset({"reader"}),
}


class World:
    """A control plane with two registered releases, one router, and evidence and probe under a test's control."""

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self.store: Store = MemoryStore() if store is None else store
        self.evidence = ScriptedEvidence()
        self.probe = ScriptedProbe()
        self.examiner = MemoryExaminer()
        self.ports = Ports(self.store, self.evidence, self.probe, APPROVERS, examiner=self.examiner)
        self.folder = write_files(folder)
        self.champion = self.register(a_release("champion"))
        self.challenger = self.register(a_release("challenger", self.champion))
        self.router = InProcessRouter("router", self.store, POINT)

    def register(self, release: Release) -> str:
        """Register `release` and return its id."""
        return register(self.ports, release, location=self.folder, now=T0, actor="author").release.id

    def start(
        self, release_id: str | None = None, plan: Plan | None = None, *, request: str = "run", now: datetime = T0
    ) -> Rollout:
        """Start the rollout of the challenger, or of another release."""
        return start(
            self.ports,
            release_id or self.challenger,
            plan or a_plan(),
            request=request,
            requested_by="requester",
            now=now,
        )

    def step(
        self,
        rollout: Rollout,
        now: datetime,
        choice: Choice | None = None,
        *,
        may: frozenset[Action] = EVERYTHING,
        **changes: Any,
    ) -> Outcome:
        """Take one step, with an answer to the present evidence when `choice` is given."""
        present = self.store.rollout(rollout.id)
        answer = None
        if choice is not None:
            answer = an_answer(choice, **{"evidence_digest": present.evidence_digest or "", **changes})
        return step(self.ports, rollout.id, now=now, actor="test", answer=answer, may=may)

    def advance_to(
        self, state: State, plan: Plan | None = None, *, stage: int | None = None
    ) -> tuple[Rollout, datetime]:
        """Start a rollout and take it, without harm, to `state` (and `stage`); return it with the time."""
        rollout, now = self.start(plan=plan), T0
        for _ in range(40):
            if rollout.state is state and stage in (None, rollout.stage):
                return rollout, now
            now += DAY
            self.router.refresh(now=now)
            choice = Choice.APPROVE if rollout.state is State.AWAITING_APPROVAL else None
            rollout = self.step(rollout, now, choice).rollout
        raise AssertionError(f"never came to {state}: {rollout.state}, {rollout.reason}")

    @property
    def share(self) -> float:
        """Share of the challenger in the snapshot in force."""
        return self.store.snapshot(POINT).share
