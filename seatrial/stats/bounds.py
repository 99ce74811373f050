"""Two-sided limits for the mean of row values, exact where rows are independent indicators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincinv

from seatrial.stats.clustered import clustered_mean

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: With fewer groups than these the error of a mean over groups is not to be trusted.
FEWEST_GROUPS = 12


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its limits."""

    estimate: float
    low: float
    high: float


def rate_limits(hits: int, rows: int, *, alpha: float) -> Interval:
    """Return the limits of a share, each missed with probability at most alpha / 2; without a row nothing is known.

    Exact for independent rows (Clopper and Pearson, Biometrika 1934).

    >>> limits = rate_limits(10, 100, alpha=0.05)
    >>> round(limits.low, 4), round(limits.high, 4)
    (0.049, 0.1762)
    """
    if rows == 0:
        return Interval(float("nan"), 0.0, 1.0)
    low = float(betaincinv(hits, rows - hits + 1, alpha / 2.0)) if hits else 0.0
    high = float(betaincinv(hits + 1, rows - hits, 1.0 - alpha / 2.0)) if hits < rows else 1.0
    return Interval(hits / rows, low, high)


def mean_limits(values: ArrayLike, groups: NDArray[np.int64] | None, *, alpha: float) -> Interval:
    """Return the limits of a mean, each missed with probability alpha / 2 or less.

    Parameters
    ----------
    values
        Finite numbers, shape (n,).
    groups
        The group of each; None takes rows for independent.
    alpha
        Probability that the true mean is outside, in (0, 1).

    Notes
    -----
    For independent rows that are all -1, 0 or 1 (an indicator, or the difference of two) the limits are exact, at any
    n: those of the share of 1s less those of the share of -1s, each at half of alpha when both occur in the question.
    All else is Student's t over groups (`seatrial.stats.clustered`), which is approximate and says nothing (infinite
    limits) below `FEWEST_GROUPS` groups. Groups that all have one mean would seem to leave no doubt at all; the limits
    for independent groups' worth of rows then stand instead.

    Examples
    --------
    >>> found = mean_limits([1.0, 0.0, -1.0, 0.0] * 50, None, alpha=0.05)
    >>> round(found.estimate, 3), round(found.low, 3), round(found.high, 3)
    (0.0, -0.141, 0.141)
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        return Interval(float("nan"), -float("inf"), float("inf"))
    is_sign = bool(np.isin(numbers, (-1.0, 0.0, 1.0)).all())
    if groups is None and is_sign:
        return _difference(numbers, numbers.size, alpha)
    seen = clustered_mean(numbers, groups)
    if seen.groups < FEWEST_GROUPS:
        return Interval(seen.mean, -float("inf"), float("inf"))
    if seen.error == 0.0:
        if is_sign:
            return _difference(np.full(seen.groups, numbers[0]), seen.groups, alpha)
        return Interval(seen.mean, -float("inf"), float("inf"))
    return Interval(seen.mean, seen.bound(alpha / 2.0), seen.bound(1.0 - alpha / 2.0))


def _difference(signs: NDArray[np.float64], rows: int, alpha: float) -> Interval:
    # Differences have both shares in question; which of them occurs in the sample must not choose the level.
    more = rate_limits(int((signs > 0).sum()), rows, alpha=alpha / 2.0)
    less = rate_limits(int((signs < 0).sum()), rows, alpha=alpha / 2.0)
    return Interval(more.estimate - less.estimate, more.low - less.high, more.high - less.low)
