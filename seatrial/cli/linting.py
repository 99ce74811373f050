"""Check documents without a server, describe them to editors, and compare contracts: commands that open no store."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 typer reads annotations when it runs
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatrial.cli.exits import ExitCode
from seatrial.cli.kinds import Kind, checked, json_schema, kind_of
from seatrial.cli.options import JsonOption, SettingsOption  # noqa: TC001 typer reads annotations when it runs
from seatrial.cli.terminal import ALARM, say, show_json, show_table
from seatrial.contracts import FeatureContract, compare, version_problem
from seatrial.documents import load_yaml
from seatrial.errors import InvalidDocumentError, Problem
from seatrial.lint import Documents, problems_between
from seatrial.plan import Plan
from seatrial.release import Release
from seatrial.wiring import DEFAULT_SETTINGS, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.contracts import Difference
    from seatrial.documents import Checked, Document
    from seatrial.release import Column

app = typer.Typer(help="Compare feature contracts.", no_args_is_help=True, pretty_exceptions_enable=False)


def lint(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Else all below the settings.")
    ] = None,
    *,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Check manifests, plans, contracts, policies and settings, each alone and against the others; opens nothing."""
    paths = files or _below(settings)
    problems: list[Problem] = []
    sound: list[tuple[Document, Checked]] = []
    for path in paths:
        try:
            document = load_yaml(path)
            sound.append((document, checked(document)))
        except InvalidDocumentError as error:
            problems += error.problems
    problems += problems_between(_sorted(sound))
    if problems:
        raise InvalidDocumentError(problems)
    rows = [[document.source, str(kind_of(document))] for document, _ in sound]
    if as_json:
        show_json({"files": [{"path": path, "kind": kind} for path, kind in rows]})
    else:
        show_table(("file", "is"), rows)
        say(f"\n{len(rows)} files, no problem")


def _below(settings: Path) -> list[Path]:
    """Return every YAML file below the folder of the settings; raises InvalidDocumentError when there is none."""
    folder = settings.resolve().parent
    found = sorted(path for ending in ("*.yaml", "*.yml") for path in folder.rglob(ending))
    if not found:
        raise InvalidDocumentError([Problem(str(folder), "found no YAML file, expected documents", "name the files")])
    return found


def _sorted(sound: Sequence[tuple[Document, Checked]]) -> Documents:
    people = [value.approvers for _, value in sound if isinstance(value, Settings)]
    approvers = {name: frozenset(roles) for given in people for name, roles in given.items()}
    return Documents(
        plans=[(document, value) for document, value in sound if isinstance(value, Plan)],
        releases=[(document, value) for document, value in sound if isinstance(value, Release)],
        contracts=[(document, value) for document, value in sound if isinstance(value, FeatureContract)],
        approvers=approvers if people else None,
    )


def schema(kind: Annotated[Kind, typer.Argument(help="Which documents.")]) -> None:
    """Print the JSON Schema of a kind of document, by which editors complete keys and mark mistakes."""
    show_json(json_schema(kind))


@app.command("diff", epilog="Example: seatrial contract diff contracts/flights-3.yaml contracts/flights-4.yaml")
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="Contract, or release, that readers were built on.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Contract, or release, that comes in its place.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Say what B changes against A, and whether readers built on A are broken; then it ends with 1."""
    found = _differences(before, after)
    is_compatible = not any(each.is_breaking for each in found)
    if as_json:
        shown: list[dict[str, Any]] = [
            {"column": each.column, "what": each.what, "is_breaking": each.is_breaking} for each in found
        ]
        show_json({"is_compatible": is_compatible, "differences": shown})
    elif not found:
        say("no difference")
    else:
        rows = [[each.column, "breaks" if each.is_breaking else "compatible", each.what] for each in found]
        show_table(("column", "effect", "what"), rows)
        say("\ncompatible" if is_compatible else "\nnot compatible", style="" if is_compatible else ALARM)
    if not is_compatible:
        raise typer.Exit(ExitCode.REFUSED)


def _differences(before: Path, after: Path) -> list[Difference]:
    problems: list[Problem] = []
    values: list[FeatureContract | Release] = []
    for path in (before, after):
        try:
            value = checked(load_yaml(path))
        except InvalidDocumentError as error:
            problems += error.problems
            continue
        if isinstance(value, FeatureContract | Release):
            values.append(value)
        else:
            problems.append(Problem(str(path), "found neither contract nor release, expected one", "name another file"))
    if problems:
        raise InvalidDocumentError(problems)
    old, new = values
    named = None
    if isinstance(old, FeatureContract) and isinstance(new, FeatureContract):
        named = version_problem(old, new)
    return [*([named] if named else []), *compare(_columns(old), _columns(new))]


def _columns(value: FeatureContract | Release) -> Sequence[Column]:
    return value.features if isinstance(value, FeatureContract) else value.features.columns
