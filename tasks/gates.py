"""Effects of declared gates: each is one task, so that all are asked side by side and each is tried again alone."""

from __future__ import annotations

from prefect import task

from seatrial.control import assessing
from tasks.plant import OPTIONS, plant
from tasks.rollouts import ACTOR

#: A gate may load models, replay a log of months or put load on a server.
TIMEOUT_S = 900


@task(name="List open gates", **OPTIONS)
def open_gates(rollout_id: str) -> tuple[tuple[str, ...], ...]:
    """Return the declared gates that have no answer yet, by groups that may be asked side by side."""
    here = plant()
    return assessing.open_gates(here.store, here.store.rollout(rollout_id))


@task(name="Answer a gate", task_run_name="gate {gate}", **{**OPTIONS, "timeout_seconds": TIMEOUT_S})
def answer_gate(rollout_id: str, gate: str) -> str:
    """Put one declared gate to the part that answers it, keep the answer, and return its verdict."""
    here = plant()
    return assessing.assess(here.ports, rollout_id, gate, now=here.clock.now(), actor=ACTOR).verdict.name
