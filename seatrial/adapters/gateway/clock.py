"""Time at the gateway: the wall's, but never slower than a steady clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def _wall() -> datetime:
    return datetime.now(UTC)


class SteadyClock:
    """A wall clock that is set back must not prolong a lease; one that is set forward ends it early, which is safe."""

    def __init__(self, wall: Callable[[], datetime] = _wall, steady: Callable[[], float] = monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._wall_at, self._steady_at = wall(), steady()

    def now(self) -> datetime:
        """Return the later one of the wall's time and the time at start plus what has passed since."""
        return max(self._wall(), self._wall_at + timedelta(seconds=self._steady() - self._steady_at))
