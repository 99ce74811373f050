import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path

from builders import HOUR, POINT, T0, a_plan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.logs import LogWriter
from seatrial.evidence import (
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
    merge,
)
from seatrial.plan import Above, AtLeast, OneOf
from seatrial.ports import Scope

COUNTS = st.integers(0, 2**40)
EPOCHS = {1: Epoch(0.05, 2), 2: Epoch(0.2, 3), 3: Epoch(0.5, 3)}
NUMBERS = st.sampled_from([1, 2, 3])
PLACES = st.sampled_from([(None, None), ("origin", "EWR"), ("origin", "JFK")])
CELLS = st.builds(
    lambda guardrail, place, number, arm: Cell(guardrail, *place, number, arm),
    st.sampled_from("gh"),
    PLACES,
    NUMBERS,
    st.sampled_from(Arm),
)
BINS = st.integers(0, 103)
SCORE_CELLS = st.builds(
    lambda place, number, arm, at: ScoreCell(*place, number, arm, at), PLACES, NUMBERS, st.sampled_from(Arm), BINS
)
WAITS = st.builds(
    Wait,
    st.sampled_from("gh"),
    NUMBERS,
    st.sampled_from(Arm),
    st.booleans(),
    st.integers(0, WAIT_STEPS),
    st.integers(-1, WAIT_STEPS),
)


def of(kind):
    """Return a strategy of counts of one kind."""
    return st.builds(kind, *[COUNTS] * len(fields(kind)))


EVIDENCE = st.builds(
    Evidence,
    newest=st.none() | st.integers(0, 10**6).map(lambda s: T0 + timedelta(seconds=s)),
    epochs=st.sets(st.sampled_from(sorted(EPOCHS))).map(lambda numbers: {n: EPOCHS[n] for n in numbers}),
    cells=st.dictionaries(CELLS, of(Tally), max_size=4),
    assigned=st.dictionaries(st.tuples(NUMBERS, st.sampled_from(Arm)), COUNTS, max_size=4),
    shadow=of(ShadowTally),
    moments=st.dictionaries(CELLS, of(Moments), max_size=3),
    scores=st.dictionaries(SCORE_CELLS, of(ScoreTally), max_size=3),
    pairs=st.dictionaries(st.builds(ScoredPair, BINS, BINS, st.sampled_from([-1, 0, 1])), COUNTS, max_size=3),
    waits=st.dictionaries(WAITS, COUNTS, max_size=3),
    latencies=st.dictionaries(st.tuples(st.sampled_from(Arm), st.integers(0, 1040)), COUNTS, max_size=3),
    crossed=COUNTS,
    frozen=st.none() | st.just(Frozen({"g": 200.0, "h": 0.5}, {3: 5, 40: 2})),
)
MAPPINGS = ("epochs", "cells", "assigned", "moments", "scores", "pairs", "waits", "latencies")


@given(EVIDENCE, EVIDENCE)
def test_evidence_adds_up_in_either_order(one, other):
    assert one + other == other + one


@given(EVIDENCE, EVIDENCE, EVIDENCE)
def test_evidence_adds_up_in_any_grouping(one, two, three):
    assert (one + two) + three == one + (two + three)


@given(EVIDENCE)
def test_evidence_of_nothing_adds_nothing(evidence):
    assert evidence + Evidence() == evidence == Evidence() + evidence


