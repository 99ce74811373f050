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
    SettingsOption,
    WaitOption,
    opened,
)
from seatrial.cli.ordering import see_effect, show_effect
from seatrial.cli.terminal import ALARM, say, show_json
from seatrial.control import ending
from seatrial.control.killing import KillWish, order_kill
from seatrial.errors import UnavailableError
from seatrial.routing import KillMode, KillScope
from seatrial.wiring import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from seatrial.rollout import Rollout
    from seatrial.wiring import Plant


def kill(
    release: Annotated[
        str | None, typer.Argument(metavar="[RELEASE]", help='Id, its first characters, name, or "name version".')
    ] = None,
    *,
    reason: ReasonOption,
    actor: ActorOption,
    decision_point: Annotated[
        str | None,
        typer.Option("--decision-point", metavar="NAME", help="A whole decision point, or a part of it."),
    ] = None,
    segment: Annotated[str | None, typer.Option("--segment", help="Only this segment of --decision-point.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this action of --decision-point.")] = None,
    mode: Annotated[
        KillMode | None, typer.Option("--mode", help="What happens instead; a release without it is rolled back.")
    ] = None,
    wait_s: WaitOption = 10.0,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Take a release, a decision point, a segment or an action out of service at once; needs no Prefect."""
    if (release is None) == (decision_point is None) or (segment and action) or (release and (segment or action)):
        raise typer.BadParameter("name a RELEASE, or --decision-point with at most one of --segment and --action")
    with opened(settings) as plant:
        now = plant.clock.now()
        if release is None or mode is not None:
            point, wish = _wish(plant, release, decision_point, segment, action, mode, reason, actor)
            order = order_kill(plant.ports, point, wish, now=now)
            show_effect(order, see_effect(plant, point, order, wait_s=wait_s), what="obeys", as_json=as_json)
            return
        found = find_release(plant.store, release).release
        rollout = ending.kill(plant.ports, found.id, reason=reason, actor=actor, now=now)
        _see_out(plant, rollout, actor=actor, wait_s=wait_s, as_json=as_json)


def _wish(
    plant: Plant,
    release: str | None,
    decision_point: str | None,
    segment: str | None,
    action: str | None,
    mode: KillMode | None,
    reason: str,
    actor: str,
) -> tuple[str, KillWish]:
    """Return where and what the words of the command line ask to be killed; without a mode, the safe fallback holds."""
    mode = mode or KillMode.SAFE_FALLBACK
    if release is not None:
        found = find_release(plant.store, release).release
        return found.decision_point, KillWish(KillScope.RELEASE, mode, reason, actor, found.id)
    scope = KillScope.SEGMENT if segment else KillScope.ACTION if action else KillScope.DECISION_POINT
    return decision_point or "", KillWish(scope, mode, reason, actor, segment or action)


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
