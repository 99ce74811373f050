"""Say before a rollout what its plan will cost and can show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import numpy as np
import typer

from seatrial.cli.options import JsonOption, write_plot
from seatrial.cli.terminal import ALARM, now_and_then, say, show_json, show_table
from seatrial.forecast import expect, forecast
from seatrial.plan import load_plan
from seatrial.report.planning import forecast_plot, parts, shortfall_sentences, summary
from seatrial.units import parse_duration, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from seatrial.forecast import Forecast


_T = TypeVar("_T")

PlanArgument = Annotated[Path, typer.Argument(metavar="PLAN", help="Plan file.")]
UnitsOption = Annotated[
    float | None, typer.Option("--units-per-day", metavar="N", help="New units a day, instead of the plan's.")
]
RateOption = Annotated[
    list[str] | None,
    typer.Option("--rate", metavar="NAME=RATE", help="Champion's rate of bad units of a guardrail, such as late=2 %."),
]
DelayOption = Annotated[
    list[str] | None,
    typer.Option(
        "--delay", metavar="NAME=TIME", help="When half of a guardrail's labels are there, such as late=24 h."
    ),
]
ReplicatesOption = Annotated[int, typer.Option("--replicates", min=20, max=100_000, help="Rollouts for each answer.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Chance of the simulation; the same gives the same.")]
HorizonOption = Annotated[
    bool, typer.Option("--planned-horizon", help="Add what a test of ten planned looks would need.")
]
PlotOption = Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Write a plot to this file too.")]


def plan(
    plan: PlanArgument,
    *,
    units_per_day: UnitsOption = None,
    rate: RateOption = None,
    delay: DelayOption = None,
    replicates: ReplicatesOption = 400,
    seed: SeedOption = 1,
    planned_horizon: HorizonOption = False,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast what rollouts by a plan will expose, find and promote, and which margins they cannot show in time."""
    checked = load_plan(plan)
    rates, delays = _named("--rate", rate or (), _rate), _named("--delay", delay or (), parse_duration)
    tell = now_and_then(is_silent=as_json)
    found = forecast(
        checked,
        expect(checked, units_per_day=units_per_day, rates=rates, delays=delays),
        rng=np.random.default_rng(seed),
        replicates=replicates,
        is_planned_asked=planned_horizon,
        on_progress=lambda part: tell(f"simulated {part:.0%}"),
    )
    if plot is not None:
        write_plot(plot, forecast_plot(found))
    if as_json:
        show_json(found.document())
    else:
        _show(found)


def _show(found: Forecast) -> None:
    for sentence in shortfall_sentences(found):
        say(f"{sentence}\n", style=ALARM)
    say(summary(found))
    for part in parts(found):
        say(f"\n{part.title}", style="bold")
        show_table(part.header, part.rows)
        say(part.note, style="dim")


def _named(option: str, given: Iterable[str], parse: Callable[[str], _T]) -> dict[str, _T]:
    """Return what ``NAME=VALUE`` says for each name."""
    named: dict[str, _T] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (equals and name.strip()):
            raise typer.BadParameter(f"{option}: found {text!r}, expected NAME=VALUE; write the guardrail's name first")
        try:
            named[name.strip()] = parse(value.strip())
        except ValueError as error:
            raise typer.BadParameter(f"{option} {name.strip()}: {error}") from error
    return named


def _rate(text: str) -> float:
    return parse_share(text if text.endswith("%") else float(text))
