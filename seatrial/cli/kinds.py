"""The documents that people write, by kind: how each is told from the others, checked, and described to editors."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import Field

from seatrial.contracts import FeatureContract
from seatrial.documents import Checked, Document, check
from seatrial.errors import InvalidDocumentError, Problem
from seatrial.plan import Plan
from seatrial.release import Policy, Release
from seatrial.wiring import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """What a document is."""

    PLAN = "plan"
    RELEASE = "release"
    CONTRACT = "contract"
    POLICY = "policy"
    SETTINGS = "settings"


class PolicyDocument(Checked):
    """A policy alone, before it becomes part of a release."""

    policy: Policy = Field(description="how a score becomes an action")


MODELS: Mapping[Kind, type[Checked]] = {
    Kind.PLAN: Plan,
    Kind.RELEASE: Release,
    Kind.CONTRACT: FeatureContract,
    Kind.POLICY: PolicyDocument,
    Kind.SETTINGS: Settings,
}
#: The key that only documents of a kind have, asked in this order: a release holds a policy, a plan approvers.
_TELLING: Mapping[str, Kind] = {
    "plan": Kind.PLAN,
    "release": Kind.RELEASE,
    "contract": Kind.CONTRACT,
    "policy": Kind.POLICY,
    "logs": Kind.SETTINGS,
}


def kind_of(document: Document) -> Kind:
    """Return what `document` is; raises InvalidDocumentError when no key tells."""
    for key, kind in _TELLING.items():
        if key in document.data:
            return kind
    finding = f"found none of the keys {', '.join(_TELLING)}, expected the one that tells what it is"
    raise InvalidDocumentError([Problem(document.source, finding, "name what it is, or leave the file out")])


def checked(document: Document) -> Checked:
    """Return the value of the document's kind; raises InvalidDocumentError with every problem."""
    return check(document, MODELS[kind_of(document)])


def json_schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema of documents of `kind`, as editors read it.

    It knows keys, types and words; the rules between keys are known to `seatrial lint` alone.
    """
    schema = MODELS[kind].model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{kind}.schema.json",
        **schema,
        "title": f"seatrial {kind}",
    }
