"""Gate `evaluation`: the report can be reproduced, and no guardrail is worse than the champion's on the same rows."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import Field

from seatrial.documents import ColumnName, Flaw, Name, Number, suggestion
from seatrial.plan.asks.ask import Ask
from seatrial.plan.conditions import ConditionField, MarginField, is_unset

#: Metrics that need no definition: what they mean does not depend on the release.
KNOWN_METRICS = ("log_loss", "brier", "auc")
#: Of these, those that are means over rows, so that a difference has an error.
MEANS = ("log_loss", "brier")


class Evaluation(Ask):
    """What is computed again from the rows that the release was evaluated on."""

    tolerance: Annotated[Number, Field(gt=0)] = Field(
        # Reports are rounded to six places.
        1e-6,
        description="the greatest difference between a reported metric and the one computed again, 1e-6 when left out",
    )
    rates: Mapping[Name, Annotated[tuple[ConditionField, ...], Field(min_length=1)]] = Field(
        {},
        exclude_if=lambda rates: not rates,
        description="metrics that are the part of rows for which one of the conditions on label, action or an attribute"
        " holds",
    )
    not_worse: Mapping[Name, MarginField] = Field(
        {},
        exclude_if=lambda margins: not margins,
        description="by how much log_loss, brier or a rate may be worse than the champion's on the same rows",
    )
    cluster: ColumnName | None = Field(
        None,
        exclude_if=is_unset,
        description="the column whose equal values belong together, such as the day; each row is apart when left out",
    )

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules that names are not taken, and that only means are compared."""
        yield self._rates_are_no_known_metrics()
        yield self._compared_are_means()

    def _rates_are_no_known_metrics(self) -> Iterator[Flaw]:
        for name in self.rates:
            if name in KNOWN_METRICS:
                yield Flaw(("rates", name), f"found {name!r}, which has a meaning already", "choose another name")

    def _compared_are_means(self) -> Iterator[Flaw]:
        known = (*MEANS, *self.rates)
        for name in self.not_worse:
            if name not in known:
                finding = f"found {name!r}, expected a mean over rows: {', '.join(known)}"
                yield Flaw(("not_worse", name), finding, suggestion(name, known))
