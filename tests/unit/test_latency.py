import asyncio
import json
import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from builders import STAGES, T0, a_plan, a_release

from seatrial.adapters.load import LatencyExaminer, SubprocessWorker, this_machine
from seatrial.adapters.load.driving import Sent, arrivals, drive, drive_server
from seatrial.adapters.load.working import run_here, summary
from seatrial.adapters.scoring import NOTHING
from seatrial.errors import InvalidDocumentError, RefusedError
from seatrial.gates.latency import FoundMachine, Run, latency, machine
from seatrial.ports import Case, Registered
from seatrial.stats.quantiles import quantile, quantile_bounds
from seatrial.units import digest_bytes
from seatrial.verdict import Verdict

ASK = {"rate_per_s": 50, "duration": "20 s", "machine": {"cores": 2, "memory_mb": 8000}}
HERE = FoundMachine(2.0, 8000.0, "AMD EPYC 7763")


def asked(**changes):
    plan = a_plan(stages=[{**STAGES[0], "latency": {**ASK, **changes}}, *STAGES[1:]])
    return plan, plan.gates.asked()["latency"]


def a_run(p99=10.0, *, count=1_000, **changes):
    """Return a run of which one request in fifty takes `p99`."""
    values = np.full(count, p99 / 10)
    values[::50] = p99
    return Run(values, **{"peak_mb": 100.0, **changes})


def found(*runs, champion=(), limits=None, **ask):
    limits = limits or a_release().limits
    return {f.subject: f for f in latency(list(runs), list(champion), limits, asked(**ask)[1])}


def p99(*runs):
    return found(*runs)["latency · p99"].verdict


def test_a_release_within_its_limits_passes():
    assert {f.verdict for f in found(a_run(), a_run(), a_run()).values()} == {Verdict.PASS}


@pytest.mark.parametrize(
    ("each", "verdict"),
    [
        ((10, 12, 50), Verdict.PASS),
        ((51, 60, 90), Verdict.FAIL),
        ((10, 12, 51), Verdict.INCONCLUSIVE),
        ((49, 60, 90), Verdict.INCONCLUSIVE),
    ],
)
def test_every_run_is_on_the_same_side_of_the_limit_or_nobody_can_tell(each, verdict):
    assert p99(*(a_run(float(value)) for value in each)) is verdict


def test_too_few_requests_do_not_tell():
    few = [a_run(count=140), a_run(count=140)]
    assert p99(*few) is Verdict.INCONCLUSIVE
    assert p99(*few, a_run(count=140)) is Verdict.PASS


def test_p99_just_below_the_limit_in_every_run_does_not_tell_when_chance_allows_more():
    values = np.full(500, 10.0)
    values[:5] = 60.0
    assert [Run(values).p99_ms] * 2 == [10.0, 10.0]
    assert p99(Run(values, peak_mb=1.0), Run(values, peak_mb=1.0)) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_latency_that_is_no_number_is_no_pass(value):
    assert p99(*[Run(np.full(1_000, value), peak_mb=1.0)] * 2) is not Verdict.PASS


def test_no_run_is_no_pass():
    assert Verdict.PASS not in {f.verdict for f in found().values()}
    nothing = found(Run(np.empty(0)), Run(np.empty(0)))
    assert nothing["latency · answers"].verdict is Verdict.ERROR
    assert nothing["latency · p99"].verdict is Verdict.INCONCLUSIVE


def test_a_machine_that_was_busy_says_nothing_about_the_release():
    slow = [a_run(90.0, lateness_ms=26.0), a_run(90.0)]
    assert p99(*slow) is Verdict.INCONCLUSIVE
    assert p99(*[a_run(90.0, lateness_ms=24.0)] * 2) is Verdict.FAIL


def test_one_request_without_a_score_fails():
    assert found(a_run(failed=1), a_run())["latency · answers"].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("peaks", "verdict"),
    [
        ((100.0, 512.0), Verdict.PASS),
        ((100.0, 513.0), Verdict.FAIL),
        ((100.0, None), Verdict.INCONCLUSIVE),
    ],
)
def test_memory_stays_within_its_limit_in_every_run_and_a_servers_is_unknown(peaks, verdict):
    runs = [a_run(peak_mb=peak) for peak in peaks]
    assert found(*runs)["latency · memory"].verdict is verdict


@pytest.mark.parametrize(
    ("challenger", "verdict"),
    [((10, 20), Verdict.PASS), ((31, 40), Verdict.FAIL), ((10, 40), Verdict.INCONCLUSIVE)],
)
def test_the_champion_of_the_same_run_is_the_measure(challenger, verdict):
    runs = [a_run(float(value)) for value in challenger]
    compared = found(*runs, champion=[a_run(20.0), a_run(20.0)], max_ratio=1.5)
    assert compared["latency · p99 against champion"].verdict is verdict


