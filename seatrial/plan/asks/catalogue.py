"""Gate `catalogue`: every action of the policy is carried out by somebody downstream, and undone as it says."""

from collections.abc import Mapping

from pydantic import Field

from seatrial.documents import Flag, Name
from seatrial.plan.asks.ask import Ask


class Catalogue(Ask):
    """The actions that are carried out downstream, and whether each can be undone."""

    actions: Mapping[Name, Flag] = Field(
        min_length=1,
        description="every action that is carried out downstream, and true when it can be undone without loss",
    )
