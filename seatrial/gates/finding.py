"""What a gate answers: a verdict, its reason, and the numbers it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping


class Question(StrEnum):
    """What was asked; the state machine weighs findings by it."""

    CONTRACT = "contract"  #: does the release fit together, load and answer
    FRESHNESS = "freshness"  #: is there recent evidence at all
    ASSIGNMENT = "assignment"  #: were units assigned as recorded; if not, no other verdict counts
    LOAD = "load"  #: do copies for the shadow keep to their budget; if not, the shadow pauses
    SHADOW = "shadow"  #: does the challenger run on copies of real requests
    HARM = "harm"  #: is a guardrail proven worse
    WARNING = "warning"  #: is it likely worse, so that the ramp should stand still
    SCORES = "scores"  #: has the distribution of the score collapsed or moved
    CALIBRATION = "calibration"  #: are outcomes as frequent as scored
    DELAY = "delay"  #: do labels of both arms take equally long
    EXPOSURE = "exposure"  #: is gross harm ruled out, so that the share may grow
    PROMOTION = "promotion"  #: is harm beyond the margin ruled out on matured labels


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question about one guardrail or part."""

    question: Question
    subject: str  #: what it is about: a guardrail, optionally with a slice, or a part of the release
    verdict: Verdict
    reason: str  #: one sentence with the numbers, for people
    numbers: Mapping[str, float | int | str | None] = field(default_factory=dict)
    #: False for dry runs, guardrails that only notify and waived answers: shown, never acted on
    is_binding: bool = True
    #: True when a person may waive it: until the deadline of the gates it holds a rollout instead of ending it
    is_waivable: bool = False

    def document(self) -> dict[str, Any]:
        """Return the finding as plain data; numbers as text, so that one value has one digest."""
        document = {
            "question": self.question.value,
            "subject": self.subject,
            "verdict": self.verdict.name,
            "reason": self.reason,
            "numbers": {name: _text(value) for name, value in self.numbers.items()},
            "is_binding": self.is_binding,
        }
        # Left out where it says nothing, so that findings of ledgers that do not know it keep their digests.
        return {**document, "is_waivable": True} if self.is_waivable else document

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Self:
        """Return the finding that `document` describes; its numbers stay text.

        Raises KeyError, TypeError or ValueError when it describes none.
        """
        return cls(
            Question(document["question"]),
            document["subject"],
            Verdict[document["verdict"]],
            document["reason"],
            document["numbers"],
            is_binding=document["is_binding"],
            is_waivable=document.get("is_waivable", False),
        )


#: Between the parts of a subject: a guardrail and its slice, a gate and what it asked about.
SUBJECT_MARK = " · "


def gate_of(finding: Finding) -> str:
    """Return the first part of the subject: of an answer to a declared gate, the gate's name."""
    return finding.subject.split(SUBJECT_MARK, maxsplit=1)[0]


def _text(value: float | str | None) -> str | None:
    if isinstance(value, float):
        return f"{value:.6g}"
    return None if value is None else str(value)
