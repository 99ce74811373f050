"""Rules of experiment platforms and of the textbook: one test of the challenger against the champion at every look.

Sources: Johari, Koomen, Pekelis and Walsh (2022) for the mixture SPRT; Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas
(2024, arXiv:2103.06476) for confidence sequences, in the form that GrowthBook documents. `Pooled` rules add all shares
together, which is what a dashboard does when the split changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from benchmarks.decisions.rules import Act
from benchmarks.decisions.streams import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from benchmarks.decisions.mixture import Flags, Floats, Integers
    from benchmarks.decisions.rules import Look
    from benchmarks.decisions.streams import Counts, Stream

ALPHA = 0.05


@dataclass(frozen=True)
class Pool:
    """Counts of two arms; arrays broadcast over replicates and guardrails."""

    bad: Floats
    units: Floats
    champion_bad: Floats
    champion_units: Floats

    @classmethod
    def of(cls, counts: Counts) -> Pool:
        """Return all shares added together."""
        bad, units = counts.bad.sum(axis=-1).astype(float), counts.units.sum(axis=-1)[:, None].astype(float)
        return cls(bad[..., CHALLENGER], units[..., CHALLENGER], bad[..., CHAMPION], units[..., CHAMPION])

    @property
    def difference(self) -> Floats:
        """Return the challenger's rate minus the champion's."""
        return np.asarray(rate_of(self.bad, self.units) - rate_of(self.champion_bad, self.champion_units))

    @property
    def variance(self) -> Floats:
        """Return the variance of the difference, from the rate of each arm."""
        p1, p0 = rate_of(self.bad, self.units), rate_of(self.champion_bad, self.champion_units)
        spread = rate_of(p1 * (1 - p1), self.units) + rate_of(p0 * (1 - p0), self.champion_units)
        # Labels of an hour before can outnumber the requests of a quiet one; then nothing is known of the variance.
        return np.where(spread >= 0, spread, 1.0)

    @property
    def variance_of_one_rate(self) -> Floats:
        """Return the variance of the difference if both arms had one rate."""
        p = rate_of(self.bad + self.champion_bad, self.units + self.champion_units)
        spread = p * (1 - p) * (rate_of(1.0, self.units) + rate_of(1.0, self.champion_units))
        return np.where(spread >= 0, spread, 1.0)


def rate_of(part: Floats | float, whole: Floats) -> Floats:
    """Return `part` of `whole`, and 0 of nothing."""
    return np.asarray(part / np.maximum(whole, 1.0))


def sequential_radius(
    variance: Floats, units: Floats, *, alpha: float, tuned_at: float, is_one_sided: bool = False
) -> Floats:
    """Return the half-width of a confidence sequence of a mean, as GrowthBook documents it.

    `variance` is the squared standard error at `units`, so that sigma^2 = units * variance.

    >>> round(float(sequential_radius(np.float64(1e-4), np.float64(10_000), alpha=0.05, tuned_at=5_000)), 6)
    0.030615
    """
    a = 2 * alpha if is_one_sided else alpha
    rho2 = (-2 * math.log(a) + math.log(-2 * math.log(a) + 1)) / tuned_at
    spread = units * rho2 + 1
    inside = np.log1p(np.sqrt(spread) / (2 * alpha)) if is_one_sided else np.log(np.sqrt(spread) / alpha)
    return np.asarray(np.sqrt(units * variance) * np.sqrt(2 * spread * inside) / (units * math.sqrt(rho2)))


def msprt_log_lambda(difference: Floats, variance: Floats, tau: float) -> Floats:
    """Return log Lambda of the mixture SPRT with prior variance tau^2; the always-valid p is its inverse.

    >>> round(float(msprt_log_lambda(np.float64(0.03), np.float64(1e-4), 0.02)), 6)
    2.795281
    """
    v, t = variance, tau**2
    return np.asarray(0.5 * np.log(v / (v + t)) + t * difference**2 / (2 * v * (v + t)))


@dataclass
class Scheduled:
    """A rule that follows the schedule until it finds harm in any guardrail."""

    counts_units: bool = field(default=False, init=False)
    asks_approval: bool = field(default=False, init=False)

    def begin(self, stream: Stream, replicates: int) -> None:
        """Keep nothing between looks."""

    def look(self, look: Look) -> Integers:
        """Return ROLL_BACK where any guardrail is found worse."""
        return np.where(self.is_harmed(look).any(axis=1), Act.ROLL_BACK, look.on_schedule())

    def is_harmed(self, look: Look) -> Flags:
        """Return which guardrails are found worse, (replicates, guardrails)."""
        raise NotImplementedError


@dataclass
class Peeking(Scheduled):
    """The z test of a fixed sample, at every look."""

    name: str = "z, peeking"
    settings: str = "two-sided z > 1.96 on pooled counts after every tick"

    def is_harmed(self, look: Look) -> Flags:
        """Return where the pooled z is beyond 1.96."""
        pool = Pool.of(look.counts)
        return np.asarray(pool.difference > 1.96 * np.sqrt(np.maximum(pool.variance_of_one_rate, 1e-300)))


@dataclass
class Sequential(Scheduled):
    """GrowthBook's sequential interval on pooled counts."""

    name: str = "GrowthBook sequential, pooled"
    tuned_at: float = 5_000
    minimum: int = 150

    @property
    def settings(self) -> str:
        """Return its settings."""
        return (
            f"two-sided interval at {ALPHA:.0%}, tuning parameter {self.tuned_at:g}, not before an arm has"
            f" {self.minimum} bad; one phase through all shares, no correction for guardrails"
        )

    def is_harmed(self, look: Look) -> Flags:
        """Return where the whole interval is above 0."""
        pool = Pool.of(look.counts)
        units = pool.units + pool.champion_units
        radius = sequential_radius(pool.variance, units, alpha=ALPHA, tuned_at=self.tuned_at)
        is_enough = np.maximum(pool.bad, pool.champion_bad) >= self.minimum
        return np.asarray(is_enough & (pool.difference > radius) & (pool.variance > 0))


