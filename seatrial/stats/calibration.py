"""Judge whether scores of one release are probabilities, from counts of labels by bin of a score grid.

The null says that of units scored s a part p(s) is positive with |logit p(s) - logit s| <= tolerance. A bin knows
its edges and not the scores in it, so each direction gets the edge that favours the null: "more frequent than
scored" is tested against the upper edge u, "less frequent" against the lower. With b = logit u + tolerance and an
offset d >= 0 a unit multiplies E by

    s(b + d) / s(b) when positive,    (1 - s(b + d)) / (1 - s(b)) when negative,    s(x) = 1 / (1 + e^-x).

Its expectation is linear and not decreasing in p and equals 1 at p = s(b). So it is at most 1 for every p that the
null allows, whichever units came before, and this holds for any offsets d_b >= 0 fixed in advance, one for each
bin. Each log E is against one direction, so that an alternative about the slope bets in this direction only, and not
at all (d_b = 0) where the slope points the other way. The mixture over fixed offsets is a non-negative
supermartingale that starts at 1, and P(E ever reaches 1/alpha) <= alpha (Ville 1939).

Assumptions. A unit counts once, when its label has matured: were positives to arrive first, they would seem too
frequent. Labels must exist whatever the release decided, or be those of units chosen at random.

Expected calibration error without a correction for chance is not offered: in 15 bins it calls a perfectly calibrated
logistic-normal score .08 off at 200 labels and .02 at 5,000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.special import log_expit, logit, logsumexp

from seatrial.stats.kernel import FloatArray, require_counts
from seatrial.stats.scores import LOWEST, ScoreGrid, require_cuts

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Probability that stands for a score of exactly 0, and 1 minus it for exactly 1: the null gets wider by this much.
EPSILON = 1e-6
#: Logits that widen the null so that the rounding of a score at the edge of its bin cannot matter
_ROUNDING = 1e-9
#: Offsets, in logits beyond the null, that are the same in all bins; they carry half of the weight
_OFFSETS = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2)
#: Logits at which an alternative about the slope changes sign: scores of about .05, .5 and .95
_PIVOTS = (-3.0, 0.0, 3.0)
#: Offset per logit beyond the pivot
_SLOPES = (0.1, 0.2, 0.4)
#: Largest offset of an alternative about the slope, so that a few extreme scores do not decide alone
_STEEPEST = 2.0
#: Offsets at the certain end alone: of scores of exactly 0 about 5 in 100,000, or 2 in 100, are positive
_CERTAIN = (4.0, 10.0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Evidence that outcomes are not as frequent as scored, between two scores and in both directions."""

    #: lower edge of the lowest bin that was asked
    low: float
    #: upper edge of the highest bin that was asked
    high: float
    #: log E against "positives are at most as frequent as scored, up to the tolerance"
    log_e_more: float
    #: log E against "positives are at least as frequent as scored, up to the tolerance"
    log_e_less: float
    #: labelled units with a score in these bins; 0 of them are no evidence of calibration
    labelled: int
    #: positives among them
    positive: int
    #: labelled units whose score is missing or forbidden, which no null speaks about
    excluded: int


def in_the_large(labelled: npt.ArrayLike, positive: npt.ArrayLike, grid: ScoreGrid, *, tolerance: float) -> Calibration:
    """Return the evidence against calibration within `tolerance`, over all scores.

    Parameters
    ----------
    labelled, positive
        Units with a matured label, and positives among them, by bin of `grid`, shape (size,), one release.
    grid
        Grid of a probability, within [0, 1].
    tolerance
        Distance in logits that is still calibrated, at least 0; .1 is a tenth of the odds, about.

    Returns
    -------
    Calibration
        Both log E are 0 without labels, which is no sign of calibration. Reject one direction at
        ``log E >= log(1/alpha)``; both at alpha / 2 each.

    Raises
    ------
    ValueError
        When there are more positives than labels, a count is no whole number from 0, the grid leaves [0, 1] or
        the tolerance is below 0.

    Notes
    -----
    P(E ever >= 1/alpha) <= alpha for each direction at any number of looks (proof at the top of the module). The
    price of bins is power: a bin of .02 to .03 is asked whether positives are more frequent than .03 or less
    frequent than .02, and the bin next to 0 never whether they are less frequent. Scores of rare events need a
    bin width far below their rate. Half of the weight is on offsets that are the same in all bins, two fifths
    on slopes, a tenth on the scores that claim certainty.

    Examples
    --------
    >>> grid = ScoreGrid(bins=10)
    >>> labelled = [0, 0, 0] + [500] * 10 + [0]
    >>> calibrated = in_the_large(labelled, [0, 0, 0] + list(range(25, 500, 50)) + [0], grid, tolerance=0.0)
    >>> calibrated.log_e_more < 0 and calibrated.log_e_less < 0
    True
    >>> too_high = in_the_large(labelled, [0, 0, 0] + list(range(5, 305, 30)) + [0], grid, tolerance=0.0)
    >>> too_high.log_e_more < 0 and too_high.log_e_less > math.log(1000)
    True
    """
    return _Labels.of("in_the_large", labelled, positive, grid).judged(grid, tolerance, LOWEST, grid.size)


