"""Gate `cut_offs`: on the scores of the new model the cut-offs act about as often as the champion does."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from seatrial.documents import ColumnName, Name
from seatrial.plan.asks.ask import Ask
from seatrial.plan.conditions import InnerShare, MarginField, is_unset


class CutOffs(Ask):
    """By how much the part of rows with each action may differ from the champion's, in each segment."""

    max_change: Annotated[Mapping[Name, MarginField], Field(min_length=1)] = Field(
        description="for each action, by how much its part of the rows may rise or fall, in every segment"
    )
    delta: InnerShare = Field(
        0.05,
        description="the chance that one of the proposed cut-offs acts more often than the champion; 5 % when left out",
    )
    cluster: ColumnName | None = Field(
        None,
        exclude_if=is_unset,
        description="the column whose equal values belong together, such as the day; each row is apart when left out",
    )
