"""Plots of a rollout over time, as small PNGs that read well on light and dark pages.

The Agg object interface alone is used: no pyplot, no shared style, so that plots may be made in any thread.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from seatrial.gates.finding import Question
from seatrial.report.findings import evidence_text, is_slice, number
from seatrial.report.wording import evidence_value, moment, percent
from seatrial.rollout import Action, State
from seatrial.units import SLOTS
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from matplotlib.axes import Axes

    from seatrial.gates.finding import Finding
    from seatrial.ledger import Entry, Record
    from seatrial.ports import Look

# Colours that people with any colour vision can tell apart: Okabe and Ito (2008), "Color universal design".
_BLUE, _VERMILION, _GREEN = "#0072B2", "#D55E00", "#009E73"
_INK, _GREY, _RULE, _PAPER = "#1F2933", "#5F6B7A", "#D8DEE6", "#FFFFFF"

_Coordinates: TypeAlias = Literal["axes fraction", "data"]

#: Panels in one figure; guardrails beyond that stand in the table only.
MOST_PANELS = 9
#: log10 of E below which less evidence is no further news.
_FLOOR = -2.0
#: Decades above the highest threshold after which E is drawn at the upper edge.
_HEADROOM = 4.0
#: log10 of E from which a tick is written as a power.
_LONG_EXPONENT = 4.0
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
#: Letters of a title that fit over the whole figure.
_LETTERS = 82
#: Shades of the palette; thirty-two already show no banding.
_COLOURS = 64
_DPI = 144
_WIDTH_IN = 7.6


def data_uri(png: bytes) -> str:
    """Return `png` as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def image(png: bytes, alt: str) -> str:
    """Return `png` as a Markdown image with its content inside."""
    text = " ".join(alt.split()).replace("[", "(").replace("]", ")")
    return f"![{text}]({data_uri(png)})"


def share_steps(looks: Sequence[Look], entries: Sequence[Entry] = ()) -> list[tuple[datetime, float]]:
    """Return since when the challenger had which share, in [0, 1], oldest first.

    The ledger knows when routing was changed. Without its entries the looks tell; one that rolled back, or left the
    question to a person, ended the share.
    """
    challenger = next((e.record.body["challenger"] for e in entries if e.record.kind == "rollout.started"), None)
    routed = [(e.record.at, share) for e in entries if (share := _recorded_share(e.record, challenger)) is not None]
    seen = [(look.at, look.share) for look in looks]
    if looks and looks[-1].action in (Action.ROLL_BACK, Action.ASK):
        seen.append((looks[-1].at, 0.0))
    if not routed:
        return seen
    before = [(at, 0.0) for at, _ in seen[:1] if at < routed[0][0]]
    after = [(at, routed[-1][1]) for at, _ in seen[-1:] if at > routed[-1][0]]
    return [*before, *routed, *after]


def _recorded_share(record: Record, challenger: str | None) -> float | None:
    """Return the challenger's share from `record` on, or None when the record does not change it."""
    match record.kind:
        case "share.intended" | "share.corrected" if record.body["champion"] == challenger:
            return 1.0
        case "share.intended" | "share.corrected":
            return float(record.body["slots"] / SLOTS)
        case "rollout.decided" if record.body["to"] in (State.SUPERSEDED, State.RETIRED):
            return 0.0
        case _:
            return None


def share_plot(looks: Sequence[Look], entries: Sequence[Entry] = ()) -> bytes:
    """Return a PNG of the challenger's share over time, as steps."""
    steps = share_steps(looks, entries)
    if not steps:
        return _nothing("The challenger has had no share of traffic yet")
    figure = Figure(figsize=(_WIDTH_IN, 2.3), dpi=_DPI, facecolor=_PAPER, layout="constrained")
    axes = figure.add_subplot()
    times = [_days(at) for at, _ in steps]
    shares = [100.0 * share for _, share in steps]
    _style(axes, _time_span([at for at, _ in steps] + [look.at for look in looks]))
    axes.fill_between(times, shares, step="post", color=_BLUE, alpha=0.14, linewidth=0)
    axes.step(times, shares, where="post", color=_BLUE, linewidth=2.2, solid_joinstyle="miter")
    is_taken_out = shares[-1] == 0.0 and max(shares) > 0.0
    marker, colour = ("X", _VERMILION) if is_taken_out else ("o", _BLUE)
    axes.plot(times[-1:], shares[-1:], marker, color=colour, markersize=8, clip_on=False, zorder=4)
    _label_steps(axes, times, shares)
    top = max(10.0, 1.25 * max(shares))
    axes.set_ylim(0.0, top)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= min(100.0, top)])
    axes.set_ylabel("challenger's share\nof requests (%)", color=_GREY, fontsize=9)
    _title(figure, _share_title(steps))
    return _png(figure)


