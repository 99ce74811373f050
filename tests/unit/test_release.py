import json
import math
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from seatrial.documents import Document, check, parse_yaml
from seatrial.errors import InvalidDocumentError, NotFoundError, RefusedError
from seatrial.release import Authority, Release, SegmentRule, common_unit, load_release, verify_files
from seatrial.units import digest_bytes

EXAMPLE = Path(__file__).parents[2] / "config" / "releases" / "example-release.yaml"
A, B, C, D, E, F = (f"sha256:{letter * 64}" for letter in "abcdef")

TEXT = f"""\
release: {{name: better, version: "2", decision_point: flight-delay}}
model: {{artifact: better/model.txt, digest: "{A}", format: lightgbm-text}}
training:
  snapshot: flights of January to March
  digest: "{B}"
  as_of: 2013-04-01T00:00:00+00:00
  code: git 4c0f2d1
  trained_by: ada
  features_digest: "{C}"
features:
  version: "3"
  columns:
    - {{name: delay, dtype: float, unit: min, nullable: true, meaning: mean delay, owner: ops, quantiles: [0, 5, 9]}}
    - {{name: carrier, dtype: category, unit: none, nullable: false, meaning: carrier, owner: ops}}
output: {{kind: probability, range: [0, 1], positive: late}}
policy:
  version: "1"
  default_action: none
  actions: {{none: {{reversible: true}}, review: {{reversible: true}}, rebook: {{reversible: false}}}}
  cut_offs:
    default: [{{action: rebook, at_least: 0.60}}, {{action: review, at_least: 0.35}}]
    commuter: [{{action: review, at_least: 0.40}}]
segments:
  salt: grain
  default: everyone
  rules:
    - {{name: commuter, when: {{carrier: [OO, YV]}}}}
    - {{name: jersey, when: {{origin: [EWR], carrier: [UA]}}}}
runtime: {{engine: lightgbm, version: "4.7", python: "3.11"}}
evaluation:
  report: better/report.json
  digest: "{D}"
  metrics: {{log_loss: 0.41, auc: 0.74}}
  dataset_digest: "{E}"
limits: {{p99_ms: 50, timeout_ms: 200, memory_mb: 512}}
rollback_target: "{F}"
owner: {{team: ops, person: ada}}
risk_tier: medium
"""


def release_of(text=TEXT):
    return check(parse_yaml(text, "release.yaml"), Release)


def edited(*edits):
    text = TEXT
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} must stand once"
        text = text.replace(old, new)
    return text


def refused(*edits):
    with pytest.raises(InvalidDocumentError) as caught:
        release_of(edited(*edits))
    return caught.value.problems


def test_the_reference_example_loads_and_names_every_key():
    text = EXAMPLE.read_text()
    assert load_release(EXAMPLE).name == "flight-delay-better"
    schema = Release.model_json_schema(mode="serialization")
    keys = {key for each in [schema, *schema["$defs"].values()] for key in each.get("properties", {})}
    assert [key for key in keys if f"{key}:" not in text] == []


def test_every_key_says_what_it_means():
    schema = Release.model_json_schema(mode="serialization")
    for model in [schema, *schema["$defs"].values()]:
        assert [key for key, value in model.get("properties", {}).items() if not value.get("description")] == []


def test_a_release_is_typed_values():
    release = release_of()
    assert (release.name, release.version, release.decision_point) == ("better", "2", "flight-delay")
    assert release.output.range == (0.0, 1.0)
    assert release.training.as_of.isoformat() == "2013-04-01T00:00:00+00:00"
    assert release.policy.authority is Authority.DECIDE
    assert Authority.OBSERVE < Authority.RECOMMEND < Authority.DECIDE_WITH_REVIEW < Authority.DECIDE_REVERSIBLE


@pytest.mark.parametrize(
    "part",
    [
        *("release", "model", "training", "features", "output", "policy", "segments", "runtime", "evaluation"),
        *("limits", "rollback_target", "owner", "risk_tier"),
    ],
)
def test_every_part_of_the_contract_is_mandatory(part):
    document = {key: value for key, value in parse_yaml(TEXT, "x").data.items() if key != part}
    with pytest.raises(InvalidDocumentError) as caught:
        check(Document("release.yaml", document), Release)
    (problem,) = caught.value.problems
    assert problem.place == f"release.yaml {part}"
    assert problem.finding == "found no such key, expected it"
    assert problem.remedy.startswith(f"add it: {part} is ")