@dataclass
class SafeRollout(Scheduled):
    """GrowthBook Safe Rollout: equal arms, one-sided interval, no harm tolerated, shipped when nothing was found."""

    minimum: int = 150
    tuned_at: float = 5_000
    _seen: Integers = field(init=False)
    _control: Integers = field(init=False)

    @property
    def name(self) -> str:
        """Return the rule with its minimum."""
        return "Safe Rollout rule" if self.minimum else "Safe Rollout rule, no minimum"

    @property
    def settings(self) -> str:
        """Return its settings."""
        minimum = f"not before an arm has {self.minimum} bad" if self.minimum else "not before 5 bad in each arm"
        return (
            f"champion thinned to the challenger's share, one-sided {ALPHA:.0%} interval, tuning parameter"
            f" {self.tuned_at:g}, {minimum}; SRM by chi-square at p < .001 at the end; no correction for guardrails;"
            " ships when inconclusive"
        )

    def begin(self, stream: Stream, replicates: int) -> None:
        """Start with empty arms."""
        shares = len(stream.ramp.shares)
        self._seen = np.zeros((replicates, 1 + stream.guardrails, shares), dtype=np.int64)
        self._control = np.zeros((replicates, 1 + stream.guardrails), dtype=np.int64)

    def look(self, look: Look) -> Integers:
        """Return ROLL_BACK on harm, and INVALID in place of shipping where the arms are not equal."""
        self._take(look)
        acts = np.where(self.is_harmed(look).any(axis=1), Act.ROLL_BACK, look.on_schedule())
        own, control = look.counts.units[:, CHALLENGER].sum(axis=-1), self._control[:, 0]
        z = np.abs(own - control) / np.sqrt(np.maximum(own + control, 1))
        return np.where((acts == Act.PROMOTE) & (z > -float(ndtri(0.0005))), Act.INVALID, acts)

    def _take(self, look: Look) -> None:
        """Draw what the control arm logged of the champion's new requests and bad ones, by share at assignment."""
        logged = np.concatenate([look.counts.units[:, None, CHAMPION], look.counts.bad[:, :, CHAMPION]], axis=1)
        drawn = look.rng.binomial(logged - self._seen, look.shares / (1 - look.shares))
        self._control += drawn.sum(axis=-1)
        self._seen = logged.copy()

    def is_harmed(self, look: Look) -> Flags:
        """Return where the lower limit is above 0."""
        everything, control = Pool.of(look.counts), self._control.astype(float)
        pool = Pool(everything.bad, everything.units, control[:, 1:], control[:, :1])
        total = pool.units + pool.champion_units
        radius = sequential_radius(
            pool.variance, np.maximum(total, 1.0), alpha=ALPHA, tuned_at=self.tuned_at, is_one_sided=True
        )
        most, least = np.maximum(pool.bad, pool.champion_bad), np.minimum(pool.bad, pool.champion_bad)
        is_enough = most >= self.minimum if self.minimum else least >= 5
        return np.asarray(is_enough & (pool.difference > radius))


