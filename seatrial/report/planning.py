"""A forecast in words, tables and one plot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from seatrial.forecast import RATIOS
from seatrial.report.plots import (
    _BLUE,
    _DPI,
    _GREEN,
    _GREY,
    _INK,
    _PAPER,
    _RULE,
    _VERMILION,
    _WIDTH_IN,
    _clipped,
    _png,
    _title,
)
from seatrial.report.wording import percent, rate
from seatrial.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

    from seatrial.forecast import Demand, Detection, Ending, Forecast

#: What stands where a number does not exist.
_NONE = "-"
#: The part of equal releases that may be undecided before it is said at the top.
_MOST_UNDECIDED = 0.2
#: Guardrails that have a panel; the table holds them all.
_MOST_PANELS = 3
#: Lines of the steps, in their order; Okabe and Ito's colours.
_STEPS = (_BLUE, "#E69F00", _GREEN, "#CC79A7", _VERMILION, "#56B4E9", _GREY)


@dataclass(frozen=True, slots=True)
class Part:
    """One question with its answer as a table, and what must be known to read it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


def shortfall_sentences(forecast: Forecast) -> list[str]:
    """Return one sentence for each margin that cannot be shown in time, with numbers that would suffice.

    A plan whose margins half of the equal releases can show may still leave many undecided, for all must be shown: then
    the last sentence says where.
    """
    sentences = [_shortfall(each) for each in forecast.shortfalls]
    if forecast.equal.undecided > _MOST_UNDECIDED:
        asked = [each for each in forecast.steps if each.in_time is not None]
        narrow = min(asked, key=lambda each: each.in_time or 0.0)
        sentences.append(
            f"{narrow.name}: its deadline of {_duration(narrow.limit_days)} is too short for many:"
            f" {rate(narrow.in_time or 0.0)} of the equal releases that come there leave it in time; over all steps"
            f" {rate(forecast.equal.undecided)} are undecided"
        )
    return sentences


def _shortfall(demand: Demand) -> str:
    where = f"{demand.step}: {demand.guardrail} cannot show its margin in time"
    if math.isinf(demand.needed):
        reason = f"its expected rate is not far enough below {demand.margin} for evidence to grow"
    else:
        counted = "bad units of both arms" if demand.margin.is_relative else "matured units of the challenger"
        reason = (
            f"{demand.margin} needs about {demand.needed:,.0f} {counted} at a share of {percent(demand.share)}, and"
            f" about {demand.arrives:,.0f} arrive by the deadline of {_duration(demand.deadline)}"
        )
    ways = list(_ways_out(demand))
    remedy = (
        f"one of these would do for half of the equal releases: {'; '.join(ways)}" if ways else "no number would do"
    )
    return f"{where}: {reason}; {remedy}"


def _ways_out(demand: Demand) -> Iterator[str]:
    if demand.smallest_margin is not None:
        yield f"a margin of {demand.smallest_margin}"
    if demand.longer_deadline is not None:
        yield f"a deadline of {math.ceil(demand.longer_deadline)} d"
    if demand.more_traffic is not None:
        yield f"{demand.more_traffic:,.0f} units a day"
    if demand.larger_share is not None:
        yield f"a share of {percent(demand.larger_share)}"


def summary(forecast: Forecast) -> str:
    """Return in one paragraph how rollouts by the plan end.

    The risk of a wrong rollback includes what slices may add, which is not simulated.
    """
    equal, better = forecast.equal, forecast.better
    wrong = equal.rolled_back + equal.rolled_back_in_watch
    slices = f" (slices add at most {percent(forecast.slices_alpha)})" if forecast.slices_alpha else ""
    return (
        f"A truly equal release passes every step in {rate(equal.promoted)} of the rollouts{_by(equal)}, is wrongly"
        f" rolled back in {rate(wrong)}{slices} and left undecided at a deadline in {rate(equal.undecided)}. A better"
        f" one ({better.ratio:g} times the champion's rates) passes in {rate(better.promoted)}{_by(better)}."
    )


def _by(ending: Ending) -> str:
    return "" if ending.days_p50 is None else f", half of these by day {math.ceil(ending.days_p50)}"


def parts(forecast: Forecast) -> list[Part]:
    """Return every part of the forecast, in the order in which a person asks."""
    return [
        _expected_part(forecast),
        _endings_part(forecast),
        _exposure_part(forecast),
        _leaving_part(forecast),
        _margins_part(forecast),
        _detection_part(forecast),
    ]


