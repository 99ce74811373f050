"""Evidence read back from what is stored of it, so that people see the counts that a decision names."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from seatrial.evidence.counts import (
    Arm,
    Cell,
    Epoch,
    Frozen,
    LabelCell,
    LabelTally,
    Moments,
    ScoreCell,
    ScoredPair,
    ScoreTally,
    ShadowTally,
    Tally,
    Wait,
)
from seatrial.evidence.look import Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def stored_evidence(document: Mapping[str, Any], *, digest: str) -> Evidence:
    """Return the evidence that `Evidence.document` wrote as `document`.

    Raises
    ------
    ValueError
        When it is not the evidence of `digest`: another version wrote it, or somebody changed it.

    Examples
    --------
    >>> stored_evidence(Evidence(crossed=3).document(), digest=Evidence(crossed=3).digest).crossed
    3
    """
    try:
        evidence = _read(document)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(_refusal(digest, f"found data that are no counts ({error})")) from error
    if evidence.digest != digest:
        raise ValueError(_refusal(digest, f"found counts of digest {evidence.digest}"))
    return evidence


def _refusal(digest: str, found: str) -> str:
    return f"evidence {digest}: {found}; expected what this version writes; look at the logs again"


def _read(document: Mapping[str, Any]) -> Evidence:
    newest, frozen = document["newest"], document["frozen"]
    return Evidence(
        newest=None if newest is None else datetime.fromisoformat(newest),
        epochs={number: Epoch(float(share), stage) for number, share, stage in document["epochs"]},
        cells={_cell(where): Tally(*counts) for where, counts in _split(document["cells"])},
        assigned={(number, Arm(arm)): units for number, arm, units in document["assigned"]},
        shadow=ShadowTally(*document["shadow"]),
        moments={_cell(where): Moments(*counts) for where, counts in _split(document["moments"])},
        scores={
            ScoreCell(*_place(column, value), number, Arm(arm), at): ScoreTally(*counts)
            for column, value, number, arm, at, *counts in document["scores"]
        },
        pairs={ScoredPair(*pair): count for *pair, count in document["pairs"]},
        waits={
            Wait(guardrail, number, Arm(arm), is_bad, age, delay): count
            for guardrail, number, arm, is_bad, age, delay, count in document["waits"]
        },
        latencies={(Arm(arm), bucket): count for arm, bucket, count in document["latencies"]},
        crossed=document["crossed"],
        frozen=None if frozen is None else Frozen.of(frozen),
        labels={LabelCell(label, Arm(arm)): LabelTally(*counts) for label, arm, *counts in document["labels"]},
        rows=document["rows"],
        set_aside=dict(document["set_aside"]),
    )


def _split(rows: Sequence[Sequence[Any]]) -> list[tuple[Sequence[Any], Sequence[int]]]:
    """Return each row as where it belongs and what was counted there."""
    size = len(Cell._fields)
    return [(row[:size], row[size:]) for row in rows]


def _cell(where: Sequence[Any]) -> Cell:
    guardrail, column, value, number, arm = where
    return Cell(guardrail, *_place(column, value), number, Arm(arm))


def _place(column: str, value: str) -> tuple[str | None, str | None]:
    """Return the slice; all units are written as an empty column."""
    return (column, value) if column else (None, None)