@dataclass
class Msprt(Scheduled):
    """The mixture SPRT on pooled counts."""

    name: str = "mSPRT, pooled"
    _tau: float = field(init=False, default=0.01)
    settings: str = "prior standard deviation half of the champion's usual rate, two-sided 5 %, one phase"

    def begin(self, stream: Stream, replicates: int) -> None:
        """Set the prior by the first guardrail's usual rate."""
        del replicates
        self._tau = 0.5 * stream.base[0]

    def is_harmed(self, look: Look) -> Flags:
        """Return where Lambda reaches 1/alpha and the challenger is worse."""
        pool = Pool.of(look.counts)
        variance = np.maximum(pool.variance_of_one_rate, 1e-300)
        log_lambda = msprt_log_lambda(pool.difference, variance, self._tau)
        is_any = pool.bad + pool.champion_bad > 0
        return np.asarray(is_any & (log_lambda >= math.log(1 / ALPHA)) & (pool.difference > 0))


@dataclass
class OverlapSequence(Scheduled):
    """The one-sided asymptotic confidence sequence on the overlap-weighted score, as in `seatrial.stats.means`."""

    name: str = "asymptotic CS, overlap"
    settings: str = (
        "one-sided 5 %, score weighted by overlap within each share, centred at earlier shares, tuned at the end of"
        " the second share, not before 50 units and 10 bad in each arm"
    )
    _base: Floats = field(init=False)
    _tuned_at: Floats = field(init=False)

    def begin(self, stream: Stream, replicates: int) -> None:
        """Tune at the variance planned for the end of the second share."""
        del replicates
        shares = np.array(stream.ramp.shares[:2])
        self._base = np.array(stream.base)
        self._tuned_at = (
            self._base * (1 - self._base) * (shares * (1 - shares)).sum() * (stream.ramp.ticks * stream.ramp.units)
        )

    def is_harmed(self, look: Look) -> Flags:
        """Return where log E reaches log(1/alpha)."""
        counts = look.counts
        log_e = overlap_log_e(counts.bad, counts.units, look.shares, first=self._base, tuned_at=self._tuned_at)
        is_enough = (counts.bad.sum(axis=-1).min(axis=-1) >= 10) & (counts.units.sum(axis=-1).min(axis=-1) >= 50)[
            :, None
        ]
        return np.asarray(is_enough & (log_e >= math.log(1 / ALPHA)))


def overlap_log_e(bad: Integers, units: Integers, shares: Floats, *, first: Floats, tuned_at: Floats) -> Floats:
    """Return what `means.log_e_above` says of `means.overlap_score`, for counts of all replicates."""
    k = bad.astype(float)
    n = np.broadcast_to(units[:, None].astype(float), k.shape)
    before_k = np.cumsum(k.sum(axis=2), axis=-1) - k.sum(axis=2)
    before_n = np.cumsum(n.sum(axis=2), axis=-1) - n.sum(axis=2)
    center = np.where(before_n > 0, before_k / np.maximum(before_n, 1.0), first[:, None])
    total, variance = np.zeros(k.shape[:2]), np.zeros(k.shape[:2])
    for arm, factor in ((CHALLENGER, 1 - shares), (CHAMPION, -shares)):
        kk, nn = k[:, :, arm], n[:, :, arm]
        total += (factor * (kk - center * nn)).sum(axis=-1)
        variance += (factor**2 * (kk * (1 - 2 * center) + center**2 * nn)).sum(axis=-1)
    mixing = (-2 * math.log(2 * ALPHA) + math.log1p(-2 * math.log(2 * ALPHA))) / tuned_at
    spread = variance * mixing + 1
    exponent = 0.5 * np.maximum(total, 0.0) ** 2 * mixing / spread
    with np.errstate(divide="ignore"):
        return np.asarray(math.log(2) + exponent + np.log(-np.expm1(-exponent)) - 0.5 * np.log(spread))
