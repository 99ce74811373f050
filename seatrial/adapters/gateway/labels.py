"""Labels over HTTP: checked by the log's own schema, taken once, durable before the caller is told so."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from seatrial.adapters.log_schema import LABEL_ROWS, faults, unknown_columns
from seatrial.errors import InvalidDocumentError, Problem
from seatrial.units import parse_time

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.adapters.gateway.logbook import Logbook

#: Labels of one request.
MAX_LABELS = 10_000
#: Labels that are remembered; one that comes again later is written again, and counts once all the same.
_REMEMBERED = 200_000


class Labels:
    """Takes labels of one decision point."""

    def __init__(self, logbook: Logbook, decision_point: str) -> None:
        self._logbook = logbook
        self._decision_point = decision_point
        self._taken: OrderedDict[tuple[str, str, float, datetime], None] = OrderedDict()

    def take(self, body: Any, *, now: datetime) -> dict[str, Any]:
        """Keep each sound row of ``{"labels": [...]}`` for the log, and say what became of every other one.

        Raises InvalidDocumentError when there are no rows to speak of.
        """
        rows = body.get("labels") if type(body) is dict else None
        if type(rows) is not list or not 0 < len(rows) <= MAX_LABELS:
            remedy = f"send an object with labels, a list of 1 to {MAX_LABELS} rows"
            raise InvalidDocumentError([Problem("labels", "found no list of rows", remedy)])
        accepted = repeated = 0
        rejected = []
        for at, raw in enumerate(rows):
            row, problems = self._read(raw, now)
            if problems or row is None:
                rejected.append({"row": at, "problems": problems})
                continue
            identity = (row["decision_id"], row["name"], float(row["value"]), row["fact_at"])
            if identity in self._taken:
                repeated += 1
                continue
            self._logbook.label(row)
            self._taken[identity] = None
            if len(self._taken) > _REMEMBERED:
                self._taken.popitem(last=False)
            accepted += 1
        return {"accepted": accepted, "repeated": repeated, "rejected": rejected}

    def _read(self, raw: Any, now: datetime) -> tuple[dict[str, Any] | None, list[str]]:
        if type(raw) is not dict:
            return None, ["row: found no object; expected decision_id, name, value and fact_at"]
        row = {"arrived_at": now, **raw}
        problems = [str(each) for each in unknown_columns(row, LABEL_ROWS)]
        for name in ("fact_at", "arrived_at"):
            if isinstance(row.get(name), str):
                try:
                    row[name] = parse_time(row[name])
                except (ValueError, OverflowError) as error:
                    problems.append(f"{name}: {error}")
        if not problems:
            found = faults(row, LABEL_ROWS, decision_point=self._decision_point, now=now)
            problems = [fault.detail for fault in found]
        return row, problems
