"""Copies for the shadow: sent beside the answer, within a budget, fewer of them when they cost too much.

The part of the units that is copied is halved in a second in which the champion answered markedly slower than before
or a copy could not be sent, and grows again by a twentieth of the plan in one that was quiet.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from time import perf_counter
from typing import TYPE_CHECKING

from seatrial.adapters.decisions import copied
from seatrial.gates.load import ShadowLoad
from seatrial.routing.assignment import slot_of
from seatrial.routing.orders import ShadowBudget
from seatrial.units import SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seatrial.adapters.decisions import Entry
    from seatrial.adapters.gateway.lanes import Lane
    from seatrial.routing import RoutingSnapshot

#: Copies that wait for a free place at most, for each place.
_WAITING = 4
#: Seconds that copies under way have at shutdown.
_PARTING_S = 1.0
#: Decisions of a second below which their mean latency says nothing.
_FEW = 20
#: How many times slower the champion may become in a second.
_SLOWER = 1.5
#: Parts of the plan: growth in a quiet second, and the least that is tried.
_GROWTH, _LEAST = 20, 64
#: Weight of the newest second in the latency that is usual.
_NEWEST = 0.1


class Allowance:
    """So many a second, one second's worth at once."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left, self._at = max(1.0, per_s), perf_counter()

    def take(self) -> bool:
        """Return whether one more is allowed now, and count it if so."""
        now = perf_counter()
        self._left = min(max(1.0, self._per_s), self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Shadows:
    """Sends copies to the release that a snapshot has in its shadow."""

    def __init__(
        self,
        router: str,
        lane_of: Callable[[str], Lane | None],
        needs_of: Callable[[str, str], Sequence[str]],
        log: Callable[[Entry], None],
    ) -> None:
        self._router = router
        self._lane_of = lane_of  #: the release's lane for copies, whose requests say that they are copies
        self._needs_of = needs_of  #: dependencies that see an extra request: shadow release, champion
        self._log = log
        self._waiting: deque[tuple[Entry, str]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = -1
        self._budget = ShadowBudget()
        self._allowed: dict[str, Allowance] = {}
        self.sampling = SLOTS
        self.sent = 0
        self.shed: Counter[str] = Counter()
        self._recent: Counter[str] = Counter()
        self._rates: dict[str, float] = {}
        self._per_s = 0.0
        self._is_tight = False
        self._is_held = True
        self._usual: float | None = None

    def offer(self, snapshot: RoutingSnapshot, entry: Entry, release_id: str) -> None:
        """Send a copy of what was just decided, or count why not; the caller never waits."""
        if snapshot.number != self._number:
            self._begin(snapshot)
        key = entry.unit.key
        if self.sampling < self._budget.sampling and slot_of(f"{snapshot.salt}shadow/", key) >= self.sampling:
            self.shed["reduced"] += 1
            return
        needs = self._needs_of(release_id, entry.release_id)
        if len(self._waiting) >= _WAITING * self._budget.max_concurrent:
            self._refuse("queue")
        elif any(not self._allowed[name].take() for name in ("", *needs) if name in self._allowed):
            self._refuse("budget")
        else:
            self._recent.update(needs)
            self._waiting.append((entry, release_id))
            if len(self._tasks) < self._budget.max_concurrent:
                task = asyncio.get_running_loop().create_task(self._work())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _refuse(self, why: str) -> None:
        self.shed[why] += 1
        self._is_tight = True

    def _begin(self, snapshot: RoutingSnapshot) -> None:
        budget = snapshot.budget or ShadowBudget()
        self._number = snapshot.number
        if budget != self._budget or not self._allowed:
            rates = {**budget.dependencies, **({} if budget.max_per_s is None else {"": budget.max_per_s})}
            self._allowed = {name: Allowance(per_s) for name, per_s in rates.items()}
        self._budget = budget
        self.sampling = budget.sampling
        self.sent, self.shed, self._is_held = 0, Counter(), True

    async def _work(self) -> None:
        while self._waiting:
            entry, release_id = self._waiting.popleft()
            lane = self._lane_of(release_id)
            if lane is None:
                self.shed["not loaded"] += 1
                continue
            self.sent += 1
            self._recent[""] += 1
            answered = await lane.ask(entry.unit, lane.parts.timeout_ms / 1_000.0)
            self._log(copied(entry, release_id, answered))

    def adjust(self, latencies: Sequence[float], elapsed_s: float) -> None:
        """Reduce or raise the sampling by what the last `elapsed_s` seconds showed of the champion's latencies."""
        mean = sum(latencies) / len(latencies) if len(latencies) >= _FEW else None
        is_slow = mean is not None and self._usual is not None and mean > _SLOWER * self._usual
        if mean is not None and not is_slow:
            self._usual = mean if self._usual is None else self._usual + _NEWEST * (mean - self._usual)
        planned = self._budget.sampling
        least = max(1, planned // _LEAST)
        if is_slow or self._is_tight:
            self._is_held = self.sampling > least
            self.sampling = max(least, self.sampling // 2)
        else:
            self._is_held = True
            self.sampling = min(planned, self.sampling + max(1, planned // _GROWTH))
        self._rates = {name: count / elapsed_s for name, count in self._recent.items()}
        self._per_s = self._rates.pop("", 0.0)
        self._recent, self._is_tight = Counter(), False

    def load(self, snapshot: RoutingSnapshot) -> ShadowLoad | None:
        """Return what copies cost lately, for the router's report; None when the snapshot has no shadow."""
        if not snapshot.shadow:
            return None
        if snapshot.number != self._number:
            self._begin(snapshot)
        return ShadowLoad(
            self._router,
            self.sampling,
            self.sent,
            sum(self.shed.values()),
            self._per_s,
            dict(self._rates),
            self._is_held,
        )

    async def close(self) -> None:
        """Drop the copies that wait, and those that take longer than a moment; nobody waits for their answers."""
        self._waiting.clear()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_PARTING_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
