"""Gate `consumers`: whoever reads the score or the action downstream knows that it changes."""

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from seatrial.documents import Checked, Flaw, Name, Text, repeated
from seatrial.plan.asks.ask import Ask


class Consumer(Checked):
    """One reader of what the decision point answers."""

    name: Name = Field(description="the system or team that reads it")
    reads: Literal["score", "action"] = Field(
        description="score or action: what it reads; a reader of the score is broken even by a better one"
    )
    owners: tuple[Name, ...] = Field(min_length=1, description="the people who may acknowledge a change for it")
    meaning: Text | None = Field(None, description="what it does with what it reads")


class Consumers(Ask):
    """Every known reader of the decision point's answers."""

    known: tuple[Consumer, ...] = Field(min_length=1, description="every reader of the decision point's answers")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that a consumer stands once."""
        yield self._consumers_stand_once()

    def _consumers_stand_once(self) -> Iterator[Flaw]:
        yield from repeated((("known", at, "name"), each.name) for at, each in enumerate(self.known))