@pytest.mark.parametrize("key", ["snapshot", "digest", "as_of", "code", "trained_by", "features_digest"])
def test_what_produced_the_model_is_mandatory(key):
    document = parse_yaml(TEXT, "x").data
    del document["training"][key]
    with pytest.raises(InvalidDocumentError, match=rf"release.yaml training.{key}: found no such key"):
        check(Document("release.yaml", document), Release)


@pytest.mark.parametrize(
    ("old", "new", "place", "finding"),
    [
        ("better/model.txt", "/etc/passwd", "2 model.artifact", "expected a path below the manifest"),
        ("better/model.txt", "../model.txt", "2 model.artifact", "expected a path below the manifest"),
        ("better/model.txt", "a/../../b", "2 model.artifact", "expected a path below the manifest"),
        ("better/model.txt", ".", "2 model.artifact", "expected a path below the manifest"),
        ("better/model.txt", "a\\\\b", "2 model.artifact", "expected a path below the manifest"),
        (A, "sha256:12", "2 model.digest", "found 'sha256:12', expected a digest"),
        ("2013-04-01T00:00:00+00:00", "2013-04-01", "6 training.as_of", "expected a time with its zone"),
        (
            "dtype: float",
            "dtype: double",
            "13 features.columns[0].dtype",
            "expected 'float', 'int', 'category' or 'bool'",
        ),
        ("nullable: true", "nullable: 1", "13 features.columns[0].nullable", "found 1, expected true or false"),
        ("unit: min", "unit: ''", "13 features.columns[0].unit", "found empty text, expected words"),
        ("name: delay", "name: mean delay", "13 features.columns[0].name", "expected a column name"),
        ("kind: probability", "kind: score", "15 output.kind", "expected 'probability', 'rank' or 'amount'"),
        ("[0, 1]", "[0]", "15 output.range", "found a list, expected more entries"),
        ("[0, 1]", "[0, 1, 2]", "15 output.range", "found a list, expected at most 2 entries"),
        ("[0, 1]", "[0, one]", "15 output.range[1]", "found 'one', expected a number"),
        ("at_least: 0.40", "at_least: high", "22 policy.cut_offs.commuter[0].at_least", "expected a number"),
        ("{reversible: false}", "{reversible: no}", "19 policy.actions.rebook.reversible", "expected true or false"),
        ("rebook: {", "Rebook: {", "19 policy.actions.Rebook", "found 'Rebook', expected a name"),
        ("{carrier: [OO, YV]}", "{}", "27 segments.rules[0].when", "found a mapping, expected at least 1 entries"),
        ("[OO, YV]", "[]", "27 segments.rules[0].when.carrier", "found an empty list, expected at least 1 entries"),
        ("[OO, YV]", "[OO, 1]", "27 segments.rules[0].when.carrier[1]", "found 1, expected text"),
        ("log_loss: 0.41", "log_loss: low", "33 evaluation.metrics.log_loss", "found 'low', expected a number"),
        ("{log_loss: 0.41, auc: 0.74}", "{}", "33 evaluation.metrics", "found a mapping, expected at least 1 entries"),
        ("p99_ms: 50", "p99_ms: 0", "35 limits.p99_ms", "found 0, expected a number above 0"),
        ("memory_mb: 512", "memory_mb: 1 GB", "35 limits.memory_mb", "found '1 GB', expected a number"),
        (f'"{F}"', "latest", "36 rollback_target", "found 'latest', expected a digest"),
        (f'"{F}"', "3", "36 rollback_target", "found 3, expected a release id"),
        ("risk_tier: medium", "risk_tier: middling", "38 risk_tier", "expected one of 'low', 'medium' or 'high'"),
        ('version: "4.7"', "version: 4.7", "29 runtime.version", "found 4.7, expected text (a number needs quotes"),
    ],
)
def test_a_wrong_value_is_refused_with_what_its_key_means(old, new, place, finding):
    problems = [problem for problem in refused((old, new)) if finding in problem.finding]
    assert [problem.place for problem in problems] == [f"release.yaml:{place}"]
    (key,) = re.findall(r"^correct it: (\w+) is ", problems[0].remedy)
    assert re.search(rf"\b{key}\b", place)


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize("old", ["log_loss: 0.41", "timeout_ms: 200", "at_least: 0.40"])
def test_a_number_that_is_not_finite_is_refused(old, number):
    (problem,) = refused((old, f"{old.partition(':')[0]}: {number}"))
    assert problem.finding == f"found '{number}', expected a finite number"
    assert problem.remedy == "write the number that is meant"


