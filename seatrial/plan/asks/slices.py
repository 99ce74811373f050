"""Gate `slices`: critical slices are decided well enough, each for itself."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import Field

from seatrial.documents import Checked, ColumnName, Flaw, Name, Number, Text, suggestion
from seatrial.plan.asks.ask import Ask
from seatrial.plan.asks.evaluation import MEANS
from seatrial.plan.conditions import ConditionField, is_unset


class Least(Checked):
    """What one metric must reach in every critical slice."""

    metric: Name = Field(description="log_loss, brier, or a rate defined beside")
    at_most: Number = Field(description="the greatest value that is good enough")


class Slices(Ask):
    """The slices that must not be sacrificed to the mean of all."""

    critical: Mapping[ColumnName, Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(
        min_length=1, description="the values of each attribute that are judged apart"
    )
    quality: tuple[Least, ...] = Field(min_length=1, description="what each slice must reach")
    rates: Mapping[Name, Annotated[tuple[ConditionField, ...], Field(min_length=1)]] = Field(
        {},
        exclude_if=lambda rates: not rates,
        description="metrics that are the part of rows for which one of the conditions holds",
    )
    cluster: ColumnName | None = Field(
        None,
        exclude_if=is_unset,
        description="the column whose equal values belong together, such as the day; each row is apart when left out",
    )

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that a metric is a known mean."""
        yield self._metrics_are_means()

    def _metrics_are_means(self) -> Iterator[Flaw]:
        known = (*MEANS, *self.rates)
        for at, each in enumerate(self.quality):
            if each.metric not in known:
                finding = f"found {each.metric!r}, expected a mean over rows: {', '.join(known)}"
                yield Flaw(("quality", at, "metric"), finding, suggestion(each.metric, known))
