"""Choose the cut-off of a new release so that what it promises holds for requests to come, not only for the sample.

A new release has a new scale of scores, hence the champion's cut-off means nothing for it. The cut-off at which the
sample keeps a limit breaks it on future requests about every second time. A certified cut-off breaks it with
probability at most `delta`; what that certainty costs in reach, `trade_off` shows.

Everywhere a release acts on a score that is at the cut-off or above it (`at_least`), so that tied scores are acted on
together. A cut-off belongs to one release with its calibration map, and holds as long as requests stay like those of
the sample: independent, and from the traffic that is to be served.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from seatrial.stats.kernel import FloatArray, require_counts


@dataclass(frozen=True, slots=True)
class ActionRate:
    """Share of requests on which a release acts at one cut-off."""

    #: share in the sample
    estimate: float
    #: lower limit of the true share
    low: float
    #: upper limit of the true share
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class TradeOff:
    """What each cut-off yields, one number for each; limits hold for all cut-offs at once."""

    #: cut-offs as given
    cut_off: FloatArray
    #: share of requests at the cut-off or above
    action_rate: FloatArray
    action_rate_low: FloatArray
    action_rate_high: FloatArray
    #: share of 1s among them; NaN where there is none
    precision: FloatArray
    precision_low: FloatArray
    precision_high: FloatArray
    #: share of all 1s that are among them; NaN without a 1
    recall: FloatArray


@dataclass(frozen=True, slots=True)
class ExpectedRates:
    """What a release expects of itself; a note to the reader, never a reason for a verdict."""

    #: expected share of 1s among requests at or above the cut-off; None when there is none
    precision: float | None
    #: expected share of all 1s that lie at or above the cut-off; None when no 1 is expected
    recall: float | None
    #: expected share of right answers
    accuracy: float

    @property
    def is_advisory(self) -> Literal[True]:
        """Return True: no gate may judge by these numbers."""
        return True


def certified_cut_off(scores: npt.ArrayLike, *, rate: float, delta: float) -> float | None:
    """Return the smallest cut-off of which it is certain, but for `delta`, that at most `rate` of requests reach it.

    Parameters
    ----------
    scores
        Scores of the release on requests like those to come, shape (n,), ties allowed.
    rate
        Largest share of requests on which the release may act, in (0, 1).
    delta
        Probability that the true action rate at the cut-off exceeds `rate`, in (0, 1).

    Returns
    -------
    float or None
        The number just above the (k + 1)-th largest score, with k the largest number for which P(Bin(n, rate) <= k) <=
        delta: at most k scores of the sample are at it or above. Keep it at full precision, because one digit less may
        let in all requests that tie with that score. None when n is too small for any k, which is below
        log(delta) / log(1 - rate).

    Raises
    ------
    ValueError
        When a score is not finite, or `rate` or `delta` is outside (0, 1).

    Notes
    -----
    Exact for any distribution of scores, with ties or without. If the true rate at the returned t is above `rate`, then
    t lies at or below the largest cut-off that has such a rate, so that at most k scores reach that one too, an event
    of probability at most delta. This is the one-sided order-statistic limit for a quantile (Clopper and Pearson,
    Biometrika 1934; David and Nagaraja, "Order statistics", 2003, section 7.1).

    Examples
    --------
    >>> cut_off = certified_cut_off(np.arange(1000) / 1000, rate=0.05, delta=0.1)
    >>> round(cut_off, 6), cut_off > 0.959
    (0.959, True)
    >>> certified_cut_off(np.arange(40) / 40, rate=0.05, delta=0.1) is None
    True
    """
    ordered = np.sort(_scores("certified_cut_off", scores))
    _require_inside("certified_cut_off", rate=rate, delta=delta)
    # Loaded where it is needed: it takes a sixth of the time in which a process starts.
    from scipy.stats import binom  # noqa: PLC0415

    allowed = binom.ppf(delta, ordered.size, rate)  # the smallest k with P(Bin <= k) >= delta
    if binom.cdf(allowed, ordered.size, rate) > delta:
        allowed -= 1
    return float(np.nextafter(ordered[-1 - int(allowed)], math.inf)) if allowed >= 0 else None


def action_rate(scores: npt.ArrayLike, cut_off: float, *, alpha: float) -> ActionRate | None:
    """Return the share of requests at the cut-off or above, with two-sided limits for this cut-off.

    Parameters
    ----------
    scores
        Scores of the release, shape (n,).
    cut_off
        Number that was not chosen by these scores; for one that was, ask `action_rate_band`.
    alpha
        Probability that the true rate is outside the limits, in (0, 1); half of it on each side.

    Returns
    -------
    ActionRate or None
        None without a score.

    Raises
    ------
    ValueError
        When a score or the cut-off is not finite or `alpha` is outside (0, 1).

    Notes
    -----
    Exact (Clopper and Pearson, Biometrika 1934), at one look.

    Examples
    --------
    >>> action_rate([0.2] * 90 + [0.8] * 10, 0.8, alpha=0.05)
    ActionRate(estimate=0.1, low=0.0490..., high=0.1762...)
    """
    values, at = _scores("action_rate", scores), _cut_offs("action_rate", [cut_off])
    _require_inside("action_rate", alpha=alpha)
    if values.size == 0:
        return None
    acted = (values >= at).sum()
    low, high = _exact_limits(acted, np.asarray(values.size), alpha)
    return ActionRate(float(acted / values.size), float(low), float(high))


def action_rate_band(
    scores: npt.ArrayLike, cut_offs: npt.ArrayLike, *, alpha: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the share of requests at each cut-off or above, with limits that hold for all cut-offs at once.

    Parameters
    ----------
    scores
        Scores of the release, shape (n,).
    cut_offs
        Any number of cut-offs, shape (m,), also such as were chosen by these scores.
    alpha
        Probability that the true rate is outside the band anywhere, in (0, 1).

    Returns
    -------
    estimate, low, high
        Arrays of shape (m,). Without a score NaN, 0 and 1: nothing is known.

    Raises
    ------
    ValueError
        When a score or a cut-off is not finite or `alpha` is outside (0, 1).

    Notes
    -----
    The estimate plus and minus sqrt(log(2 / alpha) / (2 n)), with ties or without (Dvoretzky, Kiefer and Wolfowitz 1956
    with the constant of Massart, Annals of Probability 1990), at one look.

    Examples
    --------
    >>> estimate, low, high = action_rate_band([0.2] * 900 + [0.8] * 100, [0.5, 0.9], alpha=0.05)
    >>> estimate.tolist(), low.round(3).tolist(), high.round(3).tolist()
    ([0.1, 0.0], [0.057, 0.0], [0.143, 0.043])
    """
    values, at = _scores("action_rate_band", scores), _cut_offs("action_rate_band", cut_offs)
    _require_inside("action_rate_band", alpha=alpha)
    if values.size == 0:
        return np.full(at.shape, np.nan), np.zeros(at.shape), np.ones(at.shape)
    estimate = _reached(values, at) / values.size
    radius = math.sqrt(math.log(2.0 / alpha) / (2.0 * values.size))
    return estimate, np.maximum(estimate - radius, 0.0), np.minimum(estimate + radius, 1.0)


