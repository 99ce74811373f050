"""The protocol spoken with real servers, and with servers that misbehave on purpose."""

import asyncio
import json
import math
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from builders import T0, a_release

from deployments import servers
from seatrial.adapters.load.driving import arrivals
from seatrial.adapters.load.working import run_here
from seatrial.adapters.probing import SubprocessProbe
from seatrial.adapters.scoring import Runtimes
from seatrial.adapters.v2 import AsyncV2Scorer, ModelAddress, V2Scorer, V2Server, wiring_of
from seatrial.errors import NotFoundError, RefusedError, SeatrialError, UnavailableError
from seatrial.ports import Registered
from seatrial.units import digest_bytes
from seatrial.verdict import Verdict

COLUMNS = ("distance", "hour")
DEADLINE_S = 60.0
START_S = 240.0
KSERVE_SCRIPT = Path(__file__).with_name("kserve_lightgbm.py")
ROWS = np.array([[0.1, 1.0], [0.9, 2.0], [math.nan, 0.5]])


def trained(seed):
    rng = np.random.default_rng(seed)
    x = rng.random((400, 2))
    x[::5, 0] = math.nan
    late = (np.nan_to_num(x[:, 0], nan=0.8) + 0.2 * x[:, 1] > 0.6).astype(float)
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5, "seed": seed}
    return lightgbm.train(settings, lightgbm.Dataset(x, late, feature_name=list(COLUMNS)), num_boost_round=5)


@pytest.fixture(scope="module")
def boosters():
    return {"1": trained(1), "2": trained(2)}


@pytest.fixture(scope="module")
def both(tmp_path_factory, boosters):
    """MLServer with version 1 of a model loaded, and KServe with the same one; they start side by side."""
    home = tmp_path_factory.mktemp("servers")
    programs = {name: servers.find(name) for name in ("mlserver", "kserve")}
    if None in programs.values():
        pytest.skip("no environment of MLServer or KServe; `make servers` makes them or says what to do")
    models = home / "models"
    described = {
        "inputs": [{"name": "rows", "datatype": "FP64", "shape": [-1, 2]}],
        "outputs": [{"name": "predict", "datatype": "FP64", "shape": [-1, 1]}],
    }
    for version, booster in boosters.items():
        folder = models / f"delay-{version}"
        folder.mkdir(parents=True)
        (folder / "model.bst").write_text(booster.model_to_string())
        parameters = {"version": version, "uri": "./model.bst"}
        settings = {"name": "delay", "implementation": "mlserver_lightgbm.LightGBMModel", "parameters": parameters}
        named = "model-settings.json" if version == "1" else "later.json"
        (folder / named).write_text(json.dumps({**settings, **described}))
    arguments = ["--name", "delay-1", "--artifact", str(models / "delay-1" / "model.bst")]
    started = {
        "mlserver": servers.start_mlserver(programs["mlserver"], models, home=home),
        "kserve": servers.start_kserve(programs["kserve"], KSERVE_SCRIPT, arguments, home=home),
    }
    try:
        for name, one in started.items():
            with V2Server(one.url, timeout_s=DEADLINE_S) as server:
                address = ADDRESSES[name]
                one.child.await_ready(partial(is_ready, server, address), deadline_s=START_S)
        yield {name: one.url for name, one in started.items()}, models
    finally:
        for one in started.values():
            one.child.stop(grace_s=10.0)


ADDRESSES = {"mlserver": ModelAddress("delay", "1"), "kserve": ModelAddress("delay-1")}


def is_ready(server, address):
    try:
        return server.is_ready(address)
    except UnavailableError:
        return False


@pytest.fixture(params=ADDRESSES)
def served(both, request):
    urls, _ = both
    with V2Server(urls[request.param], timeout_s=DEADLINE_S) as server:
        yield server, ADDRESSES[request.param]


def test_a_real_server_scores_as_the_model_does_with_missing_values_too(served, boosters):
    server, address = served
    scorer = V2Scorer(server, address, wiring_of(server.model(address), COLUMNS))
    expected = boosters["1"].predict(ROWS, num_threads=1)
    assert np.abs(scorer.score_all(ROWS) - expected).max() < 1e-12
    assert scorer.score({"hour": 2.0, "distance": 0.9}) == pytest.approx(expected[1], abs=1e-12)


