"""The one serving pipeline: every feature of every flight, from what was known at its scheduled departure.

All releases read the same vectors and each picks the columns of its own schema, so a release cannot be
served other numbers than the ones its schema names. (What it was *trained* on is another matter: `train`.)

Causality, feature by feature: calendar and distance come from the timetable; reference rates from January
and February 2013, before any release is served; weather from the last hour that is over; delays,
cancellations and overdue flights from *other* flights' events strictly before the scheduled departure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from examples.flight_delay.data import between
from seatrial.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from pandas.api.typing import DataFrameGroupBy

    Floats = NDArray[np.float64]
    Indices = NDArray[np.intp]
    Groups = DataFrameGroupBy[Any, Any]

#: version of the definitions below, for the manifests
FEATURES_VERSION = "1"
#: the months from which reference rates are taken
REFERENCE_START = datetime(2013, 1, 1, tzinfo=UTC)
REFERENCE_END = datetime(2013, 3, 1, tzinfo=UTC)
#: flights of the overall rate that every reference rate starts from, so that a rare destination is not 0 or 1
PRIOR_FLIGHTS = 50.0
#: departures and cancellations of the last hours count as recent
RECENT = timedelta(hours=3)
#: departures to one destination are rarer and its weather holds longer
RECENT_DEST = timedelta(hours=6)
#: an hour of weather older than this is no observation at all
WEATHER_MAX_AGE = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the serving pipeline."""

    name: str
    #: unit of its numbers, ``none`` when it has none
    unit: str
    #: what it says, and from when
    meaning: str
    nullable: bool = False


FEATURES = (
    Feature("scheduled_hour", "h", "scheduled departure, local time of New York, minutes as a fraction"),
    Feature("weekday", "none", "day of the week of scheduled departure, local, Monday is 0"),
    Feature("distance", "mi", "distance between the airports, statute miles"),
    Feature("carrier_rate", "share", "late or cancelled in January and February 2013, by carrier"),
    Feature("dest_rate", "share", "late or cancelled in January and February 2013, by destination"),
    Feature("origin_rate", "share", "late or cancelled in January and February 2013, by origin"),
    Feature("temperature", "degF", "temperature at the origin in the last full hour", nullable=True),
    Feature("humidity", "percent", "relative humidity at the origin in the last full hour", nullable=True),
    Feature("wind_speed", "mph", "wind speed at the origin in the last full hour", nullable=True),
    Feature("precipitation", "in", "precipitation at the origin in the last full hour", nullable=True),
    Feature("visibility", "mi", "visibility at the origin in the last full hour", nullable=True),
    Feature("recent_delay", "min", "mean delay of the origin's departures of the last 3 hours, 0 if none"),
    Feature("carrier_delay", "min", "as recent_delay, of the same carrier at the same origin"),
    Feature("dest_delay", "min", "as recent_delay, to the same destination from all three origins, 6 hours"),
    Feature("overdue", "min", "time past schedule, summed over the origin's flights still at the gate"),
    Feature("recent_cancellations", "flights", "cancellations announced at the origin in the last 3 hours"),
)
NAMES = tuple(feature.name for feature in FEATURES)

_WEATHER = {
    "temp": "temperature",
    "humid": "humidity",
    "wind_speed": "wind_speed",
    "precip": "precipitation",
    "visib": "visibility",
}


class FeatureStore:
    """Feature vectors of the whole stream, looked up by unit key."""

    def __init__(self, unit_keys: Sequence[str], matrix: Floats) -> None:
        self._rows = {key: row for row, key in enumerate(unit_keys)}
        self._matrix = matrix

    def vector(self, unit_key: str) -> dict[str, float]:
        """Return all features of one flight by name; NotFoundError for an unknown flight."""
        row = self._rows.get(unit_key)
        if row is None:
            raise NotFoundError(f"flight {unit_key!r}: not in the feature store; give the key of a flight in the data")
        return dict(zip(NAMES, self._matrix[row].tolist(), strict=True))

    def matrix(self, unit_keys: Sequence[str], names: Sequence[str]) -> Floats:
        """Return the features `names` of many flights, one row each, in the order given."""
        rows = [self._rows[key] for key in unit_keys]
        return self._matrix[np.ix_(rows, [NAMES.index(name) for name in names])]


