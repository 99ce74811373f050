"""Judge rate ratios by one question: given a bad unit, which arm was it in.

An allocation epoch is a period in which the probability `rho` of assigning a unit to the challenger was
constant and known. Let p be the champion's probability of a bad unit and r p the challenger's. Whatever p
is, and however it drifts,

    theta(r) = rho r / (rho r + 1 - rho)               probability that a bad unit is the challenger's
    log LR(r; r0) = K1 x - sum_s (K1_s + K0_s) log(1 + theta_s(r0) (e^x - 1)),    x = log(r / r0)

with K1_s, K0_s the bad units of challenger and champion in epoch s. The base rate has cancelled; so has the
delay of labels when it is equal in both arms, provided that `rho` is the probability at assignment. E is the
mean of exp(log LR) over a fixed grid of r, hence a non-negative supermartingale that starts at 1 (Lindon and
Malek, NeurIPS 2022, arXiv:2011.03567, here one-sided, with a margin and a ramped `rho`), so that
P(E ever reaches 1/alpha) <= alpha (Ville 1939).

The guarantee assumes that units are assigned as recorded, which `seatrial.stats.srm` tests, and that a unit
counts once: with sticky assignment the unit is the entity, not its requests.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit

FloatArray = npt.NDArray[np.float64]

#: Weight of regressions that begin with a stage: a fifth costs 8 % less exposure than a half when harm is there from
#: the start, and 12 % more when it begins late.
LATE_WEIGHT = 0.2

#: |log r| beyond which a limit is reported as 0 or infinity: a ratio of a thousand million
_FARTHEST = 9 * math.log(10)
#: tolerance of root finding in log r, far below any figure that is shown
_TOLERANCE = 1e-12
#: step of Newton's in log r after which no other is needed
_LAST_STEP = 1e-6
#: log of a term, beside the largest, that is left out of a mean: E gets smaller by less than its rounding
_NEGLIGIBLE = -60.0
#: halvings of an interval of log r until it is as short as the tolerance
_HALVINGS = 48
#: slope below which a step of Newton's would leave any bracket; its inverse must not overflow
_FLATTEST = 1e-200


@dataclass(frozen=True, slots=True, eq=False)
class RatioPrior:
    """Weights over rate ratios, as distances from the null on the log scale.

    Both arrays are copied and made read-only. ValueError when they are not a grid of positive finite
    distances with weights of sum 1, which alone make the mixture an e-process.
    """

    #: distances |log(r / null)|, each above 0; the direction comes from the question asked
    log_ratios: FloatArray
    #: weight of each distance, not negative, sum 1
    weights: FloatArray

    def __post_init__(self) -> None:
        distances = np.array(self.log_ratios, dtype=np.float64)
        weights = np.array(self.weights, dtype=np.float64)
        if distances.ndim != 1 or distances.size == 0 or distances.shape != weights.shape:
            raise ValueError(
                f"RatioPrior: found shapes {distances.shape} and {weights.shape}; expected one weight for "
                "each distance; give two lists of equal length"
            )
        if not (np.isfinite(distances).all() and (distances > 0).all()):
            raise ValueError(
                "RatioPrior.log_ratios: found a distance that is not finite and above 0; expected distances "
                "from the null; leave out the null itself and the sign"
            )
        if not ((weights >= 0).all() and math.isclose(float(weights.sum()), 1.0, rel_tol=1e-9)):
            raise ValueError(
                f"RatioPrior.weights: found a sum of {float(weights.sum())!r} or a weight below 0; expected "
                "weights of sum 1; divide them by their sum"
            )
        distances.flags.writeable = False
        weights.flags.writeable = False
        object.__setattr__(self, "log_ratios", distances)
        object.__setattr__(self, "weights", weights)


def half_normal(sigma: float = 0.6, points: int = 60, low: float = 0.02, high: float = 2.5) -> RatioPrior:
    """Return a half-normal prior on log r, at equal steps.

    Parameters
    ----------
    sigma
        Scale on the natural log of the ratio: .6 puts half of the weight below r = 1.5.
    points
        Grid points, at least 1.
    low, high
        Smallest and largest distance from the null, 0 < `low` <= `high`.

    Raises
    ------
    ValueError
        When `sigma` is not above 0, or the grid is empty or touches the null.

    Examples
    --------
    >>> prior = half_normal()
    >>> prior.log_ratios.size, round(float(prior.weights.sum()), 12)
    (60, 1.0)
    """
    if not (math.isfinite(sigma) and sigma > 0 and points >= 1 and 0 < low <= high < math.inf):
        raise ValueError(
            f"half_normal: found sigma={sigma!r}, points={points!r}, low={low!r}, high={high!r}; expected "
            "sigma > 0, points >= 1 and 0 < low <= high; correct the prior"
        )
    distances = np.linspace(low, high, points)
    density = np.exp(-0.5 * (distances / sigma) ** 2)
    return RatioPrior(distances, density / density.sum())


_DEFAULT_PRIOR = half_normal()


@lru_cache(maxsize=64)
def near_equality(margin: float) -> RatioPrior:
    """Return a prior for `noninferiority`: half of the weight on "no difference at all", half around it.

    A challenger that may be promoted is most often as good as the champion. Against `half_normal()` the
    median promotion at a margin of 10 % needs a third fewer bad units.

    Parameters
    ----------
    margin
        The margin of the test, above 0; the other half is half-normal of scale 2 log(1 + `margin`).

    Raises
    ------
    ValueError
        When the margin is not above 0.

    Examples
    --------
    >>> prior = near_equality(0.1)
    >>> float(prior.weights[0]), round(float(np.exp(prior.log_ratios[0])), 12)
    (0.5, 1.1)
    """
    _require_margin("near_equality", margin)
    equality = math.log1p(margin)
    around = half_normal(2.0 * equality, low=equality / 20.0, high=6.0 * equality)
    return RatioPrior(np.concatenate([[equality], around.log_ratios]), np.concatenate([[0.5], 0.5 * around.weights]))


def harm(
    challenger: npt.ArrayLike,
    champion: npt.ArrayLike,
    rho: npt.ArrayLike,
    *,
    null: float = 1.0,
    prior: RatioPrior | None = None,
    stage: npt.ArrayLike | None = None,
    stages: int = 1,
) -> float | FloatArray:
    """Return log E against "the challenger's bad rate is at most `null` times the champion's".

    Parameters
    ----------
    challenger, champion
        Counts of bad units of each arm, shape (..., S): S epochs; leading axes are hypotheses, such as
        guardrails and slices.
    rho
        Known probability that a unit of the epoch was assigned to the challenger, 0 < rho < 1, shape (S,)
        or the shape of the counts. A bad unit that is reported late keeps the probability of its assignment.
    null
        Largest ratio that is not harm, above 0.
    prior
        Grid above the null; None is `half_normal()`.
    stage
        Planned stage of each epoch, shape (S,), non-decreasing, from 0 to `stages` - 1. When given, a
        fifth of the weight goes to regressions that begin late: E = 4/5 E(all epochs) + 1/5 mean over the
        planned stages j of E(epochs from stage j on). A stage that has not begun counts as E = 1.
    stages
        Number of stages in the plan. It is fixed before the rollout: a number that followed the data would
        make the weights of the mixture depend on the evidence.

    Returns
    -------
    float or array
        log E with the leading shape, a float for one hypothesis; 0.0 where nothing bad was counted.

    Raises
    ------
    ValueError
        When a count is negative, fractional or not finite, a probability is outside (0, 1), or shapes
        disagree.

    Notes
    -----
    Under the null P(E ever >= 1/alpha) <= alpha, at any number of looks, for any base rate, drift and ramp.
    Reject at ``log E >= log(1/alpha)``. A low E is no evidence of safety: ask `noninferiority` for that.

    Examples
    --------
    >>> round(harm([4, 40], [300, 350], [0.01, 0.1]), 6)
    -1.120721
    >>> harm([0, 0], [0, 0], [0.01, 0.1])
    0.0
    """
    if not (math.isfinite(null) and null > 0):
        raise ValueError(f"harm.null: found {null!r}; expected a ratio above 0; 1 means 'not worse at all'")
    bad = _Counts.of("harm", challenger, champion, rho)
    onsets = _Onsets.of(bad.rho.shape[-1], stage, stages)
    grid = prior or _DEFAULT_PRIOR
    return _mixture(_log_ratios(bad, grid.log_ratios, null=null, onsets=onsets), grid.weights, onsets)


def harm_of_all(
    challenger: npt.ArrayLike,
    champion: npt.ArrayLike,
    challenger_good: npt.ArrayLike,
    champion_good: npt.ArrayLike,
    rho: npt.ArrayLike,
    *,
    rate: float,
    prior: RatioPrior | None = None,
    stage: npt.ArrayLike | None = None,
    stages: int = 1,
) -> float | FloatArray:
    """Return log E against "the challenger is not worse", from good units as well as bad ones.

    Worth it when bad units are not rare: at a champion's rate of 10, 26 and 50 % it needs 11, 30 and 55 %
    fewer challenger units than `harm` to find a ratio of 1.25; below 5 % the two are alike.

    Parameters
    ----------
    challenger, champion
        Counts of bad units, as in `harm`.
    challenger_good, champion_good
        Counts of good units, same shape. A unit is good once its label has matured, not while it has none.
    rho, prior, stage, stages
        As in `harm`.
    rate
        Champion's rate of bad units as the plan expects it, in (0, 1). A wrong rate costs power and never
        validity; half of the true rate still beats `harm`, twice the true rate need not. It must not follow
        the data of the rollout.

    Returns
    -------
    float or array
        log E with the leading shape; 0.0 where nothing was counted.

    Raises
    ------
    ValueError
        As `harm`, and when `rate` is outside (0, 1).

    Notes
    -----
    Given its label, a bad unit is the challenger's with probability at most rho and a good one with
    probability at least rho, whenever the ratio is at most 1 and whatever the base rate is at the moment. A
    bad unit bets on more, a good unit on less, so each factor has expectation at most 1 and
    P(E ever >= 1/alpha) <= alpha. The proof needs the null ratio 1: against any other null the share of good
    units depends on the unknown base rate, so that `harm` with a tolerance and `noninferiority` must do
    without them.

    Good units that are lost in the challenger's arm alone look like harm; test with `seatrial.stats.srm`.

    Examples
    --------
    >>> harm([40], [250], [0.1]) < harm_of_all([40], [250], [60], [650], [0.1], rate=0.26)
    True
    """
    if not 0 < rate < 1:
        raise ValueError(f"harm_of_all.rate: found {rate!r}; expected the champion's bad rate, in (0, 1)")
    bad = _Counts.of("harm_of_all", challenger, champion, rho)
    good = _Counts.of("harm_of_all.good", challenger_good, champion_good, rho)
    if bad.challenger.shape != good.challenger.shape:
        raise ValueError(
            f"harm_of_all: found bad counts of shape {bad.challenger.shape} and good counts of shape "
            f"{good.challenger.shape}; expected the same epochs; give a zero where nothing was counted"
        )
    onsets = _Onsets.of(bad.rho.shape[-1], stage, stages)
    grid = prior or _DEFAULT_PRIOR
    # A ratio that leaves no good unit would let one good unit refute it for ever: keep a twentieth.
    fewer_good = np.log(np.maximum(1.0 - rate * np.exp(grid.log_ratios), 0.05 * (1.0 - rate)) / (1.0 - rate))
    log_lr = _log_ratios(bad, grid.log_ratios, null=1.0, onsets=onsets)
    log_lr += _log_ratios(good, fewer_good, null=1.0, onsets=onsets)
    return _mixture(log_lr, grid.weights, onsets)


def noninferiority(
    challenger: npt.ArrayLike,
    champion: npt.ArrayLike,
    rho: npt.ArrayLike,
    *,
    margin: float,
    prior: RatioPrior | None = None,
) -> float | FloatArray:
    """Return log E against "the challenger's bad rate is at least 1 + `margin` times the champion's".

    Parameters
    ----------
    challenger, champion, rho
        As in `harm`.
    margin
        Relative worsening that must be ruled out, above 0: .1 is "at most ten percent worse".
    prior
        Grid of distances, mirrored below 1 + `margin`; None is `near_equality(margin)`.

    Returns
    -------
    float or array
        log E with the leading shape. Promotion needs ``log E >= log(1/alpha)`` for every guardrail, each at
        the full alpha (intersection-union test). 0.0, which never promotes, where nothing bad was counted.

    Raises
    ------
    ValueError
        As `harm`, and when the margin is not above 0.

    Notes
    -----
    When the ratio is at least 1 + `margin` in every epoch, P(E ever >= 1/alpha) <= alpha. A decision to
    promote should rest on matured labels: an arm whose bad units are noticed later looks better than it is.

    Examples
    --------
    >>> noninferiority([100], [1000], [0.1], margin=0.5) > 3
    True
    """
    _require_margin("noninferiority", margin)
    bad = _Counts.of("noninferiority", challenger, champion, rho)
    onsets = _Onsets.of(bad.rho.shape[-1], None, 1)
    grid = prior or near_equality(margin)
    return _mixture(_log_ratios(bad, -grid.log_ratios, null=1.0 + margin, onsets=onsets), grid.weights, onsets)


def either(
    challenger: npt.ArrayLike, champion: npt.ArrayLike, rho: npt.ArrayLike, *, prior: RatioPrior
) -> float | FloatArray:
    """Return log E against "the ratio is 1", in favour of a change up or down alike.

    Parameters
    ----------
    challenger, champion, rho
        As in `harm`, of units of any kind.
    prior
        Distances from 1 on the log scale; each is tried upwards and downwards with half of its weight.

    Returns
    -------
    float or array
        log E with the leading shape; 0.0 where nothing was counted.

    Raises
    ------
    ValueError
        As `harm`.

    Notes
    -----
    With the ratio 1 in every epoch P(E ever >= 1/alpha) <= alpha. A fall of the challenger's rate is a rise of the
    champion's: E is the mean of `harm` and of `harm` with the arms exchanged.

    Examples
    --------
    >>> round(either([40], [250], [0.1], prior=half_normal()), 6) == round(either([250], [40], [0.9],
    ...     prior=half_normal()), 6)
    True
    """
    units = _Counts.of("either", challenger, champion, rho)
    onsets = _Onsets.of(units.rho.shape[-1], None, 1)
    distances = np.concatenate([prior.log_ratios, -prior.log_ratios])
    weights = np.concatenate([prior.weights, prior.weights]) / 2.0
    return _mixture(_log_ratios(units, distances, null=1.0, onsets=onsets), weights, onsets)


def anytime_p(log_e: npt.ArrayLike) -> float | FloatArray:
    """Return min(1, 1/E), a p-value that stays valid at any look.

    Parameters
    ----------
    log_e
        log E, any shape, infinities included. Give the largest log E over the looks so far to get the
        smallest p that is still valid.

    Raises
    ------
    ValueError
        When a value is NaN, which is no evidence of anything.

    Examples
    --------
    >>> round(anytime_p(math.log(20)), 12), anytime_p(-3.0)
    (0.05, 1.0)
    """
    values = np.asarray(log_e, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("anytime_p.log_e: found NaN; expected log E; find out why it could not be computed")
    return _scalar_or_array(np.exp(-np.maximum(values, 0.0)))


def ratio_interval(
    challenger: npt.ArrayLike, champion: npt.ArrayLike, rho: npt.ArrayLike, *, alpha: float
) -> tuple[float, float]:
    """Return limits that hold the rate ratio at all looks at once with probability at least 1 - `alpha`.

    Parameters
    ----------
    challenger, champion, rho
        Counts of bad units and assignment probabilities of one hypothesis, shape (S,).
    alpha
        Error of the whole sequence of intervals, in (0, 1); half of it is spent on each side.

    Returns
    -------
    low, high
        The ratios that neither the default mixture above nor its mirror image below rejects. Each side is
        monotone in the null, so that the set is an interval; (0, inf) when nothing was counted. The grid
        begins at 2 %, so that neither limit comes closer than about 1 % to the estimate.

    Raises
    ------
    ValueError
        As `harm`, for more than one hypothesis, and for `alpha` outside (0, 1).

    Examples
    --------
    >>> low, high = ratio_interval([40], [300], [0.1], alpha=0.05)
    >>> round(low, 3), round(high, 3)
    (0.69, 1.942)
    >>> ratio_interval([0], [0], [0.1], alpha=0.05)
    (0.0, inf)
    """
    if not 0 < alpha < 1:
        raise ValueError(f"ratio_interval.alpha: found {alpha!r}; expected an error rate in (0, 1)")
    bad = _Counts.of("ratio_interval", challenger, champion, rho).single("ratio_interval")
    onsets = _Onsets.of(bad.rho.size, None, 1)
    threshold = math.log(2.0 / alpha)

    def excess(log_null: float, sign: int) -> float:
        distances = sign * _DEFAULT_PRIOR.log_ratios
        log_lr = _log_ratios(bad, distances, null=math.exp(log_null), onsets=onsets)
        return float(_mixture(log_lr, _DEFAULT_PRIOR.weights, onsets)) - threshold

    def limit(sign: int) -> float:
        if excess(-sign * _FARTHEST, sign) < 0:
            return -sign * math.inf
        return float(brentq(excess, -_FARTHEST, _FARTHEST, args=(sign,), xtol=_TOLERANCE))

    return math.exp(limit(1)), math.exp(limit(-1))


def ratio_estimate(challenger: npt.ArrayLike, champion: npt.ArrayLike, rho: npt.ArrayLike) -> float | FloatArray:
    """Return the conditional maximum-likelihood rate ratio.

    Parameters
    ----------
    challenger, champion, rho
        Counts of bad units and assignment probabilities, as in `harm`.

    Returns
    -------
    float or array
        The r that solves K1 = sum_s (K1_s + K0_s) theta_s(r), with the leading shape; 0.0 or infinity when only one
        arm had bad units, NaN when neither had.

    Raises
    ------
    ValueError
        As `harm`.

    Examples
    --------
    >>> round(ratio_estimate([20], [90], [0.1]), 6)
    2.0
    """
    bad, _ = _Counts.of("ratio_estimate", challenger, champion, rho).merged(np.zeros(1, dtype=np.int64))
    total = bad.challenger + bad.champion
    k1, k0 = bad.challenger.sum(axis=-1), bad.champion.sum(axis=-1)
    log_ratio = _root(total, logit(bad.rho), k1, k0)
    one_sided = np.where(k1 > 0, math.inf, np.where(k0 > 0, 0.0, math.nan))
    return _scalar_or_array(np.where((k1 > 0) & (k0 > 0), np.exp(log_ratio), one_sided))


def require_counts(place: str, values: npt.ArrayLike) -> FloatArray:
    """Return `values` as an array of counts, or refuse what is negative, fractional or not finite.

    >>> require_counts("harm.challenger", [1, 2]).tolist()
    [1.0, 2.0]
    """
    given = np.asarray(values)
    counts = given.astype(np.float64)
    # Whole numbers of the machine are finite and whole: to look costs as much as the evidence of a few hypotheses.
    is_whole = given.dtype.kind in "iu" or (np.isfinite(counts).all() and (counts == np.floor(counts)).all())
    if not (is_whole and (counts >= 0).all()):
        raise ValueError(
            f"{place}: found a count that is negative, fractional or not finite; expected whole numbers from "
            "0; a missing count is not 0, leave its epoch out"
        )
    return counts


def require_probabilities(place: str, values: npt.ArrayLike) -> FloatArray:
    """Return `values` as an array of probabilities strictly between 0 and 1, or refuse them.

    >>> require_probabilities("harm.rho", [0.01, 0.5]).tolist()
    [0.01, 0.5]
    """
    probabilities = np.asarray(values, dtype=np.float64)
    if not ((probabilities > 0) & (probabilities < 1)).all():
        raise ValueError(
            f"{place}: found a probability outside (0, 1); expected the known share at assignment; leave out "
            "epochs in which only one arm was served"
        )
    return probabilities


def _root(total: FloatArray, log_odds: FloatArray, k1: FloatArray, k0: FloatArray) -> FloatArray:
    """Return x with sum_s total_s expit(log_odds_s + x) = k1: Newton's steps, halvings where they leave the bracket."""
    # The root lies between the log odds of the epochs, shifted by log(K1 / K0), which is below log(K1 + K0).
    high = np.abs(log_odds).max(initial=0.0) + np.log(np.maximum(k1 + k0, 1.0)) + 1.0
    low = -high
    root: FloatArray = np.zeros_like(high)
    for _ in range(_HALVINGS):
        theta = expit(log_odds + root[..., None])
        excess = (total * theta).sum(axis=-1) - k1
        low, high = np.where(excess < 0, root, low), np.where(excess < 0, high, root)
        slope = (total * theta * (1.0 - theta)).sum(axis=-1)
        newton = root - excess / np.maximum(slope, _FLATTEST)
        # The curvature of each term is at most its slope, so that a step of h leaves an error of about h^2 / 2.
        is_near = np.abs(newton - root) <= _LAST_STEP
        root = np.where(is_near | ((low <= newton) & (newton <= high)), newton, 0.5 * (low + high))
        if is_near.all():
            break
    return root


