"""A backtest as one plot: share and evidence over time, every draw."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from seatrial.backtest.playing import End
from seatrial.report.plots import _BLUE, _DPI, _GREEN, _GREY, _INK, _PAPER, _RULE, _VERMILION, _WIDTH_IN, _png, _title

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from matplotlib.axes import Axes

    from seatrial.backtest.playing import Glance, Play
    from seatrial.backtest.repeating import Backtest

#: Colour and mark of each end.
_MARKS: Mapping[End, tuple[str, str]] = {
    End.PROMOTED: (_GREEN, "o"),
    End.DEMOTED: (_VERMILION, "v"),
    End.PASSED: (_GREEN, "s"),
    End.ROLLED_BACK: (_VERMILION, "X"),
    End.REJECTED: ("#CC79A7", "X"),
    End.UNDECIDED: ("#E69F00", "D"),
    End.OVER: (_GREY, "|"),
}
#: Decades of E that are drawn below and above what rolls back.
_LOW, _HIGH = -4.0, 1.5


def backtest_plot(backtest: Backtest) -> bytes:
    """Return a PNG of the challenger's share and of the evidence of harm over time.

    The first draw is thick, the others are thin; a mark says how each one ended. Evidence is that of the guardrail or
    slice that is nearest to a rollback, as a part of what rolls back: at 1 the champion returns.
    """
    figure = Figure(figsize=(_WIDTH_IN, 4.8), dpi=_DPI, facecolor=_PAPER, layout="constrained")
    shares, harm = figure.subplots(2, 1, sharex=True)
    start = backtest.replay.start
    for axes in (shares, harm):
        _style(axes)
    for at, play in reversed(list(enumerate(backtest.plays))):
        _draw(shares, harm, play, start, is_first=at == 0)
    highest = max((glance.share for play in backtest.plays for glance in play.glances), default=0.0)
    shares.set_ylim(0.0, max(10.0, 125.0 * highest))
    shares.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    shares.set_yticks([tick for tick in shares.get_yticks() if tick <= 100.0 * max(0.1, highest)])
    shares.set_xlim(left=0.0)
    shares.set_ylabel("challenger's share\nof requests (%)", color=_GREY, fontsize=9)
    harm.set_ylim(_LOW, _HIGH)
    harm.axhspan(0.0, _HIGH, color=_VERMILION, alpha=0.10, linewidth=0)
    harm.axhline(0.0, color=_VERMILION, linewidth=1.4, linestyle=(0, (4, 3)))
    harm.yaxis.set_major_formatter(lambda value, _: f"{10.0**value:g}")
    harm.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    harm.set_ylabel("evidence of harm, as a part\nof what rolls back (log scale)", color=_GREY, fontsize=9)
    harm.set_xlabel(f"days since {start:%Y-%m-%d %H:%M} UTC, by the time of the log", color=_GREY, fontsize=9)
    _explain(shares, backtest)
    _title(figure, _said(backtest))
    return _png(figure)


def _draw(shares: Axes, harm: Axes, play: Play, start: datetime, *, is_first: bool) -> None:
    width, alpha = (2.2, 1.0) if is_first else (0.8, 0.35)
    days = [_days(glance.at, start) for glance in play.glances]
    percents = [100.0 * glance.share for glance in play.glances]
    shares.step(days, percents, where="post", color=_BLUE, linewidth=width, alpha=alpha, zorder=3 if is_first else 2)
    drawn = [_clipped(glance.harm) for glance in play.glances]
    harm.plot(days, drawn, color=_BLUE, linewidth=width, alpha=alpha, zorder=3 if is_first else 2)
    colour, mark = _MARKS[play.ending.end]
    ended = _days(play.ending.at, start)
    for axes, value in ((shares, _share_until(play.glances, play.ending.at)), (harm, _harm_at(drawn, days, ended))):
        size = 9 if is_first else 5
        axes.plot([ended], [value], mark, color=colour, markersize=size, clip_on=False, zorder=4, alpha=max(alpha, 0.7))


def _clipped(harm: float) -> float:
    """Return `harm` within what is drawn; NaN stays a gap."""
    return harm if math.isnan(harm) else min(max(harm, _LOW), _HIGH)


def _share_until(glances: Sequence[Glance], at: datetime) -> float:
    """Return the share in percent that the challenger had until `at`."""
    before = [glance.share for glance in glances if glance.at < at]
    return 100.0 * (before or [0.0])[-1]


def _harm_at(drawn: Sequence[float], days: Sequence[float], at: float) -> float:
    known = [value for value, day in zip(drawn, days, strict=True) if day <= at and not math.isnan(value)]
    return (known or [_LOW])[-1]


def _explain(axes: Axes, backtest: Backtest) -> None:
    handles = [
        Line2D([], [], color=_MARKS[end][0], marker=_MARKS[end][1], linestyle="", label=f"{end} ({count})")
        for end in End
        if (count := len(backtest.of(end)))
    ]
    axes.legend(handles=handles, frameon=False, fontsize=8, labelcolor=_INK, loc="upper left", ncols=len(handles))


def _said(backtest: Backtest) -> str:
    often = max(End, key=lambda end: len(backtest.of(end)))
    return f"{backtest.replay.plan.name}: {len(backtest.of(often))} of {len(backtest.plays)} draws {often}"


def _days(at: datetime, start: datetime) -> float:
    return (at - start) / timedelta(days=1)


def _style(axes: Axes) -> None:
    axes.tick_params(colors=_GREY, labelsize=8, length=3)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GREY)