def build_store(flights: pd.DataFrame, weather: pd.DataFrame) -> FeatureStore:
    """Return the features of all `flights`, computed once in about a second.

    Parameters
    ----------
    flights
        What `load_flights` returned, whole: the past of a flight is taken from it.
    weather
        What `load_weather` returned.
    """
    local = flights["scheduled_at"].dt.tz_convert("America/New_York")
    reference = between(flights, REFERENCE_START, REFERENCE_END)
    table = pd.DataFrame(
        {
            "scheduled_hour": local.dt.hour + local.dt.minute / 60.0,
            "weekday": local.dt.day_of_week,
            "distance": flights["distance"],
        }
    )
    for column in ("carrier", "dest", "origin"):
        table[f"{column}_rate"] = _reference_rate(flights[column], reference, column)
    table = table.join(_last_weather(flights, weather)).join(_recent_events(flights))
    return FeatureStore(flights["unit_key"].tolist(), table[list(NAMES)].to_numpy(dtype=np.float64))


def _reference_rate(values: pd.Series[str], reference: pd.DataFrame, column: str) -> pd.Series[float]:
    overall = float(reference["late"].mean())
    seen = reference.groupby(column)["late"].agg(["sum", "count"])
    rates = (seen["sum"] + PRIOR_FLIGHTS * overall) / (seen["count"] + PRIOR_FLIGHTS)
    return values.map(rates).fillna(overall)


def _last_weather(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    joined = pd.merge_asof(
        flights[["scheduled_at", "origin"]],
        weather.rename(columns=_WEATHER),
        left_on="scheduled_at",
        right_on="known_at",
        by="origin",
        tolerance=WEATHER_MAX_AGE,
    )
    return joined[list(_WEATHER.values())].set_axis(flights.index, axis=0)


def _recent_events(flights: pd.DataFrame) -> pd.DataFrame:
    at_origin = flights.groupby("origin")
    return pd.DataFrame(
        {
            "recent_delay": _each(at_origin, _mean_delay, RECENT),
            "carrier_delay": _each(flights.groupby(["origin", "carrier"]), _mean_delay, RECENT),
            "dest_delay": _each(flights.groupby("dest"), _mean_delay, RECENT_DEST),
            "overdue": _each(at_origin, _overdue),
            "recent_cancellations": _each(at_origin, _cancellations, RECENT),
        }
    )


def _each(groups: Groups, feature: Callable[..., Floats], *window: timedelta) -> pd.Series[float]:
    """Return `feature` of every group's flights, put together again."""
    return pd.concat([pd.Series(feature(part, *window), index=part.index) for _, part in groups])


def _mean_delay(flights: pd.DataFrame, window: timedelta) -> Floats:
    """Return the mean departure delay, in minutes, of other flights that left in the `window` before each.

    A flight that leaves early is gone before the moment at which it is scored: it is taken out of its own
    mean, which would otherwise hold its own future.
    """
    now = _seconds(flights["scheduled_at"])
    departed = flights.dropna(subset=["departed_at"]).sort_values("departed_at")
    first, last = _window(_seconds(departed["departed_at"]), now, window)
    sums = _running_sum(departed["departure_delay"].to_numpy())
    own = flights["departure_delay"].to_numpy()
    left_early = own < 0.0
    total = sums[last] - sums[first] - np.where(left_early, own, 0.0)
    count = last - first - left_early
    mean: Floats = np.divide(total, count, out=np.zeros(len(now)), where=count > 0)
    return mean


def _cancellations(flights: pd.DataFrame, window: timedelta) -> Floats:
    cancelled_at = _seconds(flights["cancelled_at"].dropna().sort_values())
    first, last = _window(cancelled_at, _seconds(flights["scheduled_at"]), window)
    return (last - first).astype(np.float64)


def _overdue(flights: pd.DataFrame) -> Floats:
    """Return the minutes waited in sum by flights past their schedule, not gone and not known cancelled.

    The flights of a group are in the order of `load_flights`, by scheduled departure.
    """
    now = _seconds(flights["scheduled_at"])
    gone_at = np.maximum(_seconds(flights["departed_at"].fillna(flights["cancelled_at"])), now)
    leaving = np.argsort(gone_at, kind="stable")
    due = np.searchsorted(now, now, side="left")
    gone = np.searchsorted(gone_at[leaving], now, side="left")
    waited_since = _running_sum(now)[due] - _running_sum(now[leaving])[gone]
    return ((due - gone) * now - waited_since) / 60.0


def _window(event_times: Floats, now: Floats, window: timedelta) -> tuple[Indices, Indices]:
    """Return the first and one past the last of the sorted events in [now - window, now), for each now."""
    first = np.searchsorted(event_times, now - window.total_seconds(), side="left")
    return first, np.searchsorted(event_times, now, side="left")


def _running_sum(values: Floats) -> Floats:
    """Return the sum of the first 0, 1, 2, ... values."""
    return np.concatenate([np.zeros(1), np.cumsum(values)])


def _seconds(times: pd.Series[pd.Timestamp]) -> Floats:
    """Return aware times as seconds since the start of the data, so that sums of them stay exact."""
    return np.asarray((times - pd.Timestamp(REFERENCE_START)).dt.total_seconds(), dtype=np.float64)
