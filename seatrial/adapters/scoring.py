"""Load the model of a release in its declared runtime.

Formats are data, never code: a pickle runs what it says when it is opened, so that one is opened only when the settings
name its exact bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from seatrial.adapters.runtimes.boosters import LightGbmScorer
from seatrial.adapters.runtimes.graphs import OnnxScorer
from seatrial.adapters.runtimes.pickles import PickledScorer
from seatrial.adapters.v2 import ModelAddress, V2Scorer, V2Server, wiring_of
from seatrial.errors import RefusedError, SeatrialError, TamperedError, UnavailableError
from seatrial.release import OPEN_INFERENCE
from seatrial.units import digest_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from seatrial.release import Release, ServedModel

#: The engine that reads each format.
ENGINES = {"lightgbm-text": "lightgbm", "onnx": "onnxruntime", "pickle": "pickle"}


class Scorer(Protocol):
    """A loaded model."""

    columns: tuple[str, ...]
    #: Largest difference, in units of the score or of 1 where that is more, that is the same score computed elsewhere.
    tolerance: float

    def score(self, vector: Mapping[str, float]) -> float:
        """Return the score of one unit; raises KeyError when a column is missing."""

    def score_all(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of many units, one row each, with the columns in the order of `columns`."""


@dataclass(frozen=True, slots=True)
class Runtimes:
    """What the settings say about runtimes."""

    #: addresses of model servers by the names that releases use
    servers: Mapping[str, str] = field(default_factory=dict)
    #: digests of artifacts that may be opened although their format is code
    trusted: frozenset[str] = frozenset()


#: No server, and no code.
NOTHING = Runtimes()


def load_scorer(release: Release, location: Path, runtimes: Runtimes = NOTHING) -> Scorer:
    """Return the scorer of `release`, whose files lie in `location`.

    Raises TamperedError when the artifact is another one than declared, UnavailableError when it cannot be read or its
    runtime does not answer, RefusedError for a format that is not data, or is not that of the declared engine.
    """
    path = location / release.model.artifact
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}; restore the artifact") from error
    found = digest_bytes(content)
    if found != release.model.digest:
        raise TamperedError(
            f"{path}: found {found}, expected {release.model.digest}; restore the artifact or register a new release"
        )
    columns = tuple(column.name for column in release.features.columns)
    if release.runtime.served is not None:
        return _served(release.runtime.served, columns, runtimes)
    _require_format(release, f"{path}", runtimes)
    match release.model.format:
        case "onnx":
            return OnnxScorer(content, columns)
        case "pickle":
            return PickledScorer(content, columns)
        case _:
            return LightGbmScorer(content.decode(), columns)


def _require_format(release: Release, where: str, runtimes: Runtimes) -> None:
    """Raise RefusedError unless the artifact may be opened, by the engine that the release declares."""
    written, engine = release.model.format, release.runtime.engine
    if written not in ENGINES:
        raise RefusedError(
            f"{where}: found format {written!r}, expected one of {', '.join(ENGINES)}; export the model again"
        )
    if written == "pickle" and release.model.digest not in runtimes.trusted:
        raise RefusedError(
            f"{where}: found a pickle, which is code, expected lightgbm-text or onnx; export the model again, or have"
            f" somebody who read it list {release.model.digest} under trusted_artifacts in the settings"
        )
    if engine != ENGINES[written]:
        raise RefusedError(
            f"{where}: found format {written!r} with the engine {engine!r}, expected {ENGINES[written]};"
            " correct the manifest"
        )


def _served(served: ServedModel, columns: tuple[str, ...], runtimes: Runtimes) -> V2Scorer:
    """Return the model on its server, once that says it is ready and serves what the release declares."""
    if served.server not in runtimes.servers:
        known = ", ".join(sorted(runtimes.servers)) or "none"
        raise RefusedError(
            f"{OPEN_INFERENCE}: found the server {served.server!r}, expected one of the settings: {known};"
            " add its address under model_servers"
        )
    server = V2Server(runtimes.servers[served.server])
    try:
        return _scorer_on(server, served, columns)
    except SeatrialError:
        server.close()
        raise


def _scorer_on(server: V2Server, served: ServedModel, columns: tuple[str, ...]) -> V2Scorer:
    address = ModelAddress(served.model, served.version)
    if not server.is_ready(address):
        raise UnavailableError(f"{server.url}: {address} is not ready; load it, or wait and retry")
    metadata = server.model(address)
    if served.version is None and metadata.versions:
        raise RefusedError(
            f"{server.url}: found the versions {', '.join(metadata.versions)} of {served.model}, expected that the"
            " release names one; an address without one follows whichever is newest"
        )
    return V2Scorer(server, address, wiring_of(metadata, columns, output=served.output))
