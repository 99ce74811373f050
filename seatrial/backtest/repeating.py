"""Repeat a replay with other draws, for one replay is one draw."""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

from seatrial.backtest.playing import End, Play, Replay, play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Backtest:
    """What became of a plan over a log, draw by draw."""

    replay: Replay
    seed: int
    plays: Sequence[Play]  #: one for each draw; the first is told in full

    def of(self, end: End) -> list[Play]:
        """Return the plays that ended so."""
        return [each for each in self.plays if each.ending.end is end]


def backtest(
    replay: Replay,
    *,
    seed: int,
    repeats: int,
    folder: Path,
    jobs: int = 1,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Backtest:
    """Return `repeats` plays of `replay`, each with another draw of who answers whom; the same seed, the same plays.

    Parameters
    ----------
    replay
        What is replayed.
    seed
        Names the draws: draw i of one seed is the same whatever the number of repeats and jobs.
    repeats
        Number of draws, at least 1.
    folder
        Where the logs of a draw are kept while it is played.
    jobs
        Processes that play at the same time; with 1, this one plays.
    on_progress
        Told the number of draws that are done.
    """
    one = partial(_played, replay, seed, folder)
    plays: list[Play] = []
    with _mapped(min(jobs, repeats)) as mapped:
        for played in mapped(one, range(repeats)):
            plays.append(played)
            on_progress(len(plays))
    return Backtest(replay, seed, plays)


@contextmanager
def _mapped(jobs: int) -> Iterator[Callable[[Callable[[int], Play], Iterable[int]], Iterable[Play]]]:
    """Give what applies a function to each number, in their order."""
    if jobs == 1:
        yield map
        return
    # Spawned, for DuckDB and Arrow have threads by now, and a forked child would wait for them for ever.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield pool.map


def _played(replay: Replay, seed: int, folder: Path, draw: int) -> Play:
    logs = folder / f"draw-{draw}"
    logs.mkdir(parents=True)
    try:
        return play(replay, salt=f"backtest/{seed}/{draw}/", folder=logs)
    finally:
        shutil.rmtree(logs)
