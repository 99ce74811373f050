"""Whether a guardrail is worse, likely worse, or shown not to be worse.

Harm and warnings use every bad unit reported so far, with the share at its assignment: early positives need no
matured window, because equal delays cancel. Exposure may grow, and a release be promoted, only on evidence that rules
harm out; for promotion on matured units alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from seatrial.evidence import Arm, Key
from seatrial.gates import amounts
from seatrial.gates.finding import Finding, Question
from seatrial.plan import Consequence, Source
from seatrial.stats import kernel
from seatrial.stats.multiplicity import closed_benjamini_hochberg
from seatrial.stats.rate import below
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from seatrial.evidence import Evidence, Series
    from seatrial.plan import Guardrail, Hypothesis, Margin, Plan

#: From this rate of bad units on the good ones are counted too; below it they add nothing worth their assumptions.
COMMON = 0.05


def harm(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return one finding for each guardrail and declared slice: FAIL when it is proven worse, otherwise INCONCLUSIVE.

    The rollback budget is split over all hypotheses by weight (weighted e-Bonferroni), so that over the whole rollout
    a release that is no worse is rolled back with at most that probability. When a guardrail fails, closed e-BH names
    the slices it is worse in; that explains and decides nothing.
    """
    guardrails = {g.name: g for g in plan.guardrails}
    hypotheses = plan.hypotheses()
    asked = _asked(evidence, [(guardrails[h.guardrail], h.slice_column, h.slice_value) for h in hypotheses])
    log_es = _harm_log_e(evidence, plan, asked)
    findings = [_harm_finding(a, log_e, alpha=h.alpha) for a, log_e, h in zip(asked, log_es, hypotheses, strict=True)]
    culprits = _culprits(hypotheses, log_es, findings, alpha=plan.budgets.rollback)
    return [
        _with_culprits(f, culprits[h.guardrail], alpha=plan.budgets.rollback)
        if f.verdict is Verdict.FAIL and culprits[h.guardrail]
        else f
        for f, h in zip(findings, hypotheses, strict=True)
    ]


