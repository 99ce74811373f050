"""Exceptions of seatrial, divided by what the caller does next.

An exception means that a question could not be answered; a verdict is an answer. A failing gate never raises.

SeatrialError
|-- InvalidDocumentError    mend the file, then send it again
|-- RefusedError            the request is understood and not allowed in this state; read why
|   `-- ConflictError       somebody else moved first: read again, then decide again
|-- NotFoundError           the name is unknown; the message lists what is known
|-- UnavailableError        a part did not answer: wait and retry
`-- TamperedError           a record or artifact is not what was recorded: call a person
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class SeatrialError(Exception):
    """Base of every exception that seatrial raises on purpose."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in one document."""

    #: ``file:line`` and dotted path, as exact as the reader can be told
    place: str
    #: what was found and what was expected
    finding: str
    #: what to do about it
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.finding}; {self.remedy}"


class InvalidDocumentError(SeatrialError):
    """A manifest, plan or setting is refused; `problems` holds every reason at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        count = len(self.problems)
        noun = "problem" if count == 1 else "problems"
        super().__init__("\n".join([f"{count} {noun}, nothing was written", *map(str, self.problems)]))


class RefusedError(SeatrialError):
    """The request is not allowed in the present state."""


class ConflictError(RefusedError):
    """Another actor moved first; re-read before deciding again."""


class NotFoundError(SeatrialError):
    """A name does not exist."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> NotFoundError:
        """Return the error for an unknown `name`, with what is known and the closest spelling."""
        names = sorted(known)
        close = get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"
        return cls(f"{kind} {name!r}: not found; {hint}")


class UnavailableError(SeatrialError):
    """A part that had to answer did not; the question stays open."""


class TamperedError(SeatrialError):
    """Stored content differs from its recorded digest."""