@pytest.mark.parametrize(
    ("old", "new", "place", "finding", "remedy"),
    [
        ("name: carrier, dtype", "name: delay, dtype", "14 features.columns[1].name", "found 'delay' again", "rename"),
        ("[0, 5, 9]", "[0, 9, 5]", "13 features.columns[0].quantiles", "found quantiles that fall", "sort them"),
        (
            "dtype: float",
            "dtype: bool",
            "13 features.columns[0].quantiles",
            "quantiles of a bool column",
            "remove them",
        ),
        ("[0, 1]", "[1, 0]", "15 output.range", "found [1, 0], expected the least score first", "swap the two"),
        ("[0, 1]", "[1, 1]", "15 output.range", "found [1, 1], expected the least score first", "swap the two"),
        (
            "[0, 1]",
            "[0, 100]",
            "15 output.range",
            "expected a range of probabilities within [0, 1]",
            "correct the range",
        ),
        (
            "default_action: none",
            "default_action: nona",
            "18 policy.default_action",
            "undeclared action 'nona'",
            "did you",
        ),
        (
            "salt: grain",
            "salt: grain\n  pins: []",
            "25 segments.pins",
            "found the unknown key 'pins'",
            "known: default",
        ),
        (
            "    default: [",
            "    standard: [",
            "20 policy.cut_offs.default",
            "found no such key",
            "add it: default holds",
        ),
        (
            "rebook, at",
            "refund, at",
            "21 policy.cut_offs.default[0].action",
            "undeclared action 'refund'",
            "known: none",
        ),
        ("0.60", "0.35", "21 policy.cut_offs.default[1].at_least", "found 0.35 after 0.35, expected less", "write the"),
        ("0.60", "0.30", "21 policy.cut_offs.default[1].at_least", "found 0.35 after 0.3, expected less", "write the"),
        (
            "0.40",
            "1.40",
            "22 policy.cut_offs.commuter[0].at_least",
            "found 1.4, expected a score in",
            "correct the cut",
        ),
        (
            "    commuter:",
            "    comuter:",
            "22 policy.cut_offs.comuter",
            "unknown segment 'comuter'",
            "did you mean 'com",
        ),
        ("name: jersey", "name: commuter", "28 segments.rules[1].name", "found 'commuter' again", "rename or remove"),
        (
            "name: jersey",
            "name: everyone",
            "28 segments.rules[1].name",
            "which is the default segment",
            "rename the rule",
        ),
        ("name: jersey", "name: default", "28 segments.rules[1].name", "which names the cut-offs", "rename the rule"),
        (
            "timeout_ms: 200",
            "timeout_ms: 20",
            "35 limits.timeout_ms",
            "found 20, expected at least p99_ms",
            "raise time",
        ),
        (f'"{F}"', "none", "36 rollback_target", "found none, expected a release to return to", "name the release"),
        ("owner: {team", "first_release: true\nowner: {team", "37 first_release", "beside a rollback target", "remove"),
    ],
)
def test_parts_agree_with_each_other(old, new, place, finding, remedy):
    problems = [problem for problem in refused((old, new)) if finding in problem.finding]
    assert [problem.place for problem in problems] == [f"release.yaml:{place}"]
    assert problems[0].remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.60", "1.00"),
        ("0.40", "0"),
        ("[0, 5, 9]", "[0, 0, 9]"),
        ("timeout_ms: 200", "timeout_ms: 50"),
        ("kind: probability, range: [0, 1]", "kind: amount, range: [-5, 1e6]"),
        ("[{action: review, at_least: 0.40}]", "[]"),
    ],
)
def test_a_value_at_its_bound_is_accepted(old, new):
    assert release_of(edited((old, new)))


