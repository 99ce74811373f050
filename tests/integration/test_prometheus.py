import json
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa
import yaml
from builders import HOUR, POINT, T0, World, a_plan, evidence_at

from deployments import prometheus
from deployments.processes import free_port
from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.prometheus import PrometheusRuntime
from seatrial.adapters.readings import MemoryRuntime
from seatrial.adapters.sql import SqlStore
from seatrial.cli import main
from seatrial.cli.exits import ExitCode
from seatrial.errors import InvalidDocumentError
from seatrial.evidence import Arm
from seatrial.metrics import ABSENT, FAMILIES, UP, metrics
from seatrial.ports import NoReading, Quantity, Scope
from seatrial.rollout import State
from seatrial.wiring import open_plant

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deployments" / "grafana" / "seatrial.json").read_text())
DEADLINE_S = 30.0
SCOPE = Scope(POINT, "r1", "sha256:cafe", "sha256:beef", T0)
RELEASES = {Arm.CHAMPION: "sha256:cafe", Arm.CHALLENGER: "sha256:beef"}
QUERIES = {
    Quantity.P50_MS: 'latency_ms{release="$release", quantile="0.5"}',
    Quantity.P99_MS: 'latency_ms{release="$release", quantile="0.99"}',
    Quantity.ERROR_RATE: 'errors{release="$release"} / calls{release="$release"}',
}


def await_true(is_true, what):
    ends_at = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < ends_at, what
        time.sleep(0.1)


