import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from builders import PLAN, STAGES, a_release

from seatrial.cli import main
from seatrial.cli.kinds import Kind, json_schema, kind_of
from seatrial.contracts import Feature, FeatureContract, compare, differences, load_contract
from seatrial.documents import check, load_yaml, parse_yaml
from seatrial.errors import InvalidDocumentError
from seatrial.gates.served import served
from seatrial.plan import Gates
from seatrial.release import Column
from seatrial.verdict import Verdict

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
DOCUMENTS = sorted(CONFIG.rglob("*.yaml"))
COLUMN = {
    "name": "distance",
    "dtype": "float",
    "unit": "mi",
    "nullable": False,
    "meaning": "distance",
    "owner": "data",
}


def a_contract(*changes, version="1", name="flights"):
    features = [{**COLUMN, **change} for change in changes or ({},)]
    document = {"contract": {"name": name, "version": version, "owner": "data"}, "features": features}
    return check(parse_yaml(yaml.safe_dump(document), "contract.yaml"), FeatureContract)


def broken(reader, now):
    found = differences(Column.model_validate({**COLUMN, **reader}), Feature.model_validate({**COLUMN, **now}))
    return [each.is_breaking for each in found]


@pytest.mark.parametrize(
    ("reader", "now", "is_breaking"),
    [
        ({}, {"dtype": "int"}, True),
        ({}, {"unit": "km"}, True),
        ({}, {"nullable": True}, True),
        ({"nullable": True}, {"nullable": False}, False),
        ({"sign": "non_negative"}, {"sign": "any"}, True),
        ({}, {"sign": "non_negative"}, False),
        ({"definition": f"sha256:{'1' * 64}"}, {"definition": f"sha256:{'2' * 64}"}, True),
        ({"definition": f"sha256:{'1' * 64}"}, {}, True),
        ({}, {"definition": f"sha256:{'1' * 64}"}, False),
        ({}, {"owner": "others"}, False),
        ({}, {"meaning": "great circle"}, False),
        ({}, {"quantiles": [1, 2]}, False),
        ({}, {"deprecated": True, "replaced_by": "km"}, False),
    ],
)
def test_what_breaks_a_reader_is_told_from_what_it_should_know(reader, now, is_breaking):
    assert broken(reader, now) == [is_breaking]


def test_a_column_that_is_gone_breaks_and_a_new_one_does_not():
    before, after = a_contract({}, {"name": "hour"}), a_contract({}, {"name": "day"})
    assert [(each.column, each.is_breaking) for each in compare(before.features, after.features)] == [
        ("hour", True),
        ("day", False),
    ]
    assert compare(before.features, before.features) == []


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        (({}, {}), r"features\[1\].name: found 'distance' again"),
        (({"replaced_by": "hour"},), "found a replacement of a column that is not deprecated"),
        (({"deprecated": True, "replaced_by": "hour"},), "found 'hour', expected a column that is served"),
        (({"deprecated": True, "replaced_by": "distance"},), "found 'distance', expected a column that is served"),
        (({"quantiles": [2, 1]},), "found quantiles that fall"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(changes, finding):
    with pytest.raises(InvalidDocumentError, match=finding):
        a_contract(*changes)


def test_the_rollback_target_must_stay_served_and_a_deprecated_column_not_come_anew():
    found = served(a_release(), a_release(), a_contract())
    assert [f.verdict for f in found] == [Verdict.PASS, Verdict.PASS]
    found = served(a_release(), a_release(), a_contract({"deprecated": True}))
    assert [f.verdict for f in found] == [Verdict.INCONCLUSIVE, Verdict.PASS]
    found = served(a_release(), a_release(), a_contract({"unit": "km"}))
    assert found[1].reason == "distance: unit mi is now km; by contract flights 1 of data"
    found = served(a_release(), a_release(), a_contract({"name": "hour"}))
    assert [f.verdict for f in found] == [Verdict.FAIL, Verdict.FAIL]


def test_the_reference_contract_names_every_key():
    text = (CONFIG / "contracts" / "example-contract.yaml").read_text()
    assert load_contract(CONFIG / "contracts" / "example-contract.yaml").name == "flight-delay-example"
    assert [key for key in Feature.model_fields if f"{key}:" not in text] == []


def test_the_contract_of_the_example_promises_what_its_pipeline_computes():
    features = pytest.importorskip("examples.flight_delay.features").FEATURES
    promised = load_contract(CONFIG / "contracts" / "flight-delay.yaml").by_name()
    assert {each.name: (each.unit, each.nullable, each.meaning) for each in features} == {
        name: (each.unit, each.nullable, each.meaning) for name, each in promised.items()
    }


# -- the commands


@pytest.fixture
def run(capsys, monkeypatch):
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "SEATRIAL_SETTINGS"):
        monkeypatch.delenv(name, raising=False)

    def call(*words):
        capsys.readouterr()
        code = main(list(map(str, words)))
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def folder(tmp_path):
    """Documents that agree with one another, to be broken one at a time."""
    gates = {
        **STAGES[0],
        "catalogue": {"actions": {"none": True, "review": True, "rebook": False}},
        "served": {"contract": "flights"},
    }
    plan = {**copy.deepcopy(PLAN), "stages": [gates, *STAGES[1:]]}
    release = a_release().document()
    contract = {"contract": {"name": "flights", "version": "1", "owner": "data"}, "features": [COLUMN]}
    settings = {"logs": "logs", "approvers": {"dana": ["risk-owner"]}}
    documents = {"plan": plan, "release": release, "contract": contract, "seatrial": settings}
    for name, document in documents.items():
        write(tmp_path, name, document)
    return tmp_path


