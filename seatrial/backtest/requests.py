"""What can be replayed: requests in the order of time, with the answers that were logged."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.evidence import Arm

    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Return `moment` in microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(micros: int) -> datetime:
    """Return the time that lies `micros` after 1970."""
    return _EPOCH + micros * _MICROSECOND


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of one release's answers, in the order in which they can be seen."""

    rows: pa.Table
    request: Integers  #: index of the request that each belongs to
    seen_at: Integers  #: µs since 1970, ascending: when it arrived, and never before its decision


@dataclass(frozen=True, slots=True)
class Answers:
    """What one release answered: one row for each request, meaningful where `is_known`."""

    release_id: str
    rows: pa.Table
    is_known: Flags
    labels: Labels


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests of one decision point in the order of time, with what each release answered."""

    answers: Mapping[Arm, Answers]  #: of champion and challenger
    at: Integers  #: µs since 1970, ascending
    unit: Integers  #: index into `units`
    units: Sequence[str]  #: keys of the units
    takes_part: Flags  #: in the plan's segment, and drawn at random where only one release answered
    #: probability with which each unit was the challenger's; None when both releases answered every request
    propensity: Floats | None
    left_out: Mapping[str, int] = field(default_factory=dict)  #: rows or units that are no evidence, by reason

    @property
    def is_paired(self) -> bool:
        """Whether both releases answered every request, so that the challenger can be shadowed too."""
        return self.propensity is None

    @property
    def first(self) -> datetime:
        """Time of the first request that takes part."""
        return moment(int(self.at[self.takes_part][0]))

    @property
    def last(self) -> datetime:
        """Time of the last request that takes part."""
        return moment(int(self.at[self.takes_part][-1]))
