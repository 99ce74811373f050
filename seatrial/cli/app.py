"""The program `seatrial`: its commands, and what becomes of their errors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from seatrial.cli import (
    auditing,
    backtest,
    envoy,
    gates,
    handing_over,
    linting,
    logs,
    metrics,
    ordering,
    outputs,
    planning,
    proving,
    publishing,
    reading,
    reviewing,
    serving,
    taking_out,
)
from seatrial.cli.exits import MEANINGS, ExitCode, classify
from seatrial.cli.terminal import complain, show_json
from seatrial.errors import InvalidDocumentError, SeatrialError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.errors import Problem

app = typer.Typer(
    name="seatrial",
    help="Hand over decision systems in steps, under measurement, with a way back.",
    epilog="\n\n".join(["Exit codes:", *(f"{code:>4d}  {meaning}" for code, meaning in MEANINGS.items())]),
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
#: Every command, in the order in which help lists them, with an example.
COMMANDS = (
    (handing_over.check, "seatrial check releases/fraud-7.yaml plans/standard.yaml"),
    (linting.lint, "seatrial lint"),
    (linting.schema, "seatrial schema plan > plan.schema.json"),
    (planning.plan, "seatrial plan plans/standard.yaml --units-per-day 900 --rate 'late=2 %' --delay 'late=24 h'"),
    (backtest.backtest, "seatrial backtest plans/standard.yaml --log logs-of-march --plot march.png"),
    (handing_over.register, "seatrial register releases/fraud-7.yaml --as ada"),
    (handing_over.start, "seatrial start 'fraud 7' --plan plans/standard.yaml --as ada"),
    (reading.status, "seatrial status fraud"),
    (reading.explain, "seatrial explain 3f9a"),
    (handing_over.answer, "seatrial answer 3f9a approve --as dana --reason 'slices read, losses down'"),
    (gates.assess, "seatrial assess 3f9a"),
    (gates.waive, "seatrial waive 3f9a slices --as dana --reason 'VX has 40 flights a month' --expires '14 d'"),
    (gates.acknowledge, "seatrial acknowledge 3f9a crew-planning --as ines --reason 'thresholds moved in our job too'"),
    (reviewing.review, "seatrial review 3f9a"),
    (reading.history, "seatrial history 3f9a --json"),
    (proving.replay, "seatrial replay 3f9a"),
    (serving.serve, "seatrial serve fraud"),
    (metrics.metrics, "seatrial metrics fraud"),
    (ordering.routers, "seatrial routers fraud"),
    (publishing.publish, "seatrial publish --port 8100"),
    (taking_out.kill, "seatrial kill 'fraud 7' --reason 'refuses every card of one bank' --as oncall"),
    (ordering.lift, "seatrial lift fraud 3f9a --reason 'mended in fraud 8' --as oncall"),
    (ordering.drill, "seatrial drill fraud --reason 'monthly' --as oncall"),
    (ordering.pin, "seatrial pin fraud 3f9a --unit c-17 --for '7 d' --reason 'in dispute' --as oncall"),
    (ordering.unpin, "seatrial unpin fraud --unit c-17 --reason 'settled' --as oncall"),
    (taking_out.rollback, "seatrial rollback fraud --reason 'losses doubled since noon' --as oncall"),
)
for _command, _example in COMMANDS:
    app.command(epilog=f"Example: {_example}")(_command)
app.add_typer(proving.app, name="evidence")
app.add_typer(publishing.keys, name="keys")
app.add_typer(envoy.app, name="envoy")
app.add_typer(logs.app, name="logs")
app.add_typer(linting.app, name="contract")
app.add_typer(outputs.app, name="outputs")
app.add_typer(auditing.app, name="audit")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with the words of `argv`, by default the process's own, and return its exit code."""
    words = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    as_json = "--json" in words
    try:
        return int(app(args=words, prog_name="seatrial", standalone_mode=False) or ExitCode.DONE)
    except SeatrialError as error:
        kind, code = classify(error)
        problems = error.problems if isinstance(error, InvalidDocumentError) else ()
        return _failed(kind, code, str(error), problems, as_json=as_json)
    except typer.TyperException as error:
        remedy = "`seatrial --help` and `seatrial COMMAND --help` show what is expected"
        return _failed("usage", ExitCode.BAD_INPUT, f"{error.format_message()}\n{remedy}", as_json=as_json)
    except Exception as error:  # noqa: BLE001 edge of the program: a defect must not look like a refusal or a success
        message = f"{_origin(error)}: unexpected {type(error).__name__}: {error}; report it with this line"
        return _failed("unexpected", ExitCode.UNEXPECTED, message, as_json=as_json)


def _failed(kind: str, code: ExitCode, message: str, problems: Sequence[Problem] = (), *, as_json: bool) -> int:
    if as_json:
        named: list[dict[str, Any]] = [
            {"place": each.place, "finding": each.finding, "remedy": each.remedy} for each in problems
        ]
        error = {"kind": kind, "exit_code": int(code), "message": message, "problems": named}
        show_json({"error": error}, stderr=True)
    else:
        complain(message)
    return int(code)


def _origin(error: BaseException) -> str:
    """Return file and line where `error` was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "seatrial" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
