"""Score evaluation data with a release, in a process of its own: what a report says is computed anew, not believed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from seatrial.adapters.evaluation_data import load_evaluation
from seatrial.adapters.isolated import Isolation, answering, how_it_ended, limit
from seatrial.adapters.probing import loading_of, loading_request
from seatrial.adapters.scoring import NOTHING, Runtimes, load_scorer
from seatrial.errors import RefusedError, TamperedError, UnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from seatrial.ports import Registered

_MODULE = "seatrial.adapters.rescoring"
_ERRORS = {each.__name__: each for each in (RefusedError, TamperedError, UnavailableError)}


@dataclass(frozen=True, slots=True)
class Rescorer:
    """Scores evaluation data with a release."""

    runtimes: Runtimes = NOTHING
    #: scoring thousands of rows on a server takes its time
    isolation: Isolation = field(default_factory=lambda: Isolation(timeout_s=300.0))

    def scores(self, scored_by: Registered, data_of: Registered) -> NDArray[np.float64]:
        """Return the scores that the release `scored_by` gives the evaluation data of the release `data_of`.

        Raises
        ------
        RefusedError
            When the release or the data do not fit together, or a score is no finite number.
        TamperedError
            When artifact or data are not those that the releases declare.
        UnavailableError
            When a file or a server does not answer, or the process does not in time.
        """
        request = {
            "scored_by": loading_request(scored_by, self.runtimes),
            "data_of": loading_request(data_of, self.runtimes),
            "cpu_s": math.ceil(self.isolation.timeout_s),
        }
        ended = self.isolation.run(_MODULE, request)
        if ended.code is None:
            raise UnavailableError(f"scoring: no answer within {self.isolation.timeout_s:g} s; wait and retry")
        if ended.code != 0:
            raise RefusedError(f"scoring: the process {how_it_ended(ended)}; expected scores; mend the release")
        answer = json.loads(ended.answer)
        if "error" in answer:
            raise _ERRORS[answer["error"]](answer["message"])
        scores = np.array(answer["scores"], dtype=np.float64)
        if not np.isfinite(scores).all():
            raise RefusedError("scoring: found a score that is no finite number; mend the release")
        return scores


def main() -> None:
    """Score the rows of the request, and answer with the scores."""
    with answering() as (request, answer):
        release, location, runtimes = loading_of(request["scored_by"])
        evaluated, place, _ = loading_of(request["data_of"])
        limit(memory_mb=release.limits.memory_mb, cpu_s=request["cpu_s"])
        try:
            rows = load_evaluation(evaluated, place)
            scorer = load_scorer(release, location, runtimes)
            scores = scorer.score_all(rows.matrix(scorer.columns))
        except tuple(_ERRORS.values()) as error:
            json.dump({"error": type(error).__name__, "message": str(error)}, answer)
        else:
            # NaN is read back as NaN and refused there.
            json.dump({"scores": scores.tolist()}, answer)


if __name__ == "__main__":
    main()
