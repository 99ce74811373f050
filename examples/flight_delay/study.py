"""Replay whole rollouts of the example in one process, many times, and count how they end.

Nothing that decides is replaced: gates, state machine, routing and control plane are those of production, on a store in
memory and an injected clock. Only the logs are counted faster: every flight is scored once by both releases, and each
replay draws by its own salt whose answer counts.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.flight_delay.data import between, load_flights, load_weather
from examples.flight_delay.features import build_store
from examples.flight_delay.train import train
from seatrial.adapters.memory import MemoryStore
from seatrial.adapters.router import InProcessRouter
from seatrial.adapters.scoring import load_scorer
from seatrial.control.moving import step
from seatrial.control.opening import register, start
from seatrial.evidence import (
    WAIT_STEPS,
    Arm,
    Cell,
    Epoch,
    Evidence,
    Frozen,
    LabelCell,
    LabelTally,
    ScoreCell,
    ScoredPair,
    ScoreTally,
    ShadowTally,
    Tally,
    Wait,
)
from seatrial.gates.finding import Finding, Question
from seatrial.plan import OneOf, load_plan
from seatrial.ports import Commit, Ports
from seatrial.release import load_release
from seatrial.rollout import FINAL, Answer, Choice, Rollout, State
from seatrial.routing import RoutingSnapshot, slot_of
from seatrial.stats.scores import ScoreGrid
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from examples.flight_delay.features import FeatureStore
    from seatrial.plan import Guardrail, Plan, Scores, Term
    from seatrial.ports import Registered, Scope
    from seatrial.release import Release

    Flags = NDArray[np.bool_]
    Integers = NDArray[np.int64]
    Texts = NDArray[np.str_]

PLANS = Path(__file__).parents[2] / "config" / "flight_delay"
ATTRIBUTES = ("carrier", "origin", "dest")
#: Event time between two looks, as in the replay of the demonstration.
STRIDE = timedelta(hours=12)
#: Processes that replay at the same time.
WORKERS = 2
#: The longest way through a plan of the example, deadlines and watch together, is shorter.
HORIZON = timedelta(days=110)
#: When a label that never comes arrives.
_NEVER = np.iinfo(np.int64).max
_APPROVER = "risk-owner"


@dataclass(frozen=True, slots=True)
class Trial:
    """One challenger against one champion: what is replayed."""

    name: str
    challenger: str  #: name of a recipe
    champion: str  #: name of a recipe; the same as the challenger for a copy under another id
    plan: str  #: file in `PLANS`
    start: datetime


TRIALS = (
    Trial("better", "better", "champion", "plan.yaml", datetime(2013, 4, 1, tzinfo=UTC)),
    Trial("harmful", "harmful", "better", "plan.yaml", datetime(2013, 6, 1, tzinfo=UTC)),
    Trial("copy", "better", "better", "plan.yaml", datetime(2013, 6, 1, tzinfo=UTC)),
    Trial("undecidable", "undecidable", "better", "plan-small-segment.yaml", datetime(2013, 8, 1, tzinfo=UTC)),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What all replays of one trial share: releases, plan, and every flight with both answers to it."""

    trial: Trial
    plan: Plan
    releases: Sequence[tuple[Release, Path]]  #: with their files, each after its rollback target
    champion: Release
    challenger: Release
    unit_keys: Sequence[str]
    scheduled: Integers  #: scheduled departure, µs since 1970, ascending
    arrives: Integers  #: arrival of the label, µs since 1970; `_NEVER` for diverted flights
    late: NDArray[np.float64]  #: the label; NaN for diverted flights
    attributes: Mapping[str, Texts]
    scores: NDArray[np.float64]  #: of the champion and of the challenger, shape (2, flights)
    actions: Texts  #: as `scores`
    bad: Mapping[str, Flags]  #: by guardrail, as `actions`; by label, once the label is known
    places: Mapping[str, Integers]  #: index of the unit's value in each slice column; their number if undeclared


