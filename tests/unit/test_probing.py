import json
import math
import pickle
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
import skl2onnx
from builders import T0, a_release
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression

from seatrial.adapters import scoring
from seatrial.adapters.isolated import Isolation
from seatrial.adapters.probing import SubprocessProbe, probe_here
from seatrial.adapters.scoring import Runtimes
from seatrial.errors import InvalidDocumentError, RefusedError, TamperedError, UnavailableError
from seatrial.ports import Registered
from seatrial.units import digest_bytes
from seatrial.verdict import Verdict

POLICY = {**a_release().document()["policy"], "cut_offs": {"default": [{"action": "rebook", "at_least": 0.0}]}}
DEADLINE_S = 60.0


def written(folder, content, examples=(), *, kind="lightgbm-text", runtime=None, **changes):
    """Write an artifact with its report, and return the release that names them."""
    (folder / "model.txt").write_bytes(content)
    (folder / "evaluation.json").write_text(json.dumps({"examples": list(examples)}))
    model = {"artifact": "model.txt", "digest": digest_bytes(content), "format": kind}
    engine = scoring.ENGINES.get(kind, kind)
    runtime = {"engine": engine, "version": ENGINE_VERSIONS.get(engine, "1"), "python": PYTHON, **(runtime or {})}
    return a_release(model=model, runtime=runtime, **{"limits": ROOMY, **changes})


#: More memory than a process of tests ever holds, for what is loaded in it.
ROOMY = {"p99_ms": 50, "timeout_ms": 60_000, "memory_mb": 100_000}
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
ENGINE_VERSIONS = {name: version(name) for name in ("lightgbm", "onnxruntime")}


@pytest.fixture(scope="module")
def trained():
    """Return a small model as text and the scores of two examples."""
    lightgbm = pytest.importorskip("lightgbm")
    x = np.linspace(0.0, 1.0, 200).reshape(-1, 1)
    data = lightgbm.Dataset(x, (x[:, 0] > 0.5).astype(float), feature_name=["distance"])
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    model = lightgbm.train(settings, data, num_boost_round=3).model_to_string()
    scorer = scoring.LightGbmScorer(model, ("distance",))
    return model.encode(), [{"features": {"distance": d}, "score": scorer.score({"distance": d})} for d in (0.1, 0.9)]


def probed(folder, trained, examples, **changes):
    return written(folder, trained[0], examples, **changes)


def load_finding(release, folder, runtimes=scoring.NOTHING):
    return probe_here(release, folder, runtimes)[0]


def test_an_artifact_that_is_not_the_declared_one_is_never_loaded(tmp_path):
    release = a_release()
    with pytest.raises(UnavailableError, match="restore the artifact"):
        scoring.load_scorer(release, tmp_path)
    (tmp_path / "model.txt").write_bytes(b"another")
    with pytest.raises(TamperedError, match="expected sha256:"):
        scoring.load_scorer(release, tmp_path)


def test_an_unknown_format_is_refused_before_it_is_opened(tmp_path):
    with pytest.raises(RefusedError, match="expected one of lightgbm-text, onnx, pickle"):
        scoring.load_scorer(written(tmp_path, b"x", kind="joblib"), tmp_path)


def test_a_format_that_the_declared_engine_does_not_read_is_refused(tmp_path, trained):
    release = probed(tmp_path, trained, trained[1], runtime={"engine": "onnxruntime"})
    with pytest.raises(RefusedError, match="expected lightgbm; correct the manifest"):
        scoring.load_scorer(release, tmp_path)


class Touches:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_is_refused_before_it_is_opened(tmp_path):
    left = tmp_path / "left"
    release = written(tmp_path, pickle.dumps(Touches(left)), kind="pickle")
    with pytest.raises(RefusedError, match="a pickle, which is code"):
        scoring.load_scorer(release, tmp_path)
    assert load_finding(release, tmp_path).verdict is Verdict.FAIL
    assert not left.exists()


