"""What a plan will cost and can show, before anything is started: a pure function of the plan and what is expected."""

from seatrial.forecast.demands import Demand, demands
from seatrial.forecast.expectations import Delay, Expectations, Expected, expect
from seatrial.forecast.outlook import Detection, Ending, Forecast, StepOutlook
from seatrial.forecast.runs import RATIOS, forecast

__all__ = [
    "RATIOS",
    "Delay",
    "Demand",
    "Detection",
    "Ending",
    "Expectations",
    "Expected",
    "Forecast",
    "StepOutlook",
    "demands",
    "expect",
    "forecast",
]
