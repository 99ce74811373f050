"""Replays of a plan over logs of two releases: when it would have advanced, stopped or promoted.

The control plane that judges is the real one, on a store in memory and event time; only who answers a request is drawn
afresh, by the shares of the plan, from answers that were logged.
"""

from seatrial.backtest.playing import End, Ending, Play, Replay, default_every, default_start, play
from seatrial.backtest.plot import backtest_plot
from seatrial.backtest.reading import LEAST_SHARED, read_experiment, read_pair
from seatrial.backtest.repeating import Backtest, backtest
from seatrial.backtest.report import document, headline, parts, remarks
from seatrial.backtest.requests import Requests

__all__ = [
    "LEAST_SHARED",
    "Backtest",
    "End",
    "Ending",
    "Play",
    "Replay",
    "Requests",
    "backtest",
    "backtest_plot",
    "default_every",
    "default_start",
    "document",
    "headline",
    "parts",
    "play",
    "read_experiment",
    "read_pair",
    "remarks",
]
