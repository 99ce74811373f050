"""Mergeable summaries of one look at the logs: counts by metric, slice, allocation epoch and arm.

Evidence is a commutative monoid under ``+``: looks at disjoint parts of the logs add up to a look at the whole, in
any order. Everything that judges is a pure function of it, which is what makes a verdict repeatable.
"""

from seatrial.evidence.counts import (
    AMOUNT_STEP,
    DIVISOR_STEP,
    WAIT_STEPS,
    Arm,
    Cell,
    Epoch,
    Frozen,
    LabelCell,
    LabelTally,
    Moments,
    ScoreCell,
    ScoredPair,
    ScoreTally,
    ShadowTally,
    Tally,
    Wait,
)
from seatrial.evidence.look import ArmHistogram, Evidence, Histograms, Series, merge
from seatrial.evidence.stored import stored_evidence
from seatrial.evidence.table import Key, Table

__all__ = [
    "AMOUNT_STEP",
    "DIVISOR_STEP",
    "WAIT_STEPS",
    "Arm",
    "ArmHistogram",
    "Cell",
    "Epoch",
    "Evidence",
    "Frozen",
    "Histograms",
    "Key",
    "LabelCell",
    "LabelTally",
    "Moments",
    "ScoreCell",
    "ScoreTally",
    "ScoredPair",
    "Series",
    "ShadowTally",
    "Table",
    "Tally",
    "Wait",
    "merge",
    "stored_evidence",
]
