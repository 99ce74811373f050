"""Score one flight, or many, with the artifact of one release."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightgbm as lgb
import numpy as np

from seatrial.errors import TamperedError
from seatrial.release import load_release
from seatrial.units import digest_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


class Scorer:
    """A loaded LightGBM model and the columns of its schema, in their order."""

    def __init__(self, model: str, columns: tuple[str, ...]) -> None:
        self._booster = lgb.Booster(model_str=model)
        #: names of the features that the release reads
        self.columns = columns

    def score(self, vector: Mapping[str, float]) -> float:
        """Return P(late or cancelled) of one flight.

        Parameters
        ----------
        vector
            Features by name, in the units of the serving pipeline; what the release does not read is ignored.

        Raises
        ------
        KeyError
            When a feature of the schema is missing: a missing feature is not a zero.
        """
        row = np.array([[vector[name] for name in self.columns]], dtype=np.float64)
        return float(self.score_all(row)[0])

    def score_all(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of many flights, one row each, with the columns of `columns`."""
        return np.asarray(self._booster.predict(matrix, num_threads=1), dtype=np.float64)


def load(manifest: Path) -> Scorer:
    """Return the scorer of the release in `manifest`; TamperedError when its artifact is another one."""
    release = load_release(manifest)
    artifact = manifest.parent / release.model.artifact
    content = artifact.read_bytes()
    found = digest_bytes(content)
    if found != release.model.digest:
        raise TamperedError(
            f"{artifact}: found {found}, expected {release.model.digest}; "
            "restore the artifact, or register a new release"
        )
    return Scorer(content.decode(), tuple(column.name for column in release.features.columns))
