"""What was counted of a guardrail on all units or on one slice, in words, in numbers and as evidence of harm."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from seatrial.evidence import Arm, Key
from seatrial.gates import amounts
from seatrial.stats import kernel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from seatrial.evidence import Evidence, Series
    from seatrial.plan import Guardrail, Plan

#: From this rate of bad units on the good ones are counted too; below it they add nothing worth their assumptions.
COMMON = 0.05
#: log E from which E is told as a power of ten
_LONG = math.log(1e6)


class Part(NamedTuple):
    """A guardrail on all units (column and value None) or on one slice."""

    guardrail: Guardrail
    column: str | None = None
    value: str | None = None

    @property
    def key(self) -> Key:
        """Where its counts are."""
        return Key(self.guardrail.name, self.column, self.value)

    @property
    def slice_name(self) -> str:
        """Return the slice as people read it."""
        return f"{self.column}={self.value}"

    @property
    def subject(self) -> str:
        """What a finding on it is about."""
        return self.guardrail.name if self.column is None else f"{self.guardrail.name} · {self.slice_name}"


@dataclass(frozen=True, slots=True)
class Counted:
    """A part with what was counted of it."""

    part: Part
    series: Series
    averages: Mapping[Arm, amounts.Average] | None  #: of a guardrail with mean
    #: why nothing can be counted, or None
    gap: str | None

    @property
    def guardrail(self) -> Guardrail:
        """The guardrail of the part."""
        return self.part.guardrail

    @property
    def numbers(self) -> dict[str, float | int | str | None]:
        """Units and bad units of both arms, or units and means."""
        if self.averages is not None:
            challenger, champion = self.averages[Arm.CHALLENGER], self.averages[Arm.CHAMPION]
            return {
                "challenger_mean": challenger.mean,
                "champion_mean": champion.mean,
                "challenger_units": challenger.units,
                "champion_units": champion.units,
            }
        return arms_of(self.series, "bad", "units")

    def described(self, ratio: float | None = None) -> str:
        """Return the counts in words, with the ratio of the rates when it is given."""
        if self.gap is not None:
            return self.gap
        if self.averages is not None:
            challenger, champion = self.averages[Arm.CHALLENGER], self.averages[Arm.CHAMPION]
            return (
                f"mean {_amount(challenger.mean)} over {challenger.units:,} units"
                f" against {_amount(champion.mean)} over {champion.units:,}"
            )
        bad, bad_champion = self.series.total("bad")
        units, champion_units = self.series.total("units")
        counts = f"{bad:,} of {units:,} against {bad_champion:,} of {champion_units:,}"
        if ratio is None:
            return counts
        return f"{counts}, no ratio yet" if math.isnan(ratio) else f"{counts}, ratio {ratio:.2f}"

    def interval(self, *, alpha: float) -> dict[str, float]:
        """Return the limits of the rate ratio that hold at all looks, for a guardrail that counts units."""
        if self.averages is not None:
            return {}
        challenger, champion = self.series.of("bad")
        low, high = kernel.ratio_interval(challenger, champion, self.series.rho, alpha=alpha)
        return {"ratio_low": low, "ratio_high": high}


def arms_of(series: Series, bad: str, units: str) -> dict[str, float | int | str | None]:
    """Return the totals of two counts of both arms, as the numbers of a finding."""
    (challenger_bad, champion_bad), (challenger, champion) = series.total(bad), series.total(units)
    return {
        "challenger_bad": challenger_bad,
        "challenger_units": challenger,
        "champion_bad": champion_bad,
        "champion_units": champion,
    }


def counted(evidence: Evidence, parts: Sequence[Part]) -> list[Counted]:
    """Return what was counted of each of `parts`."""
    return [
        Counted(
            part,
            series,
            amounts.averages(evidence, *part) if part.guardrail.mean else None,
            gap_of(evidence, part.guardrail),
        )
        for part, series in zip(parts, evidence.series_of([part.key for part in parts]), strict=True)
    ]


def ratios(counts: Sequence[Counted]) -> list[float]:
    """Return the ratio of the rates of bad units by what is known now, NaN before the first, of one part or more."""
    bad = np.stack([each.series.of("bad") for each in counts])
    found: list[float] = np.atleast_1d(kernel.ratio_estimate(bad[:, 0], bad[:, 1], counts[0].series.rho)).tolist()
    return found


def gap_of(evidence: Evidence, guardrail: Guardrail) -> str | None:
    """Return why nothing can be counted of `guardrail`, or None."""
    if guardrail.exceeds is None or (evidence.frozen is not None and guardrail.name in evidence.frozen.quantiles):
        return None
    return "the champion answered too few units before the rollout to freeze its quantile"


def harm_log_e(evidence: Evidence, plan: Plan, keys: Sequence[Key]) -> NDArray[np.float64]:
    """Return log E of harm of guardrails on all units or on slices; NaN where a mean has too few units to be asked."""
    guardrails = {each.name: each for each in plan.guardrails}
    log_es = np.full(len(keys), math.nan)
    by_rate: defaultdict[float | None, list[int]] = defaultdict(list)
    rates = {each.name: _common_rate(each) for each in plan.guardrails if each.mean is None}
    for at, key in enumerate(keys):
        if key.guardrail in rates:
            by_rate[rates[key.guardrail]].append(at)
        elif evidence.epochs:
            log_e = amounts.log_e_worse(evidence, guardrails[key.guardrail], key.slice_column, key.slice_value)
            log_es[at] = math.nan if log_e is None else log_e
    for rate, places in by_rate.items():
        log_es[places] = _counts_log_e(evidence, [keys[at] for at in places], rate, stages=len(plan.stages))
    return log_es


def _common_rate(guardrail: Guardrail) -> float | None:
    """Return the declared rate of a guardrail whose good units are worth counting.

    Where an action can hide the label, who acts more often has fewer good units to show and is no worse for it.
    """
    if guardrail.is_censored or guardrail.expected is None or guardrail.expected.rate < COMMON:
        return None
    return guardrail.expected.rate


def _counts_log_e(
    evidence: Evidence, keys: Sequence[Key], rate: float | None, *, stages: int
) -> float | NDArray[np.float64]:
    if not evidence.epochs:
        return 0.0
    bad, rho, stage = evidence.counts_of(keys, "bad"), evidence.rho, evidence.stage
    if rate is None:
        return kernel.harm(bad[:, 0], bad[:, 1], rho, stage=stage, stages=stages)
    good = evidence.counts_of(keys, "good")
    counts = (bad[:, 0], bad[:, 1], good[:, 0], good[:, 1])
    return kernel.harm_of_all(*counts, rho, rate=rate, stage=stage, stages=stages)


def known(log_e: float) -> float | None:
    """Return log E as a number of a finding, in which None says that it is not known."""
    return None if math.isnan(log_e) else log_e


def readable(log_e: float | None, needed: float) -> str:
    """Return E beside the E that is needed, in words."""
    return "too few units to tell" if log_e is None else f"E = {_shown(log_e)}, needed {needed:,.0f}"


def _amount(value: float) -> str:
    return "nothing" if math.isnan(value) else f"{value:,.4g}"


def _shown(log_e: float) -> str:
    return f"{math.exp(min(log_e, 700.0)):,.2f}" if log_e < _LONG else f"10^{log_e / math.log(10):.1f}"
