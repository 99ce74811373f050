"""Inject changes into one month of flight features and compare with another month; print detection and false alarms.

``python -m benchmarks.semantics [--write]``.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from examples.flight_delay.data import load_flights, load_weather
from examples.flight_delay.features import FEATURES, NAMES, build_store
from seatrial.stats.meaning import changed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Months = Mapping[int, Floats]

ROWS = 3000
SEED = 20130601
PAGE = Path(__file__).parent.parent / "results" / "semantics.md"
#: Part of the rows that a change must move, to be one.
MOVED = 0.1
#: What is done to every column, and to columns of one unit alone.
EVERYWHERE: dict[str, Callable[[Floats], Floats]] = {
    "times 0.83": lambda x: x * 0.83,
    "times 1.0837 (currency)": lambda x: x * 1.0837,
    "times 60": lambda x: x * 60.0,
    "divided by 60": lambda x: x / 60.0,
    "times 1.609344": lambda x: x * 1.609344,
    "divided by 1.609344": lambda x: x / 1.609344,
    "times 100": lambda x: x * 100.0,
    "other sign": lambda x: -x,
    "plus three quarters of the range": lambda x: x + 0.75 * np.ptp(x),
    "constant": lambda x: np.full_like(x, np.median(x)),
    "one in five missing as 0": lambda x: np.where(np.arange(len(x)) % 5 == 0, 0.0, x),
}
OF_UNIT: dict[str, tuple[str, Callable[[Floats], Floats]]] = {
    "Celsius": ("degF", lambda x: (x - 32.0) / 1.8),
    "clock plus 5 h": ("h", lambda x: np.mod(x + 5.0, 24.0)),
}


def months_of(rows: int) -> dict[str, Months]:
    """Return up to `rows` flights of each month for each column, drawn at random, without missing values."""
    flights = load_flights()
    matrix = build_store(flights, load_weather()).matrix(list(flights["unit_key"]), NAMES)
    month = flights["scheduled_at"].dt.month.to_numpy()
    rng = np.random.default_rng(SEED)
    return {
        name: {one: _drawn(matrix[month == one, at], rows, rng) for one in range(1, 13)}
        for at, name in enumerate(NAMES)
    }


def _drawn(values: Floats, rows: int, rng: np.random.Generator) -> Floats:
    held = values[np.isfinite(values)]
    return np.asarray(rng.choice(held, min(rows, len(held)), replace=False))


def natural(columns: Mapping[str, Months]) -> tuple[Counter[str], list[str]]:
    """Return how many pairs of months were compared, neighbours and others, and what was found in them."""
    pairs: Counter[str] = Counter()
    alarms = []
    for name, months in columns.items():
        for first, second in ((a, b) for a in months for b in months if a != b):
            kind = "neighbours" if abs(first - second) == 1 else "others"
            pairs[kind] += 1
            if (found := changed(months[first], months[second])) is not None:
                pairs[f"{kind}, alarms"] += 1
                alarms.append(f"{name}, month {first} to {second}: {found.words}")
    return pairs, alarms


def injected(columns: Mapping[str, Months]) -> tuple[Counter[str], Counter[str], list[str]]:
    """Return by change how often it was made and found, and where it was missed; the reference is the month before."""
    made: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    missed = []
    for feature in FEATURES:
        months = columns[feature.name]
        fitting = {name: change for name, (unit, change) in OF_UNIT.items() if unit == feature.unit}
        for name, change in {**EVERYWHERE, **fitting}.items():
            for month in range(1, 12):
                after = change(months[month + 1])
                if np.mean(~np.isclose(months[month + 1], after)) < MOVED:
                    continue
                made[name] += 1
                if changed(months[month], after) is not None:
                    seen[name] += 1
                else:
                    missed.append(f"{feature.name} {name}")
    return made, seen, missed


def page() -> str:
    """Measure, and return the page of results."""
    columns = months_of(ROWS)
    pairs, alarms = natural(columns)
    made, seen, missed = injected(columns)
    total = f"{seen.total():,} of {made.total():,}, {seen.total() / made.total():.1%}"
    lines = [
        "# Change of meaning: found, and taken for one",
        "",
        f"{len(columns)} columns of the flight example, {ROWS:,} rows of a month, seed {SEED}; `make bench-semantics`.",
        "",
        "The bounds were chosen on these months, so that other data should be expected to do somewhat worse.",
        "",
        "**Natural drift.** No column changes its meaning from one month of 2013 to another.",
        "",
        "| pairs of months | compared | alarms |",
        "|---|--:|--:|",
        *(f"| {kind} | {pairs[kind]:,} | {pairs[f'{kind}, alarms']} |" for kind in ("neighbours", "others")),
        "",
        *(f"- {alarm}" for alarm in alarms),
        "",
        f"**Injected changes**, the month before as reference: {total} found. Each moves a tenth of the rows or more.",
        "",
        "| change | made | found |",
        "|---|--:|--:|",
        *(f"| {name} | {made[name]} | {seen[name] / made[name]:.1%} |" for name in made),
        "",
        "Missed: " + ("; ".join(f"{name} ({count} of 11)" for name, count in Counter(missed).items()) or "none") + ".",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the page; with --write keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} too")
    asked = parser.parse_args()
    text = page()
    print(text)
    if asked.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
