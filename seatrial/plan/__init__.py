"""Plans: ordered stages, guardrails with margins, declared slices and error budgets, as checked values."""

from seatrial.plan.asks import Ask, Catalogue, Consumers, Ownership, Parts, Served, Waivable
from seatrial.plan.conditions import Above, AtLeast, Condition, Margin, OneOf, Term
from seatrial.plan.document import Hypothesis, Plan, load_plan
from seatrial.plan.guardrails import Consequence, Exceedance, ExpectedRate, Guardrail, Mean, Source
from seatrial.plan.scores import Scores
from seatrial.plan.stages import Approval, Bound, Canary, Gates, Labels, Promotion, Shadow, Stage

__all__ = [
    "Above",
    "Approval",
    "Ask",
    "AtLeast",
    "Bound",
    "Canary",
    "Catalogue",
    "Condition",
    "Consequence",
    "Consumers",
    "Exceedance",
    "ExpectedRate",
    "Gates",
    "Guardrail",
    "Hypothesis",
    "Labels",
    "Margin",
    "Mean",
    "OneOf",
    "Ownership",
    "Parts",
    "Plan",
    "Promotion",
    "Scores",
    "Served",
    "Shadow",
    "Source",
    "Stage",
    "Term",
    "Waivable",
    "load_plan",
]
