"""What DuckDB counts of random logs is what plain Python counts of them, for every field of the evidence."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from datetime import timedelta

import numpy as np
import pytest
from builders import DAY, HOUR, POINT, T0, a_plan

from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.logs import LogWriter
from seatrial.evidence import (
    AMOUNT_STEP,
    DIVISOR_STEP,
    WAIT_STEPS,
    Arm,
    Cell,
    Epoch,
    Evidence,
    Frozen,
    Moments,
    ScoreCell,
    ScoredPair,
    ScoreTally,
    ShadowTally,
    Tally,
    Wait,
)
from seatrial.ports import Scope
from seatrial.stats.exceedance import BUCKETS, LatencySketch, freeze_quantile
from seatrial.stats.scores import ScoreGrid

MATURITY, WINDOW = 36 * HOUR, 6 * HOUR
NOW = T0 + 72 * HOUR
SCOPE = Scope(POINT, "r1", "champion", "challenger", T0)
#: Share, stage and first hour of each snapshot.
SNAPSHOTS = {2: (0.2, 2, 0), 3: (0.5, 3, 30), 4: (0.5, 4, 60)}
GRID = ScoreGrid()


def a_mean(name, of, *, deviation=2.0, **changes):
    """Return a guardrail on a mean; what is no key of the mean itself is one of the guardrail."""
    own = {key: changes.pop(key) for key in ("per", "window", "worse") if key in changes}
    return {
        "name": name,
        "source": "runtime",
        "mean": {"of": of, "typical": 1.0, "deviation": deviation, **own},
        "margin": "20 % relative",
        "consequence": "freeze",
        **changes,
    }


LABELLED = {"source": "label", "label": "late", "maturity": "36 h"}
PLAN = a_plan(
    guardrails=[
        {
            "name": "failed",
            "source": "runtime",
            "bad_when": [{"outcome": ["error", "timeout"]}],
            "margin": "50 % relative",
            "slices": ["origin"],
            "consequence": "roll_back",
        },
        {
            "name": "slow",
            "source": "runtime",
            "exceeds": {"column": "latency_ms", "quantile": "90 %"},
            "margin": "50 % relative",
            "slices": ["origin"],
            "consequence": "freeze",
        },
        {
            "name": "high",
            "source": "proxy",
            "exceeds": {"column": "score", "quantile": "90 %"},
            "margin": "50 % relative",
            "consequence": "notify",
        },
        {
            "name": "rebooked",
            "source": "proxy",
            "bad_when": [{"action": "rebook"}],
            "margin": "50 % relative",
            "consequence": "freeze",
        },
        {
            "name": "refunded",
            "source": "label",
            "label": "refund",
            "maturity": "20 h",
            "bad_when": [{"label": 1, "action": "none"}],
            "observed_when": [{"action": "none"}],
            "margin": "15 % relative",
            "slices": ["origin"],
            "consequence": "roll_back",
        },
        a_mean("time", "latency_ms", slices=["origin"]),
        a_mean("certainty", "score", deviation=0.1, source="proxy"),
        a_mean("lateness", "label", **LABELLED),
        a_mean("misses", "feature_misses", window="6 h", slices=["origin"]),
        a_mean("time-per-decision", "latency_ms", window="6 h", per="decisions"),
        a_mean("misses-per-ms", "feature_misses", window="6 h", per="latency_ms"),
    ],
    slices={"origin": ["EWR", "JFK"]},
    scores={"range": [0, 1], "label": "late", "maturity": "36 h", "slices": ["origin"]},
)
MEANS = {g.name: g for g in PLAN.guardrails if g.mean}


@dataclass
class Logs:
    """Decisions and labels as they are written."""

    decisions: list
    labels: list

    def __add__(self, other):
        return Logs(self.decisions + other.decisions, self.labels + other.labels)


def a_row(**changes):
    row = {
        "decision_id": "d0",
        "ts": T0,
        "decision_point": POINT,
        "rollout_id": "r1",
        "snapshot_no": 2,
        "stage": 2,
        "release_id": "release",
        "arm": "champion",
        "share": 0.2,
        "segment": "everyone",
        "unit_key": "u0",
        "feature_digest": "sha256:f",
        "score": 0.5,
        "action_recommended": "none",
        "action_taken": "none",
        "authority": "DECIDE",
        "latency_ms": 1.0,
        "outcome": "ok",
        "feature_misses": 0,
        "origin": "EWR",
    }
    return {**row, **changes}


def a_label(row, after=HOUR, **changes):
    arrived = row["ts"] + after
    label = {"decision_id": row["decision_id"], "name": "late", "value": 1.0, "fact_at": row["ts"]}
    return {**label, "arrived_at": arrived, **changes}


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def random_row(rng, name, unit, ts, number):
    share, stage, _ = SNAPSHOTS[number]
    odd = [None, math.nan, -0.1, 1.5, math.inf, 0.0, 1.0]
    is_crossed = rng.random() < 0.02
    return a_row(
        decision_id=name,
        ts=ts,
        rollout_id=pick(rng, ["r1"] * 19 + ["r2"]),
        snapshot_no=number,
        stage=stage,
        arm="challenger" if (hash((unit, number)) % 10 < 10 * share) != is_crossed else "champion",
        share=pick(rng, [share] * 19 + [0.0]),
        unit_key=f"u{unit}",
        score=pick(rng, odd) if rng.random() < 0.3 else float(rng.random()),
        action_recommended=pick(rng, [None, "none", "rebook"]),
        action_taken=pick(rng, [None, "none", "none", "rebook"]),
        latency_ms=pick(rng, [math.nan, math.inf, 0.0, 2e7]) if rng.random() < 0.1 else float(rng.lognormal(1.0, 1.0)),
        outcome=pick(rng, ["ok"] * 8 + ["error", "timeout", "fallback"]),
        feature_misses=int(rng.integers(4)),
        origin=pick(rng, ["EWR", "JFK", "LGA"]),
    )


def random_logs(rng, units, prefix=""):
    """Return decisions of each unit at random times, some twice, some with a copy in shadow, and labels of most."""
    decisions, labels = [], []
    for at in range(3 * len(units)):
        hours = float(rng.uniform(-0.1, 73.0))
        number = max(n for n, (_, _, first) in SNAPSHOTS.items() if hours >= first or n == min(SNAPSHOTS))
        ts = T0 + timedelta(microseconds=round(hours * 3600e6))
        row = random_row(rng, f"{prefix}d{at}", pick(rng, units), ts, number)
        decisions += [row] * pick(rng, [1, 1, 1, 1, 2])
        if rng.random() < 0.4:
            copy = {"arm": "shadow", "outcome": pick(rng, ["ok", "ok", "error"]), "action_taken": None}
            copy |= {"score": pick(rng, [None, math.nan, 2.0, float(rng.random())])}
            copy |= {"action_recommended": pick(rng, [None, "none", "rebook"]), "latency_ms": 77.0}
            decisions += [{**row, **copy}] * pick(rng, [1, 1, 2])
        labels += [
            a_label(
                row,
                pick(rng, [-HOUR, 0 * HOUR, 5 * HOUR, MATURITY, 40 * HOUR]) + float(rng.random()) * HOUR,
                name=pick(rng, ["late", "refund", "other"]),
                value=pick(rng, [0.0, 0.0, 1.0, 1.0, 2.0, math.nan]),
            )
            for _ in range(int(rng.integers(5)))
        ]
    return Logs(decisions, labels)


def random_reference(rng, size):
    """Return what both arms answered before the rollout; only the champion's settled week is frozen."""
    hours = rng.uniform(-200.0, 0.0, size)
    return Logs(
        [
            a_row(
                decision_id=f"before-{at}",
                ts=T0 + timedelta(microseconds=round(float(hour) * 3600e6)),
                rollout_id=pick(rng, [None, "r0"]),
                snapshot_no=1,
                arm=pick(rng, ["champion", "champion", "challenger"]),
                share=0.0,
                unit_key=f"before-{at}",
                score=float(rng.random()),
                latency_ms=float(rng.lognormal(1.0, 1.0)),
                outcome=pick(rng, ["ok", "ok", "error"]),
            )
            for at, hour in enumerate(hours)
        ],
        [],
    )


