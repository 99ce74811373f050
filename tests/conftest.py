from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from deployments import chromium

TESTS = Path(__file__).parent

# What fails in a second comes before what takes minutes.
ORDER = ("doctest", "unit", "laws", "golden", "architecture", "calibration", "integration", "flows", "browser")
# With several processes the longest work comes first, else one of them is left alone with it at the end.
LONGEST_FIRST = ("flows", "browser", "calibration", "integration", "laws", "unit", "doctest", "golden", "architecture")
# These start a server, a worker and a database each: they take turns in one process.
LIVE = ("flows", "browser")

# How long an example takes says more about the machine than about the code.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

# Scripts that made the golden numbers, and those of other environments, need packages that the tests do not.
collect_ignore_glob = ["golden/make_*.py", "integration/kserve_lightgbm.py"]


def pytest_configure() -> None:
    # A program that a shell starts in the background ignores Ctrl-C, and under nohup the end of its terminal, and so
    # does whatever it starts; tests are about programs that heed them.
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def require_chromium() -> Path:
    """Return the path of Chromium; skip the test, which CI counts as a failure, where there is none."""
    program = chromium.find()
    if program is None:
        pytest.skip("no Chromium that starts was found; `make browser` installs it or says what to do")
    return program


def is_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):  # noqa: ARG001 - the hook's signature
    report = yield
    return refuse_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):  # noqa: ARG001 - the hook's signature
    report = yield
    return refuse_skip(report)


def refuse_skip(report):
    if is_ci() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped where CI is set: {reason}; expected every test to run; mend the machine"
    return report


def folder_of(path: Path) -> str:
    inside = path.relative_to(TESTS).parts if path.is_relative_to(TESTS) else ()
    return inside[0] if len(inside) > 1 else "doctest"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    if not hasattr(config, "workerinput") and not config.getoption("numprocesses", None):
        items.sort(key=lambda item: place_of(folder_of(item.path)))
        return
    items.sort(key=lambda item: place_of(folder_of(item.path), LONGEST_FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file together, for they share what was made for them."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - only where several processes run

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return "live" if file.startswith(tuple(f"tests/{folder}/" for folder in LIVE)) else file

    return ByFile(config, log)


def place_of(folder: str, order: tuple[str, ...] = ORDER) -> int:
    return order.index(folder) if folder in order else len(order)


def pytest_terminal_summary(terminalreporter):
    seconds: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    root = terminalreporter.config.rootpath
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                folder = folder_of(root / report.fspath)
                seconds[folder] += report.duration
                tests[folder] += report.when == "call"
    terminalreporter.section("seconds per kind of test")
    for folder in sorted(tests, key=place_of):
        terminalreporter.write_line(f"{folder:<12} {tests[folder]:5d} tests {seconds[folder]:8.1f} s")
