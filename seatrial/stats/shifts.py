"""Judge whether the scores of two releases are distributed alike, and tell how far apart they are.

`distribution_shift` tests whether the arms differ at all. `effect_sizes` says by how much, for a reader, and never
decides.

The test asks of each unit which arm it was in, given its bin. When the score distributions of the arms are equal
within an allocation epoch, that is the assignment probability rho_s, whatever the distribution is and however it
drifts. A fixed tilt g_b says how much likelier the challenger is to score in bin b:

    P1(challenger | bin b, epoch s) = rho_s e^g_b / (rho_s e^g_b + 1 - rho_s)
    log LR(g) = sum_b g_b K1_b - sum_s,b (K1_sb + K0_sb) log(1 + rho_s (e^g_b - 1))

Each factor is an exact likelihood ratio of Bernoulli laws, so every mixture over fixed tilts is a non-negative
martingale that starts at 1 (Lindon and Malek, NeurIPS 2022, arXiv:2011.03567, applied bin by bin), and
P(E ever reaches 1/alpha) <= alpha (Ville 1939). A shift of scores explains and warns; it is no harm by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp, rel_entr

from seatrial.stats.kernel import FloatArray, require_counts, require_probabilities
from seatrial.stats.scores import INSIDE, LOWEST, MISSING, OUTSIDE, IntArray, ScoreCounts, ScoreGrid, require_cuts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

#: Log factors for each bin alone, in both directions: odds from 1.05 to 5
_BIN_TILTS = np.geomspace(0.05, 1.6, 6)
_BIN_TILTS.flags.writeable = False
#: Typical sizes of these tilts that are tried, with equal weights
_BIN_SCALES = (0.1, 0.3, 0.9)
#: Slopes over the ranks of the scores, which run from -1 to 1, for shift and spread, in both directions
_SLOPES = (0.1, 0.2, 0.4, 0.8)
#: Factors of one bin in which scores have gathered
_GATHERED = (1.5, 2.5, 5.0)


def distribution_shift(
    challenger: npt.ArrayLike, champion: npt.ArrayLike, rho: npt.ArrayLike, *, cut_points: Sequence[int]
) -> float | FloatArray:
    """Return log E against "within every epoch the scores of both arms have one distribution".

    Parameters
    ----------
    challenger, champion
        Counts by bin, shape (..., epochs, size); a unit counts once, so with sticky assignment it is the
        entity. Missing and forbidden scores are bins too.
    rho
        Known probability that a unit of the epoch was assigned to the challenger, shape (epochs,), in (0, 1).
    cut_points
        First bins of the super-bins inside the grid, as from `deciles`; fixed before the data.

    Returns
    -------
    float or array
        log E with the leading shape; 0 without units, which is no sign of equality.

    Raises
    ------
    ValueError
        When counts, probabilities or cut points are out of range, or shapes disagree.

    Notes
    -----
    Under the null P(E ever >= 1/alpha) <= alpha, at any number of looks, through any ramp and any drift that
    both arms share. Half of the weight is on super-bins that gain or lose on their own (in each a
    symmetric mixture of log factors, the same in all epochs, for three sizes of effect); half is on causes
    that move many at once: a shift, a spread, scores that gather in one super-bin. Assumes that units are
    assigned as recorded, which `seatrial.stats.srm` tests.

    Examples
    --------
    >>> champion = [[0, 0, 0] + [450] * 10 + [0]]
    >>> same = distribution_shift([[0, 0, 0] + [50] * 10 + [0]], champion, [0.1], cut_points=range(4, 13))
    >>> moved = [[0, 0, 0] + [20, 30, 40, 45, 50, 50, 55, 60, 70, 80] + [0]]
    >>> same < 0 and distribution_shift(moved, champion, [0.1], cut_points=range(4, 13)) > math.log(1000)
    True
    """
    place = "distribution_shift"
    shares = require_probabilities(f"{place}.rho", rho)
    k1, k0 = (
        require_counts(f"{place}.{name}", counts)
        for name, counts in (("challenger", challenger), ("champion", champion))
    )
    if k1.ndim in (0, 1) or k1.shape != k0.shape or shares.shape != k1.shape[-2:-1]:
        raise ValueError(
            f"{place}: found shapes {k1.shape}, {k0.shape} and rho {shares.shape}; expected "
            "(..., epochs, size) twice and one probability for each epoch"
        )
    starts = _starts(place, cut_points, k1.shape[-1])
    gained = np.add.reduceat(k1, starts, axis=-1).sum(axis=-2)
    units = np.add.reduceat(k1 + k0, starts, axis=-1)
    log_e = np.logaddexp(_each_alone(gained, units, shares), _together(gained, units, shares)) - math.log(2.0)
    return float(log_e) if log_e.ndim == 0 else np.asarray(log_e, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the challenger's scores are from the champion's; sizes for a reader, never for a gate.

    The population stability index of two equal arms is on average `psi_null_mean`, so that the customary bounds
    .1 and .25 mean another thing at each number of units.
    """

    #: population stability index over the super-bins
    psi: float
    #: its approximate mean when the arms are equal, at these numbers of units
    psi_null_mean: float
    #: Jensen-Shannon divergence over the super-bins in nats, 0 to log 2
    jensen_shannon: float
    #: its approximate mean when the arms are equal
    jensen_shannon_null_mean: float
    #: Wasserstein-1 distance of the scored units, in units of the score, from the middles of the bins
    wasserstein: float
    #: difference of the mean scores, challenger minus champion, in units of the score
    mean_difference: float