def learn_then_test(
    scores: npt.ArrayLike, labels: npt.ArrayLike, *, precision: float, delta: float, cut_offs: npt.ArrayLike
) -> float | None:
    """Return the most lenient cut-off whose precision is certain, but for `delta`, to be at least `precision`.

    Parameters
    ----------
    scores
        Scores of the release, shape (n,).
    labels
        0 or 1 for each score, from a closed window and not censored by an action. A missing label is refused.
    precision
        Share of 1s among the requests acted on that must be reached, in (0, 1).
    delta
        Probability that the precision at the returned cut-off is below `precision`, in (0, 1).
    cut_offs
        Candidates, shape (m,), chosen before the labels are seen; they are tested from the largest down.

    Returns
    -------
    float or None
        The last candidate before the first that fails. None when the strictest one fails: one with fewer than
        log(delta) / log(precision) requests above it cannot pass, so leave candidates out that are that strict.

    Raises
    ------
    ValueError
        When a score or a cut-off is not finite, a label is missing or neither 0 nor 1, lengths differ, or `precision`
        or `delta` is outside (0, 1).

    Notes
    -----
    Given how many requests reach a cut-off, their 1s are binomial. So p = P(Bin(n, precision) >= ones) tests "the
    precision is too low", and testing in a fixed order at full delta until the first failure keeps the error at delta
    (Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then test", arXiv:2110.01052, fixed-sequence testing).

    Examples
    --------
    >>> scores, labels = np.repeat([0.9, 0.6, 0.3], 100), np.repeat([1, 1, 0, 1, 0], [98, 90, 12, 30, 70])
    >>> learn_then_test(scores, labels, precision=0.85, delta=0.1, cut_offs=[0.3, 0.6, 0.9])
    0.6
    """
    values, outcomes = _labelled("learn_then_test", scores, labels)
    candidates = np.sort(_cut_offs("learn_then_test", cut_offs))[::-1]
    _require_inside("learn_then_test", precision=precision, delta=delta)
    acted, hits = _reached(values, candidates), _reached(values[outcomes == 1], candidates)
    # Loaded where it is needed: it takes a sixth of the time in which a process starts.
    from scipy.stats import binom  # noqa: PLC0415

    is_certified = binom.sf(hits - 1, acted, precision) <= delta
    passed = int(np.logical_and.accumulate(is_certified).sum())
    return float(candidates[passed - 1]) if passed else None


