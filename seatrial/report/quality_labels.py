"""How many labels have come, how many are waited for, and how soon labels come, for a reader."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from seatrial.evidence import WAIT_STEPS, Arm
from seatrial.report.plots import (
    _DPI,
    _GREY,
    _INK,
    _PAPER,
    _WIDTH_IN,
    MOST_PANELS,
    _clipped,
    _note,
    _nothing,
    _png,
    _title,
)
from seatrial.report.quality_scores import ARM_COLOURS, _style
from seatrial.report.wording import percent, plain, rate, table
from seatrial.stats.maturity import DelayCurve, cured_kaplan_meier, label_coverage, reverse_product_limit, window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from seatrial.evidence import Evidence, Wait
    from seatrial.plan import Guardrail, Plan

#: Part of the labels by which a wait is told.
_MOST = 0.9
#: Units that a curve is estimated from; of more, an even part of them, which moves it by less than a pixel.
_ENOUGH = 200_000
#: Letters of the names that fit side by side.
_LETTERS = 82
#: Parts of the window that are named on the axis.
_TICKS = (0.0, 0.5, 1.0)
#: Windows longer than this are told in days, and up to the other one in minutes.
_LONG_H, _SHORT_H = 96.0, 2.0


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Where the labels of one guardrail are, for the units of one arm."""

    guardrail: str
    arm: Arm
    waiting: int  #: younger than the window, no label yet
    labelled: int  #: a label came within the window
    missing: int  #: older than the window, and no label came within it
    hidden: int  #: of the matured, the action keeps the label from ever being known
    coverage: float | None  #: part of the matured units with a label, hidden ones left out; None without any


def label_counts(evidence: Evidence, plan: Plan) -> list[LabelCounts]:
    """Return where the labels of each label guardrail are, champion first."""
    return [_counts(evidence, guardrail, arm) for guardrail in label_guardrails(plan) for arm in ARM_COLOURS]


def label_guardrails(plan: Plan) -> list[Guardrail]:
    """Return the guardrails that wait for a label."""
    return [guardrail for guardrail in plan.guardrails if guardrail.source.is_delayed]


def _counts(evidence: Evidence, guardrail: Guardrail, arm: Arm) -> LabelCounts:
    waits = _waits(evidence, guardrail, arm)
    series = evidence.series(guardrail.name)
    at = 0 if arm is Arm.CHALLENGER else 1
    matured, labelled, hidden = (series.total(name)[at] for name in ("matured", "labelled", "hidden"))
    return LabelCounts(
        guardrail.name,
        arm,
        waiting=sum(count for wait, count in waits.items() if wait.delay < 0 and wait.age < WAIT_STEPS),
        labelled=sum(count for wait, count in waits.items() if 0 <= wait.delay < WAIT_STEPS),
        missing=sum(
            count for wait, count in waits.items() if wait.age == WAIT_STEPS and wait.delay in (-1, WAIT_STEPS)
        ),
        hidden=hidden,
        coverage=label_coverage(labelled, matured - hidden),
    )


def _waits(evidence: Evidence, guardrail: Guardrail, arm: Arm) -> dict[Wait, int]:
    return {
        wait: count
        for wait, count in evidence.waits.items()
        if wait.guardrail == guardrail.name and wait.arm is arm and count > 0
    }


def label_table(counts: Sequence[LabelCounts]) -> str:
    """Return `counts` as Markdown."""
    return table(
        ["guardrail", "arm", "waiting", "labelled", "missing past the window", "hidden", "matured with a label"],
        (
            [
                plain(each.guardrail),
                each.arm.value,
                *(f"{count:,}" for count in (each.waiting, each.labelled, each.missing, each.hidden)),
                "none matured" if each.coverage is None else rate(each.coverage),
            ]
            for each in counts
        ),
    )


@dataclass(frozen=True, slots=True)
class Arrival:
    """How soon labels of one arm come, by two estimates, as parts of the labels that come within the longest wait."""

    #: from all units, most of which may never have a label
    of_units: DelayCurve
    #: from labels that came alone; both agree when the delay does not depend on when a unit was served
    of_labels: DelayCurve
    #: longest wait seen, in steps of the window
    longest: int

    def by(self, share: float) -> float:
        """Return by when `share` of the labels have come, as a part of the window; the end of its step."""
        return _end_of(window(self.of_units, share))


