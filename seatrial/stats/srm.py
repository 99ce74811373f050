"""Judge whether units were assigned as recorded; every other verdict rests on the answer.

A mismatch of observed and recorded shares (sample ratio mismatch) has a cause that acts on one arm: lost
rows, timeouts, a filter after assignment, a label join. It makes every comparison of the arms invalid, so it
blocks all verdicts; it does not roll back by itself. Ask it of served units, of labelled units and of each
slice.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from seatrial.stats.kernel import FloatArray, RatioPrior, either, require_counts, require_probabilities

#: Relative changes of the odds of the challenger, looked for in both directions, with equal weights.
TILTS = (0.02, 0.05, 0.10, 0.20, 0.40, 0.80, 1.60)


def odds_tilt(
    challenger_units: npt.ArrayLike,
    champion_units: npt.ArrayLike,
    rho: npt.ArrayLike,
    *,
    tilts: tuple[float, ...] = TILTS,
) -> float | FloatArray:
    """Return log E against "units are assigned as recorded", for one cause that lasts over all epochs.

    Parameters
    ----------
    challenger_units, champion_units
        Counts of all units of each arm, good and bad, shape (..., S).
    rho
        Recorded probability of assignment to the challenger, 0 < rho < 1, shape (S,) or the shape of the
        counts.
    tilts
        Relative changes of the odds, each above 0; every one is tried as a factor 1 + tilt and its inverse.

    Returns
    -------
    float or array
        log E with the leading shape; 0.0 without units, which is not a sign of health.

    Raises
    ------
    ValueError
        As `seatrial.stats.kernel.harm`, and when a tilt is not above 0.

    Notes
    -----
    When every unit is the challenger's with probability `rho`, P(E ever >= 1/alpha) <= alpha at any number of
    looks and through any ramp. Losing 5 % of the challenger's units multiplies the odds by 0.95. A test
    with a single share on counts pooled over a ramp raises a false alarm nearly always.

    Examples
    --------
    >>> round(odds_tilt([1000, 950], [99000, 9050], [0.01, 0.1]), 3)
    -1.414
    >>> odds_tilt([900, 4000], [99000, 45000], [0.01, 0.1]) > math.log(1000)
    True
    """
    return either(challenger_units, champion_units, rho, prior=_evenly(tilts))


@lru_cache(maxsize=16)
def _evenly(tilts: tuple[float, ...]) -> RatioPrior:
    """Return equal weights on changes of the odds."""
    if not tilts or not all(math.isfinite(tilt) and tilt > 0 for tilt in tilts):
        raise ValueError(f"odds_tilt.tilts: found {tilts!r}; expected changes above 0; 0.05 is five percent")
    return RatioPrior(np.log1p(np.asarray(tilts)), np.full(len(tilts), 1.0 / len(tilts)))


def dirichlet_multinomial(counts: npt.ArrayLike, theta: npt.ArrayLike, k: float) -> float | FloatArray:
    """Return log E against "units fall into the arms with probabilities `theta`", for any number of arms.

    Parameters
    ----------
    counts
        Units of each arm, shape (..., arms), all from one allocation epoch.
    theta
        Recorded probabilities, shape (arms,) or the shape of `counts`, each above 0, sum 1.
    k
        Concentration of the alternative around `theta`, above 0: large k looks for small mismatches. 10,000
        suits losses of a few percent.

    Returns
    -------
    float or array
        log E with the leading shape. The evidence of several epochs adds up: sum it over them.

    Raises
    ------
    ValueError
        When counts, probabilities or `k` are outside their ranges, or shapes disagree.

    Notes
    -----
    Exact at any number of looks within one epoch (Lindon and Malek, NeurIPS 2022, arXiv:2011.03567). Each
    epoch pays for its own alternative; `odds_tilt` pays once for a cause that lasts.

    Examples
    --------
    >>> round(dirichlet_multinomial([1117, 8883], [0.1, 0.9], k=100), 9)
    4.921221387
    """
    units = require_counts("dirichlet_multinomial.counts", counts)
    shares = require_probabilities("dirichlet_multinomial.theta", theta)
    if not (math.isfinite(k) and k > 0):
        raise ValueError(f"dirichlet_multinomial.k: found {k!r}; expected a concentration above 0, such as 10000")
    if units.ndim == 0 or shares.shape not in (units.shape[-1:], units.shape):
        raise ValueError(
            f"dirichlet_multinomial: found shapes {units.shape} and {shares.shape}; expected (..., arms) "
            "and one probability for each arm"
        )
    if not np.allclose(shares.sum(axis=-1), 1.0, rtol=0, atol=1e-9):
        raise ValueError("dirichlet_multinomial.theta: found a sum that is not 1; expected shares of all arms")
    pseudo = k * shares
    each = gammaln(pseudo + units) - gammaln(pseudo) - units * np.log(shares)
    log_e = gammaln(k) - gammaln(k + units.sum(axis=-1)) + each.sum(axis=-1)
    return float(log_e) if units.ndim == 1 else np.asarray(log_e, dtype=np.float64)
