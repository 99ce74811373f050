"""Gate `capacity`: people can review what the release sends them, and what cannot be undone stays rare and apart."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from seatrial.documents import ColumnName, Name, Number
from seatrial.plan.asks.ask import Ask
from seatrial.plan.conditions import InnerShare, is_unset


class Capacity(Ask):
    """What people and downstream systems can bear in a day."""

    requests_per_day: Annotated[Number, Field(gt=0, le=1e9)] = Field(
        description="the requests of a day for which there must be room; name a busy one"
    )
    review: tuple[Name, ...] = Field(min_length=1, description="the actions that put a request into the review queue")
    reviews_per_day: Annotated[Number, Field(gt=0)] = Field(description="the reviews that people can do in a day")
    max_overflow: InnerShare = Field(
        0.01, description="the chance that a day brings more than that, which must be ruled out; 1 % when left out"
    )
    irreversible_per_day: Mapping[Name, Annotated[Number, Field(gt=0)]] = Field(
        {},
        exclude_if=lambda caps: not caps,
        description="for each action that cannot be undone, how often a day it may be taken",
    )
    cluster: ColumnName | None = Field(
        None,
        exclude_if=is_unset,
        description="the column whose equal values belong together, such as the day; each row is apart when left out",
    )
