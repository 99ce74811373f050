"""Check, register and start releases, and answer what their rollouts ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seatrial.adapters.memory import MemoryStore
from seatrial.cli.following import follow_answer, is_asking
from seatrial.cli.lookup import find_release, title
from seatrial.cli.options import (
    ActorOption,
    FilesArgument,
    JsonOption,
    ManifestArgument,
    PlanOption,
    PrefectOption,
    ReasonOption,
    ReleaseArgument,
    RolloutArgument,
    SettingsOption,
    WaitOption,
    opened,
    prefect_at,
    ui_of,
)
from seatrial.cli.terminal import say, show_json, show_table
from seatrial.control import opening
from seatrial.documents import check as check_document
from seatrial.documents import load_yaml
from seatrial.errors import ConflictError, InvalidDocumentError, Problem, RefusedError
from seatrial.plan import Plan, load_plan
from seatrial.ports import Commit, Ports
from seatrial.release import Release, load_release, verify_files
from seatrial.rollout import Choice, Rollout, State
from seatrial.units import short
from seatrial.wiring import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.wiring import Plant

#: Deployment that takes a release through a plan.
ROLLOUT_DEPLOYMENT = "rollout/rollout"
#: Answers that each question takes.
_TAKES = {
    State.AWAITING_APPROVAL: (Choice.APPROVE, Choice.REJECT),
    State.AWAITING_DECISION: (Choice.CONTINUE, Choice.REJECT),
}


def check(files: FilesArgument, *, as_json: JsonOption = False) -> None:
    """Check plans and manifests with the files they name; every problem comes out, nothing is written."""
    problems: list[Problem] = []
    sound = []
    for path in files:
        try:
            sound.append(_checked(path))
        except InvalidDocumentError as error:
            problems += error.problems
    if problems:
        raise InvalidDocumentError(problems)
    if as_json:
        show_json({"files": sound})
    else:
        show_table(("file", "is", "name", "id"), [[f["path"], f["kind"], f["name"], short(f["id"])] for f in sound])


def _checked(path: Path) -> dict[str, str]:
    document = load_yaml(path)
    if "plan" in document.data:
        plan = check_document(document, Plan)
        return {"path": str(path), "kind": "plan", "name": f"{plan.name} {plan.version}", "id": plan.id}
    if "release" in document.data:
        release = check_document(document, Release)
        if problems := verify_files(release, path.parent):
            raise InvalidDocumentError(problems)
        return {"path": str(path), "kind": "release", "name": title(release), "id": release.id}
    raise InvalidDocumentError(
        [Problem(str(path), "found neither the key 'plan' nor 'release', expected one of them", "name what it is")]
    )


def register(
    manifest: ManifestArgument,
    *,
    actor: ActorOption,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Register a release after its files are proven to be those it names; again changes nothing."""
    release = load_release(manifest)
    with opened(settings) as plant:
        now = plant.clock.now()
        opening.register(plant.ports, release, location=manifest.resolve().parent, now=now, actor=actor)
        is_champion = plant.store.champions().get(release.decision_point) == release.id
    if as_json:
        show_json(
            {
                "release_id": release.id,
                "name": release.name,
                "version": release.version,
                "decision_point": release.decision_point,
                "is_champion": is_champion,
            }
        )
    else:
        serves = f", champion of {release.decision_point}" if is_champion else ""
        say(f"registered {short(release.id)}: {title(release)}{serves}")


