"""What is stored, as rows for a terminal and as JSON with stable keys."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from seatrial.cli.following import OUT, Routers, routers_of
from seatrial.cli.lookup import titles
from seatrial.control.watching import SWEEP, is_open
from seatrial.report import history_rows, status_rows
from seatrial.report.wording import percent
from seatrial.rollout import State
from seatrial.units import format_duration, format_time, short
from seatrial.waiver import waived_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from seatrial.ledger import Entry
    from seatrial.ports import RouterReport, Store
    from seatrial.report import HistoryRow, StatusRow
    from seatrial.rollout import Rollout
    from seatrial.waiver import Waived

STATUS_HEADER = ("rollout", "decision point", "challenger", "state", "stage", "share", "in state", "deadline", "reason")
POINTS_HEADER = ("decision point", "champion", "release", "snapshot", "routers on it")
ROUTERS_HEADER = ("router", "snapshot", "falls back to", "reported", "lease until")
HISTORY_HEADER = ("entry", "at", "who", "event", "rollout", "what", "reason")


def noteworthy(store: Store) -> list[Rollout]:
    """Return every open rollout, and the newest of each decision point although it has ended."""
    known = store.rollouts()
    newest = {rollout.decision_point: rollout.id for rollout in known}.values()
    return [rollout for rollout in known if is_open(rollout) or rollout.id in newest]


def rows_of(store: Store, rollouts: Sequence[Rollout], *, now: datetime) -> list[StatusRow]:
    """Return the status of `rollouts` at `now`."""
    plans = {plan_id: store.plan(plan_id) for plan_id in {rollout.plan_id for rollout in rollouts}}
    snapshots = {name: store.snapshot(name) for name in {rollout.decision_point for rollout in rollouts}}
    return status_rows(rollouts, plans, titles(store), snapshots, now=now)


def status_cells(row: StatusRow) -> tuple[str, ...]:
    """Return `row` as the cells under `STATUS_HEADER`."""
    return (
        row.rollout_id,
        row.decision_point,
        row.challenger,
        row.state,
        row.stage,
        percent(row.share),
        format_duration(row.in_stage),
        _minute(row.deadline),
        row.reason,
    )


def waivers_of(store: Store, rollouts: Sequence[Rollout]) -> dict[str, list[Waived]]:
    """Return the waivers of each of `rollouts` that has any."""
    return {rollout.id: waived for rollout in rollouts if (waived := waived_of(store.entries(rollout.id)))}


def champion_waivers(store: Store, name: str, champion: str) -> list[Waived]:
    """Return the waivers under which the champion of `name` came into service."""
    return [
        waived
        for rollout in store.rollouts(name)
        if rollout.challenger == champion
        for waived in waived_of(store.entries(rollout.id))
    ]


def waiver_document(waived: Waived) -> dict[str, Any]:
    """Return `waived` as JSON."""
    return {
        "gate": waived.gate,
        "by": waived.by,
        "reason": waived.reason,
        "at": format_time(waived.at),
        "expires": format_time(waived.expires),
    }


def status_document(row: StatusRow) -> dict[str, Any]:
    """Return `row` as JSON."""
    return {
        "rollout_id": row.rollout_id,
        "decision_point": row.decision_point,
        "challenger": row.challenger,
        "champion": row.champion,
        "state": row.state,
        "stage": row.stage,
        "share": row.share,
        "lease_until": _time(row.lease_until),
        "in_stage_s": row.in_stage.total_seconds(),
        "deadline": _time(row.deadline),
        "reason": row.reason,
    }


def point_documents(store: Store, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return for each decision point in `names` who serves it and what its routers were seen on."""
    champions, known = store.champions(), titles(store)
    return [
        _point(name, champions[name], known, routers_of(store, name))
        | {"waivers": list(map(waiver_document, champion_waivers(store, name, champions[name])))}
        | {"kills": [kill.document() for kill in store.snapshot(name).kills]}
        for name in names
    ]


def _point(name: str, champion: str, known: Mapping[str, str], routers: Routers) -> dict[str, Any]:
    return {
        "name": name,
        "champion": known.get(champion, short(champion)),
        "champion_id": champion,
        "snapshot": routers.number,
        "routers": [_router(report, known, routers.number) for report in (*routers.current, *routers.behind)],
    }


def _router(report: RouterReport, known: Mapping[str, str], number: int) -> dict[str, Any]:
    return {
        "router": report.router,
        "snapshot": report.number,
        "is_current": report.number >= number,
        "fallback": known.get(report.fallback, short(report.fallback)),
        "fallback_id": report.fallback,
        "reported_at": format_time(report.at),
        "lease_until": _time(report.lease_until),
    }


