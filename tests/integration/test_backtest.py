"""Plans that are replayed over logs on disk, by the control plane and the reader of logs that production has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from builders import DAY, HOUR, PLAN, POINT, T0, a_plan

from seatrial.adapters.logs import LogWriter
from seatrial.backtest import End, Replay, backtest, default_start, document, read_experiment, read_pair
from seatrial.cli import main
from seatrial.errors import InvalidDocumentError
from seatrial.evidence import Arm
from seatrial.rollout import State

CHAMPION, CHALLENGER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PER_DAY, DAYS = 600, 14
#: The champion decides so often wrongly.
WRONG = 0.15
STAGES = [
    {"stage": "gates", "bounds": [{"metric": "log_loss", "at_most": 0.6}], "probe_max_age": "1 d", "parts": {}},
    {"stage": "shadow", "soak": "1 d", "deadline": "4 d", "min_units": 300, "max_flip_rate": "60 %"},
    {"stage": "canary", "share": "20 %", "soak": "1 d", "deadline": "6 d"},
    {"stage": "canary", "share": "50 %", "soak": "1 d", "deadline": "6 d"},
    {"stage": "labels", "deadline": "8 d"},
    {"stage": "approval", "expires": "3 d"},
    {"stage": "promotion", "holdback": "10 %", "watch": "12 h"},
]
GUARDRAIL = {**PLAN["guardrails"][1], "maturity": "6 h", "margin": "50 % relative", "weight": 1}
CHANGES = {"stages": STAGES, "guardrails": [GUARDRAIL]}
#: More draws of equal releases are rolled back in one of 170 sets of eight, at a budget of 5 %.
DRAWS, MOST_ROLLED_BACK = 4, 2


@dataclass(frozen=True)
class Traffic:
    """Requests with what both releases would do, and what is true."""

    at: list
    late: np.ndarray
    is_wrong: np.ndarray  #: by release
    is_challengers: np.ndarray  #: of the experiment

    @classmethod
    def of(cls, ratio, *, seed=3, days=DAYS):
        chance = np.random.default_rng(seed)
        size = PER_DAY * days
        at = [T0 + timedelta(seconds=float(s)) for s in np.sort(chance.uniform(0, days * 86_400, size))]
        wrong = np.stack([chance.random(size) < WRONG, chance.random(size) < WRONG * ratio])
        return cls(at, chance.random(size) < 0.4, wrong, chance.random(size) < 0.5)

    def row(self, number, release, **changes):
        action = "rebook" if self.late[number] != self.is_wrong[release, number] else "none"
        row = {
            "decision_id": f"d{number}",
            "ts": self.at[number],
            "decision_point": POINT,
            "rollout_id": None,
            "snapshot_no": 7,
            "stage": 0,
            "release_id": (CHAMPION, CHALLENGER)[release],
            "arm": ("champion", "challenger")[release],
            "share": 0.5,
            "segment": "everyone",
            "unit_key": f"u{number}",
            "feature_digest": "none",
            "score": 0.5,
            "action_recommended": action,
            "action_taken": action,
            "authority": "DECIDE",
            "latency_ms": 1.0,
            "outcome": "ok",
            "feature_misses": 0,
            "origin": ("EWR", "JFK")[number % 2],
        }
        return {**row, **changes}

    def label(self, number):
        arrived = self.at[number] + HOUR
        value = float(self.late[number])
        return {"decision_id": f"d{number}", "name": "late", "value": value, "fact_at": arrived, "arrived_at": arrived}

    def experiment(self, root, **changes):
        numbers = range(len(self.at))
        rows = [self.row(number, int(self.is_challengers[number]), **changes) for number in numbers]
        return write(root, rows, map(self.label, numbers))

    def pair(self, folder, *, shares=0.0):
        numbers = range(len(self.at))
        roots = []
        for release, name in enumerate(("champion", "challenger")):
            rows = [self.row(number, release, arm="champion", share=shares) for number in numbers]
            roots.append(write(folder / name, rows, map(self.label, numbers) if release == 0 else ()))
        return roots


def write(root, rows, labels=()):
    writer = LogWriter(root, POINT, ("origin",))
    for row in rows:
        writer.decision(row)
    for label in labels:
        writer.label(label)
    writer.flush()
    return root


def played(requests, folder, *, plan=None, repeats=DRAWS, **changes):
    plan = plan or a_plan(**CHANGES)
    replay = Replay(plan, requests, default_start(plan, requests), requests.last, 12 * HOUR, **changes)
    return backtest(replay, seed=1, repeats=repeats, folder=folder)


def ends(found):
    return [play.ending.end for play in found.plays]


@pytest.fixture(scope="module")
def equal(tmp_path_factory):
    """Both kinds of log of a challenger that is as good, replayed."""
    return both(Traffic.of(1.0), tmp_path_factory.mktemp("equal"), repeats=DRAWS)


@pytest.fixture(scope="module")
def harmful(tmp_path_factory):
    """Both kinds of log of a challenger that is wrong twice as often, replayed."""
    return both(Traffic.of(2.0), tmp_path_factory.mktemp("harmful"), repeats=2)


def both(traffic, folder, *, repeats):
    plan = a_plan(**CHANGES)
    experiment = read_experiment(plan, traffic.experiment(folder / "experiment"))
    pair = read_pair(plan, *traffic.pair(folder))
    return (
        played(experiment, folder / "drawn", repeats=repeats),
        played(pair, folder / "assigned", repeats=repeats),
    )


def test_a_challenger_that_is_as_good_is_not_rolled_back_beyond_the_budget(equal):
    found = [end for each in equal for end in ends(each)]
    assert len(found) == 2 * DRAWS
    assert sum(end in (End.ROLLED_BACK, End.DEMOTED) for end in found) <= MOST_ROLLED_BACK
    assert found.count(End.PROMOTED) > DRAWS


def test_a_challenger_with_twice_the_bad_rate_is_rolled_back(harmful):
    assert {end for each in harmful for end in ends(each)} == {End.ROLLED_BACK}
    for play in [play for each in harmful for play in each.plays]:
        assert play.ending.excess["wrong-decision"] > 0
        assert 0 < play.ending.exposed < PER_DAY * DAYS / 2


def test_both_kinds_of_log_of_one_generator_end_alike(equal, harmful):
    for drawn, assigned in (equal, harmful):
        often = [max(End, key=ends(each).count) for each in (drawn, assigned)]
        assert often[0] is often[1]


def test_only_requests_that_both_answered_replay_the_shadow(equal):
    drawn, assigned = (
        {made.before: made.reason for made in each.plays[0].moves if made.before is not None} for each in equal
    )
    assert "not replayed, assumed passed" in drawn[State.GATES] == assigned[State.GATES]
    assert "not replayed, assumed passed" in drawn[State.SHADOW]
    assert assigned[State.SHADOW].startswith("shadow: ")
    assert assigned[State.SHADOW].endswith("findings, all PASS")


def test_the_same_seed_is_the_same_backtest_and_other_draws_are_others(harmful, tmp_path):
    drawn = harmful[0]
    again = backtest(drawn.replay, seed=1, repeats=1, folder=tmp_path / "again")
    assert again.plays[0].ending == drawn.plays[0].ending
    assert drawn.plays[0].ending != drawn.plays[1].ending


def test_processes_play_what_one_process_plays(harmful, tmp_path):
    apart = backtest(harmful[0].replay, seed=1, repeats=2, folder=tmp_path, jobs=2)
    assert document(apart) == document(harmful[0])


def test_a_no_of_the_assumed_person_ends_the_rollout(equal, tmp_path):
    requests = equal[0].replay.requests
    stages = [*STAGES[:2], {"stage": "approval", "expires": "1 d"}, *STAGES[2:]]
    refused = played(requests, tmp_path, plan=a_plan(**{**CHANGES, "stages": stages}), repeats=1, is_approved=False)
    assert ends(refused) == [End.REJECTED]
    assert "assumed no" in refused.plays[0].ending.reason
    assert refused.plays[0].ending.exposed == 0


def test_a_log_that_ends_before_a_decision_decides_nothing(tmp_path):
    short = Traffic.of(1.0, days=1)
    found = played(read_experiment(a_plan(**CHANGES), short.experiment(tmp_path / "log")), tmp_path, repeats=1)
    assert ends(found) == [End.OVER]
    assert found.plays[0].ending.reason.startswith("the log ends; open: ")


def test_a_plan_for_one_segment_counts_its_units_alone_and_never_promotes(tmp_path):
    traffic = Traffic.of(1.0, days=6)
    numbers = range(len(traffic.at))
    segments = ["commuter" if number % 2 else "everyone" for number in numbers]
    rows = [traffic.row(n, int(traffic.is_challengers[n]), segment=segments[n]) for n in numbers]
    root = write(tmp_path / "log", rows, map(traffic.label, numbers))
    guardrail = {**GUARDRAIL, "margin": "200 % relative"}
    plan = a_plan(segment="commuter", stages=STAGES[:5], guardrails=[guardrail])
    requests = read_experiment(plan, root)
    assert requests.takes_part.tolist() == [name == "commuter" for name in segments]
    assert ends(played(requests, tmp_path / "played", plan=plan, repeats=1)) == [End.PASSED]


@pytest.fixture
def few():
    return Traffic.of(1.0, days=1)


def problems_of(read, *arguments, **options):
    with pytest.raises(InvalidDocumentError) as refused:
        read(a_plan(**CHANGES), *arguments, **options)
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_a_log_in_which_nothing_was_drawn_at_random_is_refused(few, tmp_path, share):
    root = few.experiment(tmp_path)
    rewritten(root, share=lambda column: pa.array([share] * len(column), pa.float64()))
    (problem,) = problems_of(read_experiment, root)
    assert "nothing was drawn at random" in problem
    assert "such a comparison proves nothing" in problem


def rewritten(root, **columns):
    """Replace columns of a log by what a function makes of each; one of None is taken out."""
    for path in (root / "decisions").rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        for name, make in columns.items():
            at = table.schema.get_field_index(name)
            table = table.remove_column(at) if make is None else table.set_column(at, name, make(table[name]))
        pq.write_table(table, path)


def test_two_releases_in_different_periods_are_refused_although_they_name_a_probability(few, tmp_path):
    half = len(few.at) // 2
    root = write(tmp_path, [few.row(n, int(n >= half)) for n in range(len(few.at))], [few.label(0)])
    (problem,) = problems_of(read_experiment, root)
    assert "found one release until 2013-06-01 and the other one from 2013-06-01" in problem


def test_requests_that_were_drawn_one_by_one_are_refused(few, tmp_path):
    rows = [few.row(number, number % 2, unit_key=f"u{number // 2}") for number in range(400)]
    (problem,) = problems_of(read_experiment, write(tmp_path, rows, [few.label(0)]))
    assert "found 200 units in both arms of one assignment" in problem


def test_everything_that_the_plan_needs_and_the_log_lacks_is_said_at_once(few, tmp_path):
    root = write(tmp_path, [few.row(number, number % 2) for number in range(100)])
    rewritten(root, origin=None)
    found = problems_of(read_experiment, root)
    assert any("no column origin" in problem for problem in found)
    assert any("no label 'late' of any of these decisions" in problem for problem in found)


def test_a_pair_that_lacks_a_column_is_refused_for_each_log_that_lacks_it(few, tmp_path):
    roots = [write(tmp_path / str(side), [few.row(n, side) for n in range(100)], [few.label(0)]) for side in (0, 1)]
    for root in roots:
        rewritten(root, origin=None)
    found = problems_of(read_pair, *roots)
    assert [problem.partition(" ")[0] for problem in found] == ["--challenger-log", "--champion-log"]
    assert all("no column origin" in problem for problem in found)


def test_a_directory_without_the_decision_point_is_refused_with_those_it_has(tmp_path):
    (tmp_path / "decisions" / "decision_point=card-fraud").mkdir(parents=True)
    (problem,) = problems_of(read_experiment, tmp_path)
    assert "no decision log of 'flight-delay'" in problem
    assert "card-fraud" in problem


def test_times_without_a_zone_are_refused(few, tmp_path):
    root = write(tmp_path, [few.row(number, number % 2) for number in range(100)], [few.label(0)])
    rewritten(root, ts=lambda column: column.cast(pa.timestamp("us")))
    assert any("ts without a zone" in problem for problem in problems_of(read_experiment, root))


def test_of_several_releases_one_must_be_named_and_the_others_are_left_out(few, tmp_path):
    other = "sha256:" + "c" * 64
    rows = [few.row(n, n % 2, **({"release_id": other} if n % 10 == 1 else {})) for n in range(200)]
    root = write(tmp_path, rows, map(few.label, range(200)))
    (problem,) = problems_of(read_experiment, root)
    assert "2 releases" in problem
    assert "--challenger ID" in problem
    assert any("0 releases that 'd' names" in each for each in problems_of(read_experiment, root, challenger="d"))
    requests = read_experiment(a_plan(**CHANGES), root, challenger="bbb")
    assert requests.answers[Arm.CHALLENGER].release_id == CHALLENGER
    assert requests.left_out == {"rows of other releases": 20}


def test_rows_that_were_not_drawn_are_counted_and_take_no_part(few, tmp_path):
    rows = [few.row(n, n % 2, **({"share": 0.0, "arm": "champion"} if n % 4 == 0 else {})) for n in range(200)]
    requests = read_experiment(a_plan(**CHANGES), write(tmp_path, rows, map(few.label, range(200))))
    assert requests.left_out == {"rows that were not drawn at random": 50}
    assert int(requests.takes_part.sum()) == 150


def test_another_column_may_hold_the_probability(few, tmp_path):
    root = few.experiment(tmp_path)
    rewritten(root, score=lambda column: pa.array([0.25] * len(column)))
    requests = read_experiment(a_plan(**CHANGES), root, propensity="score")
    assert set(requests.propensity.tolist()) == {0.25}
    assert any("no column chance" in each for each in problems_of(read_experiment, root, propensity="chance"))


def test_releases_that_answered_other_requests_are_refused(few, tmp_path):
    logs = [
        write(tmp_path / name, [few.row(n, side) for n in range(side * 90, side * 90 + 100)], [few.label(95)])
        for side, name in enumerate(("champion", "challenger"))
    ]
    (problem,) = problems_of(read_pair, *logs)
    assert "found 10 of 190 units in both logs" in problem
    assert "such a comparison proves nothing" in problem


def test_the_same_units_in_other_weeks_are_other_requests(few, tmp_path):
    champion = write(tmp_path / "champion", [few.row(n, 0) for n in range(100)], [few.label(0)])
    later = [few.row(n, 1, ts=few.at[n] + 30 * DAY, decision_id=f"later{n}") for n in range(100)]
    (problem,) = problems_of(read_pair, champion, write(tmp_path / "challenger", later))
    assert "found 0 of 100 units in both logs" in problem
    assert "2013-07-01" in problem


def test_units_that_one_log_lacks_are_left_out_and_counted(few, tmp_path):
    champion = write(tmp_path / "champion", [few.row(n, 0) for n in range(100)], map(few.label, range(100)))
    challenger = write(tmp_path / "challenger", [few.row(n, 1) for n in range(4, 100)])
    requests = read_pair(a_plan(**CHANGES), champion, challenger)
    assert requests.at.size == 96
    assert requests.left_out == {"units that only one log has": 4}


def test_a_shadow_log_is_a_pair_in_one_directory_and_its_copies_count_as_taken(few, tmp_path):
    copies = [few.row(n, 1, arm="shadow", action_taken=None) for n in range(100)]
    root = write(tmp_path, [*(few.row(n, 0) for n in range(100)), *copies], map(few.label, range(100)))
    assert any("2 releases" in each for each in problems_of(read_pair, root, root))
    requests = read_pair(a_plan(**CHANGES), root, root, champion="a", challenger="b")
    taken = requests.answers[Arm.CHALLENGER].rows["action_taken"].to_pylist()
    assert taken == [few.row(n, 1)["action_taken"] for n in range(100)]


def test_a_label_is_taken_from_either_log_and_the_releases_own_comes_first(few, tmp_path):
    own = {**few.label(0), "value": 5.0}
    champion = write(tmp_path / "champion", [few.row(n, 0) for n in range(100)], map(few.label, range(100)))
    challenger = write(tmp_path / "challenger", [few.row(n, 1) for n in range(100)], [own])
    answers = read_pair(a_plan(**CHANGES), champion, challenger).answers
    by_id = [
        dict(zip(*(each.labels.rows[c].to_pylist() for c in ("decision_id", "value")), strict=True))
        for each in answers.values()
    ]
    assert by_id[0] == {f"d{n}": few.label(n)["value"] for n in range(100)}
    assert by_id[1] == by_id[0] | {"d0": 5.0}


def test_the_command_prints_the_same_json_twice_and_writes_a_plot(few, tmp_path, capsys):
    root = few.experiment(tmp_path / "log")
    document = {**PLAN, **CHANGES}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(document))))
    words = ["backtest", str(tmp_path / "plan.yaml"), "--log", str(root), "--repeats", "1", "--json"]
    said = []
    for _ in range(2):
        assert main([*words, "--plot", str(tmp_path / "plot.png")]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert json.loads(said[0])["ends"]["log over before a decision"] == 1
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_refuses_a_rhythm_longer_than_the_lease_and_an_empty_stretch_at_once(few, tmp_path, capsys):
    root = few.experiment(tmp_path / "log")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(json.loads(json.dumps({**PLAN, **CHANGES}))))
    late = ["--every", "2 d", "--start", "2014-01-01T00:00:00+00:00"]
    assert main(["backtest", str(tmp_path / "plan.yaml"), "--log", str(root), *late]) == 2
    said = capsys.readouterr().err
    assert "expected at most the lease, 12 h" in said
    assert "expected some log between" in said