def _share_title(steps: Sequence[tuple[datetime, float]]) -> str:
    share = steps[-1][1]
    since = next((steps[i][0] for i in range(len(steps) - 1, 0, -1) if steps[i - 1][1] != share), steps[0][0])
    if share > 0.0:
        return f"The challenger answers {percent(share)} of requests since {moment(since)}"
    if any(before > 0.0 for _, before in steps):
        return f"The challenger answers nothing since {moment(since)}"
    return "The challenger has not answered any request yet"


def _label_steps(axes: Axes, times: Sequence[float], shares: Sequence[float]) -> None:
    """Write each new share above the beginning of its step; steps too narrow for it stay without."""
    width = (times[-1] - times[0]) or 1.0
    last = -math.inf
    for at, (moment_of, share) in enumerate(zip(times, shares, strict=True)):
        is_new = share > 0.0 and (at == 0 or share != shares[at - 1])
        if is_new and moment_of - last > 0.06 * width:
            last = moment_of
            axes.annotate(
                percent(share / 100.0),
                (moment_of, share),
                xytext=(3, 4),
                textcoords="offset points",
                color=_INK,
                fontsize=9,
                fontweight="bold",
            )


@dataclass(frozen=True, slots=True)
class Track:
    """The evidence on one subject over time."""

    subject: str
    times: tuple[datetime, ...]
    log10_e: tuple[float, ...]  #: NaN where E was not known, which leaves a gap
    threshold: float | None  #: log10 of the E that is needed, at the last look
    reached: datetime | None  #: first look at which the question was answered FAIL or PASS
    last: Finding


def tracks(looks: Sequence[Look], question: Question) -> list[Track]:
    """Return the evidence on each subject of `question`: all overall ones, and slices of which harm is proven.

    While a slice is quiet it shares a finding with others, and its track has a gap.
    """
    asked = [(look.at, {f.subject: f for f in look.findings if f.question is question}) for look in looks]
    asked = [(at, found) for at, found in asked if found]
    subjects = dict.fromkeys(subject for _, found in asked for subject in found)
    made = (_track(subject, [(at, found.get(subject)) for at, found in asked]) for subject in subjects)
    return [track for track in made if not is_slice(track.last) or track.reached is not None]


def _track(subject: str, points: Sequence[tuple[datetime, Finding | None]]) -> Track:
    """Return the track of `points`, from the first finding to the last; a slice that was quiet between has none."""
    known = [at for at, (_, finding) in enumerate(points) if finding is not None]
    points = points[known[0] : known[-1] + 1]
    log_es = [None if finding is None else number(finding, "log_e") for _, finding in points]
    found = [(at, finding) for at, finding in points if finding is not None]
    needed = number(found[-1][1], "threshold")
    answered = (at for at, finding in found if finding.verdict in (Verdict.FAIL, Verdict.PASS))
    return Track(
        subject,
        tuple(at for at, _ in points),
        tuple(math.nan if value is None else value / math.log(10.0) for value in log_es),
        None if needed is None else needed / math.log(10.0),
        next(answered, None),
        found[-1][1],
    )


@dataclass(frozen=True, slots=True)
class _Style:
    """How a figure of evidence speaks and looks."""

    reached: str  #: colour of the zone beyond the threshold
    zone: str  #: what happens there
    axis: str


_HARM = _Style(_VERMILION, "rolls back", "evidence of harm, E (log scale)")
_RELIEF = _Style(_GREEN, "ruled out", "evidence against harm, E (log scale)")