def in_bands(
    labelled: npt.ArrayLike, positive: npt.ArrayLike, grid: ScoreGrid, *, tolerance: float, bands: Sequence[int]
) -> tuple[Calibration, ...]:
    """Return the evidence against calibration within each of several bands of scores.

    Parameters
    ----------
    labelled, positive, grid, tolerance
        As in `in_the_large`.
    bands
        First bin of each band but the lowest, ascending, fixed before the data: `seatrial.stats.scores.deciles`
        of a reference window, or ``grid.index`` of a cut-off.

    Returns
    -------
    tuple of Calibration
        From the lowest band to the highest. Every band is two hypotheses, to be corrected for as such.

    Raises
    ------
    ValueError
        As `in_the_large`, and when a band would be empty.

    Examples
    --------
    >>> grid = ScoreGrid(bins=10)
    >>> labelled, positive = [0, 0, 0] + [400] * 10 + [0], [0, 0, 0] + [150] * 10 + [0]
    >>> low, high = in_bands(labelled, positive, grid, tolerance=0.0, bands=[8])
    >>> (low.low, low.high, high.high), low.log_e_more > 9, high.log_e_less > 9
    ((0.0, 0.5, 1.0), True, True)
    """
    labels = _Labels.of("in_bands", labelled, positive, grid)
    edges = [LOWEST, *require_cuts("in_bands.bands", bands, LOWEST, grid.size), grid.size]
    return tuple(labels.judged(grid, tolerance, first, end) for first, end in pairwise(edges))


@dataclass(frozen=True, slots=True, eq=False)
class Decomposition:
    """CORP decomposition of the Brier score: score = miscalibration - discrimination + uncertainty.

    Arrays have one entry for each bin with labels, in ascending order of the score.
    """

    #: Brier score of the middles of the bins
    score: float
    #: what recalibration would save, at least 0
    miscalibration: float
    #: what the recalibrated score saves against a constant, at least 0
    discrimination: float
    #: Brier score of the constant, the variance of the labels
    uncertainty: float
    #: middles of the bins
    scores: FloatArray
    #: labelled units of each bin
    labelled: FloatArray
    #: recalibrated probability of each bin, not decreasing: the reliability diagram
    recalibrated: FloatArray


def decomposition(labelled: npt.ArrayLike, positive: npt.ArrayLike, grid: ScoreGrid) -> Decomposition | None:
    """Return the CORP decomposition of the Brier score of the binned score, or None without labels.

    For a report: miscalibration is above 0 by chance alone and shrinks with more labels, so never gate on it.

    Parameters
    ----------
    labelled, positive, grid
        As in `in_the_large`.

    Raises
    ------
    ValueError
        As `in_the_large`.

    Notes
    -----
    The recalibrated curve is the isotonic regression of the labels on the score, weighted by labels
    (Dimitriadis, Gneiting and Jordan, PNAS 2021, arXiv:2008.03033). Exact for a score rounded to the
    middles of the bins; rounding changes the Brier score by at most one bin width.

    Examples
    --------
    >>> parts = decomposition([0, 0, 0, 100, 100, 0], [0, 0, 0, 10, 60, 0], ScoreGrid(bins=2))
    >>> round(parts.score, 4), round(parts.miscalibration - parts.discrimination + parts.uncertainty, 4)
    (0.1875, 0.1875)
    >>> parts.recalibrated.tolist()
    [0.1, 0.6]
    """
    labels = _Labels.of("decomposition", labelled, positive, grid)
    has_label = labels.is_scored & (labels.labelled > 0)
    if not has_label.any():
        return None
    n, k, scores = labels.labelled[has_label], labels.positive[has_label], grid.middle()[has_label]
    total, rate = n.sum(), k.sum() / n.sum()
    recalibrated = np.asarray(isotonic_regression(k / n, weights=n).x, dtype=np.float64)

    def brier(forecast: FloatArray) -> float:
        return float((k @ (1.0 - forecast) ** 2 + (n - k) @ forecast**2) / total)

    score, best, constant = brier(scores), brier(recalibrated), brier(np.full_like(scores, rate))
    return Decomposition(score, score - best, constant - best, constant, scores, n, recalibrated)