def arrival(evidence: Evidence, guardrail: Guardrail, arm: Arm) -> Arrival | None:
    """Return how soon labels of one arm come; None before the first."""
    waits = _waits(evidence, guardrail, arm)
    ordered = sorted(waits, key=lambda wait: (wait.delay, wait.age))
    ages = np.array([wait.age for wait in ordered], dtype=np.int64)
    delays = np.array([wait.delay for wait in ordered], dtype=np.int64)
    came = (delays >= 0) & (delays < WAIT_STEPS)
    # Unit by unit in memory: of many millions an even part is taken, which rounds each count by less than one.
    counts = np.array([waits[wait] for wait in ordered], dtype=np.int64)
    thinner = max(1, -(-int(counts.sum()) // _ENOUGH))
    counts = np.diff(np.cumsum(counts) // thinner, prepend=0)
    of_units = cured_kaplan_meier(np.repeat(np.where(came, delays, ages), counts), np.repeat(came, counts))
    of_labels = reverse_product_limit(np.repeat(delays[came], counts[came]), np.repeat(ages[came], counts[came]))
    if of_units is None or of_labels is None:
        return None
    return Arrival(of_units, of_labels, int(ages.max()))


def maturity_plot(evidence: Evidence, plan: Plan) -> bytes:
    """Return a PNG of the part of the labels that has come by time since the decision: a panel for each guardrail."""
    found = {
        guardrail: {arm: seen for arm in ARM_COLOURS if (seen := arrival(evidence, guardrail, arm)) is not None}
        for guardrail in label_guardrails(plan)
    }
    shown = [(guardrail, arms) for guardrail, arms in found.items() if arms][:MOST_PANELS]
    if not shown:
        return _nothing("No label has come yet")
    columns = {1: 1, 2: 2, 4: 2}.get(len(shown), 3)
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(_WIDTH_IN, 0.9 + 2.2 * rows), dpi=_DPI, facecolor=_PAPER, layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axes, (guardrail, arms) in zip(grid, shown, strict=False):
        _draw(axes, guardrail, arms)
        axes.set_title(
            _clipped(guardrail.name, _LETTERS // columns),
            loc="left",
            color=_INK,
            fontsize=9.5,
            fontweight="bold",
            parse_math=False,
            pad=15 if len(shown) > 1 else 6,
        )
        if len(shown) > 1:
            _note(axes, f"90 % within {_by(guardrail, arms)}", (0.0, 1.0), "axes fraction", _GREY)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    grid[0].legend(frameon=False, fontsize=8, labelcolor=_INK, loc="lower right")
    figure.supxlabel("time since the decision, also as a part of the maturity window", color=_GREY, fontsize=9)
    figure.supylabel("labels that have come (%)", color=_GREY, fontsize=9)
    _title(figure, _arrival_title(shown))
    return _png(figure)


def _draw(axes: Axes, guardrail: Guardrail, arms: dict[Arm, Arrival]) -> None:
    _style(axes)
    for arm, seen in arms.items():
        # The champion's line is wider, so that it shows below a challenger's of the same course.
        width = 3.4 if arm is Arm.CHAMPION else 1.8
        for curve, line, label in ((seen.of_units, "-", arm.value), (seen.of_labels, ":", None)):
            times = [0.0, *(_end_of(step) for step in curve.times), _end_of(seen.longest)]
            shares = [0.0, *(100.0 * curve.shares), 100.0]
            thin = width if label else 1.2
            axes.step(times, shares, where="post", color=ARM_COLOURS[arm], linestyle=line, linewidth=thin, label=label)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 105.0)
    axes.set_xticks(_TICKS, [f"{_time(guardrail, part)}\n{percent(part)}" for part in _TICKS])
    first, _, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")


def _arrival_title(shown: Sequence[tuple[Guardrail, dict[Arm, Arrival]]]) -> str:
    if len(shown) > 1:
        return f"How soon labels come, for {len(shown)} guardrails"
    ((guardrail, arms),) = shown
    return f"Nine labels in ten come within {_by(guardrail, arms)}"


def _by(guardrail: Guardrail, arms: dict[Arm, Arrival]) -> str:
    """Return within what time most labels come, the challenger's first."""
    times = {arm: _time(guardrail, seen.by(_MOST)) for arm, seen in arms.items()}
    if len(times) == 1:
        return "".join(f"{time} ({arm.value})" for arm, time in times.items())
    return f"{times[Arm.CHALLENGER]}, the champion's {times[Arm.CHAMPION]}"


def _end_of(step: float) -> float:
    """Return by when a label of delay `step` has surely come, as a part of the window."""
    return min((step + 1.0) / WAIT_STEPS, 1.0)


def _time(guardrail: Guardrail, part: float) -> str:
    """Return a part of the maturity window in one unit, which fits the window."""
    window_h = (guardrail.maturity or timedelta(0)) / timedelta(hours=1)
    unit, hours = ("d", 24.0) if window_h > _LONG_H else ("h", 1.0) if window_h > _SHORT_H else ("min", 1.0 / 60.0)
    return f"{part * window_h / hours:.3g} {unit}"
