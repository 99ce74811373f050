"""Tallies of many hypotheses as one array, because a look judges hundreds of them over dozens of epochs at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from seatrial.evidence.counts import Arm, Cell, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

COUNTS = tuple(f.name for f in fields(Tally))
ARMS = (Arm.CHALLENGER, Arm.CHAMPION, Arm.SHADOW)
_AT = {arm: at for at, arm in enumerate(ARMS)}


class Key(NamedTuple):
    """A guardrail on all units (column and value None) or on one slice."""

    guardrail: str
    slice_column: str | None
    slice_value: str | None


def blank(hypotheses: int, epochs: int) -> NDArray[np.int64]:
    """Return zeros of shape (hypotheses, arms, epochs, counts).

    In memory all of one count lie together, for gates ask one count of all hypotheses.
    """
    return np.moveaxis(np.zeros((len(COUNTS), hypotheses, len(ARMS), epochs), dtype=np.int64), 0, -1)


class Table(Mapping[Cell, Tally]):
    """Tallies by cell; those of nothing but zeros are left out, so that equal counts are equal tables.

    The array has shape (hypotheses, arms, epochs, counts), the epochs in the order of `numbers`.
    """

    def __init__(self, keys: Iterable[Key], numbers: Iterable[int], array: NDArray[np.int64]) -> None:
        self.keys_at = {key: at for at, key in enumerate(keys)}
        self.numbers = tuple(numbers)
        self._number_at = {number: at for at, number in enumerate(self.numbers)}
        self.array = array
        self.array.flags.writeable = False

    @classmethod
    def of(cls, cells: Mapping[Cell, Tally]) -> Table:
        """Return `cells` as a table; one that is a table already as it is."""
        if isinstance(cells, Table):
            return cells
        keys = list(dict.fromkeys(Key(*cell[:3]) for cell in cells))
        numbers = sorted({cell.snapshot_no for cell in cells})
        table = cls(keys, numbers, blank(len(keys), len(numbers)))
        table.array.flags.writeable = True
        for cell, tally in cells.items():
            table.array[table._place(cell)] = tally.values()
        table.array.flags.writeable = False
        return table

    def __add__(self, other: Table) -> Table:
        keys = list(dict.fromkeys([*self.keys_at, *other.keys_at]))
        numbers = sorted({*self.numbers, *other.numbers})
        array = blank(len(keys), len(numbers))
        rows = {key: at for at, key in enumerate(keys)}
        columns = {number: at for at, number in enumerate(numbers)}
        for part in (self, other):
            where = np.ix_([rows[key] for key in part.keys_at], range(len(ARMS)), [columns[n] for n in part.numbers])
            array[where] += part.array
        return Table(keys, numbers, array)

    def over(self, numbers: tuple[int, ...]) -> Table:
        """Return the table over the epochs `numbers` and no others; an epoch that it does not have counts nothing."""
        if numbers == self.numbers:
            return self
        array = blank(len(self.keys_at), len(numbers))
        for position, number in enumerate(numbers):
            if number in self._number_at:
                array[:, :, position] = self.array[:, :, self._number_at[number]]
        return Table(self.keys_at, numbers, array)

    def rows(self, keys: Iterable[Key]) -> tuple[NDArray[np.int64], list[list[list[int]]]]:
        """Return the counts of hypotheses, shape (hypotheses, arms, epochs, counts), and their sums over the epochs."""
        found = self._taken(self.array, keys)
        # A third of the time that `sum` takes over an axis in the middle.
        totals: list[list[list[int]]] = np.einsum("haec->hac", found).tolist()
        return found, totals

    def counts(self, keys: Iterable[Key], place: int) -> NDArray[np.int64]:
        """Return one count of challenger and champion for many hypotheses, shape (hypotheses, 2, epochs)."""
        return self._taken(self.array[:, :2, :, place], keys)

    def _taken(self, counts: NDArray[np.int64], keys: Iterable[Key]) -> NDArray[np.int64]:
        """Return the rows of hypotheses, with zeros for one that the table does not have."""
        rows = np.array([self.keys_at.get(key, -1) for key in keys], dtype=np.int64)
        is_known = rows >= 0
        if is_known.all():
            return counts[rows]
        found = np.zeros((rows.size, *counts.shape[1:]), dtype=np.int64)
        found[is_known] = counts[rows[is_known]]
        return found

    def document(self) -> list[list[str | int]]:
        """Return the tallies as rows of plain data in the order of their cells: the cell, then the counts."""
        keys = [(key.guardrail, key.slice_column or "", key.slice_value or "") for key in self.keys_at]
        places = np.argwhere(self.array.any(axis=-1))
        counts = self.array[tuple(places.T)].tolist()
        rows = [
            [*keys[at], self.numbers[epoch], ARMS[arm], *each]
            for (at, arm, epoch), each in zip(places.tolist(), counts, strict=True)
        ]
        return sorted(rows, key=lambda row: row[:5])

    def __getitem__(self, cell: Cell) -> Tally:
        place = self._place(cell)
        if not self.array[place].any():
            raise KeyError(cell)
        return Tally(*self.array[place].tolist())

    def __iter__(self) -> Iterator[Cell]:
        keys = list(self.keys_at)
        for at, arm, epoch in np.argwhere(self.array.any(axis=-1)):
            guardrail, column, value = keys[at]
            yield Cell(guardrail, column, value, self.numbers[epoch], ARMS[arm])

    def __len__(self) -> int:
        return int(self.array.any(axis=-1).sum())

    def __repr__(self) -> str:
        return f"Table({dict(self)!r})"

    def _place(self, cell: Cell) -> tuple[int, int, int]:
        return self.keys_at[Key(*cell[:3])], _AT[cell.arm], self._number_at[cell.snapshot_no]
