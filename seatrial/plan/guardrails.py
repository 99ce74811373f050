"""Guardrails: metrics that may not get worse, where they are read and what shown harm does."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from seatrial.documents import Checked, ColumnName, Duration, Flag, Flaw, Name, Number, repeated
from seatrial.plan.conditions import ConditionField, InnerShare, MarginField, Weight, is_after_decision, is_unset


class Source(StrEnum):
    """Where a guardrail's badness comes from, which says how soon it is known."""

    RUNTIME = "runtime"  #: the call itself: outcome, latency
    PROXY = "proxy"  #: what the release did: score, action
    LABEL = "label"  #: what turned out to be true, later
    BUSINESS = "business"  #: what it was worth, later: an outcome or an amount that arrives as a label does

    @property
    def is_delayed(self) -> bool:
        """Whether it arrives after the decision, under the name of a label."""
        return self in (Source.LABEL, Source.BUSINESS)


class Consequence(StrEnum):
    """What shown harm does."""

    ROLL_BACK = "roll_back"  #: the champion returns to service
    FREEZE = "freeze"  #: the share is not raised
    NOTIFY = "notify"  #: the owner is told


class Exceedance(Checked):
    """A unit is bad when its number is missing, or above a quantile of the champion's, frozen before the rollout."""

    column: ColumnName = Field(description="the column of numbers, such as latency_ms")
    quantile: InnerShare = Field(
        description="the champion's quantile that must not be exceeded more often, such as 99 %"
    )


