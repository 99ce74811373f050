"""Routing: which release answers this unit, and what its answer may do.

Pure and fast; the in-process router, the gateway and Envoy compute the same assignment from the same snapshot.
"""

from seatrial.routing.assignment import Assignment, assign, slot_of
from seatrial.routing.deciding import Course, Parts, Taken, parts_of, take
from seatrial.routing.orders import Kill, KillMode, KillScope, Pin, ShadowBudget
from seatrial.routing.snapshot import RoutingSnapshot

__all__ = [
    "Assignment",
    "Course",
    "Kill",
    "KillMode",
    "KillScope",
    "Parts",
    "Pin",
    "RoutingSnapshot",
    "ShadowBudget",
    "Taken",
    "assign",
    "parts_of",
    "slot_of",
    "take",
]
