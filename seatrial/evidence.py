"""Mergeable summaries of one look at the logs: counts by metric, slice, allocation epoch and arm.

Evidence is a commutative monoid under ``+``: looks at disjoint parts of the logs add up to a look at the whole, in
any order. Everything that judges is a pure function of it, which is what makes a verdict repeatable.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seatrial.units import digest_of, format_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from numpy.typing import NDArray


class Arm(StrEnum):
    """Which release a unit was assigned to, whoever answered in the end."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of units of one metric, slice, epoch and arm."""

    units: int = 0  #: units assigned
    bad: int = 0  #: of these, reported bad by now
    matured: int = 0  #: older than the maturity window, so that both answers had time to arrive
    matured_bad: int = 0  #: of the matured, reported bad within the window
    labelled: int = 0  #: of the matured, with a label of either value within the window

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Tally)))


_NOTHING = Tally()
_COUNTS = tuple(f.name for f in fields(Tally))


class Cell(NamedTuple):
    """Where a tally belongs: one hypothesis, one allocation epoch, one arm."""

    guardrail: str
    slice_column: str | None
    slice_value: str | None
    snapshot_no: int
    arm: Arm


@dataclass(frozen=True, slots=True)
class ShadowTally:
    """Counts of units that both releases scored, the challenger in shadow."""

    units: int = 0  #: units with both answers logged
    challenger_failed: int = 0  #: the challenger alone timed out, erred or broke its contract
    champion_failed: int = 0  #: the champion alone did
    both_failed: int = 0  #: both did, on the same unit
    compared: int = 0  #: units on which both answered
    flipped: int = 0  #: of the compared, the challenger recommends another action

    def __add__(self, other: ShadowTally) -> ShadowTally:
        return ShadowTally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(ShadowTally)))


class Epoch(NamedTuple):
    """A period in which the challenger's assignment probability was constant and known."""

    share: float  #: in (0, 1)
    stage: int  #: index of the plan's stage in which it was set


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one look at the logs returns."""

    newest: datetime | None = None  #: time of the newest decision seen; None when there is none
    epochs: Mapping[int, Epoch] = field(default_factory=dict)  #: by snapshot number
    cells: Mapping[Cell, Tally] = field(default_factory=dict)
    assigned: Mapping[tuple[int, Arm], int] = field(default_factory=dict)  #: units by snapshot number and arm
    shadow: ShadowTally = ShadowTally()

    def __add__(self, other: Evidence) -> Evidence:
        for number in self.epochs.keys() & other.epochs.keys():
            if self.epochs[number] != other.epochs[number]:
                raise ValueError(
                    f"snapshot {number}: share or stage differ between two looks"
                    f" ({self.epochs[number]} and {other.epochs[number]}); one of the logs is not of this rollout"
                )
        cells: defaultdict[Cell, Tally] = defaultdict(Tally, self.cells)
        for cell, tally in other.cells.items():
            cells[cell] += tally
        assigned: defaultdict[tuple[int, Arm], int] = defaultdict(int, self.assigned)
        for key, units in other.assigned.items():
            assigned[key] += units
        times = [moment for moment in (self.newest, other.newest) if moment is not None]
        return Evidence(
            newest=max(times, default=None),
            epochs={**self.epochs, **other.epochs},
            cells=dict(cells),
            assigned=dict(assigned),
            shadow=self.shadow + other.shadow,
        )

    def series(self, guardrail: str, column: str | None = None, value: str | None = None) -> Series:
        """Return the counts of one hypothesis as arrays over the epochs, in the order of time."""
        numbers = sorted(self.epochs)

        def counts(arm: Arm) -> dict[str, NDArray[np.int64]]:
            tallies = [self.cells.get(Cell(guardrail, column, value, n, arm), _NOTHING) for n in numbers]
            return {name: np.array([getattr(t, name) for t in tallies], dtype=np.int64) for name in _COUNTS}

        return Series(
            rho=np.array([self.epochs[n].share for n in numbers], dtype=np.float64),
            stage=np.array([self.epochs[n].stage for n in numbers], dtype=np.int64),
            challenger=counts(Arm.CHALLENGER),
            champion=counts(Arm.CHAMPION),
        )

    def assigned_series(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return units assigned to challenger and champion and the challenger's share, by epoch."""
        numbers = sorted(self.epochs)
        return (
            np.array([self.assigned.get((n, Arm.CHALLENGER), 0) for n in numbers], dtype=np.int64),
            np.array([self.assigned.get((n, Arm.CHAMPION), 0) for n in numbers], dtype=np.int64),
            np.array([self.epochs[n].share for n in numbers], dtype=np.float64),
        )

    def document(self) -> dict[str, Any]:
        """Return the evidence as plain data, in one order whatever the order of the looks."""
        return {
            "newest": None if self.newest is None else format_time(self.newest),
            "epochs": [[n, f"{self.epochs[n].share:.4f}", self.epochs[n].stage] for n in sorted(self.epochs)],
            "cells": [
                [*("" if part is None else part for part in cell), *_values(self.cells[cell])]
                for cell in sorted(self.cells, key=_cell_order)
            ],
            "assigned": [[n, arm, self.assigned[n, arm]] for n, arm in sorted(self.assigned)],
            "shadow": _values(self.shadow),
        }

    @property
    def digest(self) -> str:
        """Digest that approvals and ledger records name."""
        return digest_of(self.document())


@dataclass(frozen=True, slots=True)
class Series:
    """Counts of one hypothesis over the epochs; all arrays have one entry per epoch."""

    rho: NDArray[np.float64]
    stage: NDArray[np.int64]
    challenger: Mapping[str, NDArray[np.int64]]
    champion: Mapping[str, NDArray[np.int64]]

    def total(self, name: str) -> tuple[int, int]:
        """Return the sums of count `name` for challenger and champion."""
        return int(self.challenger[name].sum()), int(self.champion[name].sum())


def merge(looks: Iterable[Evidence]) -> Evidence:
    """Return the sum of `looks`; of none, evidence of nothing."""
    total = Evidence()
    for look in looks:
        total = total + look
    return total


def _values(tally: Tally | ShadowTally) -> list[int]:
    return [getattr(tally, f.name) for f in fields(tally)]


def _cell_order(cell: Cell) -> tuple[str, str, str, int, str]:
    return (cell.guardrail, cell.slice_column or "", cell.slice_value or "", cell.snapshot_no, cell.arm)