def snapshots_begin():
    """Return one request of nobody on trial at the begin of each snapshot, which says when the one before ended."""
    return Logs(
        [
            a_row(
                decision_id=f"begin-{n}",
                ts=T0 + first * HOUR,
                snapshot_no=n,
                stage=stage,
                share=0.0,
                unit_key=f"begin-{n}",
            )
            for n, (_, stage, first) in SNAPSHOTS.items()
        ],
        [],
    )


def write(root, logs, batches=1):
    for at in range(batches):
        writer = LogWriter(root, POINT, ("origin",))
        for row in logs.decisions[at::batches]:
            writer.decision(row)
        for row in logs.labels[at::batches]:
            writer.label(row)
        writer.flush()


def look(root, logs=None, plan=PLAN, *, batches=1):
    if logs is not None:
        write(root, logs, batches)
    return ParquetLogs(root).look(plan, SCOPE, now=NOW)


# --- the count by hand ---


def fixed(value, step):
    """Return the nearest whole number of steps, half away from zero; None where there is no finite number."""
    if value is None or not math.isfinite(value):
        return None
    return int(math.copysign(math.floor(abs(value / step) + 0.5), value))


def whole_sum(values):
    return None if None in values else sum(values)


def first_of_each_unit(rows):
    firsts = {}
    for row in sorted(rows, key=lambda row: (row["ts"], row["decision_id"])):
        firsts.setdefault(row["unit_key"], row)
    return list(firsts.values())


