from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
import requests

from deployments import processes
from deployments.local import PROJECT, Stack
from deployments.postgres import Cluster
from seatrial.errors import NotFoundError, UnavailableError

COMMAND = [sys.executable, "-m", "deployments.local", "--no-deploy"]
SILENT = {"environment": {"PATH": os.defpath}, "directory": Path("/")}


def run_to_end(*words):
    return subprocess.run([*COMMAND, *words], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)


def read_until(stream, text, *, deadline_s):
    end = time.monotonic() + deadline_s
    seen = ""
    while text not in seen:
        ready, _, _ = select.select([stream], [], [], max(0, end - time.monotonic()))
        chunk = os.read(stream.fileno(), 4096).decode() if ready else ""
        assert chunk, f"no {text!r} in {seen!r}"
        seen += chunk
    return seen


def exported(home):
    lines = (home / "environment").read_text().splitlines()
    return dict(re.fullmatch(r"export (\w+)='?([^']*)'?", line).groups() for line in lines)


def connected(url):
    return psycopg.connect(url.replace("+psycopg", ""))


def alive(processes_):
    return [process for process in processes_ if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="module")
def command(home):
    with subprocess.Popen([*COMMAND, "--home", home], cwd=PROJECT, stdout=subprocess.PIPE) as running:
        try:
            read_until(running.stdout, "Ctrl-C stops everything", deadline_s=180)
            yield running
        finally:
            running.send_signal(signal.SIGINT)


