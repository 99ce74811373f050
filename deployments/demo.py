"""The main job, shown end to end: three challengers, one after the other, on a year of real flights.

Starts the local stack, trains four releases, registers them, replays the flights in event time and lets Prefect take
each challenger through its plan: a better one, a harmful one that looks compatible, and one that cannot be told from
the champion in the time given.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import yaml

from deployments.local import Stack
from examples.flight_delay.replay import DECISION_POINT, START
from examples.flight_delay.train import train
from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.prefect_api import PrefectApi
from seatrial.control.opening import register
from seatrial.errors import RefusedError, SeatrialError, UnavailableError
from seatrial.release import load_release
from seatrial.report import explain
from seatrial.rollout import Rollout, State
from seatrial.units import format_duration, short
from seatrial.wiring import SETTINGS_VARIABLE, Plant, open_plant

if TYPE_CHECKING:
    from collections.abc import Mapping

CLOCK = "event-time"
#: Approves when nobody sits at the terminal; the ledger says so.
DEMO_APPROVER = "demo-approver"
_VERDICTS = (State.CHAMPION, State.REJECTED, State.ROLLED_BACK)
_QUESTIONS = (State.AWAITING_APPROVAL, State.AWAITING_DECISION)
_ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_POLL_S = 0.3


@dataclass(frozen=True, slots=True)
class Chapter:
    """One challenger, and how its rollout should end."""

    release: str
    plan: str
    ends: State
    is_asked: bool  #: a person decides on the way
    story: str


CHAPTERS = (
    Chapter(
        "better",
        "config/flight_delay/plan.yaml",
        State.CHAMPION,
        is_asked=True,
        story="knows more and was trained later; it should be promoted after a person approves",
    ),
    Chapter(
        "harmful",
        "config/flight_delay/plan.yaml",
        State.ROLLED_BACK,
        is_asked=False,
        story="same names, same types, another unit; evidence should roll it back early",
    ),
    Chapter(
        "undecidable",
        "config/flight_delay/plan-small-segment.yaml",
        State.ROLLED_BACK,
        is_asked=True,
        story="as good as the champion, on a segment too small to tell; a person should be asked",
    ),
)


@dataclass(slots=True)
class Demo:
    """A running stack with the example's releases registered."""

    stack: Stack
    plant: Plant
    api: PrefectApi
    releases: Mapping[str, str]  #: release id by name
    is_interactive: bool

    def play(self, chapter: Chapter) -> bool:
        """Take one challenger through its plan and return whether it ended as it should."""
        say(f"\n== {chapter.release}: {chapter.story}")
        release_id = self.releases[chapter.release]
        run_id = self.api.start(
            "rollout/rollout",
            {"release": short(release_id), "plan": chapter.plan, "requested_by": "ml-engineer"},
        )
        say(f"   flow run {self.stack.ui_url}/runs/flow-run/{run_id}")
        rollout = self._follow(run_id)
        asked = self._was_asked(rollout)
        is_right = rollout.state is chapter.ends and asked == chapter.is_asked
        say(f"   {'as it should' if is_right else 'NOT AS IT SHOULD'}: {rollout.state}, {rollout.reason}")
        return is_right

    def _follow(self, run_id: str) -> Rollout:
        shown: tuple[State, int] | None = None
        answered: set[int] = set()
        lost_at = monotonic() + 300.0
        while True:
            rollout = next((r for r in self.plant.store.rollouts() if r.flow_run_id == run_id), None)
            if rollout is not None:
                if (rollout.state, rollout.stage) != shown:
                    shown = (rollout.state, rollout.stage)
                    lost_at = monotonic() + 300.0
                    self._tell(rollout)
                if rollout.state in _VERDICTS and self._has_ended(run_id):
                    return rollout
                if rollout.state in _QUESTIONS and rollout.version not in answered and self._is_suspended(run_id):
                    answered.add(rollout.version)
                    self._answer(run_id, rollout)
                    lost_at = monotonic() + 300.0
            if monotonic() > lost_at:
                raise UnavailableError(f"flow run {run_id}: nothing moved for five minutes; see {self.stack.home}/logs")
            sleep(_POLL_S)

    def _tell(self, rollout: Rollout) -> None:
        share = self.plant.store.snapshot(DECISION_POINT).share
        age = format_duration(rollout.entered_at - rollout.created_at)
        when = f"{rollout.entered_at:%Y-%m-%d %H:%M}  after {age:>10}"
        say(f"   {when}  {rollout.state:<17} {share:>4.0%}  {rollout.reason}")

    def _has_ended(self, run_id: str) -> bool:
        return self.api.flow_run(run_id)["state_type"] in _ENDED

    def _is_suspended(self, run_id: str) -> bool:
        return bool(self.api.flow_run(run_id)["state_name"] == "Suspended")

    def _was_asked(self, rollout: Rollout) -> bool:
        return any("answer" in entry.record.body for entry in self.plant.store.entries(rollout.id))

    def _answer(self, run_id: str, rollout: Rollout) -> None:
        wish = "reject" if rollout.state is State.AWAITING_DECISION else "approve"
        if not self.is_interactive:
            self._resume(run_id, wish, DEMO_APPROVER, "answered by the demonstration, nobody sat at the terminal")
            return
        other = "continue" if rollout.state is State.AWAITING_DECISION else "reject"
        say(f"   A person must answer: {rollout.reason}")
        say(f"   Resume the run at {self.stack.ui_url}/runs/flow-run/{run_id}")
        say(f"   or answer here: [Enter] {wish}, [o] {other}, as {DEMO_APPROVER}")
        while self.plant.store.rollout(rollout.id).version == rollout.version:
            if not self._is_suspended(run_id):
                return
            readable, _, _ = select.select([sys.stdin], [], [], 1.0)
            if readable:
                line = sys.stdin.readline()
                self._resume(
                    run_id, other if line.strip().lower() == "o" else wish, DEMO_APPROVER, "answered at the prompt"
                )
                return

    def _resume(self, run_id: str, choice: str, name: str, reason: str) -> None:
        try:
            self.api.answer(run_id, {"decision": choice, "approver": name, "reason": reason})
        except RefusedError as error:
            say(f"   {error}")
        else:
            say(f"   {name}: {choice}")

    def epilogue(self) -> None:
        """Say which release serves now, and why."""
        self.api.start("evaluate_labels/evaluate-labels", {})
        champion = self.plant.store.champions()[DECISION_POINT]
        names = {r.release.id: f"{r.release.name} {r.release.version}" for r in self.plant.store.releases()}
        say(f"\n== {names[champion]} ({short(champion)}) serves {DECISION_POINT}")
        for rollout in self.plant.store.rollouts(DECISION_POINT):
            plan = self.plant.store.plan(rollout.plan_id)
            looks, entries = self.plant.store.looks(rollout.id), self.plant.store.entries(rollout.id)
            say(f"\n{explain(rollout, plan, looks, entries, names)}")


