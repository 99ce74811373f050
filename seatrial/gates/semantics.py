"""Whether the columns that both releases read still mean the same: as declared, and as their numbers look.

Units, signs and definitions are compared as declared; what nobody declared is looked for in the numbers
(`seatrial.stats.meaning`), champion's evaluation rows against challenger's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.stats.meaning import FEWEST_ROWS, changed
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from seatrial.release import Column, Release

    Numbers = Mapping[str, NDArray[np.float64]]

GATE = "semantics"
#: Rows of each sample that are looked at, evenly over all.
MOST_ROWS = 3_000


def semantics(challenger: Release, champion: Release, candidate: Numbers, reference: Numbers) -> list[Finding]:
    """Return a finding for each column of the challenger: FAIL for a change of meaning that nobody declared."""
    before = {column.name: column for column in champion.features.columns}
    # Rows that are the same in every column were not computed twice, so that nothing went stale in between.
    shared = [column.name for column in challenger.features.columns if column.name in before]
    are_same_rows = all(_are_same(candidate.get(name), reference.get(name)) for name in shared)
    return [
        _column(column, before[column.name], candidate, reference, are_same_rows=are_same_rows)
        if column.name in before
        else _found(column.name, Verdict.PASS, f"{column.name} is new: it has no earlier meaning to differ from")
        for column in challenger.features.columns
    ]


def _column(mine: Column, theirs: Column, candidate: Numbers, reference: Numbers, *, are_same_rows: bool) -> Finding:
    name, declared = mine.name, _declared(mine, theirs)
    if name not in candidate or name not in reference:
        return _found(name, Verdict.ERROR, f"the evaluation rows of a release have no numbers in {name}; write them")
    new, old = candidate[name], reference[name]
    shown = f"; declared: {declared}" if declared else ""
    if are_same_rows and not declared:
        return _found(name, Verdict.PASS, f"{name} has the same numbers in the same rows")
    held = [values[np.isfinite(values)] for values in (old, new)]
    rows: dict[str, float | int | str | None] = {"reference_rows": len(held[0]), "rows": len(held[1])}
    if min(map(len, held)) < FEWEST_ROWS:
        reason = f"{name} has too few numbers to tell what they mean; expected {FEWEST_ROWS} of each release{shown}"
        return _found(name, Verdict.INCONCLUSIVE, reason, rows)
    if not are_same_rows and np.ptp(held[0]) > 0.0 and _are_same(old, new):
        return _found(name, Verdict.FAIL, f"{name} is stale: row by row the reference, while other columns moved", rows)
    found = changed(*map(_thinned, held))
    if found is None:
        if declared:
            reason = f"{name} is declared to have changed ({declared}), and its numbers look as before"
            return _found(name, Verdict.INCONCLUSIVE, reason, rows)
        return _found(name, Verdict.PASS, f"{name}: no change of meaning is seen in {len(held[1]):,} rows", rows)
    rows |= {
        "kind": found.kind,
        "factor": found.factor,
        "offset": found.offset,
        "known": found.known,
        "known_before": found.known_before,
        "distance": found.distance,
        "distance_before": found.distance_before,
    }
    looks = "is" if found.kind in ("constant", "zeros") else "looks like"
    if declared and found.kind not in ("constant", "zeros"):
        return _found(name, Verdict.PASS, f"{name} {looks} {found.words}{shown}", rows)
    return _found(name, Verdict.FAIL, f"{name} {looks} {found.words}, and nobody declared it", rows)


def _declared(mine: Column, theirs: Column) -> str:
    """Return in words what the manifests say has changed; nothing when they say nothing."""
    pairs = [
        ("unit", theirs.unit, mine.unit),
        ("sign", theirs.sign, mine.sign),
        ("definition", theirs.definition, mine.definition),
    ]
    return ", ".join(f"{what} {old or 'none'} to {new or 'none'}" for what, old, new in pairs if old != new)


def _are_same(first: NDArray[np.float64] | None, second: NDArray[np.float64] | None) -> bool:
    return first is not None and second is not None and np.array_equal(first, second, equal_nan=True)


def _thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(values) <= MOST_ROWS:
        return values
    return values[np.linspace(0, len(values) - 1, MOST_ROWS).astype(np.int64)]


def _found(
    subject: str, verdict: Verdict, reason: str, numbers: Mapping[str, float | int | str | None] | None = None
) -> Finding:
    return Finding(Question.CONTRACT, f"{GATE}{SUBJECT_MARK}{subject}", verdict, reason, numbers or {})
