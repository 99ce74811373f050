"""Take releases out of service and see that they are out; needs the store alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seatrial.cli import views
from seatrial.cli.exits import ExitCode
from seatrial.cli.following import OUT, follow_out, routers_of
from seatrial.cli.lookup import find_release, titles
from seatrial.cli.options import (
    ActorOption,
    JsonOption,
    ReasonOption,
    ReleaseArgument,
    SettingsOption,
    WaitOption,
    opened,
)
from seatrial.cli.terminal import ALARM, say, show_json
from seatrial.control import ending
from seatrial.errors import UnavailableError
from seatrial.wiring import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from seatrial.rollout import Rollout
    from seatrial.wiring import Plant


def kill(
    release: ReleaseArgument,
    *,
    reason: ReasonOption,
    actor: ActorOption,
    wait_s: WaitOption = 10.0,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Take a release out of service at once, wherever it is tried or serves; needs no Prefect."""
    with opened(settings) as plant:
        found = find_release(plant.store, release).release
        now = plant.clock.now()
        rollout = ending.kill(plant.ports, found.id, reason=reason, actor=actor, now=now)
        _see_out(plant, rollout, actor=actor, wait_s=wait_s, as_json=as_json)


def rollback(
    decision_point: Annotated[str, typer.Argument(metavar="DECISION_POINT", help="What callers address.")],
    *,
    reason: ReasonOption,
    actor: ActorOption,
    wait_s: WaitOption = 10.0,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """End the active rollout of a decision point, or without one demote its champion; needs no Prefect."""
    with opened(settings) as plant:
        now = plant.clock.now()
        rollout = ending.roll_back_decision_point(plant.ports, decision_point, reason=reason, actor=actor, now=now)
        _see_out(plant, rollout, actor=actor, wait_s=wait_s, as_json=as_json)


def _see_out(plant: Plant, rollout: Rollout, *, actor: str, wait_s: float, as_json: bool) -> None:
    """Wait until the routers were seen without the challenger; a rollback that was not seen is not reported as done."""
    if not as_json and rollout.state not in OUT:
        say(f"written: rollout {rollout.id} is {rollout.state}; waiting up to {wait_s:g} s for the routers")
    after = follow_out(plant, rollout, actor=actor, patience_s=wait_s)
    try:
        routers, names = routers_of(plant.store, after.decision_point), titles(plant.store)
    except UnavailableError:
        routers, names = None, {}
    is_out = after.state in OUT
    if as_json:
        show_json(views.out_document(after, routers))
    else:
        say(views.out_text(after, routers, names), style="" if is_out else ALARM)
    if not is_out:
        raise typer.Exit(ExitCode.ROLLBACK_INCOMPLETE)
