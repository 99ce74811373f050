"""What is recorded about one rollout: its moves, and the look that a question rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.gates.finding import Finding
from seatrial.rollout import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from seatrial.ledger import Entry
    from seatrial.ports import Look
    from seatrial.rollout import Rollout

#: States that are entered by the decision that ends a trial; what follows only carries it out.
ENDS = frozenset({State.REJECTED, State.ROLLING_BACK, State.PROMOTING})


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a rollout, as it was recorded."""

    number: int  #: of the ledger entry
    at: datetime
    before: State | None  #: None for the opening
    after: State
    stage: int
    who: str  #: the person who answered, otherwise who or what acted
    reason: str
    findings: tuple[Finding, ...]


def moves(entries: Iterable[Entry]) -> list[Move]:
    """Return the opening and every decided move among `entries`, in their order."""
    return [_move(entry) for entry in entries if entry.record.kind in ("rollout.started", "rollout.decided")]


def closing(made: Sequence[Move]) -> Move | None:
    """Return the move that decided the trial, or None while it goes on; of several the last."""
    return next((move for move in reversed(made) if move.after in ENDS), None)


def asked_look(rollout: Rollout, looks: Sequence[Look]) -> Look | None:
    """Return the look that led to the question a person is asked, or None when it is not among `looks`.

    A later look at the same evidence does not do: it no longer asks what the stage before asked.
    """
    led = [k for k in looks if k.at <= rollout.entered_at and k.evidence_digest == rollout.evidence_digest]
    return led[-1] if led else None


def _move(entry: Entry) -> Move:
    record, body = entry.record, entry.record.body
    if record.kind == "rollout.started":
        before, after = None, State(body["state"])
    else:
        before, after = State(body["from"]), State(body["to"])
    answer = body.get("answer")
    return Move(
        number=entry.number,
        at=record.at,
        before=before,
        after=after,
        stage=body["stage"],
        who=record.actor if answer is None else answer["by"],
        reason=body["reason"],
        findings=tuple(map(Finding.of_document, body.get("findings", ()))),
    )
