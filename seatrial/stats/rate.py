"""Evidence that one arm's rate lies below an absolute bound, for guardrails whose base rate is near zero.

A ratio needs bad units in both arms; a release without a single failure has none to offer. Against "the rate is at
least m" each unit contributes q/m when bad and (1 - q)/(1 - m) when good, for a q below m. Its expectation is 1 at
m and falls as the true rate rises, so that the mixture over q is a supermartingale whatever the drift above m.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import logsumexp

#: alternatives as fractions of the bound; 0 is left out because one failure would end the process for ever
_FRACTIONS = np.array([0.01, 0.1, 0.25, 0.5, 0.75])


def below(bad: int, units: int, *, bound: float) -> float:
    """Return log E against "the rate of bad units is at least `bound`".

    Parameters
    ----------
    bad, units
        Counts of the arm, 0 <= `bad` <= `units`.
    bound
        Rate in (0, 1).

    Returns
    -------
    float
        log E; reject at ``log E >= log(1/alpha)``. 0.0 without units, which shows nothing.

    Raises
    ------
    ValueError
        When the counts or the bound are outside their ranges.

    Notes
    -----
    Under the null P(E ever >= 1/alpha) <= alpha at any number of looks (Ville 1939; Waudby-Smith and Ramdas, JRSS-B
    2024, section 4, for binary observations).

    Examples
    --------
    >>> below(0, 0, bound=0.005)
    0.0
    >>> below(0, 2_000, bound=0.005) > math.log(20)
    True
    """
    if not (0 < bound < 1 and 0 <= bad <= units):
        raise ValueError(
            f"below: found {bad!r} bad of {units!r} units and bound {bound!r}; expected 0 <= bad <= units and a"
            " bound in (0, 1)"
        )
    rates = _FRACTIONS * bound
    log_lr = bad * np.log(_FRACTIONS) + (units - bad) * (np.log1p(-rates) - math.log1p(-bound))
    return float(logsumexp(log_lr) - math.log(rates.size))
