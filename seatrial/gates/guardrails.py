"""Whether a guardrail is worse, likely worse, or shown not to be worse.

Harm and warnings use every bad unit reported so far, with the share at its assignment: early positives need no
matured window, because equal delays cancel. Exposure may grow, and a release be promoted, only on evidence that rules
harm out; for promotion on matured units alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seatrial.gates.finding import Finding, Question
from seatrial.plan import Consequence
from seatrial.stats import kernel
from seatrial.stats.rate import below
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.evidence import Evidence, Series
    from seatrial.plan import Guardrail, Hypothesis, Margin, Plan


def harm(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return one finding for each guardrail and declared slice: FAIL when it is proven worse, otherwise INCONCLUSIVE.

    The rollback budget is split over all hypotheses by weight (weighted e-Bonferroni), so that over the whole rollout
    a release that is no worse is rolled back with at most that probability.
    """
    hypotheses = plan.hypotheses()
    series = [evidence.series(h.guardrail, h.slice_column, h.slice_value) for h in hypotheses]
    log_es = _harm_log_e(series, stages=len(plan.stages))
    guardrails = {g.name: g for g in plan.guardrails}
    return [
        _harm_finding(h, guardrails[h.guardrail], s, log_e)
        for h, s, log_e in zip(hypotheses, series, log_es, strict=True)
    ]


