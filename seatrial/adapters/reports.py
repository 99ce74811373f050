"""Router reports as plain data, as they travel over HTTP and lie in files."""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any

from seatrial.gates.load import ShadowLoad
from seatrial.ports import RouterReport
from seatrial.routing.written import require_kinds
from seatrial.units import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_KINDS: Mapping[str, tuple[type, ...]] = {
    "router": (str,),
    "decision_point": (str,),
    "number": (int,),
    "at": (str,),
    "fallback": (str,),
    "lease_until": (str, NoneType),
    "shadow": (dict, NoneType),
    "served": (dict,),
    "refused": (dict,),
    "taken_at": (str, NoneType),
}
_LOAD: Mapping[str, tuple[type, ...]] = {
    "router": (str,),
    "sampling": (int,),
    "sent": (int,),
    "shed": (int,),
    "per_s": (int, float),
    "dependencies": (dict,),
    "is_held": (bool,),
}


def report_document(report: RouterReport) -> dict[str, Any]:
    """Return `report` as plain data."""
    return {
        "router": report.router,
        "decision_point": report.decision_point,
        "number": report.number,
        "at": format_time(report.at),
        "fallback": report.fallback,
        "lease_until": _written(report.lease_until),
        "shadow": None if report.shadow is None else report.shadow.document(),
        "served": dict(report.served),
        "refused": dict(report.refused),
        "taken_at": _written(report.taken_at),
    }


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


def _read(text: str | None) -> datetime | None:
    return None if text is None else parse_time(text)


def report_of(document: object) -> RouterReport:
    """Return the report that `report_document` wrote; raises ValueError for anything else."""
    read = require_kinds("router report", document, _KINDS)
    for counts in (read["served"], read["refused"]):
        if any(type(count) is not int or count < 0 for count in counts.values()):
            raise ValueError(f"router report: found counts {counts!r}; expected whole numbers")
    load = read["shadow"]
    return RouterReport(
        **{
            **read,
            "at": parse_time(read["at"]),
            "lease_until": _read(read["lease_until"]),
            "taken_at": _read(read["taken_at"]),
            "shadow": None if load is None else ShadowLoad(**require_kinds("shadow load", load, _LOAD)),
        }
    )
