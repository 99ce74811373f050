"""Test a rollout of planned length by group sequential limits: more power at small effects, at the price of a plan.

The tests of `seatrial.stats.kernel` may go on for ever. When the amount of information at the end is planned, the error
can be spent up to that point and nothing is kept for later: alpha(t) of it by information fraction t (Lan and DeMets,
Biometrika 1983). Limits on z follow from the joint normal law of the looks by numerical integration, look by look
(Armitage, McPherson and Rowe, JRSS-A 1969; Jennison and Turnbull, "Group sequential methods", 2000, chapter 19).

The statistic is stratified by allocation epoch, so that neither a ramp nor a drift of the base rate enters. The
guarantee is that of the normal limit, and the counts of a small share are skewed: in simulated ramps whose first look
expects eight bad units of the challenger, a nominal error of 5 % was 5.0 to 5.7 %. It needs a rule for looking that
does not follow the statistic, and a maximum that was fixed before the rollout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from seatrial.stats.kernel import FloatArray, require_counts

#: z beyond which the normal law has no mass that counts: its tail is 6e-16
_FARTHEST = 8.0
#: error that is put off to the next look rather than spent, because no z below `_FARTHEST` could spend it
_TOO_LITTLE = 1e-13
#: Gauss-Legendre rule of one panel of integration, and the width of a panel in deviations of an increment
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_PANEL = 5.0
#: share of the planned maximum that a look must add to be tested; less is not resolved by the integration
MINIMUM_STEP = 0.004

#: error spent up to an information fraction in [0, 1], given the error of the whole test
Spending = Callable[[float, float], float]


@dataclass(frozen=True, slots=True, eq=False)
class Stratified:
    """Score statistic of two arms over epochs, one number for each look."""

    #: bad units of the challenger above those expected if assignment were all that tells the arms apart
    score: FloatArray
    #: variance of `score` given all bad units, the information about the log odds ratio
    information: FloatArray

    @property
    def z(self) -> FloatArray:
        """Return score / sqrt(information), above 0 for harm; NaN without information."""
        known = np.where(self.information > 0, self.information, np.nan)
        return np.asarray(self.score / np.sqrt(known), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class PlannedTest:
    """All looks so far of a test with a planned horizon."""

    #: statistic of each look; NaN without information
    z: FloatArray
    #: information of each look as a fraction of the planned maximum; above 1 when the rollout overran
    fraction: FloatArray
    #: limit of each look; infinite where the look is not tested
    limit: FloatArray

    @property
    def is_harmful(self) -> bool:
        """Return whether z reached its limit at any look."""
        return bool((self.z >= self.limit).any())

    @property
    def is_finished(self) -> bool:
        """Return whether the planned information is there; without a crossing it shows no harm, nor safety."""
        return bool((self.fraction >= 1.0).any())


def obrien_fleming(fraction: float, alpha: float) -> float:
    """Return the error spent by a function like O'Brien and Fleming's: hardly any early, nearly all late.

    2 - 2 Phi(z(alpha/2) / sqrt(t)), Lan and DeMets 1983, for one side.

    >>> round(obrien_fleming(0.5, 0.025), 6), round(obrien_fleming(1.0, 0.025), 12)
    (0.001525, 0.025)
    """
    if fraction <= 0:
        return 0.0
    return float(2.0 * ndtr(ndtri(alpha / 2.0) / math.sqrt(fraction)))


def pocock(fraction: float, alpha: float) -> float:
    """Return the error spent by a function like Pocock's: nearly equal limits, for harm that must be found early.

    alpha log(1 + (e - 1) t), Lan and DeMets 1983.

    >>> round(pocock(0.5, 0.025), 6), round(pocock(1.0, 0.025), 12)
    (0.015503, 0.025)
    """
    return alpha * math.log1p((math.e - 1.0) * fraction)


def limits(
    information: npt.ArrayLike, *, maximum: float, alpha: float, spending: Spending = obrien_fleming
) -> FloatArray:
    """Return the limit on z of each look.

    Parameters
    ----------
    information
        Information of each look, shape (looks,), above 0 and increasing.
    maximum
        Planned information at the end, above 0. All error is spent when it is reached.
    alpha
        Error of the whole one-sided test, in (0, 1).
    spending
        `obrien_fleming`, `pocock`, or any non-decreasing function from 0 to `alpha`.

    Returns
    -------
    array
        Shape (looks,). Infinite for a look that adds less than `MINIMUM_STEP` of the maximum, for one that may spend
        next to nothing yet, and once all error is spent. What a look does not spend is left to the next one.

    Raises
    ------
    ValueError
        When information does not increase, or `maximum` or `alpha` is outside its range.

    Notes
    -----
    P(z ever reaches its limit) = alpha at the last look at `maximum`, for z with the covariances sqrt(I_j / I_k) that
    every efficient statistic has. Only looks so far are needed, so that a limit once given never moves.

    Examples
    --------
    >>> limits([1, 2, 3, 4, 5], maximum=5, alpha=0.025).round(3).tolist()
    [4.877, 3.357, 2.68, 2.29, 2.031]
    >>> limits([1, 2, 3, 4, 5], maximum=5, alpha=0.025, spending=pocock).round(3).tolist()
    [2.438, 2.427, 2.41, 2.397, 2.386]
    """
    _require_plan("limits", maximum, alpha)
    looks = _increasing("limits", information)
    found = np.full(looks.size, np.inf)
    law, limit, spent = None, math.inf, 0.0
    for look, now in enumerate(looks):
        if now - (law.now if law else 0.0) < MINIMUM_STEP * maximum:
            continue
        law = law.then(limit, now) if law else _Law.first(now)
        due = _spent(spending, now / maximum, alpha) - spent
        limit = math.inf
        if due > _TOO_LITTLE:
            limit = found[look] = law.limit(due)
            spent += due
    return found


def crossing(limit: npt.ArrayLike, information: npt.ArrayLike, *, effect: float = 0.0) -> FloatArray:
    """Return the probability that z first reaches its limit at each look; their sum is the power of the plan.

    Parameters
    ----------
    limit
        Limit on z of each look, infinite for a look without a test.
    information
        Information of each look, above 0 and increasing.
    effect
        True effect in units of 1 / sqrt(information), for `stratified` the log odds ratio.

    Raises
    ------
    ValueError
        When the shapes differ, a limit is NaN, the effect is not finite or information does not increase.

    Notes
    -----
    z of a look is normal with mean effect sqrt(I) and variance 1. Steps below a thousandth of the information so far
    are beyond the resolution of the integration.

    Examples
    --------
    >>> looks = [1.0, 2.0, 3.0, 4.0, 5.0]
    >>> float(crossing(limits(looks, maximum=5, alpha=0.025), looks).sum().round(6))
    0.025
    >>> float(crossing(limits(looks, maximum=5, alpha=0.025), looks, effect=1.5).sum().round(3))
    0.913
    """
    at = np.asarray(limit, dtype=np.float64)
    looks = _increasing("crossing", information)
    if at.shape != looks.shape or np.isnan(at).any() or not math.isfinite(effect):
        raise ValueError(
            f"crossing: found {at.size} limits, {looks.size} looks and effect {effect!r}; expected one limit that is "
            "not NaN for each look and a finite effect; give infinity for a look without a test"
        )
    chances = np.zeros(looks.size)
    law = None
    for look, now in enumerate(looks):
        law = law.then(at[look - 1], now) if law else _Law.first(now, effect)
        chances[look] = law.beyond(at[look])
    return chances


def stratified(
    challenger_bad: npt.ArrayLike,
    challenger_units: npt.ArrayLike,
    champion_bad: npt.ArrayLike,
    champion_units: npt.ArrayLike,
) -> Stratified:
    """Return how many more bad units the challenger has than its part, summed over epochs, with its variance.

    Parameters
    ----------
    challenger_bad, challenger_units, champion_bad, champion_units
        Counts of each arm, shape (..., S): S epochs of constant assignment; leading axes are looks. A unit counts once
        its label has matured, good and bad alike.

    Returns
    -------
    Stratified
        Arrays of the leading shape; 0 information where no epoch tells the arms apart.

    Raises
    ------
    ValueError
        When a count is not one, an arm has more bad units than units, or shapes differ.

    Notes
    -----
    Given the units of each arm and all K bad units among N of an epoch, random assignment makes the challenger's bad
    units hypergeometric, whatever the drift within the epoch: mean n K / N, variance n (N - n) K (N - K) / (N^2 (N -
    1)) (Mantel and Haenszel, JNCI 1959). Increments between looks are uncorrelated.

    Examples
    --------
    >>> found = stratified([30, 60], [1000, 2000], [20, 50], [1000, 2000])
    >>> found.score.item(), round(found.z.item(), 3)
    (10.0, 1.602)
    """
    names = ("challenger_bad", "challenger_units", "champion_bad", "champion_units")
    counts = (challenger_bad, challenger_units, champion_bad, champion_units)
    bad, n, other_bad, m = (require_counts(f"stratified.{name}", of) for name, of in zip(names, counts, strict=True))
    if not (bad.ndim >= 1 and bad.shape == n.shape == other_bad.shape == m.shape):
        raise ValueError(
            f"stratified: found shapes {bad.shape}, {n.shape}, {other_bad.shape} and {m.shape}; expected (..., epochs) "
            "four times; give zeros where an arm had no unit"
        )
    if not ((bad <= n) & (other_bad <= m)).all():
        raise ValueError(
            "stratified: found more bad units than units; expected the units among which they were counted; count both "
            "over the same window"
        )
    both, all_bad = n + m, bad + other_bad
    size = np.maximum(both, 2.0)  # an epoch of one unit tells nothing: its variance is 0 whatever it is divided by
    score = bad - n * all_bad / size
    variance = n * m * all_bad * (both - all_bad) / (size**2 * (size - 1.0))
    return Stratified(score.sum(axis=-1), variance.sum(axis=-1))


def planned_test(
    looks: Stratified, *, maximum: float, alpha: float, spending: Spending = obrien_fleming
) -> PlannedTest:
    """Return whether the challenger was found harmful at any of the looks so far.

    Parameters
    ----------
    looks
        From `stratified` on cumulative counts of shape (looks, epochs), in order of time.
    maximum, alpha, spending
        As in `limits`; the maximum is best set from the planned units: the sum over epochs of n m p (1 - p) / (n + m).

    Returns
    -------
    PlannedTest
        A look without new information is not tested. That no limit was reached is no evidence of safety.

    Raises
    ------
    ValueError
        When the looks are not one axis, or `maximum` or `alpha` is outside its range.

    Examples
    --------
    >>> units = [[1000, 0], [1000, 2000]]
    >>> looks = stratified([[30, 0], [30, 60]], units, [[20, 0], [20, 50]], units)
    >>> tested = planned_test(looks, maximum=120.0, alpha=0.05)
    >>> tested.is_harmful, tested.fraction.round(2).tolist(), tested.limit.round(2).tolist()
    (False, [0.1, 0.32], [6.04, 3.25])
    """
    _require_plan("planned_test", maximum, alpha)
    if looks.information.ndim != 1:
        raise ValueError(
            f"planned_test: found looks of shape {looks.information.shape}; expected one axis of looks; give counts of "
            "shape (looks, epochs)"
        )
    before = np.maximum.accumulate(np.concatenate([[0.0], looks.information]))[:-1]
    is_new = looks.information > before
    limit = np.full(is_new.size, np.inf)
    limit[is_new] = limits(looks.information[is_new], maximum=maximum, alpha=alpha, spending=spending)
    return PlannedTest(looks.z, looks.information / maximum, limit)


@dataclass(frozen=True, slots=True, eq=False)
class _Law:
    """Law of the score at a look, among paths that reached no limit before: a mixture of normal increments."""

    #: information of the look
    now: float
    #: true effect, the drift of the score by information
    effect: float
    #: scores of the look before, at nodes of integration
    nodes: FloatArray
    #: their probabilities
    mass: FloatArray
    #: standard deviation of the increment from there
    deviation: float

    @classmethod
    def first(cls, now: float, effect: float = 0.0) -> _Law:
        """Return the law of the first look, from a score of 0 without information."""
        return cls(now, effect, np.zeros(1), np.ones(1), math.sqrt(now))

    def beyond(self, z: float) -> float:
        """Return the probability that this look is the first whose z reaches its limit, `z`."""
        return float(self.mass @ ndtr(-self._standardised(z * math.sqrt(self.now))[0]))

    def limit(self, chance: float) -> float:
        """Return the z that this look is the first to reach with this probability."""
        return float(brentq(lambda z: self.beyond(z) - chance, -_FARTHEST, _FARTHEST, xtol=1e-10))

    def then(self, limit: float, later: float) -> _Law:
        """Return the law of a later look, among paths whose z is below `limit` at this one."""
        middle, reach = self.effect * self.now, _FARTHEST * math.sqrt(self.now)
        low = middle - reach
        high = max(min(limit * math.sqrt(self.now), middle + reach), low)
        deviation = math.sqrt(later - self.now)
        # A limit leaves an edge that only the increment after it smooths: panels must resolve the shorter of the two.
        panels = max(1, math.ceil((high - low) / (_PANEL * min(deviation, self.deviation))))
        half = 0.5 * (high - low) / panels
        middles = low + half * (2.0 * np.arange(panels) + 1.0)
        nodes = (middles[:, None] + half * _NODES).ravel()
        density = np.exp(-0.5 * self._standardised(nodes) ** 2) @ self.mass / self.deviation / math.sqrt(2.0 * math.pi)
        return _Law(later, self.effect, nodes, half * np.tile(_WEIGHTS, panels) * density, deviation)

    def _standardised(self, scores: npt.ArrayLike) -> FloatArray:
        """Return the increment that leads from each node to each score, standardised, one row for each score."""
        increments = np.asarray(scores, dtype=np.float64).reshape(-1, 1) - self.nodes
        return (increments - self.effect * self.deviation**2) / self.deviation


def _spent(spending: Spending, fraction: float, alpha: float) -> float:
    """Return the error that may be spent so far, or refuse a function that spends more than there is."""
    total = spending(min(fraction, 1.0), alpha)
    if not 0 <= total <= alpha * (1 + 1e-9):
        raise ValueError(
            f"limits.spending: found an error of {total!r} at {fraction!r} of the information; expected a number from "
            f"0 to alpha={alpha!r}; use obrien_fleming or pocock"
        )
    return total


def _increasing(place: str, information: npt.ArrayLike) -> FloatArray:
    """Return the information of all looks, or refuse what is not positive and increasing."""
    looks = np.asarray(information, dtype=np.float64)
    if looks.ndim != 1 or not (np.isfinite(looks).all() and (np.diff(looks, prepend=0.0) > 0).all()):
        raise ValueError(
            f"{place}.information: found numbers that are not finite, above 0 and increasing along one axis; expected "
            "cumulative information; leave out a look that adds none"
        )
    return looks


def _require_plan(place: str, maximum: float, alpha: float) -> None:
    """Refuse a plan without an end or without an error to spend."""
    if not (math.isfinite(maximum) and maximum > 0 and 0 < alpha < 1):
        raise ValueError(
            f"{place}: found maximum={maximum!r}, alpha={alpha!r}; expected planned information above 0 and an error "
            "in (0, 1); set both before the rollout"
        )