class Half:
    """A model that scores half of its only column."""

    def predict(self, matrix):
        return matrix[:, 0] / 2


def test_a_pickle_is_opened_when_exactly_its_bytes_are_trusted(tmp_path):
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    content = pickle.dumps(model)
    scored = float(model.predict_proba([[0.5]])[0, 1])
    release = written(tmp_path, content, [{"features": {"distance": 0.5}, "score": scored}], kind="pickle")
    trusted = Runtimes(trusted=frozenset({digest_bytes(content)}))
    assert [f.verdict for f in SubprocessProbe(trusted).probe(Registered(release, tmp_path, T0))] == [Verdict.PASS] * 2
    other = Runtimes(trusted=frozenset({digest_bytes(content + b".")}))
    assert load_finding(release, tmp_path, other).verdict is Verdict.FAIL


def test_a_pickle_of_another_python_says_nothing_about_the_declared_one(tmp_path):
    content = pickle.dumps(Half())
    example = {"features": {"distance": 0.5}, "score": 0.25}
    release = written(tmp_path, content, [example], kind="pickle", runtime={"python": "2.7"})
    loaded, engine = probe_here(release, tmp_path, Runtimes(trusted=frozenset({digest_bytes(content)})))
    assert (loaded.verdict, engine.verdict) == (Verdict.PASS, Verdict.ERROR)


def test_a_release_that_scores_its_examples_as_reported_passes_the_probe(tmp_path, trained):
    release = probed(tmp_path, trained, trained[1], limits={**ROOMY, "memory_mb": 512})
    loaded, engine = SubprocessProbe().probe(Registered(release, tmp_path, T0))
    assert (loaded.verdict, loaded.numbers["examples"]) == (Verdict.PASS, 2)
    assert 0 < loaded.numbers["peak_mb"] <= loaded.numbers["memory_mb"] == 512
    assert (engine.verdict, engine.subject) == (Verdict.PASS, "runtime")


@pytest.mark.parametrize("shift", [1e-6, -1e-6, math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 1])
def test_an_example_that_scores_otherwise_fails_the_probe(tmp_path, trained, at, shift):
    examples = [
        {**example, "score": example["score"] + (shift if n == at else 0)} for n, example in enumerate(trained[1])
    ]
    assert load_finding(probed(tmp_path, trained, examples), tmp_path).verdict is Verdict.FAIL


def test_no_example_is_not_a_pass(tmp_path, trained):
    assert load_finding(probed(tmp_path, trained, []), tmp_path).verdict is Verdict.ERROR


def test_a_score_outside_the_contract_fails_the_probe(tmp_path, trained):
    top = trained[1][1]["score"]
    output = {"kind": "probability", "range": [0.0, top - 0.01], "positive": "late"}
    release = probed(tmp_path, trained, trained[1], output=output, policy=POLICY)
    found = load_finding(release, tmp_path)
    assert found.verdict is Verdict.FAIL
    assert f"an example scores {top:g}" in found.reason


def test_a_release_that_takes_more_memory_than_it_declares_fails(tmp_path, trained):
    release = probed(tmp_path, trained, trained[1], limits={"p99_ms": 50, "timeout_ms": 200, "memory_mb": 5})
    found = SubprocessProbe().probe(Registered(release, tmp_path, T0))[0]
    assert found.verdict is Verdict.FAIL
    assert "the release declares 5 MB" in found.reason


def test_an_engine_of_another_version_says_nothing_about_the_declared_one(tmp_path, trained):
    for declared, verdict in (
        ("4", Verdict.PASS),
        ("4.7", Verdict.PASS),
        ("4.70", Verdict.ERROR),
        ("3", Verdict.ERROR),
    ):
        release = probed(tmp_path, trained, trained[1], runtime={"version": declared})
        assert probe_here(release, tmp_path)[1].verdict is verdict


