"""Gate `actions`: every action of the policy stands in the catalogue of what people downstream carry out."""

from collections.abc import Mapping

from pydantic import Field

from seatrial.documents import Flag, Name
from seatrial.plan.asks.ask import Ask


class Actions(Ask):
    """The actions that are carried out downstream, and whether each can be undone."""

    reversible: Mapping[Name, Flag] = Field(
        min_length=1,
        description="every action that is carried out downstream, and whether it can be undone without loss",
    )
