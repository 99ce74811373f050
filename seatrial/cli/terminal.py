"""Tables, lines and JSON on standard output, errors on standard error."""

from __future__ import annotations

import json
import os
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Width of what goes into a pipe or a file: one row stays one line.
_UNBOUNDED = 10_000
#: Headers of the columns that hold sentences; all others hold names, ids and figures, which are never broken.
SENTENCES = frozenset({"what", "reason"})
#: Below this width a column of sentences reads worse than labelled lines do.
_LEAST_SENTENCE = 24
_GAP = 2
#: Seconds after which, and between which, it is said how much is done.
PAUSE_S = 1.0
#: Seconds after which somebody wonders whether anything happens.
PATIENCE_S = 3.0
#: Style of what must not be overlooked.
ALARM = "bold red"


def printable(text: str) -> str:
    r"""Return `text` with every character that a terminal would obey instead of show written as its escape.

    Names and reasons come from people: an escape sequence in one of them could hide other lines.

    >>> printable("fine\nreason \x1b[2J")
    'fine\nreason \\x1b[2J'
    """
    return "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text)


class Progress:
    """Says on a terminal what takes long, once it has; a pipe and a file are told nothing."""

    def __init__(self) -> None:
        self._began = monotonic()

    def __call__(self, what: str) -> None:
        """Say what is done next, if a person has waited for `PATIENCE_S`."""
        waited = monotonic() - self._began
        if waited >= PATIENCE_S and sys.stderr.isatty():
            sys.stderr.write(f"{waited:6.0f} s  {what}\n")


def now_and_then(*, is_silent: bool) -> Callable[[str], None]:
    """Return what says on standard error how much is done, about once a second, unless it `is_silent`."""
    said_at = monotonic()

    def tell(done: str) -> None:
        nonlocal said_at
        if not is_silent and monotonic() - said_at >= PAUSE_S:
            said_at = monotonic()
            complain(done)

    return tell


def say(text: str, *, style: str = "") -> None:
    """Print `text` to standard output; a long line is wrapped by the terminal, never cut."""
    _console().print(Text(printable(text), style=style), soft_wrap=True)


def complain(text: str) -> None:
    """Print `text` to standard error."""
    _console(stderr=True).print(Text(printable(text)), soft_wrap=True)


def show_json(document: Mapping[str, Any], *, stderr: bool = False) -> None:
    """Print `document` as one JSON object."""
    stream = sys.stderr if stderr else sys.stdout
    stream.write(f"{json.dumps(document, indent=2, allow_nan=False)}\n")


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` as a table, or one labelled line for each cell where that would cut an id; sentences are folded."""
    out = _console()
    cells = [[" ".join(printable(cell).split()) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    least = 0
    for label, *column in zip(header, *cells, strict=True):
        flows = label in SENTENCES
        table.add_column(label, no_wrap=not flows, overflow="fold")
        least += _GAP + (_LEAST_SENTENCE if flows else max(map(cell_len, (label, *column))))
    if least > out.width:
        blocks = ("\n".join(f"{name}: {text}" for name, text in zip(header, row, strict=True) if text) for row in cells)
        out.print(Text("\n\n".join(blocks)), soft_wrap=True)
        return
    for row in cells:
        table.add_row(*map(Text, row))
    out.print(table)


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNBOUNDED
    return console
