"""Decide among many hypotheses at once: guardrails times slices.

`bonferroni` is the rule that acts. It may be given the running maximum of each log E, and is valid for
evidence about different metrics of the same units, whose processes live in different filtrations. The
others take the e-values of one moment that was not chosen by looking at them, or of disjoint units of one
metric; they are for the report: `holm` to say which hypotheses fall with the error of any wrong name held,
`benjamini_hochberg` and `closed_benjamini_hochberg` to name culprits with the share of wrong names held on
average.

Everything is in logs; minus infinity is an e-value of 0. NaN is refused.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from seatrial.stats.kernel import FloatArray

BoolArray = npt.NDArray[np.bool_]


def bonferroni(log_e: npt.ArrayLike, weights: npt.ArrayLike, *, alpha: float) -> BoolArray:
    """Return which hypotheses are rejected by the weighted union bound: E >= 1/(w alpha).

    Parameters
    ----------
    log_e
        log E of each hypothesis, shape (K,), or its running maximum over all looks so far.
    weights
        Part of the error budget of each, at least 0, sum at most 1, declared before the rollout.
    alpha
        Error budget in (0, 1).

    Returns
    -------
    array of bool
        P(any true null is ever rejected) <= alpha under any dependence (Ville 1939 and the union bound).

    Raises
    ------
    ValueError
        When a log E is NaN, the weights exceed the budget or shapes disagree.

    Examples
    --------
    >>> bonferroni([3.0, 4.5], [0.5, 0.5], alpha=0.05).tolist()
    [False, True]
    """
    evidence = _require_evidence("bonferroni", log_e, alpha)
    parts = np.asarray(weights, dtype=np.float64)
    if parts.shape != evidence.shape or not (parts >= 0).all() or parts.sum() > 1.0 + 1e-9:
        raise ValueError(
            f"bonferroni.weights: found shape {parts.shape} and sum {float(parts.sum())!r}; expected one "
            f"weight for each of {evidence.size} hypotheses, at least 0, sum at most 1; divide the budget "
            "again"
        )
    with np.errstate(divide="ignore"):
        return np.asarray((parts > 0) & (evidence >= -np.log(parts) - math.log(alpha)))


def holm(log_e: npt.ArrayLike) -> FloatArray:
    """Return log E adjusted for all hypotheses at once: reject those of at least log(1/alpha).

    Parameters
    ----------
    log_e
        log E of each hypothesis, shape (K,), all at one moment; not running maxima.

    Returns
    -------
    array
        log min over m >= 0 of (e_k + the m smallest other e-values) / (m + 1), shape (K,).

    Raises
    ------
    ValueError
        When a log E is NaN.

    Notes
    -----
    Closed testing with the arithmetic mean (Vovk and Wang, Annals of Statistics 2021): P(any true null is
    rejected) <= alpha under any dependence; rejects whatever equal-weight `bonferroni` rejects.

    Examples
    --------
    >>> holm([math.log(60.0), math.log(20.0)]).round(6).tolist() == np.log([40.0, 20.0]).round(6).tolist()
    True
    """
    evidence = _require_evidence("holm", log_e)
    order = np.argsort(evidence, kind="stable")
    ascending = evidence[order]
    # Column m holds the sum of the m smallest of all. Beyond the rank of e_k it counts e_k twice, but only adds
    # values that are not below the mean so far, so that the least mean is found before.
    smallest = np.concatenate([[-math.inf], np.logaddexp.accumulate(ascending)])[: order.size]
    means = np.logaddexp(ascending[:, None], smallest) - np.log(np.arange(1, order.size + 1))
    adjusted = np.empty_like(evidence)
    adjusted[order] = means.min(axis=1, initial=math.inf)
    return adjusted


def benjamini_hochberg(log_e: npt.ArrayLike, *, alpha: float) -> BoolArray:
    """Return the hypotheses named by e-BH: the k largest, k the last with k e_(k) / K >= 1/alpha.

    Parameters
    ----------
    log_e
        log E of each hypothesis, shape (K,), all at one moment.
    alpha
        Expected share of true nulls among those named, in (0, 1), under any dependence (Wang and Ramdas,
        JRSS-B 2022).

    Raises
    ------
    ValueError
        When a log E is NaN or `alpha` is outside (0, 1).

    Examples
    --------
    >>> benjamini_hochberg(np.log([50.0, 45.0, 1.0]), alpha=0.05).tolist()
    [True, True, False]
    """
    evidence = _require_evidence("benjamini_hochberg", log_e, alpha)
    count = evidence.size
    rank = np.arange(1, count + 1)
    descending = np.sort(evidence)[::-1]
    is_enough = descending >= np.log(count / rank) - math.log(alpha)
    return _largest(evidence, int(rank[is_enough].max(initial=0)))


def closed_benjamini_hochberg(log_e: npt.ArrayLike, *, alpha: float) -> BoolArray:
    """Return the hypotheses named by closed e-BH, which names all that e-BH names and sometimes more.

    Parameters
    ----------
    log_e
        log E of each hypothesis, shape (K,), all at one moment. The work grows with the cube of K.
    alpha
        As in `benjamini_hochberg`.

    Raises
    ------
    ValueError
        When a log E is NaN or `alpha` is outside (0, 1).

    Notes
    -----
    Names the largest set R such that the mean e-value of every set S of hypotheses is at least |S and R| /
    (alpha |R|) (Xu and others 2025, arXiv:2509.02517). For the R of the r largest, the worst S takes the
    smallest members of R and the smallest others.

    Examples
    --------
    >>> benjamini_hochberg(np.log([50.0, 15.0]), alpha=0.05).tolist()
    [True, False]
    >>> closed_benjamini_hochberg(np.log([50.0, 15.0]), alpha=0.05).tolist()
    [True, True]
    """
    evidence = _require_evidence("closed_benjamini_hochberg", log_e, alpha)
    count = evidence.size
    # A set that holds an e-value of K/alpha passes whatever else it holds: larger ones need no telling apart.
    enough = math.log(max(count, 1)) - math.log(alpha)
    ascending = np.sort(np.exp(np.minimum(evidence, enough)))
    for named in range(count, 0, -1):
        others, members = ascending[: count - named], ascending[count - named :]
        inside = np.arange(1, named + 1)[:, None]
        outside = np.arange(count - named + 1)
        total = np.cumsum(members)[:, None] + np.concatenate([[0.0], np.cumsum(others)])
        # The bound is met with equality by design; rounding must not decide it.
        if (total * (1 + 1e-12) >= inside * (inside + outside) / (alpha * named)).all():
            return _largest(evidence, named)
    return _largest(evidence, 0)


def _largest(evidence: FloatArray, count: int) -> BoolArray:
    """Return True for the `count` largest of `evidence`."""
    chosen = np.zeros(evidence.shape, dtype=np.bool_)
    chosen[np.argsort(evidence, kind="stable")[evidence.size - count :]] = True
    return chosen


def _require_evidence(place: str, log_e: npt.ArrayLike, alpha: float = 0.5) -> FloatArray:
    """Return log e-values of shape (K,) without NaN, for an `alpha` in (0, 1)."""
    evidence = np.asarray(log_e, dtype=np.float64)
    if evidence.ndim != 1 or np.isnan(evidence).any():
        raise ValueError(
            f"{place}.log_e: found shape {evidence.shape} or NaN; expected one log E for each hypothesis; "
            "what could not be computed is an error, not an e-value"
        )
    if not 0 < alpha < 1:
        raise ValueError(f"{place}.alpha: found {alpha!r}; expected an error rate in (0, 1)")
    return evidence
