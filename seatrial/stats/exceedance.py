"""Judge a latency tail by how often a frozen threshold is exceeded, and show it by a mergeable sketch.

Two estimated quantiles are not compared. The champion's quantile of an earlier window is frozen as a
threshold; from then on a unit above it is a bad unit, and `seatrial.stats.kernel.harm` judges the counts.
Any threshold is valid, because both arms meet it at the same time; a good one costs nothing but four
counters. The sketch serves people who want to read a p99: each quantile within 1 % of the exact one
(Masson, Rim and Lee, VLDB 2019, arXiv:1908.10693).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seatrial.stats.kernel import FloatArray, require_counts

#: relative error of a quantile of a sketch
RELATIVE_ERROR = 0.01
#: values up to here share the first bucket: 10 microseconds when the values are milliseconds
SMALLEST = 0.01
#: values above, a timeout among them, share the last bucket: nearly three hours when they are milliseconds
LARGEST = 1e7

#: width of a bucket on the log scale
LOG_GAMMA = math.log((1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR))
#: number of buckets of every sketch
BUCKETS = math.ceil(math.log(LARGEST / SMALLEST) / LOG_GAMMA) + 2


def freeze_quantile(values: npt.ArrayLike, level: float) -> float | None:
    """Return the exact order statistic of `values` at `level`, to be frozen as a threshold.

    Parameters
    ----------
    values
        Champion's values in a window before the rollout, such as latencies in ms; infinity is "no answer".
    level
        Quantile in (0, 1), such as .99.

    Returns
    -------
    float or None
        The ceil(n level)-th smallest value. None when fewer than one value is expected above it
        (n (1 - level) < 1): the window is too short to have such a quantile.

    Raises
    ------
    ValueError
        When a value is NaN or `level` is outside (0, 1).

    Examples
    --------
    >>> freeze_quantile(range(1, 201), 0.99)
    198.0
    >>> freeze_quantile([10.0, 12.0], 0.99) is None
    True
    """
    ordered = np.sort(_require_values("freeze_quantile", values))
    rank = _rank(ordered.size, level, "freeze_quantile")
    return None if ordered.size - rank < 1 else float(ordered[rank - 1])


def exceedances(values: npt.ArrayLike, threshold: float) -> int:
    """Return how many `values` are above `threshold`; infinity, "no answer", is.

    Raises
    ------
    ValueError
        When a value is NaN, or the threshold is not finite: then nothing could ever exceed it.

    Examples
    --------
    >>> exceedances([90.0, 250.0, math.inf], 200.0)
    2
    """
    if not math.isfinite(threshold):
        raise ValueError(
            f"exceedances.threshold: found {threshold!r}; expected a finite value; freeze it from a window "
            "in which the champion answers"
        )
    return int((_require_values("exceedances", values) > threshold).sum())


@dataclass(frozen=True, slots=True, eq=False)
class LatencySketch:
    """Counts of values in buckets of equal relative width; two sketches merge exactly with ``+``.

    Bucket i holds the values in (gamma^(i-1), gamma^i] times `SMALLEST`, gamma = 1.01/0.99. Made for
    latencies in ms; any positive quantity between `SMALLEST` and `LARGEST` will do. ValueError when counts
    do not fit.
    """

    #: whole numbers, one for each bucket
    counts: FloatArray

    def __post_init__(self) -> None:
        counts = np.array(require_counts("LatencySketch.counts", self.counts))
        if counts.shape != (BUCKETS,):
            raise ValueError(
                f"LatencySketch.counts: found shape {counts.shape}; expected {BUCKETS} buckets; make it "
                "with LatencySketch.of"
            )
        counts.flags.writeable = False
        object.__setattr__(self, "counts", counts)

    @classmethod
    def of(cls, values: npt.ArrayLike) -> LatencySketch:
        """Return the sketch of `values`, each at least 0; infinity is "no answer"; NaN is refused.

        >>> LatencySketch.of([5.0, 7.0]).size
        2
        """
        observed = _require_values("LatencySketch.of", values)
        if (observed < 0).any():
            raise ValueError("LatencySketch.of: found a negative value; expected durations; check the clock")
        inside = np.clip(observed, SMALLEST, LARGEST)
        bucket = np.ceil(np.log(inside / SMALLEST) / LOG_GAMMA).astype(np.int64)
        bucket[observed > LARGEST] = BUCKETS - 1
        return cls(np.bincount(bucket, minlength=BUCKETS).astype(np.float64))

    def __add__(self, other: LatencySketch) -> LatencySketch:
        """Return the sketch of both sets of values."""
        return LatencySketch(self.counts + other.counts)

    @property
    def size(self) -> int:
        """Return the number of values."""
        return int(self.counts.sum())

    def quantile(self, level: float) -> float | None:
        """Return the quantile at `level` in (0, 1), within 1 % of the exact order statistic.

        Returns
        -------
        float or None
            None of an empty sketch; infinity when the quantile is above `LARGEST`; at most `SMALLEST` is
            shown as `SMALLEST`.

        Examples
        --------
        >>> abs(LatencySketch.of(range(1, 1001)).quantile(0.99) / 990 - 1) < 0.01
        True
        >>> LatencySketch.of([]).quantile(0.5) is None
        True
        """
        rank = _rank(self.size, level, "LatencySketch.quantile")
        if self.size == 0:
            return None
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        if bucket == BUCKETS - 1:
            return math.inf
        # The middle of the bucket, (1 - error) times its upper end, is within the error of both ends.
        return SMALLEST if bucket == 0 else SMALLEST * math.exp(bucket * LOG_GAMMA) * (1.0 - RELATIVE_ERROR)


def _rank(size: int, level: float, place: str) -> int:
    """Return the rank of the quantile at `level` among `size` values, from 1."""
    if not 0 < level < 1:
        raise ValueError(f"{place}.level: found {level!r}; expected a quantile in (0, 1), such as 0.99")
    # Floating point makes 200 * 0.99 a little more or less than 198: round before rounding up.
    return max(math.ceil(round(size * level, 9)), 1)


def _require_values(place: str, values: npt.ArrayLike) -> FloatArray:
    """Return `values` as a flat array without NaN."""
    observed = np.asarray(values, dtype=np.float64).ravel()
    if np.isnan(observed).any():
        raise ValueError(f"{place}.values: found NaN; expected a value or infinity; count missing values elsewhere")
    return observed
