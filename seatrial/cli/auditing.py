"""Prove the ledger, hand it out, and answer what reviewers ask."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 typer reads annotations when it runs
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatrial.adapters.decision_lookup import decision_and_labels
from seatrial.cli.exits import ExitCode
from seatrial.cli.options import ActorOption, JsonOption, ReasonOption, SettingsOption, opened
from seatrial.cli.terminal import ALARM, say, show_json
from seatrial.control import questions
from seatrial.control.auditing import Proof, audit
from seatrial.control.checkpointing import checkpoint, erase
from seatrial.control.crosschecking import Fault, crosscheck
from seatrial.control.exporting import exported, keys_text, proof_of
from seatrial.errors import RefusedError
from seatrial.units import parse_time
from seatrial.wiring import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from seatrial.control.auditing import Audit

app = typer.Typer(name="audit", help="Prove the ledger, hand it out, and ask it what reviewers ask.")


def _moment(text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; write it like 2026-01-31T09:00:00+00:00") from error


NumberArgument = Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="Number of the entry.")]
RolloutFilter = Annotated[str | None, typer.Option("--rollout", help="Of one rollout; all when left out.")]


@app.command(epilog="Example: seatrial audit verify")
def verify(*, settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Check chain, tree, checkpoints, anchors and times, and hold the database against the records."""
    with opened(settings) as plant:
        found = audit(plant.ports)
    if as_json:
        show_json(_audit_document(found))
    else:
        _say_faults(found.faults, style=ALARM)
        _say_faults(found.gaps)
        say(f"{found.entries} entries, {found.checkpoints} checkpoints, anchored to {found.anchored}: {found.proof}")
    if found.proof is Proof.TAMPERED:
        raise typer.Exit(ExitCode.TAMPERED)
    if any(gap.kind == "unanswered" for gap in found.gaps):
        raise typer.Exit(ExitCode.UNAVAILABLE)


@app.command("checkpoint", epilog="Example: seatrial audit checkpoint")
def made(*, settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Sign the ledger as it is, and give every anchor what it lacks; the watch does so by itself."""
    with opened(settings) as plant:
        found = checkpoint(plant.ports, now=plant.clock.now())
    if found is None:
        raise RefusedError(
            "the ledger: found no key that signs, or no entry; name a key under ledger.key of the settings"
        )
    if as_json:
        show_json({"origin": found.origin, "size": found.size, "root": found.root.hex()})
    else:
        say(f"signed {found.origin} at {found.size} entries, root {found.root.hex()[:12]}")


@app.command(epilog="Example: seatrial audit export audit-2026-03")
def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder, or an empty one.")],
    *,
    settings: SettingsOption = DEFAULT_SETTINGS,
) -> None:
    """Write entries, checkpoints, what anchors keep, and public keys, for verifier/verify_ledger.py."""
    with opened(settings) as plant:
        files = exported(plant.ports)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise RefusedError(f"{folder}: found files in it; name a new folder, an export is never mixed with another")
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    say(f"wrote {', '.join(files)} to {folder}")


@app.command(epilog="Example: seatrial audit keys > keys.txt")
def keys(*, settings: SettingsOption = DEFAULT_SETTINGS) -> None:
    """Print the ledger's public keys with their validity; an auditor keeps a copy."""
    with opened(settings) as plant:
        say(keys_text(plant.ports).rstrip("\n") or "no key is configured")


@app.command(epilog="Example: seatrial audit prove 42 > entry-42.json")
def prove(number: NumberArgument, *, settings: SettingsOption = DEFAULT_SETTINGS) -> None:
    """Print one entry with the proof that a signed checkpoint holds it, as JSON; shows no other entry."""
    with opened(settings) as plant:
        show_json(proof_of(plant.ports, number))


@app.command("erase", epilog="Example: seatrial audit erase 42 --reason 'request 17 of a customer' --as dana")
def erased(
    numbers: Annotated[list[int], typer.Argument(metavar="NUMBER...", min=1, help="Numbers of entries.")],
    *,
    reason: ReasonOption,
    actor: ActorOption,
    settings: SettingsOption = DEFAULT_SETTINGS,
) -> None:
    """Erase for ever what people wrote in their own words in these entries; the ledger still verifies."""
    with opened(settings) as plant:
        record = erase(plant.ports, numbers, reason=reason, actor=actor, now=plant.clock.now())
    say(f"erased the texts of {', '.join(map(str, record.body['numbers']))}; the ledger says so")


@app.command("who-decided", epilog="Example: seatrial audit who-decided fraud --segment vip --at 2026-03-01T12:00:00Z")
def who_decided(
    decision_point: Annotated[str, typer.Argument(metavar="DECISION_POINT", help="What callers address.")],
    *,
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="When it decided.")],
    segment: Annotated[str | None, typer.Option("--segment", help="Everybody when left out.")] = None,
    as_known_at: Annotated[
        str | None, typer.Option("--as-known-at", metavar="TIME", help="By what was recorded then; now when left out.")
    ] = None,
    settings: SettingsOption = DEFAULT_SETTINGS,
) -> None:
    """Say which releases decided for a segment at a time, with every component, as JSON."""
    moment, known = _moment(at), None if as_known_at is None else _moment(as_known_at)
    with opened(settings) as plant:
        show_json(questions.who_decided(plant.ports, decision_point, segment=segment, at=moment, as_known_at=known))


