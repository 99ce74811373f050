"""Ask the declared gates of a rollout by hand, and waive what a person may answer for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatrial.cli.options import ActorOption, JsonOption, ReasonOption, RolloutArgument, SettingsOption, opened
from seatrial.cli.terminal import say, show_json, show_table
from seatrial.cli.views import waiver_document
from seatrial.control import acknowledging, assessing, waiving
from seatrial.errors import NotFoundError, RefusedError, UnavailableError
from seatrial.units import format_time, parse_duration
from seatrial.wiring import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from seatrial.plan import Ask
    from seatrial.ports import GateAnswer

_HEADER = ("gate", "verdict", "may be waived", "about", "reason")


def assess(
    rollout: RolloutArgument,
    gates: Annotated[
        list[str] | None, typer.Argument(metavar="[GATE]...", help="Some; else all that are open.")
    ] = None,
    *,
    actor: ActorOption,
    is_again: Annotated[bool, typer.Option("--again", help="Ask anew although the same inputs were answered.")] = False,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Ask the declared gates of a rollout and keep the answers; needs no Prefect. Without open gates, shows them."""
    unanswered: UnavailableError | None = None
    with opened(settings) as plant:
        found = plant.store.rollout(rollout)
        asked = plant.store.plan(found.plan_id).gates.asked()
        groups = assessing.open_gates(plant.store, found)
        wanted = gates or (list(asked) if is_again else [gate for group in groups for gate in group])
        for gate in wanted:
            if gate not in asked:
                raise NotFoundError.of("gate of this rollout's plan", gate, asked)
        for gate in wanted:
            try:
                assessing.assess(plant.ports, found.id, gate, now=plant.clock.now(), actor=actor, is_again=is_again)
            except UnavailableError as error:
                unanswered = error
        answers = plant.store.gate_answers(found.id)
    if as_json:
        show_json({"rollout_id": found.id, "gates": [_document(asked, gate, answers.get(gate)) for gate in asked]})
    elif asked:
        show_table(_HEADER, [cells for gate in asked for cells in _cells(asked, gate, answers.get(gate))])
    else:
        say("the plan declares no gate")
    if unanswered is not None:
        raise unanswered


def _cells(asked: Mapping[str, Ask], gate: str, answer: GateAnswer | None) -> Sequence[tuple[str, ...]]:
    if answer is None:
        return [(gate, "not answered", "no", "", "")]
    return [
        (
            gate,
            finding.verdict.name,
            "yes" if asked[gate].may_waive(finding.verdict) else "no",
            finding.subject,
            finding.reason,
        )
        for finding in answer.findings
    ]


def _document(asked: Mapping[str, Ask], gate: str, answer: GateAnswer | None) -> dict[str, Any]:
    return {
        "gate": gate,
        "verdict": None if answer is None else answer.verdict.name,
        "at": None if answer is None else format_time(answer.at),
        "inputs": None if answer is None else answer.inputs,
        "may_be_waived": answer is not None and asked[gate].may_waive(answer.verdict),
        "findings": [] if answer is None else [finding.document() for finding in answer.findings],
    }


def waive(
    rollout: RolloutArgument,
    gate: Annotated[str, typer.Argument(metavar="GATE", help="Declared gate whose present answer is waived.")],
    *,
    reason: ReasonOption,
    expires: Annotated[str, typer.Option("--expires", metavar="DURATION", help="How long it counts, such as '14 d'.")],
    actor: ActorOption,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Let the present answer of a gate pass in your name, until an end; recorded and shown for ever."""
    lasts = _duration(expires)
    with opened(settings) as plant:
        now = plant.clock.now()
        found = plant.store.rollout(rollout)
        waived = waiving.waive(plant.ports, found.id, gate, by=actor, reason=reason, expires=now + lasts, now=now)
    if as_json:
        show_json({"rollout_id": found.id, **waiver_document(waived)})
    else:
        say(f"rollout {found.id}: gate {gate} {waived.words}")


def _duration(text: str) -> timedelta:
    try:
        lasts = parse_duration(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"--expires: {error}") from error
    if lasts > waiving.LONGEST:
        raise RefusedError(f"--expires {text}: found more than {waiving.LONGEST.days} d; what holds longer is a plan")
    return lasts


def acknowledge(
    rollout: RolloutArgument,
    consumer: Annotated[str, typer.Argument(metavar="CONSUMER", help="Reader of score or action that the plan names.")],
    *,
    reason: ReasonOption,
    actor: ActorOption,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Say, as an owner of a consumer, that it knows of the challenger and is ready for it."""
    with opened(settings) as plant:
        found = acknowledging.acknowledge(
            plant.ports,
            plant.store.rollout(rollout).id,
            consumer,
            by=actor,
            reason=reason,
            now=plant.clock.now(),
        )
    if as_json:
        show_json({"rollout_id": found.id, "consumer": consumer, "by": actor, "reason": reason})
    else:
        say(f"rollout {found.id}: acknowledged for {consumer} by {actor}")
