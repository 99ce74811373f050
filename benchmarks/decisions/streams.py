"""Streams of units: what is served at each tick of a ramp, what of it is bad, and when that is known.

All replicates of a stream move together, one tick at a time, but each stands at the stage that its rule has chosen.
Chance is drawn from one generator in a fixed order, so that a seed names one run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaln, gammaln, ndtr

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from benchmarks.decisions.mixture import Floats, Integers

#: Indices of the arms in every array of counts.
CHALLENGER, CHAMPION = 0, 1
#: Traffic shares of the slices of suites with slices: one of 2, one of 5, one of 10 and one of 20 % among others.
SLICE_SHARES = np.array([0.20, 0.10, 0.05, 0.02, *([0.63 / 16] * 16)])


@dataclass(frozen=True, slots=True)
class Ramp:
    """Shares of the challenger and how long each is served at the least."""

    shares: tuple[float, ...] = (0.01, 0.05, 0.10, 0.25, 0.50)
    ticks: int = 60  #: of each share
    units: int = 2_000  #: served in a tick, both arms together

    @property
    def planned(self) -> int:
        """Return the ticks of the whole ramp."""
        return len(self.shares) * self.ticks


@dataclass(frozen=True, slots=True)
class Delay:
    """When a label arrives: log-normal ages in ticks, optionally in batches."""

    median: float = 24.0
    sigma: float = 1.0
    challenger_speed: float = 1.0  #: the challenger's delays are divided by this
    batch: int = 1  #: labels are delivered every so many ticks
    window: int = 72  #: age in ticks at which a unit has matured

    def known_within(self, age: Floats, arm: int) -> Floats:
        """Return the part of the labels that exist at `age`, in ticks."""
        speed = self.challenger_speed if arm == CHALLENGER else 1.0
        with np.errstate(divide="ignore"):
            return np.asarray(ndtr(np.log(np.maximum(age, 0.0) * speed / self.median) / self.sigma))


@dataclass(frozen=True, slots=True)
class Stream:
    """What a cell of the benchmark serves."""

    ramp: Ramp = Ramp()
    base: tuple[float, ...] = (0.02,)  #: champion's rate of bad units, by guardrail
    ratio: tuple[float, ...] = (1.0,)  #: challenger's rate as a multiple, by guardrail
    onset: int = 0  #: index of the share at which the ratio begins
    has_slices: bool = False
    slice_at: int | None = None  #: the one slice in which the ratios hold; everywhere when None
    swing: float = 0.0  #: amplitude of the slow swing of the base rate; shocks come with it
    delay: Delay | None = None
    lost: float = 0.0  #: part of the challenger's units that reach no log
    labelled: tuple[float, float] = (1.0, 1.0)  #: part of the units that ever get a label, by arm
    entity_events: int = 1  #: requests of one entity, all in the tick in which it comes
    entity_correlation: float = 0.0  #: between outcomes of one entity

    @property
    def guardrails(self) -> int:
        """Return their number."""
        return len(self.base)

    def rates(self, arm: int, *, begun: bool = True) -> Floats:
        """Return the rate of bad units of each guardrail over all slices, before swings."""
        base = np.array(self.base)
        if arm == CHAMPION or not begun:
            return base
        part = 1.0 if self.slice_at is None else SLICE_SHARES[self.slice_at]
        return np.asarray(base * (1.0 + part * (np.array(self.ratio) - 1.0)))

    @property
    def delay_is_equal(self) -> bool:
        """Return whether labels of both arms arrive after equal times."""
        return self.delay is None or self.delay.challenger_speed == 1.0

    @property
    def is_harmful(self) -> bool:
        """Return whether a guardrail is worse anywhere."""
        return max(self.ratio) > 1.0


@dataclass
class Counts:
    """Cumulated counts of all replicates; the last axis is the share at assignment."""

    units: Integers  #: (replicates, arms, S)
    bad: Integers  #: reported so far, (replicates, guardrails, arms, S)
    matured: Integers  #: (replicates, arms, S)
    matured_bad: Integers  #: (replicates, guardrails, arms, S)
    labelled: Integers  #: of the matured, by the first guardrail's label, (replicates, arms, S)
    slice_units: Integers  #: (replicates, slices, arms, S)
    slice_bad: Integers  #: (replicates, guardrails, slices, arms, S)

    @classmethod
    def zeros(cls, replicates: int, guardrails: int, slices: int, epochs: int) -> Counts:
        """Return counts of nothing."""
        tail = (2, epochs)
        shapes = [(), (guardrails,), (), (guardrails,), (), (slices,), (guardrails, slices)]
        return cls(*(np.zeros((replicates, *shape, *tail), dtype=np.int64) for shape in shapes))


@dataclass
class Tick:
    """What was logged in the present tick alone."""

    units: Integers  #: (replicates, arms)
    bad: Integers  #: reported in this tick, (replicates, guardrails, arms)


@dataclass
class Traffic:
    """Serves a stream to replicates; `counts` holds units as assigned, `events` requests as most systems count."""

    stream: Stream
    replicates: int
    horizon: int
    rng: Generator
    counts: Counts = field(init=False)
    events: Counts = field(init=False)
    tick: Tick = field(init=False)
    exposed: Integers = field(init=False)  #: requests that the challenger answered, logged or not
    _factor: Floats = field(init=False)
    _due_bad: NDArray[np.int32] = field(init=False)
    _due_matured: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        stream, shares = self.stream, len(self.stream.ramp.shares)
        slices = SLICE_SHARES.size if stream.has_slices else 0
        self.counts = Counts.zeros(self.replicates, stream.guardrails, slices, shares)
        is_clustered = stream.entity_events > 1
        self.events = Counts.zeros(self.replicates, stream.guardrails, 0, shares) if is_clustered else self.counts
        self.exposed = np.zeros(self.replicates, dtype=np.int64)
        self._factor = base_factor(self.rng, self.replicates, self.horizon, stream.swing, stream.ramp.planned)
        waits = self.horizon + 1 if stream.delay else 0
        self._due_bad = np.zeros((waits, self.replicates, stream.guardrails, 2, shares), dtype=np.int32)
        #: units, labelled units and bad units of each guardrail that mature at a tick
        self._due_matured = np.zeros((waits, self.replicates, 2 + stream.guardrails, 2, shares), dtype=np.int32)

    def serve(self, now: int, stage: Integers, rows: Integers) -> None:
        """Serve one tick to the replicates `rows`, each at its `stage`, and log what becomes known in it."""
        stream, rng = self.stream, self.rng
        share = np.array(stream.ramp.shares)[stage[rows]]
        self.tick = Tick(
            np.zeros((self.replicates, 2), dtype=np.int64),
            np.zeros((self.replicates, stream.guardrails, 2), dtype=np.int64),
        )
        entities = stream.ramp.units // stream.entity_events
        assigned = rng.binomial(entities, share)
        self.exposed[rows] += assigned * stream.entity_events
        kept = rng.binomial(assigned, 1.0 - stream.lost) if stream.lost else assigned
        units = np.stack([kept, entities - assigned], axis=-1)
        rates = self._rates(now, stage, rows)
        if stream.entity_events > 1:
            self._serve_entities(units, rates, stage, rows)
            return
        bad = rng.binomial(units[:, None, :], rates)
        self.tick.units[rows] = units
        self.counts.units[rows, :, stage[rows]] += units
        if stream.delay is None:
            self._know_at_once(units, bad, stage, rows)
        else:
            self._wait(now, units, bad, stage, rows)
            self._deliver(now, rows)

    def _rates(self, now: int, stage: Integers, rows: Integers) -> Floats:
        """Return the rates of this tick, shape (rows, guardrails, arms)."""
        stream = self.stream
        begun = (stage[rows] >= stream.onset)[:, None]
        challenger = np.where(begun, stream.rates(CHALLENGER), stream.rates(CHALLENGER, begun=False))
        champion = np.broadcast_to(stream.rates(CHAMPION), challenger.shape)
        factor = self._factor[rows, now, None, None]
        return np.asarray(np.clip(np.stack([challenger, champion], axis=-1) * factor, 0.0, 0.95))

    def _know_at_once(self, units: Integers, bad: Integers, stage: Integers, rows: Integers) -> None:
        stream, rng, at = self.stream, self.rng, stage[rows]
        coverage = np.array(stream.labelled)
        labelled = units
        if coverage.min() < 1.0:
            good = rng.binomial(units - bad[:, 0], coverage)
            bad = rng.binomial(bad, coverage)
            labelled = good + bad[:, 0]
        self.tick.bad[rows] = bad
        self.counts.bad[rows, :, :, at] += bad
        self.counts.matured[rows, :, at] += units
        self.counts.matured_bad[rows, :, :, at] += bad
        self.counts.labelled[rows, :, at] += labelled
        if stream.has_slices:
            self.counts.slice_units[rows, :, :, at] += np.moveaxis(rng.multinomial(units, SLICE_SHARES), -1, 1)
            self.counts.slice_bad[rows, :, :, :, at] += self._by_slice(bad)

    def _by_slice(self, bad: Integers) -> Integers:
        """Return `bad` divided over slices, shape (rows, guardrails, slices, arms)."""
        parts = []
        for arm in (CHALLENGER, CHAMPION):
            weights = np.tile(SLICE_SHARES, (self.stream.guardrails, 1))
            if arm == CHALLENGER and self.stream.slice_at is not None:
                weights[:, self.stream.slice_at] *= self.stream.ratio
            parts.append(self.rng.multinomial(bad[..., arm], weights / weights.sum(axis=1, keepdims=True)))
        return np.stack(parts, axis=-1)

    def _wait(self, now: int, units: Integers, bad: Integers, stage: Integers, rows: Integers) -> None:
        """Draw when each label of this tick arrives."""
        delay, rng = self.stream.delay, self.rng
        assert delay is not None  # noqa: S101 -- for the type checker; the caller has asked
        last = self.horizon
        matures = min(now + delay.window, last)
        for arm in (CHALLENGER, CHAMPION):
            count = bad[..., arm]
            row = np.repeat(np.repeat(rows, count.shape[1]), count.ravel())
            guardrail = np.repeat(np.tile(np.arange(count.shape[1]), rows.size), count.ravel())
            speed = delay.challenger_speed if arm == CHALLENGER else 1.0
            ages = delay.median / speed * rng.lognormal(0.0, delay.sigma, row.size)
            arrives = np.minimum(np.ceil((now + ages) / delay.batch) * delay.batch, last).astype(np.int64)
            arms = np.full(row.size, arm)
            at = stage[row]
            within = arrives <= now + delay.window
            _count(self._due_bad, arrives, row, guardrail, arms, at)
            matured = np.full(row.size, matures)
            _count(self._due_matured, *(part[within] for part in (matured, row, 2 + guardrail, arms, at)))
            self._due_matured[matures, rows, 0, arm, stage[rows]] += units[:, arm].astype(np.int32)
            # A good unit gets its label after the same time as a bad one.
            known = float(delay.known_within(np.array(float(delay.window)), arm))
            labelled = rng.binomial(units[:, arm] - count[:, 0], known).astype(np.int32)
            self._due_matured[matures, rows, 1, arm, stage[rows]] += labelled
            is_first = within & (guardrail == 0)
            ones = np.ones(row.size, dtype=np.int64)
            _count(self._due_matured, *(part[is_first] for part in (matured, row, ones, arms, at)))

    def _deliver(self, now: int, rows: Integers) -> None:
        bad, matured = self._due_bad[now, rows], self._due_matured[now, rows]
        self.tick.bad[rows] = bad.sum(axis=-1)
        self.counts.bad[rows] += bad
        self.counts.matured[rows] += matured[:, 0]
        self.counts.labelled[rows] += matured[:, 1]
        self.counts.matured_bad[rows] += matured[:, 2:]

    def _serve_entities(self, entities: Integers, rates: Floats, stage: Integers, rows: Integers) -> None:
        """Serve entities of several requests; counted are entities with a bad request, and requests."""
        stream, at = self.stream, stage[rows]
        size = stream.entity_events
        chances = beta_binomial(size, rates[:, 0], stream.entity_correlation)
        by_bad = self.rng.multinomial(entities, chances)  # (rows, arms, bad requests of an entity)
        hit, requests = by_bad[..., 1:].sum(axis=-1), by_bad @ np.arange(size + 1)
        for counts, units, bad in ((self.counts, entities, hit), (self.events, entities * size, requests)):
            counts.units[rows, :, at] += units
            counts.matured[rows, :, at] += units
            counts.labelled[rows, :, at] += units
            counts.bad[rows, 0, :, at] += bad
            counts.matured_bad[rows, 0, :, at] += bad
        self.tick.units[rows] = entities * size
        self.tick.bad[rows, 0] = requests


def _count(table: NDArray[np.int32], *index: Integers) -> None:
    """Add 1 to `table` at each index, as often as it occurs."""
    np.add.at(table.reshape(-1), np.ravel_multi_index(index, table.shape), 1)


def base_factor(rng: Generator, replicates: int, ticks: int, swing: float, period: int) -> Floats:
    """Return the factor on the base rate by replicate and tick: a slow swing of random phase, and shared shocks."""
    if not swing:
        return np.ones((replicates, ticks + 1))
    phase = rng.uniform(0, 2 * math.pi, (replicates, 1))
    slow = 1 + swing * np.sin(2 * math.pi * np.arange(ticks + 1) / period * 1.7 + phase)
    return np.asarray(slow * rng.lognormal(0.0, 0.3, (replicates, ticks + 1)))


def beta_binomial(size: int, mean: Floats, correlation: float) -> Floats:
    """Return the distribution of bad requests among `size` of one entity, shape (..., size + 1)."""
    k = np.arange(size + 1)
    choose = gammaln(size + 1) - gammaln(k + 1) - gammaln(size - k + 1)
    p = np.asarray(mean)[..., None]
    if correlation == 0:
        return np.asarray(np.exp(choose + k * np.log(p) + (size - k) * np.log1p(-p)))
    spread = 1.0 / correlation - 1.0
    a, b = p * spread, (1 - p) * spread
    chances = np.exp(choose + betaln(k + a, size - k + b) - betaln(a, b))
    return np.asarray(chances / chances.sum(axis=-1, keepdims=True))
