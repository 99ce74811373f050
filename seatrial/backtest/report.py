"""A backtest in words, tables and JSON."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from seatrial.backtest.playing import End, Play
from seatrial.backtest.requests import micros
from seatrial.evidence import Arm
from seatrial.plan import Shadow
from seatrial.report.planning import Part
from seatrial.report.wording import moment, percent, rate
from seatrial.rollout import State
from seatrial.units import format_duration, format_time, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.backtest.playing import Replay
    from seatrial.backtest.repeating import Backtest
    from seatrial.report.moves import Move

#: What stands where a number does not exist.
_NONE = "-"
_MIDDLE, _MOST = 0.5, 0.9


def headline(backtest: Backtest) -> str:
    """Return in one paragraph how the rollout would have ended."""
    first, draws = backtest.plays[0].ending, len(backtest.plays)
    counted = "; ".join(
        f"{len(plays)} of {draws} draws {end}{_half(plays)}" for end in End if (plays := backtest.of(end))
    )
    return (
        f"{str(first.end).upper()} after {format_duration(first.after)}, in {first.stage}: {first.reason}."
        f" {counted[0].upper()}{counted[1:]}."
    )


def _half(plays: Sequence[Play]) -> str:
    return f", half of these within {_span(_quantile(_days(plays), _MIDDLE))}"


def remarks(backtest: Backtest) -> list[str]:
    """Return what must be known to read the backtest: what was replayed, and what was not."""
    replay = backtest.replay
    requests = replay.requests
    how = (
        "both releases answered the same requests, and each unit was assigned afresh"
        if requests.is_paired
        else "units were given to a release at random, and were thinned to the plan's shares"
    )
    champion, challenger = (short(requests.answers[arm].release_id) for arm in (Arm.CHAMPION, Arm.CHALLENGER))
    count, units = _replayed(replay)
    what = (
        f"{count:,} requests of {units:,} units from {moment(replay.start)} to"
        f" {moment(replay.end)}; champion {champion}, challenger {challenger}: {how}."
    )
    said = [
        what,
        "Gates: not replayed, assumed passed; a log holds no release files.",
    ]
    if any(isinstance(stage, Shadow) for stage in replay.plan.stages) and not requests.is_paired:
        said.append("Shadow: not replayed, assumed passed; a log of one experiment holds one answer to each request.")
    answer = "yes" if replay.is_approved else "no"
    said.append(
        f"Looked at every {format_duration(replay.every)}; a live watch looks every few seconds and finds harm up to"
        f" that much sooner. Routers follow at once; a person who is asked says {answer}, at once."
    )
    if requests.left_out:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in requests.left_out.items())
        said.append(f"Left out: {listed}.")
    return said


def _replayed(replay: Replay) -> tuple[int, int]:
    """Return the requests and units that take part between start and end."""
    at = replay.requests.at
    is_replayed = replay.requests.takes_part & (at >= micros(replay.start)) & (at < micros(replay.end))
    return int(is_replayed.sum()), int(np.unique(replay.requests.unit[is_replayed]).size)


def parts(backtest: Backtest) -> list[Part]:
    """Return the tables of the backtest, in the order in which a person asks."""
    return [_timeline(backtest), _ends(backtest), _cost(backtest)]


def _timeline(backtest: Backtest) -> Part:
    play = backtest.plays[0]
    rows = tuple(
        (
            moment(made.at),
            format_duration(made.at - backtest.replay.start),
            _entered(backtest, made),
            percent(share),
            made.reason,
        )
        for made, share in zip(play.moves, play.shares, strict=True)
    )
    return Part(
        f"What the first of {len(backtest.plays)} draws did",
        ("time", "after", "enters", "share", "reason"),
        rows,
        "Share: the challenger's part of requests from then on.",
    )


def _entered(backtest: Backtest, made: Move) -> str:
    if made.after in _NAMED:
        return backtest.replay.plan.stage_names()[made.stage]
    return str(made.after)


#: States that are called by the stage of the plan.
_NAMED = frozenset({State.GATES, State.SHADOW, State.AWAITING_APPROVAL, State.CANARY, State.LABELS})


def _ends(backtest: Backtest) -> Part:
    rows = tuple(
        (
            str(end),
            f"{len(plays)}",
            rate(len(plays) / len(backtest.plays)),
            *(_span(_quantile(_days(plays), part)) for part in (_MIDDLE, _MOST)),
            *(f"{_quantile(_exposed(plays), part):,.0f}" for part in (_MIDDLE, _MOST)),
        )
        for end in End
        if (plays := backtest.of(end))
    )
    return Part(
        f"How {len(backtest.plays)} draws end",
        ("end", "draws", "part", "time p50", "time p90", "units p50", "units p90"),
        rows,
        "Another draw gives other units to the challenger. Time: of the log, since the start. Units: that the"
        " challenger decided until then. p50 and p90: half and nine tenths of the draws that end so have no more.",
    )


def _cost(backtest: Backtest) -> Part:
    rows = tuple(
        (str(end), name, *(_units(_known(plays, name), part) for part in (1.0 - _MOST, _MIDDLE, _MOST)))
        for end in End
        if (plays := backtest.of(end))
        for name in plays[0].ending.excess
    )
    return Part(
        "Bad units more than the champion would have had",
        ("end", "guardrail", "p10", "p50", "p90"),
        rows,
        "The challenger's bad units until the end, less what the champion's rate of the same time would have given, by"
        f" labels that came in time; below zero it had fewer. {_NONE}: the champion's rate is not known.",
    )


def _days(plays: Sequence[Play]) -> list[float]:
    return [each.ending.after / timedelta(days=1) for each in plays]


def _exposed(plays: Sequence[Play]) -> list[float]:
    return [float(each.ending.exposed) for each in plays]


def _known(plays: Sequence[Play], guardrail: str) -> list[float]:
    return [value for each in plays if (value := each.ending.excess[guardrail]) is not None]


def _quantile(values: Sequence[float], part: float) -> float:
    return float(np.quantile(values, part))


def _span(days: float) -> str:
    return format_duration(timedelta(days=days))


def _units(values: Sequence[float], part: float) -> str:
    return f"{_quantile(values, part):+,.0f}" if values else _NONE


def document(backtest: Backtest) -> dict[str, Any]:
    """Return the backtest as plain data; times in UTC, shares from 0 to 1, keys in ``_s`` in seconds."""
    replay = backtest.replay
    requests = replay.requests
    count, units = _replayed(replay)
    return {
        "plan": {"name": replay.plan.name, "version": replay.plan.version, "id": replay.plan.id},
        "champion_id": requests.answers[Arm.CHAMPION].release_id,
        "challenger_id": requests.answers[Arm.CHALLENGER].release_id,
        "is_paired": requests.is_paired,
        "requests": count,
        "units": units,
        "left_out": dict(requests.left_out),
        "start": format_time(replay.start),
        "end": format_time(replay.end),
        "every_s": replay.every.total_seconds(),
        "approve": replay.is_approved,
        "seed": backtest.seed,
        "remarks": remarks(backtest),
        "ends": {str(end): len(backtest.of(end)) for end in End},
        "draws": [_play_document(backtest, play) for play in backtest.plays],
    }


def _play_document(backtest: Backtest, play: Play) -> dict[str, Any]:
    ending = play.ending
    return {
        "end": str(ending.end),
        "at": format_time(ending.at),
        "after_s": ending.after.total_seconds(),
        "stage": ending.stage,
        "reason": ending.reason,
        "exposed": ending.exposed,
        "excess": dict(ending.excess),
        "moves": [
            {"at": format_time(made.at), "enters": _entered(backtest, made), "share": share, "reason": made.reason}
            for made, share in zip(play.moves, play.shares, strict=True)
        ],
    }