def debiased_error(labelled: npt.ArrayLike, positive: npt.ArrayLike, grid: ScoreGrid) -> float | None:
    """Return the debiased root mean squared calibration error, or None where no bin has two labels.

    For a report, in units of probability: it has no error rate, so never gate on it.

    Parameters
    ----------
    labelled, positive, grid
        As in `in_the_large`.

    Raises
    ------
    ValueError
        As `in_the_large`.

    Notes
    -----
    The mean over bins, weighted by labels, of (middle - rate)^2 - rate (1 - rate) / (n - 1), which is unbiased
    for the squared error of the binned score; its root, and 0 where it is below 0 (Kumar, Liang and Ma, NeurIPS
    2019, arXiv:1909.10155). A bin with a single label says nothing and is left out. Scores that crowd at one
    edge of their bin look off by at most half a bin width.

    Examples
    --------
    >>> round(debiased_error([0, 0, 0, 100, 100, 0], [0, 0, 0, 10, 60, 0], ScoreGrid(bins=2)), 4)
    0.1443
    >>> debiased_error([0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 0], ScoreGrid(bins=2)) is None
    True
    """
    labels = _Labels.of("debiased_error", labelled, positive, grid)
    has_two = labels.is_scored & (labels.labelled > 1)
    if not has_two.any():
        return None
    n, scores = labels.labelled[has_two], grid.middle()[has_two]
    rate = labels.positive[has_two] / n
    squared = n @ ((scores - rate) ** 2 - rate * (1.0 - rate) / (n - 1.0)) / n.sum()
    return math.sqrt(max(float(squared), 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Labels:
    """Checked counts of labels by bin."""

    labelled: FloatArray
    positive: FloatArray

    @classmethod
    def of(cls, place: str, labelled: npt.ArrayLike, positive: npt.ArrayLike, grid: ScoreGrid) -> _Labels:
        n, k = require_counts(f"{place}.labelled", labelled), require_counts(f"{place}.positive", positive)
        if not 0 <= grid.low < grid.high <= 1:
            raise ValueError(
                f"{place}.grid: found [{grid.low}, {grid.high}]; expected a range within [0, 1]; only a probability "
                "can be calibrated"
            )
        if n.shape != (grid.size,) or k.shape != n.shape or (k > n).any():
            raise ValueError(
                f"{place}: found shapes {n.shape} and {k.shape}, or more positives than labels; expected "
                f"({grid.size},) twice; count the positives among the labelled units"
            )
        return cls(n, k)

    @property
    def is_scored(self) -> npt.NDArray[np.bool_]:
        return np.arange(self.labelled.size) >= LOWEST

    def judged(self, grid: ScoreGrid, tolerance: float, first: int, end: int) -> Calibration:
        """Return the evidence of the bins from `first` to before `end`."""
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise ValueError(f"tolerance: found {tolerance!r}; expected a distance in logits, at least 0")
        band = slice(first, end)
        n, k = self.labelled[band], self.positive[band]
        lower, upper, middle = grid.lower()[band], grid.upper()[band], grid.middle()[band]
        return Calibration(
            low=float(lower[0]),
            high=float(upper[-1]),
            log_e_more=_log_e(k, n - k, upper, middle, tolerance),
            # To be less often positive is to be more often negative, and a negative was scored 1 - s.
            log_e_less=_log_e(n - k, k, 1.0 - lower, 1.0 - middle, tolerance),
            labelled=int(n.sum()),
            positive=int(k.sum()),
            excluded=int(self.labelled[:LOWEST].sum()),
        )


def _log_e(hits: FloatArray, misses: FloatArray, most: FloatArray, middle: FloatArray, tolerance: float) -> float:
    """Return log E against "in each bin a hit has at most the probability `most`, up to the tolerance"."""
    is_open = most < 1.0  # nothing is more frequent than always
    if not is_open.any():
        return 0.0
    hits, misses, most, middle = hits[is_open], misses[is_open], most[is_open], middle[is_open]
    null = logit(np.maximum(most, EPSILON)) + tolerance + _ROUNDING
    offsets, weights = _alternatives(middle)
    log_lr = (log_expit(null + offsets) - log_expit(null)) @ hits
    log_lr += (log_expit(-null - offsets) - log_expit(-null)) @ misses
    return float(logsumexp(log_lr, b=weights))


def _alternatives(middle: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return offsets by alternative and bin, none below 0, and the weight of each alternative."""
    beyond = logit(np.clip(middle, EPSILON, 1.0 - EPSILON)) - np.array(_PIVOTS)[:, None]
    sides = np.maximum(np.concatenate([beyond, -beyond]), 0.0)
    slopes = np.minimum(np.concatenate([slope * sides for slope in _SLOPES]), _STEEPEST)
    families = (
        np.outer(_OFFSETS, np.ones(middle.size)),
        slopes,
        np.outer(_CERTAIN, middle == 0.0),
    )
    weights = [np.full(len(rows), share / len(rows)) for rows, share in zip(families, (0.5, 0.4, 0.1), strict=True)]
    return np.concatenate(families), np.concatenate(weights)
