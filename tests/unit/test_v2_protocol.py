import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from seatrial.adapters.v2 import ModelAddress, V2Scorer, Wiring, wiring_of
from seatrial.adapters.v2.protocol import (
    model_metadata,
    refuse_failure,
    repository_index,
    request_body,
    says_ready,
    scores_of,
    server_metadata,
)
from seatrial.errors import NotFoundError, RefusedError, UnavailableError

ADDRESS = ModelAddress("fraud", "3")
WIRING = Wiring(("distance", "hour"), "rows", ("FP64",), "score")
ROWS = [[1.0, 2.0], [3.0, 4.0]]
OUTPUT = {"name": "score", "datatype": "FP64", "shape": [2], "data": [0.25, 0.5]}
ANSWER = {"model_name": "fraud", "model_version": "3", "id": "q", "outputs": [OUTPUT]}
METADATA = {
    "name": "fraud",
    "versions": ["2", "3"],
    "platform": "",
    "inputs": [{"name": "rows", "datatype": "FP64", "shape": [-1, 2]}],
    "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1, 1]}],
}


def read(wiring=WIRING, answer=ANSWER, **changes):
    return scores_of(json.dumps({**answer, **changes}).encode(), wiring, ADDRESS, rows=2, request_id="q")


def output(**changes):
    return [{**OUTPUT, **changes}]


def test_a_name_cannot_leave_its_place_in_the_address():
    assert ModelAddress("a/../b", "1?x").path == "v2/models/a%2F..%2Fb/versions/1%3Fx"


def test_rows_become_one_tensor_of_the_order_that_the_model_reads():
    (tensor,) = json.loads(request_body(WIRING, ROWS, request_id="q"))["inputs"]
    assert tensor == {"name": "rows", "shape": [2, 2], "datatype": "FP64", "data": [1.0, 2.0, 3.0, 4.0]}


def test_each_column_becomes_a_tensor_where_the_model_reads_them_apart():
    wiring = Wiring(("distance", "hour"), None, ("FP32", "INT64"), "score")
    distance, hour = json.loads(request_body(wiring, ROWS, request_id="q"))["inputs"]
    assert (distance["name"], distance["shape"], distance["data"]) == ("distance", [2, 1], [1.0, 3.0])
    assert (hour["datatype"], hour["data"]) == ("INT64", [2, 4])


def test_a_missing_value_is_sent_as_null_for_json_has_no_nan():
    (tensor,) = json.loads(request_body(WIRING, [[math.nan, 1.0]], request_id="q"))["inputs"]
    assert tensor["data"] == [None, 1.0]


@pytest.mark.parametrize(
    ("datatypes", "row"),
    [(("FP64", "FP64"), [math.inf, 1.0]), (("INT64", "FP64"), [1.5, 1.0]), (("INT64", "FP64"), [math.nan, 1.0])],
)
def test_a_value_that_the_model_cannot_have_is_not_sent(datatypes, row):
    with pytest.raises(RefusedError, match="'distance'"):
        request_body(Wiring(WIRING.columns, None, datatypes, "score"), [row], request_id="q")


def test_a_row_of_another_width_is_not_sent():
    with pytest.raises(RefusedError, match=r"rows of \[1\] values; expected 2"):
        request_body(WIRING, [[1.0]], request_id="q")


@pytest.mark.parametrize("shape", [[2], [2, 1], [2, 1, 1]])
def test_a_score_for_each_row_is_read(shape):
    assert read(outputs=output(shape=shape)) == [0.25, 0.5]


def test_nested_data_are_read_in_the_order_of_rows():
    assert read(outputs=output(shape=[2, 1], data=[[0.25], [0.5]])) == [0.25, 0.5]


def test_a_classifier_gives_the_score_in_its_second_column():
    wiring = Wiring(WIRING.columns, "rows", ("FP64",), "score", position=1)
    assert read(wiring, outputs=output(shape=[2, 2], data=[0.75, 0.25, 0.5, 0.5])) == [0.25, 0.5]


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": output(data=[0.25])},
        {"outputs": output(data=[0.25, 0.5, 0.75])},
        {"outputs": output(shape=[1], data=[0.25])},
        {"outputs": output(shape=[1])},
        {"outputs": output(shape=[3])},
        {"outputs": output(shape=[2, 2], data=[0.75, 0.25, 0.5, 0.5])},
        {"outputs": output(shape=[], data=[])},
        {"outputs": output(shape=[-2])},
        {"outputs": output(shape=["2"])},
        {"outputs": output(shape=None)},
        {"outputs": output(data=[None, 0.5])},
        {"outputs": output(data=["0.25", 0.5])},
        {"outputs": output(data=[True, 0.5])},
        {"outputs": output(data=0.25)},
        {"outputs": output(datatype="INT64", data=[0, 1])},
        {"outputs": output(datatype="BYTES")},
        {"outputs": output(name="another")},
        {"outputs": [OUTPUT, OUTPUT]},
        {"outputs": []},
        {"outputs": None},
        {"outputs": [1]},
        {"model_name": "another"},
        {"model_name": None},
        {"model_version": "4"},
        {"id": "another"},
    ],
    ids=str,
)
def test_an_answer_that_is_not_exactly_what_was_asked_is_none(changes):
    with pytest.raises(UnavailableError, match="Open Inference Protocol"):
        read(**changes)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"<html>", b'{"outputs": [{"data": [NaN]}]}'])
