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
        "lease_until": None if report.lease_until is None else format_time(report.lease_until),
        "shadow": None if report.shadow is None else report.shadow.document(),
        "served": dict(report.served),
        "refused": dict(report.refused),
    }


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
            "lease_until": None if read["lease_until"] is None else parse_time(read["lease_until"]),
            "shadow": None if load is None else ShadowLoad(**require_kinds("shadow load", load, _LOAD)),
        }
    )
