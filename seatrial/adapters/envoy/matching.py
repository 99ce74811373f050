"""Rules of units as Envoy's matchers of headers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from seatrial.adapters.envoy.bootstrap import LIVE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.adapters.envoy.settings import EnvoySettings


def equals(header: str, value: str) -> dict[str, Any]:
    """Return the matcher of requests whose header is `value`."""
    return {"name": header, "string_match": {"exact": value}}


def is_present(header: str) -> dict[str, Any]:
    """Return the matcher of requests that have the header."""
    return {"name": header, "present_match": True}


def is_live(name: str) -> dict[str, Any]:
    """Return the matcher of requests that came before the end of `name`."""
    return {"name": LIVE, "string_match": {"contains": f"|{name}|"}}


def matches(when: Mapping[str, tuple[str, ...]], settings: EnvoySettings) -> tuple[dict[str, Any], ...]:
    """Return the matchers of units with a listed value in every column of `when`, all of which must hold."""
    return tuple(_one_of(settings.header_of(column), values) for column, values in when.items())


def _one_of(header: str, values: tuple[str, ...]) -> dict[str, Any]:
    if len(values) == 1:
        return equals(header, values[0])
    # Envoy's expressions match the whole value.
    return {"name": header, "string_match": {"safe_regex": {"regex": "|".join(map(re.escape, values))}}}