class Study:
    """The flights of the year and the four trained releases."""

    def __init__(self, folder: Path) -> None:
        self.manifests = train(folder)
        self._flights = load_flights()
        self._features: FeatureStore = build_store(self._flights, load_weather())

    def scene(self, trial: Trial) -> Scene:
        """Return the flights of `trial`, scored once by its champion and once by its challenger."""
        flights = between(self._flights, trial.start, trial.start + HORIZON)
        champion = load_release(self.manifests[trial.champion])
        challenger = load_release(self.manifests[trial.challenger])
        if challenger.id == champion.id:
            head = challenger.release.model_copy(update={"version": f"{challenger.version}-copy"})
            challenger = challenger.model_copy(update={"release": head, "rollback_target": champion.id})
        first = load_release(self.manifests["champion"])
        located = {
            release.id: (release, self.manifests[name].parent)
            for name, release in (("champion", first), (trial.champion, champion), (trial.challenger, challenger))
        }
        plan = _without_declared_gates(load_plan(PLANS / trial.plan))
        late = flights["late"].to_numpy()
        attributes = {name: flights[name].to_numpy(dtype=np.str_) for name in ATTRIBUTES}
        both = [(champion, trial.champion), (challenger, trial.challenger)]
        scores = np.array([self._scores(release, recipe, flights) for release, recipe in both])
        actions = np.array([_actions(release, one, attributes) for (release, _), one in zip(both, scores, strict=True)])
        return Scene(
            trial=trial,
            plan=plan,
            releases=tuple(located.values()),
            champion=champion,
            challenger=challenger,
            unit_keys=flights["unit_key"].tolist(),
            scheduled=_microseconds(flights["scheduled_at"]),
            arrives=_microseconds(flights["label_arrives_at"]),
            late=late,
            attributes=attributes,
            scores=scores,
            actions=actions,
            bad={guardrail.name: _bad(guardrail, actions, late) for guardrail in plan.guardrails},
            places={column: _places(attributes[column], values) for column, values in plan.slices.items()},
        )

    def _scores(self, release: Release, recipe: str, flights: pd.DataFrame) -> NDArray[np.float64]:
        scorer = load_scorer(release, self.manifests[recipe].parent)
        return scorer.score_all(self._features.matrix(flights["unit_key"].tolist(), scorer.columns))


def _without_declared_gates(plan: Plan) -> Plan:
    """Return `plan` without its declared gates: they are about the releases, and the same for every draw of units."""
    gates = plan.gates.model_copy(update=dict.fromkeys(plan.gates.asked()))
    return plan.model_copy(update={"stages": (gates, *plan.stages[1:])})


def _actions(release: Release, scores: NDArray[np.float64], attributes: Mapping[str, Texts]) -> list[str]:
    units = zip(*(attributes[name].tolist() for name in ATTRIBUTES), strict=True)
    return [
        release.decide(score, release.segments.segment_of(dict(zip(ATTRIBUTES, unit, strict=True)))).action
        for score, unit in zip(scores.tolist(), units, strict=True)
    ]


def _microseconds(times: pd.Series[pd.Timestamp]) -> Integers:
    known = times.notna().to_numpy()
    return np.where(known, times.dt.as_unit("us").to_numpy(dtype="datetime64[us]").astype(np.int64), _NEVER)


