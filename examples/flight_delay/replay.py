"""Serve the year 2013 again, in event time: decide at each scheduled departure, log labels when they arrive.

Event time moves in strides and is kept in a file that every part of the control plane reads as its clock. A stride
ends when the watch has judged it and no rollout is in the middle of a move: in compressed time the seconds that a
control plane needs would otherwise be days. When nothing happens for longer than `patience_s`, time goes on
without it, as real time would, and the lease ends whatever was being tried.
"""

from __future__ import annotations

import argparse
import heapq
import os
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from examples.flight_delay.data import Flight, load_flights, load_weather, stream
from examples.flight_delay.features import build_store
from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.logs import LogWriter
from seatrial.adapters.router import InProcessRouter
from seatrial.adapters.serving import DecisionService
from seatrial.control.watching import SWEEP
from seatrial.rollout import Action, Rollout, State
from seatrial.units import format_time, parse_time
from seatrial.wiring import open_plant, settings_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.flight_delay.features import FeatureStore
    from seatrial.ports import Store
    from seatrial.wiring import Plant

DECISION_POINT = "flight-delay"
#: First moment that is replayed; the models are trained on what came before.
START = parse_time("2013-04-01T00:00:00+00:00")
ATTRIBUTES = ("carrier", "origin", "dest")
#: How often a waiting replay looks whether it may go on.
_POLL_S = 0.05


@dataclass(slots=True)
class Traffic:
    """Flights that ask for a decision, and labels on their way."""

    service: DecisionService
    log: LogWriter
    flights: Iterator[Flight]
    features: FeatureStore
    _next: Flight | None = None
    _labels: list[tuple[datetime, str, int, datetime]] = field(default_factory=list)

    def serve_until(self, end: datetime) -> int:
        """Decide every flight scheduled before `end`, log the labels that arrive before it; return the decisions."""
        served = 0
        while (flight := self._peek()) is not None and flight.scheduled_at < end:
            self._next = None
            self._decide(flight)
            served += 1
        while self._labels and self._labels[0][0] < end:
            arrived_at, decision_id, late, fact_at = heapq.heappop(self._labels)
            self.log.label(
                {
                    "decision_id": decision_id,
                    "name": "late",
                    "value": float(late),
                    "fact_at": fact_at,
                    "arrived_at": arrived_at,
                }
            )
        self.log.flush()
        return served

    def _peek(self) -> Flight | None:
        if self._next is None:
            self._next = next(self.flights, None)
        return self._next

    def _decide(self, flight: Flight) -> None:
        decided = self.service.decide(
            flight.unit_key, flight.attributes(), self.features.vector(flight.unit_key), now=flight.scheduled_at
        )
        if flight.late is not None and flight.label_at is not None and flight.label_arrives_at is not None:
            label = (flight.label_arrives_at, decided.decision_id, flight.late, flight.label_at)
            heapq.heappush(self._labels, label)


def is_judged(store: Store, now: datetime) -> bool:
    """Return whether the control plane has done all that it has to do at `now`, people included."""
    beat = store.last_beat(SWEEP)
    if beat is None or beat < now:
        return False
    return not any(_is_moving(store, rollout) for rollout in store.rollouts(DECISION_POINT))


def _is_moving(store: Store, rollout: Rollout) -> bool:
    if rollout.state in (State.GATES, State.PROMOTING, State.ROLLING_BACK):
        return True
    if rollout.state in (State.AWAITING_APPROVAL, State.AWAITING_DECISION):
        return True
    if rollout.state in (State.SHADOW, State.CANARY, State.LABELS):
        last = store.last_look(rollout.id)
        return last is not None and last.at > rollout.entered_at and last.action is not Action.HOLD
    return False


def replay(plant: Plant, *, start: datetime, end: datetime, stride: timedelta, patience_s: float) -> None:
    """Serve all flights from `start` to `end`, one `stride` after the other."""
    if not isinstance(plant.clock, ReplayClock):
        raise TypeError("settings: found the system's clock; expected replay_clock; a replay must own its time")
    flights = load_flights()
    features = build_store(flights, load_weather())
    router = InProcessRouter("replay", plant.store, DECISION_POINT)
    log = LogWriter(plant.logs, DECISION_POINT, ATTRIBUTES)
    service = DecisionService(router, plant.store, log)
    traffic = Traffic(service, log, stream(start, end, flights=flights), features)
    now = start
    plant.clock.advance(now)
    while now < end:
        router.refresh(now=now)
        now += stride
        served = traffic.serve_until(now)
        plant.clock.advance(now)
        _print(f"{format_time(now)} {served} decisions, challenger {router.snapshot.share:.0%}")
        _await_control_plane(plant.store, router, now=now, patience_s=patience_s)


def _await_control_plane(store: Store, router: InProcessRouter, *, now: datetime, patience_s: float) -> None:
    """Serve on by the newest snapshot until the control plane is done with `now`, or stays silent too long."""
    silent_since = monotonic()
    last_beat = store.last_beat(SWEEP)
    while not is_judged(store, now):
        router.refresh(now=now)
        if (beat := store.last_beat(SWEEP)) != last_beat:
            last_beat, silent_since = beat, monotonic()
        has_question = any(
            r.state in (State.AWAITING_APPROVAL, State.AWAITING_DECISION) for r in store.rollouts(DECISION_POINT)
        )
        if not has_question and monotonic() - silent_since > patience_s:
            _print(f"{format_time(now)} the control plane does not act, going on without it")
            return
        sleep(_POLL_S)
    router.refresh(now=now)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Replay as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=parse_time, default=START)
    parser.add_argument("--end", type=parse_time, default=parse_time("2013-12-01T00:00:00+00:00"))
    parser.add_argument("--stride-h", type=float, default=12.0, help="event hours between two looks")
    parser.add_argument(
        "--patience-s", type=float, default=60.0, help="seconds to wait for a control plane that does not act"
    )
    given = parser.parse_args()
    replay(
        open_plant(Path(settings_path(os.environ)), os.environ),
        start=given.start,
        end=given.end,
        stride=timedelta(hours=given.stride_h),
        patience_s=given.patience_s,
    )


if __name__ == "__main__":
    main()
