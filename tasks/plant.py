"""The control plane that tasks work with, and the one rule by which they are retried."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from prefect.cache_policies import NO_CACHE

from seatrial.errors import UnavailableError
from seatrial.wiring import Plant, open_plant, settings_path

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

#: Seconds before each retry of a task that met a part which did not answer.
BACK_OFF_S = [1.0, 4.0, 15.0]


@cache
def plant() -> Plant:
    """Return the control plane of this process, as its environment describes it."""
    return open_plant(settings_path(os.environ), os.environ)


def is_transient(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Return whether a failed task may succeed when it is tried again: a part did not answer."""
    try:
        state.result()
    except UnavailableError:
        return True
    except Exception:  # noqa: BLE001 every other error stays the same however often it is tried
        return False
    return False


#: Options of every task. Results are not cached: a step is skipped because the ledger says that it is done.
OPTIONS: dict[str, Any] = {
    "retries": len(BACK_OFF_S),
    "retry_delay_seconds": BACK_OFF_S,
    "retry_condition_fn": is_transient,
    "timeout_seconds": 120,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
