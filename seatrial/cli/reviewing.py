"""Review a rollout: what its evidence says about how it is built, not about how well the model does."""

from __future__ import annotations

from seatrial.cli.options import JsonOption, RolloutArgument, SettingsOption, opened
from seatrial.cli.terminal import ALARM, say, show_json, show_table
from seatrial.control import reviewing
from seatrial.verdict import Verdict
from seatrial.wiring import DEFAULT_SETTINGS


def review(
    rollout: RolloutArgument, *, settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False
) -> None:
    """Answer the architecture review of a rollout from its evidence, with references; readiness is the worst answer."""
    with opened(settings) as plant:
        found = reviewing.review(plant.store, plant.store.rollout(rollout).id, now=plant.clock.now())
    if as_json:
        answers = [
            {
                "question": each.question,
                "verdict": each.verdict.name,
                "answer": each.answer,
                "references": list(each.references),
            }
            for each in found.answers
        ]
        show_json({"rollout_id": found.rollout.id, "readiness": found.readiness.name, "answers": answers})
        return
    rows = [[each.question, each.verdict.name, each.answer, ", ".join(each.references)] for each in found.answers]
    show_table(("question", "verdict", "what", "references"), rows)
    is_ready = found.readiness is Verdict.PASS
    say(f"\nreadiness: {found.readiness.name}, the worst of {len(rows)} answers", style="" if is_ready else ALARM)