def test_only_a_first_release_returns_to_nothing():
    assert release_of(edited((f'"{F}"', "none\nfirst_release: true"))).rollback_target is None


def test_two_segments_that_share_a_unit_are_refused_with_that_unit():
    (problem,) = refused(("{carrier: [OO, YV]}", "{carrier: [UA, OO], dest: [LAX]}"))
    assert problem.place == "release.yaml:28 segments.rules[1].when"
    assert problem.finding == (
        "found that 'commuter' and 'jersey' both match the unit carrier='UA', dest='LAX', origin='EWR'"
    )
    assert problem.remedy == "narrow one of them until no unit matches both"


@pytest.mark.parametrize(
    ("first", "second", "unit"),
    [
        ({"a": ["x"]}, {"a": ["y"]}, None),
        ({"a": ["x"]}, {"b": ["y"]}, {"a": "x", "b": "y"}),
        ({"a": ["x", "y"], "b": ["1"]}, {"a": ["y"], "b": ["2"]}, None),
        ({"a": ["x", "y"], "b": ["1"]}, {"a": ["y", "z"]}, {"a": "y", "b": "1"}),
    ],
)
def test_two_conjunctions_share_a_unit_unless_one_column_keeps_them_apart(first, second, unit):
    rules = [SegmentRule.model_validate({"name": f"s{at}", "when": when}) for at, when in enumerate([first, second])]
    assert common_unit(*rules) == common_unit(*reversed(rules)) == unit
    if unit is not None:
        assert all(rule.matches(unit) for rule in rules)


@pytest.mark.parametrize(
    ("attributes", "segment"),
    [
        ({"carrier": "OO"}, "commuter"),
        ({"carrier": "UA", "origin": "EWR"}, "jersey"),
        ({"carrier": "UA", "origin": "JFK"}, "everyone"),
        ({"carrier": "UA"}, "everyone"),
        ({"carrier": None}, "everyone"),
        ({"carrier": ["OO"]}, "everyone"),
        ({}, "everyone"),
    ],
)
def test_a_unit_is_in_the_segment_whose_every_column_it_matches(attributes, segment):
    assert release_of().segments.segment_of(attributes) == segment


def test_a_segment_is_described_by_its_rule():
    segments = release_of().segments
    assert segments.names() == ("everyone", "commuter", "jersey")
    assert segments.rule("jersey") == {"origin": ("EWR",), "carrier": ("UA",)}


def test_the_default_segment_is_everybody_only_when_it_is_alone():
    segments = release_of().segments
    with pytest.raises(RefusedError, match="'everyone': found the default segment, which is what the rules leave over"):
        segments.rule("everyone")
    assert segments.model_copy(update={"rules": ()}).rule("everyone") == {}


def test_an_unknown_segment_is_not_everybody():
    with pytest.raises(NotFoundError, match="segment 'jersy': not found; did you mean 'jersey'"):
        release_of().segments.rule("jersy")


@pytest.mark.parametrize(
    ("score", "segment", "recommendation"),
    [
        (1.0, "everyone", ("rebook", 0.6, "default[0]")),
        (0.6, "everyone", ("rebook", 0.6, "default[0]")),
        (math.nextafter(0.6, 0), "everyone", ("review", 0.35, "default[1]")),
        (0.35, "jersey", ("review", 0.35, "default[1]")),
        (0.34, "everyone", ("none", None, "default_action")),
        (0.0, "everyone", ("none", None, "default_action")),
        (0.38, "commuter", ("none", None, "default_action")),
        (0.9, "commuter", ("review", 0.4, "commuter[0]")),
    ],
)
def test_a_score_selects_the_highest_cut_off_it_reaches(score, segment, recommendation):
    assert release_of().decide(score, segment) == recommendation


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, -1e-9, 1.0000001])
def test_a_score_outside_the_contract_selects_no_action(score):
    with pytest.raises(ValueError, match="expected a finite score from 0 to 1; fall back"):
        release_of().decide(score, "everyone")


def test_an_infinite_score_selects_no_action_even_in_a_huge_range():
    policy = release_of().policy
    with pytest.raises(ValueError, match="expected a finite score"):
        policy.decide(math.inf, "everyone", within=(0.0, math.inf))


