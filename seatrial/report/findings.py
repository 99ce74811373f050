"""Findings as one Markdown table, worst first."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

from seatrial.gates.finding import Question
from seatrial.report.wording import evidence_value, plain, rate, table
from seatrial.units import format_duration
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from seatrial.gates.finding import Finding

#: Slices shown of each guardrail, the worst; the rest is counted. Quiet ones come as one finding from the gate.
MOST_SLICES = 15
#: Rows of one table, so that a page stays a page whatever a plan declares.
MOST_ROWS = 80
RAW_RATES = (
    "Raw rates are those of all units, challenger against champion, whatever the share was; go by E, which compares the"
    " arms only within each share, or the challenger with an absolute margin."
)
#: Between guardrail and slice in the subject of a finding.
SLICE_MARK = " · "

MARKS: Mapping[Verdict, str] = {
    Verdict.PASS: "✓ PASS",
    Verdict.INCONCLUSIVE: "… INCONCLUSIVE",
    Verdict.ERROR: "**! ERROR**",
    Verdict.FAIL: "**✗ FAIL**",
}

#: What a verdict means for each question, because "inconclusive" is good news about harm and none about promotion.
_MEANINGS: Mapping[tuple[Question, Verdict], str] = {
    (Question.CONTRACT, Verdict.PASS): "fits, loads and answers",
    (Question.CONTRACT, Verdict.FAIL): "contract broken",
    (Question.FRESHNESS, Verdict.PASS): "recent",
    (Question.ASSIGNMENT, Verdict.PASS): "assigned as recorded",
    (Question.ASSIGNMENT, Verdict.FAIL): "sample ratio mismatch",
    (Question.LOAD, Verdict.PASS): "within its budget",
    (Question.LOAD, Verdict.INCONCLUSIVE): "not reported",
    (Question.LOAD, Verdict.FAIL): "too dear, the shadow pauses",
    (Question.SHADOW, Verdict.PASS): "runs",
    (Question.SHADOW, Verdict.FAIL): "does not run as well",
    (Question.HARM, Verdict.INCONCLUSIVE): "no harm shown",
    (Question.HARM, Verdict.FAIL): "harm proven",
    (Question.WARNING, Verdict.INCONCLUSIVE): "quiet",
    (Question.WARNING, Verdict.FAIL): "likely worse, share stands still",
    (Question.SCORES, Verdict.PASS): "as varied as the champion's",
    (Question.SCORES, Verdict.INCONCLUSIVE): "no shift shown",
    (Question.SCORES, Verdict.FAIL): "collapsed or moved",
    (Question.CALIBRATION, Verdict.INCONCLUSIVE): "not shown to be off",
    (Question.CALIBRATION, Verdict.FAIL): "outcomes are not as scored",
    (Question.DELAY, Verdict.INCONCLUSIVE): "no difference shown",
    (Question.DELAY, Verdict.FAIL): "labels of one arm come sooner",
    (Question.EXPOSURE, Verdict.PASS): "gross harm ruled out",
    (Question.EXPOSURE, Verdict.INCONCLUSIVE): "gross harm not ruled out yet",
    (Question.PROMOTION, Verdict.PASS): "harm beyond the margin ruled out",
    (Question.PROMOTION, Verdict.INCONCLUSIVE): "harm beyond the margin not ruled out yet",
}
_GENERAL: Mapping[Verdict, str] = {
    Verdict.PASS: "yes",
    Verdict.INCONCLUSIVE: "not enough evidence yet",
    Verdict.ERROR: "could not be asked",
    Verdict.FAIL: "no",
}


def findings_table(findings: Sequence[Finding]) -> str:
    """Return `findings` as a Markdown table, worst first; of none, a sentence that says that nothing was asked.

    Of each guardrail only the worst slices are shown; a sentence below the table says how many others there are and
    what the worst of them is.
    """
    if not findings:
        return "Nothing has been asked yet; no finding is not a PASS."
    shown, notes = _shortened(findings)
    listed = ranked(shown)
    rows = (
        [
            f"{MARKS[f.verdict]}: {plain(meaning(f))}",
            plain(f.question.value),
            plain(f.subject),
            plain(figures(f)),
            plain(f.reason),
        ]
        for f in listed[:MOST_ROWS]
    )
    if len(listed) > MOST_ROWS:
        worst_left = listed[MOST_ROWS].verdict.name
        notes.append(f"**{len(listed) - MOST_ROWS} more findings are not shown; the worst of them is {worst_left}.**")
    if any(rates(f) is not None for f in listed):
        notes.append(RAW_RATES)
    return "\n\n".join([table(["verdict", "question", "about", "numbers", "reason"], rows), *notes])


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Return `findings`, worst first: by verdict, then those acted on, then by question and by evidence."""
    questions = [
        Question.HARM,
        Question.FRESHNESS,
        Question.ASSIGNMENT,
        Question.CONTRACT,
        Question.LOAD,
        Question.SHADOW,
        Question.WARNING,
        Question.DELAY,
        Question.SCORES,
        Question.CALIBRATION,
        Question.PROMOTION,
        Question.EXPOSURE,
    ]
    return sorted(
        findings,
        key=lambda f: (-f.verdict, not f.is_binding, questions.index(f.question), -_badness(f)),
    )


