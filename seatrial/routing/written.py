"""Read plain data whose every key and type is known; anything else is refused, never guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def require_kinds(what: str, document: object, kinds: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Return `document` when it has exactly the keys of `kinds`, each of one of its types; else raise ValueError.

    A bool is no number and a number no text.
    """
    if not isinstance(document, dict) or document.keys() != kinds.keys():
        raise ValueError(f"{what}: found {document!r}; expected the keys {', '.join(kinds)}; publish it again")
    wrong = [key for key, allowed in kinds.items() if type(document[key]) not in allowed]
    if wrong:
        found = ", ".join(f"{key} {document[key]!r}" for key in wrong)
        raise ValueError(f"{what}: found {found}; expected what its document holds; publish it again")
    return document


def require_rule(what: str, document: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return a segment's rule, column to values, from the lists of texts that `document` holds."""
    for column, values in document.items():
        if type(column) is not str or type(values) is not list or not all(type(value) is str for value in values):
            raise ValueError(f"{what}: found when {document!r}; expected lists of texts; publish it again")
    return {column: tuple(values) for column, values in document.items()}
