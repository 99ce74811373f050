"""Tell from two samples of one column whether its numbers mean something else: another unit, clock, sign or code.

A season moves a distribution; it neither multiplies every value by .83 nor turns miles into kilometres. So a change is
named only when one transformation of the reference explains the candidate and the reference as it is does not. Two
kinds of traces are read: the *values*, for most columns take few values or lie on a grid, which stays while frequencies
drift; and, for transformations in common use, the *shape*. What leaves neither trace is not seen: this finds rewired
columns, and is no proof that none was. A heuristic with measured rates (`benchmarks.semantics`), not a test with a
stated level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

#: Rows of each sample below which nothing is said.
FEWEST_ROWS = 300
#: Factors in common use, by what differs by them.
FACTORS = {
    "units and thousandths": 1000.0,
    "a share and percent, or whole coins and cents": 100.0,
    "hours and minutes, or minutes and seconds": 60.0,
    "hours and seconds": 3600.0,
    "days and hours": 24.0,
    "miles and kilometres": 1.609344,
    "nautical and statute miles, or knots and mph": 1.150779,
    "knots and km/h": 1.852,
    "m/s and mph": 2.236936,
    "m/s and km/h": 3.6,
    "inches and millimetres": 25.4,
    "inches and centimetres": 2.54,
    "metres and feet": 3.28084,
    "kilograms and pounds": 2.204623,
    "net and gross at 19 %": 1.19,
    "net and gross at 20 %": 1.2,
}
_CIRCLES = (24.0, 7.0)  #: hours of a day and days of a week, on which a clock is shifted
_ATOMS = 10  #: most frequent values of each sample whose ratios and differences are tried
_SAME = 2e-6  #: relative difference below which two numbers are one value, such as one read back from 32 bits
# Chosen on the example's months, the same that the benchmark measures: expect somewhat less of it on other data.
_GAIN = 0.08  #: part of the rows whose value only the transformation explains
_KNOWN = 0.12  #: part whose value it must explain at all
_NEAR = 0.3  #: greatest Kolmogorov distance of an explanation by values
_NEAR_SHIFT = 0.1  #: the same for a shift: summer is winter plus 36 degF, on the same grid, and of another shape
_STRONG = 0.3  #: gain from which a season may have moved the shape at the same time
_FAR, _CLOSE = 0.2, 0.12  #: Kolmogorov distances from the reference as it is, and from an explanation by shape
_SHIFT_FAR, _SHIFT_CLOSE = 0.5, 0.05  #: the same for a shift, which a season may resemble
_CONSTANT = 0.995
_ZEROS, _NO_ZEROS = 0.1, 0.01  #: part of rows that are 0 beyond the reference's, where hardly any was


@dataclass(frozen=True, slots=True)
class Change:
    """How a candidate differs from its reference, when it does."""

    kind: str  #: scale, unit, affine, sign, clock, shift, constant, zeros
    words: str  #: goes on after "looks like" or "is"
    factor: float = 1.0  #: candidate = factor x reference + offset
    offset: float = 0.0
    known: float = 0.0  #: part of rows whose value it explains
    known_before: float = 0.0  #: part that the reference explains as it is
    distance: float = 0.0  #: Kolmogorov distance from the explanation
    distance_before: float = 0.0  #: Kolmogorov distance from the reference as it is


@dataclass(frozen=True, slots=True)
class _Tried:
    kind: str
    words: str
    factor: float = 1.0
    offset: float = 0.0
    circle: float | None = None

    def of(self, values: Floats) -> Floats:
        moved = self.factor * values + self.offset
        return moved if self.circle is None else np.asarray(np.mod(moved, self.circle))


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Distinct values, ascending, with the part of rows that has each."""

    values: Floats
    part: Floats

    @classmethod
    def of(cls, numbers: Floats) -> _Sample:
        values, counts = np.unique(numbers, return_counts=True)
        return cls(values, counts / counts.sum())

    def moved(self, by: _Tried) -> _Sample:
        values = by.of(self.values)
        order = np.argsort(values, kind="stable")
        return _Sample(values[order], self.part[order])

    def known_to(self, other: _Sample) -> float:
        """Return the part of these rows whose value `other` has."""
        if not len(other.values) or not len(self.values):
            return 0.0
        at = np.searchsorted(other.values, self.values)
        above = other.values[np.minimum(at, len(other.values) - 1)]
        below = other.values[np.maximum(at - 1, 0)]
        gap = np.minimum(np.abs(above - self.values), np.abs(below - self.values))
        return float(self.part[gap <= _SAME * np.maximum(np.abs(self.values), 1e-3)].sum())

    def inside(self, other: _Sample) -> _Sample:
        """Return the rows in the range of `other`, of which alone it can know the value."""
        is_in = (self.values >= other.values[0]) & (self.values <= other.values[-1])
        held = self.part[is_in]
        return _Sample(self.values[is_in], held / held.sum() if held.size else held)

    def without_zero(self) -> _Sample:
        """Return the rows other than 0, which no factor moves; all when hardly any is left."""
        held = self.values != 0.0
        part = self.part[held]
        return _Sample(self.values[held], part / part.sum()) if part.sum() >= 0.02 else self  # noqa: PLR2004 see above

    def atoms(self) -> Floats:
        return self.values[np.argsort(-self.part, kind="stable")[:_ATOMS]]

    def zeros(self) -> float:
        return float(self.part[self.values == 0.0].sum())


