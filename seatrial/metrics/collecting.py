"""All metrics of all decision points and of the rollouts that somebody may still ask about."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from seatrial.control.watching import is_open
from seatrial.errors import NotFoundError
from seatrial.metrics.counted import of_evidence
from seatrial.metrics.families import Absence
from seatrial.metrics.release import of_point, of_rollout, of_watch
from seatrial.metrics.seen import metric, seen_of
from seatrial.ports import Quantity, Scope
from seatrial.report.wording import is_watched

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from seatrial.metrics.seen import Metric
    from seatrial.ports import NoReading, Ports, Reading, Registered, Store
    from seatrial.rollout import Rollout

#: How long a rollout that has ended is still shown: long enough to be scraped, and read on the Monday after.
RECENT = timedelta(days=7)
#: What `source` says of numbers that come from the monitoring system.
PROMETHEUS = "prometheus"
_QUANTILES = {Quantity.P50_MS: "0.5", Quantity.P99_MS: "0.99"}


def metrics(
    ports: Ports, *, now: datetime, decision_point: str | None = None, rollout_id: str | None = None
) -> list[Metric]:
    """Return every metric, present or absent, of all decision points or one, and of their rollouts or one.

    Reads the store and, where one is configured, the monitoring system; never the logs, so that it is cheap.

    Parameters
    ----------
    now
        Time of ages.
    decision_point
        One decision point; None for all.
    rollout_id
        One rollout, whenever it ended; None for those that are open or ended within `RECENT`.

    Raises
    ------
    NotFoundError
        When nothing has one of these names.
    UnavailableError
        When the store does not answer: then there is no metric at all.
    """
    store = ports.store
    known = store.champions()
    wanted = None if rollout_id is None else store.rollout(rollout_id)
    if decision_point is not None and decision_point not in known:
        raise NotFoundError.of("decision point", decision_point, known)
    points = [decision_point] if decision_point is not None else sorted(known)
    if wanted is not None:
        points = [wanted.decision_point]
    found = [of_watch(store, now=now)]
    for point in points:
        rollouts = store.rollouts(point)
        shown = [rollout for rollout in rollouts if is_shown(rollout, now=now)] if wanted is None else [wanted]
        found += of_point(point, rollouts)
        found += _traffic(store, point, now=now)
        found += _rollouts(store, point, shown, now=now)
        found += _runtime(ports, shown)
    return found


def is_shown(rollout: Rollout, *, now: datetime) -> bool:
    """Return whether `rollout` is open, or ended a short while ago."""
    return is_open(rollout) or now - rollout.entered_at <= RECENT


def _rollouts(store: Store, point: str, rollouts: Sequence[Rollout], *, now: datetime) -> Iterator[Metric]:
    releases: dict[str, Registered] = {}
    if rollouts:
        releases = {each.release.id: each for each in store.releases(point)}
    plans = {plan_id: store.plan(plan_id) for plan_id in {rollout.plan_id for rollout in rollouts}}
    for rollout in rollouts:
        seen = seen_of(store, rollout, plans[rollout.plan_id], releases.get(rollout.challenger), now=now)
        yield from of_rollout(seen)
        yield from of_evidence(seen)


def _traffic(store: Store, point: str, *, now: datetime) -> Iterator[Metric]:
    """Return what routing intends on a decision point, and how many routers are seen to follow."""
    snapshot = store.snapshot(point)
    place = {"decision_point": point, "rollout": snapshot.rollout_id or ""}
    yield metric("share_intended_ratio", snapshot.share, **place)
    lease = snapshot.lease_until
    left = Absence.NOT_DECLARED if lease is None else (lease - now).total_seconds()
    yield metric("lease_remaining_seconds", left, **place)
    reports = store.reports(point)
    if not reports:
        yield metric("routers", Absence.NO_ROUTER, decision_point=point)
        return
    current = sum(report.number >= snapshot.number for report in reports)
    for on, count in (("present", current), ("older", len(reports) - current)):
        yield metric("routers", count, decision_point=point, on=on)


def _runtime(ports: Ports, rollouts: Iterable[Rollout]) -> Iterator[Metric]:
    """Return what the monitoring system has on the arms of the rollouts that are watched."""
    watched = {rollout.id: rollout for rollout in rollouts if is_watched(rollout)}
    if ports.runtime is None:
        for rollout in watched.values():
            place = {"decision_point": rollout.decision_point, "rollout": rollout.id, "source": PROMETHEUS}
            yield metric("latency_seconds", Absence.NOT_DECLARED, **place)
            yield metric("error_ratio", Absence.NOT_DECLARED, **place)
        return
    for reading in ports.runtime.read([_scope(rollout) for rollout in watched.values()]) if watched else ():
        yield _of_reading(watched[reading.rollout_id].decision_point, reading)


def _of_reading(decision_point: str, reading: Reading) -> Metric:
    place = {
        "decision_point": decision_point,
        "rollout": reading.rollout_id,
        "arm": reading.arm.value,
        "source": PROMETHEUS,
    }
    value: float | Absence | NoReading = reading.absent or Absence.NOT_A_NUMBER
    if reading.value is not None:
        value = reading.value
    if reading.quantity is Quantity.ERROR_RATE:
        return metric("error_ratio", value, **place)
    seconds = value if isinstance(value, str) else value / 1000.0
    return metric("latency_seconds", seconds, **place, quantile=_QUANTILES[reading.quantity])


def _scope(rollout: Rollout) -> Scope:
    return Scope(rollout.decision_point, rollout.id, rollout.champion, rollout.challenger, rollout.created_at)