@pytest.mark.usefixtures("command")
def test_every_part_answers_at_the_address_that_the_home_tells(home):
    settings = exported(home)
    with connected(settings["SEATRIAL_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("seatrial",)
    assert requests.get(settings["PREFECT_API_URL"] + "/health", timeout=5).json() is True
    workers = requests.post(
        settings["PREFECT_API_URL"] + "/work_pools/seatrial/workers/filter", json={}, timeout=5
    ).json()
    assert [(worker["name"], worker["status"]) for worker in workers] == [("local", "ONLINE")]
    pool = requests.get(settings["PREFECT_API_URL"] + "/work_pools/seatrial", timeout=5).json()
    assert pool["base_job_template"]["variables"]["properties"]["stream_output"]["default"] is False


def test_nothing_listens_beyond_this_machine(command):
    parts = psutil.Process(command.pid).children(recursive=True)
    listening = [
        connection.laddr.ip
        for part in parts
        for connection in part.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 2
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.usefixtures("command")
def test_the_database_lets_nobody_in_without_the_password(home):
    right = exported(home)["SEATRIAL_DATABASE_URL"]
    wrong = re.sub(r":[0-9a-f]+@", ":0123@", right)
    assert wrong != right
    with pytest.raises(psycopg.OperationalError, match="password"):
        connected(wrong)
    assert (home / "environment").stat().st_mode & 0o077 == 0
    assert home.stat().st_mode & 0o077 == 0


def test_a_second_stack_on_the_same_home_is_refused_by_name(command, home):
    second = run_to_end("--home", str(home))
    assert second.returncode == 1
    assert f"a stack of process {command.pid} runs here" in second.stderr
    assert run_to_end("--wipe", "--home", str(home)).returncode == 1


def test_ctrl_c_however_often_leaves_no_process_behind(command, home):
    started = psutil.Process(command.pid).children(recursive=True)
    assert {"postgres", "python"} <= {re.sub(r"[\d.]+$", "", process.name()) for process in started}
    for _ in range(10):
        command.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            command.wait(0.03)
    assert command.wait(40) == 0
    assert alive(started) == []
    assert not (home / "environment").exists()


def test_a_port_in_use_is_explained_before_anything_starts(tmp_path):
    with socket.create_server((processes.LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        refused = run_to_end("--home", str(tmp_path), "--api-port", str(port))
    assert refused.returncode == 1
    assert f"port {port} for the Prefect server: Address already in use" in refused.stderr
    assert f"held by process {os.getpid()} (" in refused.stderr
    assert refused.stdout == ""
    assert not (tmp_path / "postgres").exists()


class Interrupted(Stack):
    """A stack that a signal reaches twice once its database runs."""

    def __init__(self, home, number):
        super().__init__(home, say=lambda _: None)
        self.number = number
        self.database = None
        self.passed = False

    def start_server(self):
        self.database = psutil.Process(self.parts["postgres"].process.pid)
        try:
            os.kill(os.getpid(), self.number)
        finally:
            # A second one on the way out would strike before the stopping has begun.
            os.kill(os.getpid(), self.number)
            self.passed = True
        return super().start_server()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_stops_what_had_started(tmp_path, number, request):
    # Where tests share a process, a stack of other tests may have handlers of its own in force.
    handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, handler)
    request.addfinalizer(lambda: signal.signal(number, before))
    stack = Interrupted(tmp_path, number)
    with pytest.raises((KeyboardInterrupt, SystemExit)), stack:
        pytest.fail("the stack came up")
    assert stack.passed
    assert not stack.database.is_running()
    assert signal.getsignal(number) is handler
    with pytest.raises(UnavailableError, match="not up"):
        _ = stack.database_url


@pytest.fixture
def database(tmp_path):
    started = []

    def start():
        cluster = Cluster.prepare(tmp_path, port=processes.free_port("a test"))
        started.append(cluster.start())
        started[-1].await_ready(cluster.is_ready, deadline_s=30)
        return cluster, started[-1].process

    yield start
    for child in started:
        child.stop(grace_s=10)


def test_a_killed_database_starts_again_with_its_data(database, tmp_path):
    cluster, process = database()
    cluster.create_databases(["seatrial", "prefect"])
    process.kill()
    process.wait()
    # After a restart of the machine the number in the file is any process's.
    stale = tmp_path / "postgres" / "postmaster.pid"
    lines = stale.read_text().splitlines()
    stale.write_text("\n".join([str(os.getpid()), *lines[1:]]))

    cluster, _ = database()
    cluster.create_databases(["seatrial", "prefect"])
    with connected(cluster.url("prefect", driver="psycopg")) as connection:
        # Prefect's migrations need this extension, which not every packaged PostgreSQL has.
        connection.execute("CREATE EXTENSION pg_trgm")


def test_a_database_that_outlived_its_stack_is_ended_before_the_next(database):
    _, orphan = database()
    database()
    assert orphan.wait(10) is not None


def test_only_marked_processes_are_ended(tmp_path):
    home = tmp_path / "home"
    in_own_group = "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    parent = processes.start("parent", [sys.executable, "-c", in_own_group], home=home, **SILENT)
    parent.await_end(deadline_s=20)
    orphan = psutil.Process(int(parent.output()))
    other = processes.start("other", ["sleep", "600"], home=tmp_path / "elsewhere", **SILENT)
    try:
        assert processes.stop_marked(home, grace_s=10) == 1
        assert alive([orphan]) == []
        assert other.is_running
    finally:
        other.stop(grace_s=10)


def test_a_part_that_ignores_the_signal_is_killed_with_all_it_started(tmp_path):
    # One child shares its group and one does not.
    deaf = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "600"])
subprocess.Popen(["sleep", "600"], start_new_session=True)
time.sleep(600)
"""
    part = processes.start("deaf", [sys.executable, "-c", deaf], home=tmp_path, **SILENT)
    leader = psutil.Process(part.process.pid)
    part.await_ready(lambda: len(leader.children()) == 2, deadline_s=10)
    below = leader.children()
    part.stop(grace_s=0.2)
    assert alive([leader, *below]) == []


def test_a_part_that_ends_early_shows_its_last_words(tmp_path):
    part = processes.start("part", ["sh", "-c", "echo no such table; exit 3"], home=tmp_path, **SILENT)
    with pytest.raises(UnavailableError, match=r"(?s)part: ended with code 3; .*no such table"):
        part.await_ready(lambda: False, deadline_s=20)


def test_a_part_that_never_answers_is_not_ready(tmp_path):
    part = processes.start("part", ["sleep", "600"], home=tmp_path, **SILENT)
    try:
        with pytest.raises(UnavailableError, match=r"part: not ready after 0.2 s"):
            part.await_ready(lambda: False, deadline_s=0.2)
    finally:
        part.stop(grace_s=10)


def test_what_is_not_up_is_refused_not_guessed(tmp_path):
    stack = Stack(tmp_path)
    with pytest.raises(NotFoundError, match="server"):
        stack.stop_process("server")
    with pytest.raises(UnavailableError, match="enter it first"):
        _ = stack.environment


def test_wiping_takes_the_home_and_what_a_killed_stack_left(tmp_path):
    home = tmp_path / "home"
    orphan = processes.start("orphan", ["sleep", "600"], home=home, **SILENT)
    assert run_to_end("--wipe", "--home", str(home)).returncode == 0
    assert orphan.await_end(deadline_s=10) == -signal.SIGTERM
    assert not home.exists()