def evidence_plot(looks: Sequence[Look]) -> bytes:
    """Return a PNG of the evidence of harm over time: one panel for each guardrail, its threshold as a dashed line.

    A slice has a panel of its own once harm is proven in it. E is 1 before any evidence; the threshold is one over
    the hypothesis' part of the rollback budget.
    """
    found = tracks(looks, Question.HARM)
    if not found:
        return _nothing("No look has asked about harm yet")
    return _panels(found, _HARM, _harm_title(found), [look.at for look in looks])


def promotion_plot(looks: Sequence[Look]) -> bytes:
    """Return a PNG of the evidence that harm is ruled out, one panel for each guardrail.

    For promotion when that has been asked, otherwise for a larger share.
    """
    found = tracks(looks, Question.PROMOTION)
    goal = "promotion"
    if not found:
        found, goal = tracks(looks, Question.EXPOSURE), "a larger share"
    if not found:
        return _nothing("No look has asked yet whether harm is ruled out")
    return _panels(found, _RELIEF, _relief_title(found, goal), [look.at for look in looks])


def _harm_title(found: Sequence[Track]) -> str:
    proven = sorted((not t.last.is_binding, t.reached, t.subject) for t in found if t.reached is not None)
    if not proven:
        return "No harm is proven: every guardrail stays below its threshold"
    is_ignored, since, subject = proven[0]
    others = f" and {len(proven) - 1} more" if len(proven) > 1 else ""
    return f"Harm is proven{' (not acted on)' if is_ignored else ''} since {moment(since)}: {subject}{others}"


def _relief_title(found: Sequence[Track], goal: str) -> str:
    needed = [track for track in found if track.last.is_binding]
    passed = sum(track.last.verdict is Verdict.PASS for track in needed)
    said = f"Harm is ruled out for {passed} of {len(needed)} guardrails"
    return f"{said}, as {goal} needs" if passed == len(needed) > 0 else f"{said}; {goal} needs all"