def decisive(findings: Iterable[Finding], reason: str) -> list[Finding]:
    """Return the findings that a decision with `reason` rests on, worst first; empty when it rests on none.

    A decision quotes its finding; a decision of another wording rests on what is worst and acted on.
    """
    binding = [f for f in ranked(findings) if f.is_binding]
    quoted = [f for f in binding if f.reason and f.reason in reason]
    return quoted or [f for f in binding if f.verdict in (Verdict.FAIL, Verdict.ERROR)]


def number(finding: Finding, name: str) -> float | None:
    """Return a number of `finding`, also when it was stored as text; None when absent or not a number."""
    value = finding.numbers.get(name)
    if value is None:
        return None
    try:
        parsed = float(value)
    except ValueError:
        return None
    return None if math.isnan(parsed) else parsed


def is_slice(finding: Finding) -> bool:
    """Return whether `finding` is about one slice of a guardrail."""
    return SLICE_MARK in finding.subject and finding.question is Question.HARM


def meaning(finding: Finding) -> str:
    """Return what the verdict means for the question asked."""
    text = _MEANINGS.get((finding.question, finding.verdict), _GENERAL[finding.verdict])
    if finding.is_waivable:
        return f"{text} ({'may be waived' if finding.is_binding else 'waived'})"
    return text if finding.is_binding else f"{text} (shown only, not acted on)"


def figures(finding: Finding) -> str:
    """Return the numbers of `finding`, short; its reason tells them in full."""
    parts = [part for figure in _FIGURES if (part := figure(finding)) is not None]
    if not parts:
        parts = [f"{name} {value}" for name, value in list(finding.numbers.items())[:4] if value is not None]
    # A finding on many slices or labels has the numbers of one of them.
    where = finding.numbers.get("nearest") or finding.numbers.get("least_likely")
    return f"{where}: {'; '.join(parts)}" if where else "; ".join(parts) or "none"


def rates(finding: Finding) -> str | None:
    """Return the bad rates of both arms, or None when they were not counted."""
    challenger = _rate(finding, "challenger")
    champion = _rate(finding, "champion")
    if challenger is None and champion is None:
        return None
    return f"{challenger or 'no unit'} against {champion or 'no unit'} raw"


def counts(finding: Finding) -> str | None:
    """Return bad units, units and rates of both arms with E and its threshold, or None when nothing was counted."""
    arms = [_arm(finding, "challenger"), _arm(finding, "champion")]
    if None in arms:
        return None
    return "; ".join([f"challenger {arms[0]}", f"champion {arms[1]}", *filter(None, [evidence_text(finding)])])


def _arm(finding: Finding, arm: str) -> str | None:
    bad, units, raw = number(finding, f"{arm}_bad"), number(finding, f"{arm}_units"), _rate(finding, arm)
    if bad is None or units is None:
        return None
    return f"{bad:,.0f} of {units:,.0f} bad" + ("" if raw is None else f" ({raw} raw)")