@contextmanager
def answering(answer):
    """An HTTP server on loopback whose every request is handed to `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        do_POST = do_GET  # noqa: N815 - the name that the server calls

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def replying(status, body, **headers):
    def answer(request):
        request.rfile.read(int(request.headers.get("Content-Length", 0)))
        content = body.encode()
        request.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            request.send_header(name.replace("_", "-"), text)
        request.end_headers()
        request.wfile.write(content)

    return answer


@pytest.fixture(scope="session")
def program():
    found = prometheus.find()
    if found is None:
        pytest.skip("no Prometheus that starts was found; `make prometheus` unpacks it or says what to do")
    return found


@contextmanager
def scraping(program, home, targets):
    """A real Prometheus that scrapes `targets` every second."""
    home.mkdir(parents=True, exist_ok=True)
    job = {"job_name": "seatrial", "static_configs": [{"targets": targets}]}
    configuration = home / "prometheus.yml"
    configuration.write_text(
        yaml.safe_dump({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]})
    )
    server = prometheus.Server(home, free_port("Prometheus"))
    child = server.start(program, configuration)
    try:
        child.await_ready(server.is_ready, deadline_s=DEADLINE_S)
        yield server
    finally:
        child.stop(grace_s=10)


def ask(server, query):
    """Return the series that answer to `query`, and refuse everything that is no success."""
    answer = requests.post(f"{server.url}/api/v1/query", data={"query": query}, timeout=10)
    document = answer.json()
    assert document["status"] == "success", (query, document)
    return document["data"]["result"]


# -- the port, by both adapters

TEXT = """\
latency_ms{release="sha256:cafe",quantile="0.5"} 12
latency_ms{release="sha256:cafe",quantile="0.99"} NaN
latency_ms{release="sha256:beef",quantile="0.5",zone="a"} 11
latency_ms{release="sha256:beef",quantile="0.5",zone="b"} 13
errors{release="sha256:cafe"} 3
calls{release="sha256:cafe"} 100
errors{release="sha256:beef"} 1
calls{release="sha256:beef"} 0
"""


@pytest.fixture(scope="module")
def watching(program, tmp_path_factory):
    """A real Prometheus that has scraped `TEXT`, and the page that it goes on scraping."""
    page = {"text": TEXT}

    def answer(request):
        replying(200, page["text"], Content_Type="text/plain; version=0.0.4")(request)

    with (
        answering(answer) as url,
        scraping(program, tmp_path_factory.mktemp("watching"), [url.removeprefix("http://")]) as server,
    ):
        await_true(lambda: ask(server, "calls"), "never scraped")
        yield server, page


@pytest.fixture(params=["memory", "prometheus"])
def runtime(request):
    if request.param == "memory":
        series = {
            ("sha256:cafe", Arm.CHAMPION, Quantity.P50_MS): [12.0],
            ("sha256:cafe", Arm.CHAMPION, Quantity.P99_MS): [float("nan")],
            ("sha256:cafe", Arm.CHAMPION, Quantity.ERROR_RATE): [0.03],
            ("sha256:beef", Arm.CHALLENGER, Quantity.P50_MS): [11.0, 13.0],
            ("sha256:beef", Arm.CHALLENGER, Quantity.ERROR_RATE): [float("inf")],
        }
        return MemoryRuntime(series)
    server, _ = request.getfixturevalue("watching")
    return PrometheusRuntime(server.url, QUERIES)


def reading(runtime, arm, quantity):
    (found,) = [r for r in runtime.read([SCOPE]) if (r.arm, r.quantity) == (arm, quantity)]
    assert (found.value is None) == (found.absent is not None)
    return found.absent if found.value is None else found.value


@pytest.mark.parametrize(
    ("arm", "quantity", "expected"),
    [
        (Arm.CHAMPION, Quantity.P50_MS, 12.0),
        (Arm.CHAMPION, Quantity.ERROR_RATE, pytest.approx(0.03)),
        (Arm.CHAMPION, Quantity.P99_MS, NoReading.NOT_A_NUMBER),
        (Arm.CHALLENGER, Quantity.P50_MS, NoReading.SEVERAL_SERIES),
        (Arm.CHALLENGER, Quantity.P99_MS, NoReading.NO_SERIES),
        (Arm.CHALLENGER, Quantity.ERROR_RATE, NoReading.OUT_OF_RANGE),
    ],
)
def test_one_finite_number_is_read_and_nothing_else_is_a_number(runtime, arm, quantity, expected):
    assert reading(runtime, arm, quantity) == expected


def test_each_scope_arm_and_quantity_has_one_reading(runtime):
    readings = runtime.read([SCOPE, replace(SCOPE, rollout_id="r2")])
    places = [(each.rollout_id, each.arm, each.quantity) for each in readings]
    assert len(set(places)) == len(places) == 12
    assert runtime.read([]) == []


def test_a_series_that_vanished_is_absent_and_not_its_last_number(watching):
    server, page = watching
    runtime = PrometheusRuntime(server.url, QUERIES)
    page["text"] = TEXT.replace('latency_ms{release="sha256:cafe",quantile="0.5"} 12\n', "")
    try:
        await_true(
            lambda: reading(runtime, Arm.CHAMPION, Quantity.P50_MS) is NoReading.NO_SERIES,
            "the number of a vanished series is still shown",
        )
        assert reading(runtime, Arm.CHAMPION, Quantity.ERROR_RATE) == pytest.approx(0.03)
    finally:
        page["text"] = TEXT


def test_a_query_that_prometheus_refuses_is_absent(watching):
    server, _ = watching
    runtime = PrometheusRuntime(server.url, {Quantity.P50_MS: 'latency_ms{release="$release"'})
    assert reading(runtime, Arm.CHAMPION, Quantity.P50_MS) is NoReading.REFUSED


def test_a_query_for_a_range_is_no_number(watching):
    server, _ = watching
    runtime = PrometheusRuntime(server.url, {Quantity.P50_MS: 'latency_ms{release="$release"}[1m]'})
    assert reading(runtime, Arm.CHAMPION, Quantity.P50_MS) is NoReading.REFUSED


def test_a_scalar_is_one_number(watching):
    server, _ = watching
    runtime = PrometheusRuntime(server.url, {Quantity.P50_MS: 'scalar(calls{release="$release"})'})
    assert reading(runtime, Arm.CHAMPION, Quantity.P50_MS) == 100.0


def test_a_name_cannot_break_out_of_its_quotes(watching):
    server, _ = watching
    runtime = PrometheusRuntime(server.url, {Quantity.P50_MS: 'calls{release="$release"}'})
    hostile = replace(SCOPE, champion='x"} or vector(1) #', challenger="a\\")
    assert {each.absent for each in runtime.read([hostile])} == {NoReading.NO_SERIES}


# -- servers that are none

VECTOR = '{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"5"]}]}}'
WARNED = VECTOR[:-1] + ',"warnings":["a store did not answer"]}'


@pytest.mark.parametrize(
    ("status", "body", "absent"),
    [
        (200, WARNED, NoReading.DOUBTED),
        (500, VECTOR, NoReading.REFUSED),
        (200, "<html>log in</html>", NoReading.REFUSED),
        (200, "[]", NoReading.REFUSED),
        (200, '{"status":"success"}', NoReading.REFUSED),
        (200, '{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"five"]}]}}', NoReading.REFUSED),
        (200, '{"data":{"resultType":"vector","result":[]}}', NoReading.REFUSED),
        (503, '{"status":"error","errorType":"timeout","error":"query timed out"}', NoReading.TIMEOUT),
        (401, "", NoReading.REFUSED),
    ],
)
def test_what_is_no_success_is_no_number(status, body, absent):
    with answering(replying(status, body)) as url:
        runtime = PrometheusRuntime(url, {Quantity.P50_MS: "$release"})
        assert reading(runtime, Arm.CHAMPION, Quantity.P50_MS) is absent


def test_the_answer_that_those_differ_from_is_a_number():
    with answering(replying(200, VECTOR)) as url:
        assert reading(PrometheusRuntime(url, {Quantity.P50_MS: "$arm"}), Arm.CHAMPION, Quantity.P50_MS) == 5.0


def test_a_redirect_is_not_followed():
    with answering(replying(200, VECTOR)) as elsewhere, answering(replying(307, "", Location=elsewhere)) as url:
        runtime = PrometheusRuntime(url, {Quantity.P50_MS: "$release"})
        assert reading(runtime, Arm.CHAMPION, Quantity.P50_MS) is NoReading.REFUSED


def test_a_server_that_is_silent_is_asked_once_and_not_for_every_number(monkeypatch):
    monkeypatch.setattr("seatrial.adapters.prometheus.READ_S", 0.2)
    asked, is_over = [], threading.Event()

    def answer(request):
        asked.append(request.path)
        is_over.wait(DEADLINE_S)

    with answering(answer) as url:
        readings = PrometheusRuntime(url, QUERIES).read([SCOPE, SCOPE])
        is_over.set()
    assert [each.absent for each in readings] == [NoReading.TIMEOUT] * 12
    assert len(asked) == 1


def test_a_server_that_is_not_there_is_no_zero():
    runtime = PrometheusRuntime(f"http://127.0.0.1:{free_port('nobody')}", QUERIES)
    assert {each.absent for each in runtime.read([SCOPE])} == {NoReading.UNAVAILABLE}


# -- settings


def settings(folder, **changes):
    path = folder / "seatrial.yaml"
    given = {"logs": "logs", "replay_clock": "event-time", "approvers": {"dana": ["risk-owner"]}, **changes}
    path.write_text(yaml.safe_dump(given))
    return path


def test_settings_choose_the_monitoring_system(tmp_path):
    asked = {"url": "http://127.0.0.1:9090", "queries": {"p99_ms": 'x{release="$release"}'}}
    plant = open_plant(settings(tmp_path, prometheus=asked), {})
    plant.store.close()
    assert plant.ports.runtime == PrometheusRuntime("http://127.0.0.1:9090", {Quantity.P99_MS: 'x{release="$release"}'})
    plain = open_plant(settings(tmp_path), {})
    plain.store.close()
    assert plain.ports.runtime is None


@pytest.mark.parametrize(
    ("url", "queries", "said"),
    [
        ("127.0.0.1:9090", {"p99_ms": "$release"}, "http://"),
        ("http://ada:secret@host", {"p99_ms": "$release"}, "found a user"),
        ("http://host", {"p99": "$release"}, "p99_ms"),
        ("http://host", {}, "found no query"),
        ("http://host", {"p99_ms": "$realease"}, "$realease"),
        ("http://host", {"p99_ms": "up"}, "same for both arms"),
        ("http://host", {"p99_ms": 'x{release=~"$release$"}'}, "$$"),
    ],
)
def test_settings_that_would_ask_another_question_are_refused(tmp_path, url, queries, said):
    with pytest.raises(InvalidDocumentError) as refused:
        open_plant(settings(tmp_path, prometheus={"url": url, "queries": queries}), {})
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_the_settings_of_the_documentation_are_accepted_and_their_queries_understood(watching, tmp_path):
    text = (ROOT / "docs" / "metrics.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    plant = open_plant(settings(tmp_path, **yaml.safe_load(block)), {})
    plant.store.close()
    assert set(plant.ports.runtime.queries) == set(Quantity)
    server, _ = watching
    readings = replace(plant.ports.runtime, url=server.url).read([SCOPE])
    assert {each.absent for each in readings} == {NoReading.NO_SERIES}


# -- the endpoint, scraped by a real Prometheus


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A store with one open rollout and one that was rolled back, and where `seatrial metrics --serve` answers."""
    home = tmp_path_factory.mktemp("served")
    store = SqlStore(f"sqlite:///{home / 'seatrial.sqlite'}")
    store.create_tables()
    world = World(home / "files", store)
    rollout, now = world.advance_to(State.CANARY)
    world.router.refresh(now=now + HOUR)
    world.evidence.says = evidence_at(now + HOUR, ratio=3.0)
    world.step(rollout, now + HOUR)
    world.router.refresh(now=now + 2 * HOUR)
    world.step(rollout, now + 2 * HOUR)
    world.evidence.says = None
    second = world.start(plan=a_plan(), request="again", now=now + 3 * HOUR)
    for hours in (27, 51, 75):
        at = now + hours * HOUR
        world.router.refresh(now=at)
        world.step(second, at)
    world.router.refresh(now=at + HOUR)
    world.step(second, at + HOUR)
    ReplayClock(home / "event-time").advance(at + HOUR)
    expected = metrics(world.ports, now=at + HOUR)
    store.close()
    with serving(home, settings(home)) as url:
        yield url, expected, (rollout.id, second.id)