def test_what_is_no_json_object_is_no_answer(content):
    with pytest.raises(UnavailableError):
        scores_of(content, WIRING, ADDRESS, rows=2, request_id="q")


def test_a_server_without_versions_need_not_name_one():
    assert read(model_version=None, id=None) == [0.25, 0.5]


def test_an_answer_of_a_version_that_nobody_named_is_refused_for_the_next_load_would_change_the_model():
    with pytest.raises(RefusedError, match="expected that the release names it"):
        scores_of(json.dumps(ANSWER).encode(), WIRING, ModelAddress("fraud"), rows=2, request_id="q")


def test_many_rows_are_asked_for_in_parts_and_in_order():
    asked = []

    def infer(_address, _wiring, rows):
        asked.append(len(rows))
        return [row[0] for row in rows]

    scorer = V2Scorer(SimpleNamespace(infer=infer), ADDRESS, WIRING)
    matrix = np.arange(5_000.0).reshape(2_500, 2)
    assert scorer.score_all(matrix).tolist() == matrix[:, 0].tolist()
    assert asked == [1_000, 1_000, 500]


def described(**changes):
    return model_metadata(json.dumps({**METADATA, **changes}).encode(), ADDRESS)


def tensors(*shapes, names=None, datatype="FP64"):
    names = names or [f"t{at}" for at in range(len(shapes))]
    return [{"name": n, "datatype": datatype, "shape": s} for n, s in zip(names, shapes, strict=True)]


def test_the_served_contract_says_how_features_reach_the_model():
    assert wiring_of(described(), WIRING.columns) == WIRING
    apart = described(inputs=tensors([-1, 1], [-1], names=["hour", "distance"]))
    assert wiring_of(apart, WIRING.columns) == Wiring(WIRING.columns, None, ("FP64", "FP64"), "score")
    classifier = described(outputs=tensors([-1], [-1, 2], names=["label", "probabilities"]))
    assert wiring_of(classifier, WIRING.columns, output="probabilities").position == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": tensors([-1, 3])},
        {"inputs": tensors([-1])},
        {"inputs": tensors([-1, 2], datatype="BYTES")},
        {"inputs": tensors([-1], [-1], names=["distance", "minute"])},
        {"inputs": tensors([-1], names=["distance"])},
        {"inputs": tensors([-1], [-1], names=["distance", "hour"], datatype="BYTES")},
        {"inputs": []},
        {"inputs": None},
        {"outputs": []},
        {"outputs": None},
        {"outputs": tensors([-1], [-1])},
        {"outputs": tensors([-1], datatype="INT64")},
        {"outputs": tensors([-1, 3])},
    ],
    ids=str,
)
def test_a_served_contract_that_is_not_that_of_the_release_is_refused(changes):
    with pytest.raises(RefusedError, match="model 'fraud'"):
        wiring_of(described(**changes), WIRING.columns)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"versions": "3"},
        {"inputs": [{"name": "rows", "datatype": "FP65", "shape": [-1]}]},
        {"inputs": [{"datatype": "FP64", "shape": [-1]}]},
        {"inputs": [{"name": "rows", "datatype": "FP64", "shape": [True]}]},
    ],
    ids=str,
)
def test_half_a_description_is_none(changes):
    with pytest.raises(UnavailableError):
        described(**changes)


@pytest.mark.parametrize(
    ("status", "content", "is_ready"),
    [
        (200, b"", True),
        (200, b"{}", True),
        (200, b'{"name": "fraud", "ready": true}', True),
        (200, b'{"ready": false}', False),
        (200, b'{"live": false}', False),
        (200, b'{"ready": "no"}', False),
        (200, b"<html>", False),
        (204, b"", False),
        (302, b"", False),
        (404, b"", False),
        (503, b'{"ready": true}', False),
    ],
)
def test_ready_is_status_200_and_no_word_to_the_contrary(status, content, is_ready):
    assert says_ready(status, content) is is_ready


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, NotFoundError),
        (400, RefusedError),
        (422, RefusedError),
        (302, UnavailableError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
def test_a_failure_says_what_the_caller_does_next(status, error):
    with pytest.raises(error, match=f"HTTP {status}: 'why'"):
        refuse_failure(status, b"why", "here")


def test_what_is_no_metadata_of_a_server_is_refused():
    assert (
        server_metadata(b'{"name": "s", "extensions": ["model_repository"]}', "here").extensions[0]
        == "model_repository"
    )
    for content in (b"{}", b'{"name": "s", "extensions": "all"}', b"no"):
        with pytest.raises(UnavailableError):
            server_metadata(content, "here")


def test_what_is_no_index_of_a_repository_is_refused():
    (line,) = repository_index(b'[{"name": "fraud", "version": "3", "state": "READY", "reason": ""}]', "here")
    assert (line.name, line.version, line.state) == ("fraud", "3", "READY")
    for content in (b"{}", b"[1]", b'[{"version": "3"}]'):
        with pytest.raises(UnavailableError):
            repository_index(content, "here")
