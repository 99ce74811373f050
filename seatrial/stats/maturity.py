"""Say how much of a cohort's labels can have arrived, and whether both arms wait equally long for theirs.

A label that has not arrived is not a good label. Three remedies: judge positives as they arrive (with
`seatrial.stats.kernel.harm`, where an equal delay cancels), judge a cohort only after its window, and state
absolute rates only with the maturity of their cohort. All need the distribution F of the delay, which the
delays seen so far overstate: long ones have had less time to be seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

if TYPE_CHECKING:
    from seatrial.stats.kernel import FloatArray

#: positives of each arm below which delays are not compared
MINIMUM_POSITIVES = 20


@dataclass(frozen=True, slots=True, eq=False)
class DelayCurve:
    """Estimated F, the part of labels that have arrived by each delay; a step function that ends at 1.

    F is relative to `horizon`: labels that take longer have not been seen and are not counted on.
    """

    #: delays at which F steps up, ascending, in the unit of the data
    times: FloatArray
    #: F at and after each of `times`, in (0, 1], ascending, the last is 1
    shares: FloatArray
    #: longest delay that could have been observed
    horizon: float

    def at(self, ages: npt.ArrayLike) -> FloatArray:
        """Return F at each age: 0 before the first delay, 1 from the last on.

        >>> DelayCurve(np.array([1.0, 4.0]), np.array([0.5, 1.0]), 9.0).at([0.5, 1.0, 5.0]).tolist()
        [0.0, 0.5, 1.0]
        """
        steps = np.concatenate([[0.0], self.shares])
        return np.asarray(steps[np.searchsorted(self.times, _require_durations("DelayCurve.at", ages), "right")])


def reverse_product_limit(delays: npt.ArrayLike, elapsed: npt.ArrayLike) -> DelayCurve | None:
    """Return F estimated from labels that arrived, without knowing how many are still to come.

    Parameters
    ----------
    delays
        Delay of each arrived label, shape (labels,), at least 0.
    elapsed
        Time from the unit's decision until now, same shape and unit, at least the delay.

    Returns
    -------
    DelayCurve or None
        F(t) / F(longest elapsed); None without labels.

    Raises
    ------
    ValueError
        When a duration is negative, NaN or infinite, or a delay exceeds what has elapsed.

    Notes
    -----
    F(t) = product over s > t of (1 - n_s / R_s), with n_s labels of delay s and R_s = #{delay <= s <=
    elapsed} (Lagakos, Barraj and De Gruttola, Biometrika 1988; Kalbfleisch and Lawless, JASA 1989). It
    assumes that the delay does not depend on when the unit was served. An estimate is poor near the longest
    elapsed time, where R_s is small.

    Examples
    --------
    >>> curve = reverse_product_limit([1.0, 1.0, 3.0], [2.0, 4.0, 4.0])
    >>> curve.times.tolist(), curve.shares.round(6).tolist()
    ([1.0, 3.0], [0.5, 1.0])
    """
    arrived = _require_durations("reverse_product_limit.delays", delays)
    waited = _require_durations("reverse_product_limit.elapsed", elapsed)
    if arrived.shape != waited.shape or (arrived > waited).any():
        raise ValueError(
            f"reverse_product_limit: found {arrived.size} delays and {waited.size} elapsed times, or a "
            "delay that exceeds its elapsed time; expected one of each for every label; check the clocks of "
            "both logs"
        )
    if arrived.size == 0:
        return None
    times, events = np.unique(arrived, return_counts=True)
    at_risk = np.searchsorted(np.sort(arrived), times, "right") - np.searchsorted(np.sort(waited), times, "left")
    # F(t) leaves out the factor of t itself: what remains at t is what did not happen later.
    later = np.concatenate([(1.0 - events / at_risk)[1:], [1.0]])
    return _curve(times, np.cumprod(later[::-1])[::-1], float(waited.max()))


def cured_kaplan_meier(durations: npt.ArrayLike, is_labelled: npt.ArrayLike) -> DelayCurve | None:
    """Return F estimated from all units, most of which never become positive.

    Parameters
    ----------
    durations
        Delay of a positive label, or the age of a unit without one, shape (units,), at least 0.
    is_labelled
        True where the positive label has arrived, same shape.

    Returns
    -------
    DelayCurve or None
        F(t) / F(T) = (1 - S(t)) / (1 - S(T)), S the Kaplan-Meier estimate and T the longest duration; None
        without labels.

    Raises
    ------
    ValueError
        When a duration is negative, NaN or infinite, or shapes disagree.

    Notes
    -----
    With a part p that ever becomes positive, S = 1 - p F (Maller and Zhou 1996); p cancels. Ages must not
    depend on the delay. It uses more of the data than `reverse_product_limit` and needs all units.

    Examples
    --------
    >>> curve = cured_kaplan_meier([1.0, 2.0, 4.0, 4.0], [True, True, False, False])
    >>> curve.times.tolist(), curve.shares.tolist()
    ([1.0, 2.0], [0.5, 1.0])
    """
    observed = _require_durations("cured_kaplan_meier.durations", durations)
    labelled = np.asarray(is_labelled, dtype=np.bool_)
    if labelled.shape != observed.shape:
        raise ValueError(
            f"cured_kaplan_meier: found {observed.size} durations and {labelled.size} flags; expected one "
            "flag for each unit"
        )
    if not labelled.any():
        return None
    # Loaded where it is needed: it takes a sixth of the time in which a process starts.
    from scipy.stats import CensoredData, ecdf  # noqa: PLC0415

    survival = ecdf(CensoredData.right_censored(observed, ~labelled)).sf
    steps = np.diff(survival.probabilities, prepend=1.0) < 0
    arrived = 1.0 - survival.probabilities[steps]
    return _curve(survival.quantiles[steps], arrived / arrived[-1], float(observed.max()))


def window(curve: DelayCurve, share: float) -> float:
    """Return the shortest delay by which `share` of the labels has arrived.

    Parameters
    ----------
    curve
        Estimated F.
    share
        Part of the labels in (0, 1); .8 to .95 is a usual maturity window.

    Raises
    ------
    ValueError
        When `share` is outside (0, 1): no window holds all labels.

    Examples
    --------
    >>> window(DelayCurve(np.array([1.0, 4.0]), np.array([0.5, 1.0]), 9.0), 0.9)
    4.0
    """
    if not 0 < share < 1:
        raise ValueError(f"window.share: found {share!r}; expected a part of the labels in (0, 1), such as 0.9")
    return float(curve.times[np.searchsorted(curve.shares, share - 1e-12)])


def maturity(ages: npt.ArrayLike, curve: DelayCurve) -> float | None:
    """Return the part of a cohort's labels that should have arrived by now: the mean of F over its ages.

    Parameters
    ----------
    ages
        Time since the decision of each unit, labelled or not, shape (units,).
    curve
        Estimated F.

    Returns
    -------
    float or None
        In [0, 1]; None for an empty cohort.

    Raises
    ------
    ValueError
        When an age is negative, NaN or infinite.

    Examples
    --------
    >>> maturity([0.5, 2.0], DelayCurve(np.array([1.0, 4.0]), np.array([0.5, 1.0]), 9.0))
    0.25
    """
    shares = curve.at(ages)
    return float(shares.mean()) if shares.size else None


def label_coverage(labelled: int, units: int) -> float | None:
    """Return the part of matured units that have a label; None without units.

    A label source that sends both outcomes should cover nearly every unit past its window. Compare the arms
    with `seatrial.stats.srm.odds_tilt` on labelled units.

    Raises
    ------
    ValueError
        When the counts are negative or more units are labelled than there are.

    Examples
    --------
    >>> label_coverage(95, 100)
    0.95
    """
    if not 0 <= labelled <= units:
        raise ValueError(
            f"label_coverage: found {labelled!r} labelled of {units!r} units; expected 0 <= labelled <= "
            "units; a label may have been joined twice"
        )
    return labelled / units if units else None


@dataclass(frozen=True, slots=True)
class DelayComparison:
    """Answer of `delay_equality`."""

    #: standard normal under equal delays; above 0 when the challenger's labels arrive sooner
    z: float
    #: two-sided p-value of this one look
    p_value: float
    #: early labels of the challenger beyond what equal delays would give, with its variance
    excess: float
    variance: float


def delay_equality(delays: npt.ArrayLike, is_challenger: npt.ArrayLike, epoch: npt.ArrayLike) -> DelayComparison | None:
    """Return the stratified log-rank test of equal delays in both arms.

    Parameters
    ----------
    delays
        Delay of each positive of matured cohorts, shape (labels,): units past the window whose label
        arrived within it, so that both arms had the same time.
    is_challenger
        True for the challenger's units, same shape.
    epoch
        Allocation epoch of each unit, same shape: delays are compared within epochs, because a ramp makes the
        challenger's units younger on average and delays drift like everything else.

    Returns
    -------
    DelayComparison or None
        None when an arm has fewer than `MINIMUM_POSITIVES` positives, or no epoch has positives of both.

    Raises
    ------
    ValueError
        When a delay is negative, NaN or infinite, or shapes disagree.

    Notes
    -----
    Mantel 1966, with the hypergeometric variance for ties, summed over epochs. It is a test for one look,
    at the end of the window, not for peeking. When it rejects, evidence from positives as they arrive
    compares rates of noticing, not rates of harm; only matured windows may promote.

    Examples
    --------
    >>> arm = np.arange(60) % 2 == 0
    >>> result = delay_equality(np.where(arm, 1.0, 2.0) + np.arange(60) / 100, arm, np.zeros(60))
    >>> result.z > 5, result.p_value < 1e-6
    (True, True)
    """
    arrived = _require_durations("delay_equality.delays", delays)
    challenger = np.asarray(is_challenger, dtype=np.bool_)
    strata = np.asarray(epoch)
    if not arrived.shape == challenger.shape == strata.shape:
        raise ValueError(
            f"delay_equality: found shapes {arrived.shape}, {challenger.shape} and {strata.shape}; expected "
            "one delay, arm and epoch for each label"
        )
    if min(challenger.sum(), (~challenger).sum()) < MINIMUM_POSITIVES:
        return None
    parts = [_log_rank(arrived[strata == one], challenger[strata == one]) for one in np.unique(strata)]
    excess, variance = np.sum(parts, axis=0)
    if variance <= 0:
        return None
    z = float(excess / math.sqrt(variance))
    return DelayComparison(z, float(2.0 * ndtr(-abs(z))), float(excess), float(variance))


def _log_rank(delays: FloatArray, challenger: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return observed minus expected early labels of the challenger in one epoch, and its variance."""
    times, events = np.unique(delays, return_counts=True)
    waiting = delays.size - np.searchsorted(np.sort(delays), times, "left")
    own = np.sort(delays[challenger])
    own_waiting = own.size - np.searchsorted(own, times, "left")
    share = own_waiting / waiting
    others = np.maximum(waiting - 1, 1)
    variance = events * share * (1.0 - share) * (waiting - events) / others
    return float(own.size - (events * share).sum()), float(variance.sum())


def _curve(times: FloatArray, shares: FloatArray, horizon: float) -> DelayCurve:
    """Return the curve without the delays at which F is still 0."""
    is_step = shares > 0
    return DelayCurve(times[is_step], shares[is_step], horizon)


def _require_durations(place: str, values: npt.ArrayLike) -> FloatArray:
    """Return `values` as a flat array of durations."""
    durations = np.asarray(values, dtype=np.float64).ravel()
    if not (np.isfinite(durations) & (durations >= 0)).all():
        raise ValueError(
            f"{place}: found a duration that is negative, NaN or infinite; expected times from 0; check the "
            "clocks of both logs"
        )
    return durations
