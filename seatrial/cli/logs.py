"""Keep the decision and label logs: see what is there, merge small files, delete old ones, erase a unit."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress

from seatrial.adapters import log_erasure, log_keeping
from seatrial.adapters.counted import MEMORY, forget
from seatrial.adapters.counting import REFERENCE, SETTLED
from seatrial.adapters.log_keeping import keeping, partitions, require_finished, unfinished
from seatrial.adapters.log_table_erasure import erase_in_tables
from seatrial.cli.options import ActorOption, JsonOption, ReasonOption, SettingsOption, opened
from seatrial.cli.terminal import say, show_json, show_table
from seatrial.control.watching import is_open
from seatrial.errors import NotFoundError
from seatrial.units import format_duration, parse_duration
from seatrial.wiring import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from seatrial.adapters.log_keeping import Inspected, Partition
    from seatrial.ledger import Record
    from seatrial.plan import Plan
    from seatrial.ports import Store

    T = TypeVar("T")


def _age(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


PointOption = Annotated[
    str | None, typer.Option("--decision-point", metavar="NAME", help="Of one decision point; else of all.")
]
AgeOption = Annotated[
    timedelta,
    typer.Option("--older-than", metavar="DURATION", parser=_age, help="Days that ended this long ago, such as 400d."),
]
_CHECK_HEADER = ("log", "decision point", "date", "files", "rows", "size", "small", "what")
_EXPIRE_HEADER = ("log", "decision point", "date", "files", "rows", "size")


def check(
    *,
    decision_point: PointOption = None,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """List every day of every log: files, rows, what is in quarantine and why, and what cut-off programs left."""
    with opened(settings) as plant:
        root = plant.logs
    found = [log_keeping.inspect(each) for each in _each(_chosen(root, decision_point), as_json=as_json)]
    left = unfinished(root)
    if as_json:
        show_json({"root": str(root), "partitions": [_document(each) for each in found], "unfinished_erasures": left})
        return
    if not found:
        say(f"no log below {root}")
        return
    show_table(_CHECK_HEADER, [(*_cells(each)[:6], str(each.small), _notes(each)) for each in found])
    if left:
        say(f"\nunfinished erasure {', '.join(left)}: repeat `seatrial logs erase` for the same unit")


def compact(
    *,
    decision_point: PointOption = None,
    older_than: AgeOption = timedelta(days=1),
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Merge the small files of days that are over into few large ones; the rows stay the same."""
    with opened(settings) as plant:
        root, now = plant.logs, plant.clock.now()
    with keeping(root):
        require_finished(root)
        old = [each for each in _chosen(root, decision_point) if each.is_older(older_than, now=now)]
        done = [log_keeping.compact(each) for each in _each(old, as_json=as_json)]
    merged, into, cleared = (sum(getattr(each, name) for each in done) for name in ("merged", "into", "cleared"))
    if as_json:
        changed = [
            {**_place(each.partition), "merged": each.merged, "into": each.into, "cleared": each.cleared}
            for each in done
            if each.merged or each.cleared
        ]
        show_json({"root": str(root), "partitions": changed})
    else:
        say(f"merged {merged} files of {len(done)} days into {into}; deleted {cleared} that killed programs had left")


