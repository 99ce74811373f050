"""What the agent beside Envoy is told: where Envoy listens, where releases answer, where snapshots come from."""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003 pydantic reads annotations when it runs
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import Field

from seatrial.documents import Checked, Flaw, Name, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HEADER = re.compile(r"[a-z0-9][a-z0-9-]*")

Port = Annotated[int, Field(ge=1, le=65_535)]


class EnvoySettings(Checked):
    """One Envoy in front of one decision point. Relative paths start at this file's directory."""

    decision_point: Name = Field(description="the decision point that it serves")
    router: Name = Field(description="name under which it reports, unique on the decision point")
    control: Text = Field(description="address of `seatrial publish`, or the folder that it keeps snapshots in")
    folder: Text = Field(description="directory of the files that Envoy reads; the agent alone writes there")
    listen: Port = Field(description="port on which Envoy takes requests")
    admin: Port = Field(description="port of Envoy's administration, on loopback")
    host: Text = Field("127.0.0.1", description="address on which Envoy takes requests")
    unit_header: Text = Field("x-seatrial-unit", description="header that holds the unit key")
    attributes: Mapping[Text, Text] = Field(
        {}, description="header of each column that segments read; x-seatrial-COLUMN when left out"
    )
    releases: Mapping[Text, Text] = Field(description="by whole release id, the address of its model server")
    keyring: tuple[Text, ...] = Field((), description="files of the keys that sign snapshots; none takes any snapshot")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules on addresses and names of headers."""
        for release_id, url in self.releases.items():
            yield _server_flaws(url, ("releases", release_id))
        yield _header_flaws(self.unit_header, ("unit_header",))
        for column, header in self.attributes.items():
            yield _header_flaws(header, ("attributes", column))

    def header_of(self, column: str) -> str:
        """Return the header that holds a unit's value of `column`."""
        return self.attributes.get(column, f"x-seatrial-{column.lower().replace('_', '-')}")


def is_header(name: str) -> bool:
    """Return whether `name` can name a header of ours: small letters, digits and hyphens."""
    return _HEADER.fullmatch(name) is not None


def _server_flaws(url: str, at: tuple[str | int, ...]) -> Iterator[Flaw]:
    try:
        parts = urlsplit(url)
        is_sound = parts.scheme == "http" and bool(parts.hostname) and parts.port is not None
    except ValueError:
        is_sound = False
    if not is_sound or parts.username is not None or parts.path not in ("", "/") or parts.query:
        yield Flaw(at, "found no address of a model server, expected http://HOST:PORT alone", "correct it")


def _header_flaws(name: str, at: tuple[str | int, ...]) -> Iterator[Flaw]:
    if not is_header(name):
        yield Flaw(at, f"found {name!r}, expected small letters, digits and hyphens", "name a header so")
