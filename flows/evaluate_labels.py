"""Judge again as labels arrive, also after promotion."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from tasks.pages import open_label_windows, publish_labels
from tasks.watch import evaluate


@flow(name="evaluate_labels", flow_run_name="labels")
def evaluate_labels() -> list[State[Any]]:
    """Judge every rollout whose label window is open by its matured labels; a champion that harms is demoted.

    One that cannot be judged does not keep the others from it; the run fails when all of them had their turn.
    """
    outcomes: list[State[Any]] = []
    for rollout_id in open_label_windows():
        # A report that cannot be written must not keep a champion that harms in service: it comes second.
        outcomes.append(evaluate(rollout_id, return_state=True))
        outcomes.append(publish_labels(rollout_id, return_state=True))
    return outcomes
