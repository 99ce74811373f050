"""What every declared gate has in common."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from seatrial.documents import Checked
from seatrial.verdict import Verdict


class Waivable(StrEnum):
    """Which answers of a gate a named person may waive; a gate that could not be asked is waived by nobody."""

    NEVER = "never"
    UNDECIDED = "undecided"  #: those that are INCONCLUSIVE
    FAILED = "failed"  #: those that FAIL as well


class Ask(Checked):
    """A gate as a plan declares it; the key under which it stands in the stage of gates is its name."""

    #: Whether the gate measures the machine, so that no other gate may run beside it.
    is_alone: ClassVar[bool] = False

    waivable: Waivable = Field(
        # A slice too small to tell needs a person; a proven failure needs a plan that foresaw the exception.
        Waivable.UNDECIDED,
        exclude_if=lambda waivable: waivable is Waivable.UNDECIDED,
        description="never, undecided or failed: the worst answer that a person may waive; undecided when left out",
    )

    def may_waive(self, verdict: Verdict) -> bool:
        """Return whether a person may waive an answer of this verdict; a PASS needs none, an ERROR takes none."""
        match self.waivable:
            case Waivable.NEVER:
                return False
            case Waivable.UNDECIDED:
                return verdict is Verdict.INCONCLUSIVE
            case Waivable.FAILED:
                return verdict in (Verdict.INCONCLUSIVE, Verdict.FAIL)
