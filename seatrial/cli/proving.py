"""Prove a decision: recompute it from what is stored, and recount what it rests on from the logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import Progress

from seatrial.cli.exits import ExitCode
from seatrial.cli.labels import labels
from seatrial.cli.options import JsonOption, RolloutArgument, SettingsOption, opened
from seatrial.cli.terminal import ALARM, say, show_json, show_table
from seatrial.control import recounting, replaying
from seatrial.control.recounting import Match
from seatrial.control.replaying import UNPROVEN, Result
from seatrial.units import format_time, short
from seatrial.wiring import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from seatrial.control.recounting import Recounted, Target, Verified
    from seatrial.control.replaying import Difference, Replay, Replayed

_REPLAY_HEADER = ("entry", "at", "who", "move", "result", "findings", "what")
_VERIFY_HEADER = ("entry", "at", "move", "result", "digest", "what")
#: What a match means for the caller.
_CODES = {
    Match.SAME: ExitCode.DONE,
    Match.NOT_COUNTED: ExitCode.DONE,
    Match.EXPLAINED: ExitCode.REFUSED,
    Match.UNEXPLAINED: ExitCode.TAMPERED,
    Match.ERROR: ExitCode.TAMPERED,
}


def replay(
    rollout: RolloutArgument, *, settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False
) -> None:
    """Recompute every decision of a rollout from ledger, stored evidence, plan and releases; needs no logs."""
    with opened(settings) as plant:
        found = replaying.replay(plant.store, rollout)
    if as_json:
        show_json(_replay_document(found))
    else:
        _show_replay(found)
    if not found.is_proven:
        raise typer.Exit(ExitCode.TAMPERED)


def _show_replay(found: Replay) -> None:
    say(f"chain verified: {found.entries} entries, every link fits; head {found.head}")
    say(f"rollout {found.rollout.id} of {found.rollout.decision_point}: {found.rollout.state}\n")
    show_table(_REPLAY_HEADER, [_replay_cells(move) for move in found.moves])
    for move in found.moves:
        _show_differences(f"entry {move.number}", move.differences, "recomputed")
    _show_differences("the stored rollout, against the ledger", found.stored, "stored")
    counts = [(result, sum(move.result is result for move in found.moves)) for result in Result]
    told = ", ".join(f"{count} {result}" for result, count in counts if count) or "no move yet"
    told += "; the stored rollout is NOT the one that the ledger leads to" if found.stored else ""
    say(f"\n{told}", style="" if found.is_proven else ALARM)


def _replay_cells(move: Replayed) -> tuple[str, ...]:
    taken = f" + {move.taken} recorded" if move.taken else ""
    return (
        str(move.number),
        f"{move.at:%Y-%m-%d %H:%M}",
        move.actor,
        f"{move.before} > {move.after}",
        _loud(move.result.value, is_loud=move.result in UNPROVEN),
        f"{move.recomputed}{taken}" if move.recomputed or move.taken else "",
        "; ".join(filter(None, (move.note, move.reason))),
    )


def _loud(text: str, *, is_loud: bool) -> str:
    return text.upper() if is_loud else text


def _show_differences(where: str, differences: Sequence[Difference], found: str) -> None:
    for each in differences:
        say(f"\n{where}: {each.what}\n  recorded: {each.recorded}\n  {found}: {each.found}")


def _replay_document(found: Replay) -> dict[str, Any]:
    return {
        "rollout_id": found.rollout.id,
        "decision_point": found.rollout.decision_point,
        "state": found.rollout.state.value,
        "is_proven": found.is_proven,
        "chain": {"entries": found.entries, "head": found.head},
        "moves": [
            {
                "number": move.number,
                "at": format_time(move.at),
                "who": move.actor,
                "from": move.before.value,
                "to": move.after.value,
                "stage": move.stage,
                "result": move.result.value,
                "reason": move.reason,
                "note": move.note,
                "findings_recomputed": move.recomputed,
                "findings_recorded": move.taken,
                "differences": _differences(move.differences, "recomputed"),
            }
            for move in found.moves
        ],
        "stored_differences": _differences(found.stored, "stored"),
    }


def _differences(differences: Iterable[Difference], found: str) -> list[dict[str, str]]:
    return [{"what": each.what, "recorded": each.recorded, found: each.found} for each in differences]


def verify(
    rollout: RolloutArgument, *, settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False
) -> None:
    """Count the logs again at the time of every decision, and compare with the evidence that was stored."""
    with opened(settings) as plant:
        found = recounting.verify(
            plant.ports,
            plant.recount,
            rollout,
            now=plant.clock.now(),
            progress=lambda targets: _each(targets, as_json=as_json),
        )
    if as_json:
        show_json(_verify_document(found))
    else:
        _show_verified(found)
    code = _CODES[found.worst]
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


def _each(targets: Sequence[Target], *, as_json: bool) -> Iterator[Target]:
    """Give `targets` one by one, and say on a terminal which of how many is counted."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
        task = progress.add_task("", total=len(targets))
        for number, target in enumerate(targets, start=1):
            progress.update(task, description=f"look {number} of {len(targets)}: {target.what}")
            yield target
            progress.advance(task)


