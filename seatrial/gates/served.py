"""Whether the serving path promises the columns that both releases read: the rollback target must stay served too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.contracts import differences
from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from seatrial.contracts import FeatureContract
    from seatrial.release import Release


def served(challenger: Release, champion: Release, contract: FeatureContract) -> list[Finding]:
    """Return one finding on the columns of each release; a deprecated one may serve on, and not come anew."""
    return [
        _promised("challenger", challenger, contract, is_new=True),
        _promised("rollback target", champion, contract, is_new=False),
    ]


def _promised(role: str, release: Release, contract: FeatureContract, *, is_new: bool) -> Finding:
    offered = contract.by_name()
    columns = release.features.columns
    broken = [f"{each.name} is not served" for each in columns if each.name not in offered]
    broken += [
        f"{each.name}: {difference.what}"
        for each in columns
        if each.name in offered
        for difference in differences(each, offered[each.name])
        if difference.is_breaking
    ]
    leaving = [each.name for each in columns if each.name in offered and offered[each.name].deprecated]
    name = f"contract {contract.name} {contract.contract.version} of {contract.contract.owner}"
    if broken:
        verdict, reason = Verdict.FAIL, f"{'; '.join(broken)}; by {name}"
    elif leaving and is_new:
        verdict, reason = Verdict.INCONCLUSIVE, f"reads deprecated columns: {', '.join(leaving)}; by {name}"
    else:
        noted = f"; deprecated, and still served: {', '.join(leaving)}" if leaving else ""
        verdict, reason = Verdict.PASS, f"{len(columns)} columns as {name} promises them{noted}"
    numbers = {"columns": len(columns), "broken": len(broken), "deprecated": len(leaving)}
    return Finding(Question.CONTRACT, f"served{SUBJECT_MARK}{role}", verdict, reason, numbers)
