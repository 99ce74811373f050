"""Metrics of the counts of one look: a function for each family, of the rollout and its evidence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seatrial.evidence import Arm
from seatrial.gates.amounts import averages
from seatrial.gates.assignment import assignment
from seatrial.gates.counted import harm_log_e
from seatrial.gates.pairs import advice
from seatrial.metrics.families import Absence
from seatrial.metrics.seen import metric
from seatrial.report.quality_labels import label_guardrails
from seatrial.report.quality_scores import scored_arms, shift_of
from seatrial.stats import kernel
from seatrial.stats.exceedance import BUCKETS, LatencySketch
from seatrial.stats.maturity import label_coverage
from seatrial.stats.scores import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from seatrial.evidence import Evidence
    from seatrial.metrics.seen import Metric, Seen
    from seatrial.plan import Guardrail, Hypothesis

#: Arms that are compared, in the order in which counts are stored.
ARMS = (Arm.CHALLENGER, Arm.CHAMPION)
QUANTILES = (0.5, 0.99)
#: What `source` says of numbers that come from the decision log.
LOG = "log"


def _latency_seconds(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    shadow = (Arm.SHADOW,) if any(arm is Arm.SHADOW for arm, _ in evidence.latencies) else ()
    for arm in (*ARMS, *shadow):
        counts = np.zeros(BUCKETS)
        for (of, bucket), count in evidence.latencies.items():
            if of is arm:
                counts[bucket] += count
        sketch = LatencySketch(counts)
        for level in QUANTILES:
            labels = {**seen.place, "arm": arm.value, "quantile": f"{level:g}", "source": LOG}
            yield metric("latency_seconds", _quantile(sketch, level), **labels)


def _quantile(sketch: LatencySketch, level: float) -> float | Absence:
    value = sketch.quantile(level)
    if value is None:
        return Absence.NO_UNITS
    if round(sketch.size * (1.0 - level), 9) < 1.0:
        return Absence.TOO_FEW_UNITS
    return Absence.NO_ANSWER if math.isinf(value) else value / 1000.0


def _error_ratio(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    tally = evidence.shadow
    failed = {Arm.CHALLENGER: tally.challenger_failed, Arm.CHAMPION: tally.champion_failed}
    for arm in ARMS:
        ratio = _part(failed[arm] + tally.both_failed, tally.units)
        yield metric("error_ratio", ratio, **seen.place, arm=arm.value, source="shadow")


def _part(count: float, whole: float) -> float | Absence:
    return count / whole if whole else Absence.NO_UNITS


def _share_expected_ratio(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    challenger, champion, rho = evidence.assigned_series()
    units = challenger + champion
    yield metric("share_expected_ratio", _part(float(units @ rho), int(units.sum())), **seen.place)


def _share_observed_ratio(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    challenger, champion, _ = evidence.assigned_series()
    ratio = _part(int(challenger.sum()), int(challenger.sum() + champion.sum()))
    yield metric("share_observed_ratio", ratio, **seen.place)


def _assigned_units(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    totals = [int(units.sum()) for units in evidence.assigned_series()[:2]]
    if not any(totals):
        yield metric("assigned_units", Absence.NO_UNITS, **seen.place)
        return
    for arm, units in zip(ARMS, totals, strict=True):
        yield metric("assigned_units", units, **seen.place, arm=arm.value)


def _of_assignment(name: str, number: str) -> Callable[[Seen, Evidence], Iterator[Metric]]:
    """Return the function of family `name` that shows `number` of the finding on assignment."""

    def found(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
        value = assignment(evidence, alpha=seen.plan.budgets.srm).numbers.get(number)
        yield metric(name, _number(value), **seen.place)

    return found


def _number(value: float | str | None) -> float | Absence:
    return float(value) if isinstance(value, (int, float)) else Absence.NO_UNITS


def _crossed_units(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    is_seen = bool(evidence.crossed or evidence.assigned)
    yield metric("crossed_units", evidence.crossed if is_seen else Absence.NO_UNITS, **seen.place)


def _shadow_units(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    yield metric("shadow_units", evidence.shadow.units or Absence.NO_UNITS, **seen.place)


def _flip_ratio(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    yield metric("flip_ratio", _part(evidence.shadow.flipped, evidence.shadow.compared), **seen.place)


def _score_distance(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    arms = scored_arms(evidence, seen.plan)
    shift = None if arms is None else shift_of(arms, evidence)
    if shift is None:
        yield metric("score_distance", _why_no_shift(seen, has_scores=arms is not None), **seen.place)
        return
    measures = {
        "mean_difference": shift.mean_difference,
        "wasserstein": shift.wasserstein,
        "psi": shift.psi,
        "psi_by_chance": shift.psi_null_mean,
        "jensen_shannon": shift.jensen_shannon,
    }
    for measure, value in measures.items():
        yield metric("score_distance", value, **seen.place, measure=measure)


def _why_no_shift(seen: Seen, *, has_scores: bool) -> Absence:
    if seen.plan.scores is None:
        return Absence.NOT_DECLARED
    return Absence.NO_REFERENCE if has_scores else Absence.NO_UNITS


def _no_score_ratio(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    arms = scored_arms(evidence, seen.plan)
    if arms is None:
        yield metric("no_score_ratio", _why_no_shift(seen, has_scores=False), **seen.place)
        return
    for arm in ARMS:
        counts = arms.of(arm).units.sum(axis=0)
        yield metric("no_score_ratio", _part(int(counts[MISSING]), int(counts.sum())), **seen.place, arm=arm.value)


def _guardrail_bad_ratio(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    for guardrail in _counting(seen):
        bad, units = ("matured_bad", "matured") if guardrail.source.is_delayed else ("bad", "units")
        series = evidence.series(guardrail.name)
        for arm, count, whole in zip(ARMS, series.total(bad), series.total(units), strict=True):
            ratio = _part(count, whole) if _has_threshold(evidence, guardrail) else Absence.NO_REFERENCE
            labels = {"guardrail": guardrail.name, "source": guardrail.source.value, "arm": arm.value}
            yield metric("guardrail_bad_ratio", ratio, **seen.place, **labels)


def _counting(seen: Seen) -> list[Guardrail]:
    return [guardrail for guardrail in seen.plan.guardrails if guardrail.mean is None]


def _has_threshold(evidence: Evidence, guardrail: Guardrail) -> bool:
    """Return whether units could be told bad from good: a tail needs the champion's quantile."""
    if guardrail.exceeds is None:
        return True
    return evidence.frozen is not None and guardrail.name in evidence.frozen.quantiles


