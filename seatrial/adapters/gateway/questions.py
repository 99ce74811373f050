"""What callers may send, read strictly: a question that is not understood is answered with all that is wrong in it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import orjson

from seatrial.adapters.decisions import Unit
from seatrial.errors import InvalidDocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from seatrial.adapters.decisions import Decided

#: Units of one question in the Open Inference Protocol.
MAX_ROWS = 256
_KEYS = frozenset({"unit_key", "attributes", "features"})
_NUMBERS = frozenset({"FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})


def parsed(body: bytes) -> Any:
    """Return the JSON in `body`; raises InvalidDocumentError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidDocumentError([Problem("body", f"found no JSON ({error})", "send JSON in UTF-8")]) from error


def unit_of(question: Any, attributes: Sequence[str]) -> Unit:
    """Return the unit that `question` is about; raises InvalidDocumentError with everything that is wrong."""
    problems = list(_flaws(question, attributes))
    if problems:
        raise InvalidDocumentError(problems)
    features = question["features"]
    if None in features.values():
        features = {name: math.nan if value is None else value for name, value in features.items()}
    return Unit(question["unit_key"], question["attributes"] if attributes else {}, features)


def _flaws(question: Any, attributes: Sequence[str]) -> Iterator[Problem]:
    if type(question) is not dict:
        yield Problem("body", "found no object", "send unit_key, attributes and features")
        return
    if question.keys() != _KEYS:
        for name in sorted(_KEYS - question.keys() - (set() if attributes else {"attributes"})):
            yield Problem(name, "found no such key, expected it", "add it")
        for name in sorted(question.keys() - _KEYS):
            yield Problem(name, "found an unknown key", "leave it out")
    key = question.get("unit_key", "-")
    if type(key) is not str or not key or "\0" in key:
        yield Problem("unit_key", "found no text, expected the key of the unit", "send a text that is not empty")
    yield from _attribute_flaws(question.get("attributes", {}), attributes)
    features = question.get("features", {})
    if type(features) is not dict:
        yield Problem("features", "found no object, expected numbers by column", "send an object")
        return
    for name, value in features.items():
        if type(value) not in (float, int) and value is not None:
            yield Problem(f"features.{name}", "found no number", "send a number, or null for a missing value")


def _attribute_flaws(found: Any, attributes: Sequence[str]) -> Iterator[Problem]:
    if type(found) is not dict:
        yield Problem("attributes", "found no object, expected texts by name", "send an object")
        return
    for name in attributes:
        value = found.get(name)
        if type(value) is not str or "\0" in value:
            yield Problem(f"attributes.{name}", "found no text", "send the attribute; every request has it")
    if len(found) > len(attributes):
        for name in sorted(found.keys() - set(attributes)):
            yield Problem(f"attributes.{name}", "found an attribute that the settings do not name", "leave it out")


def answer_of(decided: Decided) -> dict[str, Any]:
    """Return what the caller is told."""
    return {
        "decision_id": decided.decision_id,
        "action": decided.action,
        "course": decided.course.value,
        "release": decided.release_id,
        "snapshot": decided.snapshot_no,
    }


def units_of(question: Any, attributes: Sequence[str]) -> list[Unit]:
    """Return the units of a question in the Open Inference Protocol: one tensor for each key, attribute and column.

    ``unit_key`` and the attributes are tensors of BYTES, every other one is a column of features.
    """
    if type(question) is not dict or type(question.get("inputs")) is not list:
        raise InvalidDocumentError([Problem("inputs", "found no list", "send one tensor for each column")])
    problems: list[Problem] = []
    columns: dict[str, list[Any]] = {}
    for at, tensor in enumerate(question["inputs"]):
        problem = _tensor_flaw(tensor, f"inputs[{at}]", attributes)
        if problem is None and tensor["name"] in columns:
            problem = Problem(f"inputs[{at}]", "found the same name again", "send each tensor once")
        if problem is not None:
            problems.append(problem)
        else:
            columns[tensor["name"]] = tensor["data"]
    rows = len(columns.get("unit_key", ()))
    if not problems and (not 0 < rows <= MAX_ROWS or any(len(data) != rows for data in columns.values())):
        remedy = f"send as many values in each tensor, 1 to {MAX_ROWS}"
        problems.append(Problem("inputs", "found tensors of different lengths, or no unit", remedy))
    if problems:
        raise InvalidDocumentError(problems)
    named = {"unit_key", *attributes}
    return [
        unit_of(
            {
                "unit_key": columns["unit_key"][row],
                "attributes": {name: columns[name][row] for name in attributes if name in columns},
                "features": {name: data[row] for name, data in columns.items() if name not in named},
            },
            attributes,
        )
        for row in range(rows)
    ]


def _tensor_flaw(tensor: Any, place: str, attributes: Sequence[str]) -> Problem | None:
    if type(tensor) is not dict or type(tensor.get("name")) is not str or type(tensor.get("data")) is not list:
        return Problem(place, "found no tensor with name and data", "send name, shape, datatype and data")
    size = len(tensor["data"])
    if tensor.get("shape") not in ([size], [size, 1]):
        return Problem(place, f"found {size} values in another shape", "send one value for each unit")
    is_text = tensor["name"] == "unit_key" or tensor["name"] in attributes
    if (tensor.get("datatype") == "BYTES") != is_text or (not is_text and tensor.get("datatype") not in _NUMBERS):
        return Problem(place, "found another datatype", "send BYTES for texts and FP64 for features")
    return None


def infer_answer(decision_point: str, question: Mapping[str, Any], decisions: Sequence[Decided]) -> dict[str, Any]:
    """Return the answer in the Open Inference Protocol; an action that is refused is an empty text."""
    size = len(decisions)
    texts = {
        "action": [each.action or "" for each in decisions],
        "course": [each.course.value for each in decisions],
        "decision_id": [each.decision_id for each in decisions],
        "release": [each.release_id for each in decisions],
    }
    outputs: list[dict[str, Any]] = [
        {"name": name, "shape": [size], "datatype": "BYTES", "data": data} for name, data in texts.items()
    ]
    numbers = [each.snapshot_no for each in decisions]
    outputs.append({"name": "snapshot", "shape": [size], "datatype": "INT64", "data": numbers})
    named = {"id": question["id"]} if type(question.get("id")) is str else {}
    return {"model_name": decision_point, **named, "outputs": outputs}
