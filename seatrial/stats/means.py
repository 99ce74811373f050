"""Compare means and ratios of sums of two arms at every look: amounts, losses, totals of an entity.

Two families. The asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Annals of
Statistics 2024, arXiv:2103.06476) needs no bound on the observations and holds in the limit of a late first
look, so nothing is said below `MINIMUM_UNITS` and `MINIMUM_NONZERO`. Betting (Waudby-Smith and Ramdas, JRSS-B
2024, arXiv:2010.09686) needs bounds and is exact from the first observation.

Under a ramp the arms are compared within allocation epochs by the overlap-weighted score

    psi_i = (A_i - rho_s) (K_i - m_s N_i),    S = sum psi_i,    V = sum psi_i^2,
    W = sum rho_s (1 - rho_s) N_i

with A_i = 1 in the challenger's arm and N_i = 1 for a mean. S / W estimates the difference. The centre m_s is
the pooled ratio of earlier epochs, hence known before the epoch. It is a matter of width only: a centre that
is off by c standard deviations of a unit makes V larger by the factor 1 + c^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from seatrial.stats.kernel import FloatArray, require_counts, require_probabilities

#: units of each arm below which the normal limit is not trusted
MINIMUM_UNITS = 50
#: units with a value other than 0 of each arm, below which a variance is not trusted
MINIMUM_NONZERO = 10
#: stakes of `bets` as fractions of the largest that cannot lose everything
STAKES = np.geomspace(0.005, 0.9, 16)
STAKES.flags.writeable = False


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Mergeable sums of one arm by epoch: K is the value of a unit, N its denominator (1 for a mean).

    All arrays have shape (S,), and two of them merge with ``+``, epoch by epoch. The unit is the entity when
    assignment is sticky; its window must be closed, because a window that still grows makes the units of the
    two arms differ in age. ValueError when a sum is impossible.
    """

    #: number of units
    units: FloatArray
    #: number of units with K other than 0
    nonzero: FloatArray
    #: sum of K
    k: FloatArray
    #: sum of N; equal to `units` for a mean
    n: FloatArray
    #: sum of K^2
    kk: FloatArray
    #: sum of K N
    kn: FloatArray
    #: sum of N^2
    nn: FloatArray

    def __post_init__(self) -> None:
        for field in fields(self):
            array = np.array(getattr(self, field.name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, field.name, array)
        require_counts("Sums.units", self.units)
        require_counts("Sums.nonzero", self.nonzero)
        arrays = [getattr(self, field.name) for field in fields(self)]
        if self.units.ndim != 1 or any(array.shape != self.units.shape for array in arrays):
            raise ValueError(
                f"Sums: found shapes {[array.shape for array in arrays]}; expected one number for "
                "each epoch in every array; give (epochs,) seven times"
            )
        slack = 1e-9 * (self.kk * self.units)
        is_possible = (
            (self.nonzero <= self.units)
            & (self.n >= 0)
            & (self.nn >= 0)
            & (self.k**2 <= self.kk * self.units + slack)
            & (self.n**2 <= self.nn * self.units * (1 + 1e-9))
        )
        if not (all(np.isfinite(array).all() for array in arrays) and is_possible.all()):
            raise ValueError(
                "Sums: found sums that no set of units has, or that are not finite; expected sums of K, N "
                "and their products over the same units; leave out units without a value, count them "
                "elsewhere"
            )

    def __add__(self, other: Sums) -> Sums:
        """Return the sums of both sets of units, epoch by epoch."""
        return Sums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @classmethod
    def of(
        cls,
        values: npt.ArrayLike,
        epoch: npt.ArrayLike,
        epochs: int,
        denominators: npt.ArrayLike | None = None,
    ) -> Sums:
        """Return the sums of single units.

        Parameters
        ----------
        values
            K of each unit, shape (units,), finite.
        epoch
            Index of the epoch of each unit, 0 to `epochs` - 1.
        epochs
            Number of epochs S.
        denominators
            N of each unit, at least 0; None is 1, the mean of K.

        Raises
        ------
        ValueError
            When a value is not finite or lengths disagree.

        Examples
        --------
        >>> Sums.of([2.0, 0.0, 5.0], [0, 0, 1], 2).k.tolist()
        [2.0, 5.0]
        """
        k = np.asarray(values, dtype=np.float64)
        n = np.ones_like(k) if denominators is None else np.asarray(denominators, dtype=np.float64)
        where = np.asarray(epoch, dtype=np.int64)
        if not k.shape == n.shape == where.shape or (where.size and where.max() >= epochs):
            raise ValueError(
                f"Sums.of: found shapes {k.shape}, {n.shape} and {where.shape} and {epochs} epochs; expected "
                "one value, denominator and epoch below the number of epochs for each unit"
            )

        def add(of: FloatArray) -> FloatArray:
            return np.bincount(where, weights=of, minlength=epochs).astype(np.float64)

        return cls(add(np.ones_like(k)), add((k != 0).astype(np.float64)), *map(add, (k, n, k * k, k * n, n * n)))


@dataclass(frozen=True, slots=True)
class Score:
    """What a look has cumulated: S / W estimates the effect, V the variance of S.

    ValueError when a number is not finite, V is below 0 or W is not above 0.
    """

    #: S, in units of K
    total: float
    #: V, in squared units of K
    variance: float
    #: W, in units of N
    weight: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.total) and 0 <= self.variance < math.inf and 0 < self.weight < math.inf):
            raise ValueError(
                f"Score: found S={self.total!r}, V={self.variance!r}, W={self.weight!r}; expected finite "
                "numbers with V >= 0 and W > 0; without them there is nothing to judge"
            )

    @property
    def estimate(self) -> float:
        """Return the estimated effect S / W."""
        return self.total / self.weight


