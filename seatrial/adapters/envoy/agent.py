"""The agent beside one Envoy: gives it what is published, looks whether it took it, and reports what it serves."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import requests

from seatrial.adapters.envoy.rendering import cluster_of, clusters, routes, version_of
from seatrial.adapters.file_feed import write_whole
from seatrial.errors import RefusedError, UnavailableError
from seatrial.ports import RouterReport
from seatrial.units import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from seatrial.adapters.envoy.bootstrap import Place
    from seatrial.adapters.router import InProcessRouter
    from seatrial.ports import SnapshotFeed
    from seatrial.routing import RoutingSnapshot

#: Seconds within which Envoy says whether it took a file.
TAKEN_S = 10.0
_LOOK_S = 0.005
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Actual:
    """What Envoy says of itself."""

    routes: str  #: version of the routes in force; empty before the first
    clusters: str
    refused: int  #: files that it did not take, since it started
    served: Mapping[str, int]  #: requests sent, by cluster


@dataclass(slots=True)
class EnvoyAgent:
    """Makes one Envoy serve what `router` holds.

    The router takes snapshots from the feed with all its checks; the agent writes them as files, which outlive both.
    """

    place: Place
    router: InProcessRouter
    feed: SnapshotFeed
    addresses: Mapping[str, tuple[str, int]]
    _session: requests.Session = field(default_factory=requests.Session)
    _taken: tuple[int, datetime] | None = None
    _before: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._session.trust_env = False

    def tend(self, *, now: datetime) -> bool:
        """Take what is published, make Envoy serve it, report; return whether Envoy serves the snapshot held.

        A snapshot that Envoy refuses, or cannot be given, leaves the last one in force, and the report says so.
        """
        self.router.take(now=now)
        snapshot = self.router.snapshot
        with suppress(RefusedError):
            self.apply(snapshot, now=now)
        actual = self.actual()
        is_served = actual.routes == version_of(snapshot)
        if is_served and (self._taken is None or self._taken[0] != snapshot.number):
            self._taken, self._before = (snapshot.number, now), actual.served
        with suppress(UnavailableError):
            self._report(snapshot, actual, now=now)
        return is_served

    def actual(self) -> Actual:
        """Return what Envoy says; raises UnavailableError when it does not answer."""
        found = self._stats()
        refused = ("update_rejected", "update_failure")
        kinds = ("http.ingress.rds.routes", "cluster_manager.cds")
        return Actual(
            str(found.get("http.ingress.rds.routes.version_text", "")),
            str(found.get("cluster_manager.cds.version_text", "")),
            sum(int(found.get(f"{kind}.{name}", 0)) for kind in kinds for name in refused),
            {
                name.split(".")[1]: int(value)
                for name, value in found.items()
                if name.startswith("cluster.release-") and name.endswith(".upstream_rq_total")
            },
        )

    def apply(self, snapshot: RoutingSnapshot, *, now: datetime) -> None:
        """Make Envoy serve `snapshot`; it is not asked to when it does already.

        Raises RefusedError when the snapshot cannot be written for Envoy, or Envoy refuses it and keeps the old one.
        """
        wanted = version_of(snapshot)
        # Both are made before either is written: a snapshot is given whole or not at all.
        files = {
            self.place.clusters: canonical(clusters(snapshot, self.addresses)),
            self.place.routes: canonical(routes(snapshot, now=now)),
        }
        before = self.actual()
        if before.routes == wanted:
            return
        # Clusters first: a route to one that is not there is refused.
        for path, content in files.items():
            write_whole(path, content)
            self._await(path == self.place.routes, wanted, before)

    def _await(self, is_routes: bool, wanted: str, before: Actual) -> None:
        ends_at = time.monotonic() + TAKEN_S
        while True:
            now = self.actual()
            if (now.routes if is_routes else now.clusters) == wanted:
                return
            what = "routes" if is_routes else "clusters"
            if now.refused > before.refused:
                raise RefusedError(f"envoy: refused the {what} {wanted} and keeps {before.routes}; read its log")
            if time.monotonic() >= ends_at:
                raise RefusedError(f"envoy: has not taken the {what} {wanted} after {TAKEN_S:g} s; read its log")
            time.sleep(_LOOK_S)

    def _report(self, snapshot: RoutingSnapshot, actual: Actual, *, now: datetime) -> None:
        """Report what Envoy serves: a snapshot that it did not take is not claimed."""
        if self._taken is None:
            return
        number, taken_at = self._taken
        is_present = number == snapshot.number and actual.routes == version_of(snapshot)
        names = {cluster_of(release_id): release_id for release_id in snapshot.releases()}
        served = {
            names[cluster]: count - self._before.get(cluster, 0)
            for cluster, count in actual.served.items()
            if cluster in names
        }
        self.feed.report(
            RouterReport(
                self.router.name,
                snapshot.decision_point,
                number,
                now,
                snapshot.fallback,
                snapshot.lease_until if is_present else now,
                None,
                {release_id: count for release_id, count in served.items() if count > 0},
                {"by envoy": actual.refused} if actual.refused else {},
                taken_at,
            )
        )

    def _stats(self) -> dict[str, str]:
        place = f"{self.place.admin_url}/stats"
        pattern = r"^(http\.ingress\.rds\.|cluster_manager\.cds\.|cluster\.release-.*upstream_rq_total$)"
        try:
            answer = self._session.get(place, params={"filter": pattern}, timeout=_ANSWER_S)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise UnavailableError(f"{place}: no answer ({type(error).__name__}); start Envoy") from error
        pairs = (line.partition(": ") for line in answer.text.splitlines())
        return {name: value.strip('"') for name, _, value in pairs}
