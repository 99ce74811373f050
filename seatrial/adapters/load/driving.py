"""Requests that come when they are due, whether or not the answer before is there.

A driver that waits for an answer before it sends the next request asks less of a slow release than of a fast one, and
never sees the queue that callers would have stood in ("coordinated omission"). Here arrivals are fixed beforehand and a
latency begins when its request was due.
"""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import xxhash

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_SPAN = 2.0**64


@dataclass(frozen=True, slots=True)
class Sent:
    """One request."""

    due_s: float  #: when it was due, in seconds from the start
    latency_ms: float  #: from then to the end of its answer
    lateness_ms: float | None  #: from then to its beginning; None when it had to stand in the queue
    is_answered: bool


class Timer(Protocol):
    """Time in a run; a test has its own."""

    def now(self) -> float:
        """Return seconds from any fixed moment."""

    def wait_until(self, moment: float) -> None:
        """Return at `moment` or later."""


class RealTimer:
    """The time that passes."""

    def now(self) -> float:
        """Return seconds from any fixed moment."""
        return perf_counter()

    def wait_until(self, moment: float) -> None:
        """Return at `moment` or later."""
        while (left := moment - perf_counter()) > 0:
            threading.Event().wait(left)


def arrivals(rate_per_s: float, seconds: float, *, seed: int) -> list[float]:
    """Return when requests are due: exponential gaps, as of many callers who do not know one another.

    The same `seed` gives the same times, so that both releases of a run see the same load.

    >>> due = arrivals(100.0, 10.0, seed=1)
    >>> 900 < len(due) < 1100, due == sorted(due), due == arrivals(100.0, 10.0, seed=1)
    (True, True, True)
    """
    due: list[float] = []
    moment = 0.0
    while True:
        chance = (xxhash.xxh64_intdigest(f"{seed}/{len(due)}".encode()) + 0.5) / _SPAN
        moment -= math.log(chance) / rate_per_s
        if moment >= seconds:
            return due
        due.append(moment)


def drive(ask: Callable[[int], bool], due: Sequence[float], timer: Timer) -> list[Sent]:
    """Return what became of each request, asked by one worker in the order in which they are due.

    `ask` is given the number of the request and says whether it was answered.
    """
    began = timer.now()
    sent = []
    free_at = -math.inf
    for number, moment in enumerate(due):
        timer.wait_until(began + moment)
        begins = timer.now()
        is_answered = ask(number)
        ends = timer.now()
        lateness = None if free_at > began + moment else (begins - began - moment) * 1e3
        sent.append(Sent(moment, (ends - began - moment) * 1e3, lateness, is_answered))
        free_at = ends
    return sent


async def drive_server(ask: Callable[[int], Awaitable[bool]], due: Sequence[float]) -> list[Sent]:
    """Return what became of each request, as many at once as are due: the queue is the server's."""
    began = perf_counter()

    async def one(number: int, moment: float) -> Sent:
        await asyncio.sleep(max(0.0, began + moment - perf_counter()))
        begins = perf_counter()
        is_answered = await ask(number)
        latency = (perf_counter() - began - moment) * 1e3
        return Sent(moment, latency, (begins - began - moment) * 1e3, is_answered)

    return list(await asyncio.gather(*(one(number, moment) for number, moment in enumerate(due))))
