"""Whether the cut-offs act as often on the new scores as the champion does, and which ones would.

Cut-offs belong to one model: a better one with another scale of scores turns them into another policy. What is judged
is the challenger as it would serve; what is proposed are cut-offs at which each action, or a stronger one, is certain
but for `delta` to be taken no more often than the champion takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.release import DEFAULT
from seatrial.stats.bounds import mean_limits
from seatrial.stats.thresholds import certified_cut_off
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from seatrial.plan.asks import CutOffs
    from seatrial.plan.conditions import Margin
    from seatrial.release import Release

    Names = NDArray[np.object_]

GATE = "cut_offs"
#: Chance that any action whose rate changes beyond its bound passes, and that any within fails; shared by all of them.
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Acted:
    """Rows as both releases act on them."""

    segments: Names  #: of the challenger
    scores: NDArray[np.float64]  #: of the challenger
    mine: Names  #: actions of the challenger
    theirs: Names  #: actions of the champion


def cut_offs(
    challenger: Release, champion: Release, acted: Acted, ask: CutOffs, groups: NDArray[np.int64] | None
) -> list[Finding]:
    """Return a finding for each segment and action, and one that names the proposed cut-offs when one is no PASS."""
    segments = challenger.segments.names()
    alpha = LEVEL / (len(segments) * len(ask.max_change))
    found = [
        _rate(segment, action, margin, acted, groups, alpha=alpha)
        for segment in segments
        for action, margin in ask.max_change.items()
    ]
    if all(each.verdict is Verdict.PASS for each in found):
        return found
    return [*found, _proposal(challenger, champion, acted, ask)]


def _rate(
    segment: str, action: str, margin: Margin, acted: Acted, groups: NDArray[np.int64] | None, *, alpha: float
) -> Finding:
    subject = f"{GATE}{SUBJECT_MARK}{segment}{SUBJECT_MARK}{action}"
    is_in = acted.segments == segment
    rows = int(np.count_nonzero(is_in))
    if not rows:
        return Finding(Question.CONTRACT, subject, Verdict.INCONCLUSIVE, f"no row is in segment {segment}")
    mine, theirs = (names[is_in] == action for names in (acted.mine, acted.theirs))
    before = float(theirs.mean())
    allowed = margin.value * (before if margin.is_relative else 1.0)
    change = mean_limits(
        mine.astype(np.float64) - theirs, None if groups is None else groups[is_in], alpha=min(2.0 * alpha, 0.5)
    )
    numbers = {
        "rows": rows,
        "challenger": float(mine.mean()),
        "champion": before,
        "change": change.estimate,
        "change_low": change.low,
        "change_high": change.high,
        "allowed": allowed,
        "level": LEVEL,
    }
    seen = f"{segment}: {action} on {mine.mean():.1%} of {rows:,} rows, the champion on {before:.1%}"
    if change.low >= -allowed and change.high <= allowed:
        verdict, said = Verdict.PASS, f"{seen}; a change of more than {margin} is ruled out"
    elif change.low > allowed or change.high < -allowed:
        verdict, said = Verdict.FAIL, f"{seen}, a change of more than {margin}"
    else:
        verdict, said = Verdict.INCONCLUSIVE, f"{seen}; too few to tell whether the change is within {margin}"
    return Finding(Question.CONTRACT, subject, verdict, said, numbers)


def _proposal(challenger: Release, champion: Release, acted: Acted, ask: CutOffs) -> Finding:
    proposed = propose(challenger, champion, acted, delta=ask.delta)
    subject = f"{GATE}{SUBJECT_MARK}proposal"
    if proposed is None:
        reason = "no cut-offs can be certified on so few rows; evaluate the release on more"
        return Finding(Question.CONTRACT, subject, Verdict.INCONCLUSIVE, reason, {"rows": len(acted.scores)})
    said = "; ".join(
        f"{segment}: " + ", ".join(f"{action} from {at:.6g}" for action, at in each)
        for segment, each in proposed.items()
    )
    numbers: dict[str, float | int | str | None] = {
        f"{segment} {action}": at for segment, each in proposed.items() for action, at in each
    }
    # The verdict is that of the rates: a proposal is no evidence for the cut-offs that are there.
    return Finding(
        Question.CONTRACT,
        subject,
        Verdict.INCONCLUSIVE,
        f"cut-offs that act no more often than the champion, but for a chance of {ask.delta:g}: {said}",
        {**numbers, "delta": ask.delta},
        is_binding=False,
    )


def propose(
    challenger: Release, champion: Release, acted: Acted, *, delta: float
) -> Mapping[str, Sequence[tuple[str, float]]] | None:
    """Return cut-offs for the challenger's scores by list of the policy, highest first; None when none is certain.

    Each action or a stronger one (one that stands above it in the champion's list) is taken by at most as many requests
    as the champion takes it on in the sample; `delta` is shared evenly, so that all hold together with probability
    1 - delta at least. The champion's rate is taken as known. An action that cannot be told from a stronger one at that
    certainty is left out.
    """
    ordered = {
        name: [each.action for each in champion.policy.cut_offs.get(name, champion.policy.cut_offs[DEFAULT])]
        for name in challenger.policy.cut_offs
    }
    questions = sum(map(len, ordered.values()))
    if not questions:
        return None
    proposed = {}
    for name, actions in ordered.items():
        is_in = _judged_by(name, challenger, acted.segments)
        found = _certified(acted, is_in, actions, challenger.output.range[1], delta / questions)
        if not found:
            return None
        proposed[name] = found
    return proposed


def _certified(
    acted: Acted, is_in: NDArray[np.bool_], actions: Sequence[str], greatest: float, delta: float
) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    # One action may stand twice in a row; the lower rule is the one that says how often it is taken.
    for at, _ in enumerate(actions):
        reached = np.isin(acted.theirs[is_in], list(actions[: at + 1]))
        rate = float(reached.mean()) if reached.size else 0.0
        cut_off = certified_cut_off(acted.scores[is_in], rate=rate, delta=delta) if 0.0 < rate < 1.0 else None
        if cut_off is not None and cut_off <= greatest and (not found or cut_off < found[-1][1]):
            found.append((actions[at], cut_off))
    return [list(same)[-1] for _, same in groupby(found, key=lambda each: each[0])]


def _judged_by(name: str, challenger: Release, segments: Names) -> NDArray[np.bool_]:
    """Return which rows the list `name` of the policy judges: its segment's, or those without a list of their own."""
    if name != DEFAULT:
        return np.asarray(segments == name, dtype=np.bool_)
    own = [each for each in challenger.policy.cut_offs if each != DEFAULT]
    return np.asarray(~np.isin(segments, own), dtype=np.bool_)