def _panels(found: Sequence[Track], style: _Style, title: str, times: Sequence[datetime]) -> bytes:
    nearest = sorted(found, key=_missing)[:MOST_PANELS]
    shown = [track for track in found if track in nearest]
    columns = {1: 1, 2: 2, 4: 2}.get(len(shown), 3)
    rows = math.ceil(len(shown) / columns)
    height = 2.9 if rows == 1 else 0.7 + 1.75 * rows
    figure = Figure(figsize=(_WIDTH_IN, height), dpi=_DPI, facecolor=_PAPER, layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    limits = _evidence_limits(shown)
    for axes, track in zip(grid, shown, strict=False):
        _style(axes, _time_span(times))
        _draw_track(axes, track, style, limits, letters=_LETTERS // columns)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    for axes in grid[: max(0, len(shown) - columns)]:
        axes.tick_params(labelbottom=False)
        axes.xaxis.get_offset_text().set_visible(False)
    figure.supylabel(style.axis, color=_GREY, fontsize=9)
    if left_out := len(found) - len(shown):
        figure.supxlabel(f"{left_out} with less evidence are not drawn", color=_GREY, fontsize=8)
    _title(figure, title)
    return _png(figure)


def _missing(track: Track) -> float:
    """Return how much evidence is missing for an answer, least for what matters most when not all can be drawn."""
    known = [value for value in track.log10_e if not math.isnan(value)]
    if track.reached is not None or track.threshold is None or not known:
        return -math.inf
    return track.threshold - known[-1]


def _evidence_limits(shown: Iterable[Track]) -> tuple[float, float]:
    """Return the range of log10 E to draw: zero and every threshold are in it, extremes are cut."""
    values = [v for track in shown for v in track.log10_e if not math.isnan(v)]
    thresholds = [track.threshold for track in shown if track.threshold is not None]
    top = max([1.0, *thresholds])
    highest = min(max([top, *values]), top + _HEADROOM)
    lowest = max(min([-0.5, *values]), _FLOOR)
    return lowest - 0.1, highest + 0.18 * (highest - lowest)


def _draw_track(axes: Axes, track: Track, style: _Style, limits: tuple[float, float], *, letters: int) -> None:
    low, high = limits
    axes.set_ylim(low, high)
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    if track.threshold is not None:
        _draw_threshold(axes, track, style, high)
    times = [_days(at) for at in track.times]
    edge = 0.03 * (high - low)
    drawn = [min(max(value, low + edge), high - edge) for value in track.log10_e]
    axes.plot(times, drawn, color=_BLUE, linewidth=2.0, solid_capstyle="round")
    points = [(len(times) - 1, _BLUE, 5.0)]
    if track.reached is not None:
        points.append((track.times.index(track.reached), style.reached, 8.0))
    for at, colour, size in points:
        is_beyond = track.log10_e[at] > high - edge
        axes.plot(times[at], drawn[at], "^" if is_beyond else "o", color=colour, markersize=size, zorder=4)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    axes.set_title(
        _clipped(track.subject, letters),
        loc="left",
        color=_INK,
        fontsize=9.5,
        fontweight="bold",
        parse_math=False,
        pad=15,
    )
    _note(axes, evidence_text(track.last) or "E unknown", (0.0, 1.0), "axes fraction", _GREY)


def _draw_threshold(axes: Axes, track: Track, style: _Style, high: float) -> None:
    threshold = track.threshold or 0.0
    zone = style.zone if track.last.is_binding else "not acted on"
    axes.axhspan(threshold, high, color=style.reached, alpha=0.10, linewidth=0)
    axes.axhline(threshold, color=style.reached, linewidth=1.4, linestyle=(0, (4, 3)))
    text = f"E ≥ {evidence_value(threshold * math.log(10.0))}: {zone}"
    _note(axes, text, (0.02, threshold), ("axes fraction", "data"), style.reached)


def _note(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    coordinates: _Coordinates | tuple[_Coordinates, _Coordinates],
    colour: str,
) -> None:
    note = axes.annotate(
        text, at, xycoords=coordinates, xytext=(0, 4), textcoords="offset points", color=colour, fontsize=8, zorder=5
    )
    note.set_path_effects([Stroke(linewidth=2.5, foreground=_PAPER), Normal()])
    # Else one long word would take the room that the curves need.
    note.set_in_layout(False)


def _power_of_ten(exponent: float, _position: object) -> str:
    if exponent < _LONG_EXPONENT:
        return f"{10.0**exponent:,.{max(0, round(-exponent))}f}"
    return f"10{str(round(exponent)).translate(_SUPERSCRIPTS)}"


def _days(at: datetime) -> float:
    """Return `at` as matplotlib counts time: days since 1970 in UTC."""
    return at.timestamp() / 86_400.0


def _time_span(times: Sequence[datetime]) -> tuple[float, float]:
    """Return the range of days to draw, with a little room; a single moment gets an hour on each side."""
    first, last = min(times), max(times)
    room = max((last - first) * 0.03, timedelta(minutes=1) if last > first else timedelta(hours=1))
    return _days(first - room), _days(last + room)


def _style(axes: Axes, span: tuple[float, float]) -> None:
    axes.set_xlim(*span)
    locator = AutoDateLocator(tz=UTC, minticks=2, maxticks=5)  # type: ignore[no-untyped-call] # has no types
    formatter = ConciseDateFormatter(  # type: ignore[no-untyped-call] # has no types
        locator,
        tz=UTC,
        formats=["%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M", "%S.%f"],
        zero_formats=["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"],
        offset_formats=["UTC", "UTC", "%Y, UTC", "%b %Y, UTC", "%d %b %Y, UTC", "%d %b %Y, UTC"],
    )
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    axes.xaxis.get_offset_text().set(color=_GREY, fontsize=8)
    axes.tick_params(colors=_GREY, labelsize=8, length=3)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GREY)


def _title(figure: Figure, text: str) -> None:
    text = _clipped(text, _LETTERS)
    figure.suptitle(text, x=0.012, ha="left", color=_INK, fontsize=11, fontweight="bold", parse_math=False)


def _clipped(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _nothing(text: str) -> bytes:
    figure = Figure(figsize=(_WIDTH_IN, 1.2), dpi=_DPI, facecolor=_PAPER)
    figure.text(0.5, 0.5, text, ha="center", va="center", color=_GREY, fontsize=11)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    # A palette makes the file four times smaller; pages are stored again at every look. Without the name and version
    # of the library in it, equal data gives equal bytes.
    flat = Image.open(drawn).convert("RGB").quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small = io.BytesIO()
    flat.save(small, "PNG", optimize=True)
    return small.getvalue()
