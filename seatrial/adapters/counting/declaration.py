"""What a plan counts, as columns of one table: flags packed into codes, keys to group by, amounts to add up.

A unit is described by bits, such as "bad by guardrail 3" or "older than 36 h". Bits are packed into whole numbers, the
codes, and units are counted by code, so that one aggregate counts for all guardrails at once however many there are.
Nothing here is SQL: `statements` writes it, `assembly` reads the result, and both follow the same declaration.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from seatrial.stats.scores import ScoreGrid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta

    from seatrial.plan import Guardrail, Plan

#: Bits in one code: units with every combination of them would still be few groups.
CODE_BITS = 16
#: Bits in one whole number of a stored row.
ROW_BITS = 60

#: In place of the name of a bit: true of every unit, and of none.
ALWAYS, NEVER = "always", "never"


@dataclass(frozen=True, slots=True)
class Flags:
    """The bits that say how a unit counts for one guardrail."""

    inside: str  #: the guardrail is about this unit
    bad: str  #: by what is known now
    bad_within: str  #: by what was known when the window closed
    matured: str  #: older than the window
    labelled: str  #: with a label within the window, or with an amount
    hidden: str  #: the action taken keeps the label from being known

    def names(self) -> list[str]:
        """Return the bits that have to be looked at."""
        named = (self.inside, self.bad, self.bad_within, self.matured, self.labelled, self.hidden)
        return [name for name in dict.fromkeys(named) if name not in (ALWAYS, NEVER)]


@dataclass(frozen=True, slots=True)
class Code:
    """Some guardrails whose bits are packed into one number."""

    bits: tuple[str, ...]  #: from the lowest
    guardrails: tuple[int, ...]  #: indices into the plan's
    slices: tuple[int, ...]  #: indices into the plan's slice columns that one of them is judged by

    def value(self, bit: str) -> int:
        """Return the number that stands for `bit` alone."""
        return 1 << self.bits.index(bit)


@dataclass(frozen=True, slots=True)
class Awaited:
    """Guardrails that wait for the same label for the same time."""

    label: str
    maturity_us: int
    guardrails: tuple[int, ...]  #: indices into the plan's; two bits each, counted and bad


@dataclass(frozen=True)
class Declaration:
    """A plan as what is to be counted."""

    plan: Plan
    quantiles: Mapping[str, float]  #: by guardrail, the frozen threshold of `exceeds`; one without is never exceeded

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of slices, in the order in which they are numbered."""
        return tuple(self.plan.slices)

    @cached_property
    def grid(self) -> ScoreGrid | None:
        """The bins of the score; None when nothing is asked of it."""
        return None if self.plan.scores is None else ScoreGrid(*self.plan.scores.range)

    @cached_property
    def maturities(self) -> Mapping[str, tuple[int, ...]]:
        """For each label that is read, the windows in which it is, in microseconds, shortest first."""
        asked = [(g.label, g.maturity) for g in self.plan.guardrails if g.source.is_delayed]
        if self.plan.scores is not None:
            asked.append((self.plan.scores.label, self.plan.scores.maturity))
        windows: dict[str, set[int]] = {}
        for label, maturity in asked:
            if label is not None and maturity is not None:
                windows.setdefault(label, set()).add(micros(maturity))
        return {label: tuple(sorted(found)) for label, found in windows.items()}

    @cached_property
    def boundaries(self) -> tuple[int, ...]:
        """The ages in microseconds at which the counts of a unit change although nothing new is known of it."""
        return tuple(sorted({window for found in self.maturities.values() for window in found}))

    @cached_property
    def windowed(self) -> tuple[int, ...]:
        """Indices of the guardrails that add up the decisions of a unit over some time."""
        return tuple(i for i, g in enumerate(self.plan.guardrails) if g.mean is not None and g.mean.window is not None)

    @cached_property
    def means(self) -> tuple[int, ...]:
        """Indices of the guardrails that average amounts."""
        return tuple(i for i, g in enumerate(self.plan.guardrails) if g.mean is not None)

    def has_divisor(self, index: int) -> bool:
        """Return whether the guardrail is a ratio, whose divisor is not 1."""
        mean = self.plan.guardrails[index].mean
        return mean is not None and mean.per is not None

    def sums(self, index: int) -> tuple[str, ...]:
        """Return which fields of `Moments` have to be added up for a mean; the others follow from them."""
        ratio = ("units", "nonzero", "k", "n", "kk", "kn", "nn")
        return ratio if self.has_divisor(index) else ("units", "nonzero", "k", "kk")

    @cached_property
    def flags(self) -> tuple[Flags, ...]:
        """How a unit counts, one for each guardrail."""
        return tuple(self._flags(index, guardrail) for index, guardrail in enumerate(self.plan.guardrails))

    def _flags(self, index: int, guardrail: Guardrail) -> Flags:
        inside = f"inside_{index}" if guardrail.only_when else ALWAYS
        hidden = f"hidden_{index}" if guardrail.is_censored else NEVER
        is_label = guardrail.source.is_delayed
        matured = f"matured_{micros(guardrail.maturity)}" if is_label else ALWAYS
        if guardrail.mean is not None:
            matured = f"closed_{index}" if guardrail.mean.window is not None else matured
            return Flags(inside, NEVER, NEVER, matured, f"amount_{index}", hidden)
        if is_label:
            labelled = f"labelled_{self.label_at(guardrail.label)}_{micros(guardrail.maturity)}"
            return Flags(inside, f"bad_{index}", f"within_{index}", matured, labelled, hidden)
        is_never = guardrail.exceeds is not None and guardrail.name not in self.quantiles
        bad = NEVER if is_never else f"bad_{index}"
        return Flags(inside, bad, bad, ALWAYS, ALWAYS, hidden)

    def label_at(self, label: str | None) -> int:
        """Return the number of a label among those that are read."""
        return list(self.maturities).index(label or "")

    @cached_property
    def codes(self) -> tuple[Code, ...]:
        """The guardrails in groups of at most `CODE_BITS` bits; one that needs more is a group of its own."""
        groups: list[tuple[list[str], list[int]]] = []
        for index, flags in enumerate(self.flags):
            bits = list(dict.fromkeys([*groups[-1][0], *flags.names()])) if groups else flags.names()
            if groups and len(bits) <= CODE_BITS:
                groups[-1] = (bits, [*groups[-1][1], index])
            else:
                groups.append((flags.names(), [index]))
        return tuple(Code(tuple(bits), tuple(some), self._slices(some)) for bits, some in groups)

    def _slices(self, guardrails: Iterable[int]) -> tuple[int, ...]:
        asked = {column for index in guardrails for column in self.plan.guardrails[index].slices}
        return tuple(at for at, column in enumerate(self.columns) if column in asked)

    @cached_property
    def early(self) -> tuple[str, ...]:
        """The bits that the decision alone decides, before any label."""
        found: list[str] = []
        for index, (guardrail, flags) in enumerate(zip(self.plan.guardrails, self.flags, strict=True)):
            found += [bit for bit in (flags.inside, flags.hidden) if bit not in (ALWAYS, NEVER)]
            if not guardrail.source.is_delayed and flags.bad != NEVER:
                found.append(flags.bad)
            if guardrail.source.is_delayed:
                found += [f"terms_{index}_{at}" for at, _ in enumerate(guardrail.bad_when)]
        return tuple(found)

    @cached_property
    def awaited(self) -> tuple[Awaited, ...]:
        """The guardrails on labels, those with the same label and window together."""
        groups: dict[tuple[str, int], list[int]] = {}
        for index, guardrail in enumerate(self.plan.guardrails):
            if guardrail.source.is_delayed and guardrail.label is not None:
                groups.setdefault((guardrail.label, micros(guardrail.maturity)), []).append(index)
        return tuple(Awaited(label, maturity, tuple(some)) for (label, maturity), some in groups.items())

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The columns that units are grouped by, in the order of the rows of the result."""
        codes = [f"code_{at}" for at, _ in enumerate(self.codes)]
        slices = [f"slice_{at}" for at, _ in enumerate(self.columns)]
        waits = [f"{each}_{at}" for at, _ in enumerate(self.awaited) for each in ("waiting", "decided", "delay")]
        labels = [f"{each}_{at}" for at, _ in enumerate(self.maturities) for each in ("quality", "refused")]
        scores = [] if self.grid is None else ["score_bin", "score_label"]
        return ("snapshot_no", "arm", "share", "stage", *codes, *slices, *waits, *labels, *scores, "latency")

    @cached_property
    def sets(self) -> tuple[tuple[str, ...], ...]:
        """The groupings, all of which one pass makes."""
        found: list[tuple[str, ...]] = [("snapshot_no", "share", "stage"), ("arm", "latency")]
        for at, code in enumerate(self.codes):
            found.append(("snapshot_no", "arm", f"code_{at}"))
            found += [("snapshot_no", "arm", f"code_{at}", f"slice_{column}") for column in code.slices]
        for at, _ in enumerate(self.awaited):
            found.append(("snapshot_no", "arm", f"waiting_{at}", f"decided_{at}", f"delay_{at}"))
        for at, _ in enumerate(self.maturities):
            found += [("arm", f"quality_{at}"), (f"refused_{at}",)]
        if self.plan.scores is not None:
            found.append(("snapshot_no", "arm", "score_bin", "score_label"))
            places = [self.columns.index(column) for column in self.plan.scores.slices]
            found += [("snapshot_no", "arm", "score_bin", "score_label", f"slice_{place}") for place in places]
        return tuple(found)

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """The columns that are added up beside the number of units."""
        return tuple(f"{field}_{index}" for index in self.means for field in self.sums(index))


def micros(time: timedelta | None) -> int:
    """Return whole microseconds; of None, 0."""
    return 0 if time is None else round(time.total_seconds() * 1e6)


def packed(names: Sequence[str], width: int) -> tuple[tuple[str, ...], ...]:
    """Return `names` in groups of at most `width`."""
    return tuple(tuple(names[at : at + width]) for at in range(0, len(names), width))
