"""What people see in the Prefect UI."""

from __future__ import annotations

from prefect import get_client, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

from seatrial.control.judging import judge_labels
from seatrial.control.measuring import measured
from seatrial.control.watching import is_open
from seatrial.metrics import markdown, metrics
from seatrial.report import findings_table, page, quality, stage_report
from seatrial.rollout import State
from tasks.plant import OPTIONS, plant
from tasks.rollouts import release_names


@task(name="Publish the page", **OPTIONS)
def publish_page(rollout_id: str) -> None:
    """Write the page of the whole rollout and the report of its present stage."""
    here = plant()
    now = here.clock.now()
    rollout = here.store.rollout(rollout_id)
    plan = here.store.plan(rollout.plan_id)
    looks, entries = here.store.looks(rollout_id), here.store.entries(rollout_id)
    names = release_names()
    stage = plan.stage_names()[rollout.stage]
    create_markdown_artifact(
        key=f"rollout-{rollout_id}",
        markdown=page(rollout, plan, looks, entries, names, now=now),
        description=f"{names[rollout.challenger]}: {rollout.state}",
    )
    create_markdown_artifact(
        key=f"rollout-{rollout_id}-{stage}",
        markdown=stage_report(
            rollout, plan, looks, entries, evidence=measured(here.ports, rollout, plan, now=now), now=now
        ),
        description=f"{names[rollout.challenger]}: findings of stage {stage}, and what was measured",
    )


@task(name="Show progress", **OPTIONS)
def show_progress(rollout_id: str) -> None:
    """Show how many of the plan's stages are behind."""
    here = plant()
    rollout = here.store.rollout(rollout_id)
    stages = here.store.plan(rollout.plan_id).stage_names()
    done = len(stages) if rollout.state is State.CHAMPION else rollout.stage
    create_progress_artifact(
        key=f"rollout-{rollout_id}-progress",
        progress=100.0 * done / len(stages),
        description=f"stages of rollout {rollout_id}: {', '.join(stages)}",
    )


@task(name="List open label windows", **OPTIONS)
def open_label_windows() -> list[str]:
    """Return the rollouts that have served requests and whose labels may still change their verdict."""
    served = (State.CANARY, State.LABELS, State.AWAITING_APPROVAL, State.CHAMPION, State.SUPERSEDED)
    return [r.id for r in plant().store.rollouts() if r.state in served and is_open(r)]


@task(name="Publish the labels' report", **OPTIONS)
def publish_labels(rollout_id: str) -> None:
    """Write what matured labels say about `rollout_id` at present."""
    here = plant()
    rollout = here.store.rollout(rollout_id)
    plan = here.store.plan(rollout.plan_id)
    judged = judge_labels(here.ports, rollout, plan, now=here.clock.now())
    name = release_names()[rollout.challenger]
    create_markdown_artifact(
        key=f"rollout-{rollout_id}-label-evaluation",
        markdown="\n\n".join(
            [f"# Matured labels of {name}", findings_table(judged.findings), quality(judged.evidence, plan)]
        ),
        description=f"{name}: matured labels, {rollout.state}",
    )


@task(name="Publish the metrics", **OPTIONS)
def publish_metrics() -> None:
    """Write the metrics of every decision point, each over the last ones: nobody reads how they stood a minute ago."""
    here = plant()
    now = here.clock.now()
    for name in here.store.champions():
        found = metrics(here.ports, now=now, decision_point=name)
        # A key of Prefect has no underscore, which a decision point may have.
        _replace(f"metrics-{name.replace('_', '--')}", markdown(f"Metrics of {name}", found), f"{name}: metrics")


def _replace(key: str, text: str, description: str) -> None:
    """Write `text` over the artifact that has `key`, or as a new one."""
    named = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        present = client.read_latest_artifacts(artifact_filter=named)
        if present:
            client.update_artifact(present[0].latest_id, ArtifactUpdate(data=text, description=description))
            return
    create_markdown_artifact(key=key, markdown=text, description=description)
