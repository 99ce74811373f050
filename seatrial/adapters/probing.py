"""Prove that a release loads in its declared runtime and answers, in a process of its own with limits.

The process is given a time, a share of memory, an empty folder, a size of files and next to no environment. These
limits protect the control plane from a model that hangs, grows, floods or crashes; they are no sandbox, for the process
has the rights and the network of whoever started it.
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from seatrial.adapters.scoring import NOTHING, Runtimes, load_scorer
from seatrial.errors import RefusedError, SeatrialError, TamperedError
from seatrial.gates.finding import Finding, Question
from seatrial.release import Release
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.ports import Registered

#: What the child runs; -P: a module in the folder it stands in must not take the place of another.
PROGRAM = (sys.executable, "-P", "-m", "seatrial.adapters.probing")
#: One thread each: pools of threads reserve address space for every core of the machine.
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_MB = 2**20
#: Address space beyond what the release declares: libraries map far more than they use.
_HEADROOM_MB = 2048
_LARGEST_FILE = 64 * _MB
_LONGEST_ANSWER = 2**20
_CLIPPED = 300


@dataclass(frozen=True, slots=True)
class SubprocessProbe:
    """Loads releases in a process of its own."""

    runtimes: Runtimes = NOTHING
    timeout_s: float = 60.0
    #: what the child is given of the caller's environment, such as where libraries lie
    environment: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = PROGRAM

    def probe(self, registered: Registered) -> Sequence[Finding]:
        """Load the release in its declared runtime, score its own examples, and say what was found."""
        request = {
            "release": registered.release.model_dump_json(),
            "location": str(registered.location.resolve()),
            "servers": dict(self.runtimes.servers),
            "trusted": sorted(self.runtimes.trusted),
            "cpu_s": math.ceil(self.timeout_s),
        }
        with TemporaryDirectory(prefix="seatrial-probe-") as folder:
            code, answer, said = self._run(json.dumps(request).encode(), Path(folder))
        if code is None:
            return [_finding(Verdict.ERROR, f"did not load and answer within {self.timeout_s:g} s")]
        if code != 0:
            last = said.strip().splitlines()[-1:] or ["no message"]
            return [_finding(Verdict.FAIL, f"the process that loaded it {_ended(code)}: {last[0][:_CLIPPED]}")]
        try:
            return [
                _finding(Verdict[f["verdict"]], f["reason"], f["numbers"], f["subject"]) for f in json.loads(answer)
            ]
        except (ValueError, KeyError, TypeError):
            return [_finding(Verdict.ERROR, f"the process that loaded it answered {answer[:80]!r}, not a finding")]

    def _run(self, request: bytes, folder: Path) -> tuple[int | None, str, str]:
        """Return exit code, answer and messages of the child; no code when it was ended for taking too long."""
        (folder / "request").write_bytes(request)
        (folder / "work").mkdir()
        with (
            (folder / "request").open("rb") as asked,
            (folder / "answer").open("wb+") as answer,
            (folder / "messages").open("wb+") as messages,
        ):
            child = subprocess.Popen(  # noqa: S603 our own program, no shell
                list(self.program),
                stdin=asked,
                stdout=answer,
                stderr=messages,
                cwd=folder / "work",
                env={**self.environment, **_THREADS},
                process_group=0,
            )
            code = _await_end(child, self.timeout_s)
            answer.seek(0)
            messages.seek(0)
            return code, _text(answer.read(_LONGEST_ANSWER)), _text(messages.read(_LARGEST_FILE)[-_LONGEST_ANSWER:])


def _await_end(child: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """Return the exit code, or None after `timeout_s`; whatever the child started is ended with it."""
    ending = os.WEXITED | os.WNOWAIT
    waiting = threading.Thread(target=os.waitid, args=(os.P_PID, child.pid, ending), daemon=True)
    waiting.start()
    waiting.join(timeout_s)
    is_late = waiting.is_alive()
    # A child that was waited for has no number any more, and its group's may be a stranger's: hence WNOWAIT above.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    waiting.join()
    code = child.wait()
    return None if is_late else code


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    reasons = {signal.SIGXCPU: ", its limit of processor time", signal.SIGXFSZ: ", its limit on the size of a file"}
    with suppress(ValueError):
        number = signal.Signals(-code)
        return f"was ended by {number.name}{reasons.get(number, '')}"
    return f"was ended by signal {-code}"


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


def peak_memory_mb() -> float:
    """Return the most memory that this process has held since its program began, in MB of 2**20 bytes."""
    # getrusage counts the parent's memory until the program began, which is not the model's.
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB


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


def limit(*, memory_mb: float, cpu_s: int) -> None:
    """Limit this process for good: address space, processor time, size of files, no core dump."""
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    space = held + int((2 * memory_mb + _HEADROOM_MB) * _MB)
    for kind, most in (
        (resource.RLIMIT_AS, space),
        # The signal at the soft limit can be caught; the one at the hard limit cannot.
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most_now = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most_now, most_now))


def main() -> None:
    """Probe the release that standard input names, and print the findings."""
    request = json.load(sys.stdin)
    # What an engine prints is a message and must not stand in the answer.
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)
        release = Release.model_validate_json(request["release"])
        # Systems without /proc do not tell what a process holds; time and files are limited by the caller there.
        with suppress(FileNotFoundError):
            limit(memory_mb=release.limits.memory_mb, cpu_s=request["cpu_s"])
        runtimes = Runtimes(request["servers"], frozenset(request["trusted"]))
        found = probe_here(release, Path(request["location"]), runtimes)
        json.dump(
            [
                {"subject": f.subject, "verdict": f.verdict.name, "reason": f.reason, "numbers": dict(f.numbers)}
                for f in found
            ],
            answer,
        )


if __name__ == "__main__":
    main()