def overlap_score(challenger: Sums, champion: Sums, rho: npt.ArrayLike, *, center: float = 0.0) -> Score | None:
    """Return the overlap-weighted score of challenger minus champion, or None below the minimum counts.

    Parameters
    ----------
    challenger, champion
        Sums of each arm, by epoch in order of time.
    rho
        Known probability of assignment to the challenger, shape (S,), 0 < rho < 1.
    center
        Expected ratio (or mean) in the first epoch, from a window before the rollout. Later epochs are
        centred at the pooled ratio of the epochs before them.

    Returns
    -------
    Score or None
        None when an arm has fewer than `MINIMUM_UNITS` units or `MINIMUM_NONZERO` values other than 0: the
        answer is then "not known", never a number.

    Raises
    ------
    ValueError
        When epochs disagree, `rho` is outside (0, 1) or `center` is not finite.

    Notes
    -----
    For a mean, S - W delta is a martingale when the difference is delta in every epoch, whatever the drift;
    otherwise the estimate is the average of the differences with weights rho (1 - rho) n. For a ratio the
    same holds when the denominators of both arms have one mean, and nearly so when m_s is near the ratio.
    The textbook score A/rho - (1-A)/(1-rho) is valid too, but a stage of 1 % dominates its variance.

    The order of epochs matters only through the centre. Do not use it for sums that still grow: a late value
    would change the centre of epochs that it did not precede.

    Examples
    --------
    >>> arm = Sums.of([1.0, 3.0] * 50, [0] * 100, 1)
    >>> overlap_score(arm, arm, [0.5], center=2.0).estimate
    0.0
    >>> overlap_score(Sums.of([1.0], [0], 1), arm, [0.5]) is None
    True
    """
    shares = require_probabilities("overlap_score.rho", rho)
    if not challenger.units.shape == champion.units.shape == shares.shape:
        raise ValueError(
            f"overlap_score: found {challenger.units.size}, {champion.units.size} and {shares.size} epochs; "
            "expected the same number; give the sums of an arm without units as zeros"
        )
    if not math.isfinite(center):
        raise ValueError(f"overlap_score.center: found {center!r}; expected a finite ratio from an earlier window")
    if not (_has_enough(challenger) and _has_enough(champion)):
        return None
    centers = _earlier_ratio(challenger + champion, center)
    total = variance = 0.0
    for arm, factor in ((challenger, 1.0 - shares), (champion, -shares)):
        total += float(factor @ (arm.k - centers * arm.n))
        variance += float(factor**2 @ (arm.kk - 2.0 * centers * arm.kn + centers**2 * arm.nn))
    weight = float((shares * (1.0 - shares)) @ (challenger.n + champion.n))
    return Score(total, max(variance, 0.0), weight)  # rounding can leave a V of 0 just below it


