"""The rules of three rollout controllers, written from their sources' behaviour and with the settings stated.

Each is named for its rule, because operators tune the settings. Rates are of requests as they are logged: what is not
known to be bad yet counts as good, as it does in a metric query.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from benchmarks.decisions.rules import Act
from benchmarks.decisions.streams import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.decisions.mixture import Flags, Floats, Integers
    from benchmarks.decisions.rules import Look
    from benchmarks.decisions.streams import Stream, Tick


#: Ticks between two measurements, and ticks that a measurement looks back: a query over five minutes, every five.
INTERVAL = 5


class Window:
    """Rates of the last full interval of one controller."""

    def __init__(self) -> None:
        self._ticks: list[Tick] = []

    def add(self, tick: Tick) -> Floats | None:
        """Return the bad part of an interval's requests, (replicates, guardrails, arms), when `tick` completes one.

        NaN where there was no request.
        """
        self._ticks.append(tick)
        if len(self._ticks) < INTERVAL:
            return None
        bad = np.sum([each.bad for each in self._ticks], axis=0)
        served = np.sum([each.units for each in self._ticks], axis=0)[:, None]
        units = np.broadcast_to(served, bad.shape).astype(np.float64)
        self._ticks = []
        return np.asarray(np.divide(bad, units, out=np.full(units.shape, np.nan), where=units > 0))


@dataclass
class Argo:
    """One measurement an interval; more than `failure_limit` failed ones in one metric abort."""

    failure_limit: int
    times_baseline: float | None = 1.5  #: failed above this multiple of the champion's rate of the same interval
    at_most: float | None = None  #: failed above this rate
    counts_units: bool = False
    asks_approval: bool = False
    _failed: Integers = field(init=False)
    _window: Window = field(init=False)

    @property
    def name(self) -> str:
        """Return the rule with what tells it from the others of its kind."""
        bound = f"{self.times_baseline:g}x" if self.at_most is None else f"{self.at_most:.0%}"
        return f"Argo rule {bound}, FL {self.failure_limit}"

    @property
    def settings(self) -> str:
        """Return its settings."""
        bound = (
            f"failureCondition: rate > {self.times_baseline:g} times the champion's"
            if self.at_most is None
            else f"successCondition of the documentation: rate <= {self.at_most:.0%}"
        )
        return f"{bound}; interval {INTERVAL} ticks, failureLimit {self.failure_limit}, one run for the whole rollout"

    def begin(self, stream: Stream, replicates: int) -> None:
        """Start all counters at 0."""
        self._failed = np.zeros((replicates, stream.guardrails), dtype=np.int64)
        self._window = Window()

    def look(self, look: Look) -> Integers:
        """Return ROLL_BACK where a counter exceeds its limit, otherwise the schedule."""
        rates = self._window.add(look.tick)
        if rates is not None:
            self._failed += self.is_failed(rates)
        is_aborted = (self._failed > self.failure_limit).any(axis=1)
        return np.where(is_aborted, Act.ROLL_BACK, look.on_schedule())

    def is_failed(self, rates: Floats) -> Flags:
        """Return which measurements failed; a comparison with NaN is false, and so not a failure."""
        bound = rates[..., CHAMPION] * (self.times_baseline or 0.0) if self.at_most is None else self.at_most
        return np.asarray(rates[..., CHALLENGER] > bound)


@dataclass
class Flagger:
    """A check an interval against a fixed maximum; failed checks add up and are never forgotten."""

    allowance: float = 0.01
    threshold: int = 10
    name: str = "Flagger rule"
    counts_units: bool = False
    asks_approval: bool = False
    _failed: Integers = field(init=False)
    _is_halted: Flags = field(init=False)
    _at_most: Floats = field(init=False)
    _window: Window = field(init=False)

    @property
    def settings(self) -> str:
        """Return its settings."""
        return (
            f"thresholdRange max: champion's usual rate + {self.allowance:.0%} absolute; interval {INTERVAL} ticks,"
            f" threshold {self.threshold} failed checks in the whole rollout; a failed check does not advance"
        )

    def begin(self, stream: Stream, replicates: int) -> None:
        """Start the counter at 0."""
        self._failed = np.zeros(replicates, dtype=np.int64)
        self._is_halted = np.zeros(replicates, dtype=np.bool_)
        self._window = Window()
        self._at_most = np.array(stream.base) + self.allowance

    def look(self, look: Look) -> Integers:
        """Return ROLL_BACK one check after the threshold was reached; no value is a failed check."""
        rates = self._window.add(look.tick)
        is_over = np.zeros(look.active.size, dtype=np.bool_)
        if rates is not None:
            is_over = self._failed >= self.threshold
            self._is_halted = np.asarray((~(rates[..., CHALLENGER] <= self._at_most)).any(axis=1))
            self._failed += self._is_halted
        acts = np.where(self._is_halted, Act.STAY, look.on_schedule())
        return np.where(is_over, Act.ROLL_BACK, acts)


class Judgement:
    """Names of what the judge says of a metric."""

    PASS, HIGH, LOW, NO_DATA, ERROR = "Pass", "High", "Low", "Nodata", "Error"


def kayenta_score(labels: Sequence[str]) -> float:
    """Return 100 times Pass / (Pass + High + Low); of labels without any of these, 100.

    An Error stands in neither numerator nor denominator, so that metrics which all erred score 100.

    >>> kayenta_score(["Pass", "High"]), kayenta_score(["Error", "Error"])
    (50.0, 100.0)
    """
    if labels and sum(label == Judgement.NO_DATA for label in labels) * 2 >= len(labels):
        return 0.0
    judged = [label for label in labels if label in (Judgement.PASS, Judgement.HIGH, Judgement.LOW)]
    return 100.0 * judged.count(Judgement.PASS) / len(judged) if judged else 100.0


def shift_limits(experiment: Floats, control: Floats, confidence: float) -> tuple[Floats, Floats, Floats]:
    """Return lower limit, Hodges-Lehmann estimate and upper limit of the shift between two samples.

    Samples of shape (..., ticks). The limits are order statistics of the differences of all pairs, at the ranks of the
    normal approximation to the Mann-Whitney statistic.
    """
    pairs = np.sort((experiment[..., :, None] - control[..., None, :]).reshape(*experiment.shape[:-1], -1), axis=-1)
    m, n = experiment.shape[-1], control.shape[-1]
    spread = float(ndtri(0.5 + confidence / 2)) * np.sqrt(m * n * (m + n + 1) / 12.0)
    rank = max(int(np.floor(m * n / 2.0 - spread)), 0)
    return pairs[..., rank], np.median(pairs, axis=-1), pairs[..., m * n - 1 - rank]


@dataclass
class Kayenta:
    """Mann-Whitney on the rates of one interval, champion thinned to the challenger's share; a score decides."""

    interval: int = 30
    confidence: float = 0.98
    tolerance: float = 0.25
    marginal: float = 75.0
    passing: float = 95.0
    name: str = "Kayenta rule"
    counts_units: bool = False
    asks_approval: bool = False
    _series: list[Floats] = field(init=False)
    _score: Floats = field(init=False)

    @property
    def settings(self) -> str:
        """Return its settings."""
        return (
            f"NetflixACAJudge: confidence {self.confidence:.0%}, tolerance {self.tolerance:g} of the Hodges-Lehmann"
            f" estimate, an interval of {self.interval} ticks, rates per tick, direction increase, thresholds"
            f" {self.marginal:g}/{self.passing:g}, baseline thinned to the challenger's share; ties uncorrected"
        )

    def begin(self, stream: Stream, replicates: int) -> None:
        """Start with an empty interval."""
        del stream
        self._series = []
        self._score = np.zeros(replicates)

    def look(self, look: Look) -> Integers:
        """Return ROLL_BACK at a score of at most `marginal`, and at the end at one below `passing`."""
        self._series.append(thinned_rates(look))
        acts = look.on_schedule()
        if len(self._series) == self.interval:
            series = np.stack(self._series, axis=-1)
            self._series = []
            is_high = self.is_high(series[..., CHALLENGER, :], series[..., CHAMPION, :])
            self._score = 100.0 * (1.0 - is_high.mean(axis=1))
            acts = np.where(self._score <= self.marginal, Act.ROLL_BACK, acts)
        return np.where((acts == Act.PROMOTE) & (self._score < self.passing), Act.ROLL_BACK, acts)

    def is_high(self, experiment: Floats, control: Floats) -> Flags:
        """Return which metrics are High: the shift's lower limit beyond the tolerance, and a mean ratio above 1."""
        low, estimate, _ = shift_limits(experiment, control, self.confidence)
        is_larger = experiment.mean(axis=-1) > control.mean(axis=-1)
        return np.asarray((low > self.tolerance * np.abs(estimate)) & is_larger)


def thinned_rates(look: Look) -> Floats:
    """Return this tick's rates with the champion's requests thinned to the challenger's share."""
    units = look.tick.units
    share = look.shares[look.stage]
    kept = share / (1.0 - share)
    size = look.rng.binomial(units[:, CHAMPION], kept)
    bad = look.rng.binomial(look.tick.bad[..., CHAMPION], kept[:, None])
    own = look.tick.bad[..., CHALLENGER] / np.maximum(units[:, None, CHALLENGER], 1)
    return np.stack([own, bad / np.maximum(size[:, None], 1)], axis=-1)