def _show_verified(found: Verified) -> None:
    looks = [*found.looks, found.present]
    say(f"rollout {found.rollout.id} of {found.rollout.decision_point}: {found.rollout.state}\n")
    show_table(_VERIFY_HEADER, [_verify_cells(look) for look in looks])
    for look in looks:
        _show_parts(look)
    say(f"\n{_summary(found)}", style="" if _CODES[found.worst] is ExitCode.DONE else ALARM)


def _show_parts(look: Recounted) -> None:
    """Show which counts differ: with examples where nothing explains it, else by their number alone."""
    where = look.target.what if look.target.number is None else f"entry {look.target.number}, {look.target.what}"
    if look.match is Match.EXPLAINED:
        counts = ", ".join(f"{part.name} {part.differing:,}" for part in look.parts)
        say(f"\n{where}: counts that are different: {counts}")
        return
    for part in look.parts:
        say(f"\n{where}: counts that are different: {part.name} {part.differing:,}")
        for each in part.examples:
            say(f"  {each.what}\n    recorded: {each.recorded}\n    recounted: {each.found}")


def _summary(found: Verified) -> str:
    count = sum(look.match is Match.SAME for look in found.looks)
    told = f"{count} of {len(found.looks)} looks are the same, counted again from the logs"
    match found.worst:
        case Match.SAME | Match.NOT_COUNTED:
            return told
        case Match.EXPLAINED:
            return f"{told}; not verifiable: what differs is explained, and the logs of then cannot be counted any more"
        case Match.UNEXPLAINED | Match.ERROR:
            return f"{told}; NOT the evidence that was recorded: call the person who owns the logs"


def _verify_cells(look: Recounted) -> tuple[str, ...]:
    return (
        "" if look.target.number is None else str(look.target.number),
        f"{look.target.at:%Y-%m-%d %H:%M}",
        look.target.what,
        _loud(look.match.value, is_loud=_CODES[look.match] is ExitCode.TAMPERED),
        short(look.target.digest),
        "; ".join(look.reasons),
    )


def _verify_document(found: Verified) -> dict[str, Any]:
    return {
        "rollout_id": found.rollout.id,
        "decision_point": found.rollout.decision_point,
        "result": found.worst.value,
        "looks": [_look_document(look) for look in found.looks],
        "present": _look_document(found.present),
    }


def _look_document(look: Recounted) -> dict[str, Any]:
    return {
        "number": look.target.number,
        "at": format_time(look.target.at),
        "move": look.target.what,
        "result": look.match.value,
        "digest": look.target.digest,
        "recounted_digest": look.digest,
        "reasons": list(look.reasons),
        "parts": [
            {"part": part.name, "differing": part.differing, "examples": _differences(part.examples, "recounted")}
            for part in look.parts
        ],
    }


#: Every command of the group, in the order in which help lists them, with an example.
COMMANDS = (
    (verify, "seatrial evidence verify 3f9a"),
    (labels, "seatrial evidence labels 3f9a"),
)
app = typer.Typer(help="Evidence that decisions rest on: recount it from the logs, see how labels came.")
for _command, _example in COMMANDS:
    app.command(epilog=f"Example: {_example}")(_command)
