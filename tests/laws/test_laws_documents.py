import copy
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.documents import Document, check, parse_yaml
from seatrial.errors import InvalidDocumentError
from seatrial.plan import Plan
from seatrial.release import Release

CONFIG = Path(__file__).parents[2] / "config"
EXAMPLES = [
    pytest.param(Plan, (CONFIG / "plans" / "example-plan.yaml").read_text(), id="plan"),
    pytest.param(Release, (CONFIG / "releases" / "example-release.yaml").read_text(), id="release"),
]
JUNK = [None, "", "x", "5 %", "1 d", -1, 0, 1, 1.5, 10**400, math.nan, math.inf, True, [], {}, [[]], [None], {"a": 1}]


def places(value):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from places(item)


def mutate(document, rng):
    known = list(places(document))
    parent, key = rng.choice(known)
    match rng.choice(["delete", "replace", "replace", "rename", "double", "shuffle"]):
        case "delete":
            del parent[key]
        case "replace":
            parent[key] = copy.deepcopy(rng.choice(JUNK))
        case "rename" if isinstance(parent, dict):
            parent[f"{key}s"] = parent.pop(key)
        case "double" if isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        case "shuffle" if isinstance(parent, list):
            rng.shuffle(parent)
        case _:
            other, its_key = rng.choice(known)
            parent[key] = copy.deepcopy(other[its_key])


def reordered(value, rng):
    match value:
        case dict():
            return {key: reordered(value[key], rng) for key in rng.sample(sorted(value), len(value))}
        case list():
            return [reordered(item, rng) for item in value]
        case _:
            return value


@pytest.mark.parametrize(("model", "text"), EXAMPLES)
@given(rng=st.randoms(use_true_random=False), count=st.integers(1, 6))
@settings(deadline=None, max_examples=250)
def test_mutated_data_is_a_value_or_an_invalid_document_and_never_laxer_than_the_model(model, text, rng, count):
    document = copy.deepcopy(dict(parse_yaml(text, "x").data))
    for _ in range(count):
        mutate(document, rng)
    try:
        value = check(Document("x", document), model)
    except InvalidDocumentError as error:
        assert all(problem.place and problem.finding and problem.remedy for problem in error.problems)  # noqa: PT017 - a third outcome is not allowed
    else:
        assert model.model_validate(document) == value
        assert check(Document("x", value.document()), model).id == value.id


@pytest.mark.parametrize(("model", "text"), EXAMPLES)
@given(at=st.floats(0, 1), length=st.integers(0, 30), inserted=st.text(max_size=5))
@settings(deadline=None, max_examples=150)
def test_broken_text_is_a_value_or_an_invalid_document(model, text, at, length, inserted):
    start = int(at * len(text))
    try:
        value = check(parse_yaml(text[:start] + inserted + text[start + length :], "x"), model)
    except InvalidDocumentError as error:
        assert error.problems  # noqa: PT017 - a third outcome is not allowed
    else:
        assert check(Document("x", value.document()), model).id == value.id


@pytest.mark.parametrize(("model", "text"), EXAMPLES)
@given(rng=st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_the_order_of_keys_says_nothing(model, text, rng):
    document = parse_yaml(text, "x")
    shuffled = Document("y", reordered(document.data, rng))
    assert check(shuffled, model).id == check(document, model).id