@contextmanager
def serving(home, path):
    program = "import sys; from seatrial.cli import main; sys.exit(main())"
    words = ["metrics", "--serve", "--listen", "127.0.0.1:0", "--settings", str(path)]
    argv = [sys.executable, "-u", "-c", program, *words]
    with (
        (home / "serve.log").open("w+") as log,
        subprocess.Popen(argv, cwd=home, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            line = process.stdout.readline()
            match = re.search(r"http://[\d.:]+", line)
            assert match, (line, (home / "serve.log").read_text())
            yield match[0]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == ExitCode.INTERRUPTED


@pytest.fixture(scope="module")
def scraped(program, served, tmp_path_factory):
    url, expected, ids = served
    with scraping(program, tmp_path_factory.mktemp("scraped"), [url.removeprefix("http://")]) as server:
        await_true(lambda: ask(server, "seatrial_up == 1"), "never scraped")
        yield server, expected, ids


def selector(each):
    labels = ",".join(f"{name}={json.dumps(text)}" for name, text in each.labels.items())
    return f"{each.family.name}{{{labels}}}"


def test_prometheus_has_every_number_that_was_computed_and_no_other(scraped):
    server, expected, _ = scraped
    present = [each for each in expected if each.value is not None]
    assert len({each.family for each in present}) > 20
    for each in present:
        (series,) = ask(server, selector(each))
        assert float(series["value"][1]) == pytest.approx(each.value), each
    names = "|".join(family.name for family in FAMILIES.values())
    assert len(ask(server, f'{{__name__=~"{names}"}}')) == len(present)


def test_an_absent_number_has_no_series_and_its_reason_has_one(scraped):
    server, expected, _ = scraped
    for each in (each for each in expected if each.value is None):
        assert ask(server, selector(each)) == [] or set(each.labels) != set(each.family.labels), each
        reason = f'seatrial_metric_absent{{metric="{each.family.name}",reason="{each.absent}"}}'
        assert ask(server, reason), each


def test_how_long_a_rollback_took_can_be_asked(scraped):
    server, _, (first, _) = scraped
    (series,) = ask(server, f'seatrial_rollback_seconds{{rollout="{first}"}}')
    assert float(series["value"][1]) == 3600.0


def expressions():
    return [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def filled(expression, ids):
    return expression.replace("$decision_point", POINT).replace("$rollout", "|".join(ids))


@pytest.mark.parametrize(("title", "expression"), expressions())
def test_every_expression_of_the_dashboard_is_understood_and_names_our_metrics(scraped, title, expression):
    server, expected, ids = scraped
    answer = ask(server, filled(expression, ids))
    known = {family.name for family in FAMILIES.values()} | {UP.name, ABSENT.name}
    named = set(re.findall(r"seatrial_\w+", expression))
    assert named, title
    assert named <= known
    present = {each.family.name for each in expected if each.value is not None} | {UP.name}
    if named <= present and " > 0" not in expression and "quantile" not in expression:
        assert answer, f"{title}: {expression}"


def test_the_dashboard_shows_every_metric_in_rows_of_the_six_categories():
    shown = set(re.findall(r"seatrial_\w+", json.dumps(DASHBOARD)))
    assert {family.name for family in FAMILIES.values()} <= shown
    headings = [panel["title"].split(":")[0].lower() for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert headings == ["release", "runtime", "traffic", "behaviour", "quality", "business"]
    variables = [each["name"] for each in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "decision_point", "rollout"]


def test_a_panel_leaves_gaps_where_there_was_no_number():
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "timeseries":
            assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False, panel["title"]


def test_the_endpoint_listens_where_the_example_scrapes():
    example = yaml.safe_load((ROOT / "deployments" / "prometheus" / "prometheus.yml").read_text())
    (job,) = example["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:9464"]}]


def scrape(url):
    """Return the samples of one scrape by name; none has labels where the store is empty or away."""
    answer = requests.get(f"{url}/metrics", timeout=10)
    assert answer.status_code == 200
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_a_store_that_went_away_is_up_zero_and_nothing_else(postgres, tmp_path):
    name = "goes_away"
    postgres.create_databases([name])
    path = settings(tmp_path, database=postgres.url(name, driver="psycopg"))
    ReplayClock(tmp_path / "event-time").advance(T0)
    plant = open_plant(path, {})
    plant.store.beat("sweep", now=T0)
    plant.store.close()
    with serving(tmp_path, path) as url:
        assert scrape(url) == {"seatrial_up": 1.0, "seatrial_watch_age_seconds": 0.0}
        engine = sa.create_engine(postgres.url("postgres", driver="psycopg"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()
        await_true(lambda: scrape(url).get("seatrial_up") == 0.0, "up although the database is gone")
        assert scrape(url) == {"seatrial_up": 0.0}
        assert "the database did not answer" in (tmp_path / "serve.log").read_text()


def test_a_port_that_is_taken_is_refused(tmp_path, capsys):
    ReplayClock(tmp_path / "event-time").advance(T0)
    with answering(replying(200, "")) as url:
        words = ["--serve", "--listen", url.removeprefix("http://"), "--settings", str(settings(tmp_path))]
        assert main(["metrics", *words]) == ExitCode.REFUSED
    assert "expected a free port" in capsys.readouterr().err


@pytest.mark.parametrize("listen", ["9464", "host", "host:port", "http://host:1", "ada@host:1", "host:1/x", ":9464"])
def test_an_address_that_is_none_is_refused(tmp_path, listen, capsys):
    ReplayClock(tmp_path / "event-time").advance(T0)
    words = ["--serve", "--listen", listen, "--settings", str(settings(tmp_path))]
    assert main(["metrics", *words]) == ExitCode.BAD_INPUT
    assert "HOST:PORT" in capsys.readouterr().err
