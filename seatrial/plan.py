"""Plans: ordered stages, guardrails with margins, declared slices and error budgets, as checked values."""

import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, PlainSerializer, PlainValidator

from seatrial.documents import (
    Checked,
    ColumnName,
    Count,
    Duration,
    Flag,
    Flaw,
    Name,
    Number,
    Scalar,
    Share,
    Text,
    check,
    load_yaml,
    parse_scalar,
    repeated,
    require_column,
    shown,
    suggestion,
)
from seatrial.units import SLOTS, digest_of, format_duration, share_to_slots


class Source(StrEnum):
    """Where a guardrail's badness comes from, which says how soon it is known."""

    RUNTIME = "runtime"  #: the call itself: outcome, latency
    PROXY = "proxy"  #: what the release did: score, action
    LABEL = "label"  #: what turned out to be true, later


class Consequence(StrEnum):
    """What shown harm does."""

    ROLL_BACK = "roll_back"  #: the champion returns to service
    FREEZE = "freeze"  #: the share is not raised
    NOTIFY = "notify"  #: the owner is told


@dataclass(frozen=True, slots=True)
class Margin:
    """How much harm is tolerated; evidence must rule out more."""

    #: relative: ratio of the bad rates minus one, so that 0.15 tolerates 1.15 times the champion's rate;
    #: absolute: the challenger's bad rate itself, in (0, 1)
    value: float
    is_relative: bool = True

    def __str__(self) -> str:
        percent = f"{Decimal(repr(self.value)) * 100:f}"
        whole = percent.rstrip("0").rstrip(".") if "." in percent else percent
        return f"{whole} % {'relative' if self.is_relative else 'absolute'}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The column has one of these values."""

    column: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The column is a number of at least the bound."""

    column: str
    bound: float


@dataclass(frozen=True, slots=True)
class Above:
    """The column is a number above the bound."""

    column: str
    bound: float


Term: TypeAlias = OneOf | AtLeast | Above


@dataclass(frozen=True, slots=True)
class Condition:
    """A conjunction of terms, each about another column."""

    terms: tuple[Term, ...]

    def columns(self) -> frozenset[str]:
        """Return the columns that the condition reads."""
        return frozenset(term.column for term in self.terms)


def _margin(value: object) -> Margin:
    if isinstance(value, Margin):
        return value
    match = _MARGIN.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'found {shown(value)}, expected a margin with its unit, such as "15 % relative"')
    margin = Margin(float(Decimal(match["percent"]) / 100), match["unit"] == "relative")
    greatest = MAX_MARGIN if margin.is_relative else 1.0
    if not 0.0 < margin.value < greatest:
        raise ValueError(f"found {shown(value)}, expected a margin above 0 % and below {greatest:.0%}")
    return margin


def _condition(value: object) -> Condition:
    if isinstance(value, Condition):
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"found {shown(value)}, expected a mapping of columns to values")
    return Condition(tuple(_term(require_column(name), value[name]) for name in sorted(value, key=str)))


def _term(column: str, value: object) -> Term:
    match value:
        case {"at_least": bound, **others} if not others:
            return AtLeast(column, _bound(column, bound))
        case {"above": bound, **others} if not others:
            return Above(column, _bound(column, bound))
        case Mapping():
            keys = ", ".join(map(str, value)) or "no key"
            raise ValueError(f"found {column} with {keys}, expected at_least or above, one of them")
        case [] | ():
            raise ValueError(f"found {column} with an empty list, expected at least one value")
        case list() | tuple():
            return OneOf(column, tuple(parse_scalar(item) for item in value))
        case _:
            return OneOf(column, (parse_scalar(value),))


def _bound(column: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"found {column} compared with {shown(value)}, expected a finite number")
    return float(value)


def _condition_document(condition: Condition) -> dict[str, Any]:
    return {term.column: _term_document(term) for term in condition.terms}


def _term_document(term: Term) -> Any:
    match term:
        case OneOf(values=(value,)):
            return value
        case OneOf():
            return list(term.values)
        case AtLeast():
            return {"at_least": term.bound}
        case Above():
            return {"above": term.bound}


_MARGIN = re.compile(r"(?P<percent>\d{1,9}(?:\.\d{1,9})?)\s*%\s*(?P<unit>relative|absolute)")
#: A guardrail that tolerates eleven times the champion's bad rate guards nothing.
MAX_MARGIN = 10.0

MarginField = Annotated[Margin, PlainValidator(_margin), PlainSerializer(str)]
ConditionField = Annotated[Condition, PlainValidator(_condition), PlainSerializer(_condition_document)]
#: A share of traffic that leaves some to each side.
InnerShare = Annotated[Share, Field(gt=0, lt=1)]
#: A probability of being wrong; above one half, tossing a coin is better.
Budget = Annotated[Share, Field(gt=0, le=0.5)]
Weight = Annotated[Number, Field(ge=1e-6, le=1e6)]

#: The column whose hash assigns a unit to an arm, and so the only one whose values may be counted.
ASSIGNED_BY = "unit_key"

#: Columns that the release, or what came after it, has written: to choose units by them is to choose by the outcome.
AFTER_DECISION = frozenset(
    {
        "action",
        "action_recommended",
        "action_taken",
        "arm",
        "authority",
        "cut_off",
        "feature_digest",
        "feature_misses",
        "label",
        "latency_ms",
        "outcome",
        "release_id",
        "rule",
        "score",
    }
)


def is_after_decision(column: str) -> bool:
    """Return whether `column` is written by the decision or after it, in any spelling that SQL takes for it."""
    return column.lower() in AFTER_DECISION


class PlanHead(Checked):
    """Which plan it is."""

    name: Name = Field(description="what people call the plan")
    version: Text = Field(description="the version of the plan, as text")
    decision_point: Name = Field(description="the decision point whose challengers follow the plan")


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


class Guardrail(Checked):
    """A metric that may not get worse by more than its margin: the rate of bad units among those it counts."""

    name: Name = Field(description="what people call the guardrail")
    source: Source = Field(description="runtime, proxy or label: where badness comes from, and so when it is known")
    label: Name | None = Field(None, description="the name of the label, for source label only")
    bad_when: tuple[ConditionField, ...] = Field(
        min_length=1, description="conditions on columns, any of which makes a unit bad"
    )
    only_when: tuple[ConditionField, ...] = Field(
        (), description="conditions on columns known before the decision, any of which makes a unit count"
    )
    margin: MarginField = Field(description='by how much the bad rate may get worse, such as "15 % relative"')
    maturity: Duration | None = Field(
        None,
        description="the time after a decision from which a missing label counts as matured, such as 36 h",
    )
    weight: Weight = Field(1.0, description="the guardrail's part of the rollback budget, relative to the others")
    slices: tuple[ColumnName, ...] = Field((), description="declared columns, each value of which is judged apart")
    consequence: Consequence = Field(description="roll_back, freeze or notify: what shown harm does")
    dry_run: Flag = Field(False, description="true to judge and record without any consequence")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules between source, label and conditions."""
        yield self._label_and_maturity_fit_source()
        yield self._conditions_fit_source()
        yield self._only_when_is_known_before()
        yield self._slices_stand_once()

    def _label_and_maturity_fit_source(self) -> Iterator[Flaw]:
        for key, value in (("label", self.label), ("maturity", self.maturity)):
            if self.source is Source.LABEL and value is None:
                description = Guardrail.model_fields[key].description
                finding = "found no such key, expected it with source label"
                yield Flaw((key,), finding, f"add it: {key} is {description}")
            if self.source is not Source.LABEL and value is not None:
                finding = f"found it with source {self.source}, expected it with source label only"
                yield Flaw((key,), finding, "remove it, or declare source: label")

    def _conditions_fit_source(self) -> Iterator[Flaw]:
        for at, condition in enumerate(self.bad_when):
            reads_label = "label" in condition.columns()
            if self.source is Source.LABEL and not reads_label:
                # Such a unit would be bad at once, while the good ones still wait for their labels.
                finding = "found a condition without label, expected every one to read it"
                yield Flaw(("bad_when", at), finding, "add label, or make this a guardrail with source proxy")
            if self.source is not Source.LABEL and reads_label:
                finding = f"found label in a guardrail with source {self.source}"
                yield Flaw(("bad_when", at), finding, "declare source: label, with label and maturity")

    def _only_when_is_known_before(self) -> Iterator[Flaw]:
        for at, condition in enumerate(self.only_when):
            for column in sorted(filter(is_after_decision, condition.columns())):
                finding = f"found {column}, expected columns known before the decision"
                yield Flaw(("only_when", at), finding, f"move {column} to bad_when, or remove it")

    def _slices_stand_once(self) -> Iterator[Flaw]:
        yield from repeated((("slices", at), column) for at, column in enumerate(self.slices))


