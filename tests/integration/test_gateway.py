"""The gateway as a process of its own, between a model server that fails as a test says and a real log."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import yaml
from builders import POINT
from gateway_site import LEAVES, PATIENCE_S, REBOOKS, SHORT, Site, until
from model_servers import BROKEN, HANG, NAN, WRONG_SHAPE, ModelServer, running

from seatrial.routing import Kill, KillMode, KillScope, Pin, ShadowBudget, assign


@pytest.fixture(scope="module")
def models():
    server = ModelServer()
    with running(server) as url:
        server.url = url
        yield server


@pytest.fixture(scope="module")
def site(models, tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("gateway"), models)
    yield site
    site.store.close()


@pytest.fixture(scope="module")
def shared(site):
    site.publish()
    with site.gateway() as gateway:
        yield gateway


@pytest.fixture
def gateway(shared, models):
    models.says = {"first": LEAVES, "second": REBOOKS, "third": REBOOKS}
    return shared


def test_every_unit_is_answered_by_the_release_that_assign_names(gateway, site):
    snapshot = gateway.serves(site.publish(site.challenger, slots=4_000, when={"carrier": ("OO",)}))
    for unit in range(100):
        carrier = "OO" if unit % 2 else "UA"
        expected = assign(snapshot, f"u{unit}", {"carrier": carrier}, now=datetime.now(UTC))
        answer = gateway.decide(f"u{unit}", carrier)
        assert (answer["release"], answer["snapshot"]) == (expected.release_id, snapshot.number)


def test_a_decision_is_told_and_logged_as_it_came_about(gateway, site):
    snapshot = gateway.serves(site.publish(site.challenger))
    told = gateway.decide()
    assert (told["action"], told["course"], told["release"]) == ("rebook", "act", site.challenger)
    row = gateway.row_of(told["decision_id"])
    wanted = {
        "snapshot_no": snapshot.number,
        "release_id": site.challenger,
        "arm": "challenger",
        "share": 1.0,
        "unit_key": "u1",
        "carrier": "UA",
        "score": REBOOKS,
        "action_taken": "rebook",
        "outcome": "ok",
    }
    assert {name: row[name] for name in wanted} == wanted


@pytest.mark.parametrize("fault", [WRONG_SHAPE, NAN, BROKEN, 1.5], ids=str)
def test_a_challenger_that_fails_is_answered_for_and_the_failure_stays_its_own(gateway, site, models, fault):
    gateway.serves(site.publish(site.challenger))
    models.says["second"] = fault
    told = gateway.decide()
    assert (told["action"], told["release"]) == ("none", site.champion)
    row = gateway.row_of(told["decision_id"])
    assert (row["release_id"], row["arm"], row["outcome"]) == (site.challenger, "challenger", "fallback")


def test_a_challenger_that_hangs_is_answered_for_when_its_time_is_over(gateway, site, models):
    gateway.serves(site.publish(site.impatient))
    models.says["third"] = HANG
    told = gateway.decide()
    assert (told["action"], told["release"]) == ("none", site.champion)
    row = gateway.row_of(told["decision_id"])
    assert (row["outcome"], row["latency_ms"] >= SHORT["timeout_ms"]) == ("fallback", True)


def test_when_the_champion_fails_too_the_safe_action_is_taken(gateway, site, models):
    gateway.serves(site.publish(site.challenger))
    models.says.update(first=BROKEN, second=NAN)
    told = gateway.decide()
    assert (told["action"], told["course"]) == ("review", "act")


def test_a_pinned_unit_is_answered_by_its_release_and_a_kill_outranks_it(gateway, site):
    pin = Pin(site.champion, "oncall", "in dispute", datetime.now(UTC) + timedelta(hours=1), "u1")
    gateway.serves(site.publish(site.challenger, pins=(pin,)))
    assert [gateway.decide(unit)["release"] for unit in ("u1", "u2")] == [site.champion, site.challenger]
    stop = Kill("k1", KillScope.DECISION_POINT, KillMode.REFUSE, "oncall", "wrong", datetime.now(UTC))
    gateway.serves(site.publish(site.challenger, pins=(pin,), kills=(stop,)))
    answer = gateway.ask()
    assert (answer.status_code, answer.json()["course"], answer.json()["action"]) == (503, "refuse", None)


def test_a_shadow_scores_copies_that_say_so_and_changes_no_answer(gateway, site, models):
    before = models.copied["second"]
    gateway.serves(site.publish(site.challenger, slots=0, shadow=True))
    told = gateway.decide()
    assert (told["action"], told["release"]) == ("none", site.champion)
    copy = gateway.row_of(told["decision_id"], "shadow")
    assert (copy["release_id"], copy["action_recommended"], copy["action_taken"]) == (site.challenger, "rebook", None)
    assert models.copied["second"] == before + 1
    assert models.copied["first"] == 0


def test_a_shadow_that_hangs_delays_no_answer_and_drops_copies_that_are_counted(gateway, site, models):
    models.says["second"] = HANG
    gateway.serves(site.publish(site.challenger, slots=0, shadow=True, budget=ShadowBudget(max_concurrent=1)))
    assert {gateway.decide(f"u{n}")["action"] for n in range(20)} == {"none"}
    assert gateway.metric("seatrial_gateway_shadow_shed") >= 15
    report = until(
        lambda: next((r for r in site.store.reports(POINT) if r.shadow is not None and r.shadow.shed >= 15), None)
    )
    assert report.number == site.number


def test_the_open_inference_protocol_gets_the_same_decisions(gateway, site):
    gateway.serves(site.publish(site.challenger))
    inputs = [
        {"name": "unit_key", "shape": [2], "datatype": "BYTES", "data": ["u1", "u2"]},
        {"name": "carrier", "shape": [2], "datatype": "BYTES", "data": ["UA", "OO"]},
        {"name": "distance", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]},
    ]
    answer = gateway.client.post(f"/v2/models/{POINT}/infer", json={"id": "7", "inputs": inputs})
    assert answer.status_code == 200, answer.text
    outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
    assert (answer.json()["id"], outputs["action"]) == ("7", ["rebook", "rebook"])
    assert gateway.client.get(f"/v2/models/{POINT}/ready").json() == {"ready": True}


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ({"unit_key": 1, "features": {"distance": "far"}}, ["features.distance", "unit_key"]),
        ({"attributes": {"origin": "EWR"}}, ["attributes.carrier"]),
        ({"more": 1}, ["more"]),
    ],
)
def test_a_question_that_is_not_understood_is_answered_with_all_that_is_wrong(gateway, changes, places):
    answer = gateway.ask(**changes)
    assert (answer.status_code, [each["place"] for each in answer.json()["problems"]]) == (422, places)


def test_a_request_that_is_too_large_is_refused(gateway):
    assert gateway.ask(features={"distance": 1.0, "x" * 300_000: 1.0}).status_code == 413


def test_labels_are_taken_once_and_bad_ones_answered_one_by_one(gateway, site):
    at = datetime.now(UTC).isoformat()
    good = {"decision_id": "d1", "name": "late", "value": 1.0, "fact_at": at}
    bad = [{**good, "value": "late"}, {**good, "fact_at": "noon"}, {**good, "colour": "red"}, 7]
    first = gateway.client.post("/labels", json={"labels": [good, *bad]}).json()
    assert (first["accepted"], [each["row"] for each in first["rejected"]]) == (1, [1, 2, 3, 4])
    again = gateway.client.post("/labels", json={"labels": [good]}).json()
    assert (again["accepted"], again["repeated"]) == (0, 1)
    assert [row["decision_id"] for row in site.rows("labels")] == ["d1"]


def test_requests_beyond_what_may_be_under_way_are_turned_away_and_told_when_to_come_back(site, models):
    models.says = {"first": HANG}
    site.publish()
    with site.gateway(max_concurrent=2, total_ms=3_000.0) as gateway, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: gateway.ask(f"u{n}"), range(12)))
        shed = [each for each in answers if each.status_code == 503]
        assert shed
        assert all(each.headers["retry-after"] == "1" for each in shed)
        assert {each.json()["action"] for each in answers if each.status_code == 200} == {"review"}
        assert gateway.metric("seatrial_gateway_shed") == len(shed)


def test_sigterm_under_load_loses_no_row(site, models):
    models.says = {"first": LEAVES}
    site.publish()
    told = []
    with site.gateway(flush_s=60.0) as gateway, ThreadPoolExecutor(4) as pool:

        def ask_on(thread):
            for n in range(100_000):
                try:
                    told.append(gateway.decide(f"t{thread}-{n}")["decision_id"])
                except httpx.TransportError:
                    return

        asking = [pool.submit(ask_on, thread) for thread in range(4)]
        until(lambda: len(told) > 100)
        gateway.child.process.terminate()
        assert gateway.child.await_end(deadline_s=PATIENCE_S) == 0
        for each in asking:
            each.result()
    assert set(told) <= {row["decision_id"] for row in site.rows()}


def test_a_gateway_starts_again_while_the_control_plane_is_gone(site, models):
    models.says = {"first": LEAVES, "second": REBOOKS}
    snapshot = site.publish(site.challenger)
    with site.gateway(keep="kept") as gateway:
        gateway.serves(snapshot)
    with site.gateway(keep="kept", database="postgresql+psycopg://nobody@127.0.0.1:9/none") as gateway:
        gateway.serves(snapshot)
        assert gateway.decide()["release"] == site.challenger


def test_a_gateway_without_any_snapshot_is_alive_and_not_ready(site):
    with site.gateway(snapshots="empty") as gateway:
        assert gateway.client.get("/v2/health/ready").status_code == 503
        assert gateway.ask().status_code == 503


def test_a_gateway_that_the_settings_do_not_have_is_not_served(site, capsys):
    from seatrial.cli import main  # noqa: PLC0415 only here in this process

    path = site.folder / "none.yaml"
    path.write_text(yaml.safe_dump({"logs": "logs", "approvers": {}}))
    assert main(["serve", POINT, "--settings", str(path)]) == 3
    assert POINT in capsys.readouterr().err
