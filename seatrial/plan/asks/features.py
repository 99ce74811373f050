"""Gate `features`: the serving path really has the columns that both releases read, of their types, and fresh."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from seatrial.documents import ColumnName, Count, Duration, Name, Share
from seatrial.plan.asks.ask import Ask


class Features(Ask):
    """What the newest rows of a feature source must be like."""

    source: Name = Field(description="the name of the feature source, whose place stands in the settings")
    timestamp: ColumnName = Field(description="the column with the moment at which a row became true, with its zone")
    max_age: Annotated[Duration, Field(gt=timedelta(0))] = Field(
        description="the greatest age of the newest row, such as 6 h"
    )
    rows: Annotated[Count, Field(gt=0, le=1_000_000)] = Field(
        # Enough to see a value that is missing once in a thousand rows.
        10_000,
        description="the number of newest rows that are looked at, 10 000 when left out",
    )
    min_rows: Annotated[Count, Field(gt=0)] = Field(
        # Of 300 rows without a missing value, more than 1 % missing is ruled out at 5 %.
        300,
        description="the number of rows below which nothing is said about missing values, 300 when left out",
    )
    max_missing: Annotated[Share, Field(lt=1)] = Field(
        # A nullable column that is missing everywhere says nothing.
        0.5,
        description="the part of rows in which a nullable column may be missing, 50 % when left out",
    )