@app.command(epilog="Example: seatrial audit approvals --rollout 3f9a")
def approvals(*, rollout: RolloutFilter = None, settings: SettingsOption = DEFAULT_SETTINGS) -> None:
    """Say who answered what to which evidence, as JSON."""
    with opened(settings) as plant:
        show_json({"approvals": questions.approvals(plant.ports, _id_of(plant.store, rollout))})


@app.command(epilog="Example: seatrial audit waivers")
def waivers(*, rollout: RolloutFilter = None, settings: SettingsOption = DEFAULT_SETTINGS) -> None:
    """Say who waived which answer of which gate until when, as JSON."""
    with opened(settings) as plant:
        show_json({"waivers": questions.waivers(plant.ports, _id_of(plant.store, rollout))})


@app.command(epilog="Example: seatrial audit rollbacks")
def rollbacks(*, settings: SettingsOption = DEFAULT_SETTINGS) -> None:
    """Say what triggered every rollback and kill, when it was ordered and when it was seen, as JSON."""
    with opened(settings) as plant:
        show_json({"rollbacks": questions.rollbacks(plant.ports)})


@app.command(epilog="Example: seatrial audit outside")
def outside(*, settings: SettingsOption = DEFAULT_SETTINGS) -> None:
    """Say what database and ledger do not say alike, as JSON: what was changed outside the process."""
    with opened(settings) as plant:
        found = list(crosscheck(plant.ports, plant.store.entries()))
    show_json({"outside": [fault.document() for fault in found]})
    if found:
        raise typer.Exit(ExitCode.TAMPERED)


@app.command(epilog="Example: seatrial audit decision d-2026-03-01-000017")
def decision(
    decision_id: Annotated[str, typer.Argument(metavar="DECISION", help="Id in the decision log.")],
    *,
    settings: SettingsOption = DEFAULT_SETTINGS,
) -> None:
    """Say everything about one decision: release, score, cut-off, rule, action, authority, labels, corrections."""
    with opened(settings) as plant:
        rows, labels = decision_and_labels(plant.ports.evidence, plant.logs, decision_id)
        show_json({"answers": [questions.about_decision(plant.ports, row, labels) for row in rows]})


def _id_of(store: Any, rollout: str | None) -> str | None:
    if rollout is None:
        return None
    found: str = store.rollout(rollout).id
    return found


def _say_faults(found: Sequence[Fault], *, style: str = "") -> None:
    for fault in found:
        say(f"{fault.kind}  {fault.where}: {fault.what}", style=style)


def _audit_document(found: Audit) -> dict[str, Any]:
    return {
        "proof": found.proof.value,
        "entries": found.entries,
        "checkpoints": found.checkpoints,
        "anchored": found.anchored,
        "faults": [fault.document() for fault in found.faults],
        "gaps": [fault.document() for fault in found.gaps],
    }
