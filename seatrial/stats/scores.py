"""Count scores by the bins of a declared grid, and say in plain words when the challenger's have collapsed.

Scores enter as counts by bin of a declared `ScoreGrid`, so that a database and this module count alike and
counts of two periods merge by addition. `collapses` describes what no healthy release does and needs no error
rate. Whether the distribution moved, and how far, is asked in `seatrial.stats.shifts`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from seatrial.stats.kernel import FloatArray, require_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

IntArray = npt.NDArray[np.int64]

#: bins of a grid with a meaning of their own: no score, a score that breaks the contract, the lowest score
MISSING, OUTSIDE, LOWEST = 0, 1, 2
#: first bin strictly inside the grid
INSIDE = 3

#: units with a score in each arm, below which a histogram is not described as healthy
MINIMUM_UNITS = 500
#: share in one bin that is a collapse when it is also `MODAL_RATIO` times the champion's: 20 times an even share of 100
MODAL_SHARE = 0.2
#: how many times the champion's modal share; a bell of a third of the champion's width reaches it
MODAL_RATIO = 3.0
#: share of missing scores, and of scores at an end of the scale, above the champion's: far beyond chance at 500 units
EXCESS_SHARE = 0.05
#: how many times the champion's share, so that chance cannot reach it where the champion's share is large
EXCESS_RATIO = 1.5
#: part of the bins that the champion would occupy with as many units; a bell of half its width comes near
DISTINCT_RATIO = 0.5
#: part of the champion's normalised entropy; halving the width of a bell on 100 bins leaves more than .8
ENTROPY_RATIO = 0.7


@dataclass(frozen=True, slots=True)
class ScoreGrid:
    """Bins of a score with the declared range [`low`, `high`]; the ends, missing and forbidden scores stand alone.

    ValueError when the range is empty or not finite, or there is no bin.

    Examples
    --------
    >>> grid = ScoreGrid(bins=10)
    >>> grid.index([math.nan, 1.5, 0.0, 0.31, 1.0]).tolist()
    [0, 1, 2, 6, 13]
    """

    #: lowest score of the output contract
    low: float = 0.0
    #: highest score of the output contract
    high: float = 1.0
    #: number of bins of equal width strictly inside the range; 100 are fine enough for deciles of most scores
    bins: int = 100

    def __post_init__(self) -> None:
        if not (0 < self.high - self.low < math.inf and self.bins >= 1):
            raise ValueError(
                f"ScoreGrid: found low={self.low!r}, high={self.high!r}, bins={self.bins!r}; expected finite "
                "low < high and at least one bin; copy the range of the output contract"
            )

    @property
    def size(self) -> int:
        """Return the number of bins, special ones included."""
        return self.bins + 4

    def index(self, values: npt.ArrayLike) -> IntArray:
        """Return the bin of each value.

        0 is missing (NaN), 1 outside the range or infinite, 2 exactly `low`, `size` - 1 exactly `high`, and
        3 + min(floor((x - low) / (high - low) * bins), bins - 1) everything between, in this order of operations.
        """
        x = np.asarray(values, dtype=np.float64)
        is_inside = (x > self.low) & (x < self.high)
        position = np.where(is_inside, x - self.low, 0.0) / (self.high - self.low) * self.bins
        inside = INSIDE + np.minimum(np.floor(position), self.bins - 1).astype(np.int64)
        return np.select(
            [np.isnan(x), x == self.low, x == self.high, is_inside],
            [MISSING, LOWEST, self.size - 1, inside],
            default=OUTSIDE,
        ).astype(np.int64)

    def lower(self) -> FloatArray:
        """Return the lower edge of each bin; NaN for missing and forbidden scores."""
        return np.concatenate([[np.nan, np.nan, self.low], self._edges()[:-1], [self.high]])

    def upper(self) -> FloatArray:
        """Return the upper edge of each bin; NaN for missing and forbidden scores."""
        return np.concatenate([[np.nan, np.nan, self.low], self._edges()[1:], [self.high]])

    def middle(self) -> FloatArray:
        """Return the score that stands for each bin; NaN for missing and forbidden scores."""
        return np.asarray(0.5 * (self.lower() + self.upper()), dtype=np.float64)

    def _edges(self) -> FloatArray:
        return np.linspace(self.low, self.high, self.bins + 1)


@dataclass(frozen=True, slots=True)
class ScoreProfile:
    """Plain description of the scores of one arm; shares are in [0, 1]."""

    #: units with or without a score
    units: int
    #: units with a score inside the contract
    scored: int
    #: part of all units without a score
    missing_share: float
    #: part of all units with an infinite score or one outside the range
    outside_share: float
    #: part of the scored units at exactly the lowest score
    lowest_share: float
    #: part of the scored units at exactly the highest score
    highest_share: float
    #: part of the scored units in the fullest bin
    modal_share: float
    #: bins in which there is a scored unit
    distinct: int
    #: entropy of the scored units over the log of the number of bins, 0 (one bin) to 1 (all alike)
    entropy: float

    @classmethod
    def of(cls, counts: npt.ArrayLike) -> ScoreProfile | None:
        """Return the profile of counts of shape (epochs, size) or (size,), or None when there is no unit.

        Shares of scored units and the entropy are NaN when no unit has a score.

        >>> profile = ScoreProfile.of([1, 0, 0, 6, 2, 1])
        >>> profile.missing_share, round(profile.modal_share, 3), profile.distinct
        (0.1, 0.667, 3)
        """
        pooled = _by_epoch("ScoreProfile.of", counts).sum(axis=0)
        units, inside = float(pooled.sum()), pooled[LOWEST:]
        if units == 0:
            return None
        scored = float(inside.sum())
        shares = inside / scored if scored else np.full(inside.size, np.nan)
        return cls(
            units=int(units),
            scored=int(scored),
            missing_share=float(pooled[MISSING] / units),
            outside_share=float(pooled[OUTSIDE] / units),
            lowest_share=float(shares[0]),
            highest_share=float(shares[-1]),
            modal_share=float(shares.max()),
            distinct=int((inside > 0).sum()),
            entropy=float(entr(shares).sum() / math.log(shares.size)),
        )


def collapses(challenger: npt.ArrayLike, champion: npt.ArrayLike) -> list[str] | None:
    """Return in plain words how the challenger's scores have collapsed or exploded, or None when nobody can tell.

    Parameters
    ----------
    challenger, champion
        Counts by bin, shape (epochs, size) or (size,).

    Returns
    -------
    list or None
        One sentence for each finding; an empty list says that both arms had enough scores and nothing was
        found. None when nothing was found and an arm has fewer than `MINIMUM_UNITS` units with a score.

    Raises
    ------
    ValueError
        When a count is negative or fractional, or the arms have different bins.

    Notes
    -----
    Deterministic and without an error rate: the bounds, constants of this module, lie far outside what
    chance does to `MINIMUM_UNITS` units of equal arms. A score outside the contract is a finding at any
    number of units. Fewer units occupy fewer bins, so the challenger's bins are compared with those expected of
    as many units with the champion's shares (as in rarefaction; Hurlbert 1971, Ecology 52).

    Examples
    --------
    >>> champion = [0, 0, 0] + [50] * 20 + [0]
    >>> collapses([0, 0, 0] + [0] * 9 + [1000] + [0] * 10 + [0], champion)[0]
    '100.0% of the scores are in one bin; the champion has at most 5.0% in one'
    >>> collapses(champion, champion)
    []
    >>> collapses([0] * 24, champion) is None
    True
    """
    pair = ScoreCounts.of("collapses", challenger, champion)
    k1, k0 = pair.challenger.sum(axis=0), pair.champion.sum(axis=0)
    ours, theirs = ScoreProfile.of(k1), ScoreProfile.of(k0)
    if ours is None:
        return None
    found = _broken_contract(ours)
    if theirs is None or min(ours.units, theirs.units) < MINIMUM_UNITS:
        return found or None
    found += _lost_scores(ours, theirs)
    if min(ours.scored, theirs.scored) < MINIMUM_UNITS:
        return found or None
    return found + _lost_shape(ours, theirs, _expected_distinct(k0[LOWEST:], ours.scored))


def deciles(counts: npt.ArrayLike) -> tuple[int, ...]:
    """Return the cut points of super-bins that each hold about a tenth of a reference histogram.

    Parameters
    ----------
    counts
        Counts of the champion by bin, shape (epochs, size) or (size,), from a window before the test. Cut
        points made from the counts that are tested would void the guarantee.

    Returns
    -------
    tuple of int
        First bin of every super-bin inside the grid but the first, ascending. A bin that holds a tenth by
        itself, such as a constant score, stands alone.

    Raises
    ------
    ValueError
        When no unit of the reference has a score strictly inside the grid.

    Examples
    --------
    >>> deciles([0, 0, 5] + [10] * 20 + [5])
    (5, 7, 9, 11, 13, 15, 17, 19, 21)
    >>> deciles([0, 0, 0, 1, 90, 1, 1, 0])
    (4, 5)
    """
    pooled = _by_epoch("deciles", counts).sum(axis=0)
    inside = pooled[INSIDE:-1]
    if inside.sum() == 0:
        raise ValueError(
            "deciles: found no score strictly inside the grid; expected a reference window of the champion; "
            "declare the range that its scores have"
        )
    tenths = np.cumsum(inside) / inside.sum() * 10.0
    # The last tenth ends with the grid and needs no cut; the sum of shares may end just below 10.
    completed = np.minimum(np.floor(tenths + 1e-9), 9.0)
    crossed = np.flatnonzero(np.diff(completed, prepend=0.0) > 0)
    heavy = np.flatnonzero(inside >= inside.sum() / 10.0)
    cuts = INSIDE + np.union1d(np.concatenate([crossed, heavy]) + 1, heavy)
    return tuple(int(cut) for cut in cuts if INSIDE < cut < pooled.size - 1)


def require_cuts(place: str, cuts: Sequence[int], first: int, end: int) -> list[int]:
    """Return bins that divide those from `first` to before `end` into parts that are not empty, or refuse them.

    >>> require_cuts("in_bands.bands", [5, 9], 2, 24)
    [5, 9]
    """
    is_ascending = all(a < b for a, b in pairwise([first, *cuts, end]))
    if not (is_ascending and all(float(cut).is_integer() for cut in cuts)):
        raise ValueError(
            f"{place}: found {list(cuts)}; expected ascending bins from {first + 1} to {end - 1}; make them with "
            "deciles from a window before the test, and leave out where the lowest part begins"
        )
    return [int(cut) for cut in cuts]


def _by_epoch(place: str, values: npt.ArrayLike) -> FloatArray:
    """Return counts of one arm with shape (epochs, size)."""
    counts = require_counts(place, values)
    if counts.ndim not in (1, 2) or counts.shape[-1] < ScoreGrid(bins=1).size:
        raise ValueError(
            f"{place}: found shape {counts.shape}; expected (epochs, size) or (size,) with the bins of a ScoreGrid"
        )
    return np.atleast_2d(counts)


@dataclass(frozen=True, slots=True, eq=False)
class ScoreCounts:
    """Checked counts of both arms, shape (epochs, size)."""

    challenger: FloatArray
    champion: FloatArray

    @classmethod
    def of(cls, place: str, challenger: npt.ArrayLike, champion: npt.ArrayLike) -> ScoreCounts:
        """Return checked counts of both arms, or refuse them in a message that begins with `place`."""
        k1, k0 = _by_epoch(f"{place}.challenger", challenger), _by_epoch(f"{place}.champion", champion)
        if k1.shape != k0.shape:
            raise ValueError(
                f"{place}: found shapes {k1.shape} and {k0.shape}; expected the same epochs and bins in both arms; "
                "give zeros where nothing was counted"
            )
        return cls(k1, k0)

    def averaged(self, first: int) -> tuple[float, FloatArray, FloatArray] | None:
        """Return H and both histograms from bin `first` on, averaged over the epochs that have both arms."""
        k1, k0 = self.challenger[:, first:], self.champion[:, first:]
        n, m = k1.sum(axis=-1), k0.sum(axis=-1)
        has_both = (n > 0) & (m > 0)
        if not has_both.any():
            return None
        k1, k0, n, m = k1[has_both], k0[has_both], n[has_both], m[has_both]
        weights = n * m / (n + m)
        total = float(weights.sum())
        return total, (weights / n) @ k1 / total, (weights / m) @ k0 / total


def _broken_contract(ours: ScoreProfile) -> list[str]:
    if ours.outside_share == 0:
        return []
    return [f"{ours.outside_share:.3%} of the scores are infinite or outside the contract, which allows none"]


def _lost_scores(ours: ScoreProfile, theirs: ScoreProfile) -> list[str]:
    if not _is_excess(ours.missing_share, theirs.missing_share):
        return []
    return [f"{ours.missing_share:.1%} of the units have no score; of the champion's {theirs.missing_share:.1%}"]


def _lost_shape(ours: ScoreProfile, theirs: ScoreProfile, expected_distinct: float) -> list[str]:
    """Return what is wrong with a histogram of enough units; `expected_distinct` is of the champion."""
    found = []
    if ours.modal_share > max(MODAL_SHARE, MODAL_RATIO * theirs.modal_share):
        found.append(
            f"{ours.modal_share:.1%} of the scores are in one bin; the champion has at most "
            f"{theirs.modal_share:.1%} in one"
        )
    ends = (("lowest", ours.lowest_share, theirs.lowest_share), ("highest", ours.highest_share, theirs.highest_share))
    found += [
        f"{here:.1%} of the scores are exactly the {end} possible; of the champion's {there:.1%}"
        for end, here, there in ends
        if _is_excess(here, there)
    ]
    if ours.distinct < DISTINCT_RATIO * expected_distinct:
        found.append(
            f"the scores occupy {ours.distinct} bins; as many of the champion's would occupy {expected_distinct:.0f}"
        )
    if ours.entropy < ENTROPY_RATIO * theirs.entropy:
        found.append(f"the entropy of the scores is {ours.entropy:.2f}; the champion's {theirs.entropy:.2f}")
    return found


def _is_excess(here: float, there: float) -> bool:
    return here > max(there + EXCESS_SHARE, EXCESS_RATIO * there)


def _expected_distinct(counts: FloatArray, units: int) -> float:
    """Return how many bins as many units as given occupy on average when drawn with the shares of `counts`."""
    return float(-np.expm1(units * np.log1p(-np.minimum(counts / counts.sum(), 1.0 - 1e-12))).sum())