class ByHand:
    """Every field of the evidence, counted row by row."""

    def __init__(self, logs):
        seen = [row for row in logs.decisions if row["ts"] <= NOW]
        self.newest = max((row["ts"] for row in seen if row["arm"] != "shadow"), default=None)
        self.mine = [row for row in seen if row["rollout_id"] == "r1" and row["ts"] >= T0]
        self.served = {row["decision_id"]: row for row in self.mine if row["arm"] != "shadow"}
        self.on_trial = [row for row in self.served.values() if 0 < row["share"] < 1]
        self.decided = first_of_each_unit(self.on_trial)
        self.arrived = defaultdict(list)
        for label in logs.labels:
            if label["arrived_at"] <= NOW and not math.isnan(label["value"]):
                self.arrived[label["decision_id"], label["name"]].append((label["arrived_at"], label["value"]))
        settled = T0 - timedelta(minutes=10)
        self.reference = [
            row for row in logs.decisions if row["arm"] == "champion" and settled - 7 * DAY <= row["ts"] < settled
        ]
        self.frozen = self.read_before()
        self.began = {n: min(r["ts"] for r in self.mine if r["snapshot_no"] == n) for n in SNAPSHOTS}

    def label(self, row, name, until):
        arrived = [each for each in self.arrived[row["decision_id"], name] if each[0] <= until]
        return max(arrived)[1] if arrived else None

    def read_before(self):
        quantiles = {
            name: freeze_quantile([row[column] for row in self.reference], 0.9)
            for name, column in (("slow", "latency_ms"), ("high", "score"))
        }
        scores = Counter(bin_of(row["score"]) for row in self.reference if row["outcome"] == "ok")
        return Frozen({name: value for name, value in quantiles.items() if value is not None}, dict(scores))

    def flags(self, guardrail, row):
        """Return whether it is bad now, bad within, matured, labelled, hidden."""
        if guardrail.name in MEANS:
            is_matured = self.is_closed(row) if guardrail.mean.window else self.is_matured(guardrail, row)
            return False, False, is_matured, None not in self.amount(guardrail, row), False
        if guardrail.exceeds is not None:
            value, bound = row[guardrail.exceeds.column], self.frozen.quantiles[guardrail.name]
            is_bad = not (value is not None and value <= bound)
            return is_bad, is_bad, True, True, False
        if guardrail.name == "refunded":
            is_seen = row["action_taken"] == "none"
            known, within = (self.label(row, "refund", until) for until in (NOW, row["ts"] + guardrail.maturity))
            is_matured = self.is_matured(guardrail, row)
            return known == 1 and is_seen, within == 1 and is_seen, is_matured, within is not None, not is_seen
        is_bad = (
            row["outcome"] in ("error", "timeout") if guardrail.name == "failed" else row["action_taken"] == "rebook"
        )
        return is_bad, is_bad, True, True, False

    @staticmethod
    def is_matured(guardrail, row):
        return guardrail.maturity is None or row["ts"] + guardrail.maturity <= NOW

    def tally(self, guardrail, row):
        is_bad, was_bad, is_matured, is_labelled, is_hidden = self.flags(guardrail, row)
        is_seen = is_matured and is_labelled and not is_hidden
        return Tally(
            1,
            is_bad,
            is_matured,
            is_matured and was_bad,
            is_seen,
            good=is_seen and not is_bad,
            hidden=is_matured and is_hidden,
        )

    def is_closed(self, row):
        """Return whether the unit's window ended by now and before the next snapshot began."""
        return row["ts"] + WINDOW <= min(self.began.get(row["snapshot_no"] + 1, NOW), NOW)

    def amount(self, guardrail, row):
        mean, step = guardrail.mean, guardrail.mean.deviation * AMOUNT_STEP
        if mean.of == "label":
            return fixed(self.label(row, "late", row["ts"] + MATURITY), step), 1
        if mean.window is None:
            return fixed(row[mean.of], step), 1
        if not self.is_closed(row):
            return None, None
        end = row["ts"] + WINDOW
        own = [e for e in self.served.values() if e["unit_key"] == row["unit_key"] and row["ts"] <= e["ts"] < end]
        divisor = len(own) if mean.per == "decisions" else 1
        if mean.per == "latency_ms":
            divisor = whole_sum([fixed(each["latency_ms"], DIVISOR_STEP) for each in own])
        return whole_sum([fixed(each[mean.of], step) for each in own]), divisor

    def cells(self):
        cells, moments = defaultdict(Tally), defaultdict(Moments)
        for row in self.decided:
            for guardrail in PLAN.guardrails:
                for place in [(None, None), *((c, row[c]) for c in guardrail.slices if row[c] in PLAN.slices[c])]:
                    cell = Cell(guardrail.name, *place, row["snapshot_no"], Arm(row["arm"]))
                    cells[cell] += self.tally(guardrail, row)
                    if guardrail.mean is None or not self.flags(guardrail, row)[2]:
                        continue
                    k, n = self.amount(guardrail, row)
                    if None not in (k, n):
                        moments[cell] += Moments(1, k != 0, k, n, k * k, k * n, n * n)
        return cells, moments

    def outcome(self, row):
        """Return the label of the score, 0 or 1 and matured, or None."""
        closes = row["ts"] + MATURITY
        known = self.label(row, "late", closes) if closes <= NOW else None
        return known if known in (0.0, 1.0) else None

    def scores(self):
        scores = defaultdict(ScoreTally)
        for row in self.decided:
            outcome = self.outcome(row)
            tally = ScoreTally(1, outcome is not None, outcome == 1.0)
            for place in [(None, None), ("origin", row["origin"])]:
                if row["outcome"] == "ok" and place[1] != "LGA":
                    scores[ScoreCell(*place, row["snapshot_no"], Arm(row["arm"]), bin_of(row["score"]))] += tally
        return scores

    def copies(self):
        copies = {row["decision_id"]: row for row in self.mine if row["arm"] == "shadow"}
        served = first_of_each_unit([self.served[name] for name in copies if name in self.served])
        return [(row, copies[row["decision_id"]]) for row in served]

    def shadow(self):
        shadow = ShadowTally()
        for row, copy in self.copies():
            was_ok, is_ok = row["outcome"] == "ok", copy["outcome"] == "ok"
            is_flipped = row["action_recommended"] != copy["action_recommended"]
            both = is_ok and was_ok
            shadow += ShadowTally(
                1, was_ok and not is_ok, is_ok and not was_ok, not (is_ok or was_ok), both, both and is_flipped
            )
        return shadow

    def pairs(self):
        pairs = Counter()
        for row, copy in self.copies():
            if row["outcome"] == copy["outcome"] == "ok":
                outcome = self.outcome(row)
                label = -1 if outcome is None else int(outcome)
                pairs[ScoredPair(bin_of(row["score"]), bin_of(copy["score"]), label)] += 1
        return pairs

    def waits(self):
        waits = Counter()
        for guardrail in PLAN.guardrails:
            for row in self.decided if guardrail.label else []:
                is_bad, _, _, _, is_hidden = self.flags(guardrail, row)
                arrived = [moment for moment, _ in self.arrived[row["decision_id"], guardrail.label]]
                delay = steps(min(arrived) - row["ts"], guardrail.maturity) if arrived else -1
                where = guardrail.name, row["snapshot_no"], Arm(row["arm"])
                if not is_hidden:
                    waits[Wait(*where, is_bad, steps(NOW - row["ts"], guardrail.maturity), delay)] += 1
        return waits

    def latencies(self):
        found = {}
        for arm in ("champion", "challenger"):
            values = [row["latency_ms"] for row in self.decided if row["arm"] == arm]
            sketch = LatencySketch.of([math.inf if math.isnan(value) else value for value in values])
            found |= {(Arm(arm), int(at)): int(sketch.counts[at]) for at in np.flatnonzero(sketch.counts)}
        return found

    def crossed(self):
        arms = defaultdict(set)
        for row in self.on_trial:
            arms[row["unit_key"], row["snapshot_no"]].add(row["arm"])
        return sum(len(each) > 1 for each in arms.values())

    def evidence(self):
        cells, moments = self.cells()
        return Evidence(
            newest=self.newest,
            epochs={row["snapshot_no"]: Epoch(row["share"], row["stage"]) for row in self.decided},
            cells=cells,
            assigned=Counter((row["snapshot_no"], Arm(row["arm"])) for row in self.decided),
            shadow=self.shadow(),
            moments=moments,
            scores=self.scores(),
            pairs=self.pairs(),
            waits=self.waits(),
            latencies=self.latencies(),
            crossed=self.crossed(),
            frozen=self.frozen,
        )


