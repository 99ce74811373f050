import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest
import yaml
from prefect import Flow, Task
from prefect.flows import load_flow_from_entrypoint

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CORE = sorted((ROOT / "seatrial").rglob("*.py"))
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
#: The edges, which may read the clock and the environment and print.
CLOCK = {ROOT / "seatrial" / "adapters" / "clock.py", ROOT / "seatrial" / "adapters" / "gateway" / "clock.py"}
#: Waits until another program has taken what it was given.
WAITS = {ROOT / "seatrial" / "adapters" / "envoy" / "agent.py"}
CLI = set((ROOT / "seatrial" / "cli").glob("*.py")) | set((ROOT / "seatrial").glob("cli.py"))


def run(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    return done.returncode, done.stdout + done.stderr


def test_every_import_contract_holds():
    code, output = run(BIN / "lint-imports", "--no-cache", "--no-logo")
    assert code == 0, output
    assert "5 kept, 0 broken" in output


def test_no_module_imports_itself_in_a_circle():
    graph = grimp.build_graph("seatrial", "flows", "tasks", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(list(TopologicalSorter(imports).static_order())) == len(graph.modules) > 50


@pytest.mark.parametrize("package", ["flows", "tasks", "seatrial"])
def test_the_package_that_is_imported_is_the_projects(package):
    assert Path(import_module(package).__file__) == ROOT / package / "__init__.py"


@pytest.mark.parametrize("package", ["flows", "tasks", "deployments"])
def test_no_module_bears_the_name_of_another_library(package):
    # Prefect puts the folder of an entry point on the path: such a module would take the library's place.
    names = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert names & (set(sys.stdlib_module_names) | set(packages_distributions())) == set()


#: What reads the clock, the environment or chance, and who may.
FORBIDDEN = {
    "datetime.datetime.now": CLOCK,
    "datetime.datetime.today": set(),
    "datetime.datetime.utcnow": set(),
    "datetime.date.today": set(),
    "time.time": set(),
    "time.time_ns": set(),
    "time.monotonic": CLI | CLOCK | WAITS,
    "time.sleep": CLI | WAITS,
    "os.environ": CLI,
    "os.getenv": CLI,
    "getpass.getuser": CLI,
    "print": CLI,
}
#: Where a generator is made of a seed that the caller gave.
SEEDED = {name: {ROOT / "seatrial" / "cli" / "planning.py"} for name in ("numpy.random", "numpy.random.default_rng")}
#: Where something is made that must not be guessed: tokens, keys, salts.
SECRET = {ROOT / "seatrial" / "cli" / name for name in ("logs.py", "publishing.py")}
SECRET |= {ROOT / "seatrial" / "adapters" / name for name in ("keys.py", "memory.py", "sql.py", "gateway/engine.py")}
SEEDED |= {f"secrets{name}": SECRET for name in ("", ".token_bytes", ".token_hex", ".token_urlsafe")}
#: Modules of chance; numpy's generators are arguments and not on the list.
CHANCE = {"random", "secrets", "uuid", "numpy.random"}


def names_used(tree):
    """Return the full names that a module uses, seen through its imports, with the line of each."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {
                a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    used = [(name, 0) for name in known.values()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            parts, inner = [], node
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name):
                used.append((".".join([known.get(inner.id, inner.id), *reversed(parts)]), node.lineno))
    return used


def is_of_chance(name):
    return (
        any(name == module or name.startswith(f"{module}.") for module in CHANCE) and name != "numpy.random.Generator"
    )


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_reads_no_clock_no_environment_and_no_chance_and_prints_nothing(path):
    used = names_used(ast.parse(path.read_text()))
    found = [(name, line) for name, line in used if path not in FORBIDDEN.get(name, {path})]
    assert found == []
    assert [name for name, _ in used if is_of_chance(name) and path not in SEEDED.get(name, set())] == []


@pytest.mark.parametrize(
    "text",
    [
        "from datetime import datetime\ndatetime.now()",
        "import datetime as d\nd.datetime.now()",
        "import time\ntime.time()",
        "from time import time",
        "from os import environ",
        "import os\nos.environ['A']",
        "print(1)",
    ],
)
def test_a_clock_or_environment_is_found_under_any_name(text):
    assert any(name in FORBIDDEN for name, _ in names_used(ast.parse(text)))


@pytest.mark.parametrize("text", ["import random", "from uuid import uuid4", "import numpy as np\nnp.random.rand()"])
def test_chance_is_found_under_any_name(text):
    assert any(is_of_chance(name) for name, _ in names_used(ast.parse(text)))


@pytest.mark.parametrize("path", sorted(set(CORE) - CLI), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_has_no_global_that_changes(path):
    tree = ast.parse(path.read_text())
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Global)] == []
    made = [n.value for n in tree.body if isinstance(n, ast.Assign | ast.AnnAssign) and n.value is not None]
    calls = [node.func.id for node in made if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert not {"list", "dict", "set", "defaultdict", "deque", "Counter"} & set(calls)


def things_of(package, kind):
    found = []
    for path in sorted((ROOT / package).glob("*.py")):
        module = import_module(f"{package}.{path.stem}") if path.stem != "__init__" else import_module(package)
        found += [
            (f"{path.stem}.{name}", thing)
            for name, thing in vars(module).items()
            if isinstance(thing, kind) and thing.fn.__module__ == module.__name__
        ]
    return found


def test_flows_are_in_flows_and_tasks_in_tasks():
    assert things_of("flows", Task) == []
    assert things_of("tasks", Flow) == []
    assert len(things_of("flows", Flow)) == len(DEPLOYMENTS)


@pytest.mark.parametrize(("name", "task"), things_of("tasks", Task), ids=[name for name, _ in things_of("tasks", Task)])
def test_every_task_has_a_time_limit_and_the_one_retry_rule_and_remembers_nothing(name, task):
    assert task.timeout_seconds, name
    assert task.retries > 0
    assert task.retry_condition_fn.__name__ == "is_transient"
    assert task.persist_result is False


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=[d["name"] for d in DEPLOYMENTS])
def test_every_entry_point_loads_and_takes_the_parameters_it_is_given(deployment, monkeypatch):
    monkeypatch.chdir(ROOT)
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert flow.fn.__module__ == deployment["entrypoint"].partition(":")[0]
    given = deployment.get("parameters", {})
    assert set(given) <= set(flow.parameters.properties)
    if deployment.get("schedules"):
        assert set(flow.parameters.required or []) <= set(given)
        flow.validate_parameters(given)


#: Keys that Prefect 3.8 reads; it passes over every other one in silence, a misspelt schedule too.
KEYS = {
    (): {"name", "prefect-version", "build", "push", "pull", "definitions", "deployments"},
    ("deployments",): {
        "name",
        "version",
        "tags",
        "description",
        "schedules",
        "concurrency_limit",
        "entrypoint",
        "parameters",
        "enforce_parameter_schema",
        "work_pool",
        "triggers",
        "sla",
        "build",
        "push",
        "pull",
    },
    ("deployments", "schedules"): {
        "slug",
        "interval",
        "anchor_date",
        "cron",
        "day_or",
        "rrule",
        "timezone",
        "active",
        "parameters",
        "max_scheduled_runs",
    },
    ("deployments", "concurrency_limit"): {"limit", "collision_strategy", "grace_period_seconds"},
    ("deployments", "work_pool"): {"name", "work_queue_name", "job_variables"},
}


def unknown_keys(value, at=()):
    if isinstance(value, list):
        return [found for each in value for found in unknown_keys(each, at)]
    if not isinstance(value, dict) or at not in KEYS:
        return []
    unknown = [(*at, key) for key in value if key not in KEYS[at]]
    return unknown + [found for key, inner in value.items() for found in unknown_keys(inner, (*at, key))]


def test_prefect_yaml_has_no_key_that_prefect_would_pass_over():
    assert unknown_keys(yaml.safe_load((ROOT / "prefect.yaml").read_text())) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("deployment: []", [("deployment",)]),
        ("deployments: [{schedule_s: []}]", [("deployments", "schedule_s")]),
        ("deployments: [{schedules: [{intervall: 60}]}]", [("deployments", "schedules", "intervall")]),
        ("deployments: [{concurrency_limit: {limits: 1}}]", [("deployments", "concurrency_limit", "limits")]),
        ("deployments: [{work_pool: {pool: a}}]", [("deployments", "work_pool", "pool")]),
    ],
)
def test_a_misspelt_key_is_found_at_every_depth(text, found):
    assert unknown_keys(yaml.safe_load(text)) == found


def test_deployments_have_names_of_their_own_and_schedules_a_slug():
    names = [deployment["name"] for deployment in DEPLOYMENTS]
    assert len(names) == len(set(names))
    for deployment in DEPLOYMENTS:
        for schedule in deployment.get("schedules", []):
            # Without a slug every deploy adds a schedule instead of changing the one that is there.
            assert schedule.keys() >= {"slug", "active"}
            assert ("interval" in schedule) != ("cron" in schedule)


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "--no-cache", "."), ("ruff", "format", "--no-cache", "--check", "."), ("mypy",)],
    ids=" ".join,
)
def test_style_and_types_hold(command):
    code, output = run(BIN / command[0], *command[1:])
    assert code == 0, output


def test_mypy_is_strict():
    options = (ROOT / "pyproject.toml").read_text()
    assert "[tool.mypy]\nstrict = true" in options
    assert os.access(BIN / "mypy", os.X_OK)
