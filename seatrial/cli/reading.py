"""Say who serves, what is being tried, and why: commands that write nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from seatrial.cli import views
from seatrial.cli.lookup import find_rollouts, titles
from seatrial.cli.options import JsonOption, RolloutArgument, SettingsOption, opened
from seatrial.cli.terminal import ALARM, say, show_json, show_table
from seatrial.control.replaying import read_chain
from seatrial.report import explain as explanation
from seatrial.report import waiver_lines
from seatrial.units import format_time
from seatrial.waiver import waived_of
from seatrial.wiring import DEFAULT_SETTINGS


def status(
    target: Annotated[
        str | None, typer.Argument(metavar="DECISION_POINT|ROLLOUT", help="All of one; else what is open.")
    ] = None,
    *,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Show who serves, what is being tried, and what the routers were seen on."""
    with opened(settings) as plant:
        store, now = plant.store, plant.clock.now()
        rollouts = views.noteworthy(store) if target is None else find_rollouts(store, target)
        champions = store.champions()
        named = champions if target is None else [target] if target in champions else [rollouts[0].decision_point]
        points = views.point_documents(store, sorted(named))
        rows = views.rows_of(store, rollouts, now=now)
        last_round = views.last_round(store)
        waived = views.waivers_of(store, rollouts)
    if as_json:
        watched = None if last_round is None else format_time(last_round)
        show_json(
            {
                "watch": {"last_round_at": watched},
                "decision_points": points,
                "rollouts": [
                    views.status_document(row)
                    | {"waivers": [views.waiver_document(each) for each in waived.get(row.rollout_id, ())]}
                    for row in rows
                ],
            }
        )
        return
    if not points:
        say("no decision point yet; register the release that serves it now, with rollback_target: none")
        return
    show_table(views.POINTS_HEADER, [views.point_cells(point) for point in points])
    if target is not None and points[0]["routers"]:
        say("")
        show_table(views.ROUTERS_HEADER, [views.router_cells(router) for router in points[0]["routers"]])
    for point in points:
        for kill in point["kills"]:
            say(f"{point['name']}: {views.kill_line(kill)}", style="" if kill["is_drill"] else ALARM)
        for each in point["waivers"]:
            waiver = f"gate {each['gate']} waived by {each['by']}: {each['reason']}"
            say(f"{point['champion']} came into service with {waiver}")
    say("")
    if rows:
        show_table(views.STATUS_HEADER, [views.status_cells(row) for row in rows])
    else:
        say("no rollout yet")
    for rollout_id, given in waived.items():
        for line in waiver_lines(given, now=now):
            say(f"rollout {rollout_id}: {line}")
    say(f"\n{views.watch_line(last_round, now=now)}")


def history(
    rollout: Annotated[str | None, typer.Argument(metavar="ROLLOUT", help="Of one rollout; else of all.")] = None,
    *,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Show the ledger after its whole chain is verified: everything decided and done, by whom and why."""
    with opened(settings) as plant:
        entries = read_chain(plant.store)
        wanted = None if rollout is None else plant.store.rollout(rollout).id
    shown = [entry for entry in entries if wanted in (None, entry.record.rollout_id)]
    head = entries[-1].hash if entries else None
    if as_json:
        chain = {"entries": len(entries), "head": head}
        show_json({"entries": [views.history_document(entry) for entry in shown], "chain": chain})
        return
    if shown:
        show_table(views.HISTORY_HEADER, [views.history_cells(entry) for entry in shown])
        say("")
    say(f"chain verified: {len(entries)} entries, every link fits; head {head or 'none'}")


def explain(
    rollout: RolloutArgument, *, settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False
) -> None:
    """Say why a rollout stopped or where it stands: verdict, numbers, who decided, who serves, what to do next."""
    with opened(settings) as plant:
        store = plant.store
        found = store.rollout(rollout)
        looks = store.looks(found.id)
        waived = waived_of(store.entries(found.id))
        text = explanation(found, store.plan(found.plan_id), looks, store.entries(found.id), titles(store))
    if as_json:
        findings = [finding.document() for finding in looks[-1].findings] if looks else []
        shown = list(map(views.waiver_document, waived))
        show_json({"rollout": found.document(), "explanation": text, "last_findings": findings, "waivers": shown})
    else:
        say(text)
