"""Waivers as people read them: on every page of a rollout, and of the release that it becomes, for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.report.wording import moment, plain, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from seatrial.waiver import Waived


def waivers(waived: Sequence[Waived], *, now: datetime) -> list[str]:
    """Return heading and table of `waived` as Markdown, nothing when there is none."""
    if not waived:
        return []
    rows = [
        [
            f"**{plain(each.gate)}**",
            plain(each.by),
            plain(each.reason),
            moment(each.at),
            f"{moment(each.expires)}{'' if now < each.expires else ', **ended**'}",
        ]
        for each in waived
    ]
    return ["## Waived gates", table(["gate", "waived by", "reason", "at", "until"], rows)]


def waiver_lines(waived: Iterable[Waived], *, now: datetime) -> list[str]:
    """Return one line of text for each of `waived`."""
    return [f"gate {each.gate} {each.words}{'' if now < each.expires else ' (ended)'}" for each in waived]
