"""Gate `semantics`: the columns that both releases read still mean the same."""

from seatrial.plan.asks.ask import Ask


class Semantics(Ask):
    """Whether a column changed its meaning between the evaluation rows of both releases; it takes no bounds."""
