"""Load the model of a release, and prove that it loads and answers.

Formats are data, never code: a pickle would run what it says when it is opened. The probe loads a release in a
process of its own with a time limit, and compares the scores of the examples in its evaluation report.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from seatrial.errors import RefusedError, TamperedError, UnavailableError
from seatrial.gates.finding import Finding, Question
from seatrial.release import Release
from seatrial.units import digest_bytes
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from seatrial.ports import Registered

#: Largest difference between a score now and the one in the evaluation report.
TOLERANCE = 1e-9


class Scorer(Protocol):
    """A loaded model."""

    columns: tuple[str, ...]

    def score(self, vector: Mapping[str, float]) -> float:
        """Return the score of one unit; raises KeyError when a column is missing."""

    def score_all(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of many units, one row each, with the columns in the order of `columns`."""


class LightGbmScorer:
    """A LightGBM model in its text format."""

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


def load_scorer(release: Release, location: Path) -> Scorer:
    """Return the scorer of `release`, whose files lie in `location`.

    Raises TamperedError when the artifact is another one than declared, UnavailableError when it cannot be read,
    RefusedError for a format that is not data.
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
    if release.model.format != "lightgbm-text":
        raise RefusedError(f"{path}: found format {release.model.format!r}, expected lightgbm-text; export the model")
    return LightGbmScorer(content.decode(), tuple(column.name for column in release.features.columns))


@dataclass(frozen=True, slots=True)
class SubprocessProbe:
    """Loads releases in a process of its own."""

    timeout_s: float = 60.0

    def probe(self, registered: Registered) -> Sequence[Finding]:
        """Load the release in its declared runtime, score its own examples, and say what was found."""
        request = {"release": registered.release.model_dump_json(), "location": str(registered.location)}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "seatrial.adapters.scoring"],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                timeout=self.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [_finding(Verdict.ERROR, f"did not load and answer within {self.timeout_s:g} s")]
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            return [_finding(Verdict.FAIL, f"the process that loaded it ended with {done.returncode}: {last[0]}")]
        try:
            answer = json.loads(done.stdout)
            return [_finding(Verdict[answer["verdict"]], answer["reason"], answer["numbers"])]
        except (ValueError, KeyError, TypeError):
            return [_finding(Verdict.ERROR, f"the process that loaded it answered {done.stdout[:80]!r}, not a finding")]


def _finding(verdict: Verdict, reason: str, numbers: Mapping[str, Any] | None = None) -> Finding:
    return Finding(Question.CONTRACT, "load", verdict, reason, numbers or {})


def probe_here(release: Release, location: Path) -> Finding:
    """Return the finding on `release` loaded in this process."""
    scorer = load_scorer(release, location)
    report = json.loads((location / release.evaluation.report).read_bytes())
    examples = report.get("examples") or []
    if not examples:
        return _finding(Verdict.ERROR, "the evaluation report has no examples to score; add some with their scores")
    differences = []
    low, high = release.output.range
    for example in examples:
        vector = {name: math.nan if value is None else value for name, value in example["features"].items()}
        score = scorer.score(vector)
        if not (math.isfinite(score) and low <= score <= high):
            return _finding(Verdict.FAIL, f"an example scores {score:g}, the contract says {low:g} to {high:g}")
        differences.append(abs(score - example["score"]))
    # A NaN is no difference that is small, and max() may pass it over.
    is_same = all(difference <= TOLERANCE for difference in differences)
    worst = max(differences)
    reason = (
        f"loaded, {len(examples)} examples score as reported"
        if is_same
        else (f"loaded, but an example differs by {worst:.2g} from its reported score")
    )
    return _finding(
        Verdict.PASS if is_same else Verdict.FAIL,
        reason,
        {"examples": len(examples), "largest_difference": worst},
    )


def main() -> None:
    """Probe the release that standard input names, and print the finding."""
    request = json.load(sys.stdin)
    finding = probe_here(Release.model_validate_json(request["release"]), Path(request["location"]))
    json.dump(
        {"verdict": finding.verdict.name, "reason": finding.reason, "numbers": dict(finding.numbers)},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
