from __future__ import annotations

from http import HTTPStatus

import pytest

from deployments.prefect_ui import browse
from seatrial.rollout import State


@pytest.fixture(scope="module")
def ui(live, require_chromium):
    with browse(require_chromium, live.stack.ui_url) as ui:
        yield ui


@pytest.fixture(scope="module")
def point(live):
    return live.point("browser")


def rollout_deployment(live):
    return next(each["id"] for each in live.deployments if each["name"] == "rollout")


def runs_of(live):
    return {run["id"] for run in live.post("/flow_runs/filter", {"flows": {"name": {"any_": ["rollout"]}}})}


def test_a_person_takes_a_rollout_from_the_form_to_promotion(live, ui, point):
    ui.open_run_form(rollout_deployment(live))
    before = runs_of(live)
    ui.submit()
    ui.rest(2)
    assert runs_of(live) == before, "a form without a release was sent"

    # A form that was refused keeps its error texts until it is sent again; a person may as well open it anew.
    ui.open_run_form(rollout_deployment(live))
    ui.fill({"release": point.challenger, "plan": str(point.plan), "requested_by": "requester"})
    with ui.page.expect_response(lambda answer: "create_flow_run" in answer.url) as created:
        ui.submit()
    assert created.value.status == HTTPStatus.CREATED
    point.run_id = created.value.json()["id"]
    point.until_asleep(State.SHADOW)
    point.drive(State.AWAITING_APPROVAL)

    dialog = ui.open_question(point.run_id)
    ui.expect_pictures(dialog, 3)
    assert dialog.get_by_role("table").count() >= 2
    ui.answer("approve", {"Approver": "approver", "Reason": "read the slices"})
    dialog.wait_for(state="hidden")
    point.until(State.CHAMPION)
    ui.expect_text("Champion")


def test_the_page_of_a_rollout_shows_its_plots(live, ui, point):
    ui.open_artifact(live.artifact(f"rollout-{point.rollout.id}")["latest_id"])
    ui.expect_text("Decided so far")
    ui.expect_pictures(ui.page.locator("main"), 3)