def trade_off(scores: npt.ArrayLike, labels: npt.ArrayLike, cut_offs: npt.ArrayLike, *, alpha: float) -> TradeOff:
    """Return action rate, precision and recall at each cut-off, for a curve that a person chooses from.

    Parameters
    ----------
    scores, labels
        As in `learn_then_test`.
    cut_offs
        Any number of cut-offs, shape (m,), fixed before the labels are seen.
    alpha
        Probability that the action rate, and likewise that the precision, is outside its band anywhere, in (0, 1).

    Returns
    -------
    TradeOff
        Bands: `action_rate_band` for the action rate, exact limits at alpha / m for the precision. Where nothing is
        known the estimate is NaN and the band from 0 to 1.

    Raises
    ------
    ValueError
        As `learn_then_test`, and when `alpha` is outside (0, 1).

    Notes
    -----
    At one look. A cut-off that is read off the curve has the guarantee of the bands, and not that of
    `certified_cut_off` or `learn_then_test`, which are sharper because they ask one question.

    Examples
    --------
    >>> curve = trade_off(np.repeat([0.9, 0.1], 50), np.repeat([1, 0, 1], [40, 50, 10]), [0.05, 0.5], alpha=0.1)
    >>> curve.action_rate.tolist(), curve.precision.tolist(), curve.recall.tolist()
    ([1.0, 0.5], [0.5, 0.8], [1.0, 0.8])
    """
    values, outcomes = _labelled("trade_off", scores, labels)
    at = _cut_offs("trade_off", cut_offs)
    _require_inside("trade_off", alpha=alpha)
    acted, hits = _reached(values, at), _reached(values[outcomes == 1], at)
    low, high = _exact_limits(hits, acted, alpha / max(at.size, 1))
    with np.errstate(invalid="ignore"):
        precision, recall = hits / acted, hits / (outcomes == 1).sum()
    return TradeOff(at, *action_rate_band(values, at, alpha=alpha), precision, low, high, recall)


