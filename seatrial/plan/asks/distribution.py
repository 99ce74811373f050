"""Gate `distribution`: the scores are as varied as the champion's on the same rows, and in the same order."""

from seatrial.plan.asks.ask import Ask


class Distribution(Ask):
    """Whether the scores have collapsed, exploded, left the output contract, or turned round; it takes no bounds."""