def write(folder, name, document):
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False))


def edit(folder, name, *path, to):
    document = yaml.safe_load((folder / f"{name}.yaml").read_text())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    write(folder, name, document)


def test_lint_finds_every_document_below_the_settings_and_needs_no_server(run, folder):
    code, out, _ = run("lint", "--settings", folder / "seatrial.yaml")
    assert (code, "4 files, no problem" in out) == (0, True)
    shown = json.loads(run("lint", "--settings", folder / "seatrial.yaml", "--json")[1])
    assert sorted(each["kind"] for each in shown["files"]) == ["contract", "plan", "release", "settings"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{n}.yaml" for n in ("plan", "release", "contract", "seatrial")
    )


@pytest.mark.parametrize(
    ("name", "path", "to", "problem"),
    [
        (
            "seatrial",
            ("approvers", "dana"),
            ["reader"],
            "found the role 'risk-owner', which nobody in the settings has",
        ),
        (
            "plan",
            ("stages", 0, "served", "contract"),
            "flight",
            "served.contract: found the contract 'flight', expected",
        ),
        (
            "plan",
            ("stages", 0, "catalogue", "actions"),
            {"none": True, "rebook": False},
            "policy.actions.review: found",
        ),
        (
            "plan",
            ("stages", 0, "catalogue", "actions", "rebook"),
            True,
            "policy.actions.rebook.reversible: found false",
        ),
        ("contract", ("features", 0, "unit"), "km", "features.columns[0]: found 'distance' against contract 'flights'"),
        ("contract", ("features", 0, "name"), "hour", "features.columns[0]: found 'distance', which contract"),
        (
            "plan",
            ("stages", 0, "ownership"),
            {"tiers": {tier: {"roles": ["risk-owner", "board"]} for tier in ("low", "medium", "high")}},
            "stages[0].ownership.tiers.high.roles[1]: found the role 'board'",
        ),
    ],
)
def test_lint_finds_what_no_file_shows_alone(run, folder, name, path, to, problem):
    edit(folder, name, *path, to=to)
    code, _, err = run("lint", "--settings", folder / "seatrial.yaml")
    assert code == 2
    assert problem in err


def test_lint_names_every_problem_of_every_file_at_once(run, folder):
    edit(folder, "plan", "lease", to="12")
    edit(folder, "contract", "features", 0, "dtype", to="text")
    (folder / "notes.yaml").write_text("hello: world\n")
    code, _, err = run("lint", "--settings", folder / "seatrial.yaml")
    assert code == 2
    for problem in ("plan.yaml:", "contract.yaml:", "notes.yaml: found none of the keys plan, release"):
        assert problem in err


def test_one_version_names_one_content(run, folder):
    document = yaml.safe_load((folder / "plan.yaml").read_text())
    write(folder, "plan-x", document | {"lease": "13 h"})
    write(folder, "plan-c", document)
    code, _, err = run("lint", "--settings", folder / "seatrial.yaml")
    assert (code, err.count("plan.version: found standard 1, which is something else in")) == (2, 1)


