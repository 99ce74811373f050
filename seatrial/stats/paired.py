"""Compare two releases on the same requests: what shadow traffic can say about quality before anyone is exposed.

Both releases score each request, so that no assignment, ramp or base rate enters, and what makes a request hard
cancels in the difference. Pairs are grouped: equal scores with an equal label are one row with a count. Each answer
depends on the counts alone, never on the order in which pairs or looks arrived.

The labels of a look must be those of a closed window, good and bad alike: while one kind of label is still on its
way, the pairs that have theirs are not a sample of all pairs. A label that depends on the champion's action
(selective labels) says nothing about requests on which the challenger would have acted otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seatrial.stats.kernel import FloatArray, harm, noninferiority, require_counts
from seatrial.stats.means import MINIMUM_NONZERO, MINIMUM_UNITS, STAKES, Score, Sums, bet_log_e, interval, paired_score

#: least probability of a label that `log_loss` believes in, so that one certain mistake costs at most 13.8
CLIP = 1e-6

#: loss of each score given its label, one number for each pair
Loss = Callable[[FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Requests that both releases scored and whose label is known, grouped by score and label.

    All arrays have one shape (groups,). Rows are sorted and equal ones merged, so that two objects with the same
    pairs give the same answers to the last bit; two of them merge with ``+``. ValueError when lengths differ, a score
    is not finite, a label is not 0 or 1, or a count is not a whole number from 1.

    >>> Pairs([0.2, 0.9, 0.2], [0.1, 0.7, 0.1], [0, 1, 0], [1, 1, 4]).count.tolist()
    [5.0, 1.0]
    """

    #: score of the champion
    champion: FloatArray
    #: score of the challenger on the same request
    challenger: FloatArray
    #: 1 for what the score is about, 0 otherwise
    label: FloatArray
    #: number of requests with these scores and this label
    count: FloatArray

    def __post_init__(self) -> None:
        rows = [np.asarray(getattr(self, name), dtype=np.float64) for name in self.__slots__]
        champion, challenger, label, count = rows
        if champion.ndim != 1 or any(row.shape != champion.shape for row in rows):
            raise ValueError(
                f"Pairs: found shapes {[row.shape for row in rows]}; expected four lists of equal length; give one "
                "score of each release, one label and one count for each group"
            )
        if not (np.isfinite(champion).all() and np.isfinite(challenger).all()):
            raise ValueError(
                "Pairs: found a score that is not finite; expected a number from both releases; count requests that "
                "one of them did not answer elsewhere"
            )
        if not np.isin(label, (0.0, 1.0)).all():
            raise ValueError(
                "Pairs.label: found a label that is missing or neither 0 nor 1; expected the outcome of a closed "
                "window; leave out pairs whose label is not known, it is not 0"
            )
        if not (require_counts("Pairs.count", count) >= 1).all():
            raise ValueError("Pairs.count: found a count of 0; expected whole numbers from 1; leave out empty groups")
        for name, row in zip(self.__slots__, _grouped(champion, challenger, label, count), strict=True):
            row.flags.writeable = False
            object.__setattr__(self, name, row)

    def __add__(self, other: Pairs) -> Pairs:
        """Return the pairs of both, which must not share a request."""
        return Pairs(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class McNemar:
    """Log E of both questions about discordant pairs."""

    #: against "the challenger's odds of being the one that is wrong are at most the null"
    harm: float | FloatArray
    #: against "they are at least the null times 1 + margin"
    noninferiority: float | FloatArray


@dataclass(frozen=True, slots=True)
class Difference:
    """Challenger minus champion with limits that hold at all looks at once; `score` answers one-sided questions."""

    #: what `seatrial.stats.means.log_e_above` and `log_e_below` take
    score: Score
    #: lower limit, in units of the measure
    low: float
    #: upper limit
    high: float

    @property
    def estimate(self) -> float:
        """Return the difference itself."""
        return self.score.estimate


@dataclass(frozen=True, slots=True)
class Auc:
    """Areas under the ROC curve on the same pairs, with the standard error of their difference."""

    #: probability that the champion ranks a 1 above a 0, ties as one half
    champion: float
    #: the same for the challenger
    challenger: float
    #: of `challenger` minus `champion` (DeLong)
    standard_error: float
    #: number of pairs, of both classes
    pairs: float
    #: number of pairs that the two releases do not place alike among the other class
    moved: float

    @property
    def difference(self) -> float:
        """Return challenger minus champion; below 0 is worse."""
        return self.challenger - self.champion


def wrong_alone(pairs: Pairs, *, champion_cut_off: float, challenger_cut_off: float) -> tuple[int, int]:
    """Return on how many requests the challenger alone and the champion alone was wrong at its own cut-off.

    Parameters
    ----------
    pairs
        Scores and labels.
    champion_cut_off, challenger_cut_off
        A release says 1 at its cut-off or above (`at_least`).

    Returns
    -------
    challenger_only, champion_only
        What `mcnemar` takes. Requests on which both are right or both wrong do not tell the releases apart.

    Raises
    ------
    ValueError
        When a cut-off is not finite.

    Examples
    --------
    >>> wrong_alone(Pairs([0.2, 0.9], [0.6, 0.8], [0, 1], [3, 5]), champion_cut_off=0.5, challenger_cut_off=0.5)
    (3, 0)
    """
    if not (math.isfinite(champion_cut_off) and math.isfinite(challenger_cut_off)):
        raise ValueError(
            f"wrong_alone: found cut-offs {champion_cut_off!r} and {challenger_cut_off!r}; expected finite numbers; "
            "give the cut-off of the policy that each release is served with"
        )
    is_champion_wrong = (pairs.champion >= champion_cut_off) != pairs.label
    is_challenger_wrong = (pairs.challenger >= challenger_cut_off) != pairs.label
    challenger_only = pairs.count[is_challenger_wrong & ~is_champion_wrong].sum()
    champion_only = pairs.count[is_champion_wrong & ~is_challenger_wrong].sum()
    return int(challenger_only), int(champion_only)


def mcnemar(
    challenger_only: npt.ArrayLike, champion_only: npt.ArrayLike, *, margin: float, null_odds: float = 1.0
) -> McNemar:
    """Return log E against "not worse" and against "worse by the margin", from pairs on which one release is wrong.

    Parameters
    ----------
    challenger_only, champion_only
        Requests on which this release alone was wrong, whole numbers; any shape, one entry for each hypothesis.
    margin
        Relative worsening of the odds that must be ruled out for promotion, above 0.
    null_odds
        Largest odds challenger : champion that are not harm, above 0; `margin` is counted from here.

    Returns
    -------
    McNemar
        Reject at ``log E >= log(1/alpha)``. Both are 0.0 without discordant pairs, which shows nothing.

    Raises
    ------
    ValueError
        When a count is not one, or `margin` or `null_odds` is not above 0.

    Notes
    -----
    Given that one release alone is wrong, it is the challenger with odds b : c, whatever the difficulty of the
    request. So the kernel with rho = 1/2 applies and P(E ever >= 1/alpha) <= alpha at any number of looks, as long as
    the odds keep to the null for each pair given those before it. Source: McNemar 1947 for the statistic, Lindon and
    Malek, arXiv:2011.03567, for the e-process. Requests on which both are right do not count: odds of 2 can be two
    mistakes against one in a million requests, so that a margin on odds is stricter than one on the rate of mistakes.

    Examples
    --------
    >>> tested = mcnemar(60, 20, margin=0.5)
    >>> tested.harm > math.log(20), tested.noninferiority < 0
    (True, True)
    >>> mcnemar(0, 0, margin=0.5)
    McNemar(harm=0.0, noninferiority=0.0)
    """
    if not (math.isfinite(null_odds) and null_odds > 0):
        raise ValueError(f"mcnemar.null_odds: found {null_odds!r}; expected odds above 0; 1 means 'not worse at all'")
    challenger = np.asarray(challenger_only, dtype=np.float64)[..., None]
    champion = np.asarray(champion_only, dtype=np.float64)[..., None]
    # Null odds of the kernel at rho are rho / (1 - rho) times the ratio; here they go into rho for both questions.
    rho = [null_odds / (1.0 + null_odds)]
    return McNemar(harm(challenger, champion, rho), noninferiority(challenger, champion, rho, margin=margin))


def brier(score: FloatArray, label: FloatArray) -> FloatArray:
    """Return the squared error of each probability, in [0, 1].

    >>> brier(np.array([0.9, 0.5]), np.array([1, 0])).round(12).tolist()
    [0.01, 0.25]
    """
    return (_probabilities("brier", score) - label) ** 2


def log_loss(score: FloatArray, label: FloatArray) -> FloatArray:
    """Return minus the log of the probability given to each label, which counts as `CLIP` at least.

    >>> log_loss(np.array([1.0, 0.5]), np.array([0, 1])).round(4).tolist()
    [13.8155, 0.6931]
    """
    chance = _probabilities("log_loss", score)
    return -np.log(np.maximum(np.where(label == 1, chance, 1.0 - chance), CLIP))


def brier_harm(pairs: Pairs, *, null: float = 0.0) -> float:
    """Return log E against "the challenger's Brier loss exceeds the champion's by at most `null`".

    Parameters
    ----------
    pairs
        Scores that are probabilities, with labels.
    null
        Largest mean difference that is not harm, in (-1, 1).

    Returns
    -------
    float
        Reject at ``log E >= log(1/alpha)``; 0.0 without pairs.

    Raises
    ------
    ValueError
        When a score is outside [0, 1] or `null` outside (-1, 1).

    Notes
    -----
    Exact from the first pair: P(E ever >= 1/alpha) <= alpha when the difference of each pair has mean at most `null`
    given the pairs before it (Waudby-Smith and Ramdas, JRSS-B 2024, arXiv:2010.09686). Differences lie in [-1, 1]; the
    stakes are fixed, so that their product depends on the counts alone.

    Examples
    --------
    >>> brier_harm(Pairs([0.1, 0.9], [0.4, 0.6], [0, 1], [200, 40])) > math.log(20)
    True
    """
    return _bet(_differences(pairs, brier), pairs.count, null=null)


def brier_noninferiority(pairs: Pairs, *, margin: float) -> float:
    """Return log E against "the challenger's Brier loss exceeds the champion's by at least `margin`".

    Parameters
    ----------
    pairs
        Scores that are probabilities, with labels.
    margin
        Absolute worsening of the mean loss that must be ruled out, in (0, 1).

    Returns
    -------
    float
        Promotion needs ``log E >= log(1/alpha)``; 0.0, which never promotes, without pairs.

    Raises
    ------
    ValueError
        When a score is outside [0, 1] or `margin` outside (0, 1).

    Notes
    -----
    Exact, as `brier_harm` with the sign of the differences turned.

    Examples
    --------
    >>> brier_noninferiority(Pairs([0.1, 0.9], [0.1, 0.9], [0, 1], [900, 100]), margin=0.01) > math.log(20)
    True
    """
    if not 0 < margin < 1:
        raise ValueError(
            f"brier_noninferiority.margin: found {margin!r}; expected a loss in (0, 1); without a margin no amount of "
            "evidence can show that the challenger is not worse"
        )
    return _bet(-_differences(pairs, brier), pairs.count, null=-margin)


def loss_difference(pairs: Pairs, loss: Loss, *, tuned_at: float, alpha: float) -> Difference | None:
    """Return the mean difference of a loss, challenger minus champion, with limits for all looks at once.

    Parameters
    ----------
    pairs
        Scores and labels.
    loss
        `brier`, `log_loss` or any other loss of one score given its label.
    tuned_at
        V at which the limits shall be tightest, above 0: the planned number of pairs times the variance of one
        difference in an earlier window. A wrong value costs width, never validity.
    alpha
        Error of the whole sequence, in (0, 1).

    Returns
    -------
    Difference or None
        None below `MINIMUM_UNITS` pairs or `MINIMUM_NONZERO` pairs whose losses differ: the answer is then "not
        known", also for two releases that agree everywhere.

    Raises
    ------
    ValueError
        When a loss is not finite, `tuned_at` is not above 0 or `alpha` outside (0, 1).

    Notes
    -----
    Asymptotic: needs a finite variance and a first look that is not too early (Waudby-Smith, Arbour, Sinha, Kennedy and
    Ramdas, Annals of Statistics 2024, arXiv:2103.06476). The limits are about the average of the expected differences
    so far, which may change over time (Choe and Ramdas, "Comparing sequential forecasters", arXiv:2110.00115).

    Examples
    --------
    >>> found = loss_difference(
    ...     Pairs([0.1, 0.9], [0.4, 0.6], [0, 1], [200, 40]), brier, tuned_at=2.0, alpha=0.05
    ... )
    >>> round(found.estimate, 4), found.low < 0.15 < found.high
    (0.15, True)
    >>> loss_difference(Pairs([0.1], [0.4], [0], [9]), brier, tuned_at=2.0, alpha=0.05) is None
    True
    """
    _require_tuning("loss_difference", tuned_at, alpha)
    score = paired_score(_sums(_differences(pairs, loss), pairs.count))
    return None if score is None else _limited(score, tuned_at=tuned_at, alpha=alpha)


def auc(pairs: Pairs) -> Auc | None:
    """Return both areas under the ROC curve and the standard error of their difference.

    Parameters
    ----------
    pairs
        Scores on any scale, with labels.

    Returns
    -------
    Auc or None
        None when a class has fewer than `MINIMUM_UNITS` pairs.

    Notes
    -----
    The placement of a 1 is the share of 0s that it outranks, ties counted half, and that of a 0 the share of 1s that
    outrank it. The variance of the difference is the sum over classes of the variance of the difference of placements
    by the size of the class (DeLong, DeLong and Clarke-Pearson, Biometrics 1988; by midranks: Sun and Xu, IEEE Signal
    Processing Letters 2014). It counts groups as their members, so that grouping changes nothing.

    Examples
    --------
    >>> both = auc(Pairs([0.1, 0.9, 0.9], [0.1, 0.2, 0.1], [0, 1, 0], [60, 50, 20]))
    >>> both.champion, both.challenger
    (0.875, 1.0)
    """
    weights = pairs.count * pairs.label, pairs.count * (1.0 - pairs.label)
    sizes = [float(weight.sum()) for weight in weights]
    if min(sizes) < MINIMUM_UNITS:
        return None
    champion, challenger = (_placements(scores, *weights) for scores in (pairs.champion, pairs.challenger))
    variance = moved = 0.0
    for weight, size, here, there in zip(weights, sizes, champion, challenger, strict=True):
        # Numerators are whole numbers of halves, so that "did not move" is exact; the shares are not.
        difference = (there - here) / (sum(sizes) - size)
        centred = difference - float(weight @ difference) / size
        variance += float(weight @ centred**2) / (size - 1.0) / size
        moved += float(weight[there != here].sum())
    area, other = (float(weights[0] @ outranked) / math.prod(sizes) for outranked, _ in (champion, challenger))
    return Auc(area, other, math.sqrt(variance), sum(sizes), moved)


def auc_difference(pairs: Pairs, *, tuned_at: float, alpha: float) -> Difference | None:
    """Return the AUC of the challenger minus that of the champion, with limits for all looks at once.

    Parameters
    ----------
    pairs
        Scores on any scale, with labels.
    tuned_at
        V at which the limits shall be tightest, above 0: n^2 SE^2 grows like n, so give the planned number of pairs
        times n SE^2 of an earlier window. A wrong value costs width, never validity.
    alpha
        Error of the whole sequence, in (0, 1).

    Returns
    -------
    Difference or None
        None when a class has fewer than `MINIMUM_UNITS` pairs, or fewer than `MINIMUM_NONZERO` pairs change their
        placement: the answer is then "not known", also for two releases that rank alike.

    Raises
    ------
    ValueError
        When `tuned_at` is not above 0 or `alpha` is outside (0, 1).

    Notes
    -----
    Asymptotic: the difference is a mean of n terms of variance n SE^2 and a remainder that vanishes faster, to which
    the sequence of arXiv:2103.06476 applies. Pairs must be alike in distribution, because a drift of the classes
    changes what the AUC of all pairs together is.

    Examples
    --------
    >>> pairs = Pairs([0.1, 0.9, 0.9], [0.1, 0.2, 0.1], [0, 1, 0], [60, 50, 20])
    >>> auc_difference(pairs, tuned_at=20.0, alpha=0.05).estimate
    0.125
    """
    _require_tuning("auc_difference", tuned_at, alpha)
    areas = auc(pairs)
    if areas is None or areas.moved < MINIMUM_NONZERO:
        return None
    variance = (areas.pairs * areas.standard_error) ** 2
    return _limited(Score(areas.pairs * areas.difference, variance, areas.pairs), tuned_at=tuned_at, alpha=alpha)


def _grouped(*rows: FloatArray) -> list[FloatArray]:
    """Return the rows sorted by all but the last, with equal ones merged and their counts, the last, added up."""
    *keys, count = rows
    order = np.lexsort(keys)
    keys = [key[order] + 0.0 for key in keys]  # adding 0 makes -0.0 and 0.0 one score to the last bit
    is_first = np.ones(order.size, dtype=bool)
    is_first[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    starts = np.flatnonzero(is_first)
    counts = np.add.reduceat(count[order], starts) if starts.size else np.zeros(0)
    return [*(key[starts] for key in keys), counts]


def _probabilities(place: str, scores: FloatArray) -> FloatArray:
    """Return the scores, or refuse what is no probability."""
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(
            f"{place}: found a score outside [0, 1]; expected probabilities; apply the release's calibration map "
            "first, or compare by AUC, which takes any scale"
        )
    return scores


def _differences(pairs: Pairs, loss: Loss) -> FloatArray:
    """Return the loss of the challenger minus that of the champion, one for each group."""
    return loss(pairs.challenger, pairs.label) - loss(pairs.champion, pairs.label)


def _bet(differences: FloatArray, count: FloatArray, *, null: float) -> float:
    """Return log E against "the mean of differences in [-1, 1] is at most `null`", group by group."""
    if not -1 < null < 1:
        raise ValueError(f"brier_harm.null: found {null!r}; expected a loss in (-1, 1); 0 means 'not worse at all'")
    return bet_log_e(np.log1p(STAKES[:, None] / (null + 1.0) * (differences - null)) @ count)


def _sums(differences: FloatArray, count: FloatArray) -> Sums:
    """Return the sums of grouped differences as one epoch."""
    units, moved, total, squares = (
        np.array([count @ value]) for value in (np.ones_like(count), differences != 0, differences, differences**2)
    )
    return Sums(units, moved, total, units, squares, total, units)


def _placements(scores: FloatArray, ones: FloatArray, zeros: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return by group how many 0s a 1 with its score outranks, and how many 1s outrank a 0, ties as one half."""
    values, where = np.unique(scores, return_inverse=True)
    at_ones = np.bincount(where, weights=ones, minlength=values.size)
    at_zeros = np.bincount(where, weights=zeros, minlength=values.size)
    below = np.cumsum(at_zeros) - 0.5 * at_zeros
    above = at_ones.sum() - np.cumsum(at_ones) + 0.5 * at_ones
    return below[where], above[where]


def _require_tuning(place: str, tuned_at: float, alpha: float) -> None:
    """Refuse a plan without limits, also while there is too little data to need them."""
    if not (math.isfinite(tuned_at) and tuned_at > 0 and 0 < alpha < 1):
        raise ValueError(
            f"{place}: found tuned_at={tuned_at!r}, alpha={alpha!r}; expected a planned variance above 0 and an error "
            "in (0, 1); set both before the rollout"
        )


def _limited(score: Score, *, tuned_at: float, alpha: float) -> Difference:
    """Return the score with its limits."""
    return Difference(score, *interval(score, tuned_at=tuned_at, alpha=alpha))