def test_a_gateway_scores_the_same_unit_by_unit(served, boosters):
    server, address = served

    async def ask():
        scorer = AsyncV2Scorer(server.url, address, COLUMNS, timeout_s=DEADLINE_S)
        try:
            assert await scorer.is_ready()
            return await asyncio.gather(*(scorer.score(dict(zip(COLUMNS, row, strict=True))) for row in ROWS))
        finally:
            await scorer.close()

    assert np.abs(np.array(asyncio.run(ask())) - boosters["1"].predict(ROWS, num_threads=1)).max() < 1e-12


def test_a_model_that_is_not_there_is_not_ready_and_not_found(served):
    server, _ = served
    unknown = ModelAddress("unknown")
    assert server.is_ready(unknown) is False
    with pytest.raises(SeatrialError):
        server.model(unknown)


def test_columns_that_the_server_does_not_serve_are_refused_before_any_request(served):
    server, address = served
    with pytest.raises(RefusedError, match="expected rows of 3"):
        wiring_of(server.model(address), (*COLUMNS, "carrier"))


def test_a_version_is_loaded_when_its_own_address_says_so(both, boosters):
    urls, models = both
    second = ModelAddress("delay", "2")
    with V2Server(urls["mlserver"], timeout_s=DEADLINE_S) as server:
        assert server.is_ready(second) is False
        (models / "delay-2" / "later.json").rename(models / "delay-2" / "model-settings.json")
        # The index calls a version ready before anybody loaded it; the address of the version knows better.
        assert {line.version: line.state for line in server.index() if line.name == "delay"}["2"] == "READY"
        assert server.is_ready(second) is False
        server.load("delay")
        assert server.is_ready(second) is True
        for version, booster in boosters.items():
            address = ModelAddress("delay", version)
            scores = V2Scorer(server, address, wiring_of(server.model(address), COLUMNS)).score_all(ROWS)
            assert np.abs(scores - booster.predict(ROWS, num_threads=1)).max() < 1e-12


def test_kserve_has_no_versions_and_no_index(both):
    urls, _ = both
    with V2Server(urls["kserve"], timeout_s=DEADLINE_S) as server:
        assert server.is_ready(ModelAddress("delay-1", "1")) is False
        with pytest.raises(NotFoundError):
            server.index()