@pytest.mark.parametrize(
    ("here", "changes", "verdict"),
    [
        (HERE, {}, Verdict.PASS),
        (FoundMachine(2.0, 8700.0, ""), {}, Verdict.PASS),
        (FoundMachine(4.0, 8000.0, ""), {}, Verdict.INCONCLUSIVE),
        (FoundMachine(1.5, 8000.0, ""), {}, Verdict.INCONCLUSIVE),
        (FoundMachine(2.0, 16000.0, ""), {}, Verdict.INCONCLUSIVE),
        (HERE, {"processor": "epyc"}, Verdict.PASS),
        (HERE, {"processor": "Xeon"}, Verdict.INCONCLUSIVE),
        (FoundMachine(2.0, 8000.0, ""), {"processor": "epyc"}, Verdict.INCONCLUSIVE),
    ],
)
def test_figures_of_another_machine_say_nothing(here, changes, verdict):
    _, ask = asked(machine={**ASK["machine"], **changes})
    assert machine(here, ask).verdict is verdict


@dataclass
class ScriptedWorker:
    """Runs as a test sets them, by the name of the release."""

    p99_ms: dict[str, float]
    asked: list[tuple[str, int]] = field(default_factory=list)

    def run(self, registered, _ask, *, seed):
        self.asked.append((registered.release.name, seed))
        return a_run(self.p99_ms[registered.release.name])


def a_case(**changes):
    plan, ask = asked(**changes)
    releases = [Registered(a_release(name), None, T0) for name in ("challenger", "champion")]
    return Case("latency", ask, plan, *releases)


def test_both_releases_take_turns_under_the_same_load():
    worker = ScriptedWorker({"challenger": 10.0, "champion": 20.0})
    answers = LatencyExaminer(worker, lambda: HERE).examine(a_case(max_ratio=1.0, runs=2))
    assert {f.verdict for f in answers} == {Verdict.PASS}
    assert worker.asked == [("champion", 0), ("challenger", 0), ("challenger", 1), ("champion", 1)]


def test_on_another_machine_nothing_is_run():
    worker = ScriptedWorker({})
    (answer,) = LatencyExaminer(worker, lambda: FoundMachine(4.0, 8000.0, "")).examine(a_case())
    assert (answer.verdict, worker.asked) == (Verdict.INCONCLUSIVE, [])


def test_the_answer_of_one_machine_is_not_that_of_another():
    machines = iter([HERE, HERE, FoundMachine(2.0, 8001.0, "")])
    examiner = LatencyExaminer(ScriptedWorker({}), lambda: next(machines))
    first, again, other = (examiner.reads(a_case()) for _ in range(3))
    assert first == again != other


def test_the_gate_is_asked_alone_for_what_runs_beside_it_would_be_measured():
    assert asked()[1].is_alone


@dataclass
class ScriptedTimer:
    """A clock that only moves when somebody waits or works."""

    moment: float = 100.0

    def now(self):
        return self.moment

    def wait_until(self, moment):
        self.moment = max(self.moment, moment)


def test_a_slow_answer_delays_those_behind_it_and_each_counts_from_when_it_was_due():
    timer = ScriptedTimer()
    takes = [0.001, 0.500, 0.001, 0.001]

    def ask(number):
        timer.moment += takes[number]
        return number != 3

    sent = drive(ask, [0.0, 0.1, 0.2, 1.0], timer)
    assert [round(each.latency_ms, 6) for each in sent] == [1.0, 500.0, 401.0, 1.0]
    assert [each.is_answered for each in sent] == [True, True, True, False]
    # The third stood in the queue: that is the release's doing and not the machine's.
    assert [each.lateness_ms if each.lateness_ms is None else round(each.lateness_ms, 6) for each in sent] == [
        0.0,
        0.0,
        None,
        0.0,
    ]


def test_a_driver_that_wakes_up_late_tells():
    timer = ScriptedTimer()
    timer.wait_until = lambda moment: setattr(timer, "moment", max(timer.moment, moment) + 0.02)
    (sent,) = drive(lambda _: True, [1.0], timer)
    assert (round(sent.lateness_ms, 6), round(sent.latency_ms, 6)) == (20.0, 20.0)


def test_requests_to_a_server_do_not_wait_for_one_another():
    async def drive_three():
        together = asyncio.Barrier(3)

        async def ask(_number):
            # Each ends when all are under way, which would never be were they asked in turn.
            await together.wait()
            return True

        return await drive_server(ask, [0.0, 0.0, 0.0])

    assert [each.is_answered for each in asyncio.run(drive_three())] == [True] * 3


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_gaps_between_arrivals_are_exponential_whatever_the_seed(seed):
    gaps = np.diff([0.0, *arrivals(200.0, 50.0, seed=seed)])
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_the_warm_up_does_not_count():
    sent = [Sent(0.5, 900.0, 500.0, False), Sent(1.0, 2.0, 0.25, True), Sent(1.5, 3.0, None, True)]
    run = summary(sent, warm_up_s=1.0, peak_mb=7.0)
    assert (run.latencies_ms.tolist(), run.failed, run.lateness_ms, run.peak_mb) == ([2.0, 3.0], 0, 0.25, 7.0)