@given(st.lists(EVIDENCE, max_size=5), st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_the_looks(looks, rng):
    shuffled = rng.sample(looks, len(looks))
    assert merge(shuffled).digest == merge(looks).digest


@given(EVIDENCE, st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_the_counts(evidence, rng):
    def shuffled(mapping):
        return dict(rng.sample(list(mapping.items()), len(mapping)))

    again = replace(evidence, **{name: shuffled(getattr(evidence, name)) for name in MAPPINGS})
    if evidence.frozen is not None:
        frozen = Frozen(shuffled(evidence.frozen.quantiles), shuffled(evidence.frozen.scores))
        again = replace(again, frozen=frozen)
    assert again == evidence
    assert again.digest == evidence.digest


@given(EVIDENCE, st.sampled_from(MAPPINGS[1:]))
def test_every_count_is_in_the_digest(evidence, name):
    counts = dict(getattr(evidence, name))
    if counts:
        at, more = next(iter(counts.items()))
        again = replace(evidence, **{name: {**counts, at: more + (1 if isinstance(more, int) else type(more)(1))}})
        assert again.digest != evidence.digest
    assert replace(evidence, crossed=evidence.crossed + 1).digest != evidence.digest


MATURITY = 36 * HOUR
PLAN = a_plan(
    guardrails=[
        {
            "name": "call-failed",
            "source": "runtime",
            "bad_when": [{"outcome": ["timeout", "error"]}, {"latency_ms": {"above": 200}, "outcome": "ok"}],
            "margin": "50 % relative",
            "consequence": "freeze",
        },
        {
            "name": "sure",
            "source": "proxy",
            "bad_when": [{"score": {"at_least": 0.5}}],
            "only_when": [{"origin": ["EWR", "O'Hare"], "carrier": "UA"}],
            "margin": "50 % relative",
            "slices": ["carrier"],
            "consequence": "notify",
        },
        {
            "name": "wrong-decision",
            "source": "label",
            "label": "late",
            "maturity": "36 h",
            "bad_when": [{"label": 1, "action": "none"}, {"label": {"above": 1}}],
            "margin": "15 % relative",
            "slices": ["origin", "carrier"],
            "consequence": "roll_back",
        },
        {
            "name": "refunded",
            "source": "label",
            "label": "refund",
            "maturity": "1 h",
            "bad_when": [{"label": {"at_least": 10}}],
            "only_when": [{"origin": "EWR"}, {"carrier": "AA"}],
            "margin": "15 % relative",
            "consequence": "freeze",
        },
    ],
    slices={"origin": ["EWR", "O'Hare"], "carrier": ["UA"]},
)
START, NOW = T0, T0 + 72 * HOUR
SCOPE = Scope(POINT, "r1", "champion", "challenger", START)
SNAPSHOTS = {1: (0.0, 1), 2: (0.05, 2), 3: (0.2, 3), 4: (1.0, 6)}
MICROSECOND = timedelta(microseconds=1)
#: Hours since the start: before it, at it, on the edge of maturity, at the look and after it.
MOMENTS = st.sampled_from(
    [
        START - MICROSECOND,
        START,
        START + 20 * HOUR,
        NOW - MATURITY - MICROSECOND,
        NOW - MATURITY,
        NOW - MATURITY + MICROSECOND,
        NOW - HOUR,
        NOW - HOUR + MICROSECOND,
        NOW,
        NOW + MICROSECOND,
    ]
)
DELAYS = st.sampled_from(
    [0 * HOUR, HOUR, HOUR + MICROSECOND, MATURITY - MICROSECOND, MATURITY, MATURITY + MICROSECOND, 71 * HOUR, 90 * HOUR]
)


@dataclass
class Logs:
    """Random decisions and labels."""

    decisions: list
    labels: list


@st.composite
def logs(draw):
    decisions, labels = [], []
    for at in range(draw(st.integers(0, 12))):
        number = draw(st.sampled_from([2, 2, 3, 3, 1, 4]))
        share, stage = SNAPSHOTS[number]
        row = {
            "decision_id": f"d{at}",
            "ts": draw(MOMENTS),
            "decision_point": POINT,
            "rollout_id": draw(st.sampled_from(["r1", "r1", "r1", "r2", None])),
            "snapshot_no": number,
            "stage": stage,
            "release_id": "champion",
            "arm": draw(st.sampled_from(["champion", "challenger"])),
            "share": draw(st.sampled_from([share, share, 0.0])),
            "segment": "everyone",
            "unit_key": f"u{draw(st.integers(0, 5))}",
            "feature_digest": "sha256:f",
            "score": draw(st.sampled_from([None, 0.49, 0.5, 0.9])),
            "cut_off": None,
            "rule": None,
            "action_recommended": draw(st.sampled_from([None, "none", "rebook"])),
            "action_taken": draw(st.sampled_from([None, "none", "rebook"])),
            "authority": "DECIDE",
            "latency_ms": draw(st.sampled_from([1.0, 200.0, 200.5])),
            "outcome": draw(st.sampled_from(["ok", "ok", "timeout", "error", "fallback"])),
            "feature_misses": 0,
            "origin": draw(st.sampled_from(["EWR", "O'Hare", "JFK"])),
            "carrier": draw(st.sampled_from(["UA", "AA"])),
        }
        decisions += [row] * draw(st.sampled_from([1, 1, 1, 2]))
        if draw(st.booleans()):
            copy = {**row, "arm": "shadow", "outcome": draw(st.sampled_from(["ok", "ok", "error"]))}
            copy["action_recommended"] = draw(st.sampled_from([None, "none", "rebook"]))
            copy["action_taken"] = None
            decisions += [copy] * draw(st.sampled_from([1, 1, 2]))
        labels += [
            {
                "decision_id": draw(st.sampled_from([row["decision_id"], row["decision_id"], "unknown"])),
                "name": draw(st.sampled_from(["late", "refund", "other"])),
                "value": draw(st.sampled_from([0.0, 1.0, 2.0, 10.0])),
                "fact_at": row["ts"],
                "arrived_at": row["ts"] + draw(DELAYS),
            }
            for _ in range(draw(st.integers(0, 3)))
        ]
    return Logs(decisions, labels)


def holds(conditions, row, label):
    """Return whether one condition surely holds: a missing value satisfies no term."""
    return any(all(is_met(term, row, label) for term in condition.terms) for condition in conditions)


def is_met(term, row, label):
    names = {"label": label, "action": row["action_taken"]}
    value = names[term.column] if term.column in names else row[term.column]
    if value is None:
        return False
    match term:
        case OneOf():
            return value in term.values
        case AtLeast():
            return value >= term.bound
        case Above():
            return value > term.bound


def last_label(labels, row, name, until):
    arrived = [
        k for k in labels if (k["decision_id"], k["name"]) == (row["decision_id"], name) and k["arrived_at"] <= until
    ]
    return max(arrived, key=lambda k: (k["arrived_at"], k["value"]))["value"] if arrived else None


def tally_of(guardrail, row, labels):
    if guardrail.only_when and not holds(guardrail.only_when, row, None):
        return None
    if guardrail.maturity is None:
        is_bad = holds(guardrail.bad_when, row, None)
        return Tally(1, is_bad, 1, is_bad, 1, good=not is_bad)
    closes = row["ts"] + guardrail.maturity
    is_bad = holds(guardrail.bad_when, row, last_label(labels, row, guardrail.label, NOW))
    if closes > NOW:
        return Tally(1, is_bad)
    within = last_label(labels, row, guardrail.label, closes)
    is_labelled = within is not None
    was_bad = holds(guardrail.bad_when, row, within)
    return Tally(1, is_bad, 1, was_bad, is_labelled, good=is_labelled and not is_bad)


def first_of_each_unit(rows):
    firsts = {}
    for row in sorted(rows, key=lambda row: (row["ts"], row["decision_id"])):
        firsts.setdefault(row["unit_key"], row)
    return list(firsts.values())


def counted_by_hand(logs):
    seen = [row for row in logs.decisions if row["ts"] <= NOW]
    mine = [row for row in seen if row["rollout_id"] == "r1" and row["ts"] >= START]
    epochs, assigned, cells = {}, Counter(), defaultdict(Tally)
    for row in first_of_each_unit([r for r in mine if r["arm"] != "shadow" and 0 < r["share"] < 1]):
        number, arm = row["snapshot_no"], Arm(row["arm"])
        epochs[number] = Epoch(row["share"], row["stage"])
        assigned[number, arm] += 1
        for guardrail in PLAN.guardrails:
            tally = tally_of(guardrail, row, logs.labels)
            places = [(None, None), *((c, row[c]) for c in guardrail.slices if row[c] in PLAN.slices[c])]
            for place in places if tally is not None else []:
                cells[Cell(guardrail.name, *place, number, arm)] += tally
    served = {row["decision_id"]: row for row in mine if row["arm"] != "shadow"}
    copies = [row for row in mine if row["arm"] == "shadow" and row["decision_id"] in served]
    shadow = ShadowTally()
    for copy in first_of_each_unit(copies):
        theirs = served[copy["decision_id"]]
        is_ok, was_ok = copy["outcome"] == "ok", theirs["outcome"] == "ok"
        is_flipped = copy["action_recommended"] != theirs["action_recommended"]
        shadow += ShadowTally(
            1,
            not is_ok and was_ok,
            is_ok and not was_ok,
            not (is_ok or was_ok),
            is_ok and was_ok,
            is_ok and was_ok and is_flipped,
        )
    newest = max((row["ts"] for row in seen if row["arm"] != "shadow"), default=None)
    return Evidence(newest, epochs, dict(cells), dict(assigned), shadow)


def written(logs, root, batches=1):
    attributes = ("origin", "carrier")
    for at in range(batches):
        writer = LogWriter(root, POINT, attributes)
        for row in logs.decisions[at::batches]:
            writer.decision(row)
        for row in logs.labels[at::batches]:
            writer.label(row)
        writer.flush()


def counts(evidence):
    """Return the evidence without cells that count nothing, which says the same."""
    cells = {cell: tally for cell, tally in evidence.cells.items() if tally != Tally()}
    plain = Evidence(evidence.newest, evidence.epochs, cells, evidence.assigned, evidence.shadow)
    return {f.name: getattr(plain, f.name) for f in fields(Evidence)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(logs(), st.integers(1, 3))
def test_a_look_counts_what_a_count_by_hand_counts(logs, batches):
    with tempfile.TemporaryDirectory() as folder:
        written(logs, Path(folder), batches)
        look = ParquetLogs(Path(folder)).look(PLAN, SCOPE, now=NOW)
        assert counts(look) == counts(counted_by_hand(logs))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(logs(), st.randoms())
def test_a_look_does_not_depend_on_the_order_of_the_rows(logs, rng):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        written(logs, Path(one))
        written(
            Logs(rng.sample(logs.decisions, len(logs.decisions)), rng.sample(logs.labels, len(logs.labels))),
            Path(other),
        )
        digests = {ParquetLogs(Path(root)).look(PLAN, SCOPE, now=NOW).digest for root in (one, other)}
        assert len(digests) == 1
