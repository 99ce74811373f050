"""Time for the edges: the wall's, or that of a replay."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING

from seatrial.errors import UnavailableError
from seatrial.units import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from seatrial.ports import Clock


class WallClock:
    """The system's clock."""

    def now(self) -> datetime:
        """Return the present time in UTC."""
        return datetime.now(UTC)


class SteadyClock:
    """A clock for data planes: it follows another one forwards, and never goes back with it.

    A wall clock that is set back would lengthen every lease. Time that has really passed since the last reading, which
    `elapsed_s` counts whatever the wall says, is the least that this clock moves on.
    """

    def __init__(self, clock: Clock, elapsed_s: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._elapsed_s = elapsed_s
        self._last = clock.now()
        self._at_s = elapsed_s()

    def now(self) -> datetime:
        """Return the present time in UTC, at least as late as real time has carried the last one."""
        at_s = self._elapsed_s()
        self._last = max(self._clock.now(), self._last + timedelta(seconds=at_s - self._at_s))
        self._at_s = at_s
        return self._last


@dataclass(frozen=True, slots=True)
class ReplayClock:
    """Event time of a replay, kept in a file that one replaying process advances and others read."""

    path: Path

    def now(self) -> datetime:
        """Return the event time; raises UnavailableError before the replay has begun."""
        try:
            return parse_time(self.path.read_text(encoding="ascii").strip())
        except (OSError, ValueError) as error:
            raise UnavailableError(f"{self.path}: no event time there; start the replay first") from error

    def advance(self, to: datetime) -> None:
        """Set the event time; a reader sees the old one or the new one, never half."""
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        partial.write_text(format_time(to), encoding="ascii")
        partial.replace(self.path)