def retain(
    *,
    older_than: Annotated[
        timedelta,
        typer.Option("--older-than", metavar="DURATION", parser=_age, help="Delete days that ended this long ago."),
    ],
    actor: ActorOption,
    decision_point: PointOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it only what would go is shown.")] = False,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Delete days that are old and that no open rollout may still read; the ledger keeps their digests."""
    with opened(settings) as plant:
        root, now = plant.logs, plant.clock.now()
        with keeping(root):
            require_finished(root)
            _chosen(root, decision_point)
            old = log_keeping.expired(
                root, older_than, now=now, needed_since=_needed_since(plant.store), decision_point=decision_point
            )
            found = [log_keeping.inspect(each) for each in old]
            if yes:
                log_keeping.clear_expired(root)
                for each in _each(old, as_json=as_json):
                    log_keeping.expire(each, plant.store.append, now=now, actor=actor, age=older_than)
    if as_json:
        show_json({"root": str(root), "is_deleted": yes, "partitions": [_document(each) for each in found]})
        return
    if found:
        show_table(_EXPIRE_HEADER, [_cells(each) for each in found])
        say("")
    ending = "deleted, and recorded in the ledger" if yes else "would go; nothing was deleted, add --yes to do it"
    say(f"{len(found)} days of logs {ending}" if found else f"nothing is older than {format_duration(older_than)}")


def erase(
    *,
    unit: Annotated[str, typer.Option("--unit", metavar="KEY", help="Key of the unit; it is written nowhere.")],
    reason: ReasonOption,
    actor: ActorOption,
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Blank its attributes too; counts by slice change then.")
    ] = False,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Take the personal data of one unit out of all logs, files and tables; again goes on where it was cut off."""
    request = log_erasure.Request(unit, reason, actor, attributes)
    with opened(settings) as plant, keeping(plant.logs):
        now = plant.clock.now()
        in_tables: tuple[Record, ...] = ()
        done = log_erasure.erase(
            plant.logs,
            request,
            plant.store.append,
            salt=secrets.token_bytes(log_erasure.SALT_BYTES),
            now=now,
            progress=lambda paths: _each(paths, as_json=as_json),
        )
        forget(plant.logs / MEMORY)
        if plant.warehouse is not None:
            salt = secrets.token_bytes(log_erasure.SALT_BYTES)
            in_tables = erase_in_tables(plant.warehouse, request, plant.store.append, salt=salt, now=now)
    rows = sum(record.body["rows"] for record in in_tables)
    if as_json:
        records = [record.key for record in (*done.records, *in_tables)]
        show_json({"files": done.files, "rows": done.rows, "rows_in_tables": rows, "records": records})
    elif done.files or rows:
        tables = f", {rows} rows in tables" if plant.warehouse is not None else ""
        found = f"{done.rows} rows in {done.files} files rewritten{tables}"
        say(f"erased: {found}, and recorded in the ledger without the key")
    else:
        say("no row names this unit; nothing was written")


def _chosen(root: Path, decision_point: str | None) -> list[Partition]:
    """Return the partitions of one decision point or of all; raises NotFoundError for one that has no log."""
    found = partitions(root, decision_point)
    if decision_point is not None and not found:
        raise NotFoundError.of(
            "log of decision point", decision_point, {each.decision_point for each in partitions(root)}
        )
    return found


def _each(things: Sequence[T], *, as_json: bool) -> Iterator[T]:
    """Give `things` one by one, with a bar on a terminal that shows how far this is."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
        yield from progress.track(things)


def _needed_since(store: Store) -> dict[str, datetime]:
    """Return from when on open rollouts may read the logs of each decision point."""
    since: dict[str, datetime] = {}
    for rollout in store.rollouts():
        if is_open(rollout):
            first = rollout.created_at - REFERENCE - SETTLED - _longest_maturity(store.plan(rollout.plan_id))
            since[rollout.decision_point] = min(first, since.get(rollout.decision_point, first))
    return since


def _longest_maturity(plan: Plan) -> timedelta:
    waits = [guardrail.maturity for guardrail in plan.guardrails]
    waits += [] if plan.scores is None else [plan.scores.maturity]
    return max((wait for wait in waits if wait is not None), default=timedelta(0))


def _place(partition: Partition) -> dict[str, str]:
    return {"log": partition.kind.value, "decision_point": partition.decision_point, "date": partition.date}


def _document(found: Inspected) -> dict[str, Any]:
    return {
        **_place(found.partition),
        "files": found.files,
        "rows": found.rows,
        "bytes": found.size,
        "small_files": found.small,
        "replaced_files": found.replaced,
        "partial_files": found.partials,
        "unreadable_files": list(found.unreadable),
        "quarantined": dict(found.reasons),
    }


def _cells(found: Inspected) -> tuple[str, ...]:
    rows = "unknown" if found.rows is None else f"{found.rows:,}"
    return (*_place(found.partition).values(), str(found.files), rows, f"{found.size / 2**20:.1f} MB")


def _notes(found: Inspected) -> str:
    notes = [f"{count:,} {reason}" for reason, count in found.reasons.items()]
    notes += [f"cannot be read: {name}" for name in found.unreadable]
    notes += [f"{found.partials} half-written"] if found.partials else []
    notes += [f"{found.replaced} replaced"] if found.replaced else []
    return ", ".join(notes)


#: Every command of the group, in the order in which help lists them, with an example.
COMMANDS = (
    (check, "seatrial logs check --decision-point fraud"),
    (compact, "seatrial logs compact --older-than 1d"),
    (retain, "seatrial logs retain --older-than 400d --yes --as platform"),
    (erase, "seatrial logs erase --unit card-17 --reason 'request 2024-118' --as privacy"),
)
app = typer.Typer(help="Keep the decision and label logs: what is there, compaction, retention, erasure.")
for _command, _example in COMMANDS:
    app.command(epilog=f"Example: {_example}")(_command)