def test_an_artifact_that_is_gone_is_an_error_and_another_one_a_failure(tmp_path, trained):
    registered = Registered(probed(tmp_path, trained, trained[1]), tmp_path, T0)
    (tmp_path / "model.txt").write_bytes(b"another")
    (broken,) = SubprocessProbe().probe(registered)
    assert (broken.verdict, "TamperedError" in broken.reason) == (Verdict.FAIL, True)
    (tmp_path / "model.txt").unlink()
    (gone,) = SubprocessProbe().probe(registered)
    assert (gone.verdict, "UnavailableError" in gone.reason) == (Verdict.ERROR, True)


def running(code, **options):
    """Return the finding of a probe whose process runs `code`."""
    probe = SubprocessProbe(isolation=Isolation(**{"timeout_s": DEADLINE_S, **options}))
    (finding,) = probe.found(probe.isolation.run_program((sys.executable, "-c", code), {}))
    return finding


@pytest.mark.parametrize("printed", ["", "no finding", "[1]", '[{"verdict": "FINE", "reason": "", "numbers": {}}]'])
def test_a_probe_that_answers_no_finding_is_an_error(printed):
    assert running(f"print({printed!r})").verdict is Verdict.ERROR


def test_a_release_that_does_not_answer_in_time_is_ended_with_all_that_it_started(tmp_path):
    told = tmp_path / "told"
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(told)!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    found = running(code, timeout_s=3.0)
    assert (found.verdict, "within 3 s" in found.reason) == (Verdict.ERROR, True)
    # On a machine so slow that nothing was started, nothing can be left.
    ends_at = time.monotonic() + DEADLINE_S
    while told.exists() and is_running(int(told.read_text() or 0)):
        assert time.monotonic() < ends_at, "what it started goes on"
        time.sleep(0.05)


def is_running(pid):
    # Killed, it is nobody's child and may stay a zombie where nothing reaps orphans.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise MemoryError('too much')", "ended with 1: MemoryError: too much"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "its limit of processor time"),
    ],
)
def test_a_process_that_ends_otherwise_fails_and_says_how(code, said):
    found = running(code)
    assert (found.verdict, said in found.reason) == (Verdict.FAIL, True)


