"""Gate `ownership`: somebody answers for the release, and enough others may approve one of its risk tier."""

from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field

from seatrial.documents import Checked, Count, Flaw, Name
from seatrial.plan.asks.ask import Ask
from seatrial.release import RiskTier


class Tier(Checked):
    """Who must approve a release of one risk tier."""

    roles: tuple[Name, ...] = Field(min_length=1, description="the roles that may approve a release of this tier")
    approvals: Count = Field(1, description="the approval stages that the plan must hold; 1 when left out")


class Ownership(Ask):
    """Who must approve, by the risk tier that the release declares."""

    tiers: Mapping[RiskTier, Tier] = Field(description="who must approve, for each of low, medium and high")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that every tier stands in the table."""
        yield self._every_tier_stands()

    def _every_tier_stands(self) -> Iterator[Flaw]:
        for tier in RiskTier:
            if tier not in self.tiers:
                yield Flaw(("tiers", tier.value), "found no such tier, expected it", "say who approves such a release")
