"""What is counted of random logs is what plain Python counts of them, for every field of the evidence."""

import math
from collections import Counter, defaultdict
from dataclasses import fields, replace
from datetime import timedelta

import numpy as np
import pytest
from builders import DAY, HOUR, POINT, T0
from counting_logs import (
    EPOCH,
    FIRST_DATE,
    GRID,
    MATURITY,
    MEANS,
    MICROSECOND,
    NOW,
    PLAN,
    SCOPE,
    SNAPSHOTS,
    WINDOW,
    Logs,
    a_label,
    a_row,
    random_logs,
    random_reference,
    snapshots_begin,
    write,
)

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
    LabelCell,
    LabelTally,
    Moments,
    ScoreCell,
    ScoredPair,
    ScoreTally,
    ShadowTally,
    Tally,
    Wait,
)
from seatrial.stats.exceedance import BUCKETS, LatencySketch, freeze_quantile


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
        of_rollout = [row for row in seen if row["rollout_id"] == "r1" and row["ts"].date() >= FIRST_DATE]
        self.rows = len(of_rollout)
        self.set_aside = Counter(why for why in map(why_bad, of_rollout) if why)
        self.mine = [row for row in of_rollout if why_bad(row) is None]
        self.served = {row["decision_id"]: row for row in self.mine if row["arm"] != "shadow"}
        self.on_trial = [row for row in self.served.values() if 0 < row["share"] < 1]
        self.decided = first_of_each_unit(self.on_trial)
        self.arrived = defaultdict(list)
        made = {row["decision_id"]: row["ts"] for row in self.served.values()}
        for label in logs.labels:
            known, where = label["decision_id"] in made, (label["decision_id"], label["name"])
            if not known or label["arrived_at"] > NOW or label["name"] not in ("late", "refund"):
                continue
            if math.isnan(label["value"]) or label["arrived_at"] < made[label["decision_id"]]:
                reason = "value.not_a_number" if math.isnan(label["value"]) else "label.before_decision"
                self.set_aside[reason] += label["decision_id"] in {row["decision_id"] for row in self.decided}
            else:
                self.arrived[where].append((label["arrived_at"], label["value"]))
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
                begun = [(each - EPOCH) // MICROSECOND * WAIT_STEPS for each in (NOW, row["ts"])]
                now, then = (each // (guardrail.maturity // MICROSECOND) for each in begun)
                age = min(max(now - then - 1, delay, 0), WAIT_STEPS)
                if not is_hidden:
                    waits[Wait(guardrail.name, row["snapshot_no"], Arm(row["arm"]), is_bad, age, delay)] += 1
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
            labels=self.labels(),
            rows=self.rows,
            set_aside={reason: count for reason, count in self.set_aside.items() if count},
        )

    def labels(self):
        found = defaultdict(LabelTally)
        for row in self.decided:
            for name, window in (("late", MATURITY), ("refund", 20 * HOUR)):
                arrived = self.arrived[row["decision_id"], name]
                if arrived:
                    is_late = min(arrived)[0] > row["ts"] + window
                    is_contradictory = len({value for _, value in arrived}) > 1
                    cell = LabelCell(name, Arm(row["arm"]))
                    found[cell] += LabelTally(1, len(arrived) > 1, is_contradictory, is_late)
        return found


def why_bad(row):
    """Return the reason for which a decision is set aside; None when it is sound."""
    if row["ts"] < T0:
        return "ts.before_rollout"
    return "release.unknown" if row["release_id"] == "other" else None


def bin_of(score):
    return int(GRID.index(math.nan if score is None else score))


def steps(since, window):
    microsecond = timedelta(microseconds=1)
    return min(max(since // microsecond * WAIT_STEPS // (window // microsecond), 0), WAIT_STEPS)


def said(evidence):
    """Return every field that is compared, without moments of no unit, which say nothing."""
    fully = {field.name: getattr(evidence, field.name) for field in fields(Evidence) if field.compare}
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
    found = ByHand(random_reference(rng, 60) + random_logs(rng, range(400)) + snapshots_begin()).evidence()
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
    assert min(sum(found.labels.values(), LabelTally()).values()) > 0
    assert set(found.set_aside) == {
        "ts.before_rollout",
        "release.unknown",
        "value.not_a_number",
        "label.before_decision",
    }


@pytest.mark.parametrize("seed", range(3))
def test_looks_at_two_sets_of_units_add_up_to_the_look_at_both(tmp_path, seed):
    rng = np.random.default_rng(seed)
    shared = random_reference(rng, 60) + snapshots_begin()
    one, other = random_logs(rng, range(50), "a"), random_logs(rng, range(50, 100), "b")
    looks = [look(tmp_path / name, shared + part) for name, part in (("one", one), ("other", other))]
    both = look(tmp_path / "both", shared + one + other)
    # The begin of each snapshot is in both logs.
    added = [replace(one + other, rows=one.rows + other.rows - len(SNAPSHOTS)) for one, other in (looks, looks[::-1])]
    assert said(added[0]) == said(both)
    assert added[0].digest == added[1].digest == both.digest


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


def test_rows_that_were_turned_away_at_the_door_are_counted_by_their_reason(tmp_path):
    clock = FixedClock(T0 + 2 * HOUR)
    writer = LogWriter(tmp_path, POINT, ("origin",), clock)
    writer.decision(a_row())
    writer.decision(a_row(decision_id="d1", share=3.0))
    writer.decision(a_row(decision_id="d2", share=3.0, rollout_id="another"))
    writer.label(a_label(a_row(), value=math.nan))
    assert writer.flush().quarantined == 3
    found = look(tmp_path)
    assert found.rows == 1
    assert found.set_aside == {"share.out_of_range": 1, "value.not_a_number": 1}
    assert ParquetLogs(tmp_path).look(PLAN, SCOPE, now=T0 + HOUR).set_aside == {}


def test_a_row_that_was_turned_away_without_a_date_is_counted(tmp_path):
    writer = LogWriter(tmp_path, POINT, ("origin",))
    writer.decision(a_row(share=3.0))
    assert writer.flush().quarantined == 1
    write(tmp_path, some_days({"decision_id": "d1"}))
    assert look(tmp_path).set_aside == {"share.out_of_range": 1}


class FixedClock:
    """A clock that stands."""

    def __init__(self, moment):
        self._moment = moment

    def now(self):
        return self._moment


def test_a_look_says_what_it_does(tmp_path):
    write(tmp_path, some_days({}))
    told = []
    ParquetLogs(tmp_path, told.append).look(PLAN, SCOPE, now=NOW)
    assert told == list(dict.fromkeys(told))
    assert {"finding the first decision of each unit", "joining labels", "counting"} <= set(told)