def effect_sizes(
    challenger: npt.ArrayLike, champion: npt.ArrayLike, grid: ScoreGrid, *, cut_points: Sequence[int]
) -> Shift | None:
    """Return how far the arms are apart, or None when in no epoch both arms have a scored unit.

    Never decide by these numbers: they have no error rate, and they grow as units become few.

    Parameters
    ----------
    challenger, champion
        Counts by bin of `grid`, shape (epochs, size) or (size,).
    grid
        Where the bins lie.
    cut_points
        Super-bins for the index and the divergence, as from `deciles`.

    Raises
    ------
    ValueError
        When counts, cut points or their shapes do not fit the grid.

    Notes
    -----
    Histograms are averaged over epochs with one weight for both arms, h = n m / (n + m) for n and m units, so
    that a ramp does not mix drift into the difference. With H the sum of h and B occupied super-bins the index
    of equal arms has a mean of about (B - 1) / H, which is (B - 1)(1/n + 1/m) in a single epoch (Yurdakul
    2018), and the divergence an eighth of it, by its expansion to second order. One unit in all is spread
    over the super-bins, so that an empty one is not infinitely far away.

    Examples
    --------
    >>> same = effect_sizes([0, 0, 0, 50, 50, 0], [0, 0, 0, 50, 50, 0], ScoreGrid(bins=2), cut_points=[4])
    >>> same.psi, same.psi_null_mean, same.wasserstein
    (0.0, 0.02, 0.0)
    """
    pair = ScoreCounts.of("effect_sizes", challenger, champion)
    starts = _starts("effect_sizes", cut_points, grid.size)
    if pair.challenger.shape[-1] != grid.size:
        raise ValueError(
            f"effect_sizes: found {pair.challenger.shape[-1]} bins; expected the {grid.size} of the grid; count "
            "with the grid that is given"
        )
    whole, scored = pair.averaged(0), pair.averaged(LOWEST)
    if whole is None or scored is None:
        return None
    weight, *shares = whole
    p, q = (np.add.reduceat(share, starts) for share in shares)
    is_occupied = p + q > 0
    occupied = int(is_occupied.sum())
    p, q = ((weight * share[is_occupied] + 1.0 / occupied) / (weight + 1.0) for share in (p, q))
    middle = 0.5 * (p + q)
    null_mean = (occupied - 1) / weight
    scores = grid.middle()[LOWEST:]
    gap = scored[1] - scored[2]
    return Shift(
        psi=float((p - q) @ np.log(p / q)),
        psi_null_mean=null_mean,
        jensen_shannon=float(0.5 * (rel_entr(p, middle) + rel_entr(q, middle)).sum()),
        jensen_shannon_null_mean=null_mean / 8.0,
        wasserstein=float(np.abs(np.cumsum(gap)[:-1]) @ np.diff(scores)),
        mean_difference=float(gap @ scores),
    )


