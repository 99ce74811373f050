from __future__ import annotations

from live_stack import until


def test_every_deployment_is_registered_with_its_schedule(live):
    found = {each["name"]: each for each in live.deployments}
    assert set(found) == {"rollout", "sweep", "evaluate-labels", "rollback"}
    assert all(each["entrypoint"].startswith("flows.") for each in found.values())
    schedules = {name: [s["schedule"] for s in each["schedules"] if s["active"]] for name, each in found.items()}
    assert schedules["rollout"] == schedules["rollback"] == []
    assert [schedule["interval"] for schedule in schedules["sweep"]] == [60.0]
    assert [schedule["cron"] for schedule in schedules["evaluate-labels"]] == ["7 * * * *"]


def test_two_watches_never_queue_up(live):
    sweep = next(each for each in live.deployments if each["name"] == "sweep")
    assert sweep["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"


def test_an_active_schedule_makes_runs(live):
    # With a library that the scheduler does not get on with, schedules are registered and nothing ever starts.
    scheduled = {
        "deployments": {"name": {"any_": ["evaluate-labels"]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    live.api.set_schedules("evaluate_labels/evaluate-labels", active=True)
    try:
        until(lambda: live.post("/flow_runs/filter", scheduled), "a run that the schedule asks for")
    finally:
        live.api.set_schedules("evaluate_labels/evaluate-labels", active=False)