def test_the_safe_action_is_the_fallback_or_the_default_action():
    assert release_of().policy.safe_action == "none"
    assert release_of(edited(("actions:", "fallback: review\n  actions:"))).policy.safe_action == "review"
    (problem,) = refused(("actions:", "fallback: revue\n  actions:"))
    assert str(problem) == (
        "release.yaml:19 policy.fallback: found the undeclared action 'revue'; did you mean 'review'?"
    )


def test_an_unknown_authority_is_refused():
    (problem,) = refused(("actions:", "authority: decide_all\n  actions:"))
    assert problem.place == "release.yaml:19 policy.authority"
    assert problem.finding.startswith("found 'decide_all', expected one of observe, recommend, decide_with_review")


def test_many_mistakes_are_reported_at_once_cross_field_ones_included():
    problems = refused(
        ("  code: git 4c0f2d1\n", ""),
        ("unit: min", "unit: 3"),
        ("0.60", "0.20"),
        ("{carrier: [OO, YV]}", "{carrier: [UA]}"),
        ("timeout_ms: 200", "timeout_ms: 20"),
        ("risk_tier: medium", "risk_teir: medium"),
    )
    assert {problem.place.removeprefix("release.yaml:") for problem in problems} == {
        "3 training.code",
        "12 features.columns[0].unit",
        "20 policy.cut_offs.default[1].at_least",
        "27 segments.rules[1].when",
        "34 limits.timeout_ms",
        "37 risk_teir",
        "1 risk_tier",
    }


def test_the_canonical_form_does_not_drift():
    # A changed digest would orphan every release that a ledger names; change it only together with a migration.
    assert release_of().id == "sha256:389e79e191f42403940edfd4591c26aa730f03807598fc7f0075cf1bbec091df"


@pytest.mark.parametrize(
    ("old", "new"),
    [("better/model.txt", "elsewhere/model.txt"), ("better/report.json", "r.json"), ("p99_ms: 50", "p99_ms: 50.0")],
)
def test_where_a_file_lies_and_how_a_number_is_spelled_are_no_part_of_the_id(old, new):
    assert release_of(edited((old, new))).id == release_of().id


def test_the_moment_of_training_is_the_same_in_every_zone():
    moved = edited(("2013-04-01T00:00:00+00:00", "2013-04-01T02:00:00+02:00"))
    assert release_of(moved).id == release_of().id


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        (A, F.replace("f", "0"), "model"),
        ("code: git 4c0f2d1", "code: git 0000000", "training"),
        ("unit: min", "unit: s", "features"),
        ("positive: late", "positive: on time", "output"),
        ("0.60", "0.61", "policy"),
        ("salt: grain", "salt: coarse", "segments"),
        ('"4.7"', '"4.8"', "runtime"),
        ("auc: 0.74", "auc: 0.75", "evaluation"),
        ("p99_ms: 50", "p99_ms: 51", "limits"),
    ],
)
def test_a_release_that_changes_one_part_shares_the_other_digests(old, new, part):
    before, after = release_of(), release_of(edited((old, new)))
    changed = {key for key, digest in after.components().items() if digest != before.components()[key]}
    assert changed == {part}
    assert after.id != before.id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: better", "name: best"),
        (f'"{F}"', f'"{A}"'),
        ("person: ada", "person: bob"),
        ("risk_tier: medium", "risk_tier: high"),
    ],
)
def test_a_promise_outside_the_parts_is_part_of_the_id(old, new):
    before, after = release_of(), release_of(TEXT.replace(old, new))
    assert after.components() == before.components()
    assert after.id != before.id


def test_a_copy_with_a_change_has_an_id_of_its_own():
    release = release_of()
    assert release.id != release.model_copy(update={"rollback_target": A}).id


def test_the_canonical_document_reads_back_as_an_equal_release():
    first = edited((f'"{F}"', "none\nfirst_release: true"), ("actions:", "authority: recommend\n  actions:"))
    for release in (release_of(), release_of(first), load_release(EXAMPLE)):
        stored = Release.model_validate_json(release.model_dump_json())
        assert check(Document("ledger", release.document()), Release) == release == stored
        assert stored.id == release.id


def test_a_release_made_in_python_holds_the_same_rules():
    data = {**parse_yaml(TEXT, "x").data, "first_release": True}
    with pytest.raises(ValidationError, match="found true beside a rollback target"):
        Release.model_validate(data)


