"""What a plan may ask of a release before any traffic: one module for each gate, with its declaration."""

from seatrial.plan.asks.ask import Ask, Waivable
from seatrial.plan.asks.catalogue import Catalogue

__all__ = ["Ask", "Catalogue", "Waivable"]