def _distance(first: _Sample, second: _Sample) -> float:
    at = np.concatenate([first.values, second.values])
    reached = [
        np.concatenate([[0.0], np.cumsum(each.part)])[np.searchsorted(each.values, at, side="right")]
        for each in (first, second)
    ]
    return float(np.abs(reached[0] - reached[1]).max())


def _overlap(first: _Sample, second: _Sample) -> float:
    return min(first.known_to(second), second.known_to(first))


def changed(reference: ArrayLike, candidate: ArrayLike) -> Change | None:
    """Return how the candidate's numbers differ in meaning from the reference's, or None when no such change is found.

    Parameters
    ----------
    reference, candidate
        Finite numbers of one column, in the order of the rows; missing values are left out.

    Raises
    ------
    ValueError
        When a sample has fewer than `FEWEST_ROWS` numbers or one that is not finite.

    Examples
    --------
    >>> minutes = np.random.default_rng(1).integers(0, 400, 2000)
    >>> later = np.random.default_rng(2).integers(0, 380, 2000)
    >>> changed(minutes, later) is None
    True
    >>> changed(minutes, later * 0.83).words
    'the reference divided by 1.2, the factor between net and gross at 20 %'
    >>> changed(minutes, later / 60).words
    'the reference divided by 60, the factor between hours and minutes, or minutes and seconds'
    """
    old_rows, new_rows = (np.asarray(each, dtype=np.float64) for each in (reference, candidate))
    for rows in (old_rows, new_rows):
        if rows.ndim != 1 or len(rows) < FEWEST_ROWS or not np.isfinite(rows).all():
            raise ValueError(f"changed: found {rows.size} numbers; expected {FEWEST_ROWS} finite ones or more")
    old, new = _Sample.of(old_rows), _Sample.of(new_rows)
    return _simple(old, new) or _explained(old, new)


def _simple(old: _Sample, new: _Sample) -> Change | None:
    """Return what needs no transformation to be seen."""
    if len(old.values) > 1 and new.part.max() >= _CONSTANT > old.part.max() + 0.1:
        return Change("constant", f"constant: {new.part.max():.1%} of the rows are {new.values[new.part.argmax()]:g}")
    more = new.zeros() - old.zeros()
    if more >= _ZEROS and old.zeros() <= _NO_ZEROS:
        words = f"0 in {new.zeros():.1%} of the rows, the reference in {old.zeros():.1%}, as when missing values are 0"
        return Change("zeros", words)
    return None


def _explained(old: _Sample, new: _Sample) -> Change | None:
    distance = _distance(old, new)
    best, most = None, 0.0
    for tried in _transformations(old, new):
        found = _tried(tried, old, new, distance)
        if found is None:
            continue
        # Of two that explain alike the one in common use is meant.
        merit = found.known - found.known_before + distance - found.distance + 0.03 * (tried.kind in _NAMED)
        if merit > most:
            best, most = found, merit
    return best


