"""Gate `served`: the serving path still promises every column that both releases read."""

from pydantic import Field

from seatrial.documents import Name
from seatrial.plan.asks.ask import Ask


class Served(Ask):
    """The feature contract that the serving path keeps."""

    contract: Name = Field(description="the name of a feature contract in the folder that the settings name")
