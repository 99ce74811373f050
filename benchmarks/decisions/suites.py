"""The cells of the benchmark: suites S0 to S12, and the real stream."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from scipy.special import ndtr, ndtri

from benchmarks.decisions.ours import MARGIN
from benchmarks.decisions.streams import Delay, Ramp, Stream


class Truth(StrEnum):
    """What the right answer to a cell is."""

    HARMLESS = "harmless"  #: no hypothesis is worse: a rollback is a false one
    HARMFUL = "harmful"  #: a rollback is right, a promotion a miss
    AT_MARGIN = "at the margin"  #: a promotion is a false one
    BROKEN = "broken"  #: the arms cannot be compared: a promotion is a false one
    UNEQUAL = "unequal delays"  #: an assumption of early positives does not hold: reported, promised nothing


@dataclass(frozen=True, slots=True)
class Cell:
    """One stream with the right answer to it."""

    suite: str
    name: str
    stream: Stream
    truth: Truth
    is_quick: bool = False  #: part of the two-minute subset
    is_real: bool = False  #: flights in place of simulated units
    replicates: float = 1.0  #: as a part of the number asked for, for costly cells

    @property
    def title(self) -> str:
        """Return suite and name."""
        return f"{self.suite} {self.name}"


#: Ten guardrails, twenty slices each.
TEN = (0.02,) * 10
#: The same traffic as the usual ramp with a look every four ticks, for suites in which most rollouts last to the end.
COARSE = Ramp(ticks=15, units=8_000)


def _ten(ratio: float) -> tuple[float, ...]:
    return (ratio, *((1.0,) * (len(TEN) - 1)))


def _many(ratio: float = 1.0, **changes: object) -> Stream:
    return Stream(base=TEN, ratio=_ten(ratio), has_slices=True, **changes)  # type: ignore[arg-type]


def exceedance_ratio(*, slower: float = 1.0, part: float = 1.0, sigma: float = 0.5, quantile: float = 0.99) -> float:
    """Return how much more often log-normal latency exceeds the champion's quantile when a part is slower.

    >>> round(exceedance_ratio(slower=1.1), 2)
    1.64
    """
    z = float(ndtri(quantile))
    exceeds = part * float(ndtr(math.log(slower) / sigma - z)) + (1.0 - part) * (1.0 - quantile)
    return exceeds / (1.0 - quantile)


def _cells() -> list[Cell]:
    harmless, harmful, quick = Truth.HARMLESS, Truth.HARMFUL, True
    cells = [
        Cell("S0", "A/A stationary", Stream(), harmless, quick, replicates=2.0),
        Cell("S0", "A/A, 10 x 20", _many(ramp=COARSE), harmless),
        Cell("S1", "A/A, swing and shocks", Stream(swing=0.5), harmless, quick, replicates=2.0),
        Cell("S1", "A/A, swing, 10 x 20", _many(ramp=COARSE, swing=0.5), harmless, quick),
    ]
    cells += [
        Cell("S2", f"r={ratio:g}", Stream(ratio=(ratio,)), harmful, ratio not in (1.1, 5.0), replicates=times)
        for ratio, times in ((1.1, 1.0), (1.25, 3.0), (1.5, 5.0), (2.0, 5.0), (3.0, 5.0), (5.0, 5.0))
    ]
    cells += [
        Cell("S2", f"r={ratio:g}, 10 x 20", _many(ratio), harmful, ratio == 2.0, replicates=0.5)
        for ratio in (1.25, 1.5, 2.0, 3.0)
    ]
    cells.append(Cell("S2", "r=1.5, swing", Stream(ratio=(1.5,), swing=0.5), harmful))
    cells += [
        Cell("S3", "r=2 from 10 %", Stream(ratio=(2.0,), onset=2), harmful),
        Cell("S3", "r=1.5 from 25 %", Stream(ratio=(1.5,), onset=3), harmful, quick),
        Cell("S3", "r=1.25 from 50 %", Stream(ratio=(1.25,), onset=4), harmful),
    ]
    cells += [
        Cell("S4", f"r=3 in a slice of {part}", _many(3.0, slice_at=at), harmful, at == 0, replicates=0.25)
        for at, part in ((0, "20 %"), (2, "5 %"), (3, "2 %"))
    ]
    tail = (0.01,)
    cells += [
        Cell("S5", "p99 exceeded, A/A, swing", Stream(base=tail, swing=0.5), harmless),
        Cell("S5", "all latencies x1.1", Stream(base=tail, ratio=(exceedance_ratio(slower=1.1),)), harmful),
        Cell("S5", "1 % of requests x4", Stream(base=tail, ratio=(exceedance_ratio(slower=4, part=0.01),)), harmful),
    ]
    late, heavy, batches = Delay(), Delay(sigma=2.0), Delay(batch=48)
    cells += [
        Cell("S6", "A/A, 24 h labels", Stream(delay=late), harmless, quick),
        Cell("S6", "A/A, 24 h labels, swing", Stream(delay=late, swing=0.5), harmless),
        Cell("S6", "A/A, heavy tail", Stream(delay=heavy), harmless),
        Cell("S6", "A/A, backfill every 48 h", Stream(delay=batches), harmless),
    ]
    cells += [
        Cell("S6", f"r={ratio:g}, 24 h labels", Stream(delay=late, ratio=(ratio,)), harmful, ratio == 2.0)
        for ratio in (1.5, 2.0, 3.0)
    ]
    sooner, later = Delay(challenger_speed=2.0), Delay(challenger_speed=0.5)
    cells += [
        Cell("S6", "r=2, heavy tail", Stream(delay=heavy, ratio=(2.0,)), harmful),
        Cell("S6", "r=2, backfill every 48 h", Stream(delay=batches, ratio=(2.0,)), harmful),
        Cell("S6", "A/A, challenger's labels in half the time", Stream(delay=sooner), Truth.UNEQUAL),
        Cell("S6", "A/A, challenger's labels in twice the time", Stream(delay=later), Truth.UNEQUAL),
        Cell("S6", "r=1.5, challenger's labels in twice the time", Stream(delay=later, ratio=(1.5,)), harmful),
    ]
    cells += [
        Cell("S7", f"{lost:.0%} of the challenger's units lost", Stream(lost=lost), Truth.BROKEN, lost == 0.05)
        for lost in (0.02, 0.05, 0.2)
    ]
    cells += [
        Cell("S7", "10 % of the challenger's labels lost", Stream(labelled=(0.9, 1.0)), Truth.BROKEN),
        Cell("S8", "action rate x3", Stream(base=(0.05, 0.02), ratio=(3.0, 1.0)), harmful),
        Cell("S8", "scores collapse, nobody is acted on", Stream(base=(0.05, 0.02), ratio=(0.01, 2.5)), harmful),
    ]
    cells += [
        Cell(
            "S9",
            f"A/A, 8 requests an entity, ICC {correlation:g}",
            Stream(entity_events=8, entity_correlation=correlation),
            harmless,
            correlation == 0.2,
        )
        for correlation in (0.0, 0.02, 0.2)
    ]
    clustered = Stream(entity_events=8, entity_correlation=0.2, ratio=(1.5,))
    cells += [
        Cell("S9", "r=1.5, ICC 0.2", clustered, harmful),
        # The challenger acts on more, and what is acted on gets no label: of its harm of 1.3 a part is hidden.
        Cell("S10", "labels of 70 and 95 %, r=1.3", Stream(ratio=(1.3,), labelled=(0.7, 0.95)), Truth.BROKEN, quick),
        Cell("S10", "labels of 90 and 95 %, r=1.3", Stream(ratio=(1.3,), labelled=(0.9, 0.95)), Truth.BROKEN),
        Cell("S11", "r=0.8", Stream(ratio=(0.8,)), harmless, quick),
        Cell("S11", "r=0.8, 24 h labels", Stream(ratio=(0.8,), delay=late), harmless),
        Cell("S12", f"r=1+margin={1 + MARGIN:g}", Stream(ratio=(1 + MARGIN,)), Truth.AT_MARGIN, quick),
        Cell("S12", "r=1+margin, 24 h labels", Stream(ratio=(1 + MARGIN,), delay=late), Truth.AT_MARGIN),
        Cell("S12", "one of ten at 1+margin", Stream(base=TEN, ratio=_ten(1 + MARGIN)), Truth.AT_MARGIN),
    ]
    flights = Ramp(shares=(0.05, 0.10, 0.25, 0.50), ticks=120, units=39)
    real = [
        Stream(ramp=flights, base=(0.259,), ratio=(ratio,), delay=Delay(median=4, window=36))
        for ratio in (1.0, 1.25, 1.5, 2.0)
    ]
    cells += [
        Cell(
            "REAL",
            "flights, A/A" if stream.ratio == (1.0,) else f"flights, r={stream.ratio[0]:g}",
            stream,
            harmful if stream.is_harmful else harmless,
            stream.ratio[0] in (1.0, 1.5),
            is_real=True,
        )
        for stream in real
    ]
    return cells


CELLS = tuple(_cells())
