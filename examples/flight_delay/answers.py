"""Write what two releases of the example answer to the same flights, as logs that a plan can be backtested over.

``OUT/champion`` and ``OUT/challenger`` hold every flight's answer of one release each, ``OUT/experiment`` the answer of
the release that a coin gave it to.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.flight_delay.study import ATTRIBUTES, TRIALS, Study
from seatrial.adapters.logs import LogWriter

if TYPE_CHECKING:
    from examples.flight_delay.study import Scene

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: Flights of a trial that are written: two months.
FLIGHTS = 55_800
#: Which of both answered.
_CHAMPION, _CHALLENGER = range(2)


def write(scene: Scene, out: Path, *, seed: int) -> None:
    """Write the three logs of `scene` below `out`, with the coins of `seed`."""
    flights = min(FLIGHTS, len(scene.unit_keys))
    coins = np.random.default_rng(seed).random(flights) < 0.5
    for release, name in ((_CHAMPION, "champion"), (_CHALLENGER, "challenger")):
        _write(scene, out / name, [(release, "champion", 0.0)] * flights)
    arms = ("champion", "challenger")
    _write(scene, out / "experiment", [(int(coin), arms[int(coin)], 0.5) for coin in coins])


def _write(scene: Scene, root: Path, answered: list[tuple[int, str, float]]) -> None:
    log = LogWriter(root, scene.plan.decision_point, ATTRIBUTES)
    for flight, (release, arm, share) in enumerate(answered):
        log.decision({**_row(scene, flight, release), "arm": arm, "share": share})
        if not np.isnan(scene.late[flight]):
            arrived = _EPOCH + int(scene.arrives[flight]) * _MICROSECOND
            label = {"decision_id": scene.unit_keys[flight], "name": "late", "value": float(scene.late[flight])}
            log.label({**label, "fact_at": arrived, "arrived_at": arrived})
    log.flush()


def _row(scene: Scene, flight: int, release: int) -> dict[str, Any]:
    action = str(scene.actions[release, flight])
    return {
        **{name: str(scene.attributes[name][flight]) for name in ATTRIBUTES},
        "decision_id": scene.unit_keys[flight],
        "ts": _EPOCH + int(scene.scheduled[flight]) * _MICROSECOND,
        "decision_point": scene.plan.decision_point,
        "rollout_id": None,
        "snapshot_no": 1,
        "stage": 0,
        "release_id": (scene.champion.id, scene.challenger.id)[release],
        "segment": "everyone",
        "unit_key": scene.unit_keys[flight],
        "feature_digest": "not kept",
        "score": float(scene.scores[release, flight]),
        "action_recommended": action,
        "action_taken": action,
        "authority": "DECIDE",
        "latency_ms": 1.0,
        "outcome": "ok",
        "feature_misses": 0,
    }


def main() -> None:
    """Write the logs of one trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trial", choices=[trial.name for trial in TRIALS])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    (trial,) = (each for each in TRIALS if each.name == given.trial)
    with TemporaryDirectory() as folder:
        write(Study(Path(folder)).scene(trial), given.out, seed=given.seed)


if __name__ == "__main__":
    main()