def bin_of(score):
    return int(GRID.index(math.nan if score is None else score))


def steps(since, window):
    microsecond = timedelta(microseconds=1)
    return min(max(since // microsecond * WAIT_STEPS // (window // microsecond), 0), WAIT_STEPS)


def said(evidence):
    """Return every field, without moments of no unit, which say nothing."""
    fully = {field.name: getattr(evidence, field.name) for field in fields(Evidence)}
    return {**fully, "moments": {cell: each for cell, each in evidence.moments.items() if each != Moments()}}


@pytest.mark.parametrize("seed", range(6))
def test_every_count_is_the_one_that_is_made_by_hand(tmp_path, seed):
    rng = np.random.default_rng(seed)
    logs = random_reference(rng, 60) + random_logs(rng, range(120)) + snapshots_begin()
    found, expected = said(look(tmp_path, logs, batches=3)), said(ByHand(logs).evidence())
    for name, value in expected.items():
        assert found[name] == value, name


def test_the_count_by_hand_counts_something_of_everything():
    rng = np.random.default_rng(0)
    found = ByHand(random_reference(rng, 60) + random_logs(rng, range(120)) + snapshots_begin()).evidence()
    tallied, summed = sum(found.cells.values(), Tally()), defaultdict(int)
    for cell, each in found.moments.items():
        summed[cell.guardrail] += each.units
    assert min(tallied.values()) > 0
    assert set(summed) == set(MEANS)
    assert min(sum(found.scores.values(), ScoreTally()).values()) > 0
    assert {pair.label for pair in found.pairs} == {-1, 0, 1}
    assert {wait.is_bad for wait in found.waits} == {True, False}
    assert {-1, 0, WAIT_STEPS} <= {wait.delay for wait in found.waits}
    assert found.crossed > 0
    assert set(found.frozen.quantiles) == {"slow", "high"}
    assert {bucket for _, bucket in found.latencies} >= {0, BUCKETS - 1}


@pytest.mark.parametrize("seed", range(3))
def test_looks_at_two_sets_of_units_add_up_to_the_look_at_both(tmp_path, seed):
    rng = np.random.default_rng(seed)
    shared = random_reference(rng, 60) + snapshots_begin()
    one, other = random_logs(rng, range(50), "a"), random_logs(rng, range(50, 100), "b")
    looks = [look(tmp_path / name, shared + part) for name, part in (("one", one), ("other", other))]
    both = look(tmp_path / "both", shared + one + other)
    assert said(looks[0] + looks[1]) == said(both)
    assert (looks[0] + looks[1]).digest == (looks[1] + looks[0]).digest == both.digest


def test_a_look_does_not_depend_on_the_order_of_rows_nor_on_how_they_lie_in_files(tmp_path):
    rng = np.random.default_rng(7)
    logs = random_reference(rng, 40) + random_logs(rng, range(80)) + snapshots_begin()
    digests = set()
    for batches in (1, 2, 5):
        shuffled = Logs(*([part[at] for at in rng.permutation(len(part))] for part in (logs.decisions, logs.labels)))
        digests.add(look(tmp_path / str(batches), shuffled, batches=batches).digest)
    assert len(digests) == 1


# --- rules, each in a log of a few rows ---


def moments_of(evidence, name):
    return sum((each for cell, each in evidence.moments.items() if cell[:2] == (name, None)), Moments())


def tally_of(evidence, name):
    return sum((each for cell, each in evidence.cells.items() if cell[:2] == (name, None)), Tally())


def some_days(*rows, labels=()):
    return Logs([a_row(**row) for row in rows], list(labels)) + snapshots_begin()


def test_a_window_that_ends_after_the_next_snapshot_began_is_not_counted(tmp_path):
    begins = SNAPSHOTS[3][2] * HOUR
    inside, outside = T0 + begins - WINDOW, T0 + begins - WINDOW + timedelta(microseconds=1)
    logs = some_days(
        {"decision_id": "in", "unit_key": "in", "ts": inside, "feature_misses": 2},
        {"decision_id": "out", "unit_key": "out", "ts": outside, "feature_misses": 3},
    )
    found = look(tmp_path, logs)
    assert moments_of(found, "misses") == Moments(1, 1, 10_000, 1, 10_000**2, 10_000, 1)
    assert tally_of(found, "misses").matured == tally_of(found, "misses").labelled == 1


def test_a_decision_that_was_logged_twice_is_added_up_once(tmp_path):
    rows = [{"decision_id": f"d{at}", "ts": T0 + at * HOUR, "feature_misses": 1} for at in (0, 1)]
    once = moments_of(look(tmp_path / "once", some_days(*rows)), "misses")
    twice = some_days(*rows, *rows)
    assert once.k == 10_000
    assert moments_of(look(tmp_path / "twice", twice, batches=2), "misses") == once


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_an_amount_that_is_no_number_is_missing_and_spoils_no_look(tmp_path, number):
    rows = [{"decision_id": f"d{at}", "unit_key": f"u{at}", "latency_ms": 5.0} for at in range(3)]
    found = look(tmp_path, some_days(*rows, {"decision_id": "d9", "unit_key": "u9", "latency_ms": number}))
    for name in ("time", "time-per-decision"):
        assert moments_of(found, name).units == 3
        assert (tally_of(found, name).matured, tally_of(found, name).labelled) == (4, 3)


def test_a_unit_with_one_unmeasured_decision_has_no_sum_because_what_was_not_measured_is_not_nothing(tmp_path):
    rows = [{"decision_id": f"d{at}", "ts": T0 + at * HOUR, "latency_ms": ms} for at, ms in enumerate((5.0, math.nan))]
    found = look(tmp_path, some_days(*rows))
    assert moments_of(found, "time-per-decision") == Moments()
    assert moments_of(found, "misses-per-ms") == Moments()
    assert moments_of(found, "misses").units == 1


@pytest.mark.parametrize(("score", "bad"), [(None, 1), (math.nan, 1), (math.inf, 1), (0.95, 1), (0.1, 0)])
def test_a_unit_without_a_number_has_not_stayed_below_the_quantile(tmp_path, score, bad):
    reference = random_reference(np.random.default_rng(1), 60)
    found = look(tmp_path, reference + some_days({"score": score}))
    assert (tally_of(found, "high").bad, tally_of(found, "high").good) == (bad, 1 - bad)


@pytest.mark.parametrize(("size", "names"), [(9, set()), (10, {"slow", "high"})])
def test_a_quantile_is_frozen_when_one_value_is_expected_above_it(tmp_path, size, names):
    before = [
        {"decision_id": f"b{at}", "unit_key": f"b{at}", "ts": T0 - HOUR, "latency_ms": float(at), "score": at / 10}
        for at in range(size)
    ]
    found = look(tmp_path, some_days(*before, {"latency_ms": 1e6}))
    assert set(found.frozen.quantiles) == names
    assert tally_of(found, "slow").bad == len(names) / 2


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_quantile_that_nothing_exceeds_is_not_frozen(tmp_path, number):
    before = [
        {"decision_id": f"b{at}", "unit_key": f"b{at}", "ts": T0 - HOUR, "latency_ms": number} for at in range(40)
    ]
    assert "slow" not in look(tmp_path, some_days(*before, {})).frozen.quantiles


def test_a_label_that_is_no_number_has_not_arrived_even_beside_one_that_is(tmp_path):
    rows = [a_row(), a_row(decision_id="d1", unit_key="u1")]
    labels = [a_label(rows[0], name=name, value=math.nan) for name in ("late", "refund")]
    # In one file with a number, whose statistics know nothing of the NaN.
    labels += [a_label(rows[1], name="refund", value=1.0)]
    found = look(tmp_path, some_days(*rows, labels=labels))
    assert tally_of(found, "refunded") == Tally(2, 1, 2, 1, 1)
    assert sum(count for wait, count in found.waits.items() if wait.delay == -1) == 3
    assert sum(found.scores.values(), ScoreTally()).labelled == 0


def test_a_label_that_is_neither_0_nor_1_is_no_outcome_of_a_score(tmp_path):
    row = a_row()
    copy = {**row, "arm": "shadow"}
    found = look(tmp_path, some_days(row, copy, labels=[a_label(row, value=2.0)]))
    assert {pair.label for pair in found.pairs} == {-1}
    assert sum(found.scores.values(), ScoreTally()).labelled == 0


def test_a_label_that_an_action_hides_is_neither_asked_for_nor_good(tmp_path):
    rows = [a_row(), a_row(decision_id="d1", unit_key="u1", action_taken="rebook")]
    labels = [a_label(row, name="refund", value=0.0) for row in rows]
    found = tally_of(look(tmp_path, some_days(*rows, labels=labels)), "refunded")
    assert found == Tally(2, 0, 2, 0, 1, good=1, hidden=1)


def test_the_reference_ends_before_the_rollout_and_is_the_champions_alone(tmp_path):
    def before(at, **changes):
        return {"decision_id": f"b{at}", "unit_key": f"b{at}", "ts": T0 - HOUR, "latency_ms": 1.0, **changes}

    others = [
        before(100, arm="challenger", latency_ms=99.0),
        before(101, arm="shadow", latency_ms=99.0),
        before(102, ts=T0 - timedelta(minutes=10), latency_ms=99.0),
        before(103, ts=T0 - timedelta(minutes=10) - 7 * DAY - timedelta(microseconds=1), latency_ms=99.0),
    ]
    found = look(tmp_path, some_days(*(before(at) for at in range(10)), *others))
    assert found.frozen.quantiles["slow"] == 1.0
    assert sum(found.frozen.scores.values()) == 10