def start(
    release: ReleaseArgument,
    *,
    plan: PlanOption,
    actor: ActorOption,
    prefect_api: PrefectOption,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Start the rollout of a release by a plan, as a Prefect flow run; release and plan are checked first."""
    checked = load_plan(plan)
    with opened(settings) as plant:
        challenger = find_release(plant.store, release).release
        _rehearse(plant, challenger, checked, actor)
    api = prefect_at(prefect_api)
    run_id = api.start(ROLLOUT_DEPLOYMENT, {"release": short(challenger.id), "plan": str(plan), "requested_by": actor})
    ui = ui_of(api, run_id)
    if as_json:
        show_json(
            {
                "flow_run_id": run_id,
                "ui": ui,
                "release_id": challenger.id,
                "plan_id": checked.id,
                "decision_point": challenger.decision_point,
            }
        )
    else:
        say(f"started {title(challenger)} ({short(challenger.id)}) by plan {checked.name} {checked.version}")
        say(f"flow run {run_id}\n{ui}\nfollow it with: seatrial status {challenger.decision_point}")


def _rehearse(plant: Plant, challenger: Release, plan: Plan, actor: str) -> None:
    """Start the rollout in memory, so that what the flow run would be refused is refused here and now."""
    name = challenger.decision_point
    twin = MemoryStore()
    for registered in plant.store.releases(name):
        twin.add_release(registered, [])
    if (champion := plant.store.champions().get(name)) is not None:
        twin.commit(Commit((), snapshot=plant.store.snapshot(name), champion=(name, champion)))
    for rollout in plant.store.rollouts(name):
        if rollout.is_active:
            twin.commit(Commit((), inserted=rollout))
    ports = Ports(twin, plant.ports.evidence, plant.ports.probe)
    opening.start(ports, challenger.id, plan, request="rehearsal", requested_by=actor, now=plant.clock.now())


def answer(
    rollout: RolloutArgument,
    choice: Annotated[Choice, typer.Argument(help="approve or reject an approval; continue or reject the undecided.")],
    *,
    reason: ReasonOption,
    actor: ActorOption,
    prefect_api: PrefectOption,
    wait_s: WaitOption = 10.0,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Answer the question that a rollout waits for, through its flow run, and see whether the answer counts."""
    with opened(settings) as plant:
        asked = plant.store.rollout(rollout)
        flow_run_id = _question_of(asked, choice)
        api = prefect_at(prefect_api)
        if not is_asking(api, flow_run_id):
            raise RefusedError(
                f"rollout {asked.id}: its flow run has not put the question yet; expected it to be suspended; try again"
                f" in a moment, or look at {ui_of(api, flow_run_id)}"
            )
        api.answer(flow_run_id, {"decision": choice.value, "approver": actor, "reason": reason})
        after = follow_answer(plant.store, api, asked, flow_run_id, patience_s=wait_s)
        _require_counted(plant, asked, after, actor)
    if as_json:
        show_json(
            {
                "rollout_id": after.id,
                "choice": choice.value,
                "by": actor,
                "state": after.state.value,
                "reason": after.reason,
                "ui": ui_of(api, flow_run_id),
            }
        )
    else:
        say(f"rollout {after.id} is now {after.state}: {after.reason}")


def _question_of(rollout: Rollout, choice: Choice) -> str:
    """Return the flow run that asks; raises RefusedError when nothing is asked that `choice` answers."""
    takes = _TAKES.get(rollout.state)
    if takes is None or rollout.flow_run_id is None:
        raise RefusedError(
            f"rollout {rollout.id}: found state {rollout.state!s}, which asks nobody; expected"
            f" {' or '.join(_TAKES)}; `seatrial explain {rollout.id}` says what is next"
        )
    if choice not in takes:
        raise RefusedError(
            f"rollout {rollout.id}: found answer {choice.value!r}; expected {' or '.join(takes)} while it is"
            f" {rollout.state}; answer with one of these"
        )
    return rollout.flow_run_id


def _require_counted(plant: Plant, asked: Rollout, after: Rollout, actor: str) -> None:
    """Refuse to call an answer counted when somebody else's move was quicker."""
    moved = next(
        entry.record
        for entry in plant.store.entries(asked.id)
        if entry.record.kind == "rollout.decided" and entry.record.body["version"] == asked.version + 1
    )
    if moved.body.get("answer", {}).get("by") != actor:
        raise ConflictError(
            f"rollout {asked.id}: {moved.actor} moved it before the answer counted ({moved.body['reason']}); it is"
            f" {after.state} now; read it again"
        )