_NAMED = ("unit", "affine", "sign", "clock")


def _tried(tried: _Tried, old: _Sample, new: _Sample, distance: float) -> Change | None:
    first, second = (old, new) if tried.offset or tried.circle else (old.without_zero(), new.without_zero())
    moved = first.moved(tried)
    known = _overlap(moved, second)
    is_shift = tried.kind == "shift"
    before = max(_overlap(first, second), _in_range(first, second) if is_shift else 0.0)
    gain = known - before
    if gain < _GAIN and distance < _FAR:
        return None
    after = _distance(old.moved(tried), new)
    is_strong = gain >= _STRONG and not is_shift
    by_values = (
        gain >= _GAIN
        and known >= _KNOWN
        and (is_strong or after <= min(_NEAR_SHIFT if is_shift else _NEAR, distance + 0.05))
    )
    if not by_values and not _by_shape(tried, distance, after, gain):
        return None
    return Change(tried.kind, tried.words, tried.factor, tried.offset, known, before, after, distance)


def _in_range(first: _Sample, second: _Sample) -> float:
    """Return how well either knows the rows of the other in its own range; 1 where the ranges hardly meet.

    A season moves values out of the range of the reference, where nothing is known of them.
    """
    parts = [(first.inside(second), second), (second.inside(first), first)]
    if any(not len(part.values) for part, _ in parts):
        return 1.0
    return min(part.known_to(whole) for part, whole in parts)


def _by_shape(tried: _Tried, distance: float, after: float, gain: float) -> bool:
    if gain < -0.02:  # noqa: PLR2004 fewer values than before, beyond what chance takes away
        return False
    if tried.kind in _NAMED:
        return distance >= _FAR and after <= min(_CLOSE, distance / 2.0)
    return tried.kind == "shift" and distance >= _SHIFT_FAR and after <= min(_SHIFT_CLOSE, distance / 10.0)


def _transformations(old: _Sample, new: _Sample) -> Iterator[_Tried]:
    for words, factor in FACTORS.items():
        yield _Tried("unit", f"the reference times {factor:g}, the factor between {words}", factor)
        yield _Tried("unit", f"the reference divided by {factor:g}, the factor between {words}", 1.0 / factor)
    yield _Tried("affine", "the reference in Fahrenheit instead of Celsius", 1.8, 32.0)
    yield _Tried("affine", "the reference in Celsius instead of Fahrenheit", 1.0 / 1.8, -32.0 / 1.8)
    yield _Tried("sign", "the reference with the other sign", -1.0)
    for circle in _CIRCLES:
        if old.values[0] >= 0.0 and old.values[-1] < circle and new.values[0] >= 0.0 and new.values[-1] < circle:
            for hours in range(1, int(circle)):
                yield _Tried("clock", f"the reference {hours:+d} on a circle of {circle:g}", 1.0, float(hours), circle)
    yield from _fitted(old, new)


def _fitted(old: _Sample, new: _Sample) -> Iterator[_Tried]:
    """Yield factors and offsets between frequent values, and between the middles."""
    first, second = old.without_zero().atoms(), new.without_zero().atoms()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (second[:, None] / first[None, :]).ravel()
    for ratio in _apart(ratios[np.isfinite(ratios) & (ratios > 0.0)]):
        if abs(ratio - 1.0) > 0.005:  # noqa: PLR2004 what rounding leaves
            yield _Tried("scale", f"the reference times {ratio:.4g}", ratio)
    for offset in _apart((new.atoms()[:, None] - old.atoms()[None, :]).ravel()):
        if abs(offset) > 1e-6:  # noqa: PLR2004 as above
            yield _Tried("shift", f"the reference {'plus' if offset > 0 else 'minus'} {abs(offset):.4g}", 1.0, offset)


def _apart(numbers: Floats) -> list[float]:
    """Return the numbers that differ in seven digits."""
    return list({f"{number:.7g}": float(number) for number in numbers}.values())
