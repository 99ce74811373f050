"""Orders that every router obeys: kills beyond one release, pins, drills; and the routers that obey them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatrial.cli import views
from seatrial.cli.exits import ExitCode
from seatrial.cli.options import ActorOption, JsonOption, ReasonOption, SettingsOption, WaitOption, opened
from seatrial.cli.terminal import ALARM, say, show_json, show_table
from seatrial.control import drilling, killing, observing, pinning
from seatrial.errors import InvalidDocumentError, NotFoundError, Problem
from seatrial.routing import Pin
from seatrial.units import format_duration, parse_duration, require_aware, short
from seatrial.wiring import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.ports import RouterReport
    from seatrial.routing import Kill, RoutingSnapshot
    from seatrial.wiring import Plant

PointArgument = Annotated[str, typer.Argument(metavar="DECISION_POINT", help="What callers address.")]
#: Seconds between two looks at what routers took.
_PAUSE_S = 0.05


def see_effect(plant: Plant, decision_point: str, kill: Kill, *, wait_s: float) -> drilling.Drill:
    """Return which routers took `kill`, as soon as all did or after `wait_s` seconds."""
    ends_at = monotonic() + wait_s
    while True:
        seen = drilling.seen(plant.ports, decision_point, kill)
        if seen.is_complete or monotonic() >= ends_at:
            observing.observe(plant.ports, decision_point, now=plant.clock.now())
            return seen
        sleep(_PAUSE_S)


def show_effect(kill: Kill, seen: drilling.Drill, *, what: str, as_json: bool) -> None:
    """Say whether every router took an order; one that was not seen everywhere is not reported as done."""
    if as_json:
        document = {"kill": kill.document(), "is_complete": seen.is_complete, "missing": list(seen.missing)}
        show_json({**document, "seconds": {name: round(value, 3) for name, value in seen.seconds.items()}})
    else:
        for router, seconds in sorted(seen.seconds.items()):
            say(f"{router}: {what} after {seconds:.3f} s")
        for router in seen.missing:
            say(f"{router}: not seen with it", style=ALARM)
        if not seen.seconds and not seen.missing:
            say("no router has reported yet: nobody was seen to obey", style=ALARM)
    if not seen.is_complete:
        raise typer.Exit(ExitCode.ROLLBACK_INCOMPLETE)


def lift(
    decision_point: PointArgument,
    order: Annotated[str, typer.Argument(metavar="ORDER", help="Id of the kill, or its first characters.")],
    *,
    reason: ReasonOption,
    actor: ActorOption,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Take a kill back; what it ended stays ended."""
    with opened(settings) as plant:
        now = plant.clock.now()
        kill = killing.lift(plant.ports, decision_point, order, reason=reason, actor=actor, now=now)
    if as_json:
        show_json({"lifted": kill.document()})
    else:
        say(f"lifted {kill.id}: {kill.scope} {kill.name or decision_point}")


