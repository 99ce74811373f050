"""What the rows of a count mean: from keys and numbers to evidence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from seatrial.adapters.counting.declaration import ALWAYS, NEVER
from seatrial.adapters.counting.expressions import NOT_COUNTED, NOT_GROUPED
from seatrial.adapters.counting.statements import (
    LABEL_REASONS,
    REFUSED_LIMIT,
    oldest_step,
    whole,
)
from seatrial.errors import UnavailableError
from seatrial.evidence import (
    WAIT_STEPS,
    Arm,
    Cell,
    Epoch,
    Evidence,
    Frozen,
    Key,
    LabelCell,
    LabelTally,
    Moments,
    ScoreCell,
    ScoredPair,
    ScoreTally,
    ShadowTally,
    Table,
    Wait,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from seatrial.adapters.counting.declaration import Code, Declaration, Flags

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: How the two arms are numbered in a key.
_ARMS = (Arm.CHALLENGER, Arm.CHAMPION)


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted, in the order of the statements; counts of disjoint units add up, and can be taken off again."""

    #: number of units, then the sums, by the keys of `Declaration.keys`
    groups: Mapping[tuple[float, ...], tuple[int, ...]] = field(default_factory=dict)
    #: number of pairs by answered, copied, flipped, both bins and the label
    pairs: Mapping[tuple[int, ...], int] = field(default_factory=dict)
    newest_us: int | None = None
    crossed: int = 0
    rows: int = 0  #: decisions of the rollout that were read
    set_aside: Mapping[str, int] = field(default_factory=dict)  #: of these, by the rule that they break

    def plus(self, other: Counted, sign: int = 1) -> Counted:
        """Return the counts of both; with `sign` -1, those of `other` taken off."""
        groups = dict(self.groups)
        for key, numbers in other.groups.items():
            before = groups.get(key, (0,) * len(numbers))
            groups[key] = tuple(a + sign * b for a, b in zip(before, numbers, strict=True))
            if not groups[key][0]:
                del groups[key]
        pairs = Counter(self.pairs)
        for pair, count in other.pairs.items():
            pairs[pair] += sign * count
        aside = Counter(self.set_aside)
        for reason, count in other.set_aside.items():
            aside[reason] += sign * count
        return Counted(
            groups,
            {pair: count for pair, count in pairs.items() if count},
            max((n for n in (self.newest_us, other.newest_us) if n is not None), default=None),
            self.crossed + sign * other.crossed,
            self.rows + sign * other.rows,
            {reason: count for reason, count in aside.items() if count},
        )


def aged(declaration: Declaration, counted: Counted, *, now: datetime) -> Counted:
    """Return the counts of an earlier look with those who were decided before the window in one group, as at `now`."""
    groups: dict[tuple[float, ...], tuple[int, ...]] = {}
    oldest = {
        declaration.keys.index(f"decided_{at}"): oldest_step(group.maturity_us, whole(now))
        for at, group in enumerate(declaration.awaited)
    }
    for key, numbers in counted.groups.items():
        old = list(key)
        for at, step in oldest.items():
            if old[at] != NOT_GROUPED:
                old[at] = max(old[at], step)
        before = groups.get(tuple(old))
        groups[tuple(old)] = numbers if before is None else tuple(map(add, before, numbers))
    return replace(counted, groups=groups)


def evidence_of(declaration: Declaration, counted: Counted, frozen: Frozen | None, *, now: datetime) -> Evidence:
    """Return the evidence that the counts are.

    Raises UnavailableError when one snapshot has several shares or stages: two rollouts write under one name.
    """
    return _Assembly(declaration, counted, frozen, now).evidence()


