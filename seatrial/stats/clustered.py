"""The mean of values that come in groups, with an error that does not take a group's values for independent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class ClusteredMean:
    """A mean and its error."""

    mean: float  #: of all values
    error: float  #: standard error; infinite for a single group
    groups: int  #: number of groups

    def bound(self, level: float) -> float:
        """Return the value that the true mean is below with probability `level`, in (0, 1).

        Student's t with one degree of freedom less than there are groups; infinite for a single one.
        """
        if self.groups < 2:  # noqa: PLR2004 one group has no spread
            return math.inf if level > 0.5 else -math.inf  # noqa: PLR2004 the median
        return self.mean + float(stdtrit(self.groups - 1, level)) * self.error


def clustered_mean(values: ArrayLike, groups: NDArray[np.int64] | None = None) -> ClusteredMean:
    """Return the mean of `values` with the error of a mean over groups.

    Parameters
    ----------
    values
        One or more finite numbers.
    groups
        The group of each value, as integers; None when each is its own.

    Notes
    -----
    The linearised ("sandwich") variance of a ratio of group totals with the factor G / (G - 1): Liang and Zeger (1986),
    Longitudinal data analysis using generalized linear models, Biometrika 73, for the mean alone. With groups of one
    it is the usual error of a mean. It needs independent groups, and a dozen or more for the t quantile to be fair.

    Examples
    --------
    >>> alone = clustered_mean([1.0, 2.0, 3.0, 4.0])
    >>> round(alone.mean, 3), round(alone.error, 3)
    (2.5, 0.645)
    >>> twice = clustered_mean([1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0], np.repeat(np.arange(4), 2))
    >>> round(twice.error, 3)
    0.645
    """
    numbers = np.asarray(values, dtype=np.float64)
    count = len(numbers)
    mean = float(numbers.mean())
    labels = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    totals = np.bincount(labels, weights=numbers - mean)
    size = len(totals)
    if size < 2:  # noqa: PLR2004 one group has no spread
        return ClusteredMean(mean, math.inf, size)
    error = math.sqrt(size / (size - 1) * float((totals**2).sum())) / count
    return ClusteredMean(mean, error, size)