def say(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _settings(home: Path) -> Path:
    path = home / "seatrial.yaml"
    content = {
        "logs": "logs-of-decisions",
        "replay_clock": CLOCK,
        "approvers": {DEMO_APPROVER: ["risk-owner"], "risk-owner": ["risk-owner"]},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _registered(plant: Plant, manifests: Mapping[str, Path]) -> dict[str, str]:
    ids = {}
    for name, manifest in manifests.items():
        release = load_release(manifest)
        register(plant.ports, release, location=manifest.parent, now=plant.clock.now(), actor="ml-engineer")
        ids[name] = release.id
        say(f"registered {name:<12} {short(release.id)}  {release.name} {release.version}")
    return ids


def run(home: Path, *, once: bool) -> int:
    """Play all chapters below `home` and return 0 when each ended as it should."""
    began = monotonic()
    if home.exists():
        shutil.rmtree(home)
    home.mkdir(parents=True)
    is_interactive = sys.stdin.isatty() and not once
    os.environ[SETTINGS_VARIABLE] = str(_settings(home))
    with Stack(home) as stack:
        say(f"Prefect UI: {stack.ui_url}")
        stack.deploy()
        ReplayClock(home / CLOCK).advance(START)
        plant = open_plant(home / "seatrial.yaml", stack.environment)
        api = PrefectApi(stack.api_url)
        # A replay needs the watch twice a second: one long run instead of one a minute.
        api.set_schedules("sweep/sweep", active=False)
        api.start("sweep/sweep", {"for_s": 3_600.0, "every_s": 0.5})
        releases = _registered(plant, train(home / "releases"))
        stack.start_process("traffic", [sys.executable, "-m", "examples.flight_delay.replay"])
        demo = Demo(stack, plant, api, releases, is_interactive)
        results = [demo.play(chapter) for chapter in CHAPTERS]
        demo.epilogue()
        say(f"\n{sum(results)} of {len(results)} ended as they should, after {monotonic() - began:.0f} s")
        say(f"Prefect UI: {stack.ui_url}")
        if is_interactive:
            say("Ctrl-C stops everything that was started here.")
            stack.watch()
        plant.store.close()
    return 0 if all(results) else 1


def main() -> int:
    """Run the demonstration; ONCE=1 ends it when the last rollout has its verdict."""
    home = Path(os.environ.get("SEATRIAL_HOME", ".seatrial/demo")).resolve()
    try:
        return run(home, once=os.environ.get("ONCE", "") not in ("", "0"))
    except KeyboardInterrupt:
        return 130
    except SeatrialError as error:
        say(f"the demonstration stopped: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
