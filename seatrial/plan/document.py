"""The plan as a whole: stages in their order, error budgets, and the rules between its parts."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from seatrial.change import Change
from seatrial.documents import (
    Checked,
    ColumnName,
    Count,
    Duration,
    Flaw,
    Name,
    Share,
    Text,
    check,
    load_yaml,
    repeated,
    suggestion,
)
from seatrial.evidence import Key
from seatrial.plan.conditions import ACTION_COLUMNS, ASSIGNED_BY, Budget, is_after_decision, is_unset
from seatrial.plan.guardrails import Consequence, Guardrail
from seatrial.plan.scores import Scores
from seatrial.plan.stages import STAGE_ORDER, Approval, Canary, Gates, Labels, Promotion, Shadow, StageField
from seatrial.units import SLOTS, digest_of, format_duration, share_to_slots


class PlanHead(Checked):
    """Which plan it is."""

    name: Name = Field(description="what people call the plan")
    version: Text = Field(description="the version of the plan, as text")
    decision_point: Name = Field(description="the decision point whose challengers follow the plan")


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


#: A log of which one row in a thousand is bad is not the log that the plan was written for.
MAX_SET_ASIDE = 0.001


class EvidenceRules(Checked):
    """When evidence may still be judged."""

    max_age: Duration = Field(description="the age from which evidence is not judged but an error, such as 6 h")
    conflicts: Literal["last", "first"] = Field(
        "last",
        exclude_if=lambda rule: rule == "last",
        description="last or first: which arrival of a label counts when it came more than once; last when left out",
    )
    max_set_aside: Share = Field(
        MAX_SET_ASIDE,
        exclude_if=lambda share: share == MAX_SET_ASIDE,
        description="the share of bad rows from which evidence is an error; 0.1 % when left out",
    )


class ExpectedTraffic(Checked):
    """What planning counts on; no decision reads it."""

    units_per_day: Count = Field(description="the number of new units a day in the plan's segment, such as 900")


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
    #: log E from which it is rejected
    log_threshold: float = field(init=False)
    #: where its counts are
    key: Key = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_threshold", math.log(1.0 / self.alpha))
        object.__setattr__(self, "key", Key(self.guardrail, self.slice_column, self.slice_value))

    @property
    def slice_name(self) -> str:
        """The slice as people read it."""
        return f"{self.slice_column}={self.slice_value}"


class Plan(Checked):
    """Ordered stages with what may not get worse on the way, and how sure one must be."""

    plan: PlanHead = Field(description="name, version and decision point")
    segment: Name | None = Field(None, description="the one segment of the challenger that is rolled out")
    unit: ColumnName = Field(description="the column that identifies what one count is, such as unit_key")
    changes: tuple[Change, ...] = Field(
        (),
        exclude_if=is_unset,
        description="the kinds of change that may follow the plan: policy, routing, schema, runtime, model; any when"
        " left out",
    )
    stages: tuple[StageField, ...] = Field(min_length=1, description="the stages in their order, gates first")
    guardrails: tuple[Guardrail, ...] = Field(min_length=1, description="the metrics that may not get worse")
    slices: Mapping[ColumnName, Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(
        {}, description="the columns and values that guardrails may judge apart"
    )
    scores: Scores | None = Field(
        None, exclude_if=is_unset, description="what is asked of the score itself; nothing when left out"
    )
    expected: ExpectedTraffic | None = Field(
        None, exclude_if=is_unset, description="the traffic that `seatrial plan` counts on"
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

    @property
    def gates(self) -> Gates:
        """The first stage: the questions that need no traffic."""
        first = self.stages[0]
        if not isinstance(first, Gates):
            raise TypeError(f"stage 0: found {first.stage}, expected gates; `flaws` refuses such a plan")
        return first

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
        return self._hypotheses

    def __copy__(self) -> Self:
        """Return a copy; `model_copy` may give it other guardrails or budgets, so that it counts anew."""
        copied = super().__copy__()
        copied.__dict__.pop("_hypotheses", None)
        return copied

    @cached_property
    def _hypotheses(self) -> tuple[Hypothesis, ...]:
        # Every look asks, and exact fractions take as long as the evidence of a hundred hypotheses.
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
        yield self._score_slices_are_declared()
        yield self._paired_losses_have_a_label()
        yield self._censored_labels_are_not_scored()
        yield self._censored_labels_have_an_action_guardrail()

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
        return any(each.source.is_delayed and not each.dry_run for each in self.guardrails)

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

    def _score_slices_are_declared(self) -> Iterator[Flaw]:
        for at, column in enumerate(self.scores.slices if self.scores else ()):
            if column not in self.slices:
                finding = f"found the undeclared slice {column!r}, expected a column of slices"
                yield Flaw(("scores", "slices", at), finding, suggestion(column, self.slices))

    def _paired_losses_have_a_label(self) -> Iterator[Flaw]:
        for at, stage in enumerate(self.stages):
            is_asked = isinstance(stage, Shadow) and stage.max_brier_increase is not None
            if is_asked and (self.scores is None or self.scores.label is None):
                finding = "found a bound on the Brier loss without scores.label, expected the label that scores predict"
                yield Flaw(("stages", at, "max_brier_increase"), finding, "add scores with label and maturity")

    def _censored_labels_are_not_scored(self) -> Iterator[Flaw]:
        censored = {each.label for each in self.guardrails if each.is_censored}
        if self.scores is not None and self.scores.label in censored:
            finding = f"found {self.scores.label!r}, which an action can hide, expected a label that is always seen"
            remedy = "remove label; over the units that a release let through, calibration and losses flatter it"
            yield Flaw(("scores", "label"), finding, remedy)

    def _censored_labels_have_an_action_guardrail(self) -> Iterator[Flaw]:
        counted = [
            condition
            for each in self.guardrails
            if not each.source.is_delayed and not each.dry_run and each.consequence is not Consequence.NOTIFY
            for condition in each.bad_when
            if condition.columns() & ACTION_COLUMNS
        ]
        for at, each in enumerate(self.guardrails):
            # A rate of the action that lets the label be seen falls when more are refused.
            if each.is_censored and all(any(c.implies(seen) for seen in each.observed_when) for c in counted):
                finding = "found a label that an action can hide and no guardrail on the rate of such an action"
                remedy = "add one with consequence roll_back or freeze: who refuses everybody has no bad label"
                yield Flaw(("guardrails", at, "observed_when"), finding, remedy)

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
