"""What a challenger changes of its champion, told by comparing the digests of their parts."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.release import Release


class Change(StrEnum):
    """One kind of change; a release may make several at once."""

    POLICY = "policy"  #: cut-offs, actions or authority: the scores are those of the champion
    ROUTING = "routing"  #: segments: the scores are those of the champion
    SCHEMA = "schema"  #: what is said of the features that the same model reads
    RUNTIME = "runtime"  #: what runs the same model, and what it may cost
    MODEL = "model"  #: the model, what its score means, or the evidence of its training


#: Every part that has a digest of its own, with the kind of change that another digest is.
KINDS: Mapping[str, Change] = {
    "model": Change.MODEL,
    "training": Change.MODEL,
    "evaluation": Change.MODEL,
    "output": Change.MODEL,
    "features": Change.SCHEMA,
    "runtime": Change.RUNTIME,
    "limits": Change.RUNTIME,
    "policy": Change.POLICY,
    "segments": Change.ROUTING,
}
#: Changes that leave every score as it was, so that nothing can be learnt from answers to copies of requests.
KEEPS_SCORES = frozenset({Change.POLICY, Change.ROUTING})


def changed_parts(challenger: Release, champion: Release) -> tuple[str, ...]:
    """Return the parts whose digest is another one than the champion's, in the order of the manifest."""
    mine, theirs = challenger.components(), champion.components()
    return tuple(part for part in mine if mine[part] != theirs[part])


def changes(challenger: Release, champion: Release) -> frozenset[Change]:
    """Return the kinds of change between two releases; of equal parts none, whatever their names are."""
    return frozenset(KINDS[part] for part in changed_parts(challenger, champion))


def keeps_scores(challenger: Release, champion: Release) -> bool:
    """Return whether the challenger surely scores every unit as the champion does."""
    return changes(challenger, champion) <= KEEPS_SCORES


def described(challenger: Release, champion: Release) -> str:
    """Return in words what the challenger changes."""
    parts = changed_parts(challenger, champion)
    if not parts:
        return "no part is another one than the champion's"
    kinds = ", ".join(sorted(changes(challenger, champion)))
    return f"a change of {kinds}: other {', '.join(parts)} than the champion's"
