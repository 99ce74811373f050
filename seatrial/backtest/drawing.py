"""Who answers each request of a replay: drawn by a seeded hash, at exactly the share that the plan has at the time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from xxhash import xxh64_intdigest

from seatrial.backtest.requests import micros
from seatrial.evidence import Arm
from seatrial.routing import slot_of

if TYPE_CHECKING:
    from seatrial.backtest.requests import Flags, Floats, Integers, Requests
    from seatrial.routing import RoutingSnapshot

ARMS = (Arm.CHAMPION, Arm.CHALLENGER)
#: In place of an index into `ARMS`: not decided yet, and left out of the replay.
OPEN, LEFT_OUT = -1, -2
_HASHES = 2**64


def keep_probabilities(share: float, propensity: Floats) -> tuple[Floats, Floats]:
    """Return with which probabilities units of champion and challenger are kept, the greater of the two being 1.

    With k1 and k0 for challenger and champion and the propensity p, k1 p / (k1 p + k0 (1 - p)) is then `share`, so
    that a kept unit is the challenger's with exactly that probability.

    >>> champion, challenger = keep_probabilities(0.05, np.array([0.5]))
    >>> round(float(champion[0]), 4), round(float(challenger[0]), 4)
    (1.0, 0.0526)
    """
    odds = share * (1.0 - propensity) / ((1.0 - share) * propensity)
    return np.minimum(1.0, 1.0 / odds), np.minimum(1.0, odds)


@dataclass(frozen=True, slots=True)
class Served:
    """Who answered one stretch of requests, each array as long as it is."""

    part: slice  #: of the requests
    release: Integers  #: index into `ARMS` of the release that answered, or `LEFT_OUT`
    is_compared: Flags  #: assigned by a share, so that the unit counts
    is_shadowed: Flags  #: the challenger answered a copy


class Draw:
    """One way in which chance may assign the units; the same salt draws the same."""

    def __init__(self, requests: Requests, *, salt: str) -> None:
        self._requests = requests
        self._fate = np.full(len(requests.units), OPEN, dtype=np.int64)  #: by unit, of one experiment
        self._salt = salt
        self._hashed: dict[str, Integers] = {}

    def serve(self, part: slice, snapshot: RoutingSnapshot, *, challenger: str) -> Served:
        """Return who answers `part` by `snapshot`, whose lease is checked at each request's time.

        `challenger` is the id by which snapshots name it.
        """
        takes_part = self._requests.takes_part[part]
        lease_until = 0 if snapshot.lease_until is None else micros(snapshot.lease_until)
        is_tried = takes_part & (self._requests.at[part] < lease_until) & (snapshot.slots > 0)
        release = np.full(is_tried.size, int(snapshot.fallback == challenger), dtype=np.int64)
        tried = np.flatnonzero(is_tried)
        release[tried] = self._drawn(tried + part.start, snapshot)
        for at, arm in enumerate(ARMS):
            release[(release == at) & ~self._requests.answers[arm].is_known[part]] = LEFT_OUT
        return Served(part, release, is_tried & (release >= 0), takes_part & snapshot.shadow)

    def _drawn(self, rows: Integers, snapshot: RoutingSnapshot) -> Integers:
        if self._requests.propensity is None:
            drawn: Integers = (self._slots(snapshot.salt)[self._requests.unit[rows]] < snapshot.slots).astype(np.int64)
            return drawn
        return self._thinned(rows, snapshot.share, self._requests.propensity)

    def _slots(self, salt: str) -> Integers:
        """Return the slot of each unit, hashed once for each salt; a rollout has one."""
        if salt not in self._hashed:
            self._hashed[salt] = np.array([slot_of(salt, unit) for unit in self._requests.units], dtype=np.int64)
        return self._hashed[salt]

    @cached_property
    def _chance(self) -> Floats:
        """A number in [0, 1) for each unit, the same whatever the share."""
        hashes = (xxh64_intdigest(f"{self._salt}{unit}".encode()) for unit in self._requests.units)
        return np.array([value / _HASHES for value in hashes], dtype=np.float64)

    def _thinned(self, rows: Integers, share: float, propensity: Floats) -> Integers:
        """Return who answers; a unit is kept or left out for good at its first decision in the comparison.

        Were it asked again at a larger share, only units of the challenger could still come in.
        """
        units = self._requests.unit[rows]
        logged = self._requests.answers[Arm.CHALLENGER].is_known[rows].astype(np.int64)
        seen, first = np.unique(units, return_index=True)
        is_new = self._fate[seen] == OPEN
        seen, first = seen[is_new], first[is_new]
        keep = np.stack(keep_probabilities(share, propensity[rows[first]]))
        is_kept = self._chance[seen] < keep[logged[first], np.arange(first.size)]
        self._fate[seen] = np.where(is_kept, logged[first], LEFT_OUT)
        drawn: Integers = self._fate[units]
        return drawn
