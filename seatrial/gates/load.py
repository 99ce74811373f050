"""Whether copies for the shadow keep to what they may cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seatrial.gates.finding import Finding, Question
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class ShadowLoad:
    """What one router measured of the copies it sends."""

    router: str
    sampling: int  #: slots of 10,000 whose units it copies now; fewer than planned after it gave way
    sent: int  #: copies sent under the present snapshot
    shed: int  #: copies that were due and not sent
    per_s: float  #: copies a second, lately
    dependencies: Mapping[str, float] = field(default_factory=dict)  #: extra requests a second, by dependency
    is_held: bool = True  #: False when even its least sampling exceeds the budget

    def document(self) -> dict[str, Any]:
        """Return the load as plain data."""
        return {
            "router": self.router,
            "sampling": self.sampling,
            "sent": self.sent,
            "shed": self.shed,
            "per_s": self.per_s,
            "dependencies": dict(self.dependencies),
            "is_held": self.is_held,
        }


def load(loads: Sequence[ShadowLoad]) -> Finding:
    """Return whether every router keeps to the budget; one that cannot makes the shadow pause.

    No router that says what its copies cost is no evidence that they cost little.
    """
    broken = [each for each in loads if not each.is_held]
    numbers: dict[str, float | int | str | None] = {
        "routers": len(loads),
        "sent": sum(each.sent for each in loads),
        "shed": sum(each.shed for each in loads),
        "per_s": sum(each.per_s for each in loads),
    }
    if not loads:
        reason = "no router reports what copies for the shadow cost"
        return Finding(Question.LOAD, "shadow load", Verdict.INCONCLUSIVE, reason, numbers)
    if broken:
        names = ", ".join(each.router for each in broken)
        return Finding(Question.LOAD, "shadow load", Verdict.FAIL, f"{names} cannot keep to the budget", numbers)
    reason = f"{numbers['per_s']:.3g} copies a second on {len(loads)} routers, within the budget"
    return Finding(Question.LOAD, "shadow load", Verdict.PASS, reason, numbers)
