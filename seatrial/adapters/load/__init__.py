"""Put a declared load on a release and measure how long it takes, open loop."""

from __future__ import annotations

from seatrial.adapters.load.examining import LatencyExaminer
from seatrial.adapters.load.machine import this_machine
from seatrial.adapters.load.working import LoadWorker, SubprocessWorker

__all__ = ["LatencyExaminer", "LoadWorker", "SubprocessWorker", "this_machine"]