def test_lint_of_files_that_are_named_reads_only_those(run, folder):
    assert run("lint", folder / "plan.yaml")[0] == 2
    assert run("lint", folder / "plan.yaml", folder / "contract.yaml")[0] == 0


def test_lint_of_nothing_is_not_a_success(run, tmp_path):
    code, _, err = run("lint", "--settings", tmp_path / "seatrial.yaml")
    assert (code, "found no YAML file" in err) == (2, True)


def test_a_policy_alone_is_checked(run, tmp_path):
    write(tmp_path, "policy", {"policy": a_release().document()["policy"]})
    assert run("lint", tmp_path / "policy.yaml")[0] == 0
    edit(tmp_path, "policy", "policy", "default_action", to="noone")
    assert "did you mean 'none'" in run("lint", tmp_path / "policy.yaml")[2]


def test_the_documents_of_the_project_agree(run):
    assert run("lint", "--settings", CONFIG / "seatrial.yaml")[0] == 0


def test_a_diff_of_contracts_ends_with_1_when_readers_are_broken(run, folder):
    document = yaml.safe_load((folder / "contract.yaml").read_text())
    write(folder, "after", document | {"contract": {**document["contract"], "version": "2", "owner": "others"}})
    code, out, _ = run("contract", "diff", folder / "contract.yaml", folder / "after.yaml")
    assert (code, out) == (0, "no difference\n")
    edit(folder, "after", "features", 0, "unit", to="km")
    code, out, _ = run("contract", "diff", folder / "contract.yaml", folder / "after.yaml")
    assert (code, "unit mi is now km" in out) == (1, True)
    shown = json.loads(run("contract", "diff", folder / "after.yaml", folder / "release.yaml", "--json")[1])
    assert shown["differences"] == [{"column": "distance", "what": "unit km is now mi", "is_breaking": True}]


def test_other_content_under_one_version_is_not_compatible(run, folder):
    document = yaml.safe_load((folder / "contract.yaml").read_text())
    write(folder, "after", document)
    edit(folder, "after", "features", 0, "owner", to="others")
    code, out, _ = run("contract", "diff", folder / "contract.yaml", folder / "after.yaml")
    assert (code, "version 1 names two contents" in out) == (1, True)


def test_a_diff_names_the_problems_of_both_files(run, folder):
    edit(folder, "contract", "features", 0, "dtype", to="text")
    code, _, err = run("contract", "diff", folder / "contract.yaml", folder / "plan.yaml")
    assert (code, "dtype" in err, "found neither contract nor release" in err) == (2, True, True)


# -- schemas for editors


@pytest.mark.parametrize("kind", Kind)
def test_published_schemas_are_current(kind, run):
    published = (CONFIG / "schemas" / f"{kind}.schema.json").read_text()
    assert run("schema", kind)[1] == published, "run `make schemas`"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_document_of_the_project_fits_its_published_schema(path):
    document = load_yaml(path)
    schema = json_schema(kind_of(document))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document.data, schema, jsonschema.Draft202012Validator)
    named = path.read_text().splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == CONFIG / "schemas" / f"{kind_of(document)}.schema.json"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("laese",), "12 h"),
        (("lease",), "12"),
        (("budgets", "hold"), "20"),
        (("guardrails", 0, "margin"), "50 %"),
        (("guardrails", 0, "bad_when", 0, "outcome"), {"atleast": 3}),
        (("stages", 0, "catalogue"), {}),
        (("plan", "name"), "With Spaces"),
    ],
)
def test_a_schema_marks_mistakes_that_the_check_refuses(key, value):
    data = load_yaml(CONFIG / "plans" / "example-plan.yaml").data
    place = data
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json_schema(Kind.PLAN), jsonschema.Draft202012Validator)


def test_a_hook_for_commits_runs_a_command_that_exists(run):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    program, command = hook["entry"].split()
    assert (program, run(command, "--help")[0]) == ("seatrial", 0)


def test_every_declared_gate_has_words_for_editors():
    gates = json_schema(Kind.PLAN)["$defs"]["Gates"]["properties"]
    assert set(gates) == set(Gates.model_fields)
    assert all("description" in each for each in gates.values())
