"""One gateway's decisions, and what goes on beside them: refreshing, reporting, watching the cost of copies."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING

from seatrial.adapters.decisions import assigned, deciding
from seatrial.adapters.gateway.measured import Measured
from seatrial.adapters.gateway.models import PreparingFeed
from seatrial.adapters.gateway.shadowing import Shadows
from seatrial.adapters.router import InProcessRouter
from seatrial.errors import UnavailableError
from seatrial.routing.snapshot import RoutingSnapshot  # noqa: TC001 part of the public surface

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from seatrial.adapters.decisions import Concluded, Decided, Unit
    from seatrial.adapters.gateway.clock import SteadyClock
    from seatrial.adapters.gateway.logbook import Logbook
    from seatrial.adapters.gateway.models import Models
    from seatrial.adapters.gateway.settings import GatewaySettings
    from seatrial.ports import SnapshotFeed
    from seatrial.routing.signing import CheckingKey

#: Seconds of one look at latencies and the cost of copies.
_LOOK_S = 1.0
#: Seconds between two questions for a snapshot at least.
_LEAST_PAUSE_S = 0.01


class OverloadedError(UnavailableError):
    """More is under way, or waits to be logged, than may be; ask again later."""


class Engine:
    """Decides for the units of one decision point."""

    def __init__(
        self,
        decision_point: str,
        name: str,
        feed: SnapshotFeed,
        models: Models,
        logbook: Logbook,
        clock: SteadyClock,
        settings: GatewaySettings,
        keys: Mapping[str, CheckingKey] | None = None,
    ) -> None:
        self.decision_point = decision_point
        self.settings = settings
        self.logbook = logbook
        self.clock = clock
        self.measured = Measured(self._gauges)
        self._models = models
        self._router = InProcessRouter(
            name, PreparingFeed(feed, models, asyncio.get_running_loop()), decision_point, keys
        )
        self.shadows = Shadows(name, models.copies, models.needs, logbook.decision)
        self.in_flight = 0
        self.shed = 0
        self._latencies: list[float] = []
        self._prefix = secrets.token_hex(10)  # no two starts give the same id
        self._numbers = count(1)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def snapshot(self) -> RoutingSnapshot:
        """The snapshot it assigns by; raises UnavailableError before the first one."""
        return self._router.snapshot

    @property
    def is_ready(self) -> bool:
        """Whether it can decide."""
        with suppress(UnavailableError):
            return self.snapshot is not None
        return False

    async def start(self) -> None:
        """Read the first snapshot, if there is one, and go on reading."""
        self.logbook.start()
        await self._refresh()
        self._tasks = [asyncio.create_task(self._keep_fresh()), asyncio.create_task(self._keep_watch())]

    async def close(self) -> bool:
        """Finish copies, write the log and return whether nothing of it is left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.shadows.close()
        is_written = await asyncio.to_thread(self.logbook.close)
        await self._models.close()
        return is_written

    async def decide(self, unit: Unit) -> Decided:
        """Return the decision for one unit.

        Raises OverloadedError when it is turned away, UnavailableError or NotFoundError when nobody can decide.
        """
        if self.in_flight >= self.settings.max_concurrent or self.logbook.waiting >= self.settings.max_unwritten:
            self.shed += 1
            raise OverloadedError(f"{self.decision_point}: too much is under way; expected less; ask again")
        started = perf_counter()
        self.in_flight += 1
        try:
            concluded, snapshot = await self._conclude(unit, started)
        finally:
            self.in_flight -= 1
        decided, entry, shadow = concluded
        self.logbook.decision(entry)
        if shadow is not None:
            self.shadows.offer(snapshot, entry, shadow)
        if entry.arm == "champion":
            self._latencies.append(entry.answered.latency_ms)
        self.measured.answered(perf_counter() - started)
        self.measured.decisions[entry.arm, entry.release_id, entry.outcome, decided.course.value] += 1
        return decided

    async def _conclude(self, unit: Unit, started: float) -> tuple[Concluded, RoutingSnapshot]:
        now = self.clock.now()
        snapshot, assignment = assigned(self._router, unit, now=now)
        decision_id = f"{self._prefix}{next(self._numbers):012x}"
        steps = deciding(snapshot, assignment, unit, self._models.parts, decision_id=decision_id, now=now)
        ends = started + self.settings.total_ms / 1_000.0
        try:
            asked = next(steps)
            while True:
                asked = steps.send(await self._models.lane(asked).ask(unit, ends - perf_counter()))
        except StopIteration as done:
            concluded: Concluded = done.value
        return concluded, snapshot

    async def _keep_fresh(self) -> None:
        while True:
            asked = perf_counter()
            await self._refresh()
            # A feed that waits for news has spent the time already.
            await asyncio.sleep(max(_LEAST_PAUSE_S, self.settings.refresh_s - (perf_counter() - asked)))

    async def _refresh(self) -> None:
        load = self.shadows.load(self.snapshot) if self.is_ready else None
        # In a thread, for feeds wait.
        await asyncio.to_thread(lambda: self._router.refresh(now=self.clock.now(), shadow=load))

    async def _keep_watch(self) -> None:
        looked = perf_counter()
        while True:
            await asyncio.sleep(_LOOK_S)
            now = perf_counter()
            latencies, self._latencies = self._latencies, []
            self.shadows.adjust(latencies, now - looked)
            looked = now

    def _gauges(self) -> Iterator[tuple[str, str, float]]:
        yield "in_flight", "Decisions under way.", self.in_flight
        yield "shed", "Decisions turned away at overload since start.", self.shed
        yield "log_waiting", "Log rows that are not written yet.", self.logbook.waiting
        yield "log_written", "Log rows written since start.", self.logbook.written
        yield "log_errors", "Writes of the log that failed since start.", self.logbook.errors
        yield "shadow_sent", "Copies sent under the present snapshot.", self.shadows.sent
        yield "shadow_shed", "Copies due and not sent under the present snapshot.", self.shadows.shed.total()
        yield "shadow_sampling", "Slots of 10,000 whose units are copied now.", self.shadows.sampling
        if self.is_ready:
            held = self.snapshot
            yield "snapshot", "Number of the snapshot in force.", held.number
            yield "snapshot_slots", "Slots of 10,000 that the challenger has by it.", held.slots
            planned = held.budget.sampling if held.budget is not None else 10_000
            yield "shadow_planned", "Slots of 10,000 whose units are copied by plan.", planned if held.shadow else 0
            if held.lease_until is not None:
                left = (held.lease_until - self.clock.now()).total_seconds()
                yield "lease_seconds", "Seconds until the lease ends; negative after it.", left
