"""Whether every action of a policy is carried out downstream, and can be undone as the policy says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.plan import Catalogue
    from seatrial.release import Release


def catalogue(challenger: Release, champion: Release, ask: Catalogue) -> list[Finding]:
    """Return one finding on the actions of each release; the rollback target must be able to act too."""
    return [
        _known(f"catalogue{SUBJECT_MARK}{role}", release, ask.actions)
        for role, release in (("challenger", challenger), ("rollback target", champion))
    ]


def _known(subject: str, release: Release, known: Mapping[str, bool]) -> Finding:
    declared = release.policy.actions
    unknown = sorted(declared.keys() - known.keys())
    other = sorted(name for name in declared.keys() & known.keys() if declared[name].reversible != known[name])
    wrong = [
        *(f"{name} is carried out by nobody" for name in unknown),
        *(f"{name} is called {_undone(not known[name])} and is {_undone(known[name])}" for name in other),
    ]
    kept = ", ".join(f"{name} ({_undone(known[name])})" for name in sorted(declared.keys() & known.keys()))
    return Finding(
        Question.CONTRACT,
        subject,
        Verdict.FAIL if wrong else Verdict.PASS,
        "; ".join(wrong) or f"every action is in the catalogue: {kept}",
        {"actions": len(declared), "unknown": len(unknown), "contradicted": len(other)},
    )


def _undone(is_reversible: bool) -> str:
    return "reversible" if is_reversible else "irreversible"
