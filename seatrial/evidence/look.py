"""What one look at the logs returns, and how two looks add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np

from seatrial.evidence.counts import Arm, Frozen, Moments, ScoreTally, ShadowTally
from seatrial.evidence.table import ARMS, COUNTS, Key, Table
from seatrial.units import digest_of, format_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from seatrial.evidence.counts import Cell, Epoch, LabelCell, LabelTally, ScoreCell, ScoredPair, Tally, Wait

_PLACE = {name: at for at, name in enumerate(COUNTS)}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one look at the logs returns."""

    newest: datetime | None = None  #: time of the newest decision seen; None when there is none
    epochs: Mapping[int, Epoch] = field(default_factory=dict)  #: by snapshot number
    cells: Mapping[Cell, Tally] = field(default_factory=dict)  #: of guardrails that count units
    assigned: Mapping[tuple[int, Arm], int] = field(default_factory=dict)  #: units by snapshot number and arm
    shadow: ShadowTally = field(default_factory=ShadowTally)
    moments: Mapping[Cell, Moments] = field(default_factory=dict)  #: of guardrails that average amounts
    scores: Mapping[ScoreCell, ScoreTally] = field(default_factory=dict)
    pairs: Mapping[ScoredPair, int] = field(default_factory=dict)  #: shadowed requests that both releases answered
    waits: Mapping[Wait, int] = field(default_factory=dict)
    latencies: Mapping[tuple[Arm, int], int] = field(default_factory=dict)  #: by bucket of `LatencySketch`
    crossed: int = 0  #: units that were seen in both arms of one snapshot, which sticky assignment never does
    frozen: Frozen | None = None  #: None when the plan asks for nothing of it
    labels: Mapping[LabelCell, LabelTally] = field(default_factory=dict)
    rows: int = 0  #: decisions of the rollout that were read, shadow and repeated ones among them
    set_aside: Mapping[str, int] = field(default_factory=dict)  #: bad rows that nothing counts, by reason
    #: digest of the files or batches that were read, by log and date; no part of the evidence, which is what they say
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    #: plain data and digest, made once: a judged look is recorded, shown and stored
    _made: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", Table.of(self.cells))

    def __add__(self, other: Evidence) -> Evidence:
        times = [moment for moment in (self.newest, other.newest) if moment is not None]
        return Evidence(
            newest=max(times, default=None),
            epochs=self._agreed_epochs(other),
            cells=Table.of(self.cells) + Table.of(other.cells),
            assigned=_counted(self.assigned, other.assigned),
            shadow=self.shadow + other.shadow,
            moments=_added(self.moments, other.moments),
            scores=_added(self.scores, other.scores),
            pairs=_counted(self.pairs, other.pairs),
            waits=_counted(self.waits, other.waits),
            latencies=_counted(self.latencies, other.latencies),
            crossed=self.crossed + other.crossed,
            frozen=self._agreed_frozen(other),
            labels=_added(self.labels, other.labels),
            rows=self.rows + other.rows,
            set_aside=_counted(self.set_aside, other.set_aside),
            sources={**self.sources, **other.sources},
        )

    def _agreed_epochs(self, other: Evidence) -> Mapping[int, Epoch]:
        for number in self.epochs.keys() & other.epochs.keys():
            if self.epochs[number] != other.epochs[number]:
                raise ValueError(
                    f"snapshot {number}: share or stage differ between two looks"
                    f" ({self.epochs[number]} and {other.epochs[number]}); one of the logs is not of this rollout"
                )
        return {**self.epochs, **other.epochs}

    def _agreed_frozen(self, other: Evidence) -> Frozen | None:
        if self.frozen is not None and other.frozen is not None and self.frozen != other.frozen:
            raise ValueError(
                f"two looks with other thresholds ({self.frozen} and {other.frozen}): expected what was read off the"
                " champion before the rollout in both; count both looks from the same reference window"
            )
        return self.frozen or other.frozen

    @property
    def numbers(self) -> tuple[int, ...]:
        """The snapshot numbers of the epochs, in the order of time."""
        return tuple(sorted(self.epochs))

    @property
    def rho(self) -> NDArray[np.float64]:
        """The challenger's share in each epoch, in the order of time."""
        return np.array([self.epochs[n].share for n in self.numbers], dtype=np.float64)

    @property
    def stage(self) -> NDArray[np.int64]:
        """The index of the plan's stage in which each epoch was, in the order of time."""
        return np.array([self.epochs[n].stage for n in self.numbers], dtype=np.int64)

    def series(self, guardrail: str, column: str | None = None, value: str | None = None) -> Series:
        """Return the counts of one hypothesis as arrays over the epochs, in the order of time."""
        (one,) = self.series_of([Key(guardrail, column, value)])
        return one

    def series_of(self, keys: Iterable[Key]) -> list[Series]:
        """Return the counts of many hypotheses, for which the epochs are put in order once."""
        counts, totals = Table.of(self.cells).over(self.numbers).rows(keys)
        rho, stage = self.rho, self.stage
        return [Series(rho, stage, *each) for each in zip(counts, totals, strict=True)]

    def counts_of(self, keys: Iterable[Key], name: str) -> NDArray[np.int64]:
        """Return one count of many hypotheses, shape (hypotheses, 2, epochs), challenger first."""
        return Table.of(self.cells).over(self.numbers).counts(keys, _PLACE[name])

    def assigned_series(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return units assigned to challenger and champion and the challenger's share, by epoch."""
        return (
            np.array([self.assigned.get((n, Arm.CHALLENGER), 0) for n in self.numbers], dtype=np.int64),
            np.array([self.assigned.get((n, Arm.CHAMPION), 0) for n in self.numbers], dtype=np.int64),
            self.rho,
        )

    def histograms(self, size: int, column: str | None = None, value: str | None = None) -> Histograms:
        """Return the counts of scores of all units or one slice, by arm, count, epoch and bin of a grid of `size`."""
        at = {number: position for position, number in enumerate(self.numbers)}
        found = np.zeros((len(ARMS), 3, len(at), size), dtype=np.int64)
        for cell, tally in self.scores.items():
            if (cell.slice_column, cell.slice_value) == (column, value) and cell.snapshot_no in at:
                found[ARMS.index(cell.arm), :, at[cell.snapshot_no], cell.bin] += tally.values()
        challenger, champion, _ = (ArmHistogram(*found[arm]) for arm in range(len(ARMS)))
        return Histograms(self.rho, challenger, champion)

    def document(self) -> dict[str, Any]:
        """Return the evidence as plain data, in one order whatever the order of the looks; do not change it."""
        if "document" not in self._made:
            self._made["document"] = self._document()
        document: dict[str, Any] = self._made["document"]
        return document

    def _document(self) -> dict[str, Any]:
        return {
            "newest": None if self.newest is None else format_time(self.newest),
            "epochs": [[n, f"{self.epochs[n].share:.4f}", self.epochs[n].stage] for n in self.numbers],
            "cells": Table.of(self.cells).document(),
            "assigned": [[n, arm, self.assigned[n, arm]] for n, arm in sorted(self.assigned)],
            "shadow": self.shadow.values(),
            "moments": _rows(self.moments),
            "scores": _rows(self.scores),
            "pairs": [[*pair, count] for pair, count in sorted(self.pairs.items())],
            "waits": [[*wait, count] for wait, count in sorted(self.waits.items())],
            "latencies": [[*where, count] for where, count in sorted(self.latencies.items())],
            "crossed": self.crossed,
            "frozen": None if self.frozen is None else self.frozen.document(),
            "labels": _rows(self.labels),
            "rows": self.rows,
            "set_aside": [[reason, count] for reason, count in sorted(self.set_aside.items())],
        }

    @property
    def digest(self) -> str:
        """Digest that approvals and ledger records name."""
        if "digest" not in self._made:
            self._made["digest"] = digest_of(self.document())
        digest: str = self._made["digest"]
        return digest


@dataclass(frozen=True, slots=True)
class Series:
    """Counts of one hypothesis over the epochs."""

    rho: NDArray[np.float64]  #: one for each epoch
    stage: NDArray[np.int64]  #: one for each epoch
    counts: NDArray[np.int64]  #: shape (arms, epochs, counts), both in the order of `seatrial.evidence.table`
    totals: Sequence[Sequence[int]]  #: sums over the epochs, by arm and count

    def of(self, name: str) -> NDArray[np.int64]:
        """Return count `name` of challenger and champion, shape (2, epochs)."""
        return self.counts[:2, :, _PLACE[name]]

    @property
    def challenger(self) -> Mapping[str, NDArray[np.int64]]:
        """The challenger's counts by name, one for each epoch."""
        return {name: self.of(name)[0] for name in COUNTS}

    @property
    def champion(self) -> Mapping[str, NDArray[np.int64]]:
        """The champion's counts by name, one for each epoch."""
        return {name: self.of(name)[1] for name in COUNTS}

    def total(self, name: str) -> tuple[int, int]:
        """Return the sums of count `name` for challenger and champion."""
        at = _PLACE[name]
        return self.totals[0][at], self.totals[1][at]


@dataclass(frozen=True, slots=True)
class ArmHistogram:
    """Counts of scores of one arm, each of shape (epochs, bins)."""

    units: NDArray[np.int64]
    labelled: NDArray[np.int64]
    positive: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Histograms:
    """Counts of scores of both arms over the epochs."""

    rho: NDArray[np.float64]
    challenger: ArmHistogram
    champion: ArmHistogram


def merge(looks: Iterable[Evidence]) -> Evidence:
    """Return the sum of `looks`; of none, evidence of nothing."""
    total = Evidence()
    for look in looks:
        total = total + look
    return total


class _Counts(Protocol):
    def __add__(self, other: Self) -> Self: ...

    def values(self) -> list[int]: ...


_K = TypeVar("_K")
_C = TypeVar("_C", bound=_Counts)


def _added(one: Mapping[_K, _C], other: Mapping[_K, _C]) -> dict[_K, _C]:
    total = dict(one)
    for key, counts in other.items():
        total[key] = total[key] + counts if key in total else counts
    return total


def _counted(one: Mapping[_K, int], other: Mapping[_K, int]) -> dict[_K, int]:
    total = Counter(one)
    total.update(other)
    return dict(total)


def _rows(table: Mapping[Any, _Counts]) -> list[list[Any]]:
    def order(key: tuple[Any, ...]) -> list[Any]:
        return ["" if part is None else part for part in key]

    return [[*order(key), *table[key].values()] for key in sorted(table, key=order)]