def paired_score(differences: Sums) -> Score | None:
    """Return the score of the mean of paired differences, or None below the minimum counts.

    Parameters
    ----------
    differences
        Sums of challenger minus champion on the same requests; epochs do not matter and are pooled.

    Returns
    -------
    Score or None
        S = sum of differences, W = their number, V = W times their sample variance.

    Examples
    --------
    >>> score = paired_score(Sums.of([0.1, -0.1] * 30, [0] * 60, 1))
    >>> score.estimate, round(score.variance, 6)
    (0.0, 0.6)
    """
    if not _has_enough(differences):
        return None
    units, total = float(differences.units.sum()), float(differences.k.sum())
    return Score(total, max(float(differences.kk.sum()) - total**2 / units, 0.0), units)


def interval(score: Score, *, tuned_at: float, alpha: float) -> tuple[float, float]:
    """Return limits that hold the effect at all looks at once with probability about 1 - `alpha`.

    Parameters
    ----------
    score
        From `overlap_score` or `paired_score`.
    tuned_at
        V at which the interval shall be tightest, above 0: the planned W times the variance of a unit in an
        earlier window. A wrong value costs width, never validity; it must not follow the data of the rollout.
    alpha
        Error of the whole sequence, in (0, 1).

    Raises
    ------
    ValueError
        When `tuned_at` is not above 0 or `alpha` is outside (0, 1).

    Notes
    -----
    Asymptotic (arXiv:2103.06476): S/W +- sqrt(2 (V q + 1) / q log(sqrt(V q + 1) / alpha)) / W with
    q = (-2 log alpha + log(1 - 2 log alpha)) / `tuned_at`.

    Examples
    --------
    >>> low, high = interval(Score(30.0, 100.0, 100.0), tuned_at=100.0, alpha=0.05)
    >>> round(low, 4), round(high, 4)
    (-0.0035, 0.6035)
    """
    mixing = _mixing(tuned_at, alpha)
    spread = score.variance * mixing + 1.0
    radius = math.sqrt(2.0 * spread / mixing * (0.5 * math.log(spread) - math.log(alpha))) / score.weight
    return score.estimate - radius, score.estimate + radius


def log_e_above(score: Score, *, null: float = 0.0, tuned_at: float, alpha: float = 0.05) -> float:
    """Return log E against "the effect is at most `null`".

    Parameters
    ----------
    score
        From `overlap_score` or `paired_score`.
    null
        Largest effect that is not harm, in units of K / N.
    tuned_at
        V at which the test shall be sharpest, as in `interval`.
    alpha
        Error at which it is tuned. Reject at any other error too: ``log E >= log(1/error)``.

    Returns
    -------
    float
        log(2 (e^x - 1)) - log(V q + 1) / 2 with x = (S - W null)^2 q / (2 (V q + 1)); minus infinity when the
        estimate is not above `null`.

    Raises
    ------
    ValueError
        When `tuned_at` is not above 0, `alpha` is outside (0, 1/2) or `null` is not finite.

    Notes
    -----
    Asymptotic, the inverse of the one-sided sequence of arXiv:2103.06476, with q tuned at 2 `alpha`. Below
    the minimum counts there is no score to ask.

    Examples
    --------
    >>> round(log_e_above(Score(30.0, 100.0, 100.0), tuned_at=100.0), 3)
    3.562
    >>> log_e_above(Score(-30.0, 100.0, 100.0), tuned_at=100.0)
    -inf
    """
    if not math.isfinite(null):
        raise ValueError(f"log_e_above.null: found {null!r}; expected a finite effect; 0 means 'no worse at all'")
    mixing = _mixing(tuned_at, 2.0 * alpha)
    excess = max(score.total - score.weight * null, 0.0)
    spread = score.variance * mixing + 1.0
    exponent = 0.5 * excess**2 * mixing / spread
    if exponent == 0:
        return -math.inf
    # log(e^x - 1) without overflow for large x
    return math.log(2.0) + exponent + math.log(-math.expm1(-exponent)) - 0.5 * math.log(spread)


