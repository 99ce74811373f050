"""Time for the edges: the wall's, or that of a replay."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from seatrial.errors import UnavailableError
from seatrial.units import format_time, parse_time

if TYPE_CHECKING:
    from pathlib import Path


class WallClock:
    """The system's clock."""

    def now(self) -> datetime:
        """Return the present time in UTC."""
        return datetime.now(UTC)


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
