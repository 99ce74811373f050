"""LightGBM models in their text format, which is data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class LightGbmScorer:
    """A LightGBM model in its text format."""

    tolerance = 1e-9

    def __init__(self, model: str, columns: tuple[str, ...]) -> None:
        import lightgbm  # noqa: PLC0415 an engine is imported only where a release asks for it

        self._booster = lightgbm.Booster(model_str=model)
        self.columns = columns

    def score(self, vector: Mapping[str, float]) -> float:
        """Return the score of one unit; raises KeyError when a column is missing."""
        row = np.array([[vector[name] for name in self.columns]], dtype=np.float64)
        return float(self.score_all(row)[0])

    def score_all(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of many units, one row each, with the columns in the order of `columns`."""
        return np.asarray(self._booster.predict(matrix, num_threads=1), dtype=np.float64)
