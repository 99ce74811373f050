"""Replay a plan over logs of two releases, before anybody trusts it with a third one."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seatrial.backtest import Replay, backtest_plot, default_every, default_start, read_experiment, read_pair
from seatrial.backtest import backtest as replay_draws
from seatrial.backtest.report import document, headline, parts, remarks
from seatrial.cli.options import JsonOption, write_plot
from seatrial.cli.planning import PlanArgument, PlotOption  # noqa: TC001 typer reads annotations when it runs
from seatrial.cli.terminal import now_and_then, say, show_json, show_table
from seatrial.errors import InvalidDocumentError, Problem
from seatrial.plan import load_plan
from seatrial.units import format_duration, parse_duration, parse_time

if TYPE_CHECKING:
    from seatrial.backtest import Backtest, Requests
    from seatrial.plan import Plan

LogOption = Annotated[
    Path | None,
    typer.Option("--log", metavar="DIR", help="Logs of one experiment in which units were drawn at random."),
]
PropensityOption = Annotated[
    str, typer.Option("--propensity", metavar="COLUMN", help="Its column with the challenger's probability.")
]
ChampionLogOption = Annotated[
    Path | None, typer.Option("--champion-log", metavar="DIR", help="Logs of the champion's answers.")
]
ChallengerLogOption = Annotated[
    Path | None,
    typer.Option("--challenger-log", metavar="DIR", help="Logs of the challenger's answers to the same requests."),
]
ChampionOption = Annotated[
    str | None, typer.Option("--champion", metavar="ID", help="The champion's release id, where the log holds several.")
]
ChallengerOption = Annotated[
    str | None, typer.Option("--challenger", metavar="ID", help="The challenger's, where the log holds several.")
]
StartOption = Annotated[
    str | None, typer.Option("--start", metavar="TIME", help="When the rollout starts; the first request by default.")
]
EndOption = Annotated[
    str | None, typer.Option("--end", metavar="TIME", help="When the log is taken to end; the last request by default.")
]
EveryOption = Annotated[
    str | None, typer.Option("--every", metavar="TIME", help="Time between two looks; at most the plan's lease.")
]
ApproveOption = Annotated[
    Literal["yes", "no"], typer.Option("--approve", help="What a person who is asked is assumed to answer.")
]
RepeatsOption = Annotated[int, typer.Option("--repeats", min=1, max=10_000, help="Draws of who answers whom.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Chance of the draws; the same gives the same.")]

JobsOption = Annotated[int, typer.Option("--jobs", min=1, max=256, help="Processes that replay at the same time.")]


def backtest(
    plan: PlanArgument,
    *,
    log: LogOption = None,
    propensity: PropensityOption = "share",
    champion_log: ChampionLogOption = None,
    challenger_log: ChallengerLogOption = None,
    champion: ChampionOption = None,
    challenger: ChallengerOption = None,
    start: StartOption = None,
    end: EndOption = None,
    every: EveryOption = None,
    approve: ApproveOption = "yes",
    repeats: RepeatsOption = 20,
    seed: SeedOption = 1,
    jobs: JobsOption = 2,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay a plan over logs of two releases: when it would have advanced, stopped or promoted."""
    _require_logs(log, champion_log, challenger_log)
    if plot is not None and not plot.parent.is_dir():
        raise typer.BadParameter(f"--plot {plot}: found no such folder; name a file in a folder that may be written")
    begins, ends = _time("--start", start), _time("--end", end)
    rhythm = _duration(every)
    checked = load_plan(plan)
    if log is not None:
        requests = read_experiment(checked, log, propensity=propensity, champion=champion, challenger=challenger)
    elif champion_log is not None and challenger_log is not None:
        requests = read_pair(checked, champion_log, challenger_log, champion=champion, challenger=challenger)
    replay = _replay(checked, requests, begins, ends, rhythm, is_approved=approve == "yes")
    with TemporaryDirectory(prefix="seatrial-backtest-") as folder:
        tell = now_and_then(is_silent=as_json)
        found = replay_draws(
            replay,
            seed=seed,
            repeats=repeats,
            folder=Path(folder),
            jobs=jobs,
            on_progress=lambda done: tell(f"replayed {done} of {repeats} draws"),
        )
    if plot is not None:
        write_plot(plot, backtest_plot(found))
    if as_json:
        show_json(document(found))
    else:
        _show(found)


def _require_logs(log: Path | None, champion_log: Path | None, challenger_log: Path | None) -> None:
    pair = [each for each in (champion_log, challenger_log) if each is not None]
    if (log is None) == (not pair) or len(pair) == 1:
        given = [name for name, value in _named(log, champion_log, challenger_log) if value is not None]
        raise typer.BadParameter(
            f"found {' and '.join(given) or 'no log'}, expected --log, or --champion-log and --challenger-log; one"
            " experiment has one log, and two releases that answered the same requests have two"
        )


def _named(
    log: Path | None, champion_log: Path | None, challenger_log: Path | None
) -> tuple[tuple[str, Path | None], ...]:
    return (("--log", log), ("--champion-log", champion_log), ("--challenger-log", challenger_log))


def _replay(
    plan: Plan,
    requests: Requests,
    start: datetime | None,
    end: datetime | None,
    every: timedelta | None,
    *,
    is_approved: bool,
) -> Replay:
    last = requests.last + timedelta(microseconds=1)
    replay = Replay(
        plan,
        requests,
        start=start or default_start(plan, requests),
        end=last if end is None else min(end, last),
        every=every or default_every(plan),
        is_approved=is_approved,
    )
    problems = []
    if replay.start >= replay.end:
        finding = f"found a start at {replay.start:%Y-%m-%d %H:%M} and an end at {replay.end:%Y-%m-%d %H:%M}"
        problems.append(Problem("--start, --end", f"{finding}, expected some log between", "give a longer log"))
    if replay.every > plan.lease:
        finding = f"found {format_duration(replay.every)}, expected at most the lease, {format_duration(plan.lease)}"
        remedy = "look more often; between two looks the champion would return"
        problems.append(Problem("--every", finding, remedy))
    if problems:
        raise InvalidDocumentError(problems)
    return replay


def _time(option: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}; write it like 2013-06-01T00:00:00+00:00") from error


def _duration(text: str | None) -> timedelta | None:
    try:
        duration = None if text is None else parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"--every: {error}") from error
    if duration is not None and not duration:
        raise typer.BadParameter("--every: found 0, expected some time between two looks; write it like 6 h")
    return duration


def _show(found: Backtest) -> None:
    say(headline(found), style="bold")
    for sentence in remarks(found):
        say(sentence, style="dim")
    for part in parts(found):
        say(f"\n{part.title}", style="bold")
        show_table(part.header, part.rows)
        say(part.note, style="dim")