@pytest.mark.parametrize("seed", [11, 12])
def test_bounds_of_a_quantile_hold_as_often_as_they_say(seed):
    rng = np.random.default_rng(seed)
    true = -math.log(0.01)
    bounds = [quantile_bounds(rng.exponential(size=1_000), 0.99, error=0.05) for _ in range(2_000)]
    low, high = np.array(bounds).T
    # Standard error of a share of 5 % over 2,000 draws: 0.5 %.
    assert 0.01 < (low > true).mean() < 0.065
    assert 0.01 < (high < true).mean() < 0.065


def test_a_quantile_of_nothing_is_no_number():
    assert math.isnan(quantile([], 0.99))
    assert quantile_bounds([], 0.99, error=0.05) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"duration": "2 s"}, "expected at least 448"),
        ({"rate_per_s": 9_999, "duration": "10 min"}, "expected at most 1000000"),
        ({"runs": 1}, "runs"),
        ({"machine": {"cores": 0, "memory_mb": 1}}, "cores"),
    ],
)
def test_a_load_that_could_never_tell_is_refused(changes, said):
    with pytest.raises(InvalidDocumentError, match=said):
        asked(**changes)


def test_this_machine_has_cores_and_memory():
    here = this_machine()
    assert here.cores > 0
    assert here.memory_mb > 0


@pytest.fixture
def registered(tmp_path):
    lightgbm = pytest.importorskip("lightgbm")
    x = np.linspace(0.0, 1.0, 200).reshape(-1, 1)
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    dataset = lightgbm.Dataset(x, (x[:, 0] > 0.5).astype(float), feature_name=["distance"])
    content = lightgbm.train(settings, dataset, num_boost_round=3).model_to_string().encode()
    (tmp_path / "model.txt").write_bytes(content)
    examples = [{"features": {"distance": value}, "score": 0.5} for value in (0.1, None)]
    (tmp_path / "evaluation.json").write_text(json.dumps({"examples": examples}))
    model = {"artifact": "model.txt", "digest": digest_bytes(content), "format": "lightgbm-text"}
    return Registered(a_release(model=model), tmp_path, T0)


def test_a_release_is_run_in_a_process_of_its_own_with_as_many_requests_as_are_due(registered):
    _, ask = asked(rate_per_s=100, duration="1 s", warm_up="0.5 s", runs=5)
    run = SubprocessWorker().run(registered, ask, seed=3)
    due = [moment for moment in arrivals(100.0, 1.5, seed=3) if moment >= 0.5]
    assert (len(run.latencies_ms), run.failed) == (len(due), 0)
    assert run.peak_mb > 0
    assert (run.latencies_ms > 0).all()


def test_a_score_outside_the_contract_is_no_answer(registered):
    output = {"kind": "probability", "range": [0.99, 1.0], "positive": "late"}
    cut_offs = {"default": [{"action": "rebook", "at_least": 0.99}]}
    policy = {**a_release().document()["policy"], "cut_offs": cut_offs}
    release = a_release(model=registered.release.document()["model"], output=output, policy=policy)
    load = {"rate_per_s": 50.0, "seconds": 0.2, "warm_up_s": 0.0, "seed": 1}
    run = run_here(release, registered.location, NOTHING, load)
    assert run.failed == len(run.latencies_ms) > 0


def test_a_release_that_does_not_load_is_not_run(registered):
    (registered.location / "model.txt").write_bytes(b"another")
    _, ask = asked(rate_per_s=100, duration="1 s", warm_up="1 s", runs=5)
    with pytest.raises(RefusedError, match="TamperedError"):
        SubprocessWorker().run(registered, ask, seed=1)


def test_a_report_without_examples_leaves_nothing_to_ask_for(registered):
    (registered.location / "evaluation.json").write_text("{}")
    load = {"rate_per_s": 50.0, "seconds": 0.2, "warm_up_s": 0.0, "seed": 1}
    with pytest.raises(RefusedError, match="no examples"):
        run_here(registered.release, registered.location, NOTHING, load)


def test_a_case_of_another_gate_is_not_answered():
    with pytest.raises(Exception, match="latency"):
        LatencyExaminer(ScriptedWorker({}), lambda: HERE).examine(
            Case("other", SimpleNamespace(), a_plan(), None, None)
        )
