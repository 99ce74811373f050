"""What a plan asks of the score itself: its distribution, its calibration, its losses beside the champion's."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field

from seatrial.documents import Checked, ColumnName, Duration, Flaw, Name, Number, repeated


class Scores(Checked):
    """How the score is read; it explains what the guardrails find, and is no harm by itself."""

    range: tuple[Number, Number] = Field(description="the least and the greatest score of the contract, such as [0, 1]")
    label: Name | None = Field(
        None, description="the label whose value 1 the score predicts, for calibration and losses of a probability"
    )
    maturity: Duration | None = Field(
        None, description="with label: the time after a decision from which its label is counted, such as 36 h"
    )
    tolerance: Annotated[Number, Field(ge=0, le=5)] = Field(
        # A fifth on the logit scale is five points of probability in the middle, and nobody's cut-off is finer.
        0.2,
        description="how far the score may be from the rate of its outcomes, in log odds; 0.2 when left out",
    )
    slices: tuple[ColumnName, ...] = Field((), description="declared columns, each value of which is calibrated apart")
    consequence: Literal["freeze", "notify"] = Field(
        "notify", description="freeze or notify: what a shifted or miscalibrated score does; notify when left out"
    )

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules between range, label and maturity."""
        yield self._range_is_one()
        yield self._label_matures()
        yield self._label_predicts_a_probability()
        yield repeated((("slices", at), column) for at, column in enumerate(self.slices))

    def _range_is_one(self) -> Iterator[Flaw]:
        low, high = self.range
        if low >= high:
            yield Flaw(("range",), f"found {low:g} to {high:g}, expected the least score first", "exchange them")

    def _label_matures(self) -> Iterator[Flaw]:
        if (self.label is None) != (self.maturity is None):
            missing, present = ("maturity", "label") if self.maturity is None else ("label", "maturity")
            yield Flaw((missing,), f"found {present} alone, expected {missing} with it", f"add {missing}")

    def _label_predicts_a_probability(self) -> Iterator[Flaw]:
        if self.label is not None and self.range != (0, 1):
            low, high = self.range
            finding = f"found a label with scores from {low:g} to {high:g}, expected a probability, [0, 1]"
            yield Flaw(("label",), finding, "remove label; only a probability can be held against its outcomes")
