"""Register batch outputs, see whether they may still be used, and settle a doubt."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 typer reads annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer

from seatrial.adapters.batch_outputs import described
from seatrial.cli.options import ActorOption, JsonOption, ReasonOption, SettingsOption, opened
from seatrial.cli.terminal import say, show_json, show_table
from seatrial.control.outputting import mark, register_output
from seatrial.outputs import Standing  # noqa: TC001 as above
from seatrial.units import short
from seatrial.wiring import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from seatrial.outputs import BatchOutput

app = typer.Typer(name="outputs", help="Batch outputs: files of decisions, and whether they may still be used.")
_HEADER = ("id", "decision point", "standing", "snapshot", "rows", "consumers", "location", "reason")


@app.command("list", epilog="Example: seatrial outputs list fraud")
def listed(
    decision_point: Annotated[
        str | None, typer.Argument(metavar="[DECISION_POINT]", help="What callers address; all when left out.")
    ] = None,
    *,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """List batch outputs with their standing; consumers read this before they use one."""
    with opened(settings) as plant:
        found = plant.store.outputs(decision_point)
    if as_json:
        show_json({"outputs": [output.document() for output in found]})
    elif found:
        show_table(_HEADER, [_row(output) for output in found])
    else:
        say("no batch output is registered")


@app.command(epilog="Example: seatrial outputs register scores.parquet --decision-point fraud --for crm --as ada")
def register(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet with the columns release_id and snapshot_no.")],
    *,
    decision_point: Annotated[str, typer.Option("--decision-point", help="What the decisions are about.")],
    consumers: Annotated[list[str], typer.Option("--for", metavar="NAME", help="Who reads it; may be repeated.")],
    actor: ActorOption,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Register a file of decisions; one of a release that was taken out meanwhile is suspect at once."""
    with opened(settings) as plant:
        now = plant.clock.now()
        read = described(file, decision_point=decision_point, consumers=tuple(consumers), now=now, actor=actor)
        output = register_output(plant.ports, read, now=now, actor=actor)
    _show(output, as_json=as_json)


@app.command("mark", epilog="Example: seatrial outputs mark 3f9a invalidated --reason 'sent again' --as dana")
def marked(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="Id, or its first characters.")],
    standing: Annotated[Standing, typer.Argument(help="What it is from now on.")],
    *,
    reason: ReasonOption,
    actor: ActorOption,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Say whether an output may be used; kept in the ledger with who said so and why."""
    with opened(settings) as plant:
        after = mark(plant.ports, output, standing, reason=reason, now=plant.clock.now(), actor=actor)
    _show(after, as_json=as_json)


def _show(output: BatchOutput, *, as_json: bool) -> None:
    if as_json:
        show_json(output.document())
    else:
        why = f": {output.reason}" if output.reason else ""
        say(f"output {short(output.id)} is {output.standing}{why}")


def _row(output: BatchOutput) -> list[str]:
    return [
        short(output.id),
        output.decision_point,
        output.standing.value,
        str(output.snapshot_no),
        f"{sum(output.rows.values()):,}",
        ", ".join(output.consumers),
        output.location,
        output.reason,
    ]
