"""Play all replicates of one stream under one rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.decisions.rules import Act, Look
from benchmarks.decisions.streams import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.decisions.flights import FlightTraffic
    from benchmarks.decisions.mixture import Integers
    from benchmarks.decisions.rules import Rule
    from benchmarks.decisions.streams import Stream

#: No rollout of the benchmark lasts longer than this many times the planned ramp; who has not decided, asks.
PATIENCE = 2.5


@dataclass(frozen=True, slots=True)
class Endings:
    """How each replicate ended."""

    act: Integers  #: PROMOTE, ROLL_BACK, ASK or INVALID
    ticks: Integers
    exposed: Integers  #: requests that the challenger answered
    exposed_after_onset: Integers  #: of these, after the regression began

    def __add__(self, other: Endings) -> Endings:
        """Return the endings of both sets of replicates."""
        return Endings(
            np.concatenate([self.act, other.act]),
            np.concatenate([self.ticks, other.ticks]),
            np.concatenate([self.exposed, other.exposed]),
            np.concatenate([self.exposed_after_onset, other.exposed_after_onset]),
        )


def play(
    stream: Stream,
    rule: Rule,
    replicates: int,
    *,
    rng: np.random.Generator,
    traffic: type[Traffic | FlightTraffic] = Traffic,
    watch: Callable[[Look, Integers], None] | None = None,
) -> Endings:
    """Return how `replicates` rollouts of `stream` end under `rule`; `watch` sees every look with its acts."""
    horizon = round(PATIENCE * stream.ramp.planned)
    served = traffic(stream, replicates, horizon, rng)
    counts = served.counts if rule.counts_units else served.events
    shares = np.array(stream.ramp.shares)
    stage = np.zeros(replicates, dtype=np.int64)
    since = np.zeros(replicates, dtype=np.int64)
    before_onset = np.zeros(replicates, dtype=np.int64)
    act = np.full(replicates, Act.ASK, dtype=np.int64)
    ticks = np.full(replicates, horizon, dtype=np.int64)
    active = np.ones(replicates, dtype=np.bool_)
    rule.begin(stream, replicates)
    for now in range(horizon):
        rows = np.flatnonzero(active)
        if not rows.size:
            break
        served.serve(now, stage, rows)
        since[rows] += 1
        early = rows[stage[rows] < stream.onset]
        before_onset[early] = served.exposed[early]
        look = Look(now, active, stage, since, shares, stream.ramp, counts, served.tick, rng)
        acts = rule.look(look)
        if watch is not None:
            watch(look, acts)
        moves = active & (acts == Act.ADVANCE)
        ends = active & (acts > Act.ADVANCE)
        stage, since = np.where(moves, stage + 1, stage), np.where(moves, 0, since)
        act[ends], ticks[ends] = acts[ends], now + 1
        active = active & ~ends
    return Endings(act, ticks, served.exposed, served.exposed - before_onset)