def _starts(place: str, cut_points: Sequence[int], size: int) -> IntArray:
    """Return the first bin of every super-bin: the special bins alone, the others divided by `cut_points`."""
    cuts = require_cuts(f"{place}.cut_points", cut_points, INSIDE, size - 1)
    return np.array([MISSING, OUTSIDE, LOWEST, INSIDE, *cuts, size - 1], dtype=np.int64)


def _log_factors(tilts: FloatArray, shares: FloatArray) -> FloatArray:
    """Return log(1 + rho (e^g - 1)) by epoch and tilt, the price of a unit whichever arm it was in."""
    return np.log1p(shares[(slice(None), *[None] * tilts.ndim)] * np.expm1(tilts))


def _each_alone(gained: FloatArray, units: FloatArray, shares: FloatArray) -> FloatArray:
    """Return log E of super-bins that gain or lose on their own, from counts (..., B) and (..., epochs, B)."""
    tilts = np.concatenate([-_BIN_TILTS[::-1], _BIN_TILTS])
    log_lr = gained[..., None] * tilts - np.swapaxes(units, -1, -2) @ _log_factors(tilts, shares)
    scales = np.array(_BIN_SCALES)[:, None]
    # Points at equal log distances stand for a density in the log factor, hence the factor |g|.
    weights = np.abs(tilts) * np.exp(-0.5 * (tilts / scales) ** 2)
    log_weights = np.log(weights / weights.sum(axis=-1, keepdims=True))
    of_scale = logsumexp(log_lr[..., None, :, :] + log_weights[:, None, :], axis=-1).sum(axis=-1)
    return np.asarray(logsumexp(of_scale, axis=-1) - math.log(len(_BIN_SCALES)), dtype=np.float64)


def _together(gained: FloatArray, units: FloatArray, shares: FloatArray) -> FloatArray:
    """Return log E of the causes that move many super-bins at once."""
    log_lrs = []
    for tilts in _directions(gained.shape[-1]):
        price = np.tensordot(units, _log_factors(tilts, shares), axes=([-2, -1], [0, 2]))
        log_lrs.append(logsumexp(gained @ tilts.T - price, axis=-1) - math.log(len(tilts)))
    return np.asarray(logsumexp(log_lrs, axis=0) - math.log(len(log_lrs)), dtype=np.float64)


def _directions(super_bins: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return log factors by tilt and super-bin, for a shift, a spread and scores gathered in one super-bin."""
    rank = np.zeros(super_bins)
    rank[LOWEST:] = np.linspace(-1.0, 1.0, super_bins - LOWEST)
    spread = np.where(np.arange(super_bins) < LOWEST, 0.0, 2.0 * np.abs(rank) - 1.0)
    slopes = np.array([*_SLOPES, *(-slope for slope in _SLOPES)])[:, None]
    gathered = np.concatenate([math.log(factor) * np.eye(super_bins) for factor in _GATHERED])
    shift, spread, gathered = (
        # Shares sum to 1: where some super-bins gain, the others lose, if the reference held a tenth in each.
        tilts - np.log(np.exp(tilts[:, INSIDE:-1]).mean(axis=-1, keepdims=True))
        for tilts in (slopes * rank, slopes * spread, gathered)
    )
    return shift, spread, gathered
