"""What a plan may ask of a release before any traffic: one module for each gate, with its declaration."""

from seatrial.plan.asks.ask import Ask, Waivable
from seatrial.plan.asks.capacity import Capacity
from seatrial.plan.asks.catalogue import Catalogue
from seatrial.plan.asks.consumers import Consumer, Consumers
from seatrial.plan.asks.cut_offs import CutOffs
from seatrial.plan.asks.distribution import Distribution
from seatrial.plan.asks.evaluation import Evaluation
from seatrial.plan.asks.features import Features
from seatrial.plan.asks.latency import Latency
from seatrial.plan.asks.ownership import Ownership, Tier
from seatrial.plan.asks.parts import Parts
from seatrial.plan.asks.semantics import Semantics
from seatrial.plan.asks.served import Served
from seatrial.plan.asks.slices import Slices

__all__ = [
    "Ask",
    "Capacity",
    "Catalogue",
    "Consumer",
    "Consumers",
    "CutOffs",
    "Distribution",
    "Evaluation",
    "Features",
    "Latency",
    "Ownership",
    "Parts",
    "Semantics",
    "Served",
    "Slices",
    "Tier",
    "Waivable",
]
