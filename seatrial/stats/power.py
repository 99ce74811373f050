"""Say before a rollout how many units a decision will need: limits of information, and what a test needs beyond them.

A bad unit is the challenger's with probability theta(r) = rho r / (rho r + 1 - rho), see `seatrial.stats.kernel`.
From each served unit a test of bad units learns I = pbar kl(theta(r), rho) about a ratio r, with pbar = p0 (rho r + 1 -
rho) the chance that it is bad at all; so no such test of error alpha that always finds harm needs fewer than
log(1/alpha) / I units on average (Wald 1945; Agrawal and Ramdas, arXiv:2504.19952). The mixture of the kernel pays for
not knowing r; Laplace's approximation of its integral says how much.

Nothing here decides anything: a wrong rate makes a wrong forecast, never a wrong verdict.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import rel_entr

from seatrial.stats.horizon import Spending, crossing, limits, obrien_fleming
from seatrial.stats.rate import below

#: scale of the half-normal prior on log r in `seatrial.stats.kernel.half_normal`
_SIGMA = 0.6
#: log(1 + margin) beyond which a margin counts as none
_FARTHEST = 27.0
#: bad units beyond which a rate so close to its bound counts as one that cannot be shown
_MOST_BAD = 20_000


def smallest_exposure(ratio: float, *, rate: float, alpha: float) -> float:
    """Return how many of the challenger's units any test needs on average when the champion's rate is known.

    Parameters
    ----------
    ratio
        The challenger's rate over the champion's, above 1.
    rate
        The champion's rate of bad units, in (0, 1).
    alpha
        Error of the test, in (0, 1).

    Returns
    -------
    float
        log(1/alpha) / kl(ratio * rate, rate), in units of the challenger: what a share near 0 comes close to.

    Raises
    ------
    ValueError
        When a number is outside its range, or `ratio` * `rate` reaches 1.

    Notes
    -----
    A lower bound, by Wald's identity, for every test of error `alpha` that finds the harm with probability 1.

    Examples
    --------
    >>> [round(smallest_exposure(r, rate=0.02, alpha=0.05)) for r in (1.25, 1.5, 2, 3)]
    [5066, 1352, 378, 112]
    """
    _require_harm("smallest_exposure", ratio, rate, alpha)
    return math.log(1.0 / alpha) / _divergence(ratio * rate, rate)


def exposure_limit(ratio: float, *, rate: float, rho: float, alpha: float) -> float:
    """Return how many of the challenger's units any test that counts bad units needs on average.

    Parameters
    ----------
    ratio, rate, alpha
        As in `smallest_exposure`.
    rho
        The challenger's share, in (0, 1).

    Raises
    ------
    ValueError
        As `smallest_exposure`, and when `rho` is outside (0, 1).

    Notes
    -----
    rho log(1/alpha) / I. It grows with the share, for the champion's units tell less when there are fewer of them.

    Examples
    --------
    >>> [round(exposure_limit(2, rate=0.02, rho=rho, alpha=0.05)) for rho in (0.01, 0.1, 0.5)]
    [393, 443, 882]
    """
    _require_harm("exposure_limit", ratio, rate, alpha)
    _require_inside("exposure_limit.rho", rho)
    return rho * math.log(1.0 / alpha) / _information(ratio, rate=rate, rho=rho)


def expected_exposure(ratio: float, *, rate: float, rho: float, alpha: float) -> float:
    """Return about how many of the challenger's units `seatrial.stats.kernel.harm` needs on average.

    Parameters
    ----------
    ratio, rate, rho, alpha
        As in `exposure_limit`; alpha is the hypothesis' own part of the budget.

    Raises
    ------
    ValueError
        As `exposure_limit`.

    Notes
    -----
    rho (log(1/alpha) + log(J / 2 pi) / 2 - log pi(log r)) / I, with J = rho (1 - rho) D the information on log r in the
    D bad units of the lower limit and pi the half-normal density of the prior (Laplace's approximation). In twenty
    settings (ratios 1.25 to 3, shares 1 to 50 %, rate 2 %) simulated means were 0.89 to 1.14 times as large, and the
    eightieth percentile 1.8 to 2.3 times the limit. A constant share, onset at the start and no delay are assumed.

    Examples
    --------
    >>> round(expected_exposure(2, rate=0.02, rho=0.1, alpha=0.05))
    525
    """
    limit = exposure_limit(ratio, rate=rate, rho=rho, alpha=alpha)
    information = limit * (1.0 - rho) * rate * (rho * ratio + 1.0 - rho)
    density = math.sqrt(2.0 / math.pi) / _SIGMA * math.exp(-0.5 * (math.log(ratio) / _SIGMA) ** 2)
    penalty = max(0.0, 0.5 * math.log(information / (2.0 * math.pi)) - math.log(density))
    return limit * (1.0 + penalty / math.log(1.0 / alpha))


def information_to_show(margin: float, *, alpha: float) -> float:
    """Return the information at which half of the equal releases are shown not to be worse by `margin`.

    Parameters
    ----------
    margin
        Relative worsening to rule out, above 0.
    alpha
        Error of the test, in (0, 1).

    Returns
    -------
    float
        2 log(1/alpha) / log(1 + margin)^2, in units of sum_s rho_s (1 - rho_s) D_s over epochs s with D_s bad units of
        both arms. Divided by rho (1 - rho) it is the number of bad units at a constant share.

    Raises
    ------
    ValueError
        When the margin is not above 0 or `alpha` is outside (0, 1).

    Notes
    -----
    At r = 1 the expected log LR of D bad units is about rho (1 - rho) D log(1 + margin)^2 / 2, from the expansion of
    the divergence at a small margin. In simulations of `seatrial.stats.kernel.noninferiority` at alpha 5 % the median
    was 0.94 (margin 15 %) to 0.78 times as much (margin 100 %), and the eightieth percentile 1.8 to 1.3 times.

    Examples
    --------
    >>> round(information_to_show(0.1, alpha=0.05) / (0.1 * 0.9))
    7328
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(
            f"information_to_show.margin: found {margin!r}; expected a number above 0; no amount of evidence "
            "shows that a release is not worse at all"
        )
    _require_inside("information_to_show.alpha", alpha)
    return 2.0 * math.log(1.0 / alpha) / math.log1p(margin) ** 2


def margin_shown(information: float, *, alpha: float) -> float:
    """Return the smallest relative margin that half of the equal releases are shown to keep; the inverse of the above.

    Parameters
    ----------
    information
        Sum of rho (1 - rho) D, not negative; of none, no margin can be shown and the answer is infinite.
    alpha
        Error of the test, in (0, 1).

    Raises
    ------
    ValueError
        When `information` is negative or not a number, or `alpha` is outside (0, 1).

    Examples
    --------
    >>> round(margin_shown(information_to_show(0.1, alpha=0.05), alpha=0.05), 12), margin_shown(0.0, alpha=0.05)
    (0.1, inf)
    """
    if not information >= 0:
        raise ValueError(f"margin_shown.information: found {information!r}; expected a number from 0; count bad units")
    _require_inside("margin_shown.alpha", alpha)
    distance = math.sqrt(2.0 * math.log(1.0 / alpha) / information) if information > 0 else math.inf
    return math.expm1(distance) if distance < _FARTHEST else math.inf


@lru_cache(maxsize=4096)
def units_to_show(bad: int, *, bound: float, alpha: float) -> int:
    """Return the fewest units among which `bad` bad ones show that the rate is below `bound`.

    Parameters
    ----------
    bad
        Number of bad units, not negative.
    bound
        Rate in (0, 1) of `seatrial.stats.rate.below`.
    alpha
        Error of the test, in (0, 1).

    Raises
    ------
    ValueError
        As `seatrial.stats.rate.below`, and for `alpha` outside (0, 1).

    Notes
    -----
    Exact: the evidence grows with every good unit.

    Examples
    --------
    >>> units_to_show(0, bound=0.03, alpha=0.05), units_to_show(10, bound=0.03, alpha=0.05)
    (125, 737)
    """
    _require_inside("units_to_show.alpha", alpha)
    needed = math.log(1.0 / alpha)
    least, enough = bad, max(bad, 1)
    while below(bad, enough, bound=bound) < needed:
        least, enough = enough, 2 * enough
    while enough - least > 1:
        middle = (least + enough) // 2
        least, enough = (middle, enough) if below(bad, middle, bound=bound) < needed else (least, middle)
    return enough


def units_to_stay_below(rate: float, *, bound: float, alpha: float) -> float:
    """Return about how many units half of the releases with this rate need to be shown to stay below `bound`.

    Parameters
    ----------
    rate
        True rate of bad units, in [0, 1).
    bound, alpha
        As in `units_to_show`.

    Returns
    -------
    float
        Units of the arm, infinite when `rate` is not so far below `bound` that evidence would grow.

    Raises
    ------
    ValueError
        As `units_to_show`, and when `rate` is outside [0, 1).

    Examples
    --------
    >>> units_to_stay_below(0.0, bound=0.03, alpha=0.05), units_to_stay_below(0.03, bound=0.03, alpha=0.05)
    (125.0, inf)
    """
    if not 0 <= rate < 1:
        raise ValueError(f"units_to_stay_below.rate: found {rate!r}; expected a rate from 0 to below 1; correct it")
    # With as many bad units as expected, the evidence grows with the units or it never does.
    units = float(units_to_show(0, bound=bound, alpha=alpha))
    while (needed := units_to_show(round(rate * units), bound=bound, alpha=alpha)) > units:
        # A step of at least one in a hundred overshoots by no more than that, and ends when the demand runs away.
        units = max(float(needed), 1.01 * units)
        if rate * units > _MOST_BAD:
            return math.inf
    return units


def planned_units(
    ratio: float,
    *,
    rate: float,
    rho: float,
    alpha: float,
    power: float = 0.8,
    looks: int = 10,
    spending: Spending = obrien_fleming,
) -> float:
    """Return how many of the challenger's units a test with a planned horizon needs to have that power at its end.

    Parameters
    ----------
    ratio, rate, rho, alpha
        As in `exposure_limit`.
    power
        Probability of finding the harm by the end, in (`alpha`, 1).
    looks
        Looks at equal steps of information, at least 1.
    spending
        As in `seatrial.stats.horizon.limits`.

    Raises
    ------
    ValueError
        As `exposure_limit`, and when `power` or `looks` is outside its range.

    Notes
    -----
    Lan and DeMets (Biometrika 1983) in the normal approximation of `seatrial.stats.horizon`: information n m p (1 -
    p) / (n + m) on the log odds ratio, at the pooled rate p under harm.

    Examples
    --------
    >>> round(planned_units(1.5, rate=0.02, rho=0.1, alpha=0.05))
    2030
    """
    _require_harm("planned_units", ratio, rate, alpha)
    _require_inside("planned_units.rho", rho)
    if not (alpha < power < 1 and looks >= 1):
        raise ValueError(
            f"planned_units: found power={power!r} and looks={looks!r}; expected a power between alpha and 1 and at"
            " least one look; correct them"
        )
    drift = _drift(alpha, power, looks, spending)
    pooled = rate * (rho * ratio + 1.0 - rho)
    effect = math.log(ratio * (1.0 - rate) / (1.0 - ratio * rate))
    return float((drift / effect) ** 2 / ((1.0 - rho) * pooled * (1.0 - pooled)))


@lru_cache(maxsize=128)
def _drift(alpha: float, power: float, looks: int, spending: Spending) -> float:
    """Return the effect that is found with that power, in units of one over the root of the information at the end."""
    steps = np.arange(1.0, looks + 1.0) / looks
    bounds = limits(steps, maximum=1.0, alpha=alpha, spending=spending)
    return float(brentq(lambda effect: crossing(bounds, steps, effect=effect).sum() - power, 0.0, 40.0, xtol=1e-6))


def _information(ratio: float, *, rate: float, rho: float) -> float:
    """Return what one served unit of either arm tells about `ratio`, in nats."""
    odds = rho * ratio + 1.0 - rho
    return rate * odds * _divergence(rho * ratio / odds, rho)


def _divergence(one: float, other: float) -> float:
    """Return the Kullback-Leibler divergence of two probabilities of a binary outcome."""
    return float(rel_entr(one, other) + rel_entr(1.0 - one, 1.0 - other))


def _require_harm(place: str, ratio: float, rate: float, alpha: float) -> None:
    """Refuse a ratio that is no harm, or a rate that it would lift to certainty."""
    _require_inside(f"{place}.rate", rate)
    _require_inside(f"{place}.alpha", alpha)
    if not 1 < ratio < 1.0 / rate:
        raise ValueError(
            f"{place}.ratio: found {ratio!r} at a rate of {rate!r}; expected a ratio above 1 whose rate stays below 1; "
            "ask for less harm"
        )


def _require_inside(place: str, value: float) -> None:
    """Refuse what is not strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{place}: found {value!r}; expected a number strictly between 0 and 1; correct it")
