"""Prove that a release loads in its declared runtime and answers as reported, in a process of its own with limits."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.adapters.isolated import Isolation, answering, how_it_ended, limit, peak_memory_mb
from seatrial.adapters.scoring import NOTHING, Runtimes, load_scorer
from seatrial.errors import RefusedError, SeatrialError, TamperedError
from seatrial.gates.finding import Finding, Question
from seatrial.release import Release
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.adapters.isolated import Ended
    from seatrial.ports import Registered

_MODULE = "seatrial.adapters.probing"


@dataclass(frozen=True, slots=True)
class SubprocessProbe:
    """Loads releases in a process of its own."""

    runtimes: Runtimes = NOTHING
    isolation: Isolation = field(default_factory=Isolation)

    def probe(self, registered: Registered) -> Sequence[Finding]:
        """Load the release in its declared runtime, score its own examples, and say what was found."""
        request = {**loading_request(registered, self.runtimes), "cpu_s": math.ceil(self.isolation.timeout_s)}
        return self.found(self.isolation.run(_MODULE, request))

    def found(self, ended: Ended) -> Sequence[Finding]:
        """Return what the process that loaded a release found, or how it failed to."""
        if ended.code is None:
            return [_finding(Verdict.ERROR, f"did not load and answer within {self.isolation.timeout_s:g} s")]
        if ended.code != 0:
            return [_finding(Verdict.FAIL, f"the process that loaded it {how_it_ended(ended)}")]
        try:
            return [
                _finding(Verdict[each["verdict"]], each["reason"], each["numbers"], each["subject"])
                for each in json.loads(ended.answer)
            ]
        except (ValueError, KeyError, TypeError):
            reason = f"the process that loaded it answered {ended.answer[:80]!r}, not a finding"
            return [_finding(Verdict.ERROR, reason)]


def loading_request(registered: Registered, runtimes: Runtimes) -> dict[str, Any]:
    """Return what a process needs to load a release."""
    return {
        "release": registered.release.model_dump_json(),
        "location": str(registered.location.resolve()),
        "servers": dict(runtimes.servers),
        "trusted": sorted(runtimes.trusted),
    }


def loading_of(request: Mapping[str, Any]) -> tuple[Release, Path, Runtimes]:
    """Return release, location and runtimes of a `loading_request`."""
    runtimes = Runtimes(request["servers"], frozenset(request["trusted"]))
    return Release.model_validate_json(request["release"]), Path(request["location"]), runtimes


def _finding(verdict: Verdict, reason: str, numbers: Mapping[str, Any] | None = None, subject: str = "load") -> Finding:
    return Finding(Question.CONTRACT, subject, verdict, reason, numbers or {})


def probe_here(release: Release, location: Path, runtimes: Runtimes = NOTHING) -> list[Finding]:
    """Return the findings on `release` loaded in this process: that it answers, and in the engine it declares."""
    try:
        return [_loaded(release, location, runtimes), *_engine(release)]
    except (TamperedError, RefusedError) as error:
        return [_finding(Verdict.FAIL, f"{type(error).__name__}: {error}")]
    except SeatrialError as error:
        return [_finding(Verdict.ERROR, f"{type(error).__name__}: {error}")]


def _loaded(release: Release, location: Path, runtimes: Runtimes) -> Finding:
    scorer = load_scorer(release, location, runtimes)
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
        differences.append(abs(score - example["score"]) / max(1.0, abs(example["score"])))
    # A NaN is no difference that is small, and max() may pass it over.
    is_same = all(difference <= scorer.tolerance for difference in differences)
    worst = max(differences)
    numbers = {"examples": len(examples), "largest_difference": worst, "tolerance": scorer.tolerance}
    if not is_same:
        return _finding(Verdict.FAIL, f"loaded, but an example differs by {worst:.2g} from its reported score", numbers)
    reason = f"loaded, {len(examples)} examples score as reported"
    if release.runtime.served is not None:
        return _finding(Verdict.PASS, f"{reason} on the server {release.runtime.served.server}", numbers)
    return _within_memory(release, reason, numbers)


def _within_memory(release: Release, reason: str, numbers: Mapping[str, Any]) -> Finding:
    """Return PASS when the process that loaded the release stayed within its declared memory."""
    peak_mb, allowed_mb = peak_memory_mb(), release.limits.memory_mb
    numbers = {**numbers, "peak_mb": round(peak_mb), "memory_mb": allowed_mb}
    if peak_mb > allowed_mb:
        found = f"{reason}, but the process took {peak_mb:.0f} MB; the release declares {allowed_mb:g} MB"
        return _finding(Verdict.FAIL, found, numbers)
    return _finding(Verdict.PASS, f"{reason}, within {peak_mb:.0f} MB of {allowed_mb:g} MB", numbers)


def _engine(release: Release) -> list[Finding]:
    """Return whether this machine has the engine in the version that the release declares; nothing for a server's."""
    engine, declared = release.runtime.engine, release.runtime.version
    if release.runtime.served is not None:
        return []
    # What a pickle says depends on the Python that wrote it.
    if engine == "pickle":
        engine, declared = "Python", release.runtime.python
    found = platform.python_version() if engine == "Python" else _installed(engine)
    numbers = {"declared": declared, "found": found}
    if f"{found}.".startswith(f"{declared}."):
        return [_finding(Verdict.PASS, f"{engine} {found} is the declared runtime", numbers, "runtime")]
    reason = f"{engine} is {found} here, the release declares {declared}: loading here says nothing about there"
    return [_finding(Verdict.ERROR, reason, numbers, "runtime")]


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Probe the release of the request, and answer with the findings."""
    with answering() as (request, answer):
        release, location, runtimes = loading_of(request)
        limit(memory_mb=release.limits.memory_mb, cpu_s=request["cpu_s"])
        found = probe_here(release, location, runtimes)
        json.dump(
            [
                {"subject": f.subject, "verdict": f.verdict.name, "reason": f.reason, "numbers": dict(f.numbers)}
                for f in found
            ],
            answer,
        )


if __name__ == "__main__":
    main()
