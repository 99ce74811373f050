"""Batch outputs: files of decisions that were made at once, and whether they may still be used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from seatrial.errors import RefusedError
from seatrial.units import format_time, short

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Standing(StrEnum):
    """Whether an output may be used."""

    VALID = "valid"
    SUSPECT = "suspect"  #: a release that decided part of it was taken out; use it only where nothing else is to be had
    INVALIDATED = "invalidated"  #: a person says that it must not be used
    RECOMPUTED = "recomputed"  #: another output took its place


#: What may follow what. Everything absent is refused.
MOVES: Mapping[Standing, frozenset[Standing]] = {
    Standing.VALID: frozenset({Standing.SUSPECT, Standing.INVALIDATED, Standing.RECOMPUTED}),
    Standing.SUSPECT: frozenset({Standing.VALID, Standing.INVALIDATED, Standing.RECOMPUTED}),
    Standing.INVALIDATED: frozenset({Standing.RECOMPUTED}),
    Standing.RECOMPUTED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """One file of decisions, by which releases and under which snapshot it was made."""

    id: str  #: digest of its content
    decision_point: str
    location: str  #: where consumers find it
    snapshot_no: int  #: snapshot that its units were assigned by
    rows: Mapping[str, int]  #: units by release id
    consumers: tuple[str, ...]  #: who reads it
    made_at: datetime
    made_by: str
    standing: Standing = Standing.VALID
    reason: str = ""  #: why it stands so
    version: int = 1  #: raised by every change

    def marked(self, standing: Standing, reason: str) -> BatchOutput:
        """Return the output with another standing; raises RefusedError when that cannot follow."""
        if standing not in MOVES[self.standing]:
            possible = ", ".join(sorted(MOVES[self.standing])) or "nothing, it was replaced"
            raise RefusedError(
                f"output {short(self.id)}: {standing} cannot follow {self.standing}; possible: {possible}"
            )
        return replace(self, standing=standing, reason=reason, version=self.version + 1)

    def document(self) -> dict[str, Any]:
        """Return the output as plain data."""
        return {
            "id": self.id,
            "decision_point": self.decision_point,
            "location": self.location,
            "snapshot_no": self.snapshot_no,
            "rows": dict(self.rows),
            "consumers": list(self.consumers),
            "made_at": format_time(self.made_at),
            "made_by": self.made_by,
            "standing": self.standing.value,
            "reason": self.reason,
            "version": self.version,
        }