def assigned_units(findings: Iterable[Finding]) -> float | None:
    """Return how many units were assigned to the challenger, or None when the findings do not say."""
    asked = (number(f, "challenger_units") for f in findings if f.question is Question.ASSIGNMENT)
    return next((units for units in asked if units is not None), None)


def evidence_text(finding: Finding) -> str | None:
    """Return E and what is needed, or None when the question has no E."""
    if "log_e" not in finding.numbers:
        return None
    value = f"E {evidence_value(number(finding, 'log_e'))}"
    threshold = number(finding, "threshold")
    return value if threshold is None else f"{value} of {evidence_value(threshold)} needed"


def _rate(finding: Finding, arm: str) -> str | None:
    bad, units = number(finding, f"{arm}_bad"), number(finding, f"{arm}_units")
    return None if bad is None or not units else rate(bad / units)


def _assigned(finding: Finding) -> str | None:
    challenger, champion = number(finding, "challenger_units"), number(finding, "champion_units")
    expected = number(finding, "expected_challenger_units")
    if challenger is None or champion is None or expected is None or challenger + champion == 0:
        return None
    units = challenger + champion
    return f"{rate(challenger / units)} of units, {rate(expected / units)} recorded"


def _failed(finding: Finding) -> str | None:
    units, both = number(finding, "units"), number(finding, "both_failed")
    challenger, champion = number(finding, "challenger_failed"), number(finding, "champion_failed")
    if not units or both is None or challenger is None or champion is None:
        return None
    return f"{rate((challenger + both) / units)} against {rate((champion + both) / units)} failed"


def _flipped(finding: Finding) -> str | None:
    flipped = number(finding, "flip_rate")
    return None if flipped is None else f"{rate(flipped)} flipped"


def _averaged(finding: Finding) -> str | None:
    challenger, champion = number(finding, "challenger_mean"), number(finding, "champion_mean")
    if challenger is None or champion is None:
        return None
    return f"mean {challenger:,.4g} against {champion:,.4g} raw"


def _calibrated(finding: Finding) -> str | None:
    labelled, positive = number(finding, "labelled"), number(finding, "positive")
    return (
        f"{rate(positive / labelled)} of {labelled:,.0f} labels positive" if labelled and positive is not None else None
    )


def _covered(finding: Finding) -> str | None:
    challenger, champion = number(finding, "challenger_coverage"), number(finding, "champion_coverage")
    if challenger is None or champion is None:
        return None
    return f"labels {rate(challenger)} against {rate(champion)}"


def _age(finding: Finding) -> str | None:
    age = number(finding, "age_s")
    return None if age is None else f"{format_duration(timedelta(seconds=age))} old"


_FIGURES: tuple[Callable[[Finding], str | None], ...] = (
    rates,
    _averaged,
    _calibrated,
    _assigned,
    _failed,
    _flipped,
    _age,
    evidence_text,
    _covered,
)


def _badness(finding: Finding) -> float:
    """Return how near `finding` is to harm, on a scale that fits only findings of one question."""
    log_e = number(finding, "log_e")
    if log_e is None:
        return 0.0
    needed = number(finding, "threshold") or 0.0
    is_relief = finding.question in (Question.EXPOSURE, Question.PROMOTION)
    return needed - log_e if is_relief else log_e - needed


def _shortened(findings: Sequence[Finding]) -> tuple[list[Finding], list[str]]:
    """Return the findings to show, and one sentence for each guardrail with further slices."""
    shown = [f for f in findings if not is_slice(f) or _stands_for_many(f)]
    slices: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        if is_slice(finding) and not _stands_for_many(finding):
            slices[finding.subject.partition(SLICE_MARK)[0]].append(finding)
    sentences = []
    for guardrail, members in slices.items():
        listed = ranked(members)
        shown += listed[:MOST_SLICES]
        if left := listed[MOST_SLICES:]:
            noun = "slice" if len(left) == 1 else "slices"
            worst_left = left[0].verdict.name
            sentences.append(f"**{len(left)} more {noun} of {plain(guardrail)}; the worst of them is {worst_left}.**")
    return shown, sentences


def _stands_for_many(finding: Finding) -> bool:
    return "quiet_slices" in finding.numbers