class Budgets(Checked):
    """How often each decision may be wrong; they are kept apart and never added."""

    rollback: Budget = Field(description="the probability that a harmless challenger is ever rolled back, such as 5 %")
    hold: Budget = Field(description="the probability that one guardrail freezes a harmless challenger, such as 20 %")
    promote: Budget = Field(description="the probability that harm beyond a margin is promoted, such as 5 %")
    srm: Budget = Field(description="the probability that a sound assignment is called broken, such as 0.5 %")


class LabelCoverage(Checked):
    """How many matured units must have their label before labels decide."""

    at_least: Annotated[Share, Field(gt=0)] = Field(
        description="the least share of matured units with a label, such as 80 %"
    )


class EvidenceRules(Checked):
    """When evidence may still be judged."""

    max_age: Duration = Field(description="the age from which evidence is not judged but an error, such as 6 h")


class Approvers(Checked):
    """Who may approve."""

    roles: tuple[Name, ...] = Field(min_length=1, description="the roles that may approve")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that a role stands once."""
        yield self._roles_stand_once()

    def _roles_stand_once(self) -> Iterator[Flaw]:
        yield from repeated((("roles", at), role) for at, role in enumerate(self.roles))


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One question of harm, with its part of the rollback budget."""

    #: name of the guardrail
    guardrail: str
    #: column and value of the slice; None for all units
    slice_column: str | None
    slice_value: str | None
    #: probability with which this hypothesis alone may be rejected although the challenger is harmless
    alpha: float