def _expected_part(forecast: Forecast) -> Part:
    rows = tuple(
        (
            each.name,
            rate(each.rate),
            "at once" if each.delay is None else _duration(each.delay.median),
            _NONE if each.delay is None else _duration(each.delay.maturity),
        )
        for each in forecast.expectations.guardrails
    )
    left_out = "".join(f" {sentence}." for sentence in forecast.expectations.left_out)
    return Part(
        f"What {forecast.plan} counts on: {forecast.expectations.units_per_day:,.0f} units a day",
        ("guardrail", "champion's rate", "half known after", "mature after"),
        rows,
        f"Simulated: {forecast.replicates} rollouts for each answer, looked at every"
        f" {_duration(forecast.look_every_days)}. Units arrive at random at a constant rate,"
        " labels exponentially up to their maturity, and none is missing. Gates pass at once, a shadow"
        " after soak and units, approvals are given at once. Slices and lost units are not"
        f" simulated.{left_out}",
    )


def _endings_part(forecast: Forecast) -> Part:
    rows = tuple(
        (
            name,
            rate(each.promoted),
            rate(each.rolled_back),
            rate(each.rolled_back_in_watch),
            rate(each.undecided),
            _days(each.days_p50),
            _days(each.days_p80),
            _days(each.days_mean),
        )
        for name, each in (("equal", forecast.equal), (f"better, {forecast.better.ratio:g} times", forecast.better))
    )
    return Part(
        "How a rollout ends",
        ("release", "passes", "rolled back", "in the watch", "undecided", "passes p50", "passes p80", "over after"),
        rows,
        "Passes: every step before promotion; in the watch: rolled back afterwards. p50 and p80: when half and four"
        " fifths of those that pass have done so. Over after: the mean until it passed, was rolled back or met its"
        " deadline.",
    )


def _exposure_part(forecast: Forecast) -> Part:
    rows = tuple(
        (
            each.name,
            percent(each.share),
            f"{each.units_per_day:,.0f}",
            f"{each.exposed_by_soak:,.0f}" if each.soak_days else _NONE,
            f"{each.exposed_by_limit:,.0f}",
            _days(each.label_wait_days) if each.label_wait_days else _NONE,
        )
        for each in forecast.steps
    )
    header = ("step", "share", "units a day", "by end of soak", "by deadline", "label wait")
    return Part(
        "Units that the challenger decides", header, rows, "The deadline of a promotion is the end of its watch."
    )


def _leaving_part(forecast: Forecast) -> Part:
    rows = tuple(
        (
            each.name,
            rate(each.reached),
            _days(each.soak_days) if each.soak_days else _NONE,
            _days(each.leaves_p50),
            _days(each.leaves_p80),
            _days(each.limit_days),
            _NONE if each.in_time is None else rate(each.in_time),
        )
        for each in forecast.steps
    )
    return Part(
        "When an equal release may leave a step",
        ("step", "comes here", "soak", "leaves p50", "leaves p80", "deadline", "in time"),
        rows,
        f"Harm beyond the margins is ruled out and the soak is over. {_NONE}: not by the deadline.",
    )


def _margins_part(forecast: Forecast) -> Part:
    rows = tuple(
        (
            each.step,
            each.guardrail,
            str(each.margin),
            "never" if math.isinf(each.needed) else f"{each.needed:,.0f}",
            f"{each.arrives:,.0f}",
            "yes" if each.is_met else "NO",
            _NONE if each.smallest_margin is None else str(each.smallest_margin),
        )
        for each in forecast.demands
    )
    return Part(
        "Whether each margin can be shown in time",
        ("step", "guardrail", "margin", "needed", "arrive", "shown", "smallest shown"),
        rows,
        "Needed by half of the equal releases, four fifths need up to twice as many: bad units of both arms, or for an"
        " absolute margin matured units of the challenger. Arrive: by the deadline, earlier steps included.",
    )


def _detection_part(forecast: Forecast) -> Part:
    is_planned = any(found.planned is not None for each in forecast.steps for found in each.detections)
    rows = tuple(_detected(each.name, found, is_planned) for each in forecast.steps for found in each.detections)
    header: tuple[str, ...] = (
        "step",
        "guardrail",
        "harm",
        "then",
        "found",
        "time p50",
        "time p80",
        "units p50",
        "units p80",
    )
    note = (
        "Harm of one guardrail that begins with the step, at the share of the step. Found: by the deadline or the end"
        f" of the watch. Units: of the challenger, in this step. {_NONE}: not that often by then."
    )
    if is_planned:
        header = (*header, "planned test")
        note += (
            " Planned test: the most units of a group sequential test of ten looks (Lan and DeMets 1983) with a power"
            f" of 80 %, if that number is fixed beforehand; {_NONE}: too few of them would be bad."
        )
    return Part("How soon harm is found", header, rows, note)