class _Assembly:
    """Puts the rows of each grouping where they belong."""

    def __init__(self, declaration: Declaration, counted: Counted, frozen: Frozen | None, now: datetime) -> None:
        self._declaration = declaration
        self._plan = declaration.plan
        self._counted = counted
        self._frozen = frozen
        self._now = now
        self._at = {key: at for at, key in enumerate(declaration.keys)}
        # The share alone is no whole number, and only the epochs ask for it.
        self._keys = (
            np.array(list(counted.groups), dtype=np.float64).reshape(-1, len(declaration.keys)).astype(np.int64)
        )
        self._units = np.array([numbers[0] for numbers in counted.groups.values()], dtype=np.int64)
        self._sums = [numbers[1:] for numbers in counted.groups.values()]
        self._slices = [self._column(f"slice_{at}") for at, _ in enumerate(declaration.columns)]

    def evidence(self) -> Evidence:
        epochs = self._epochs()
        newest = self._counted.newest_us
        scores = self._scores()
        return Evidence(
            newest=None if newest is None else _EPOCH + timedelta(microseconds=newest),
            epochs=epochs,
            cells=self._cells(sorted(epochs)),
            assigned=self._assigned(),
            shadow=self._shadow(),
            moments=self._moments(),
            scores=scores,
            pairs=self._pairs(),
            waits=self._waits(),
            latencies=self._latencies(),
            crossed=self._counted.crossed,
            frozen=self._frozen,
            labels=self._labels(),
            rows=self._counted.rows,
            set_aside=self._set_aside(),
        )

    def _column(self, key: str) -> NDArray[np.int64]:
        column: NDArray[np.int64] = self._keys[:, self._at[key]]
        return column

    def _rows(self, key: str, slice_at: int | None = None) -> NDArray[np.intp]:
        """Return the rows that are grouped by `key`, and by no slice or by one."""
        chosen = self._column(key) != NOT_GROUPED
        for at, column in enumerate(self._slices):
            chosen &= (column >= 0) if at == slice_at else (column == NOT_GROUPED)
        return np.flatnonzero(chosen)

    def _epochs(self) -> dict[int, Epoch]:
        epochs: dict[int, Epoch] = {}
        number_at, share_at, stage_at = (self._at[key] for key in ("snapshot_no", "share", "stage"))
        for keys in self._counted.groups:
            if keys[share_at] == NOT_GROUPED:
                continue
            number, epoch = int(keys[number_at]), Epoch(keys[share_at], int(keys[stage_at]))
            if epochs.setdefault(number, epoch) != epoch:
                raise UnavailableError(
                    f"decision log, snapshot {number}: found several shares or stages; expected one; find out who else"
                    " writes this log"
                )
        return epochs

    # --- tallies ---

    def _cells(self, numbers: Sequence[int]) -> Table:
        hypotheses = [key for guardrail in self._plan.guardrails for key in self._hypotheses(guardrail.name)]
        at = {key: place for place, key in enumerate(hypotheses)}
        array = np.zeros((len(hypotheses), 3, len(numbers), 7), dtype=np.int64)
        for code_at, code in enumerate(self._declaration.codes):
            for slice_at in (None, *code.slices):
                rows = self._rows(f"code_{code_at}", slice_at)
                epochs = np.searchsorted(np.array(numbers), self._column("snapshot_no")[rows])
                for index in code.guardrails:
                    keys = self._keys_of(index, slice_at)
                    if keys is None:
                        continue
                    places = np.array([at[key] for key in keys])
                    where = places[0 if slice_at is None else self._slices[slice_at][rows]]
                    flagged = self._tallied(self._declaration.flags[index], code, self._column(f"code_{code_at}")[rows])
                    np.add.at(
                        array,
                        (where, self._column("arm")[rows], epochs),
                        (flagged * self._units[rows]).T,
                    )
        return Table(hypotheses, numbers, array)

    def _hypotheses(self, guardrail: str) -> Iterator[Key]:
        yield Key(guardrail, None, None)
        (declared,) = [each for each in self._plan.guardrails if each.name == guardrail]
        for column in declared.slices:
            for value in self._plan.slices[column]:
                yield Key(guardrail, column, value)

    def _keys_of(self, index: int, slice_at: int | None) -> list[Key] | None:
        """Return the hypotheses of a guardrail in one slice column; None when it is not judged by it."""
        guardrail = self._plan.guardrails[index]
        if slice_at is None:
            return [Key(guardrail.name, None, None)]
        column = self._declaration.columns[slice_at]
        if column not in guardrail.slices:
            return None
        return [Key(guardrail.name, column, value) for value in self._plan.slices[column]]

    @staticmethod
    def _tallied(flags: Flags, code: Code, codes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each row which fields of `Tally` its units count in, shape (fields, rows)."""

        def holds(bit: str) -> NDArray[np.bool_]:
            if bit in (ALWAYS, NEVER):
                return np.full(codes.shape, bit == ALWAYS)
            return (codes & code.value(bit)) > 0

        inside, bad, within = holds(flags.inside), holds(flags.bad), holds(flags.bad_within)
        matured, labelled, hidden = holds(flags.matured), holds(flags.labelled), holds(flags.hidden)
        seen = inside & matured & labelled & ~hidden
        return np.array(
            [
                inside,
                inside & bad,
                inside & matured,
                inside & matured & within,
                seen,
                seen & ~bad,
                inside & matured & hidden,
            ]
        )

    def _assigned(self) -> dict[tuple[int, Arm], int]:
        assigned: Counter[tuple[int, Arm]] = Counter()
        rows = self._rows("code_0")
        for number, arm, units in self._tuples(rows, "snapshot_no", "arm"):
            assigned[number, _ARMS[arm]] += units
        return dict(assigned)

    def _tuples(self, rows: NDArray[np.intp], *keys: str) -> Iterator[tuple[int, ...]]:
        """Return the keys and the number of units of each row."""
        columns = [self._column(key)[rows].tolist() for key in keys]
        return zip(*columns, self._units[rows].tolist(), strict=True)

    def _moments(self) -> dict[Cell, Moments]:
        moments: dict[Cell, Moments] = {}
        measures = self._declaration.measures
        for code_at, code in enumerate(self._declaration.codes):
            for index in (each for each in code.guardrails if each in self._declaration.means):
                first = measures.index(f"units_{index}")
                last = first + len(self._declaration.sums(index))
                for slice_at in (None, *code.slices):
                    keys = self._keys_of(index, slice_at)
                    if keys is None:
                        continue
                    for row in self._rows(f"code_{code_at}", slice_at).tolist():
                        key = keys[0 if slice_at is None else int(self._slices[slice_at][row])]
                        number, arm = (int(self._column(each)[row]) for each in ("snapshot_no", "arm"))
                        found = self._moment(self._sums[row][first:last])
                        if found.units:
                            cell = Cell(*key, number, _ARMS[arm])
                            moments[cell] = moments.get(cell, Moments()) + found
        return moments

    @staticmethod
    def _moment(sums: Sequence[int]) -> Moments:
        if len(sums) == len(Moments.__slots__):
            return Moments(*sums)
        units, nonzero, k, kk = sums
        return Moments(units, nonzero, k, units, kk, k, units)

    # --- the rest ---

    def _waits(self) -> dict[Wait, int]:
        found: Counter[Wait] = Counter()
        for at, group in enumerate(self._declaration.awaited):
            now = whole(self._now) * WAIT_STEPS // group.maturity_us
            rows = self._rows(f"waiting_{at}")
            keys = ("snapshot_no", "arm", f"waiting_{at}", f"decided_{at}", f"delay_{at}")
            for number, arm, waiting, decided, late, units in self._tuples(rows, *keys):
                delay = -1 if late == NOT_COUNTED else late
                # Both moments are cut to whole steps: the unit is at least this old.
                age = min(max(now - decided - 1, delay, 0), WAIT_STEPS)
                for place, index in enumerate(group.guardrails):
                    if waiting & (1 << 2 * place):
                        is_bad = bool(waiting & (2 << 2 * place))
                        name = self._plan.guardrails[index].name
                        found[Wait(name, number, _ARMS[arm], is_bad, age, delay)] += units
        return dict(found)

    def _scores(self) -> dict[ScoreCell, ScoreTally]:
        if self._plan.scores is None:
            return {}
        found: dict[ScoreCell, ScoreTally] = {}
        for column in (None, *self._plan.scores.slices):
            slice_at = None if column is None else self._declaration.columns.index(column)
            rows = self._rows("score_bin", slice_at)
            places = np.zeros(rows.size, dtype=np.int64) if slice_at is None else self._slices[slice_at][rows]
            keys = ("snapshot_no", "arm", "score_bin", "score_label")
            for place, (number, arm, at, label, units) in zip(places.tolist(), self._tuples(rows, *keys), strict=True):
                if at != NOT_COUNTED:
                    value = None if column is None else self._plan.slices[column][place]
                    cell = ScoreCell(column, value, number, _ARMS[arm], at)
                    tally = ScoreTally(units, units * (label >= 0), units * (label == 1))
                    found[cell] = found.get(cell, ScoreTally()) + tally
        return found

    def _latencies(self) -> dict[tuple[Arm, int], int]:
        rows = self._rows("latency")
        return {
            (_ARMS[arm], bucket): units
            for arm, bucket, units in self._tuples(rows, "arm", "latency")
            if bucket != NOT_COUNTED
        }

    def _labels(self) -> dict[LabelCell, LabelTally]:
        found: dict[LabelCell, LabelTally] = {}
        for at, label in enumerate(self._declaration.maturities):
            rows = self._rows(f"quality_{at}")
            for arm, quality, units in self._tuples(rows, "arm", f"quality_{at}"):
                if quality != NOT_COUNTED:
                    repeated, contradictory, late = (units * bool(quality & (1 << place)) for place in range(3))
                    cell = LabelCell(label, _ARMS[arm])
                    found[cell] = found.get(cell, LabelTally()) + LabelTally(units, repeated, contradictory, late)
        return found

    def _set_aside(self) -> dict[str, int]:
        found = Counter(self._counted.set_aside)
        for at, _ in enumerate(self._declaration.maturities):
            for refused, units in self._tuples(self._rows(f"refused_{at}"), f"refused_{at}"):
                for reason, count in zip(LABEL_REASONS, divmod(refused, REFUSED_LIMIT), strict=True):
                    found[reason] += count * units
        return {reason: count for reason, count in found.items() if count}

    def _shadow(self) -> ShadowTally:
        shadow = ShadowTally()
        for (answered, copied, flipped, *_), count in self._counted.pairs.items():
            shadow += ShadowTally(
                units=count,
                challenger_failed=count * (answered and not copied),
                champion_failed=count * (copied and not answered),
                both_failed=count * (not answered and not copied),
                compared=count * (answered and copied),
                flipped=count * (answered and copied and flipped),
            )
        return shadow

    def _pairs(self) -> dict[ScoredPair, int]:
        found: Counter[ScoredPair] = Counter()
        if self._plan.scores is None:
            return {}
        for (answered, copied, _, champion, challenger, label), count in self._counted.pairs.items():
            if answered and copied:
                found[ScoredPair(champion, challenger, -1 if label == NOT_COUNTED else label)] += count
        return dict(found)
