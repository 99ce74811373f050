"""Take the pictures of docs/images from the demonstration: ``python -m deployments.screenshots``.

Where `make demo` waits at its first question, that one is answered in the browser; otherwise a demonstration is
started, taken to the end of its first rollout, and ended.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from PIL import Image

from deployments import chromium
from deployments.demo import DEMO_APPROVER
from deployments.local import PROJECT
from deployments.prefect_ui import SIZE, PrefectUi, browse
from seatrial.errors import NotFoundError, SeatrialError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGES = PROJECT / "docs" / "images"
#: Where the demonstration runs that is started here.
OWN_HOME = PROJECT / ".seatrial" / "screenshots"
_T = TypeVar("_T")
_DEADLINE_S = 900.0
_GRACE_S = 60.0


def _await(ask: Callable[[], _T | None], what: str, *, pause: Callable[[float], object] = sleep) -> _T:
    end = monotonic() + _DEADLINE_S
    while (answer := ask()) is None:
        if monotonic() > end:
            raise UnavailableError(f"screenshots: {what} did not come within {_DEADLINE_S:g} s; read the stack's logs")
        pause(0.5)
    return answer


def _api(home: Path) -> str | None:
    """Return the address of the Prefect API of the stack that runs on `home`, or None."""
    path = home / "environment"
    if not path.exists():
        return None
    words = shlex.split(path.read_text())
    return next((word.partition("=")[2] for word in words if word.startswith("PREFECT_API_URL=")), None)


@contextmanager
def _demonstration() -> Iterator[Path]:
    """Run a demonstration that asks at a terminal where nobody answers, and end it."""
    terminal, asked_at = pty.openpty()
    environment = {**os.environ, "SEATRIAL_HOME": str(OWN_HOME)}
    environment.pop("ONCE", None)
    argv = [sys.executable, "-m", "deployments.demo"]
    process = subprocess.Popen(argv, cwd=PROJECT, env=environment, stdin=asked_at)  # noqa: S603 - our own module
    try:
        yield OWN_HOME
    finally:
        process.terminate()
        process.wait(_GRACE_S)
        os.close(terminal)
        os.close(asked_at)


def _post(api: str, path: str, body: object) -> Any:
    answer = requests.post(f"{api}{path}", json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def _question(api: str) -> dict[str, Any] | None:
    """Return the flow run of a rollout that waits for a person, or None."""
    try:
        runs = _post(api, "/flow_runs/filter", {"flows": {"name": {"any_": ["rollout"]}}})
    except requests.RequestException:
        return None
    return next((run for run in runs if run["state_name"] == "Suspended"), None)


def _ended(api: str, run_id: str) -> bool | None:
    run = requests.get(f"{api}/flow_runs/{run_id}", timeout=30).json()
    return True if run["state_type"] == "COMPLETED" else None


def _page(api: str, run_id: str) -> str:
    """Return the newest version of the page of the rollout of a flow run."""
    runs = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
    found = _post(api, "/artifacts/latest/filter", runs)
    return next(str(each["latest_id"]) for each in found if re.fullmatch("rollout-[0-9a-f]+", each["key"]))


def _save(ui: PrefectUi, name: str) -> None:
    """Write what the window shows, in 256 colours: a page of text loses nothing and takes a third of the space."""
    ui.expect_loaded()
    picture = Image.open(io.BytesIO(ui.page.screenshot(animations="disabled")))
    path = IMAGES / f"{name}.png"
    picture.convert("RGB").quantize(256).save(path, optimize=True)
    sys.stdout.write(f"{path.relative_to(PROJECT)}  {path.stat().st_size // 1024} kB\n")


def take(api: str, program: Path) -> None:
    """Take all pictures around the first question that the stack behind `api` asks, and answer it with a yes."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    run = _await(lambda: _question(api), "a question to a person")
    with browse(program, api.removesuffix("/api")) as ui:
        ui.open_run_form(run["deployment_id"])
        ui.fill(run["parameters"])
        _save(ui, "run-form")
        ui.page.set_viewport_size({"width": SIZE[0], "height": 1700})
        dialog = ui.open_question(run["id"])
        ui.expect_pictures(dialog, 3)
        # The plots stand right above the answer, at the end of a dialog that scrolls.
        dialog.get_by_role("textbox").last.scroll_into_view_if_needed()
        _save(ui, "approval")
        ui.answer("approve", {"Approver": DEMO_APPROVER, "Reason": "Better on every slice that has evidence."})
        # A window that is asleep cannot load what its page asks for.
        _await(lambda: _ended(api, run["id"]), "the end of the run", pause=ui.rest)
        ui.page.set_viewport_size({"width": SIZE[0], "height": 2250})
        ui.open_artifact(_page(api, run["id"]))
        ui.expect_pictures(ui.page.locator("main"), 3)
        _save(ui, "rollout-page")
        ui.page.set_viewport_size({"width": SIZE[0], "height": SIZE[1]})
        ui.open_runs()
        ui.expect_text("Champion")
        _save(ui, "runs")


def main() -> int:
    """Take the pictures and return 0."""
    try:
        program = chromium.find()
        if program is None:
            raise NotFoundError("Chromium: found none that starts; expected one; run `make browser`")
        home = Path(os.environ.get("SEATRIAL_HOME", ".seatrial/demo")).resolve()
        with ExitStack() as undo:
            if _api(home) is None:
                home = undo.enter_context(_demonstration())
            take(_await(lambda: _api(home), "the stack"), program)
    except SeatrialError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
