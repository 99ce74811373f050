"""The stages of a plan, each with the rules of its own."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from seatrial.documents import Checked, Count, Duration, Flaw, Name, Number, Share
from seatrial.plan.asks import (
    Ask,
    Capacity,
    Catalogue,
    Consumers,
    CutOffs,
    Distribution,
    Evaluation,
    Features,
    Latency,
    Ownership,
    Parts,
    Semantics,
    Served,
    Slices,
)
from seatrial.plan.conditions import InnerShare, Margin, MarginField, is_unset
from seatrial.units import format_duration


class Bound(Checked):
    """What an offline metric of the challenger must reach before any traffic."""

    metric: Name = Field(description="a metric of the release's evaluation")
    at_most: Number | None = Field(None, description="the greatest value that passes")
    at_least: Number | None = Field(None, description="the least value that passes")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that the bound bounds something."""
        yield self._bounds_something()

    def _bounds_something(self) -> Iterator[Flaw]:
        if self.at_most is None and self.at_least is None:
            yield Flaw((), "found a metric without at_most or at_least", "add the value that passes")
        elif self.at_most is not None and self.at_least is not None and self.at_most < self.at_least:
            finding = f"found {self.at_most:g}, expected at least at_least, which is {self.at_least:g}"
            yield Flaw(("at_most",), finding, "correct the bound that is wrong, for no value passes")


class Gates(Checked):
    """The questions that need no traffic."""

    stage: Literal["gates"] = Field(description="gates")
    bounds: tuple[Bound, ...] = Field(min_length=1, description="what the evaluation must have reached")
    probe_max_age: Duration = Field(
        description="the greatest age of the last successful load probe of the rollback target, such as 1 d"
    )
    deadline: Duration = Field(
        # Nothing is waited for here but the loading of two models.
        timedelta(days=1),
        description="the time after which on_deadline holds, 1 d when left out",
    )
    # Declared gates, one optional key each; `asked` finds them by their type.
    parts: Parts | None = Field(
        None, exclude_if=is_unset, description="whether the parts of the release belong together; {} asks it"
    )
    served: Served | None = Field(
        None, exclude_if=is_unset, description="the contract of the serving path; not asked when left out"
    )
    catalogue: Catalogue | None = Field(
        None, exclude_if=is_unset, description="the actions that are carried out downstream; not asked when left out"
    )

    consumers: Consumers | None = Field(
        None, exclude_if=is_unset, description="who reads score or action downstream; not asked when left out"
    )
    ownership: Ownership | None = Field(
        None, exclude_if=is_unset, description="who must approve, by risk tier; not asked when left out"
    )
    features: Features | None = Field(
        None, exclude_if=is_unset, description="what the serving path must have; not asked when left out"
    )
    evaluation: Evaluation | None = Field(
        None,
        exclude_if=is_unset,
        description="what is computed again from the rows of the evaluation report; not asked when left out",
    )

    latency: Latency | None = Field(
        None,
        exclude_if=is_unset,
        description="the load under which p99 and memory are promised; not asked when left out",
    )

    semantics: Semantics | None = Field(
        None, exclude_if=is_unset, description="whether columns mean what they meant to the champion; {} asks it"
    )
    distribution: Distribution | None = Field(
        None, exclude_if=is_unset, description="the shape of scores beside the champion's; {} asks it"
    )
    slices: Slices | None = Field(
        None, exclude_if=is_unset, description="what critical slices must reach; not asked when left out"
    )
    cut_offs: CutOffs | None = Field(
        None, exclude_if=is_unset, description="by how much actions may become more or less frequent; else not asked"
    )
    capacity: Capacity | None = Field(
        None, exclude_if=is_unset, description="what reviewers can bear in a day; not asked when left out"
    )

    def asked(self) -> Mapping[str, Ask]:
        """Return the declared gates by name, in the order in which people read them."""
        keys = type(self).model_fields
        return {name: ask for name in keys if isinstance(ask := getattr(self, name), Ask)}