def warnings(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return one finding for each guardrail: FAIL when harm is likely at the looser hold budget."""
    series = [evidence.series(g.name) for g in plan.guardrails]
    log_es = _harm_log_e(series, stages=len(plan.stages))
    findings = []
    for guardrail, counts, log_e in zip(plan.guardrails, series, log_es, strict=True):
        is_likely = log_e >= math.log(1.0 / plan.budgets.hold)
        findings.append(
            Finding(
                Question.WARNING,
                guardrail.name,
                Verdict.FAIL if is_likely else Verdict.INCONCLUSIVE,
                f"{guardrail.name} is likely worse: {_counted(counts)}" if is_likely else _counted(counts),
                _numbers(counts, log_e),
                is_binding=_is_acted_on(guardrail) and guardrail.consequence is not Consequence.NOTIFY,
            )
        )
    return findings


def exposure(evidence: Evidence, plan: Plan, *, rule_out: Margin) -> list[Finding]:
    """Return one finding for each guardrail: PASS when harm beyond `rule_out` is ruled out.

    A ratio of early positives is honest while labels arrive; a rate is not, for a unit without its label is no good
    unit. An absolute margin therefore counts matured units only.
    """
    return [
        _ruled_out(
            Question.EXPOSURE,
            guardrail,
            evidence.series(guardrail.name),
            margin=rule_out if guardrail.margin.is_relative else guardrail.margin,
            counted="bad" if guardrail.margin.is_relative else "matured_bad",
            of="units" if guardrail.margin.is_relative else "matured",
            alpha=plan.budgets.promote,
        )
        for guardrail in plan.guardrails
    ]


def promotion(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return one finding for each guardrail: PASS when harm beyond its margin is ruled out on matured units.

    Every guardrail must pass at the full budget (intersection-union test), and in both arms enough of the matured
    units must have a label at all.
    """
    findings = []
    for guardrail in plan.guardrails:
        series = evidence.series(guardrail.name)
        finding = _ruled_out(
            Question.PROMOTION,
            guardrail,
            series,
            margin=guardrail.margin,
            counted="matured_bad",
            of="matured",
            alpha=plan.budgets.promote,
        )
        findings.append(_with_coverage(finding, series, plan.label_coverage.at_least))
    return findings


def _harm_log_e(series: Sequence[Series], *, stages: int) -> list[float]:
    if not series:
        return []
    first = series[0]
    if not first.rho.size:
        return [0.0] * len(series)
    log_e = kernel.harm(
        np.stack([s.challenger["bad"] for s in series]),
        np.stack([s.champion["bad"] for s in series]),
        first.rho,
        stage=first.stage,
        stages=stages,
    )
    return [float(value) for value in np.atleast_1d(log_e)]


def _harm_finding(hypothesis: Hypothesis, guardrail: Guardrail, series: Series, log_e: float) -> Finding:
    is_proven = log_e >= math.log(1.0 / hypothesis.alpha)
    subject = guardrail.name
    if hypothesis.slice_column is not None:
        subject = f"{guardrail.name} · {hypothesis.slice_column}={hypothesis.slice_value}"
    verb = "is worse" if is_proven else "is not shown to be worse"
    # The ratio costs a root search, and there are many quiet slices.
    is_quiet = hypothesis.slice_column is not None and not is_proven
    counted = _counts_of(series) if is_quiet else _counted(series)
    return Finding(
        Question.HARM,
        subject,
        Verdict.FAIL if is_proven else Verdict.INCONCLUSIVE,
        f"{subject} {verb}: {counted} (E = {_readable(log_e)}, needed {1.0 / hypothesis.alpha:,.0f})",
        {**_numbers(series, log_e), "threshold": math.log(1.0 / hypothesis.alpha)},
        is_binding=_is_acted_on(guardrail) and guardrail.consequence is Consequence.ROLL_BACK,
    )


def _ruled_out(
    question: Question,
    guardrail: Guardrail,
    series: Series,
    *,
    margin: Margin,
    counted: str,
    of: str,
    alpha: float,
) -> Finding:
    bad_challenger, bad_champion = series.total(counted)
    units, champion_units = series.total(of)
    if margin.is_relative:
        log_e = float(
            kernel.noninferiority(series.challenger[counted], series.champion[counted], series.rho, margin=margin.value)
        )
    else:
        log_e = below(bad_challenger, units, bound=margin.value)
    is_shown = log_e >= math.log(1.0 / alpha)
    return Finding(
        question,
        guardrail.name,
        Verdict.PASS if is_shown else Verdict.INCONCLUSIVE,
        f"{guardrail.name}: {margin} worse {'is ruled out' if is_shown else 'is not ruled out yet'}:"
        f" {bad_challenger:,} of {units:,} against {bad_champion:,} of {champion_units:,}"
        f" (E = {_readable(log_e)}, needed {1.0 / alpha:,.0f})",
        {
            "challenger_bad": bad_challenger,
            "challenger_units": units,
            "champion_bad": bad_champion,
            "champion_units": champion_units,
            "log_e": log_e,
            "threshold": math.log(1.0 / alpha),
        },
        is_binding=_is_acted_on(guardrail) and guardrail.consequence is not Consequence.NOTIFY,
    )


def _with_coverage(finding: Finding, series: Series, at_least: float) -> Finding:
    """Return `finding`, as INCONCLUSIVE when too few matured units of either arm have a label."""
    shares = [
        labelled / matured if matured else 0.0
        for labelled, matured in zip(series.total("labelled"), series.total("matured"), strict=True)
    ]
    numbers = {**finding.numbers, "challenger_coverage": shares[0], "champion_coverage": shares[1]}
    if min(shares) >= at_least:
        return Finding(
            finding.question,
            finding.subject,
            finding.verdict,
            finding.reason,
            numbers,
            is_binding=finding.is_binding,
        )
    return Finding(
        finding.question,
        finding.subject,
        Verdict.INCONCLUSIVE,
        f"{finding.subject}: {shares[0]:.0%} (challenger) and {shares[1]:.0%} (champion) of the matured units have a"
        f" label, the plan asks for {at_least:.0%}",
        numbers,
        is_binding=finding.is_binding,
    )


def _is_acted_on(guardrail: Guardrail) -> bool:
    return not guardrail.dry_run


def _counted(series: Series) -> str:
    estimate = kernel.ratio_estimate(series.challenger["bad"], series.champion["bad"], series.rho)
    ratio = "no ratio yet" if math.isnan(estimate) else f"ratio {estimate:.2f}"
    return f"{_counts_of(series)}, {ratio}"


def _counts_of(series: Series) -> str:
    bad, bad_champion = series.total("bad")
    units, champion_units = series.total("units")
    return f"{bad:,} of {units:,} against {bad_champion:,} of {champion_units:,}"


def _numbers(series: Series, log_e: float) -> dict[str, float | int | str | None]:
    bad, bad_champion = series.total("bad")
    units, champion_units = series.total("units")
    return {
        "challenger_bad": bad,
        "challenger_units": units,
        "champion_bad": bad_champion,
        "champion_units": champion_units,
        "log_e": log_e,
    }


def _readable(log_e: float) -> str:
    return f"{math.exp(min(log_e, 700.0)):,.2f}" if log_e < math.log(1e6) else f"10^{log_e / math.log(10):.1f}"
