"""Figures of one rule on one cell, and the least exposure that any rule could do with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import rel_entr

from benchmarks.decisions.flights import year
from benchmarks.decisions.rules import Act
from benchmarks.decisions.streams import CHALLENGER, CHAMPION, SLICE_SHARES, beta_binomial
from benchmarks.decisions.suites import Truth

if TYPE_CHECKING:
    from benchmarks.decisions.engine import Endings
    from benchmarks.decisions.mixture import Floats
    from benchmarks.decisions.rules import Rule
    from benchmarks.decisions.streams import Stream
    from benchmarks.decisions.suites import Cell

ALPHA = 0.05


def wilson(hits: int, of: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the Wilson 95 % interval of a rate (Wilson 1927); (0, 1) of nothing.

    >>> [round(limit, 4) for limit in wilson(10, 100)]
    [0.0552, 0.1744]
    """
    if of == 0:
        return 0.0, 1.0
    center = (hits + z**2 / 2) / (of + z**2)
    radius = z / (of + z**2) * math.sqrt(hits * (of - hits) / of + z**2 / 4)
    return max(center - radius, 0.0), min(center + radius, 1.0)


def divergence(p: Floats | float, q: Floats | float) -> Floats:
    """Return kl(p, q) of two Bernoulli distributions, in nats."""
    one, other = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    return np.asarray(rel_entr(one, other) + rel_entr(1 - one, 1 - other))


def information_limit(base: float, ratio: float, *, alpha: float = ALPHA, share: float = 0.0) -> float:
    """Return the mean exposure that no level-`alpha` rule can beat.

    Parameters
    ----------
    base, ratio
        Champion's rate and the challenger's as a multiple of it.
    alpha
        Error rate.
    share
        Challenger's share; with 0 the champion's rate is known, which is the strictest limit.

    Returns
    -------
    float
        Challenger units: share log(1/alpha) / I with I the information of a served unit (Wald 1945); log(1/alpha) /
        kl(p1, p0) in the limit of a small share.

    Examples
    --------
    >>> round(information_limit(0.02, 1.5))
    1352
    """
    needed, worse = math.log(1.0 / alpha), base * ratio
    if share == 0:
        return float(needed / divergence(worse, base))
    mean = share * worse + (1 - share) * base
    information = share * divergence(worse, mean) + (1 - share) * divergence(base, mean)
    return float(share * needed / information)


def positives_limit(stream: Stream, known: Floats, *, alpha: float = ALPHA) -> float:
    """Return the least mean exposure along the ramp when only bad units tell, as they arrive.

    Parameters
    ----------
    stream
        One guardrail; its ramp, base rate and ratio count, swings do not.
    known
        Part of the bad labels known at age 0, 1, 2 ... ticks; the last value holds for all later ages.

    Returns
    -------
    float
        Challenger units served when the expected information of the arrived positives reaches log(1/alpha).
    """
    ramp, ratio = stream.ramp, stream.ratio[0]
    ticks = ramp.planned * 3
    index = np.minimum(np.arange(ticks) // ramp.ticks, len(ramp.shares) - 1)
    share = np.array(ramp.shares)[index]
    theta = share * ratio / (share * ratio + 1 - share)
    each = ramp.units * stream.base[0] * (share * ratio + 1 - share) * divergence(theta, share)
    arrives = np.diff(np.concatenate([known, np.full(max(ticks - known.size, 0), known[-1])]), prepend=0.0)[:ticks]
    information = np.cumsum(np.convolve(each, arrives)[:ticks])
    batch = stream.delay.batch if stream.delay else 1
    information = information[np.arange(ticks) // batch * batch]
    exposed = np.cumsum(ramp.units * share)
    first = int(np.searchsorted(information, math.log(1.0 / alpha)))
    return float(exposed[first])


def limit_of(cell: Cell) -> float | None:
    """Return the information limit of a harmful cell, in requests of the challenger after the onset; None elsewhere."""
    stream = cell.stream
    if cell.truth is not Truth.HARMFUL:
        return None
    if cell.is_real:
        return positives_limit(stream, year().known_within)
    if stream.delay is not None:
        ages = np.arange(3 * stream.ramp.planned, dtype=np.float64)
        return positives_limit(stream, stream.delay.known_within(ages, CHAMPION))
    worst = int(np.argmax(stream.ratio))
    base, ratio = stream.base[worst], stream.ratio[worst]
    if stream.entity_events > 1:
        size = stream.entity_events
        hit = [
            1 - float(beta_binomial(size, stream.rates(arm)[:1], stream.entity_correlation)[0, 0])
            for arm in (CHALLENGER, CHAMPION)
        ]
        return size * information_limit(hit[1], hit[0] / hit[1])
    part = 1.0 if stream.slice_at is None else float(SLICE_SHARES[stream.slice_at])
    # Harm that begins late meets a share that is no longer small.
    share = stream.ramp.shares[stream.onset] if stream.onset else 0.0
    return information_limit(base, ratio, share=share) / part


@dataclass(frozen=True, slots=True)
class Score:
    """How one rule did on one cell."""

    cell: Cell
    rule: str
    replicates: int
    rolled_back: int
    promoted: int
    asked: int
    invalid: int
    exposed: float  #: mean requests of the challenger, after the onset
    exposed_p95: float
    exposed_error: float  #: standard error of the mean
    limit: float | None
    promoted_after: float | None  #: mean ticks to promotion, of those promoted
    human_asks: float  #: mean questions to people, approvals included
    excess_bad: float  #: mean bad units that the champion would not have caused

    @property
    def regret(self) -> float | None:
        """Return mean exposure as a multiple of the information limit."""
        return None if self.limit is None else self.exposed / self.limit

    @property
    def wrong(self) -> tuple[int, str]:
        """Return how often the rule was wrong, and in which way."""
        match self.cell.truth:
            case Truth.HARMLESS | Truth.UNEQUAL:
                return self.rolled_back, "false rollback"
            case Truth.HARMFUL:
                return self.replicates - self.rolled_back, "missed"
            case Truth.AT_MARGIN | Truth.BROKEN:
                return self.promoted, "false promotion"


def score(cell: Cell, rule: Rule, endings: Endings) -> Score:
    """Return the figures of `endings`."""
    act, count = endings.act, endings.act.size
    exposed = endings.exposed_after_onset if cell.stream.onset else endings.exposed
    is_promoted = act == Act.PROMOTE
    asks = (is_promoted & rule.asks_approval) | (act == Act.ASK) | (act == Act.INVALID)
    more = cell.stream.rates(CHALLENGER) - cell.stream.rates(CHAMPION)
    return Score(
        cell=cell,
        rule=rule.name,
        replicates=count,
        rolled_back=int((act == Act.ROLL_BACK).sum()),
        promoted=int(is_promoted.sum()),
        asked=int((act == Act.ASK).sum()),
        invalid=int((act == Act.INVALID).sum()),
        exposed=float(exposed.mean()),
        exposed_p95=float(np.quantile(exposed, 0.95)),
        exposed_error=float(exposed.std() / math.sqrt(count)),
        limit=limit_of(cell),
        promoted_after=float(endings.ticks[is_promoted].mean()) if is_promoted.any() else None,
        human_asks=float(asks.mean()),
        excess_bad=float(exposed.mean() * max(more.max(), 0.0)),
    )
