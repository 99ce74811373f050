"""The present snapshot of each decision point, read once from the store and handed to every router that asks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from seatrial.errors import NotFoundError, SeatrialError
from seatrial.routing.signing import sealed
from seatrial.units import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from seatrial.ports import Store
    from seatrial.routing import RoutingSnapshot


@dataclass(frozen=True, slots=True)
class Posted:
    """One snapshot as it is sent."""

    snapshot: RoutingSnapshot
    tag: str  #: changes whenever the snapshot or its lease does
    body: bytes


class Board:
    """What is posted for routers; who waits for something newer is woken when it comes.

    A store that does not answer leaves what is posted: routers hold it anyway, and its lease ends by itself. Belongs
    to one event loop; the store is asked in a thread.
    """

    def __init__(self, store: Store, tell: Callable[[RoutingSnapshot], None] | None = None) -> None:
        self._store = store
        self._tell = tell
        self._posted: dict[str, Posted] = {}
        self._changed: dict[str, asyncio.Event] = {}

    async def refresh(self, decision_points: Iterable[str] | None = None) -> None:
        """Read the snapshots of `decision_points`, or of all, and wake whoever waits for a newer one."""
        try:
            points = await asyncio.to_thread(self._store.champions) if decision_points is None else decision_points
        except SeatrialError:
            return
        for point in points:
            await self._refresh(point)

    async def _refresh(self, point: str) -> None:
        try:
            snapshot = await asyncio.to_thread(self._store.snapshot, point)
        except SeatrialError:
            return
        held = self._posted.get(point)
        if held is not None and not snapshot.is_newer_than(held.snapshot):
            return
        self._posted[point] = _posted(snapshot)
        self._changed.pop(point, asyncio.Event()).set()
        if self._tell is not None:
            await asyncio.to_thread(self._tell, snapshot)

    def posted(self, decision_point: str) -> Posted:
        """Return what is posted; raises NotFoundError for an unknown decision point."""
        try:
            return self._posted[decision_point]
        except KeyError:
            raise NotFoundError.of("decision point", decision_point, self._posted) from None

    async def newer(self, decision_point: str, tag: str, *, timeout_s: float) -> Posted:
        """Return what is posted as soon as its tag is another than `tag`, at the latest after `timeout_s`."""
        present = self.posted(decision_point)
        if present.tag != tag or timeout_s <= 0:
            return present
        changed = self._changed.setdefault(decision_point, asyncio.Event())
        try:
            await asyncio.wait_for(changed.wait(), timeout_s)
        except TimeoutError:
            return present
        return self.posted(decision_point)


def _posted(snapshot: RoutingSnapshot) -> Posted:
    lease = "" if snapshot.lease_until is None else f"-{format_time(snapshot.lease_until)}"
    return Posted(snapshot, f'"{snapshot.number}{lease}"', orjson.dumps(sealed(snapshot)))
