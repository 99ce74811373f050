"""What was measured beside the guardrails: latencies, scores, calibration and labels, as one section of Markdown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seatrial.evidence import Arm
from seatrial.report.plots import image
from seatrial.report.quality_labels import label_counts, label_table, maturity_plot
from seatrial.report.quality_scores import (
    calibration_table,
    reliability_plot,
    score_plot,
    score_table,
    scored_arms,
    shift_of,
)
from seatrial.report.wording import percent, plain, rate, table
from seatrial.stats.exceedance import BUCKETS, LatencySketch

if TYPE_CHECKING:
    from seatrial.evidence import Evidence
    from seatrial.plan import Exceedance, Guardrail, Plan
    from seatrial.report.quality_scores import ScoredArms

#: Quantiles of latency that are shown.
LEVELS = (0.50, 0.95, 0.99)
#: What a quantile says that as many units cannot have.
_TOO_FEW = "too few units"
BRIER = (
    "Brier score = miscalibration - discrimination + uncertainty (Dimitriadis, Gneiting and Jordan 2021), of matured"
    " labels. Less miscalibration and more discrimination are better. Chance alone makes miscalibration larger the"
    " fewer labels there are, so that a challenger with a small share looks worse than it is."
)
CURVES = (
    "Solid: estimated from all units (Kaplan-Meier with a part that never has a label); dotted: from the labels that"
    " came (reverse product limit). Both are parts of the labels that come within the longest wait so far; where they"
    " part, delays depend on when a unit was served."
)
#: What stands where there is no number.
_NONE = "none"


def quality(evidence: Evidence | None, plan: Plan) -> str:
    """Return what was measured beside the guardrails, as Markdown; it decides nothing and says so.

    Parameters
    ----------
    evidence
        Counts of one look; None when they cannot be read, which is said and is no sign of health.
    plan
        The plan that was counted by.
    """
    parts = [
        "## What was measured",
        "For a reader: **nothing here decides.** The findings do; these numbers have no error rate.",
    ]
    if evidence is None:
        return "\n\n".join([*parts, "The counts could not be read: **nothing is known of them, good or bad.**"])
    return "\n\n".join(
        [
            *parts,
            *_latency_part(evidence, plan),
            *_score_part(evidence, plan),
            *_label_part(evidence, plan),
        ]
    )


def _latency_part(evidence: Evidence, plan: Plan) -> list[str]:
    parts = ["### Latency"]
    if evidence.latencies:
        parts += [latency_table(evidence), "Of each unit's first request, within 1 % of the exact quantile."]
    else:
        parts.append("No latency of either arm is logged.")
    tails = [guardrail for guardrail in plan.guardrails if guardrail.exceeds is not None]
    if tails:
        parts += [
            table(
                [
                    "guardrail",
                    "bad above",
                    "champion's quantile before the rollout",
                    "challenger above",
                    "champion above",
                ],
                (_tail_row(evidence, each, each.exceeds) for each in tails if each.exceeds is not None),
            )
        ]
    return parts


def latency_table(evidence: Evidence) -> str:
    """Return the latency quantiles of each arm in ms, with the number of units, as Markdown.

    A quantile above which not one unit is expected is not shown: it would be the largest value by another name.
    """
    header = ["arm", "units", *(f"p{100.0 * level:g}, ms" for level in LEVELS)]
    arms = [arm for arm in Arm if any(seen is arm for seen, _ in evidence.latencies)]
    return table(header, (_latency_row(evidence, arm) for arm in arms))


def _latency_row(evidence: Evidence, arm: Arm) -> list[str]:
    counts = np.zeros(BUCKETS)
    for (seen, bucket), count in evidence.latencies.items():
        if seen is arm:
            counts[bucket] += count
    sketch = LatencySketch(counts)
    return [arm.value, f"{sketch.size:,}", *(_quantile(sketch, level) for level in LEVELS)]


def _quantile(sketch: LatencySketch, level: float) -> str:
    value = sketch.quantile(level)
    if value is None or round(sketch.size * (1.0 - level), 9) < 1.0:
        return _TOO_FEW
    return "no answer" if math.isinf(value) else f"{value:,.3g}"


def _tail_row(evidence: Evidence, guardrail: Guardrail, exceeds: Exceedance) -> list[str]:
    frozen = None if evidence.frozen is None else evidence.frozen.quantiles.get(guardrail.name)
    series = evidence.series(guardrail.name)
    above = [
        rate(bad / units) if units and frozen is not None else _NONE
        for bad, units in zip(series.total("bad"), series.total("units"), strict=True)
    ]
    threshold = "not frozen: the champion answered too few units" if frozen is None else f"{frozen:,.4g}"
    return [
        plain(guardrail.name),
        threshold,
        f"{percent(exceeds.quantile)} quantile of {plain(exceeds.column)}",
        *above,
    ]


def _score_part(evidence: Evidence, plan: Plan) -> list[str]:
    if plan.scores is None:
        return ["### Scores", "The plan declares no score to look at."]
    arms = scored_arms(evidence, plan)
    if arms is None:
        return ["### Scores", "Nothing has been scored by both releases yet."]
    shift = shift_of(arms, evidence)
    moved = "How far they moved is not known: the champion has no score from before the rollout, or an arm has none."
    if shift is not None:
        moved = (
            f"The population stability index is {shift.psi:.3f}; arms that score alike have"
            f" {shift.psi_null_mean:.3f} with as many units. Mean difference {shift.mean_difference:+.3g}, Wasserstein"
            f" distance {shift.wasserstein:.3g}. A score that moved is no harm by itself."
        )
    where = "Of requests that both releases scored, the challenger in shadow." if arms.is_paired else "Of served units."
    return [
        "### Scores",
        where,
        score_table(arms),
        image(score_plot(arms, shift), "part of the units by score, both arms"),
        moved,
        *_calibration_part(arms, plan),
    ]


def _calibration_part(arms: ScoredArms, plan: Plan) -> list[str]:
    if plan.scores is None or plan.scores.label is None:
        return ["### Calibration", "The plan declares no label that the score predicts."]
    if not arms.has_labels():
        return ["### Calibration", "No scored unit has a matured label yet."]
    return [
        "### Calibration",
        calibration_table(arms),
        image(reliability_plot(arms), "how often outcomes were positive by score, both arms"),
        BRIER,
    ]


def _label_part(evidence: Evidence, plan: Plan) -> list[str]:
    counts = label_counts(evidence, plan)
    parts = ["### Labels", label_table(counts)]
    if not any(each.waiting + each.labelled + each.missing for each in counts):
        return [*parts, "No unit waits for a label or has one yet."]
    if any(each.labelled for each in counts):
        parts += [
            image(maturity_plot(evidence, plan), "part of the labels that have come by time, both arms"),
            CURVES,
        ]
    return parts