@contextmanager
def answering(answer):
    """A server on loopback whose every request is handed to `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        do_POST = do_GET  # noqa: N815 - the name that the library calls

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def saying(status, content, headers=()):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def test_a_server_that_never_answers_is_left_at_the_limit():
    over = threading.Event()
    with answering(lambda _: over.wait(DEADLINE_S)) as url:
        with V2Server(url, timeout_s=0.2) as server, pytest.raises(UnavailableError, match=r"within 0\.2 s"):
            server.metadata()
        with pytest.raises(UnavailableError, match=r"within 0\.2 s"):
            ask_once(url, timeout_s=0.2)
        over.set()


def ask_once(url, **options):
    async def ask():
        scorer = AsyncV2Scorer(url, ModelAddress("m"), COLUMNS, **options)
        try:
            return await scorer.score({"distance": 1.0, "hour": 2.0})
        finally:
            await scorer.close()

    return asyncio.run(ask())


def test_a_server_that_drips_is_left_at_the_limit():
    over = threading.Event()

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        # Ends with the test, or when the client has gone.
        while not over.wait(0.02):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return

    with answering(drip) as url:
        with V2Server(url, timeout_s=0.3) as server, pytest.raises(UnavailableError, match=r"within 0\.3 s"):
            server.metadata()
        with pytest.raises(UnavailableError, match=r"within 0\.3 s"):
            ask_once(url, timeout_s=0.3)
        over.set()


def test_an_answer_that_no_score_can_be_is_not_read_to_its_end():
    with answering(saying(200, b" " * (17 * 2**20))) as url:
        with V2Server(url, timeout_s=DEADLINE_S) as server, pytest.raises(UnavailableError, match="more than"):
            server.metadata()
        with pytest.raises(UnavailableError, match="more than"):
            ask_once(url, timeout_s=DEADLINE_S)


def test_a_redirect_is_not_followed():
    with (
        answering(saying(200, b'{"name": "another"}')) as other,
        answering(saying(307, b"", [("Location", f"{other}/v2")])) as url,
        V2Server(url, timeout_s=DEADLINE_S) as server,
        pytest.raises(UnavailableError, match="HTTP 307"),
    ):
        server.metadata()


def test_a_server_that_is_gone_is_unavailable_and_not_ready():
    with answering(saying(200, b"{}")) as url:
        pass
    with V2Server(url, timeout_s=DEADLINE_S) as server, pytest.raises(UnavailableError, match="start the server"):
        server.metadata()
    with pytest.raises(UnavailableError, match="start the server"):
        ask_once(url, timeout_s=DEADLINE_S)
    asked = AsyncV2Scorer(url, ModelAddress("m"), COLUMNS, timeout_s=DEADLINE_S)
    assert asyncio.run(asked.is_ready()) is False


@pytest.mark.parametrize("features", [{}, {"distance": 1.0}])
def test_a_missing_feature_is_refused_and_no_score_is_asked_for(features):
    described = {
        "name": "m",
        "inputs": [{"name": "rows", "datatype": "FP64", "shape": [-1, 2]}],
        "outputs": [{"name": "predict", "datatype": "FP64", "shape": [-1]}],
    }
    asked = []

    def answer(handler):
        asked.append(handler.path)
        saying(200, json.dumps(described).encode())(handler)

    async def ask(url):
        scorer = AsyncV2Scorer(url, ModelAddress("m"), COLUMNS, timeout_s=DEADLINE_S)
        try:
            return await scorer.score(features)
        finally:
            await scorer.close()

    with answering(answer) as url, pytest.raises(RefusedError, match="found no feature"):
        asyncio.run(ask(url))
    assert asked == ["/v2/models/m"]


def a_served_release(folder, address, booster, **served):
    content = booster.model_to_string().encode()
    (folder / "model.txt").write_bytes(content)
    scores = booster.predict(ROWS, num_threads=1)
    examples = [
        {"features": {n: None if math.isnan(v) else v for n, v in zip(COLUMNS, row, strict=True)}, "score": score}
        for row, score in zip(ROWS.tolist(), scores.tolist(), strict=True)
    ]
    (folder / "evaluation.json").write_text(json.dumps({"examples": examples}))
    (column,) = a_release().document()["features"]["columns"]
    columns = [{**column, "name": name} for name in COLUMNS]
    named = {"server": "models", "model": address.name, **({"version": address.version} if address.version else {})}
    return a_release(
        model={"artifact": "model.txt", "digest": digest_bytes(content), "format": "lightgbm-text"},
        features={"version": "1", "columns": columns},
        limits={"p99_ms": 50, "timeout_ms": 60_000, "memory_mb": 512},
        runtime={"engine": "open-inference", "version": "2", "python": "3.11", "served": {**named, **served}},
    )


def test_a_release_on_a_real_server_passes_the_probe_when_its_examples_score_as_reported(served, boosters, tmp_path):
    server, address = served
    probe = SubprocessProbe(Runtimes({"models": server.url}))
    (found,) = probe.probe(Registered(a_served_release(tmp_path, address, boosters["1"]), tmp_path, T0))
    assert (found.verdict, found.numbers["examples"]) == (Verdict.PASS, len(ROWS))
    (other,) = probe.probe(Registered(a_served_release(tmp_path, address, boosters["2"]), tmp_path, T0))
    assert (other.verdict, "differs" in other.reason) == (Verdict.FAIL, True)


def test_a_model_that_the_server_does_not_have_is_an_error(served, boosters, tmp_path):
    server, _ = served
    release = a_served_release(tmp_path, ModelAddress("unknown"), boosters["1"])
    (found,) = SubprocessProbe(Runtimes({"models": server.url})).probe(Registered(release, tmp_path, T0))
    assert (found.verdict, "not ready" in found.reason) == (Verdict.ERROR, True)


def test_a_release_names_its_version_where_the_server_has_versions(both, boosters, tmp_path):
    urls, _ = both
    release = a_served_release(tmp_path, ModelAddress("delay"), boosters["1"])
    (found,) = SubprocessProbe(Runtimes({"models": urls["mlserver"]})).probe(Registered(release, tmp_path, T0))
    assert (found.verdict, "follows whichever is newest" in found.reason) == (Verdict.FAIL, True)


def test_a_real_server_is_put_under_load_and_its_memory_stays_unknown(served, boosters, tmp_path):
    server, address = served
    release = a_served_release(tmp_path, address, boosters["1"])
    load = {"rate_per_s": 40.0, "seconds": 1.0, "warm_up_s": 0.0, "seed": 1}
    run = run_here(release, tmp_path, Runtimes({"models": server.url}), load)
    assert (len(run.latencies_ms), run.failed, run.peak_mb) == (len(arrivals(40.0, 1.0, seed=1)), 0, None)
