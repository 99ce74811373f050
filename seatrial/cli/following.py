"""Stay with a move that somebody asked for until it is seen, or until patience ends."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING

from seatrial.control.moving import WATCH, step
from seatrial.errors import ConflictError, RefusedError, UnavailableError
from seatrial.rollout import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seatrial.adapters.prefect_api import PrefectApi
    from seatrial.ports import RouterReport, Store
    from seatrial.rollout import Rollout
    from seatrial.wiring import Plant

#: Seconds between two looks.
_PAUSE_S = 0.5
#: States in which a release is on its way out.
#: States in which it is out: seen on the routers, or never let in.
OUT = (State.ROLLED_BACK, State.REJECTED)


@dataclass(frozen=True, slots=True)
class Routers:
    """What the routers of one decision point serve, against the present snapshot."""

    number: int  #: of the present snapshot
    current: tuple[RouterReport, ...]  #: seen on it, or on a later one
    behind: tuple[RouterReport, ...]  #: not seen on it


def routers_of(store: Store, decision_point: str) -> Routers:
    """Return which routers of `decision_point` were seen on its present snapshot."""
    number = store.snapshot(decision_point).number
    reports = store.reports(decision_point)
    return Routers(
        number,
        tuple(report for report in reports if report.number >= number),
        tuple(report for report in reports if report.number < number),
    )


def follow_out(
    plant: Plant,
    rollout: Rollout,
    *,
    actor: str,
    patience_s: float,
    pause: Callable[[float], None] = sleep,
    elapsed: Callable[[], float] = monotonic,
) -> Rollout:
    """Return `rollout` once every router was seen without its challenger, or as it is after `patience_s` seconds.

    Looks at least once. A store that stops answering meanwhile does not undo what is written: looking goes on.
    """
    if rollout.state in OUT:
        return rollout
    for _ in _looks(patience_s, pause, elapsed):
        try:
            rollout = step(plant.ports, rollout.id, now=plant.clock.now(), actor=actor, may=WATCH).rollout
        except (ConflictError, UnavailableError):
            continue  # moved by the watch, or no answer: the next look sees it as it is then
        if rollout.state in OUT:
            break
    return rollout


def is_asking(api: PrefectApi, flow_run_id: str) -> bool:
    """Return whether a flow run waits for a person's answer."""
    return bool(api.flow_run(flow_run_id)["state_name"] == "Suspended")


def follow_answer(
    store: Store,
    api: PrefectApi,
    asked: Rollout,
    flow_run_id: str,
    *,
    patience_s: float,
    pause: Callable[[float], None] = sleep,
    elapsed: Callable[[], float] = monotonic,
) -> Rollout:
    """Return the rollout that was `asked` once an answer has moved it.

    Raises RefusedError when its flow asks again, because the answer does not count; UnavailableError when neither
    happened within `patience_s` seconds.
    """
    for _ in _looks(patience_s, pause, elapsed):
        rollout = store.rollout(asked.id)
        if rollout.version != asked.version:
            return rollout
        # The flow may move the rollout and ask its next question between the two: the version is read again.
        if is_asking(api, flow_run_id) and store.rollout(asked.id).version == asked.version:
            raise RefusedError(
                f"rollout {asked.id}: the answer does not count and the question is put again; the form of the flow"
                " run says why; answer again, or let somebody answer who may"
            )
    raise UnavailableError(
        f"rollout {asked.id}: the answer was handed over, but not recorded within {patience_s:g} s; see `seatrial"
        f" status {asked.id}` before you answer again, and whether a worker runs"
    )


def _looks(patience_s: float, pause: Callable[[float], None], elapsed: Callable[[], float]) -> Iterator[None]:
    """Yield for each look: at once, then in intervals, and once more when patience ends."""
    ends_at = elapsed() + patience_s
    yield
    while (left := ends_at - elapsed()) > 0:
        pause(min(_PAUSE_S, left))
        yield
