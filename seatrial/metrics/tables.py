"""Metrics for people, as rows by category, and as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from seatrial.metrics.families import FAMILIES, Category
from seatrial.report.wording import plain, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from seatrial.metrics.seen import Metric

HEADER = ("metric", "of", "value", "unit")
#: Labels that stand in the heading of a table, or are of no use to a reader.
_PLACE = ("decision_point", "rollout", "champion", "challenger")


class Row(NamedTuple):
    """One metric as text."""

    category: Category
    metric: str
    of: str
    value: str
    unit: str


def rows(metrics: Iterable[Metric]) -> list[Row]:
    """Return `metrics` as rows by category, each in its order; an absent one says why."""
    order = list(Category)
    found = [
        Row(each.family.category, each.family.name.removeprefix("seatrial_"), _of(each), text(each), each.family.unit)
        for each in metrics
        if not _is_idle(each)
    ]
    return sorted(found, key=lambda row: order.index(row.category))


def _is_idle(metric: Metric) -> bool:
    """Return whether it counts the findings of a verdict that was not given, which a reader is spared."""
    return metric.family.name == FAMILIES["findings"].name and metric.value == 0.0


def text(metric: Metric) -> str:
    """Return the value with four digits, or why there is none."""
    if metric.value is None:
        return f"absent: {metric.absent}"
    return f"{metric.value:,.0f}" if metric.value.is_integer() else f"{metric.value:,.4g}"


def _of(metric: Metric) -> str:
    parts = [f"{name}={value}" for name, value in metric.labels.items() if name not in _PLACE and value]
    return ", ".join(parts)


def document(metric: Metric) -> dict[str, Any]:
    """Return `metric` as plain data; exactly one of value and absent is not None."""
    return {
        "metric": metric.family.name,
        "category": metric.family.category.value,
        "labels": dict(metric.labels),
        "value": metric.value,
        "unit": metric.family.unit,
        "absent": None if metric.absent is None else metric.absent.value,
    }


def markdown(title: str, metrics: Sequence[Metric]) -> str:
    """Return `metrics` as one page: for each rollout a table of each category, and what concerns none."""
    parts = [f"# {plain(title)}", "A number that cannot be computed is absent with its reason; it is no zero."]
    for rollout in dict.fromkeys(each.labels.get("rollout", "") for each in metrics):
        mine = rows(each for each in metrics if each.labels.get("rollout", "") == rollout)
        parts.append(f"## {'Decision point' if not rollout else f'Rollout {plain(rollout)}'}")
        for category in Category:
            cells = [[plain(cell) for cell in row[1:]] for row in mine if row.category is category]
            if cells:
                parts += [f"### {category.value.capitalize()}", table(HEADER, cells)]
    return "\n\n".join(parts)