def drill(
    decision_point: PointArgument,
    *,
    reason: ReasonOption,
    actor: ActorOption,
    wait_s: WaitOption = 30.0,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Send a kill that changes no answer to every router, and record how long each took."""
    with opened(settings) as plant:
        now = plant.clock.now()
        kill = drilling.begin_drill(plant.ports, decision_point, reason=reason, actor=actor, now=now)
        seen = see_effect(plant, decision_point, kill, wait_s=wait_s)
        drilling.end_drill(plant.ports, decision_point, seen, actor=actor, now=plant.clock.now())
    show_effect(kill, seen, what="would have obeyed", as_json=as_json)


def pin(
    decision_point: PointArgument,
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="Id of a release that serves or was champion.")],
    *,
    expires: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long it holds, such as 7 d.")],
    reason: ReasonOption,
    actor: ActorOption,
    unit: Annotated[str | None, typer.Option("--unit", metavar="KEY", help="One unit.")] = None,
    when: Annotated[
        list[str] | None, typer.Option("--when", metavar="COLUMN=VALUE", help="Units with this value; repeatable.")
    ] = None,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Let one release answer a unit, or the units of a rule, whatever the shares say."""
    lasts, rule = _duration(expires), _rule(when or [])
    with opened(settings) as plant:
        now = plant.clock.now()
        wish = _pin(release, actor, reason, now + lasts, unit, rule)
        made = pinning.set_pin(plant.ports, decision_point, wish, now=now)
    if as_json:
        show_json({"pin": made.document()})
    else:
        say(f"pinned {unit or _words(rule)} to {short(made.release_id)} for {format_duration(lasts)}")


def unpin(
    decision_point: PointArgument,
    *,
    reason: ReasonOption,
    actor: ActorOption,
    unit: Annotated[str | None, typer.Option("--unit", metavar="KEY", help="The pinned unit.")] = None,
    when: Annotated[
        list[str] | None, typer.Option("--when", metavar="COLUMN=VALUE", help="The rule of the pin; repeatable.")
    ] = None,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Take a pin back before it expires."""
    rule = _rule(when or [])
    with opened(settings) as plant:
        pins = plant.store.snapshot(decision_point).pins
        found = [each for each in pins if each.unit_key == unit and dict(each.when) == rule]
        if not found:
            known = [each.unit_key or _words(each.when) for each in pins]
            raise NotFoundError.of("pin", unit or _words(rule), known)
        now = plant.clock.now()
        pinning.lift_pin(plant.ports, decision_point, found[0], reason=reason, actor=actor, now=now)
    if as_json:
        show_json({"lifted": found[0].document()})
    else:
        say(f"lifted the pin of {unit or _words(rule)}")


def routers(
    decision_point: PointArgument,
    *,
    forget: Annotated[
        str | None, typer.Option("--forget", metavar="ROUTER", help="Take a router off the list that is gone for good.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, with --forget.")] = None,
    actor: ActorOption,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Show what each router serves against the plan: snapshot, counts, silence, lease, refusals, orders."""
    if forget is not None and not reason:
        raise typer.BadParameter("--forget needs --reason: it is kept in the ledger")
    with opened(settings) as plant:
        now = plant.clock.now()
        if forget is not None and reason:
            observing.forget(plant.ports, decision_point, forget, reason=reason, actor=actor, now=now)
        snapshot = plant.store.snapshot(decision_point)
        reports = plant.store.reports(decision_point)
    rows = [_seen(report, snapshot, now=now) for report in reports]
    if as_json:
        orders = {"kills": [kill.document() for kill in snapshot.kills], "pins": len(snapshot.pins)}
        show_json({"number": snapshot.number, "planned_share": snapshot.share, **orders, "routers": rows})
        return
    say(f"snapshot {snapshot.number}, challenger's share {snapshot.share:.2%}, {len(snapshot.pins)} pins")
    for kill in snapshot.kills:
        say(views.kill_line(kill.document()), style="" if kill.is_drill else ALARM)
    if rows:
        show_table(tuple(rows[0]), [[str(value) for value in row.values()] for row in rows])
    else:
        say("no router has reported yet", style=ALARM)


def _seen(report: RouterReport, snapshot: RoutingSnapshot, *, now: datetime) -> dict[str, Any]:
    units = sum(report.served.values())
    challenger = report.served.get(snapshot.challenger or "", 0)
    left = None if report.lease_until is None else report.lease_until - now
    return {
        "router": report.router,
        "snapshot": report.number,
        "standing": observing.standing_of(report, snapshot, now=now).value,
        "units": units,
        "share": f"{challenger / units:.2%}" if units and report.number == snapshot.number else "",
        "silent for": format_duration(now - report.at),
        "lease": "none" if left is None else f"{format_duration(left)} left" if left > timedelta(0) else "over",
        "refused": ", ".join(f"{count} {reason}" for reason, count in sorted(report.refused.items())),
    }


def _pin(
    release: str, by: str, reason: str, expires_at: datetime, unit: str | None, when: Mapping[str, tuple[str, ...]]
) -> Pin:
    try:
        return Pin(release, by, reason, require_aware(expires_at), unit, when)
    except ValueError as error:
        raise typer.BadParameter("found both or neither, expected --unit or --when") from error


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"--for: {error}") from error


def _rule(words: list[str]) -> dict[str, tuple[str, ...]]:
    rule: dict[str, tuple[str, ...]] = {}
    problems = []
    for word in words:
        column, mark, value = word.partition("=")
        if not mark or not column or not value:
            problems.append(Problem("--when", f"found {word!r}, expected COLUMN=VALUE", "write it like carrier=OO"))
        rule[column] = (*rule.get(column, ()), value)
    if problems:
        raise InvalidDocumentError(problems)
    return rule


def _words(rule: Mapping[str, tuple[str, ...]]) -> str:
    return json.dumps({column: list(values) for column, values in rule.items()})
