"""Model servers that speak the Open Inference Protocol, version 2, over HTTP."""

from __future__ import annotations

from seatrial.adapters.v2.client import V2Scorer, V2Server
from seatrial.adapters.v2.protocol import (
    ModelAddress,
    ModelMetadata,
    RepositoryEntry,
    ServerMetadata,
    Tensor,
    Wiring,
    wiring_of,
)
from seatrial.adapters.v2.serving import AsyncV2Scorer

__all__ = [
    "AsyncV2Scorer",
    "ModelAddress",
    "ModelMetadata",
    "RepositoryEntry",
    "ServerMetadata",
    "Tensor",
    "V2Scorer",
    "V2Server",
    "Wiring",
    "wiring_of",
]
