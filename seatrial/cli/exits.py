"""Exit codes, divided like the exceptions by what the caller does next."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from seatrial.errors import (
    ConflictError,
    InvalidDocumentError,
    NotFoundError,
    RefusedError,
    TamperedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.errors import SeatrialError


class ExitCode(IntEnum):
    """What became of a command."""

    DONE = 0
    REFUSED = 1
    BAD_INPUT = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    TAMPERED = 5
    ROLLBACK_INCOMPLETE = 6
    UNEXPECTED = 70  #: EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130  #: the shell's convention for Ctrl-C


#: One line for each exit code, as help and reference show it.
MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.DONE: "done; status, history and explain answer with 0 whatever the verdict is",
    ExitCode.REFUSED: "refused, or not possible in the present state; read why",
    ExitCode.BAD_INPUT: "bad input: a file, an option or an argument; nothing was written",
    ExitCode.NOT_FOUND: "a name or id is unknown, or fits more than one",
    ExitCode.UNAVAILABLE: "a part did not answer; wait and try again",
    ExitCode.TAMPERED: "a record is not what was recorded; call the person who owns the ledger",
    ExitCode.ROLLBACK_INCOMPLETE: "the rollback is written, but was not seen on every router; act now",
    ExitCode.UNEXPECTED: "a defect of seatrial itself; look at `seatrial status` before you trust anything",
    ExitCode.INTERRUPTED: "interrupted; what was written stays",
}

#: Most exact class first.
_OF_ERRORS: tuple[tuple[type[SeatrialError], str, ExitCode], ...] = (
    (InvalidDocumentError, "invalid_document", ExitCode.BAD_INPUT),
    (ConflictError, "conflict", ExitCode.REFUSED),
    (RefusedError, "refused", ExitCode.REFUSED),
    (NotFoundError, "not_found", ExitCode.NOT_FOUND),
    (UnavailableError, "unavailable", ExitCode.UNAVAILABLE),
    (TamperedError, "tampered", ExitCode.TAMPERED),
)


def classify(error: SeatrialError) -> tuple[str, ExitCode]:
    """Return the kind of `error`, as JSON names it, and its exit code.

    >>> classify(ConflictError("moved"))
    ('conflict', <ExitCode.REFUSED: 1>)
    """
    named = ((kind, code) for of, kind, code in _OF_ERRORS if isinstance(error, of))
    return next(named, ("unexpected", ExitCode.UNEXPECTED))
