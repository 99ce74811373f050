"""What a rule sees at a look and what it may answer; every rule moves along the ramp in the same engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator

    from benchmarks.decisions.mixture import Flags, Floats, Integers
    from benchmarks.decisions.streams import Counts, Ramp, Stream, Tick


class Act(IntEnum):
    """What a rule answers for one replicate."""

    STAY = 0
    ADVANCE = 1
    ROLL_BACK = 2
    PROMOTE = 3  #: an approval by a person included, where the rule asks for one
    ASK = 4  #: undecided: a person is asked
    INVALID = 5  #: undecided, because the units of the arms are not as assigned


@dataclass(frozen=True)
class Look:
    """All replicates of one stream after one tick; rows that are not `active` hold their last counts."""

    now: int  #: ticks served before this one
    active: Flags
    stage: Integers  #: index of the share
    since: Integers  #: ticks served at this share
    shares: Floats
    ramp: Ramp
    counts: Counts
    tick: Tick
    rng: Generator  #: for rules that draw a sample of their own

    @property
    def is_soaked(self) -> Flags:
        """Return where the share was served long enough."""
        return self.since >= self.ramp.ticks

    def on_schedule(self) -> Integers:
        """Return the acts of a rule without objections: the next share when due, promotion after the last."""
        is_last = self.stage == self.shares.size - 1
        return np.where(self.is_soaked, np.where(is_last, Act.PROMOTE, Act.ADVANCE), Act.STAY)


class Rule(Protocol):
    """A decision rule with the state of all its replicates."""

    counts_units: bool  #: counts what was assigned; otherwise requests
    asks_approval: bool  #: whether a promotion needs a person

    @property
    def name(self) -> str:
        """Return what the tables call it."""

    @property
    def settings(self) -> str:
        """Return its settings in one line, known after `begin`."""

    def begin(self, stream: Stream, replicates: int) -> None:
        """Start anew."""

    def look(self, look: Look) -> Integers:
        """Return one `Act` for each replicate."""