LIMITED = """
import sys
from seatrial.adapters.isolated import limit
limit(memory_mb=64, cpu_s=1)
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("held = bytearray(4 * 2**30)", "MemoryError"),
        ("while True: pass", "SIGXCPU"),
        ("open('big', 'wb').write(bytes(257 * 2**20))", "File too large"),
    ],
)
def test_the_limits_of_the_process_hold(code, said):
    found = running(LIMITED + code)
    assert found.verdict is Verdict.FAIL
    # A hard limit of processor time that equals the soft one kills without a word.
    assert said in found.reason or (said == "SIGXCPU" and "SIGKILL" in found.reason)


def test_the_process_is_given_what_the_caller_names_of_the_environment_and_no_more(monkeypatch):
    monkeypatch.setenv("SEATRIAL_DATABASE_URL", "postgresql://secret")
    code = "import os; raise SystemExit(','.join(sorted(os.environ)))"
    found = running(code, environment={"LANG": "C.UTF-8"})
    assert "SEATRIAL_DATABASE_URL" not in found.reason
    assert {"LANG", "OMP_NUM_THREADS"} <= set(found.reason.rpartition(" ")[2].split(","))


def graph(inputs, outputs, nodes, **initializers):
    values = [helper.make_tensor(name, TensorProto.FLOAT, [len(v)], v) for name, v in initializers.items()]
    made = helper.make_graph(nodes, "g", inputs, outputs, values)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


#: Half of the only column.
HALF = graph([tensor("x", ["n", 1])], [tensor("y", ["n", 1])], [helper.make_node("Mul", ["x", "h"], ["y"])], h=[0.5])
EXAMPLE = {"features": {"distance": 0.5}, "score": 0.25}


def test_an_onnx_release_is_scored_by_onnxruntime(tmp_path):
    release = written(tmp_path, HALF, [EXAMPLE], kind="onnx")
    loaded, engine = SubprocessProbe().probe(Registered(release, tmp_path, T0))
    assert (loaded.verdict, engine.verdict) == (Verdict.PASS, Verdict.PASS)
    assert engine.numbers["found"] == ENGINE_VERSIONS["onnxruntime"]


def test_an_onnx_release_that_scores_otherwise_fails(tmp_path):
    release = written(tmp_path, HALF, [{**EXAMPLE, "score": 0.2501}], kind="onnx")
    assert load_finding(release, tmp_path).verdict is Verdict.FAIL


def test_a_missing_value_reaches_an_onnx_model_as_one():
    assert math.isnan(scoring.OnnxScorer(HALF, ("distance",)).score({"distance": math.nan}))


def test_a_converted_classifier_gives_the_probability_of_its_second_class():
    rng = np.random.default_rng(7)
    x = rng.random((200, 2))
    model = LogisticRegression().fit(x, x[:, 0] + x[:, 1] > 1.0)
    kinds = [("x", skl2onnx.common.data_types.FloatTensorType([None, 2]))]
    content = skl2onnx.convert_sklearn(model, "g", kinds, options={"zipmap": False}).SerializeToString()
    scorer = scoring.OnnxScorer(content, ("a", "b"))
    assert np.abs(scorer.score_all(x) - model.predict_proba(x)[:, 1]).max() < scorer.tolerance


def test_columns_of_an_onnx_model_that_are_read_apart_keep_their_names_and_types():
    inputs = [tensor("hour", ["n", 1], TensorProto.INT64), tensor("distance", ["n", 1])]
    nodes = [
        helper.make_node("Cast", ["hour"], ["h"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["distance", "h"], ["y"]),
    ]
    scorer = scoring.OnnxScorer(graph(inputs, [tensor("y", ["n", 1])], nodes), ("distance", "hour"))
    assert scorer.score({"distance": 10.5, "hour": 4.0}) == 6.5
    for hour in (4.5, math.nan):
        with pytest.raises(RefusedError, match="'hour'"):
            scorer.score({"distance": 10.5, "hour": hour})


def test_an_onnx_model_of_other_columns_is_refused(tmp_path):
    release = written(tmp_path, HALF, [EXAMPLE], kind="onnx", features=two_columns())
    found = load_finding(release, tmp_path)
    assert (found.verdict, "expected rows of 2" in found.reason) == (Verdict.FAIL, True)


def two_columns():
    features = a_release().document()["features"]
    (column,) = features["columns"]
    return {**features, "columns": [column, {**column, "name": "hour"}]}


def test_weights_beside_an_onnx_file_are_not_read_for_no_digest_covers_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = onnx.load_model_from_string(HALF)
    values = np.full(1, 0.5, dtype=np.float32).tobytes()
    (tmp_path / "weights").write_bytes(values)
    (weight,) = model.graph.initializer
    weight.ClearField("float_data")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights")
    release = written(tmp_path, model.SerializeToString(), [EXAMPLE], kind="onnx")
    found = SubprocessProbe().probe(Registered(release, tmp_path, T0))[0]
    assert found.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ({"engine": "open-inference", "version": "2"}, "runtime.served"),
        ({"served": {"server": "models", "model": "m"}}, "runtime.served"),
    ],
)
def test_a_served_model_and_its_engine_belong_together(tmp_path, runtime, said):
    with pytest.raises(InvalidDocumentError, match=said):
        written(tmp_path, b"", runtime=runtime)


def test_a_release_that_says_nothing_of_a_server_keeps_its_id():
    assert "served" not in a_release().document()["runtime"]


def test_a_model_on_a_server_that_the_settings_do_not_name_is_refused(tmp_path):
    served = {"engine": "open-inference", "version": "2", "served": {"server": "models", "model": "m"}}
    found = load_finding(written(tmp_path, b"", runtime=served), tmp_path)
    assert (found.verdict, "model_servers" in found.reason) == (Verdict.FAIL, True)
