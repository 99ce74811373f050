"""Whether a guardrail is worse, likely worse, or shown not to be worse.

Harm and warnings use every bad unit reported so far, with the share at its assignment: early positives need no
matured window, because equal delays cancel. Exposure may grow, and a release be promoted, only on evidence that rules
harm out; for promotion on matured units alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from seatrial.gates import amounts
from seatrial.gates.counted import Counted, Part, arms_of, counted, gap_of, harm_log_e, known, ratios, readable
from seatrial.gates.finding import Finding, Question
from seatrial.plan import Consequence
from seatrial.stats import kernel
from seatrial.stats.multiplicity import closed_benjamini_hochberg
from seatrial.stats.rate import below
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from seatrial.evidence import Evidence
    from seatrial.plan import Guardrail, Hypothesis, Margin, Plan

#: So many quiet slices of one guardrail, and more, have one finding together.
FOLDED_FROM = 2
#: What stands for the slice in the subject of the finding that quiet slices share.
QUIET = "quiet slices"


def harm(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return for each guardrail and declared slice whether it is proven worse: FAIL, otherwise INCONCLUSIVE.

    The rollback budget is split over all hypotheses by weight (weighted e-Bonferroni), so that over the whole rollout
    a release that is no worse is rolled back with at most that probability. When a guardrail fails, closed e-BH names
    the slices it is worse in; that explains and decides nothing.

    A guardrail, and a slice that is not quiet, has a finding of its own. The quiet slices of a guardrail have one
    together: each of them was counted, is named by nobody and has less evidence of harm than ``budgets.hold`` calls
    likely, so that each of them alone is INCONCLUSIVE, and so is their finding.
    """
    return _harm(plan, _weigh(evidence, plan))