def _matured_label_ratio(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    guardrails = label_guardrails(seen.plan)
    if not guardrails:
        yield metric("matured_label_ratio", Absence.NOT_DECLARED, **seen.place)
    for guardrail in guardrails:
        series = evidence.series(guardrail.name)
        counts = (series.total(name) for name in ("matured", "labelled", "hidden"))
        for arm, matured, labelled, hidden in zip(ARMS, *counts, strict=True):
            coverage = label_coverage(labelled, matured - hidden)
            value = Absence.NO_UNITS if coverage is None else coverage
            labels = {"guardrail": guardrail.name, "arm": arm.value}
            yield metric("matured_label_ratio", value, **seen.place, **labels)


def _matured_rate_ratio(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    for guardrail in _counting(seen):
        series = evidence.series(guardrail.name)
        challenger, champion = series.of("matured_bad")
        if not (
            all(series.total("matured")) and any(series.total("matured_bad")) and _has_threshold(evidence, guardrail)
        ):
            yield metric("matured_rate_ratio", Absence.NO_UNITS, **seen.place, guardrail=guardrail.name)
            continue
        low, high = kernel.ratio_interval(challenger, champion, series.rho, alpha=seen.plan.budgets.promote)
        estimate = float(kernel.ratio_estimate(challenger, champion, series.rho))
        for bound, value in (("low", low), ("estimate", estimate), ("high", high)):
            yield metric("matured_rate_ratio", value, **seen.place, guardrail=guardrail.name, bound=bound)


def _harm_log_e(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    yield from _of_harm("harm_log_e", lambda _, log_e: log_e, seen, evidence)


def _harm_log_e_needed(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    yield from _of_harm("harm_log_e_needed", lambda hypothesis, _: hypothesis.log_threshold, seen, evidence)


def _of_harm(
    name: str, number: Callable[[Hypothesis, float], float], seen: Seen, evidence: Evidence
) -> Iterator[Metric]:
    """Return `number` of what may roll back: of all units of each guardrail, and of its worst slice."""
    hypotheses = seen.plan.hypotheses()
    if not hypotheses:
        yield metric(name, Absence.NOT_DECLARED, **seen.place)
        return
    known = _known(seen, evidence, hypotheses)
    for guardrail in dict.fromkeys(each.guardrail for each in hypotheses):
        where = {**seen.place, "guardrail": guardrail}
        mine = {each: log_e for each, log_e in known.items() if each.guardrail == guardrail}
        whole = [each for each in mine if each.slice_column is None]
        slices = [each for each in mine if each.slice_column is not None]
        if not whole:
            yield metric(name, Absence.NO_UNITS, **where, slice="")
        # Slices have unequal parts of the budget: the worst one is nearest to what a rollback needs of it.
        worst = max(slices, key=lambda each: mine[each] - each.log_threshold, default=None)
        for each in [*whole, *([] if worst is None else [worst])]:
            part = "" if each.slice_column is None else each.slice_name
            yield metric(name, number(each, mine[each]), **where, slice=part)


def _known(seen: Seen, evidence: Evidence, hypotheses: Sequence[Hypothesis]) -> dict[Hypothesis, float]:
    """Return log E of harm where units of both arms were counted; E of nothing is 1, which is no finding."""
    guardrails = {each.name: each for each in seen.plan.guardrails}
    keys = [each.key for each in hypotheses]
    has_units = evidence.counts_of(keys, "units").sum(axis=-1).all(axis=-1)
    return {
        each: float(log_e)
        for each, log_e, is_counted in zip(hypotheses, harm_log_e(evidence, seen.plan, keys), has_units, strict=True)
        if not math.isnan(log_e) and _is_counted(evidence, guardrails[each.guardrail], has_units=bool(is_counted))
    }


def _is_counted(evidence: Evidence, guardrail: Guardrail, *, has_units: bool) -> bool:
    # The evidence of a mean is NaN already below the units that it needs.
    return guardrail.mean is not None or (has_units and _has_threshold(evidence, guardrail))


def _expected_of_itself(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    name = "expected_of_itself_estimate"
    if seen.plan.scores is None or seen.plan.scores.label is None or seen.challenger is None:
        yield metric(name, Absence.NOT_DECLARED, **seen.place)
        return
    rules = seen.challenger.release.policy.cut_offs.values()
    cut_off = min((each.at_least for cut_offs in rules for each in cut_offs), default=None)
    findings = advice(evidence, seen.plan, cut_off=cut_off)
    if not findings:
        yield metric(name, Absence.NO_UNITS, **seen.place)
    for finding in findings:
        for measure in ("accuracy", "precision", "recall"):
            value = _number(finding.numbers[f"expected_{measure}"])
            yield metric(name, value, **seen.place, measure=measure)


def _amount_mean(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    yield from _of_amounts("amount_mean", seen, evidence)


def _amount_units(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    yield from _of_amounts("amount_units", seen, evidence)


def _of_amounts(name: str, seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    averaging = [guardrail for guardrail in seen.plan.guardrails if guardrail.mean is not None]
    if not averaging:
        yield metric(name, Absence.NOT_DECLARED, **seen.place)
    for guardrail in averaging:
        found = averages(evidence, guardrail, None, None)
        for arm in ARMS:
            number = found[arm].mean if name == "amount_mean" else found[arm].units
            value = number if found[arm].units else Absence.NO_UNITS
            yield metric(name, value, **seen.place, guardrail=guardrail.name, arm=arm.value)


def _newest_decision_age(seen: Seen, evidence: Evidence) -> Iterator[Metric]:
    newest = evidence.newest
    value = Absence.NO_UNITS if newest is None else (seen.now - newest).total_seconds()
    yield metric("newest_decision_age_seconds", value, **seen.place)


#: By the name of its family, what is read off the counts of a look.
OF_EVIDENCE: Mapping[str, Callable[[Seen, Evidence], Iterable[Metric]]] = {
    "newest_decision_age_seconds": _newest_decision_age,
    "latency_seconds": _latency_seconds,
    "error_ratio": _error_ratio,
    "share_expected_ratio": _share_expected_ratio,
    "share_observed_ratio": _share_observed_ratio,
    "assigned_units": _assigned_units,
    "srm_log_e": _of_assignment("srm_log_e", "log_e"),
    "srm_p_value": _of_assignment("srm_p_value", "anytime_p"),
    "crossed_units": _crossed_units,
    "shadow_units": _shadow_units,
    "score_distance": _score_distance,
    "no_score_ratio": _no_score_ratio,
    "flip_ratio": _flip_ratio,
    "guardrail_bad_ratio": _guardrail_bad_ratio,
    "matured_label_ratio": _matured_label_ratio,
    "matured_rate_ratio": _matured_rate_ratio,
    "harm_log_e": _harm_log_e,
    "harm_log_e_needed": _harm_log_e_needed,
    "expected_of_itself_estimate": _expected_of_itself,
    "amount_mean": _amount_mean,
    "amount_units": _amount_units,
}


def of_evidence(seen: Seen) -> Iterator[Metric]:
    """Return every metric of the counts of the last look; without counts, each as absent for the same reason."""
    for name, function in OF_EVIDENCE.items():
        if seen.evidence is None:
            yield metric(name, seen.missing or Absence.NO_EVIDENCE, **seen.place)
            continue
        try:
            found = list(function(seen, seen.evidence))
        except (ValueError, ArithmeticError):
            # Counts of one rollout that make no sense must not hide those of all others.
            found = [metric(name, Absence.FAILED, **seen.place)]
        yield from found