def warnings(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return one finding for each guardrail: FAIL when harm is likely at the looser hold budget."""
    asked = _asked(evidence, [(guardrail, None, None) for guardrail in plan.guardrails])
    findings = []
    for each, log_e in zip(asked, _harm_log_e(evidence, plan, asked), strict=True):
        is_likely = log_e is not None and log_e >= math.log(1.0 / plan.budgets.hold)
        seen = each.described(is_loud=True)
        findings.append(
            Finding(
                Question.WARNING,
                each.subject,
                Verdict.FAIL if is_likely else Verdict.INCONCLUSIVE,
                f"{each.subject} is likely worse: {seen}" if is_likely else seen,
                {**each.numbers, "log_e": log_e},
                is_binding=_is_acted_on(each.guardrail) and each.guardrail.consequence is not Consequence.NOTIFY,
            )
        )
    return findings


def exposure(evidence: Evidence, plan: Plan, *, rule_out: Margin) -> list[Finding]:
    """Return one finding for each guardrail: PASS when harm beyond `rule_out` is ruled out.

    A ratio of early positives is honest while labels arrive; a rate is not, for a unit without its label is no good
    unit. An absolute margin therefore counts matured units only, and like a mean it asks that enough of them were seen.
    """
    reliefs = [
        _Relief(asked, rule_out, "bad", "units")
        if asked.guardrail.margin.is_relative
        else _Relief(asked, asked.guardrail.margin, "matured_bad", "matured")
        for asked in _asked(evidence, [(guardrail, None, None) for guardrail in plan.guardrails])
    ]
    found = _ruled_out(Question.EXPOSURE, evidence, reliefs, alpha=plan.budgets.promote)
    return [
        _with_coverage(finding, relief.asked, plan.label_coverage.at_least) if _needs_all(relief) else finding
        for finding, relief in zip(found, reliefs, strict=True)
    ]


def _needs_all(relief: _Relief) -> bool:
    """Return whether a unit that was not seen would pass for a good one, or for an average one."""
    guardrail = relief.asked.guardrail
    return guardrail.mean is not None or (guardrail.source is Source.LABEL and not relief.margin.is_relative)


def promotion(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return one finding for each guardrail: PASS when harm beyond its margin is ruled out on matured units.

    Every guardrail must pass at the full budget (intersection-union test), and in both arms enough of the matured
    units must have a label at all.
    """
    reliefs = [
        _Relief(asked, asked.guardrail.margin, "matured_bad", "matured")
        for asked in _asked(evidence, [(guardrail, None, None) for guardrail in plan.guardrails])
    ]
    found = _ruled_out(Question.PROMOTION, evidence, reliefs, alpha=plan.budgets.promote)
    return [
        _with_coverage(finding, relief.asked, plan.label_coverage.at_least)
        for finding, relief in zip(found, reliefs, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One guardrail on all units or on one slice, with what was counted of it."""

    guardrail: Guardrail
    column: str | None
    value: str | None
    series: Series
    ratio: float  #: of the rates of bad units by what is known now, NaN before the first
    averages: Mapping[Arm, amounts.Average] | None  #: of a guardrail with mean
    #: why nothing can be counted, or None
    gap: str | None

    @property
    def subject(self) -> str:
        name = self.guardrail.name
        return name if self.column is None else f"{name} · {self.column}={self.value}"

    @property
    def numbers(self) -> dict[str, float | int | str | None]:
        if self.averages is not None:
            challenger, champion = self.averages[Arm.CHALLENGER], self.averages[Arm.CHAMPION]
            return {
                "challenger_mean": challenger.mean,
                "champion_mean": champion.mean,
                "challenger_units": challenger.units,
                "champion_units": champion.units,
            }
        bad, bad_champion = self.series.total("bad")
        units, champion_units = self.series.total("units")
        return {
            "challenger_bad": bad,
            "challenger_units": units,
            "champion_bad": bad_champion,
            "champion_units": champion_units,
        }

    def described(self, *, is_loud: bool) -> str:
        """Return the counts in words; `is_loud` adds the ratio, which quiet slices are spared."""
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
        return f"{counts}, {self._ratio()}" if is_loud else counts

    def _ratio(self) -> str:
        return "no ratio yet" if math.isnan(self.ratio) else f"ratio {self.ratio:.2f}"

    def interval(self, *, alpha: float) -> dict[str, float]:
        """Return the limits of the rate ratio that hold at all looks, for a guardrail that counts units."""
        if self.averages is not None:
            return {}
        challenger, champion = self.series.of("bad")
        low, high = kernel.ratio_interval(challenger, champion, self.series.rho, alpha=alpha)
        return {"ratio_low": low, "ratio_high": high}


def _asked(evidence: Evidence, parts: Sequence[tuple[Guardrail, str | None, str | None]]) -> list[_Asked]:
    """Return what was counted of guardrails on all units, or on the slice of a column and value."""
    series = evidence.series_of(Key(guardrail.name, column, value) for guardrail, column, value in parts)
    bad = np.stack([each.of("bad") for each in series])
    ratios = np.atleast_1d(kernel.ratio_estimate(bad[:, 0], bad[:, 1], evidence.rho))
    return [
        _Asked(
            guardrail,
            column,
            value,
            counted,
            ratio,
            amounts.averages(evidence, guardrail, column, value) if guardrail.mean else None,
            _gap(evidence, guardrail),
        )
        for (guardrail, column, value), counted, ratio in zip(parts, series, ratios.tolist(), strict=True)
    ]


def _gap(evidence: Evidence, guardrail: Guardrail) -> str | None:
    """Return why nothing can be counted of `guardrail`, or None."""
    if guardrail.exceeds is None or (evidence.frozen is not None and guardrail.name in evidence.frozen.quantiles):
        return None
    return "the champion answered too few units before the rollout to freeze its quantile"


def _harm_log_e(evidence: Evidence, plan: Plan, asked: Sequence[_Asked]) -> list[float | None]:
    """Return log E of harm for each; None where a mean has too few units to be asked."""
    if not evidence.epochs:
        return [None if each.averages is not None else 0.0 for each in asked]
    log_es: list[float | None] = [None] * len(asked)
    by_rate: defaultdict[float | None, list[int]] = defaultdict(list)
    for at, each in enumerate(asked):
        if each.averages is None:
            by_rate[_common_rate(each.guardrail)].append(at)
        else:
            log_es[at] = amounts.log_e_worse(evidence, each.guardrail, each.column, each.value)
    for rate, places in by_rate.items():
        counted = _counts_log_e([asked[at].series for at in places], rate, stages=len(plan.stages))
        for at, log_e in zip(places, counted, strict=True):
            log_es[at] = log_e
    return log_es


def _common_rate(guardrail: Guardrail) -> float | None:
    """Return the declared rate of a guardrail whose good units are worth counting.

    Where an action can hide the label, who acts more often has fewer good units to show and is no worse for it.
    """
    if guardrail.is_censored or guardrail.expected is None or guardrail.expected.rate < COMMON:
        return None
    return guardrail.expected.rate


def _counts_log_e(series: Sequence[Series], rate: float | None, *, stages: int) -> list[float]:
    rho, stage = series[0].rho, series[0].stage
    bad = np.stack([each.of("bad") for each in series])
    if rate is None:
        log_e = kernel.harm(bad[:, 0], bad[:, 1], rho, stage=stage, stages=stages)
    else:
        good = np.stack([each.of("good") for each in series])
        counts = (bad[:, 0], bad[:, 1], good[:, 0], good[:, 1])
        log_e = kernel.harm_of_all(*counts, rho, rate=rate, stage=stage, stages=stages)
    return [float(value) for value in np.atleast_1d(log_e)]


def _harm_finding(asked: _Asked, log_e: float | None, *, alpha: float) -> Finding:
    needed = math.log(1.0 / alpha)
    is_proven = log_e is not None and log_e >= needed
    verb = "is worse" if is_proven else "is not shown to be worse"
    # A root search for each of many quiet slices would cost more than all of the evidence.
    seen = asked.described(is_loud=asked.column is None or is_proven)
    known = "too few units to tell" if log_e is None else f"E = {_readable(log_e)}, needed {1.0 / alpha:,.0f}"
    limits = asked.interval(alpha=alpha) if is_proven else {}
    if limits:
        seen += f", {limits['ratio_low']:.2f} to {limits['ratio_high']:.2f} at all looks"
    return Finding(
        Question.HARM,
        asked.subject,
        Verdict.FAIL if is_proven else Verdict.INCONCLUSIVE,
        f"{asked.subject} {verb}: {seen} ({known})",
        {**asked.numbers, "log_e": log_e, "threshold": needed, **limits},
        is_binding=_is_acted_on(asked.guardrail) and asked.guardrail.consequence is Consequence.ROLL_BACK,
    )


def _culprits(
    hypotheses: Sequence[Hypothesis], log_es: Sequence[float | None], findings: Sequence[Finding], *, alpha: float
) -> dict[str, list[str]]:
    """Return for each guardrail that failed the slices that closed e-BH names; for all others none."""
    failed = {h.guardrail for h, f in zip(hypotheses, findings, strict=True) if f.verdict is Verdict.FAIL}
    named: defaultdict[str, list[str]] = defaultdict(list)
    for guardrail in failed:
        slices = [
            (f"{h.slice_column}={h.slice_value}", log_e)
            for h, log_e in zip(hypotheses, log_es, strict=True)
            if h.guardrail == guardrail and h.slice_column is not None and log_e is not None
        ]
        chosen = closed_benjamini_hochberg([log_e for _, log_e in slices], alpha=alpha)
        named[guardrail] = [name for (name, _), is_named in zip(slices, chosen, strict=True) if is_named]
    return named


def _with_culprits(finding: Finding, named: Iterable[str], *, alpha: float) -> Finding:
    listed = ", ".join(named)
    return replace(
        finding,
        reason=f"{finding.reason}; worse in {listed} (at most {alpha:.0%} of such names are wrong)",
        numbers={**finding.numbers, "slices": listed},
    )


@dataclass(frozen=True, slots=True)
class _Relief:
    """One guardrail with the harm that must be ruled out, and the counts that may do so."""

    asked: _Asked
    margin: Margin
    counted: str
    of: str

    @property
    def numbers(self) -> dict[str, float | int | str | None]:
        if self.asked.averages is not None:
            return self.asked.numbers
        series = self.asked.series
        (bad, bad_champion), (units, champion_units) = series.total(self.counted), series.total(self.of)
        return {
            "challenger_bad": bad,
            "challenger_units": units,
            "champion_bad": bad_champion,
            "champion_units": champion_units,
        }

    def described(self) -> str:
        """Return the counts in words."""
        if self.asked.averages is not None or self.asked.gap is not None:
            return self.asked.described(is_loud=False)
        challenger, champion = (
            f"{bad:,} of {units:,}"
            for bad, units in zip(self.asked.series.total(self.counted), self.asked.series.total(self.of), strict=True)
        )
        return f"{challenger} against {champion}"


def _ruled_out(question: Question, evidence: Evidence, reliefs: Sequence[_Relief], *, alpha: float) -> list[Finding]:
    log_es = _relief_log_e(evidence, reliefs)
    return [_relief_finding(question, each, log_e, alpha=alpha) for each, log_e in zip(reliefs, log_es, strict=True)]


def _relief_finding(question: Question, relief: _Relief, log_e: float | None, *, alpha: float) -> Finding:
    guardrail, margin = relief.asked.guardrail, relief.margin
    needed = math.log(1.0 / alpha)
    is_shown = log_e is not None and log_e >= needed
    seen = relief.described()
    known = "too few units to tell" if log_e is None else f"E = {_readable(log_e)}, needed {1.0 / alpha:,.0f}"
    return Finding(
        question,
        guardrail.name,
        Verdict.PASS if is_shown else Verdict.INCONCLUSIVE,
        f"{guardrail.name}: {margin} worse {'is ruled out' if is_shown else 'is not ruled out yet'}: {seen} ({known})",
        {**relief.numbers, "log_e": log_e, "threshold": needed},
        is_binding=_is_acted_on(guardrail) and guardrail.consequence is not Consequence.NOTIFY,
    )


def _relief_log_e(evidence: Evidence, reliefs: Sequence[_Relief]) -> list[float | None]:
    """Return log E against harm beyond the margin of each; None where the question cannot be asked yet."""
    log_es: list[float | None] = [None] * len(reliefs)
    by_margin: defaultdict[float, list[int]] = defaultdict(list)
    for at, relief in enumerate(reliefs):
        asked, margin = relief.asked, relief.margin
        # An arm without units has no bad ones either: the other would look worse than nothing.
        if asked.gap is not None or not all(asked.series.total("units")):
            continue
        if asked.averages is not None:
            if evidence.epochs:
                log_es[at] = amounts.log_e_not_worse(evidence, asked.guardrail, margin=margin.value)
        elif margin.is_relative:
            by_margin[margin.value].append(at)
        else:
            series = asked.series
            log_es[at] = below(series.total(relief.counted)[0], series.total(relief.of)[0], bound=margin.value)
    for tolerated, places in by_margin.items():
        bad = np.stack([reliefs[at].asked.series.of(reliefs[at].counted) for at in places])
        counted = np.atleast_1d(kernel.noninferiority(bad[:, 0], bad[:, 1], evidence.rho, margin=tolerated))
        for at, log_e in zip(places, counted.tolist(), strict=True):
            log_es[at] = log_e
    return log_es


def _with_coverage(finding: Finding, asked: _Asked, at_least: float) -> Finding:
    """Return `finding`, as INCONCLUSIVE when too few matured units of either arm have a label, or a number.

    A unit whose label the action hides is not asked for one; `hidden` units are counted with the matured ones.
    """
    matured, hidden, labelled = (asked.series.total(name) for name in ("matured", "hidden", "labelled"))
    seen = [whole - part for whole, part in zip(matured, hidden, strict=True)]
    shares = [part / whole if whole else 0.0 for part, whole in zip(labelled, seen, strict=True)]
    numbers = {**finding.numbers, "challenger_coverage": shares[0], "champion_coverage": shares[1]}
    if min(shares) >= at_least:
        return replace(finding, numbers=numbers)
    is_measured = asked.guardrail.mean is not None and asked.guardrail.source is not Source.LABEL
    wanted = "number" if is_measured else "label"
    reason = (
        f"{finding.subject}: {shares[0]:.0%} (challenger) and {shares[1]:.0%} (champion) of the matured units have a"
        f" {wanted}, the plan asks for {at_least:.0%}"
    )
    return replace(finding, verdict=Verdict.INCONCLUSIVE, reason=reason, numbers=numbers)


def _is_acted_on(guardrail: Guardrail) -> bool:
    return not guardrail.dry_run


def _amount(value: float) -> str:
    return "nothing" if math.isnan(value) else f"{value:,.4g}"


def _readable(log_e: float) -> str:
    return f"{math.exp(min(log_e, 700.0)):,.2f}" if log_e < math.log(1e6) else f"10^{log_e / math.log(10):.1f}"