def warnings(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return one finding for each guardrail: FAIL when harm is likely at the looser hold budget."""
    return _warnings(plan, _weigh(evidence, plan))


def harm_and_warnings(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return what `harm` and `warnings` find, from evidence that is weighed once for both."""
    weighed = _weigh(evidence, plan)
    return [*_harm(plan, weighed), *_warnings(plan, weighed)]


def exposure(evidence: Evidence, plan: Plan, *, rule_out: Margin) -> list[Finding]:
    """Return one finding for each guardrail: PASS when harm beyond `rule_out` is ruled out.

    A ratio of early positives is honest while labels arrive; a rate is not, for a unit without its label is no good
    unit. An absolute margin therefore counts matured units only, and like a mean it asks that enough of them were seen.
    """
    reliefs = [
        _Relief(seen, rule_out, "bad", "units")
        if seen.guardrail.margin.is_relative
        else _Relief(seen, seen.guardrail.margin, "matured_bad", "matured")
        for seen in counted(evidence, _whole(plan))
    ]
    found = _ruled_out(Question.EXPOSURE, evidence, reliefs, alpha=plan.budgets.promote)
    return [
        _with_coverage(finding, relief.seen, plan.label_coverage.at_least) if _needs_all(relief) else finding
        for finding, relief in zip(found, reliefs, strict=True)
    ]


def _needs_all(relief: _Relief) -> bool:
    """Return whether a unit that was not seen would pass for a good one, or for an average one."""
    guardrail = relief.seen.guardrail
    return guardrail.mean is not None or (guardrail.source.is_delayed and not relief.margin.is_relative)


def promotion(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return one finding for each guardrail: PASS when harm beyond its margin is ruled out on matured units.

    Every guardrail must pass at the full budget (intersection-union test), and in both arms enough of the matured
    units must have a label at all.
    """
    reliefs = [
        _Relief(seen, seen.guardrail.margin, "matured_bad", "matured") for seen in counted(evidence, _whole(plan))
    ]
    found = _ruled_out(Question.PROMOTION, evidence, reliefs, alpha=plan.budgets.promote)
    return [
        _with_coverage(finding, relief.seen, plan.label_coverage.at_least)
        for finding, relief in zip(found, reliefs, strict=True)
    ]


def _whole(plan: Plan) -> list[Part]:
    """Return every guardrail on all units."""
    return [Part(guardrail) for guardrail in plan.guardrails]


@dataclass(frozen=True, slots=True)
class _Weighed:
    """Evidence of harm in one look."""

    evidence: Evidence
    log_es: NDArray[np.float64]  #: of the plan's hypotheses, in their order; NaN where it is not known
    whole: Mapping[str, tuple[Counted, float]]  #: counts and log E of each guardrail on all units


def _weigh(evidence: Evidence, plan: Plan) -> _Weighed:
    hypotheses = plan.hypotheses()
    places = {each.guardrail: at for at, each in enumerate(hypotheses) if each.slice_column is None}
    whole = _whole(plan)
    keys = [each.key for each in hypotheses]
    for part in whole:
        if part.guardrail.name not in places:
            places[part.guardrail.name] = len(keys)
            keys.append(part.key)
    log_es = harm_log_e(evidence, plan, keys)
    counts = counted(evidence, whole)
    return _Weighed(
        evidence,
        log_es[: len(hypotheses)],
        {each.guardrail.name: (each, float(log_es[places[each.guardrail.name]])) for each in counts},
    )


def _warnings(plan: Plan, weighed: _Weighed) -> list[Finding]:
    counts, log_es = zip(*weighed.whole.values(), strict=True)
    findings = []
    for each, log_e, ratio in zip(counts, log_es, ratios(counts), strict=True):
        is_likely = log_e >= math.log(1.0 / plan.budgets.hold)
        seen = each.described(ratio)
        findings.append(
            Finding(
                Question.WARNING,
                each.part.subject,
                Verdict.FAIL if is_likely else Verdict.INCONCLUSIVE,
                f"{each.part.subject} is likely worse: {seen}" if is_likely else seen,
                {**each.numbers, "log_e": known(log_e)},
                is_binding=_is_acted_on(each.guardrail) and each.guardrail.consequence is not Consequence.NOTIFY,
            )
        )
    return findings


def _harm(plan: Plan, weighed: _Weighed) -> list[Finding]:
    hypotheses, log_es = plan.hypotheses(), weighed.log_es
    needed = np.array([each.log_threshold for each in hypotheses])
    culprits = _culprits(hypotheses, log_es, log_es >= needed, alpha=plan.budgets.rollback)
    likely = np.minimum(needed, math.log(1.0 / plan.budgets.hold))
    groups = _quiet_groups(weighed.evidence, plan, hypotheses, log_es < likely, culprits)
    found = log_es.tolist()
    nearest = [max(group, key=found.__getitem__) for group in groups]
    folded = {at for group in groups for at in group}
    own = [at for at in range(len(hypotheses)) if at not in folded]
    asked = _asked(plan, weighed, [*own, *nearest])
    units = weighed.evidence.counts_of([each.key for each in hypotheses], "units")
    is_empty = (units.sum(axis=-1) == 0).any(axis=-1)
    return [
        *(_harm_finding(each, culprits, alpha=plan.budgets.rollback) for each in asked[: len(own)]),
        *(
            _quiet_finding(each, len(group), empty=int(is_empty[group].sum()))
            for each, group in zip(asked[len(own) :], groups, strict=True)
        ),
    ]


def _culprits(
    hypotheses: Sequence[Hypothesis],
    log_es: NDArray[np.float64],
    is_proven: NDArray[np.bool_],
    *,
    alpha: float,
) -> dict[str, list[str]]:
    """Return for each guardrail that failed the slices that closed e-BH names; for all others none."""
    named = {}
    for guardrail in {hypotheses[at].guardrail for at in np.flatnonzero(is_proven).tolist()}:
        slices = [
            (each.slice_name, log_e)
            for each, log_e in zip(hypotheses, log_es.tolist(), strict=True)
            if each.guardrail == guardrail and each.slice_column is not None and not math.isnan(log_e)
        ]
        chosen = closed_benjamini_hochberg([log_e for _, log_e in slices], alpha=alpha)
        named[guardrail] = [name for (name, _), is_named in zip(slices, chosen, strict=True) if is_named]
    return named


def _quiet_groups(
    evidence: Evidence,
    plan: Plan,
    hypotheses: Sequence[Hypothesis],
    is_low: NDArray[np.bool_],
    culprits: Mapping[str, Sequence[str]],
) -> list[list[int]]:
    """Return the places of slices that are quiet, by guardrail; one alone needs no finding for many.

    Quiet is a slice of `is_low`, which what is not known never is, that was counted and that is no culprit.
    """
    gaps = {each.name for each in plan.guardrails if gap_of(evidence, each) is not None}
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for at in np.flatnonzero(is_low).tolist():
        each = hypotheses[at]
        is_culprit = each.guardrail in culprits and each.slice_name in culprits[each.guardrail]
        if each.slice_column is not None and each.guardrail not in gaps and not is_culprit:
            groups[each.guardrail].append(at)
    return [group for group in groups.values() if len(group) >= FOLDED_FROM]


class _Asked(NamedTuple):
    """One hypothesis of harm with its evidence."""

    hypothesis: Hypothesis
    log_e: float | None  #: None when it could not be weighed
    counts: Counted

    @property
    def is_proven(self) -> bool:
        return self.log_e is not None and self.log_e >= self.hypothesis.log_threshold

    @property
    def known(self) -> str:
        return readable(self.log_e, 1.0 / self.hypothesis.alpha)

    @property
    def numbers(self) -> dict[str, float | int | str | None]:
        return {**self.counts.numbers, "log_e": self.log_e, "threshold": self.hypothesis.log_threshold}


def _asked(plan: Plan, weighed: _Weighed, places: Sequence[int]) -> list[_Asked]:
    """Return the hypotheses at `places` with what was counted."""
    hypotheses = [plan.hypotheses()[at] for at in places]
    slices = [
        Part(weighed.whole[each.guardrail][0].guardrail, each.slice_column, each.slice_value)
        for each in hypotheses
        if each.slice_column is not None
    ]
    counts = iter(counted(weighed.evidence, slices))
    return [
        _Asked(each, known(log_e), weighed.whole[each.guardrail][0] if each.slice_column is None else next(counts))
        for each, log_e in zip(hypotheses, weighed.log_es[places].tolist(), strict=True)
    ]


def _harm_finding(asked: _Asked, culprits: Mapping[str, Sequence[str]], *, alpha: float) -> Finding:
    counts, part, is_proven = asked.counts, asked.counts.part, asked.is_proven
    verb = "is worse" if is_proven else "is not shown to be worse"
    # Root searches for all that is not proven would cost more than all of the evidence; warnings tell their ratios.
    told = counts.described(*ratios([counts])) if is_proven else counts.described()
    limits = counts.interval(alpha=asked.hypothesis.alpha) if is_proven else {}
    if limits:
        told += f", {limits['ratio_low']:.2f} to {limits['ratio_high']:.2f} at all looks"
    reason = f"{part.subject} {verb}: {told} ({asked.known})"
    numbers = {**asked.numbers, **limits}
    if is_proven and (named := culprits[part.guardrail.name]):
        listed = ", ".join(named)
        reason += f"; worse in {listed} (at most {alpha:.0%} of such names are wrong)"
        numbers["slices"] = listed
    return Finding(
        Question.HARM,
        part.subject,
        Verdict.FAIL if is_proven else Verdict.INCONCLUSIVE,
        reason,
        numbers,
        is_binding=_rolls_back(part.guardrail),
    )


def _quiet_finding(nearest: _Asked, slices: int, *, empty: int) -> Finding:
    """Return the finding of several quiet slices of one guardrail, with the counts of the one nearest to harm."""
    guardrail, name = nearest.counts.guardrail, nearest.hypothesis.slice_name
    without = f"; {empty} of them without a unit in one arm or in both" if empty else ""
    return Finding(
        Question.HARM,
        f"{guardrail.name} · {QUIET}",
        Verdict.INCONCLUSIVE,
        f"{guardrail.name}: {slices} slices are not shown to be worse; the most evidence is in {name}:"
        f" {nearest.counts.described()} ({nearest.known}){without}",
        {**nearest.numbers, "nearest": name, "quiet_slices": slices, "empty_slices": empty},
        is_binding=_rolls_back(guardrail),
    )


@dataclass(frozen=True, slots=True)
class _Relief:
    """One guardrail with the harm that must be ruled out, and the counts that may do so."""

    seen: Counted
    margin: Margin
    counted: str
    of: str

    @property
    def numbers(self) -> dict[str, float | int | str | None]:
        if self.seen.averages is not None:
            return self.seen.numbers
        return arms_of(self.seen.series, self.counted, self.of)

    def described(self) -> str:
        """Return the counts in words."""
        if self.seen.averages is not None or self.seen.gap is not None:
            return self.seen.described()
        challenger, champion = (
            f"{bad:,} of {units:,}"
            for bad, units in zip(self.seen.series.total(self.counted), self.seen.series.total(self.of), strict=True)
        )
        return f"{challenger} against {champion}"


def _ruled_out(question: Question, evidence: Evidence, reliefs: Sequence[_Relief], *, alpha: float) -> list[Finding]:
    log_es = _relief_log_e(evidence, reliefs)
    return [_relief_finding(question, each, log_e, alpha=alpha) for each, log_e in zip(reliefs, log_es, strict=True)]


def _relief_finding(question: Question, relief: _Relief, log_e: float | None, *, alpha: float) -> Finding:
    guardrail, margin = relief.seen.guardrail, relief.margin
    needed = math.log(1.0 / alpha)
    is_shown = log_e is not None and log_e >= needed
    said = "is ruled out" if is_shown else "is not ruled out yet"
    return Finding(
        question,
        guardrail.name,
        Verdict.PASS if is_shown else Verdict.INCONCLUSIVE,
        f"{guardrail.name}: {margin} worse {said}: {relief.described()} ({readable(log_e, 1.0 / alpha)})",
        {**relief.numbers, "log_e": log_e, "threshold": needed},
        is_binding=_is_acted_on(guardrail) and guardrail.consequence is not Consequence.NOTIFY,
    )


def _relief_log_e(evidence: Evidence, reliefs: Sequence[_Relief]) -> list[float | None]:
    """Return log E against harm beyond the margin of each; None where the question cannot be asked yet."""
    log_es: list[float | None] = [None] * len(reliefs)
    by_margin: defaultdict[float, list[int]] = defaultdict(list)
    for at, relief in enumerate(reliefs):
        seen, margin = relief.seen, relief.margin
        # An arm without units has no bad ones either: the other would look worse than nothing.
        if seen.gap is not None or not all(seen.series.total("units")):
            continue
        if seen.averages is not None:
            if evidence.epochs:
                log_es[at] = amounts.log_e_not_worse(evidence, seen.guardrail, margin=margin.value)
        elif margin.is_relative:
            by_margin[margin.value].append(at)
        else:
            series = seen.series
            log_es[at] = below(series.total(relief.counted)[0], series.total(relief.of)[0], bound=margin.value)
    for tolerated, places in by_margin.items():
        bad = np.stack([reliefs[at].seen.series.of(reliefs[at].counted) for at in places])
        rho = reliefs[places[0]].seen.series.rho
        counted = np.atleast_1d(kernel.noninferiority(bad[:, 0], bad[:, 1], rho, margin=tolerated))
        for at, log_e in zip(places, counted.tolist(), strict=True):
            log_es[at] = log_e
    return log_es


def _with_coverage(finding: Finding, counts: Counted, at_least: float) -> Finding:
    """Return `finding`, as INCONCLUSIVE when too few matured units of either arm have a label, or a number.

    A unit whose label the action hides is not asked for one; `hidden` units are counted with the matured ones.
    """
    matured, hidden, labelled = (counts.series.total(name) for name in ("matured", "hidden", "labelled"))
    seen = [whole - part for whole, part in zip(matured, hidden, strict=True)]
    shares = [part / whole if whole else 0.0 for part, whole in zip(labelled, seen, strict=True)]
    numbers = {**finding.numbers, "challenger_coverage": shares[0], "champion_coverage": shares[1]}
    if min(shares) >= at_least:
        return replace(finding, numbers=numbers)
    is_measured = counts.guardrail.mean is not None and not counts.guardrail.source.is_delayed
    wanted = "number" if is_measured else "label"
    reason = (
        f"{finding.subject}: {shares[0]:.0%} (challenger) and {shares[1]:.0%} (champion) of the matured units have a"
        f" {wanted}, the plan asks for {at_least:.0%}"
    )
    return replace(finding, verdict=Verdict.INCONCLUSIVE, reason=reason, numbers=numbers)


def _rolls_back(guardrail: Guardrail) -> bool:
    return _is_acted_on(guardrail) and guardrail.consequence is Consequence.ROLL_BACK


def _is_acted_on(guardrail: Guardrail) -> bool:
    return not guardrail.dry_run
