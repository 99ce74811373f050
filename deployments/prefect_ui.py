"""The pages of Prefect's UI that a rollout is steered by, as a browser shows them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from playwright.sync_api import Locator, Page, Route

#: Pixels of a window in which tables and plots can be read.
SIZE = (1400, 1000)
_PATIENCE_MS = 60_000.0
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def browse(program: Path, base: str) -> Iterator[PrefectUi]:
    """Open a browser that reaches the server at `base` and nothing else."""

    def only_local(route: Route) -> None:
        if route.request.url.startswith((base, "data:", "blob:")):
            route.continue_()
        else:
            route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        page.set_default_timeout(_PATIENCE_MS)
        page.route("**/*", only_local)
        try:
            yield PrefectUi(page, base)
        finally:
            browser.close()


class PrefectUi:
    """One browser window on a Prefect server."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self._base = base

    def open_run_form(self, deployment_id: str) -> None:
        """Show the form that starts a run of a deployment."""
        self.page.goto(f"{self._base}/v2/deployments/deployment/{deployment_id}/run")
        self.page.get_by_role("heading", name="Parameters").wait_for()
        self.page.get_by_role("textbox").first.wait_for()

    def fill(self, fields: Mapping[str, str]) -> None:
        """Fill in text fields by their titles."""
        for title, text in fields.items():
            self.page.get_by_role("textbox", name=title).first.fill(text)

    def submit(self) -> None:
        """Send the form that is shown."""
        self.page.get_by_role("button", name="Submit").click()

    def open_run(self, flow_run_id: str) -> None:
        """Show one flow run."""
        self.page.goto(f"{self._base}/v2/runs/flow-run/{flow_run_id}")
        self.page.get_by_role("tab", name="Logs").wait_for()

    def open_question(self, flow_run_id: str) -> Locator:
        """Show what a suspended run asks, and return the dialog."""
        self.open_run(flow_run_id)
        self.page.get_by_role("button", name="Open menu").first.click()
        self.page.get_by_role("menuitem", name="Resume").click()
        dialog = self.page.get_by_role("dialog", name="Resume Flow Run")
        dialog.get_by_role("button", name="Select Decision").wait_for()
        return dialog

    def answer(self, decision: str, fields: Mapping[str, str]) -> None:
        """Fill in the question that is shown, and send it."""
        dialog = self.page.get_by_role("dialog", name="Resume Flow Run")
        dialog.get_by_role("button", name="Select Decision").click()
        self.page.get_by_role("option", name=decision).click()
        for title, text in fields.items():
            dialog.get_by_role("textbox", name=title).fill(text)
        dialog.get_by_role("button", name="Resume", exact=True).click()

    def open_artifact(self, artifact_id: str) -> None:
        """Show one version of an artifact; the page of its key only lists the versions."""
        self.page.goto(f"{self._base}/v2/artifacts/artifact/{artifact_id}")
        self.page.get_by_role("table").first.wait_for()

    def open_runs(self) -> None:
        """Show the list of runs."""
        self.page.goto(f"{self._base}/v2/runs")
        self.page.get_by_role("tab", name="Flow Runs").wait_for()

    def expect_pictures(self, where: Locator, least: int) -> None:
        """Stay until `where` holds at least that many pictures and all of them are decoded."""
        pictures = where.get_by_role("img")
        pictures.nth(least - 1).wait_for()
        for picture in pictures.all():
            picture.evaluate("i => i instanceof HTMLImageElement ? i.decode() : null")

    def rest(self, seconds: float) -> None:
        """Wait while the window goes on loading and drawing."""
        self.page.wait_for_timeout(1_000.0 * seconds)

    def expect_loaded(self) -> None:
        """Stay until no grey bar stands where something is still to come."""
        expect(self.page.locator(".animate-pulse")).to_have_count(0, timeout=_PATIENCE_MS)

    def expect_text(self, text: str) -> None:
        """Stay until `text` is shown."""
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=_PATIENCE_MS)