def log_e_below(score: Score, *, null: float = 0.0, tuned_at: float, alpha: float = 0.05) -> float:
    """Return log E against "the effect is at least `null`", the mirror image of `log_e_above`.

    With `null` a margin above 0 it asks for non-inferiority of a metric of which less is better; with 0 it
    asks for harm to a metric of which more is better.

    >>> log_e_below(Score(-30.0, 100.0, 100.0), tuned_at=100.0) == log_e_above(
    ...     Score(30.0, 100.0, 100.0), tuned_at=100.0
    ... )
    True
    """
    mirrored = Score(-score.total, score.variance, score.weight)
    return log_e_above(mirrored, null=-null, tuned_at=tuned_at, alpha=alpha)


def bets(values: npt.ArrayLike, *, low: float, high: float, null: float) -> FloatArray:
    """Return the log wealth of each stake of `STAKES` after betting that the mean is above `null`.

    Parameters
    ----------
    values
        Observations in [`low`, `high`], any shape.
    low, high
        Bounds that every observation is known to keep, declared before the data.
    null
        Largest mean that is not harm, `low` < null < `high`.

    Returns
    -------
    array
        Shape (len(STAKES),). Wealth adds up over batches and looks; `bet_log_e` mixes the stakes at the end.

    Raises
    ------
    ValueError
        When a value is NaN or outside the bounds, which would end the guarantee.

    Notes
    -----
    Exact: when each observation has mean at most `null` given those before it, each stake lambda multiplies
    wealth by 1 + lambda (X - null), of expectation at most 1 (arXiv:2010.09686). One stake is
    optimal for one effect; the mixture pays at most log(16) for not knowing it.

    Examples
    --------
    >>> wealth = bets([1, 0, 1, 1, 1, 1, 1, 1], low=0, high=1, null=0.3)
    >>> bet_log_e(wealth) > bet_log_e(bets([1, 0], low=0, high=1, null=0.3))
    True
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < null < high):
        raise ValueError(
            f"bets: found low={low!r}, null={null!r}, high={high!r}; expected low < null < high; a null on a "
            "bound cannot be tested"
        )
    observed = np.asarray(values, dtype=np.float64).ravel()
    if not ((observed >= low) & (observed <= high)).all():
        raise ValueError(
            f"bets.values: found NaN or a value outside [{low}, {high}]; expected the declared bounds; clip "
            "the metric in its definition, not here"
        )
    factors = STAKES[:, None] / (null - low) * (observed - null)
    return np.asarray(np.log1p(factors).sum(axis=-1), dtype=np.float64)


def bet_log_e(wealth: npt.ArrayLike) -> float:
    """Return log E of the equal mixture of the stakes in `wealth`, as summed up from `bets`.

    >>> bet_log_e(bets([], low=0, high=1, null=0.5))
    0.0
    """
    each = np.asarray(wealth, dtype=np.float64)
    if each.shape != STAKES.shape or np.isnan(each).any():
        raise ValueError(
            f"bet_log_e.wealth: found shape {each.shape} or NaN; expected one log wealth for each of "
            f"{STAKES.size} stakes; sum the results of bets"
        )
    return float(logsumexp(each) - math.log(STAKES.size))


def _mixing(tuned_at: float, alpha: float) -> float:
    """Return the mixing variance, per unit of V, that makes the bound tightest near `tuned_at`."""
    if not (math.isfinite(tuned_at) and tuned_at > 0 and 0 < alpha < 1):
        raise ValueError(
            f"tuned_at={tuned_at!r}, alpha={alpha!r}: expected a planned variance above 0 and an error below "
            "1 (1/2 on one side); multiply the planned weight by the variance of a unit in an earlier window"
        )
    return (-2.0 * math.log(alpha) + math.log1p(-2.0 * math.log(alpha))) / tuned_at


def _has_enough(arm: Sums) -> bool:
    """Return whether the normal limit may be used for this arm."""
    return bool(arm.units.sum() >= MINIMUM_UNITS and arm.nonzero.sum() >= MINIMUM_NONZERO)


def _earlier_ratio(pooled: Sums, first: float) -> FloatArray:
    """Return for each epoch the ratio over all epochs before it, and `first` where there was nothing."""
    before_k = np.concatenate([[0.0], np.cumsum(pooled.k)[:-1]])
    before_n = np.concatenate([[0.0], np.cumsum(pooled.n)[:-1]])
    return np.where(before_n > 0, before_k / np.maximum(before_n, np.finfo(np.float64).tiny), first)