def point_cells(point: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `point` as the cells under `POINTS_HEADER`."""
    current = sum(router["is_current"] for router in point["routers"])
    seen = f"{current} of {len(point['routers'])}" if point["routers"] else "none has reported"
    return (point["name"], point["champion"], short(point["champion_id"]), str(point["snapshot"]), seen)


def router_cells(router: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `router` as the cells under `ROUTERS_HEADER`."""
    behind = "" if router["is_current"] else " (behind)"
    lease = router["lease_until"] or ""
    return (router["router"], f"{router['snapshot']}{behind}", router["fallback"], router["reported_at"], lease)


def kill_line(kill: Mapping[str, Any]) -> str:
    """Return an order that stands in one line; `kill` is its document."""
    kind, name = "drill" if kill["is_drill"] else "KILLED", kill["name"] or ""
    what = f"{kill['scope']} {short(name) if name.startswith('sha256:') else name}".rstrip()
    instead = f"release {short(kill['to'])}" if kill["to"] else kill["mode"]
    return f"{kind} {what}, instead {instead}, order {kill['id']} by {kill['by']} at {kill['at']}: {kill['reason']}"


def watch_line(last_round: datetime | None, *, now: datetime) -> str:
    """Return when the watch last finished a round, in one line."""
    if last_round is None:
        return "watch: no round finished yet; until one is, nothing is judged and leases run out"
    return f"watch: last round {_minute(last_round)}, {format_duration(max(now - last_round, timedelta(0)))} ago"


def last_round(store: Store) -> datetime | None:
    """Return when the watch last finished a round; None when it never did."""
    return store.last_beat(SWEEP)


def history_cells(entry: Entry) -> tuple[str, ...]:
    """Return `entry` as the cells under `HISTORY_HEADER`."""
    row = _row(entry)
    at = f"{row.at:%Y-%m-%d %H:%M:%S}"
    return (str(row.number), at, row.who, row.kind, row.rollout_id or "", row.what, row.reason)


def history_document(entry: Entry) -> dict[str, Any]:
    """Return `entry` as JSON: the row, and the record that its hash covers."""
    row = _row(entry)
    return {
        "number": row.number,
        "at": format_time(row.at),
        "who": row.who,
        "kind": row.kind,
        "what": row.what,
        "reason": row.reason,
        "rollout_id": row.rollout_id,
        "record": entry.record.document(),
        "previous": entry.previous,
        "hash": entry.hash,
    }


def _row(entry: Entry) -> HistoryRow:
    (row,) = history_rows([entry])
    return row


def out_document(rollout: Rollout, routers: Routers | None) -> dict[str, Any]:
    """Return as JSON what became of taking `rollout` out; without `routers` the store could not say."""
    return {
        "rollout_id": rollout.id,
        "decision_point": rollout.decision_point,
        "release_id": rollout.challenger,
        "returns_to": rollout.champion,
        "state": rollout.state.value,
        "is_out": rollout.state in OUT,
        "reason": rollout.reason,
        "snapshot": None if routers is None else routers.number,
        "seen_on": [] if routers is None else [report.router for report in routers.current],
        "not_seen_on": [] if routers is None else [report.router for report in routers.behind],
    }


def out_text(rollout: Rollout, routers: Routers | None, names: Mapping[str, str]) -> str:
    """Return in one line what became of taking `rollout` out, and what is left to do."""
    champion = names.get(rollout.champion, short(rollout.champion))
    back = f"{champion} serves {rollout.decision_point}"
    if rollout.state is State.REJECTED:
        return f"rejected before it saw any traffic; {back}; rollout {rollout.id}"
    if routers is not None and rollout.state in OUT:
        return f"rolled back, seen on {_count(routers.current)}{_silent(routers)}; {back}; rollout {rollout.id}"
    return f"ROLLBACK INCOMPLETE: rollout {rollout.id}: {_missing(rollout, routers)}; then run this command again"


def _count(reports: Sequence[RouterReport]) -> str:
    noun = "router" if len(reports) == 1 else "routers"
    names = ", ".join(report.router for report in reports)
    return f"{len(reports)} {noun}: {names}" if reports else f"0 {noun}"


def _silent(routers: Routers) -> str:
    if not routers.behind:
        return ""
    return f" (silent, and back on the champion because the lease is over: {_count(routers.behind)})"


def _missing(rollout: Rollout, routers: Routers | None) -> str:
    if routers is None:
        return "it is written, but the store stopped answering before a router was seen; start the database"
    if not routers.current and not routers.behind:
        return f"no router of {rollout.decision_point!r} has ever reported; find out who serves and make it report"
    if not routers.behind:
        return f"seen on {_count(routers.current)}, but not recorded yet"
    behind = ", ".join(f"{each.router} (snapshot {each.number}{_lease(each)})" for each in routers.behind)
    return f"not seen on snapshot {routers.number}: {behind}; restart these routers or cut them off"


def _lease(report: RouterReport) -> str:
    return "" if report.lease_until is None else f", lease until {_minute(report.lease_until)}"


def _minute(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)
