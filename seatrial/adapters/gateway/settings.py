"""What the settings file says about the gateway of one decision point."""

from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field

from seatrial.adapters.log_schema import DECISIONS
from seatrial.documents import Checked, ColumnName, Count, Flaw, Number, Text, repeated

Port = Annotated[int, Field(strict=True, ge=0, le=65_535)]
Positive = Annotated[Number, Field(gt=0)]


class GatewaySettings(Checked):
    """How one decision point is served over HTTP."""

    host: Text = Field("127.0.0.1", description="address to listen on; beyond loopback behind TLS only")
    port: Port = Field(8200, description="port to listen on, 8200 when left out; 0 takes any free one")
    name: Text | None = Field(None, description="name in router reports; left out, host name and port")
    attributes: tuple[ColumnName, ...] = Field(
        (), description="text columns of the unit that segments and slices are declared on; every request has them"
    )
    snapshots: Text | None = Field(
        None, description="address of a snapshot server, or folder of snapshot files; left out, the database"
    )
    keep: Text | None = Field(
        None, description="folder that keeps snapshots and manifests, to start from while the control plane is gone"
    )
    refresh_s: Positive = Field(1.0, description="the seconds between two questions for a newer snapshot")
    total_ms: Positive = Field(2_000.0, description="the time within which every decision is answered")
    connect_ms: Positive = Field(500.0, description="the time within which a model server takes a connection")
    max_concurrent: Count = Field(256, description="decisions under way at once; more are turned away with 503")
    threads: Count = Field(2, description="threads in which each release scores that runs in this process")
    max_body_kb: Count = Field(256, description="the greatest size of a request in kilobytes")
    flush_s: Positive = Field(0.5, description="the seconds between two writes of the log; a kill -9 loses these rows")
    max_unwritten: Count = Field(100_000, description="log rows that wait at most; beyond it requests are turned away")
    grace_s: Positive = Field(20.0, description="the seconds that requests under way have after SIGTERM")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules that attributes stand once, and are not named like columns of the log."""
        yield repeated((("attributes", at), name) for at, name in enumerate(self.attributes))
        yield self._attributes_are_free()

    def _attributes_are_free(self) -> Iterator[Flaw]:
        for at, name in enumerate(self.attributes):
            if name in {*DECISIONS.names, "batch", "date"}:
                yield Flaw(("attributes", at), f"found {name!r}, a column of the decision log itself", "rename it")
