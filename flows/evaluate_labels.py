"""Judge again as labels arrive, also after promotion."""

from __future__ import annotations

from prefect import flow

from tasks.pages import open_label_windows, publish_labels
from tasks.watch import evaluate


@flow(name="evaluate_labels", flow_run_name="labels")
def evaluate_labels() -> list[str]:
    """Judge every rollout whose label window is open by its matured labels; a champion that harms is demoted."""
    decided = []
    for rollout_id in open_label_windows():
        publish_labels(rollout_id)
        decided.append(evaluate(rollout_id))
    return decided
