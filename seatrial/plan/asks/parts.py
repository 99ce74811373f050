"""Gate `parts`: the release changes what the plan is for, and its cut-offs were chosen for its model."""

from seatrial.plan.asks.ask import Ask


class Parts(Ask):
    """Whether the parts of the release belong together; it needs nothing beside the releases."""
