"""Effects on one rollout."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from prefect import task

from seatrial.control.measuring import decided_on
from seatrial.control.moving import step
from seatrial.control.opening import start
from seatrial.control.publishing import agree
from seatrial.errors import ConflictError, RefusedError
from seatrial.plan import load_plan
from seatrial.report import question
from seatrial.rollout import Action, Answer, Choice, Rollout, State, share_of
from seatrial.waiver import waived_of
from tasks.plant import OPTIONS, plant

#: How long an undecided rollout waits for a person; its challenger has no share meanwhile.
PATIENCE = timedelta(days=30)
#: Who acts, in the ledger, when a flow advances a rollout.
ACTOR = "rollout flow"


class Next(StrEnum):
    """What the flow has to do after a step."""

    STEP = "step"  #: look again at once
    WAIT = "wait"  #: sleep until the watch finds something to do
    ASK = "ask"  #: a person must answer
    END = "end"  #: the rollout has its verdict


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rollout stands after one step."""

    rollout_id: str
    version: int
    state: State
    next: Next
    title: str  #: name of the flow run's state while it waits
    reason: str

    @property
    def is_at_gates(self) -> bool:
        """Whether declared gates may still be open."""
        return self.state is State.GATES


@dataclass(frozen=True, slots=True)
class Asked:
    """A question to a person."""

    text: str  #: Markdown with the evidence
    choices: tuple[Choice, ...]
    evidence_digest: str
    expires_s: int


@task(name="Open the rollout", **OPTIONS)
def open_rollout(release: str, plan: str, requested_by: str, *, flow_run_id: str) -> str:
    """Start the rollout of `release` by the plan file `plan`, once for each flow run, and return its id."""
    here = plant()
    return start(
        here.ports,
        release,
        load_plan(Path(plan)),
        request=flow_run_id,
        requested_by=requested_by,
        now=here.clock.now(),
        flow_run_id=flow_run_id,
    ).id


@task(name="Make the routers agree", **OPTIONS)
def agree_routers(rollout_id: str) -> bool:
    """Publish the snapshot that the ledger calls for if another one is in force; return whether that was needed."""
    here = plant()
    rollout = here.store.rollout(rollout_id)
    return agree(here.ports, rollout.decision_point, now=here.clock.now(), actor=ACTOR)


@task(name="Judge and decide", **OPTIONS)
def take_step(rollout_id: str, answer: Answer | None = None) -> Progress:
    """Judge once, decide, carry it out and return where the rollout stands."""
    here = plant()
    try:
        outcome = step(here.ports, rollout_id, now=here.clock.now(), actor=ACTOR, answer=answer)
    except ConflictError:
        # Somebody else moved it: look again rather than insist on a decision about the past.
        return _progress(here.store.rollout(rollout_id), Next.STEP, "moved by another actor")
    if outcome.is_moved:
        return _progress(outcome.rollout, _after_move(outcome.rollout), outcome.decision.reason)
    if outcome.decision.action is not Action.HOLD:
        raise RefusedError(f"rollout {rollout_id}: {outcome.decision.action} was decided and not carried out")
    return _progress(outcome.rollout, _while_holding(outcome.rollout), outcome.decision.reason)


def _after_move(rollout: Rollout) -> Next:
    return Next.END if _has_verdict(rollout) else Next.STEP


def _while_holding(rollout: Rollout) -> Next:
    if _has_verdict(rollout):
        return Next.END
    asks = rollout.state in (State.AWAITING_APPROVAL, State.AWAITING_DECISION)
    return Next.ASK if asks else Next.WAIT


def _has_verdict(rollout: Rollout) -> bool:
    return rollout.state in (
        State.CHAMPION,
        State.SUPERSEDED,
        State.RETIRED,
        State.REJECTED,
        State.ROLLED_BACK,
    )


def _progress(rollout: Rollout, following: Next, reason: str) -> Progress:
    plan = plant().store.plan(rollout.plan_id)
    share = share_of(rollout, plan)
    titles = {
        State.GATES: "Checking the gates",
        State.SHADOW: "In shadow",
        State.SHADOW_PAUSED: "Shadow paused",
        State.CANARY: f"Canary at {share:.0%}",
        State.LABELS: f"Waiting for labels at {share:.0%}",
        State.PROMOTING: "Promoting",
        State.ROLLING_BACK: "Rolling back",
        State.ROLLBACK_INCOMPLETE: "Rollback incomplete",
    }
    title = titles.get(rollout.state, rollout.state.value.capitalize())
    return Progress(rollout.id, rollout.version, rollout.state, following, title, reason)


@task(name="Put the question", **OPTIONS)
def put_question(rollout_id: str) -> Asked:
    """Return the question that `rollout_id` waits to have answered, with its evidence."""
    here = plant()
    now = here.clock.now()
    rollout = here.store.rollout(rollout_id)
    plan = here.store.plan(rollout.plan_id)
    names = release_names()
    choices = (
        (Choice.CONTINUE, Choice.REJECT)
        if rollout.state is State.AWAITING_DECISION
        else (Choice.APPROVE, Choice.REJECT)
    )
    left = PATIENCE if rollout.deadline is None else max(rollout.deadline - now, plan.lease)
    return Asked(
        question(
            rollout,
            plan,
            here.store.looks(rollout.id),
            names,
            evidence=decided_on(here.ports, rollout),
            waived=waived_of(here.store.entries(rollout.id)),
            now=now,
        ),
        choices,
        rollout.evidence_digest or "",
        int(left.total_seconds()),
    )


def release_names() -> dict[str, str]:
    """Return "name version" by release id."""
    known = plant().store.releases()
    return {each.release.id: f"{each.release.name} {each.release.version}" for each in known}