class ShadowCost(Checked):
    """What copies for the shadow may cost; routers that cannot keep to it copy fewer, and then the shadow pauses."""

    sampling: Annotated[Share, Field(gt=0)] = Field(
        1.0, description="the part of the units whose requests are copied, 100 % when left out"
    )
    max_per_s: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="the greatest number of copies a second on one router; no limit when left out"
    )
    max_concurrent: Count = Field(
        # What a scorer in the router's own process answers without a queue.
        8,
        description="the greatest number of copies under way at once on one router, 8 when left out",
    )
    dependencies: Mapping[Name, Annotated[Number, Field(gt=0)]] = Field(
        {}, description="the extra requests a second that each dependency may see from one router"
    )
    pause: Duration = Field(
        # Long enough for a peak to pass, short beside a soak of a day.
        timedelta(hours=1),
        description="the time after which a paused shadow is tried again, 1 h when left out",
    )


class Shadow(Checked):
    """The challenger answers copies of requests and nobody acts on it."""

    stage: Literal["shadow"] = Field(description="shadow")
    soak: Duration = Field(description="the least time the stage lasts, such as 1 d")
    deadline: Duration = Field(description="the time after which on_deadline holds, such as 7 d")
    min_units: Count = Field(description="the number of units that both releases must have answered")
    max_flip_rate: InnerShare = Field(
        description="the share of units whose action may differ, which must be ruled out to be larger, such as 40 %"
    )
    max_failed: InnerShare = Field(
        # The least that evidence of a few hundred calls without a failure can show at an error rate of 5 %.
        0.01,
        description="the share of calls that may fail, which must be ruled out to be larger, 1 % when left out",
    )
    max_brier_increase: InnerShare | None = Field(
        None,
        exclude_if=is_unset,
        description="with scores.label: the increase of the Brier loss that must be ruled out on the same requests",
    )

    cost: ShadowCost | None = Field(
        None, exclude_if=is_unset, description="what copies may cost; every request is copied when left out"
    )

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that the deadline comes after the soak."""
        yield _deadline_after_soak(self)


class Approval(Checked):
    """A named person must say yes to the evidence."""

    stage: Literal["approval"] = Field(description="approval")
    expires: Duration = Field(description="the time after which an unanswered request lapses, such as 3 d")
    before: Literal["canary", "promotion"] | None = Field(
        None, description="the kind of the next stage, for the reader: canary or promotion"
    )


class Canary(Checked):
    """The challenger answers a share of real requests."""

    stage: Literal["canary"] = Field(description="canary")
    share: InnerShare = Field(description="the challenger's part of traffic, such as 5 %")
    soak: Duration = Field(description="the least time the step lasts, such as 2 d")
    deadline: Duration = Field(
        # Two weeks see every weekday twice; a step that cannot tell by then needs a person.
        timedelta(days=14),
        description="the time after which on_deadline holds, 14 d when left out",
    )
    rule_out: MarginField = Field(
        # Before more traffic, harm of this size must be impossible; the margins themselves decide on promotion.
        Margin(1.0),
        description='the harm that must be ruled out before the share grows, "100 % relative" when left out',
    )

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules that the deadline comes after the soak and `rule_out` holds for any guardrail."""
        yield _deadline_after_soak(self)
        yield self._rule_out_is_relative()

    def _rule_out_is_relative(self) -> Iterator[Flaw]:
        if not self.rule_out.is_relative:
            finding = f"found {self.rule_out}, expected a relative margin: it is held against every guardrail"
            yield Flaw(("rule_out",), finding, "write it relative to the champion, such as 100 % relative")


def _deadline_after_soak(stage: Shadow | Canary) -> Iterator[Flaw]:
    if stage.deadline <= stage.soak:
        finding = f"found {format_duration(stage.deadline)}, expected more than soak, {format_duration(stage.soak)}"
        yield Flaw(("deadline",), finding, "write a later deadline or shorten the soak")


class Labels(Checked):
    """The last share is kept until matured labels decide."""

    stage: Literal["labels"] = Field(description="labels")
    deadline: Duration = Field(description="the time after which on_deadline holds, such as 21 d")


class Promotion(Checked):
    """The challenger becomes champion, and is watched against a holdback of the one before."""

    stage: Literal["promotion"] = Field(description="promotion")
    holdback: Annotated[Share, Field(lt=1)] = Field(
        description="the share that the champion before keeps while the new one is watched, such as 5 %"
    )
    watch: Duration = Field(description="the time for which harm still returns the champion before, such as 14 d")


Stage: TypeAlias = Gates | Shadow | Approval | Canary | Labels | Promotion
StageField = Annotated[Stage, Field(discriminator="stage")]

#: The order of stages. Only canary steps repeat; an approval stands before a canary or the promotion.
STAGE_ORDER = ("gates", "shadow", "canary", "labels", "promotion")