@pytest.fixture
def filed(tmp_path):
    """Return a function that writes model and report, and the manifest that names them."""

    def write(report, model=b"tree\n"):
        folder = tmp_path / "better"
        folder.mkdir(exist_ok=True)
        (folder / "model.txt").write_bytes(model)
        (folder / "report.json").write_bytes(report)
        return release_of(edited((A, digest_bytes(model)), (D, digest_bytes(report))))

    return write


REPORT = {"metrics": {"log_loss": 0.41, "auc": 0.74}, "dataset_digest": E, "examples": []}


def test_files_that_are_what_was_declared_have_no_problem(filed, tmp_path):
    assert verify_files(filed(json.dumps(REPORT).encode()), tmp_path) == []


def test_missing_files_are_problems(tmp_path):
    artifact, report = verify_files(release_of(), tmp_path)
    assert artifact.place == f"{tmp_path / 'better/model.txt'} model.artifact"
    assert report.place == f"{tmp_path / 'better/report.json'} evaluation.report"
    assert {artifact.finding, report.finding} == {"found no readable file (FileNotFoundError)"}


def test_other_content_than_declared_is_a_problem(filed, tmp_path):
    release = filed(json.dumps(REPORT).encode())
    other = b"another tree\n"
    (tmp_path / "better" / "model.txt").write_bytes(other)
    (problem,) = verify_files(release, tmp_path)
    assert problem.finding == f"found content {digest_bytes(other)}, expected {release.model.digest}"
    assert problem.remedy == "restore the file, or make a new release with the new digest"


@pytest.mark.parametrize(
    ("change", "findings"),
    [
        ({"metrics": {"log_loss": 0.42, "auc": 0.74}}, ["found metrics.log_loss 0.42, expected 0.41"]),
        ({"metrics": {"log_loss": 0.41}}, ["found metrics.auc nothing, expected 0.74"]),
        ({"metrics": {"log_loss": 0.41, "auc": "0.74"}}, ["found metrics.auc '0.74', expected 0.74"]),
        ({"metrics": {**REPORT["metrics"], "brier": 0.2}}, ["found metrics.brier 0.2, expected nothing"]),
        ({"metrics": []}, ["found no metrics, expected an object with the key metrics"]),
        ({"dataset_digest": A}, [f"found dataset_digest '{A[:59]}..., expected '{E[:59]}..."]),
        ({"dataset_digest": None}, [f"found dataset_digest nothing, expected '{E[:59]}..."]),
    ],
)
def test_a_report_that_says_something_else_is_a_problem(filed, tmp_path, change, findings):
    release = filed(json.dumps({**REPORT, **change}).encode())
    assert [problem.finding for problem in verify_files(release, tmp_path)] == findings


@pytest.mark.parametrize(
    "report", [b"", b"[]", b"{", b'{"metrics": {"auc": NaN}}', b"\xff", b"[" * 100_000, b'{"metrics": 1}']
)
def test_a_report_that_cannot_be_read_is_one_problem(filed, tmp_path, report):
    (problem,) = verify_files(filed(report), tmp_path)
    assert problem.place.endswith("evaluation.report")
    assert problem.finding.startswith("found no ")


def test_a_metric_of_one_is_not_true(filed, tmp_path):
    release = filed(json.dumps({**REPORT, "metrics": {"log_loss": 0.41, "auc": True}}).encode())
    release = release.model_copy(
        update={"evaluation": release.evaluation.model_copy(update={"metrics": {"log_loss": 0.41, "auc": 1.0}})}
    )
    (problem,) = verify_files(release, tmp_path)
    assert problem.finding == "found metrics.auc true, expected 1.0"


def test_a_link_out_of_the_folder_is_a_problem(filed, tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"tree\n")
    base = tmp_path / "releases"
    release = filed(json.dumps(REPORT).encode())
    (tmp_path / "better").rename(base)
    (base / "better").mkdir()
    (base / "report.json").rename(base / "better" / "report.json")
    (base / "better" / "model.txt").symlink_to(outside)
    (problem,) = verify_files(release, base)
    assert problem.finding == "found a path that leaves the folder of the manifest"
    assert problem.remedy == "move the file below it"
