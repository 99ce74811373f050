"""The real stream: a year of flights from New York, assigned anew in each replicate, with the real label delays.

A replicate starts at a random day and serves every flight in its hour. A flight is bad when it was more than 15 minutes
late or cancelled; harm is made by turning good flights of the challenger bad, at the rate of the day.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.decisions.streams import CHALLENGER, CHAMPION, Counts, Tick
from examples.flight_delay.data import load_flights

if TYPE_CHECKING:
    from numpy.random import Generator

    from benchmarks.decisions.mixture import Floats, Integers
    from benchmarks.decisions.streams import Stream

#: Hours after which a label counts as never known; the slowest of the year took 33.
LONGEST = 36


@dataclass(frozen=True, slots=True)
class Year:
    """Flights by hour of the year of their schedule."""

    served: Integers  #: (hours,)
    bad: Integers  #: by whole hours until the label, (hours, LONGEST + 1)
    good: Integers  #: as `bad`
    rate: Floats  #: bad part of all labelled flights of the day, (hours,)

    @property
    def known_within(self) -> Floats:
        """Return the part of bad labels known at each age in hours, (LONGEST + 1,)."""
        by_age = self.bad.sum(axis=0)
        return np.asarray(np.cumsum(by_age) / by_age.sum())


@lru_cache(maxsize=1)
def year() -> Year:
    """Return the flights of 2013."""
    flights = load_flights()
    hours = (flights["scheduled_at"] - flights["scheduled_at"].min().floor("D")).dt.total_seconds().to_numpy() // 3600
    hour = hours.astype(np.int64)
    size = (int(hour.max()) // 24 + 1) * 24
    late = flights["late"].to_numpy()
    wait = (flights["label_arrives_at"] - flights["scheduled_at"]).dt.total_seconds().to_numpy() / 3600

    def counted(label: float) -> Integers:
        chosen = (late == label) & (wait <= LONGEST)
        table = np.zeros((size, LONGEST + 1), dtype=np.int64)
        # A label is seen at the first look after it arrived.
        np.add.at(table, (hour[chosen], np.maximum(np.ceil(wait[chosen]), 1).astype(np.int64)), 1)
        return table

    bad, good = counted(1.0), counted(0.0)
    by_day = bad.sum(axis=1).reshape(-1, 24).sum(axis=1), good.sum(axis=1).reshape(-1, 24).sum(axis=1)
    rate = np.repeat(by_day[0] / np.maximum(by_day[0] + by_day[1], 1), 24)
    return Year(np.bincount(hour, minlength=size), bad, good, rate)


@dataclass
class FlightTraffic:
    """Serves the hours of the year, as `streams.Traffic` serves simulated units."""

    stream: Stream
    replicates: int
    horizon: int
    rng: Generator
    counts: Counts = field(init=False)
    events: Counts = field(init=False)
    tick: Tick = field(init=False)
    exposed: Integers = field(init=False)
    _start: Integers = field(init=False)
    _due_bad: Integers = field(init=False)
    _due_matured: Integers = field(init=False)

    def __post_init__(self) -> None:
        shares = len(self.stream.ramp.shares)
        self.counts = self.events = Counts.zeros(self.replicates, 1, 0, shares)
        self.exposed = np.zeros(self.replicates, dtype=np.int64)
        days = (year().served.size - self.horizon) // 24
        self._start = 24 * self.rng.integers(0, days, self.replicates)
        waits = self.horizon + LONGEST + 1
        self._due_bad = np.zeros((waits, self.replicates, 2, shares), dtype=np.int32)
        self._due_matured = np.zeros((waits, self.replicates, 3, 2, shares), dtype=np.int32)

    def serve(self, now: int, stage: Integers, rows: Integers) -> None:
        """Serve one hour to the replicates `rows`, each at its `stage`."""
        flights, rng, at = year(), self.rng, stage[rows]
        hour = self._start[rows] + now
        share = np.array(self.stream.ramp.shares)[at]
        bad, good, served = flights.bad[hour], flights.good[hour], flights.served[hour]
        unknown = served - bad.sum(axis=1) - good.sum(axis=1)
        own_bad, own_good = rng.binomial(bad, share[:, None]), rng.binomial(good, share[:, None])
        own = own_bad.sum(axis=1) + own_good.sum(axis=1) + rng.binomial(unknown, share)
        rate = flights.rate[hour]
        extra = np.clip((self.stream.ratio[0] - 1.0) * rate / np.maximum(1.0 - rate, 1e-9), 0.0, 1.0)
        turned = rng.binomial(own_good, extra[:, None])
        units = np.stack([own, served - own], axis=-1)
        both = {CHALLENGER: (own_bad + turned, own_good - turned), CHAMPION: (bad - own_bad, good - own_good)}
        self.exposed[rows] += own
        self.counts.units[rows, :, at] += units
        for arm, (is_bad, is_good) in both.items():
            for age in range(1, LONGEST + 1):
                self._due_bad[now + age, rows, arm, at] += is_bad[:, age].astype(np.int32)
            total = is_bad.sum(axis=1)
            matured = np.stack([units[:, arm], total + is_good.sum(axis=1), total], axis=-1)
            self._due_matured[now + LONGEST, rows, :, arm, at] += matured.astype(np.int32)
        self._log(now, units, rows)

    def _log(self, now: int, units: Integers, rows: Integers) -> None:
        """Add what becomes known in this hour."""
        reported, matured = self._due_bad[now, rows], self._due_matured[now, rows]
        self.tick = Tick(
            np.zeros((self.replicates, 2), dtype=np.int64), np.zeros((self.replicates, 1, 2), dtype=np.int64)
        )
        self.tick.units[rows], self.tick.bad[rows, 0] = units, reported.sum(axis=-1)
        self.counts.bad[rows, 0] += reported
        self.counts.matured[rows] += matured[:, 0]
        self.counts.labelled[rows] += matured[:, 1]
        self.counts.matured_bad[rows, 0] += matured[:, 2]
