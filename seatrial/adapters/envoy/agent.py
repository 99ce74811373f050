"""The agent beside Envoy: read what Envoy serves, plan, apply, verify, report.

The files are the durable truth: Envoy starts from them, and the agent too. A configuration that Envoy refuses is taken
back out of the files, so that they hold what Envoy took.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from seatrial.adapters.envoy.bootstrap import CLUSTERS_FILE, ROUTES_FILE
from seatrial.adapters.envoy.clusters import cluster_of, shadow_of
from seatrial.adapters.envoy.rendering import render
from seatrial.adapters.file_feed import write_whole
from seatrial.errors import InvalidDocumentError, UnavailableError
from seatrial.gates.load import ShadowLoad
from seatrial.ports import RouterReport
from seatrial.routing import KillScope
from seatrial.units import SLOTS, canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from seatrial.adapters.envoy.admin import Actual, Admin, Taken
    from seatrial.adapters.envoy.rendering import Rendered
    from seatrial.adapters.envoy.settings import EnvoySettings
    from seatrial.adapters.router import InProcessRouter
    from seatrial.ports import SnapshotFeed
    from seatrial.routing import RoutingSnapshot

#: Seconds between two looks at whether Envoy took a file.
_PAUSE_S = 0.005


@dataclass(slots=True)
class _Served:
    """What Envoy was seen to serve."""

    snapshot: RoutingSnapshot
    taken_at: datetime
    before: Mapping[str, int]  #: Envoy's counters when it was first seen
    shed_before: Mapping[str, int]
    last: tuple[datetime, int] | None = None  #: when copies were last counted, and how many


@dataclass(slots=True)
class EnvoyAgent:
    """Keeps one Envoy at what is published; one round at a time.

    `holder` takes snapshots as every router does, and refuses what is unsound. Nothing is kept that a restart needs:
    the feed keeps the last snapshot, Envoy says what it serves.
    """

    settings: EnvoySettings
    folder: Path
    admin: Admin
    holder: InProcessRouter
    feed: SnapshotFeed
    patience_s: float = 10.0  #: how long Envoy may take to read a file
    _served: _Served | None = None
    _refused: Counter[str] = field(default_factory=Counter)
    _bad: str | None = None  #: version that Envoy refused already
    _unfit: set[tuple[int, str]] = field(default_factory=set)  #: snapshots that it cannot express, and why

    def round(self, *, now: datetime, elapsed: Callable[[], float] = monotonic) -> bool:
        """Bring Envoy to the published snapshot and report what it serves; return whether it serves that one.

        Without a control plane the last snapshot stays, and ends with its lease. A snapshot that Envoy cannot express
        is served without its comparison: the fallback alone, so that a rollback always arrives.
        """
        self.holder.take(now=now)
        snapshot = self.holder.snapshot
        try:
            desired = self._desired(snapshot, now)
            is_whole = desired is not None
            desired = desired or self._desired(_alone(snapshot), now)
            is_there = desired is not None and self._bring(desired, elapsed)
        except UnavailableError:
            return False
        with suppress(UnavailableError):
            if is_there and is_whole:
                self._see(self.admin.read(), now)
            elif is_there:
                self._report_alone(snapshot, now)
                return False
            self._report(now)
        return is_there

    def _desired(self, snapshot: RoutingSnapshot, now: datetime) -> Rendered | None:
        try:
            return render(snapshot, self.settings, now=now)
        except InvalidDocumentError as error:
            reason = f"not for Envoy: {error.problems[0].finding}"
            if (snapshot.number, reason) not in self._unfit:
                self._unfit.add((snapshot.number, reason))
                self._refused[reason] += 1
            return None

    def _bring(self, desired: Rendered, elapsed: Callable[[], float]) -> bool:
        """Return whether Envoy serves `desired`, after it was applied where it did not."""
        if desired.version == self._bad:
            return False
        try:
            actual = self.admin.read()
        except UnavailableError:
            # Envoy starts from the files: they are there before it is.
            self._put(CLUSTERS_FILE, _resources(desired.version, desired.clusters))
            self._put(ROUTES_FILE, _resources(desired.version, [desired.routes]))
            raise
        if actual.routes.version != desired.version and not self._apply(desired, actual, elapsed):
            self._bad = desired.version
            self._refused["refused by Envoy"] += 1
            return False
        return True

    def _apply(self, desired: Rendered, actual: Actual, elapsed: Callable[[], float]) -> bool:
        """Return whether Envoy took the clusters, then the routes to them; what it refuses is taken back."""
        # Clusters of the routes served until now stay until nothing leads to them.
        new = {each["name"] for each in desired.clusters}
        stay = [each for each in _read(self.folder / CLUSTERS_FILE) if each["name"] not in new]
        both = f"{desired.version}+{len(stay)}" if stay else desired.version
        steps = [(CLUSTERS_FILE, _resources(both, desired.clusters + stay))]
        steps.append((ROUTES_FILE, _resources(desired.version, [desired.routes])))
        if stay:
            steps.append((CLUSTERS_FILE, _resources(desired.version, desired.clusters)))
        return all(self._step(name, content, actual, elapsed) for name, content in steps)

    def _step(self, name: str, content: dict[str, Any], before: Actual, elapsed: Callable[[], float]) -> bool:
        path = self.folder / name
        old = path.read_bytes() if path.exists() else None
        self._put(name, content)
        refused = _of(before, name).refused
        ends_at = elapsed() + self.patience_s
        while elapsed() < ends_at:
            seen = _of(self.admin.read(), name)
            if seen.version == content["version_info"]:
                return True
            if seen.refused > refused:
                if old is not None:
                    write_whole(path, old)
                return False
            sleep(_PAUSE_S)
        raise UnavailableError(f"Envoy: did not read {path} within {self.patience_s:g} s; look at its log")

    def _put(self, name: str, content: dict[str, Any]) -> None:
        write_whole(self.folder / name, canonical(content))

    def _see(self, actual: Actual, now: datetime) -> None:
        snapshot, seen = self.holder.snapshot, self._served
        is_restarted = seen is not None and any(actual.totals.get(k, 0) < v for k, v in seen.before.items())
        if seen is None or seen.snapshot.number != snapshot.number:
            self._served = _Served(snapshot, now, actual.totals, actual.shed)
        else:
            seen.snapshot = snapshot
            if is_restarted:
                seen.before, seen.shed_before = {}, {}

    def _report(self, now: datetime) -> None:
        """Report what Envoy was last seen to serve; nothing when that is not known any more."""
        seen = self._served
        if seen is None:
            return
        actual = self.admin.read()
        if not actual.routes.version.startswith(f"{seen.snapshot.number}/"):
            return
        held = seen.snapshot
        served = {
            release_id: count
            for release_id in sorted(held.releases())
            if (count := _since(actual.totals, seen.before, cluster_of(release_id)))
        }
        self.feed.report(
            RouterReport(
                self.settings.router,
                self.settings.decision_point,
                held.number,
                now,
                held.fallback,
                held.lease_until,
                self._load(actual, seen, now),
                served,
                {**self.holder.refused, **self._refused},
                seen.taken_at,
            )
        )

    def _report_alone(self, snapshot: RoutingSnapshot, now: datetime) -> None:
        """Report that the fallback alone is served; the snapshot is not claimed, for it is not obeyed whole."""
        number = 0 if self._served is None else self._served.snapshot.number
        refused = {**self.holder.refused, **self._refused}
        settings = self.settings
        self.feed.report(
            RouterReport(
                settings.router, settings.decision_point, number, now, snapshot.fallback, None, refused=refused
            )
        )

    def _load(self, actual: Actual, seen: _Served, now: datetime) -> ShadowLoad | None:
        held = seen.snapshot
        if not held.shadow or held.challenger is None:
            return None
        cluster = shadow_of(held.challenger)
        sent = _since(actual.totals, seen.before, cluster)
        shed = _since(actual.shed, seen.shed_before, cluster)
        passed = 0.0 if seen.last is None else (now - seen.last[0]).total_seconds()
        per_s = max(0, sent - seen.last[1]) / passed if seen.last is not None and passed > 0 else 0.0
        seen.last = (now, sent)
        sampling = SLOTS if held.budget is None else held.budget.sampling
        return ShadowLoad(self.settings.router, sampling, sent, shed, per_s)


def _alone(snapshot: RoutingSnapshot) -> RoutingSnapshot:
    """Return `snapshot` as Envoy can always be given it: the fallback, and the kills that need no action."""
    kills = tuple(kill for kill in snapshot.kills if kill.scope is not KillScope.ACTION)
    return replace(
        snapshot, challenger=None, slots=0, lease_until=None, shadow=False, budget=None, pins=(), kills=kills
    )


def _since(counts: Mapping[str, int], before: Mapping[str, int], cluster: str) -> int:
    return counts.get(cluster, 0) - before.get(cluster, 0)


def _of(actual: Actual, name: str) -> Taken:
    return actual.routes if name == ROUTES_FILE else actual.clusters


def _resources(version: str, resources: list[dict[str, Any]]) -> dict[str, Any]:
    return {"version_info": version, "resources": resources}


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the resources in the file; none when there is no sound one."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return list(json.loads(path.read_bytes())["resources"])
    return []