class Mean(Checked):
    """An amount of each unit instead of good or bad, or the ratio of two sums over the decisions of an entity."""

    of: ColumnName = Field(description="the column of numbers that are averaged, or label for the value of the label")
    per: ColumnName | None = Field(
        None, description="with window: the column whose sum divides, or decisions for their number; 1 when left out"
    )
    window: Duration | None = Field(
        None, description="the time for which the decisions of a unit are added up, such as 7 d; one when left out"
    )
    worse: Literal["higher", "lower"] = Field(
        "higher",
        description="higher or lower: which mean is worse; with lower, a margin of 25 % is the mean divided by 1.25",
    )
    typical: Annotated[Number, Field(gt=0)] = Field(
        description="the champion's mean before the rollout, which sharpens and never decides"
    )
    deviation: Annotated[Number, Field(gt=0)] = Field(
        description="the standard deviation of one unit before the rollout, which sharpens and never decides"
    )

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that a divisor needs a window."""
        yield self._per_has_a_window()

    def _per_has_a_window(self) -> Iterator[Flaw]:
        if self.per is not None and self.window is None:
            finding = "found a divisor without window, expected the time for which decisions are added up"
            yield Flaw(("per",), finding, "add window, or remove per")


class ExpectedRate(Checked):
    """What the guardrail looked like before the rollout: it sharpens and plans, and never decides."""

    rate: InnerShare = Field(description="the champion's rate of bad units, such as 2 %")
    delay: Duration | None = Field(
        None, description="the time after which half of the labels have arrived, such as 24 h"
    )


class Guardrail(Checked):
    """A metric that may not get worse by more than its margin: a rate of bad units, a tail, or a mean."""

    name: Name = Field(description="what people call the guardrail")
    source: Source = Field(
        description="runtime, proxy, label or business: where badness comes from, and so when it is known"
    )
    label: Name | None = Field(None, description="the name of the label, for source label or business only")
    bad_when: tuple[ConditionField, ...] = Field(
        (), min_length=1, exclude_if=is_unset, description="conditions on columns, any of which makes a unit bad"
    )
    exceeds: Exceedance | None = Field(
        None,
        exclude_if=is_unset,
        description="instead of bad_when: a column and the champion's quantile that must not be exceeded more often",
    )
    mean: Mean | None = Field(
        None, exclude_if=is_unset, description="instead of bad_when: a mean that must not get worse"
    )
    only_when: tuple[ConditionField, ...] = Field(
        (), description="conditions on columns known before the decision, any of which makes a unit count"
    )
    observed_when: tuple[ConditionField, ...] = Field(
        (),
        exclude_if=is_unset,
        description="when an action can hide the label: conditions on columns, any of which lets it be seen",
    )
    margin: MarginField = Field(description='by how much it may get worse, such as "15 % relative"')
    maturity: Duration | None = Field(
        None,
        description="the time after a decision from which a missing label counts as matured, such as 36 h",
    )
    expected: ExpectedRate | None = Field(
        None, exclude_if=is_unset, description="rate and delay before the rollout, to sharpen and to plan"
    )
    weight: Weight = Field(1.0, description="the guardrail's part of the rollback budget, relative to the others")
    slices: tuple[ColumnName, ...] = Field((), description="declared columns, each value of which is judged apart")
    consequence: Consequence = Field(description="roll_back, freeze or notify: what shown harm does")
    dry_run: Flag = Field(False, description="true to judge and record without any consequence")

    @property
    def is_censored(self) -> bool:
        """Whether an action can keep the label from ever being known."""
        return bool(self.observed_when)

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules between source, label, measure and conditions."""
        yield self._measures_one_thing()
        yield self._label_and_maturity_fit_source()
        yield self._conditions_fit_source()
        yield self._measure_fits_source()
        yield self._margin_is_relative()
        yield self._only_when_is_known_before()
        yield self._observed_when_fits_source()
        yield self._bad_units_can_be_observed()
        yield self._slices_stand_once()

    def _measures_one_thing(self) -> Iterator[Flaw]:
        declared = [key for key in ("bad_when", "exceeds", "mean") if getattr(self, key)]
        if not declared:
            description = Guardrail.model_fields["bad_when"].description
            finding = "found no such key, expected one of bad_when, exceeds and mean"
            yield Flaw(("bad_when",), finding, f"add it: bad_when is {description}")
        if len(declared) > 1:
            finding = f"found {' and '.join(declared)}, expected one of bad_when, exceeds and mean"
            yield Flaw((declared[1],), finding, "make a guardrail of each")

    def _label_and_maturity_fit_source(self) -> Iterator[Flaw]:
        for key, value in (("label", self.label), ("maturity", self.maturity)):
            if self.source.is_delayed and value is None:
                description = Guardrail.model_fields[key].description
                finding = f"found no such key, expected it with source {self.source}"
                yield Flaw((key,), finding, f"add it: {key} is {description}")
            if not self.source.is_delayed and value is not None:
                finding = f"found it with source {self.source}, expected it with source label or business only"
                yield Flaw((key,), finding, "remove it, or declare source: label")

    def _conditions_fit_source(self) -> Iterator[Flaw]:
        for at, condition in enumerate(self.bad_when):
            reads_label = "label" in condition.columns()
            if self.source.is_delayed and not reads_label:
                # Such a unit would be bad at once, while the good ones still wait for their labels.
                finding = "found a condition without label, expected every one to read it"
                yield Flaw(("bad_when", at), finding, "add label, or make this a guardrail with source proxy")
            if not self.source.is_delayed and reads_label:
                finding = f"found label in a guardrail with source {self.source}"
                yield Flaw(("bad_when", at), finding, "declare source: label, with label and maturity")

    def _measure_fits_source(self) -> Iterator[Flaw]:
        if self.exceeds is not None and (self.source.is_delayed or self.exceeds.column == "label"):
            finding = (
                f"found exceeds {self.exceeds.column} with source {self.source}, expected a column of the decision"
            )
            yield Flaw(("exceeds",), finding, "name a column of the decision log, with source runtime or proxy")
        if self.mean is not None and (self.mean.of == "label") != (self.source.is_delayed):
            finding = (
                f"found the mean of {self.mean.of} with source {self.source},"
                " expected label with source label or business only"
            )
            yield Flaw(
                ("mean", "of"), finding, "average label with source label, any other column with runtime or proxy"
            )
        if self.mean is not None and self.mean.window is not None and self.source.is_delayed:
            finding = "found window with source label, expected the label of one decision"
            yield Flaw(("mean", "window"), finding, "remove window; labels of several decisions have no common window")

    def _margin_is_relative(self) -> Iterator[Flaw]:
        if (self.exceeds or self.mean) and not self.margin.is_relative:
            finding = f"found {self.margin}, expected a margin relative to the champion"
            yield Flaw(("margin",), finding, "write it relative, such as 10 % relative")

    def _only_when_is_known_before(self) -> Iterator[Flaw]:
        for at, condition in enumerate(self.only_when):
            for column in sorted(filter(is_after_decision, condition.columns())):
                finding = f"found {column}, expected columns known before the decision"
                yield Flaw(("only_when", at), finding, f"move {column} to bad_when, or remove it")

    def _observed_when_fits_source(self) -> Iterator[Flaw]:
        if self.observed_when and not self.source.is_delayed:
            finding = f"found it with source {self.source}, expected it with source label or business only"
            yield Flaw(("observed_when",), finding, "remove it; only labels can be hidden by an action")
        for at, condition in enumerate(self.observed_when):
            if "label" in condition.columns():
                yield Flaw(("observed_when", at), "found label, expected what lets it be seen", "name the action")
        if self.observed_when and self.mean is not None:
            # Over the observed units alone the mean belongs to whom the release chose, not to the release.
            finding = "found observed_when with mean, expected a rate of units that are bad and observed"
            yield Flaw(("mean",), finding, "count units with bad_when; a mean of chosen units is no comparison")

    def _bad_units_can_be_observed(self) -> Iterator[Flaw]:
        if not self.observed_when:
            return
        for at, condition in enumerate(self.bad_when):
            if not any(condition.implies(observed) for observed in self.observed_when):
                finding = (
                    "found a condition under which the label may be hidden, expected one that observed_when covers"
                )
                remedy = "add the action that lets the label be seen; what is hidden by an action cannot be counted"
                yield Flaw(("bad_when", at), finding, remedy)

    def _slices_stand_once(self) -> Iterator[Flaw]:
        yield from repeated((("slices", at), column) for at, column in enumerate(self.slices))
