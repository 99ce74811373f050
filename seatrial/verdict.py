"""Verdicts, ordered from the only one that widens exposure to the one that ends it."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable


class Verdict(IntEnum):
    """Answer to a question put to evidence."""

    PASS = 1  #: enough evidence, no harm beyond the margin
    INCONCLUSIVE = 2  #: not enough evidence yet
    ERROR = 3  #: the question could not be asked
    FAIL = 4  #: enough evidence, harm

    def __bool__(self) -> NoReturn:
        """Refuse ``if verdict:``, which reads as a pass and is true of a fail."""
        raise TypeError("a Verdict is not true or false; compare it with Verdict.PASS")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of `verdicts`; of none at all, INCONCLUSIVE, never PASS.

    >>> worst([Verdict.PASS, Verdict.ERROR]).name
    'ERROR'
    >>> worst([]).name
    'INCONCLUSIVE'
    """
    return max(verdicts, default=Verdict.INCONCLUSIVE)
