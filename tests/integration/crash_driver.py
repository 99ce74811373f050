"""Runs one rollout to its end against a real database, and kills itself at one of its writes.

Reads the number of a write from each line of standard input (0: none), does the work in a process of its own, and
prints how that process ended. Forked rather than started, so that a hundred crashes import the libraries once.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from builders import DAY, POINT, STAGES, T0, World, a_plan, evidence_at

from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.sql import SqlStore
from seatrial.control.publishing import agree
from seatrial.control.watching import watch
from seatrial.errors import UnavailableError
from seatrial.rollout import Choice, State

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.evidence import Evidence
    from seatrial.plan import Plan
    from seatrial.ports import Scope

#: With one canary: each kind of stage once is each kind of write.
PLAN = a_plan(stages=[stage for stage in STAGES if stage.get("share") != "20 %"])
ENDS = (State.CHAMPION, State.ROLLED_BACK)


class Story:
    """Evidence that depends on the time alone; in the story of a rollback harm shows on the third day."""

    def __init__(self, name: str) -> None:
        self.harm_from = T0 + 3 * DAY if name == "rolled back" else None

    def look(self, plan: Plan, scope: Scope, *, now: datetime) -> Evidence:  # noqa: ARG002 the scope never changes
        """Return what the logs say at `now`."""
        is_harmful = self.harm_from is not None and now >= self.harm_from
        return evidence_at(now, plan=plan, ratio=3.0 if is_harmful else 1.0)


class Fault:
    """Counts the moments before and after every write and commit, and kills the process at one of them."""

    def __init__(self, engine: sa.Engine, at: int, counted: Path) -> None:
        self.at, self.seen, self.counted = at, 0, counted
        sa.event.listen(engine, "before_cursor_execute", self._executed)
        sa.event.listen(engine, "after_cursor_execute", self._executed)
        commit = engine.dialect.do_commit

        def committed(connection: Any) -> None:
            self._moment()
            commit(connection)
            self._moment()

        # SQLAlchemy has an event before a commit and none after it.
        engine.dialect.do_commit = committed  # type: ignore[assignment, method-assign]

    def _executed(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(("INSERT", "UPDATE")):
            self._moment()

    def _moment(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        """Leave the number of moments for the test."""
        self.counted.write_text(str(self.seen))


def run(url: str, folder: Path, name: str, at: int) -> None:
    """Go on with the story from where the database and the clock say it is, to its end."""
    store = SqlStore(url)
    fault = Fault(store.engine, at, folder / "moments")
    clock = ReplayClock(folder / "clock")
    world = World(folder / "files", store)
    world.evidence.look = Story(name).look  # type: ignore[method-assign]
    rollout = world.start(plan=PLAN)
    try:
        now = clock.now()
    except UnavailableError:
        now = T0
    agree(world.ports, POINT, now=now, actor="start")
    while settle(world, rollout.id, now) not in ENDS:
        now += DAY
        clock.advance(now)
    fault.close()
    store.close()


def settle(world: World, rollout_id: str, now: datetime) -> State:
    """Do all there is to do at `now`: until a whole round changes nothing."""
    while True:
        before = len(world.store.entries()), world.store.rollout(rollout_id)
        world.router.refresh(now=now)
        # By one name: which of the two finishes a procedure depends on the crash, and is no matter.
        watch(world.ports, now=now, actor="test")
        rollout = world.store.rollout(rollout_id)
        choice = Choice.APPROVE if rollout.state is State.AWAITING_APPROVAL else None
        after = world.step(rollout, now, choice).rollout
        if before == (len(world.store.entries()), after):
            return after.state


def main() -> None:
    """Serve the test that started this process."""
    url, folder, name = sys.argv[1:]
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                run(url, Path(folder), name, int(line))
            except BaseException:  # noqa: BLE001 a forked child must never return into its parent's loop
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 the answer


if __name__ == "__main__":
    main()
