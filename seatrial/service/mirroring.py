"""Snapshots and reports in a folder beside the server, for routers that read files."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from seatrial.control.observing import observe
from seatrial.errors import SeatrialError, UnavailableError

if TYPE_CHECKING:
    from seatrial.adapters.file_feed import FileFeed
    from seatrial.ports import Clock, Ports, RouterReport
    from seatrial.routing import RoutingSnapshot

#: Seconds between two looks at the reports in the folder.
_EVERY_S = 1.0


@dataclass(slots=True)
class Mirror:
    """Writes each snapshot that is posted to a folder, and hands the reports that lie there to the store."""

    ports: Ports
    clock: Clock
    feed: FileFeed
    _unwritten: dict[str, RoutingSnapshot] = field(default_factory=dict)
    _newest: dict[str, RoutingSnapshot] = field(default_factory=dict)
    _told: dict[tuple[str, str], RouterReport] = field(default_factory=dict)
    #: Two threads write: whoever posts, and whoever tries again.
    _writing: Lock = field(default_factory=Lock)

    def write(self, snapshot: RoutingSnapshot) -> None:
        """Put `snapshot` into its file unless a newer one was given; what a full disk refused is tried again."""
        point = snapshot.decision_point
        with self._writing:
            newest = self._newest.get(point)
            if newest is None or snapshot.is_newer_than(newest):
                self._newest[point] = self._unwritten[point] = snapshot
                self._try(point)

    def _try(self, point: str) -> None:
        with suppress(UnavailableError):
            self.feed.publish(self._unwritten[point])
            del self._unwritten[point]

    def collect(self) -> None:
        """Hand new reports to the store, and observe what they say."""
        with self._writing:
            for point in list(self._unwritten):
                self._try(point)
        for report in self.feed.reports():
            router = (report.decision_point, report.router)
            if self._told.get(router) == report:
                continue
            with suppress(SeatrialError):  # of a decision point that is unknown, or to a store that does not answer
                self.ports.store.report(report)
                observe(self.ports, report.decision_point, now=self.clock.now())
                self._told[router] = report

    async def tend(self) -> None:
        """Collect now and then, until cancelled."""
        while True:
            await asyncio.to_thread(self.collect)
            await asyncio.sleep(_EVERY_S)
