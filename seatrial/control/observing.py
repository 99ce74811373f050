"""See what the routers really serve."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from seatrial.errors import NotFoundError
from seatrial.ledger import Record
from seatrial.units import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from seatrial.ports import Ports, RouterReport
    from seatrial.routing import Kill, RoutingSnapshot


class Standing(StrEnum):
    """How far a router has come, against the present snapshot."""

    CURRENT = "serves it"
    SAFE = "fallback alone"  #: it holds an older one whose lease is over or was none, and no kill that it cannot know
    BEHIND = "behind"  #: it may serve what the present snapshot forbids


def standing_of(report: RouterReport, present: RoutingSnapshot, *, now: datetime) -> Standing:
    """Return how far the router that wrote `report` has come."""
    if report.number >= present.number:
        return Standing.CURRENT
    return Standing.SAFE if _is_safe(report, present, now=now) else Standing.BEHIND


def is_observed(ports: Ports, decision_point: str, *, now: datetime) -> bool:
    """Return whether every router serves the present snapshot, or can serve nothing that it forbids.

    A router that is silent beyond the lease it held serves that snapshot's fallback; this is safe when the present
    snapshot's fallback is the same release, and no kill was ordered since that it cannot know. No router at all is
    not an observation. Clocks of routers and control plane are taken to agree.
    """
    present = ports.store.snapshot(decision_point)
    return _is_served(present, ports.store.reports(decision_point), now=now)


def is_taken_up(ports: Ports, decision_point: str, champion: str, *, now: datetime) -> bool:
    """Return whether a promotion arrived: some router serves it, and every other one does or serves `champion` alone.

    A router that is gone for good is no reason to wait: by its lease it can serve the champion before only, unless
    a kill was ordered that it cannot know.
    """
    present = ports.store.snapshot(decision_point)
    reports = ports.store.reports(decision_point)
    return any(report.number >= present.number for report in reports) and all(
        _is_safe(report, present, now=now)
        or (_knows_kills(report, present) and _is_alone(report, now=now) and report.fallback == champion)
        for report in reports
    )


def _is_served(present: RoutingSnapshot, reports: Sequence[RouterReport], *, now: datetime) -> bool:
    return bool(reports) and all(_is_safe(report, present, now=now) for report in reports)


def _is_safe(report: RouterReport, present: RoutingSnapshot, *, now: datetime) -> bool:
    if report.number >= present.number:
        return True
    return _knows_kills(report, present) and _is_alone(report, now=now) and report.fallback == present.fallback


def _knows_kills(report: RouterReport, present: RoutingSnapshot) -> bool:
    """Return whether the router has every kill that stands; a drill forbids nothing."""
    return all(report.number >= kill.since for kill in present.kills if not kill.is_drill)


def _is_alone(report: RouterReport, *, now: datetime) -> bool:
    """Return whether the router serves its fallback only, whatever it does not know yet."""
    return report.lease_until is None or report.lease_until <= now


def forget(ports: Ports, decision_point: str, router: str, *, reason: str, actor: str, now: datetime) -> None:
    """Drop a router that is gone for good, by a person's word; raises NotFoundError for an unknown one."""
    reports = {report.router: report for report in ports.store.reports(decision_point)}
    if router not in reports:
        raise NotFoundError.of("router", router, reports)
    key = f"{decision_point}/router/{router}/forgotten/{format_time(now)}"
    body = {"router": router, "number": reports[router].number, "reason": reason}
    ports.store.append([Record(now, "router.forgotten", actor, decision_point, None, key, body)])
    ports.store.forget(decision_point, router)


def observe(ports: Ports, decision_point: str, *, now: datetime) -> None:
    """Record, once for each snapshot, that every live router serves it."""
    present = ports.store.snapshot(decision_point)
    reports = ports.store.reports(decision_point)
    if not _is_served(present, reports, now=now):
        return
    record = Record(
        now,
        "share.observed",
        "routers",
        decision_point,
        present.rollout_id,
        f"{decision_point}/{present.number}/observed",
        {
            "number": present.number,
            "routers": sorted(report.router for report in reports),
        },
    )
    ports.store.append([record, *_effects(present, reports)])


def _effects(present: RoutingSnapshot, reports: Sequence[RouterReport]) -> list[Record]:
    """Return, for each kill in force, the record of when it was in force on every router; each is written once."""
    return [
        Record(
            kill.at + timedelta(seconds=max(reached.values())),
            "kill.observed",
            "routers",
            present.decision_point,
            present.rollout_id,
            f"{present.decision_point}/kill/{kill.id}/observed",
            {"kill": kill.id, "seconds": {router: f"{seconds:.3f}" for router, seconds in sorted(reached.items())}},
        )
        for kill in present.kills
        if not kill.is_drill
        if (reached := seconds_to(kill, reports))
    ]


def seconds_to(kill: Kill, reports: Sequence[RouterReport]) -> dict[str, float]:
    """Return by router how many seconds after the order it took `kill`; routers that did not are absent."""
    return {
        report.router: max(0.0, (report.taken_at - kill.at).total_seconds())
        for report in reports
        if report.number >= kill.since and report.taken_at is not None
    }