def _require_margin(place: str, margin: float) -> None:
    """Refuse a margin that no amount of evidence could prove."""
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(
            f"{place}.margin: found {margin!r}; expected a number above 0; without a margin no amount of "
            "evidence can show that the challenger is not worse"
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """Checked counts of bad units of two arms, and the assignment probability of their epochs."""

    challenger: FloatArray
    champion: FloatArray
    rho: FloatArray

    @classmethod
    def of(cls, place: str, challenger: npt.ArrayLike, champion: npt.ArrayLike, rho: npt.ArrayLike) -> _Counts:
        k1 = require_counts(f"{place}.challenger", challenger)
        k0 = require_counts(f"{place}.champion", champion)
        probability = require_probabilities(f"{place}.rho", rho)
        if k1.ndim == 0 or k1.shape != k0.shape or probability.shape not in (k1.shape[-1:], k1.shape):
            raise ValueError(
                f"{place}: found shapes {k1.shape}, {k0.shape} and rho {probability.shape}; expected "
                "(..., epochs) twice and rho of (epochs,) or the same; give one number for each epoch"
            )
        return cls(k1, k0, probability)

    def merged(self, edges: npt.NDArray[np.int64]) -> tuple[_Counts, npt.NDArray[np.int64]]:
        """Return neighbouring epochs of equal share as one, none across `edges`, and the edges among what is left.

        Every log likelihood ratio depends on the sums over such epochs alone, so that nothing is lost.
        """
        if self.rho.ndim != 1 or self.rho.size == 0:
            return self, edges
        is_first = np.ones(self.rho.size, dtype=np.bool_)
        np.not_equal(self.rho[1:], self.rho[:-1], out=is_first[1:])
        is_first[edges[edges < self.rho.size]] = True
        first = np.flatnonzero(is_first)
        k1, k0 = (np.add.reduceat(counts, first, axis=-1) for counts in (self.challenger, self.champion))
        return _Counts(k1, k0, self.rho[first]), np.searchsorted(first, edges)

    def single(self, place: str) -> _Counts:
        """Return these counts when they are of one hypothesis."""
        if self.challenger.ndim != 1:
            raise ValueError(
                f"{place}: found counts of shape {self.challenger.shape}; expected one hypothesis, shape "
                "(epochs,); call once for each"
            )
        return self


@dataclass(frozen=True, slots=True, eq=False)
class _Onsets:
    """When a regression may begin: at the start of the rollout, or with one of its stages."""

    #: first epoch of each onset, ascending from 0, and the end of the last; stages that begin at one epoch are one
    edges: npt.NDArray[np.int64]
    #: weight of each onset; onset 0 holds what is for "from the start" and its part of the rest
    weights: FloatArray
    #: weight of the stages that have not begun, for which E = 1; with the others 1
    idle: float

    @classmethod
    def of(cls, epochs: int, stage: npt.ArrayLike | None, stages: int) -> _Onsets:
        index = np.zeros(epochs) if stage is None else np.asarray(stage, dtype=np.float64)
        found = index.tolist()
        is_planned = (
            stages >= 1
            and index.shape == (epochs,)
            and found == sorted(found)
            and all(0 <= each < stages and each.is_integer() for each in found)
        )
        if not is_planned:
            raise ValueError(
                f"harm.stage: found {found} with {stages} stages and {epochs} epochs; expected one "
                f"non-decreasing whole number from 0 to stages - 1 for each epoch; order the epochs by time"
            )
        weights = {0: 1.0 - LATE_WEIGHT}
        idle = 0.0
        for at in range(stages):
            first = bisect_left(found, at)
            if first < epochs or first == 0:
                weights[first] = weights.get(first, 0.0) + LATE_WEIGHT / stages
            else:
                idle += LATE_WEIGHT / stages
        return cls(np.array([*weights, epochs]), np.array([*weights.values()]), idle)


def _log_ratios(units: _Counts, distances: FloatArray, *, null: float, onsets: _Onsets) -> FloatArray:
    """Return log LR of each onset and distance from `null`, shape (..., onsets, distances)."""
    part, edges = units.merged(onsets.edges)
    theta = expit(logit(part.rho) + math.log(null))
    spent = np.log1p(theta[..., None] * np.expm1(distances))
    total = part.challenger + part.champion
    if part.rho.ndim == 1:
        return _together(part.challenger, total, distances, spent, edges[:-1])
    stages = []
    for first, end in pairwise(edges):
        epochs = slice(first, end)
        cost = _each(total[..., epochs], spent[..., epochs, :])
        stages.append(part.challenger[..., epochs].sum(axis=-1)[..., None] * distances - cost)
    # A regression that begins with a stage lasts to the end.
    return np.stack(list(accumulate(stages[::-1]))[::-1], axis=-2)


def _together(
    challenger: FloatArray, total: FloatArray, distances: FloatArray, spent: FloatArray, first: npt.NDArray[np.int64]
) -> FloatArray:
    """Return the same for hypotheses that all have the same shares: one product of matrices, ten times as fast.

    `spent` has shape (S, distances); `first` is the first epoch of each onset.
    """
    lasts = (np.arange(spent.shape[0])[:, None] >= first)[..., None]
    columns = first.size * distances.size
    weights = np.concatenate([lasts * distances, lasts * -spent[:, None]]).reshape(2 * spent.shape[0], columns)
    log_lr = np.concatenate([challenger, total], axis=-1) @ weights
    return np.asarray(log_lr.reshape(*log_lr.shape[:-1], first.size, distances.size), dtype=np.float64)


def _each(total: FloatArray, spent: FloatArray) -> FloatArray:
    """Return the cost of the units of each hypothesis at its own shares, from (..., S) and (..., S, distances)."""
    return np.asarray((total[..., None, :] @ spent)[..., 0, :], dtype=np.float64)


def _mixture(log_lr: FloatArray, prior: FloatArray, onsets: _Onsets) -> float | FloatArray:
    """Return the log of the mean of exp(log LR) over onsets and distances; `log_lr` is spent on it."""
    weights = (onsets.weights[:, None] * prior).ravel()
    flat = log_lr.reshape(*log_lr.shape[:-2], weights.size)
    peak = flat.max(axis=-1, initial=0.0 if onsets.idle else -math.inf)
    is_counted = (flat != 0).any(axis=-1)
    # In place: fresh memory for so many numbers takes longer than their exponentials.
    flat -= peak[..., None]
    terms = np.exp(flat, out=np.zeros_like(flat), where=flat > _NEGLIGIBLE)
    # With an idle stage the peak is at least 0; without one it may be so low that its inverse overflows.
    log_e = np.log(terms @ weights + onsets.idle * np.exp(-np.maximum(peak, 0.0))) + peak
    # The weights sum to 1 only up to rounding: without a counted unit the evidence must be exactly none.
    return _scalar_or_array(np.where(is_counted, log_e, 0.0))


def _scalar_or_array(values: FloatArray) -> float | FloatArray:
    """Return a plain float for a single hypothesis, which prints and serialises as a number."""
    return float(values) if values.ndim == 0 else values
