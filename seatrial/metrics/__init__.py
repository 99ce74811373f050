"""What an operator watches: numbers about rollouts, computed from what is stored, and why those that are missing are.

A number that cannot be computed is absent with its reason, never 0. Nothing here reads the logs: the counts are those
of the last kept look.
"""

from seatrial.metrics.collecting import metrics
from seatrial.metrics.families import ABSENT, FAMILIES, UP, Absence, Category, Family
from seatrial.metrics.seen import Metric
from seatrial.metrics.tables import HEADER, document, markdown, rows

__all__ = [
    "ABSENT",
    "FAMILIES",
    "HEADER",
    "UP",
    "Absence",
    "Category",
    "Family",
    "Metric",
    "document",
    "markdown",
    "metrics",
    "rows",
]
