"""Bounds of a quantile from the order of the values alone, whatever their distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def quantile(values: ArrayLike, part: float) -> float:
    """Return the least value that at least `part` of `values` do not exceed; NaN for none.

    >>> quantile([5.0, 1.0, 3.0], 0.99), quantile([5.0, 1.0, 3.0], 0.5)
    (5.0, 3.0)
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return float(ordered[max(0, math.ceil(part * len(ordered)) - 1)]) if len(ordered) else math.nan


def quantile_bounds(values: ArrayLike, part: float, *, error: float) -> tuple[float, float]:
    """Return bounds of the quantile `part` of the distribution that `values` were drawn from, independently.

    Each bound is wrong with a chance of at most `error`: the count of values below the quantile is binomial (David and
    Nagaraja 2003, Order Statistics, section 7.1). Infinite where too few values were drawn: an upper bound of the
    99 % quantile at 5 % needs 299 of them.

    Parameters
    ----------
    values
        Independent draws, in any order and unit.
    part
        The quantile, in (0, 1).
    error
        Chance of each bound to be wrong, in (0, 0.5).

    Examples
    --------
    >>> quantile_bounds(range(298), 0.99, error=0.05)[1]
    inf
    >>> quantile_bounds(range(299), 0.99, error=0.05)
    (292.0, 298.0)
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    if not count:
        return -math.inf, math.inf
    # Loaded where it is needed: it takes a sixth of the time in which a process starts.
    from scipy.stats import binom  # noqa: PLC0415

    above = int(binom.ppf(1.0 - error, count, part))
    below = int(binom.ppf(error, count, part)) - 1
    upper = float(ordered[above]) if above < count else math.inf
    return float(ordered[below]) if below >= 0 else -math.inf, upper