class ReplayedLogs:
    """What the logs would say of the flights served so far; the same counts as `ParquetLogs` on the same rows.

    Assumption: each unit is decided once, every call is answered, and each label arrives once or never, as in the
    example's data.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        flights = len(scene.unit_keys)
        self._served = 0
        self._held: list[RoutingSnapshot] = []  #: one for each number, in the order of time
        self._epoch = np.zeros(flights, dtype=np.int64)  #: index into `_held`
        self._arm = np.zeros(flights, dtype=np.int64)  #: 1 where the challenger answers
        self._is_compared = np.zeros(flights, dtype=np.bool_)
        self._is_shadowed = np.zeros(flights, dtype=np.bool_)
        asked = scene.plan.scores
        grid = ScoreGrid() if asked is None else ScoreGrid(*asked.range)
        self._bins = grid.index(scene.scores)

    def serve_until(self, end: datetime, snapshot: RoutingSnapshot) -> None:
        """Decide every flight scheduled before `end` by `snapshot`, whose lease is checked at each flight's time."""
        part = slice(self._served, int(np.searchsorted(self._scene.scheduled, _since_1970(end), side="left")))
        if not self._held or self._held[-1].number != snapshot.number:
            self._held.append(snapshot)
        takes_part = np.ones(part.stop - part.start, dtype=np.bool_)
        for column, values in snapshot.when.items():
            takes_part &= np.isin(self._scene.attributes[column][part], values)
        lease_until = 0 if snapshot.lease_until is None else _since_1970(snapshot.lease_until)
        is_tried = takes_part & (self._scene.scheduled[part] < lease_until) & (snapshot.slots > 0)
        chosen = np.flatnonzero(is_tried) + part.start
        slots = [slot_of(snapshot.salt, self._scene.unit_keys[index]) for index in chosen.tolist()]
        self._epoch[part] = len(self._held) - 1
        self._arm[part] = int(snapshot.fallback == snapshot.challenger)
        self._arm[chosen] = np.array(slots, dtype=np.int64) < snapshot.slots
        self._is_compared[part] = is_tried & (snapshot.share < 1.0)
        self._is_shadowed[part] = takes_part & snapshot.shadow
        self._served = part.stop

    def exposed(self, until: datetime) -> int:
        """Return the units of the comparison that the challenger answered before `until`."""
        answered = self._is_compared & (self._arm == 1) & (self._scene.scheduled < _since_1970(until))
        return int(answered.sum())

    def look(self, plan: Plan, scope: Scope, *, now: datetime) -> Evidence:
        """Return the counts of `scope` among the flights served so far, with the labels that arrived by `now`."""
        seen = slice(0, int(np.searchsorted(self._scene.scheduled[: self._served], _since_1970(now), side="right")))
        is_of_rollout = np.array([held.rollout_id == scope.rollout_id for held in self._held], dtype=np.bool_)
        in_scope = (self._scene.scheduled[seen] >= _since_1970(scope.since)) & is_of_rollout[self._epoch[seen]]
        rows = np.flatnonzero(in_scope & self._is_compared[seen])
        numbers = [self._held[index].number for index in np.unique(self._epoch[rows])]
        return Evidence(
            newest=_moment(int(self._scene.scheduled[seen.stop - 1])) if seen.stop else None,
            epochs={held.number: Epoch(held.share, held.stage) for held in self._held if held.number in numbers},
            cells=self._cells(plan, rows, now=_since_1970(now)),
            assigned=self._assigned(rows),
            shadow=self._shadow(np.flatnonzero(in_scope & self._is_shadowed[seen])),
            waits=self._waits(plan, rows, now=_since_1970(now)),
            scores=self._scores(plan, rows, now=_since_1970(now)),
            pairs=self._pairs(plan, np.flatnonzero(in_scope & self._is_shadowed[seen]), now=_since_1970(now)),
            # Nobody decided before the replay began.
            frozen=None if plan.scores is None else Frozen({}, {}),
            labels=self._labels(plan, rows, now=_since_1970(now)),
            rows=int(in_scope.sum() + (in_scope & self._is_shadowed[seen]).sum()),
        )

    def _assigned(self, rows: Integers) -> dict[tuple[int, Arm], int]:
        counts = np.bincount(self._groups(rows), minlength=2 * len(self._held))
        return {(self._held[g // 2].number, _ARMS[g % 2]): int(counts[g]) for g in np.flatnonzero(counts).tolist()}

    def _cells(self, plan: Plan, rows: Integers, *, now: int) -> dict[Cell, Tally]:
        cells: dict[Cell, Tally] = {}
        for guardrail in plan.guardrails:
            code = self._code(guardrail, rows, now=now)
            cells |= self._tallies(guardrail, code, rows, None, (None,))
            for column in guardrail.slices:
                cells |= self._tallies(guardrail, code, rows, column, plan.slices[column])
        return cells

    def _code(self, guardrail: Guardrail, rows: Integers, *, now: int) -> Integers:
        """Return for each unit the sum of the `_BITS` that hold."""
        bad = self._scene.bad[guardrail.name][self._arm[rows], rows]
        if not guardrail.source.is_delayed or guardrail.maturity is None:
            return np.where(bad, sum(_BITS), _MATURED + _LABELLED)
        arrives = self._scene.arrives[rows]
        closes = self._scene.scheduled[rows] + round(guardrail.maturity.total_seconds() * 1e6)
        matured = closes <= now
        is_within = matured & (arrives <= closes)
        flags = (bad & (arrives <= now), matured, is_within & bad, is_within)
        code: Integers = np.sum([bit * flag for bit, flag in zip(_BITS, flags, strict=True)], axis=0, dtype=np.int64)
        return code

    def _tallies(
        self, guardrail: Guardrail, code: Integers, rows: Integers, column: str | None, values: Sequence[str | None]
    ) -> dict[Cell, Tally]:
        size = len(values) + 1  # the last place is that of undeclared values
        place = 0 if column is None else self._scene.places[column][rows]
        grouped = (self._groups(rows) * size + place) * _CODES + code
        counts = np.bincount(grouped, minlength=2 * len(self._held) * size * _CODES)
        table = counts.reshape(-1, size, _CODES) @ _COUNTED
        return {
            Cell(guardrail.name, column, value, self._held[group // 2].number, _ARMS[group % 2]): Tally(
                *table[group, index].tolist()
            )
            for index, value in enumerate(values)
            for group in np.flatnonzero(table[:, index, 0]).tolist()
        }

    def _waits(self, plan: Plan, rows: Integers, *, now: int) -> dict[Wait, int]:
        waits: dict[Wait, int] = {}
        scheduled, arrives = self._scene.scheduled[rows], self._scene.arrives[rows]
        has_arrived = arrives <= now
        for guardrail in plan.guardrails:
            if not guardrail.source.is_delayed or guardrail.maturity is None:
                continue
            window = round(guardrail.maturity.total_seconds() * 1e6)
            delay = np.clip(
                (np.where(has_arrived, arrives, scheduled) - scheduled) * WAIT_STEPS // window, 0, WAIT_STEPS
            )
            # Both moments are cut to whole steps: a unit is at least so old.
            steps = now * WAIT_STEPS // window - scheduled * WAIT_STEPS // window - 1
            age = np.clip(steps, np.where(has_arrived, delay, 0), WAIT_STEPS)
            bad = self._scene.bad[guardrail.name][self._arm[rows], rows] & has_arrived
            keys = np.column_stack([self._groups(rows), bad, age, np.where(has_arrived, delay, -1)])
            for (group, is_bad, old, late), count in zip(*_distinct(keys), strict=True):
                held, arm = self._held[group // 2].number, _ARMS[group % 2]
                waits[Wait(guardrail.name, held, arm, bool(is_bad), old, late)] = count
        return waits

    def _labels(self, plan: Plan, rows: Integers, *, now: int) -> dict[LabelCell, LabelTally]:
        arrives = self._scene.arrives[rows]
        found: dict[LabelCell, LabelTally] = {}
        for label in {guardrail.label for guardrail in plan.guardrails if guardrail.label is not None}:
            windows = [each.maturity for each in plan.guardrails if each.label == label and each.maturity is not None]
            is_late = arrives > self._scene.scheduled[rows] + round(max(windows).total_seconds() * 1e6)
            for arm in (0, 1):
                has_label = (arrives <= now) & (self._arm[rows] == arm)
                if has_label.any():
                    counts = LabelTally(int(has_label.sum()), 0, 0, int((has_label & is_late).sum()))
                    found[LabelCell(label, _ARMS[arm])] = counts
        return found

    def _scores(self, plan: Plan, rows: Integers, *, now: int) -> dict[ScoreCell, ScoreTally]:
        if plan.scores is None:
            return {}
        label = self._score_label(plan.scores, rows, now=now)
        found: dict[ScoreCell, ScoreTally] = {}
        bins, groups = self._bins[self._arm[rows], rows], self._groups(rows)
        for column in (None, *plan.scores.slices):
            values = (None,) if column is None else plan.slices[column]
            places = np.zeros(rows.size, dtype=np.int64) if column is None else self._scene.places[column][rows]
            keys = np.column_stack([groups, places, bins, label])
            for (group, place, at, known), count in zip(*_distinct(keys), strict=True):
                if place < len(values):
                    cell = ScoreCell(column, values[place], self._held[group // 2].number, _ARMS[group % 2], at)
                    tally = ScoreTally(count, count * (known >= 0), count * (known == 1))
                    found[cell] = found.get(cell, ScoreTally()) + tally
        return found

    def _pairs(self, plan: Plan, rows: Integers, *, now: int) -> dict[ScoredPair, int]:
        if plan.scores is None:
            return {}
        label = self._score_label(plan.scores, rows, now=now)
        keys = np.column_stack([self._bins[0, rows], self._bins[1, rows], label])
        return {ScoredPair(*pair): count for pair, count in zip(*_distinct(keys), strict=True)}

    def _score_label(self, asked: Scores, rows: Integers, *, now: int) -> Integers:
        """Return the label of each unit when its window closed; -1 while it is open, or without a label."""
        maturity = timedelta(0) if asked.maturity is None else asked.maturity
        closes = self._scene.scheduled[rows] + round(maturity.total_seconds() * 1e6)
        is_known = (closes <= now) & (self._scene.arrives[rows] <= closes)
        label: Integers = np.where(is_known, np.nan_to_num(self._scene.late[rows]), -1).astype(np.int64)
        return label

    def _groups(self, rows: Integers) -> Integers:
        return self._epoch[rows] * 2 + self._arm[rows]

    def _shadow(self, rows: Integers) -> ShadowTally:
        flipped = self._scene.actions[0, rows] != self._scene.actions[1, rows]
        return ShadowTally(units=rows.size, compared=rows.size, flipped=int(flipped.sum()))


_ARMS = (Arm.CHAMPION, Arm.CHALLENGER)
_BITS = _BAD, _MATURED, _MATURED_BAD, _LABELLED = 1, 2, 4, 8
_CODES = 16
#: What a unit of each code adds to the fields of a `Tally`; no action of the example hides a label.
_COUNTED = np.array(
    [
        [1, *(int(code & bit > 0) for bit in _BITS), int(code & (_LABELLED | _BAD) == _LABELLED), 0]
        for code in range(_CODES)
    ],
    dtype=np.int64,
)


def _bad(guardrail: Guardrail, actions: Texts, late: NDArray[np.float64]) -> Flags:
    """Return which units are bad, by the release that answers."""
    if guardrail.only_when:
        raise ValueError(f"guardrail {guardrail.name!r}: found only_when; expected one that counts every unit")
    columns = {"label": late, "outcome": np.full(late.size, "ok"), "action": actions}
    bad = np.zeros(actions.shape, dtype=np.bool_)
    for condition in guardrail.bad_when:
        holds = np.ones(actions.shape, dtype=np.bool_)
        for term in condition.terms:
            holds &= _is_one_of(term, columns)
        bad |= holds
    return bad


def _is_one_of(term: Term, columns: Mapping[str, NDArray[Any]]) -> Flags:
    if not isinstance(term, OneOf):
        raise TypeError(f"column {term.column!r}: found a bound; expected values, as in the plans of the example")
    return np.isin(columns[term.column], term.values)


def _distinct(keys: Integers) -> tuple[list[list[int]], list[int]]:
    """Return the distinct rows of `keys` and how often each stands."""
    # As one number each: sorting rows costs ten times as much.
    least = keys.min(axis=0, initial=0)
    sizes = keys.max(axis=0, initial=0) - least + 1
    numbers, counts = np.unique(np.ravel_multi_index((keys - least).T, sizes), return_counts=True)
    rows = np.column_stack(np.unravel_index(numbers, sizes)) + least
    return rows.tolist(), counts.tolist()


def _places(column: Texts, values: Sequence[str]) -> Integers:
    """Return the index of each unit's value in `values`, and their number for any other value."""
    places = np.full(column.size, len(values), dtype=np.int64)
    for index, value in enumerate(values):
        places[column == value] = index
    return places


def _since_1970(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


class LoadsAlways:
    """A probe for releases that were trained a moment ago by this process."""

    def probe(self, registered: Registered) -> Sequence[Finding]:
        """Return PASS."""
        return [Finding(Question.CONTRACT, "load", Verdict.PASS, f"{registered.release.name} was trained here")]


class Replay:
    """One rollout of a scene, with the salt of one seed."""

    def __init__(self, scene: Scene, *, seed: int) -> None:
        self.scene = scene
        self.now = scene.trial.start
        self.logs = ReplayedLogs(scene)
        self.store = MemoryStore()
        self.ports = Ports(self.store, self.logs, LoadsAlways(), {_APPROVER: frozenset({"risk-owner"})})
        self._open()
        self.router = InProcessRouter("replay", self.store, scene.plan.decision_point)
        # The id of a rollout is part of its salt, and the request part of its id.
        self.rollout = start(
            self.ports,
            scene.challenger.id,
            scene.plan,
            request=f"seed {seed}",
            requested_by="ml-engineer",
            now=self.now,
        )

    def _open(self) -> None:
        """Register the releases and let the trial's champion serve, as if it had been promoted before."""
        for release, folder in self.scene.releases:
            register(self.ports, release, location=folder, now=self.now, actor="ml-engineer")
        point, champion = self.scene.plan.decision_point, self.scene.champion.id
        if self.store.champions()[point] != champion:
            snapshot = RoutingSnapshot(point, 2, champion=champion, fallback=champion)
            self.store.commit(Commit(records=(), snapshot=snapshot, champion=(point, champion)))

    @property
    def has_ended(self) -> bool:
        """Whether it was decided for good, or a person is asked because it could not be."""
        is_settled = self.rollout.state is State.CHAMPION and self.rollout.deadline is None
        return is_settled or self.rollout.state in FINAL | {State.AWAITING_DECISION}

    def serve(self) -> None:
        """Serve one stride of flights by the snapshot that the router holds."""
        self.now += STRIDE
        self.logs.serve_until(self.now, self.router.snapshot)

    def settle(self) -> None:
        """Take every step that is due; the router follows at once and a person approves at once."""
        is_moved = True
        while is_moved:
            answer = _approval(self.rollout) if self.rollout.state is State.AWAITING_APPROVAL else None
            outcome = step(self.ports, self.rollout.id, now=self.now, actor="study", answer=answer)
            self.rollout, is_moved = outcome.rollout, outcome.is_moved
            self.router.refresh(now=self.now)


def _approval(rollout: Rollout) -> Answer:
    return Answer(Choice.APPROVE, _APPROVER, "the evidence rules harm out", rollout.evidence_digest or "")


@dataclass(frozen=True, slots=True)
class Ending:
    """How one replay ended."""

    state: State
    is_promoted: bool  #: it became champion, also when it was demoted later
    days: float  #: from the start to promotion, or to the end of a rollout that was never promoted
    exposed: int  #: units that the challenger answered in that time
    reason: str


def play(scene: Scene, *, seed: int) -> Ending:
    """Return how the rollout of `scene` ends when its units are drawn by `seed`; the same seed, the same ending."""
    replay = Replay(scene, seed=seed)
    replay.settle()
    promoted_at = None
    while not replay.has_ended and replay.now < scene.trial.start + HORIZON - STRIDE:
        replay.serve()
        replay.settle()
        if promoted_at is None and replay.rollout.state is State.CHAMPION:
            promoted_at = replay.now
    until = promoted_at or replay.now
    return Ending(
        state=replay.rollout.state,
        is_promoted=promoted_at is not None,
        days=(until - scene.trial.start) / timedelta(days=1),
        exposed=replay.logs.exposed(until),
        reason=replay.rollout.reason,
    )


def play_all(scene: Scene, seeds: Sequence[int]) -> list[Ending]:
    """Return the ending of `scene` for each of `seeds`, in their order."""
    # Spawned, for LightGBM has threads by now, and a forked child would wait for them for ever.
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        return list(pool.map(partial(_play, scene), seeds, chunksize=-(-len(seeds) // WORKERS)))


def _play(scene: Scene, seed: int) -> Ending:
    return play(scene, seed=seed)


def summary(name: str, endings: Sequence[Ending]) -> str:
    """Return one line of figures about the replays of one trial."""
    promoted = np.mean([each.is_promoted for each in endings])
    rolled_back = np.mean([each.state is State.ROLLED_BACK for each in endings])
    undecided = np.mean([each.state is State.AWAITING_DECISION for each in endings])
    days = np.quantile([each.days for each in endings], [0.5, 0.95])
    exposed = np.quantile([each.exposed for each in endings], [0.5, 0.95])
    return (
        f"{name:<12} {len(endings):4d} replays: promoted {promoted:6.1%}, rolled back {rolled_back:6.1%},"
        f" undecided {undecided:6.1%}; days {days[0]:5.1f} (p95 {days[1]:5.1f}),"
        f" exposed units {exposed[0]:6,.0f} (p95 {exposed[1]:6,.0f})"
    )


def main() -> None:
    """Print the figures of all trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="replays of each trial")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        study = Study(Path(folder))
        for trial in TRIALS:
            scene = study.scene(trial)
            print(summary(trial.name, play_all(scene, range(given.seeds))), flush=True)


if __name__ == "__main__":
    main()