def _detected(step: str, found: Detection, is_planned: bool) -> tuple[str, ...]:
    row = (
        step,
        found.guardrail,
        f"{found.ratio:g} times",
        found.consequence.replace("_", " "),
        rate(found.found),
        _days(found.days_p50),
        _days(found.days_p80),
        _units(found.exposed_p50),
        _units(found.exposed_p80),
    )
    return (*row, _units(found.planned)) if is_planned else row


def _duration(days: float) -> str:
    return format_duration(timedelta(days=days))


def _days(days: float | None) -> str:
    return _NONE if days is None else format_duration(timedelta(hours=math.ceil(24.0 * days - 1e-6)))


def _units(units: float | None) -> str:
    return _NONE if units is None else f"{math.ceil(units):,}"


def forecast_plot(forecast: Forecast) -> bytes:
    """Return a PNG: for each guardrail the days until harm is found, by step and size, and the chance to pass by day.

    Solid lines are the median, dashed ones the eightieth percentile. A point that is missing is not reached by the
    deadline of the step.
    """
    names = list(dict.fromkeys(found.guardrail for each in forecast.steps for found in each.detections))[:_MOST_PANELS]
    figure = Figure(figsize=(_WIDTH_IN, 5.6 if names else 2.9), dpi=_DPI, facecolor=_PAPER, layout="constrained")
    rows = figure.subfigures(2 if names else 1, 1, squeeze=False).flatten()
    for row in rows:
        row.set_facecolor(_PAPER)
    if names:
        grid = rows[0].subplots(1, len(names), sharey=True, squeeze=False).flatten()
        for axes, name in zip(grid, names, strict=True):
            _draw_detections(axes, forecast, name)
        grid[0].set_ylabel("days until harm is found", color=_GREY, fontsize=9)
        grid[-1].legend(frameon=False, fontsize=7.5, labelcolor=_INK, loc="upper right")
    _draw_chances(rows[-1].subplots(), (forecast.equal, forecast.better))
    equal = forecast.equal
    verdict = "Not every margin can be shown in time: " if forecast.shortfalls else ""
    _title(
        figure, f"{verdict}{'an' if verdict else 'An'} equal release passes in {rate(equal.promoted)} of the rollouts"
    )
    return _png(figure)


def _draw_detections(axes: Axes, forecast: Forecast, guardrail: str) -> None:
    _plain_style(axes)
    for each, colour in zip(forecast.steps, _STEPS * len(forecast.steps), strict=False):
        found = {d.ratio: d for d in each.detections if d.guardrail == guardrail}
        for line, label in (("days_p50", each.name), ("days_p80", None)):
            days = [getattr(found[r], line) if r in found else None for r in RATIOS]
            axes.plot(
                range(len(RATIOS)),
                [math.nan if value is None else value for value in days],
                "o-" if label else "o--",
                color=colour,
                linewidth=1.8 if label else 1.0,
                markersize=4 if label else 2.5,
                label=label,
            )
    if not any(found.days_p50 for each in forecast.steps for found in each.detections if found.guardrail == guardrail):
        axes.text(0.5, 0.5, "not found by half\nwithin any step", transform=axes.transAxes, ha="center", color=_GREY)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xticks(range(len(RATIOS)), [f"{ratio:g}" for ratio in RATIOS])
    axes.set_xlabel("times the champion's rate", color=_GREY, fontsize=8)
    axes.set_xlim(-0.3, len(RATIOS) - 0.7)
    axes.set_title(_clipped(guardrail, 28), loc="left", color=_INK, fontsize=9.5, fontweight="bold", parse_math=False)


def _draw_chances(axes: Axes, endings: Sequence[Ending]) -> None:
    _plain_style(axes)
    last = max([1, *(day for each in endings for day, _ in each.promoted_by)])
    for ending, name, colour in zip(endings, ("equal release", "better release"), (_BLUE, _GREEN), strict=True):
        days = [day for day, _ in ending.promoted_by] + [last]
        chances = [100.0 * chance for _, chance in ending.promoted_by] + [100.0 * ending.promoted]
        axes.step(days, chances, where="post", color=colour, linewidth=2.2, label=name)
    axes.set_ylim(0.0, 105.0)
    axes.set_xlim(0.0, 1.05 * last)
    axes.set_xlabel("days since the start of the rollout", color=_GREY, fontsize=9)
    axes.set_ylabel("passed every step (%)", color=_GREY, fontsize=9)
    axes.legend(frameon=False, fontsize=8, labelcolor=_INK, loc="upper left")


def _plain_style(axes: Axes) -> None:
    axes.tick_params(colors=_GREY, labelsize=8, length=3)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GREY)
