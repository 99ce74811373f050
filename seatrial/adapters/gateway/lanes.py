"""Ask a release for a score within its time: in threads of this process, or on its model server."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import httpx
import numpy as np

from seatrial.adapters.decisions import Answered, failed, recommended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.adapters.decisions import Unit
    from seatrial.adapters.scoring import Scorer
    from seatrial.adapters.v2 import AsyncV2Scorer
    from seatrial.routing import Parts

#: Asked of one thread: rows, and who waits for each of their scores.
Batch = list[tuple[list[float], "asyncio.Future[float]"]]


class Scoring(Protocol):
    """Gives scores to an event loop."""

    async def score(self, unit: Unit, limit_s: float) -> float:
        """Return the score of one unit; raises TimeoutError, or whatever the model raises."""

    async def close(self) -> None:
        """Give back what it holds."""


class Lane:
    """One release with its parts."""

    def __init__(self, parts: Parts, columns: Sequence[str], scoring: Scoring | None) -> None:
        self.parts = parts
        self.columns = tuple(columns)
        self._scoring = scoring

    async def ask(self, unit: Unit, limit_s: float) -> Answered:
        """Return what the release makes of `unit` within its own time limit and `limit_s`; never raises."""
        parts, features = self.parts, unit.features
        misses = sum(math.isnan(features.get(name, math.nan)) for name in self.columns)
        started = perf_counter()
        outcome = "error"
        if self._scoring is not None and limit_s > 0:
            try:
                score = await self._scoring.score(unit, min(limit_s, parts.timeout_ms / 1_000.0))
                return recommended(parts, unit, score, latency_ms=_since(started), misses=misses)
            except TimeoutError:
                outcome = "timeout"
            except Exception as error:  # noqa: BLE001 edge of a service: whatever a model raises is its failure
                outcome = "timeout" if isinstance(error.__cause__, TimeoutError | httpx.TimeoutException) else "error"
        return failed(parts, unit, outcome, latency_ms=_since(started), misses=misses)

    async def close(self) -> None:
        """Give back what it holds."""
        if self._scoring is not None:
            await self._scoring.close()


def _since(started: float) -> float:
    return (perf_counter() - started) * 1_000.0


class OnServer:
    """A model on a server of the Open Inference Protocol."""

    def __init__(self, scorer: AsyncV2Scorer) -> None:
        self._scorer = scorer

    async def score(self, unit: Unit, limit_s: float) -> float:
        """Return the score of one unit."""
        return await self._scorer.score(unit.features, timeout_s=limit_s)

    async def close(self) -> None:
        """Close connections of its own."""
        await self._scorer.close()


class InThreads:
    """A model of this process.

    What arrives while the loop is busy, or while every thread is, is scored together: one change of threads for many
    units. A thread that hangs keeps its batch, whose units time out; threads do not keep the process alive.
    """

    def __init__(self, scorer: Scorer, threads: int) -> None:
        self._scorer = scorer
        self._loop = asyncio.get_running_loop()
        self._waiting: Batch = []
        self._is_called = False
        self._idle = threads
        self._handed: SimpleQueue[Batch | None] = SimpleQueue()
        self._threads = threads
        for _ in range(threads):
            Thread(target=self._work, daemon=True).start()

    async def score(self, unit: Unit, limit_s: float) -> float:
        """Return the score of one unit; raises KeyError when a column is missing."""
        features = unit.features
        future: asyncio.Future[float] = self._loop.create_future()
        self._waiting.append(([features[name] for name in self._scorer.columns], future))
        if not self._is_called and self._idle:
            self._is_called = True
            self._loop.call_soon(self._hand_over)
        timer = self._loop.call_later(limit_s, _expire, future)
        try:
            return await future
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Let the threads end that are idle."""
        for _ in range(self._threads):
            self._handed.put(None)

    def _hand_over(self) -> None:
        self._is_called = False
        batch = [each for each in self._waiting if not each[1].done()]
        self._waiting = []
        if batch:
            self._idle -= 1
            self._handed.put(batch)

    def _work(self) -> None:
        while (batch := self._handed.get()) is not None:
            scores = self._scores([row for row, _ in batch])
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._done, batch, scores)

    def _scores(self, rows: list[list[float]]) -> list[float | Exception]:
        try:
            found = self._scorer.score_all(np.array(rows, dtype=np.float64))
            if found.shape == (len(rows),):
                return list(map(float, found))
        except Exception as error:  # noqa: BLE001 one row must not fail the others: each is asked alone
            if len(rows) == 1:
                return [error]
        if len(rows) == 1:
            return [ValueError("found no single score for a unit; expected one")]
        return [score for row in rows for score in self._scores([row])]

    def _done(self, batch: Batch, scores: list[float | Exception]) -> None:
        self._idle += 1
        for (_, future), score in zip(batch, scores, strict=True):
            if future.done():
                continue
            if isinstance(score, Exception):
                future.set_exception(score)
            else:
                future.set_result(score)
        if self._waiting and not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._hand_over)


def _expire(future: asyncio.Future[float]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