def expected_rates(scores: npt.ArrayLike, count: npt.ArrayLike, cut_off: float) -> ExpectedRates | None:
    """Return precision, recall and accuracy that a release expects of itself, without any label. Advisory only.

    Parameters
    ----------
    scores
        The release's own probabilities of a 1, shape (groups,).
    count
        Number of requests with each score, whole numbers from 1.
    cut_off
        The release says 1 at the cut-off or above (`at_least`).

    Returns
    -------
    ExpectedRates or None
        None without a request.

    Raises
    ------
    ValueError
        When a score is outside [0, 1], a count is not one, or the cut-off is not finite.

    Notes
    -----
    Each score stands for the share of 1s among requests that have it ("confidence-based performance estimation"). That
    is right for a calibrated release and for no other, and whether the challenger is calibrated is what is on trial: it
    is scored by its own confidence. A release whose log-odds are twice too far from 0 expects an accuracy far above the
    one it has, and a change of what the scores mean leaves the expectation where it was. Hence `is_advisory`: these
    numbers may fill a report while labels are on their way; they may never open or close a gate.

    Examples
    --------
    >>> expected_rates([0.9, 0.2], [10, 30], 0.5)
    ExpectedRates(precision=0.9, recall=0.6, accuracy=0.825)
    >>> expected_rates([], [], 0.5) is None
    True
    """
    chance = _scores("expected_rates", scores)
    each = require_counts("expected_rates.count", count)
    if not ((chance >= 0) & (chance <= 1)).all():
        raise ValueError(
            "expected_rates.scores: found a score outside [0, 1]; expected probabilities; apply the release's "
            "calibration map first"
        )
    if chance.shape != each.shape or not (each >= 1).all() or not math.isfinite(cut_off):
        raise ValueError(
            f"expected_rates: found {chance.size} scores, {each.size} counts and cut-off {cut_off!r}; expected one "
            "count from 1 for each score and a finite cut-off; leave out empty groups"
        )
    if chance.size == 0:
        return None
    is_one = chance >= cut_off
    ones, said, units = float(each @ chance), float(each[is_one].sum()), float(each.sum())
    hits = float(each[is_one] @ chance[is_one])
    zeros = float(each[~is_one] @ (1.0 - chance[~is_one]))
    return ExpectedRates(hits / said if said else None, hits / ones if ones else None, (hits + zeros) / units)


def _scores(place: str, scores: npt.ArrayLike) -> FloatArray:
    """Return scores as an array, or refuse what is not one list of finite numbers."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(
            f"{place}.scores: found shape {values.shape} or a score that is not finite; expected one list of numbers; "
            "count requests without a score elsewhere"
        )
    return values


def _cut_offs(place: str, cut_offs: npt.ArrayLike) -> FloatArray:
    """Return cut-offs as an array, or refuse what is not one list of finite numbers."""
    values = np.asarray(cut_offs, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(
            f"{place}: found cut-offs of shape {values.shape} or one that is not finite; expected finite numbers; "
            "leave out the others"
        )
    return values


def _labelled(place: str, scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return scores and labels of equal length, or refuse a label that is not known."""
    values, outcomes = _scores(place, scores), np.asarray(labels, dtype=np.float64)
    if outcomes.shape != values.shape or not np.isin(outcomes, (0.0, 1.0)).all():
        raise ValueError(
            f"{place}.labels: found {outcomes.size} labels for {values.size} scores, or one that is missing or neither "
            "0 nor 1; expected the outcome of each request; leave out requests without a label, it is not 0"
        )
    return values, outcomes


def _require_inside(place: str, **numbers: float) -> None:
    """Refuse a rate or an error that is not strictly between 0 and 1."""
    for name, number in numbers.items():
        if not 0 < number < 1:
            raise ValueError(f"{place}.{name}: found {number!r}; expected a number in (0, 1); correct the policy")


def _reached(scores: FloatArray, cut_offs: FloatArray) -> FloatArray:
    """Return how many scores are at each cut-off or above."""
    return scores.size - np.searchsorted(np.sort(scores), cut_offs, side="left").astype(np.float64)


def _exact_limits(hits: npt.ArrayLike, trials: npt.ArrayLike, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Return the limits of Clopper and Pearson; 0 and 1 without a trial."""
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    low = np.where(k > 0, betaincinv(np.maximum(k, 1.0), n - k + 1.0, alpha / 2.0), 0.0)
    high = np.where(k < n, betaincinv(k + 1.0, np.maximum(n - k, 1.0), 1.0 - alpha / 2.0), 1.0)
    return low, high