class Plan(Checked):
    """Ordered stages with what may not get worse on the way, and how sure one must be."""

    plan: PlanHead = Field(description="name, version and decision point")
    segment: Name | None = Field(None, description="the one segment of the challenger that is rolled out")
    unit: ColumnName = Field(description="the column that identifies what one count is, such as unit_key")
    stages: tuple[StageField, ...] = Field(min_length=1, description="the stages in their order, gates first")
    guardrails: tuple[Guardrail, ...] = Field(min_length=1, description="the metrics that may not get worse")
    slices: Mapping[ColumnName, Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(
        {}, description="the columns and values that guardrails may judge apart"
    )
    budgets: Budgets = Field(description="how often each decision may be wrong")
    label_coverage: LabelCoverage = Field(description="how many matured units must have their label")
    evidence: EvidenceRules = Field(description="when evidence may still be judged")
    lease: Duration = Field(description="the time until unattended routers return to the champion, such as 12 h")
    on_deadline: Literal["ask", "roll_back"] = Field(
        description="ask or roll_back: what happens when nothing is decided in time"
    )
    approvers: Approvers = Field(description="who may approve")

    @property
    def name(self) -> str:
        """What people call the plan."""
        return self.plan.name

    @property
    def version(self) -> str:
        """The version that people gave the plan."""
        return self.plan.version

    @property
    def decision_point(self) -> str:
        """The decision point whose challengers follow the plan."""
        return self.plan.decision_point

    @property
    def id(self) -> str:
        """The digest of the canonical plan: equal for ``1 d`` and ``24 h``, for ``5 %`` and 0.05."""
        return digest_of(self.document())

    def stage_names(self) -> tuple[str, ...]:
        """Return one name for each stage: its kind, numbered from 1 where the kind repeats."""
        kinds = [stage.stage for stage in self.stages]
        return tuple(
            f"{kind}-{kinds[: at + 1].count(kind)}" if kinds.count(kind) > 1 else kind for at, kind in enumerate(kinds)
        )

    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """Return every question whose answer may roll back, with its part of ``budgets.rollback``.

        Guardrails with consequence roll_back spend the budget by weight: half on all units, half over the declared
        values of their slices, evenly within a guardrail; all of it on all units when none has slices. A dry run
        keeps its part, so that ending it moves no other alpha. A guardrail that freezes or notifies is not here: its
        price is a pause, and it is judged at ``budgets.hold`` without a share.

        Guarantee: a challenger that does no harm on any hypothesis is rolled back with probability at most
        ``budgets.rollback``, however often it is looked at, when each hypothesis is rejected at E >= 1 / alpha.
        Assumption: each E is an e-process under its hypothesis. Source: Ville's inequality (1939) for each, the union
        bound over all. ``math.fsum`` of the alphas never exceeds the budget: each is rounded down.
        """
        guardrails = [each for each in self.guardrails if each.consequence is Consequence.ROLL_BACK]
        sliced = [each for each in guardrails if each.slices]
        budget = Fraction(self.budgets.rollback)
        overall = budget / 2 if sliced else budget
        table = [
            Hypothesis(each.name, None, None, _rounded_down(part)) for each, part in _by_weight(guardrails, overall)
        ]
        for each, part in _by_weight(sliced, budget - overall):
            values = [(column, value) for column in each.slices for value in self.slices[column]]
            alpha = _rounded_down(part / len(values))
            table.extend(Hypothesis(each.name, column, value, alpha) for column, value in values)
        return tuple(table)

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules between unit, stages, guardrails and slices."""
        yield self._a_unit_is_what_is_assigned()
        yield self._gates_come_first()
        yield self._the_last_stage_fits_the_segment()
        yield self._labels_come_before_promotion()
        yield self._stages_keep_their_order()
        yield self._a_canary_exists()
        yield self._an_approval_precedes_promotion()
        yield self._approvals_precede_exposure()
        yield self._shares_rise()
        yield self._promotion_does_not_shrink()
        yield self._guardrails_stand_once()
        yield self._a_guardrail_rolls_back()
        yield self._labels_have_a_guardrail()
        yield self._labels_can_mature()
        yield self._guardrail_slices_are_declared()
        yield self._slices_are_known_before()
        yield self._slice_values_stand_once()

    def _a_unit_is_what_is_assigned(self) -> Iterator[Flaw]:
        if self.unit != ASSIGNED_BY:
            finding = f"found {self.unit}, expected {ASSIGNED_BY}, the column that assignment hashes"
            yield Flaw(("unit",), finding, f"count {ASSIGNED_BY}: its requests are not independent, and share one arm")

    def _gates_come_first(self) -> Iterator[Flaw]:
        if (kind := self.stages[0].stage) != "gates":
            yield Flaw(("stages", 0, "stage"), f"found {kind!r}, expected gates first", "begin with a gates stage")

    def _the_last_stage_fits_the_segment(self) -> Iterator[Flaw]:
        last = self.stages[-1].stage
        at = ("stages", len(self.stages) - 1, "stage")
        if self.segment is None and last != "promotion":
            yield Flaw(at, f"found {last!r}, expected promotion last", "end with a promotion stage")
        if self.segment is not None and last != "labels":
            finding = f"found {last!r} in a plan for one segment, expected labels last"
            remedy = "end with labels; a champion serves everybody, so promote by a plan for all segments"
            yield Flaw(at, finding, remedy)

    def _labels_come_before_promotion(self) -> Iterator[Flaw]:
        kinds = [stage.stage for stage in self.stages]
        if "promotion" in kinds and "labels" not in kinds:
            finding = "found no labels stage, expected one after the canary"
            yield Flaw(("stages",), finding, "add a labels stage: without matured labels nothing is promoted")

    def _stages_keep_their_order(self) -> Iterator[Flaw]:
        ordered = [(at, stage.stage) for at, stage in enumerate(self.stages) if stage.stage != "approval"]
        for (_, earlier), (at, later) in pairwise(ordered):
            step = STAGE_ORDER.index(later) - STAGE_ORDER.index(earlier)
            if step < 0 or (step == 0 and later != "canary"):
                finding = f"found {later!r} after {earlier!r}, expected the order {', '.join(STAGE_ORDER)}"
                yield Flaw(("stages", at, "stage"), finding, f"move or remove this {later} stage")

    def _a_canary_exists(self) -> Iterator[Flaw]:
        if "canary" not in [stage.stage for stage in self.stages]:
            finding = "found no canary stage, expected at least one before promotion"
            yield Flaw(("stages",), finding, "add a canary stage, for example with share: 5 %")

    def _an_approval_precedes_promotion(self) -> Iterator[Flaw]:
        for at, (earlier, later) in enumerate(pairwise(self.stages), 1):
            if later.stage == "promotion" and earlier.stage != "approval":
                finding = f"found promotion directly after {earlier.stage!r}, expected an approval between them"
                yield Flaw(("stages", at), finding, "add an approval stage before promotion")

    def _approvals_precede_exposure(self) -> Iterator[Flaw]:
        kinds = [stage.stage for stage in self.stages]
        for at, (stage, follower) in enumerate(zip(self.stages, [*kinds[1:], "nothing"], strict=True)):
            if not isinstance(stage, Approval):
                continue
            if follower not in {"canary", "promotion"}:
                finding = f"found an approval before {follower!r}, expected it before a canary or promotion"
                yield Flaw(("stages", at), finding, "move or remove the approval")
            elif stage.before not in {None, follower}:
                finding = f"found {stage.before!r}, expected the next stage, which is {follower!r}"
                yield Flaw(("stages", at, "before"), finding, "correct it, or move the approval")

    def _canaries(self) -> list[tuple[int, Canary]]:
        return [(at, stage) for at, stage in enumerate(self.stages) if isinstance(stage, Canary)]

    def _shares_rise(self) -> Iterator[Flaw]:
        for (_, earlier), (at, later) in pairwise(self._canaries()):
            if later.share <= earlier.share:
                finding = f"found {later.share:.2%} after {earlier.share:.2%}, expected a larger share"
                yield Flaw(("stages", at, "share"), finding, "raise this share or remove the step")

    def _promotion_does_not_shrink(self) -> Iterator[Flaw]:
        # In slots, for 1 - 0.9 is less than 0.1 in floats.
        left = SLOTS - max((share_to_slots(canary.share) for _, canary in self._canaries()), default=0)
        for at, stage in enumerate(self.stages):
            if isinstance(stage, Promotion) and share_to_slots(stage.holdback) > left:
                finding = f"found {stage.holdback:.2%}, expected at most {left / SLOTS:.2%}, what the last canary left"
                yield Flaw(("stages", at, "holdback"), finding, "lower the holdback")

    def _guardrails_stand_once(self) -> Iterator[Flaw]:
        yield from repeated((("guardrails", at, "name"), each.name) for at, each in enumerate(self.guardrails))

    def _a_guardrail_rolls_back(self) -> Iterator[Flaw]:
        if not any(each.consequence is Consequence.ROLL_BACK and not each.dry_run for each in self.guardrails):
            finding = "found none with consequence roll_back that is not a dry run, expected at least one"
            yield Flaw(("guardrails",), finding, "declare the harm that must end a rollout")

    def _has_label_guardrail(self) -> bool:
        return any(each.source is Source.LABEL and not each.dry_run for each in self.guardrails)

    def _labels_have_a_guardrail(self) -> Iterator[Flaw]:
        if self._has_label_guardrail():
            return
        for at, stage in enumerate(self.stages):
            if stage.stage == "labels":
                finding = "found a labels stage and no guardrail with source label that is not a dry run"
                yield Flaw(("stages", at), finding, "add such a guardrail, or remove the stage")

    def _labels_can_mature(self) -> Iterator[Flaw]:
        slowest = max((each for each in self.guardrails if each.maturity), key=_maturity, default=None)
        for at, stage in enumerate(self.stages):
            if slowest is not None and isinstance(stage, Labels) and stage.deadline <= _maturity(slowest):
                finding = (
                    f"found {format_duration(stage.deadline)}, expected more than the maturity of"
                    f" {slowest.name!r} ({format_duration(_maturity(slowest))})"
                )
                yield Flaw(("stages", at, "deadline"), finding, "lengthen the deadline")

    def _guardrail_slices_are_declared(self) -> Iterator[Flaw]:
        for at, each in enumerate(self.guardrails):
            for position, column in enumerate(each.slices):
                if column not in self.slices:
                    finding = f"found the undeclared slice {column!r}, expected a column of slices"
                    yield Flaw(("guardrails", at, "slices", position), finding, suggestion(column, self.slices))

    def _slices_are_known_before(self) -> Iterator[Flaw]:
        for column in filter(is_after_decision, self.slices):
            finding = f"found {column}, expected columns known before the decision"
            yield Flaw(("slices", column), finding, "remove it: such a slice holds other units in each arm")

    def _slice_values_stand_once(self) -> Iterator[Flaw]:
        for column, values in self.slices.items():
            yield from repeated((("slices", column, at), value) for at, value in enumerate(values))


def _maturity(guardrail: Guardrail) -> timedelta:
    return guardrail.maturity or timedelta(0)


def _by_weight(guardrails: Sequence[Guardrail], budget: Fraction) -> Iterator[tuple[Guardrail, Fraction]]:
    total = sum((Fraction(each.weight) for each in guardrails), Fraction(0))
    return ((each, budget * Fraction(each.weight) / total) for each in guardrails)


def _rounded_down(exact: Fraction) -> float:
    nearest = float(exact)
    return nearest if Fraction(nearest) <= exact else math.nextafter(nearest, 0.0)


def load_plan(path: Path) -> Plan:
    """Return the plan in the file at `path`.

    Raises
    ------
    InvalidDocumentError
        With every problem of the file.
    """
    return check(load_yaml(path), Plan)
