"""Say how the labels of a rollout came: repeated, contradictory, late, never, and for no decision at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seatrial.cli.options import JsonOption, RolloutArgument, SettingsOption, opened
from seatrial.cli.terminal import say, show_json, show_table
from seatrial.control.judging import scope_of
from seatrial.evidence import Arm, LabelCell, LabelTally
from seatrial.wiring import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.evidence import Evidence
    from seatrial.plan import Plan

_HEADER = ("label", "arm", "units", "have it", "repeated", "contradictory", "late", "never came", "hidden")


def labels(
    rollout: RolloutArgument, *, settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False
) -> None:
    """Count by arm how the labels of a rollout came, and those that belong to no decision."""
    with opened(settings) as plant:
        found = plant.store.rollout(rollout)
        plan, scope, now = plant.store.plan(found.plan_id), scope_of(found), plant.clock.now()
        evidence = plant.ports.evidence.look(plan, scope, now=now)
        orphans = dict(plant.recount.orphans(plan, scope, now=now))
    rows = list(_rows(evidence, plan))
    if as_json:
        show_json({"rollout": found.id, "labels": rows, "orphans": orphans, "set_aside": dict(evidence.set_aside)})
        return
    if not rows:
        say("the plan reads no label")
        return
    show_table(_HEADER, [tuple("-" if value is None else str(value) for value in row.values()) for row in rows])
    say(f"\nwhere a label came more than once, the {plan.evidence.conflicts} arrival counts")
    for label, count in sorted(orphans.items()):
        say(f"{label}: {count:,} labels belong to no decision in the log")
    for reason, count in sorted(evidence.set_aside.items()):
        say(f"{count:,} rows were set aside: {reason}")


def _rows(evidence: Evidence, plan: Plan) -> Iterator[dict[str, Any]]:
    for label in dict.fromkeys(each.label for each in plan.guardrails if each.label is not None):
        for arm in (Arm.CHAMPION, Arm.CHALLENGER):
            tally = evidence.labels.get(LabelCell(label, arm), LabelTally())
            missing, hidden = _missing(evidence, plan, label, arm)
            yield {
                "label": label,
                "arm": arm.value,
                "units": sum(units for (_, of), units in evidence.assigned.items() if of is arm),
                "labelled": tally.units,
                "repeated": tally.repeated,
                "contradictory": tally.contradictory,
                "late": tally.late,
                "never": missing,
                "hidden": hidden,
            }


def _missing(evidence: Evidence, plan: Plan, label: str, arm: Arm) -> tuple[int | None, int | None]:
    """Return how many matured units have no label within the window, and of how many an action hides it.

    Asked of the guardrail that waits longest; None when no guardrail waits for this label.
    """
    asked = [
        (each.maturity, each.name) for each in plan.guardrails if each.label == label and each.maturity is not None
    ]
    if not asked:
        return None, None
    _, name = max(asked)
    tallies = [
        tally
        for cell, tally in evidence.cells.items()
        if (cell.guardrail, cell.slice_column, cell.arm) == (name, None, arm)
    ]
    hidden = sum(tally.hidden for tally in tallies)
    return sum(tally.matured - tally.labelled for tally in tallies) - hidden, hidden
