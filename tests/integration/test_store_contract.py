import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta, timezone

import pytest
import sqlalchemy as sa
from builders import (
    DAY,
    HOUR,
    POINT,
    STAGES,
    T0,
    World,
    a_finding,
    a_plan,
    a_release,
    a_rollout,
    evidence_at,
)

from seatrial.adapters.memory import MemoryStore
from seatrial.adapters.router import InProcessRouter
from seatrial.adapters.sql import LEDGER, METADATA, SNAPSHOTS, SqlStore
from seatrial.control.ending import kill, roll_back_decision_point
from seatrial.control.watching import watch
from seatrial.errors import ConflictError, NotFoundError, TamperedError, UnavailableError
from seatrial.evidence import Evidence
from seatrial.gates.finding import Question
from seatrial.gates.load import ShadowLoad
from seatrial.ledger import Record, verify
from seatrial.outputs import BatchOutput, Standing
from seatrial.ports import Commit, GateAnswer, Look, Registered, RouterReport
from seatrial.rollout import Action, State
from seatrial.routing import RoutingSnapshot
from seatrial.units import digest_of
from seatrial.verdict import Verdict

FIRST = RoutingSnapshot(POINT, 1, champion="a", fallback="a")
CANARY = RoutingSnapshot(
    POINT,
    2,
    champion="a",
    fallback="a",
    challenger="b",
    rollout_id="r1",
    segment="commuter",
    when={"carrier": ("OO", "YV")},
    slots=500,
    shadow=True,
    stage=2,
    salt="salt/r1/",
    lease_until=T0 + 12 * HOUR,
)


def a_record(key="k", **changes):
    body = {"text": "ä", "number": 0.1, "none": None, "list": [1, {"deep": True}]}
    return replace(Record(T0, "rollout.decided", "test", POINT, "r1", key, body), **changes)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request, tmp_path):
    if request.param == "memory":
        yield MemoryStore()
        return
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    store = SqlStore(url)
    store.create_tables()
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def sql(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    store = SqlStore(url)
    store.create_tables()
    yield store
    store.close()


def test_every_entity_comes_back_as_it_was_stored(store, tmp_path):
    registered = Registered(a_release(), tmp_path, T0)
    store.add_release(registered, [a_record("registered")])
    assert store.release(registered.release.id) == registered
    assert store.releases() == store.releases(POINT) == [registered]
    assert store.releases("elsewhere") == []

    plan = a_plan(segment="commuter", stages=STAGES[:5])
    store.add_plan(plan, now=T0)
    assert store.plan(plan.id) == plan

    rollout = a_rollout(State.GATES, 0, champion="a", flow_run_id="run", deadline=None, evidence_digest=None)
    evidence = evidence_at(T0)
    store.commit(Commit((a_record(),), inserted=rollout, snapshot=FIRST, champion=(POINT, "a"), evidence=evidence))
    assert store.rollout("r1") == rollout
    assert store.rollouts() == store.rollouts(POINT) == [rollout]
    assert store.rollouts("elsewhere") == []
    assert dict(store.champions()) == {POINT: "a"}
    assert store.evidence(evidence.digest) == evidence.document()
    assert digest_of(store.evidence(evidence.digest)) == evidence.digest
    assert store.snapshot(POINT) == FIRST
    store.commit(Commit((), snapshot=CANARY))
    assert store.snapshot(POINT) == CANARY

    findings = tuple(a_finding(q, v, numbers={"log_e": 0.1, "n": None}) for q in Question for v in Verdict)
    looks = [Look("r1", T0 + n * HOUR, action, "why", 0.05, "sha256:e", findings) for n, action in enumerate(Action)]
    for look in reversed(looks):
        store.add_look(look)
    assert [replace(look, findings=()) for look in store.looks("r1")] == [replace(k, findings=()) for k in looks]
    for look in store.looks("r1"):
        assert [f.document() for f in look.findings] == [f.document() for f in findings]
    assert store.looks("elsewhere") == []

    load = ShadowLoad("router", 2_500, sent=12, shed=3, per_s=1.5, dependencies={"features": 0.5}, is_held=False)
    report = RouterReport("router", POINT, 2, T0, "a", T0 + HOUR, load, {"a": 9}, {"older": 2}, T0 - HOUR)
    store.report(replace(report, number=1, lease_until=None))
    store.report(report)
    assert store.reports(POINT) == [report]
    assert store.reports("elsewhere") == []
    store.forget(POINT, "other")
    store.forget("elsewhere", "router")
    assert store.reports(POINT) == [report]
    store.forget(POINT, "router")
    assert store.reports(POINT) == []

    assert [entry.record for entry in store.entries()] == [a_record("registered"), a_record()]
    assert store.last_beat("sweep") is None
    store.beat("sweep", now=T0)
    store.beat("sweep", now=T0 + HOUR)
    assert store.last_beat("sweep") == T0 + HOUR


def test_a_time_in_another_zone_is_the_same_time(store):
    india = timezone(timedelta(hours=5, minutes=30))
    store.append([a_record(at=T0.astimezone(india))])
    store.beat("sweep", now=T0.astimezone(india))
    assert store.last_beat("sweep") == T0
    assert verify(store.entries()) == 1


def test_storing_the_same_again_changes_nothing(store, tmp_path):
    registered = Registered(a_release(), tmp_path, T0)
    look = Look("r1", T0, Action.HOLD, "first", 0.0, "sha256:e")
    for later in (0 * HOUR, HOUR):
        store.add_release(replace(registered, registered_at=T0 + later), [a_record("registered", at=T0 + later)])
        store.add_plan(a_plan(), now=T0 + later)
        store.add_look(replace(look, reason="first" if not later else "second"))
    assert store.releases() == [registered]
    assert store.looks("r1") == [look]
    assert [entry.record.at for entry in store.entries()] == [T0]


def test_releases_are_listed_in_the_order_of_registration(store, tmp_path):
    releases = [a_release(name) for name in ("c", "a", "b")]
    for release in releases:
        store.add_release(Registered(release, tmp_path, T0), [])
    assert [r.release.name for r in store.releases()] == ["c", "a", "b"]


def test_an_unknown_name_is_not_found(store, tmp_path):
    store.add_release(Registered(a_release(), tmp_path, T0), [])
    for ask in (store.release, store.plan, store.rollout, store.snapshot, store.evidence):
        with pytest.raises(NotFoundError, match="nothing"):
            ask("nothing")


def test_the_first_characters_name_a_release_or_rollout_when_only_one_has_them(store, tmp_path):
    releases = [a_release(f"r{n}") for n in range(40)]
    for release in releases:
        store.add_release(Registered(release, tmp_path, T0), [])
    for release in releases:
        assert store.release(release.id.removeprefix("sha256:")[:12]).release == release
    ambiguous = next(c for c in "0123456789abcdef" if sum(r.id[7] == c for r in releases) > 1)
    with pytest.raises(NotFoundError, match="give more characters"):
        store.release(ambiguous)
    with pytest.raises(NotFoundError):
        store.release("")
    store.commit(Commit((), inserted=a_rollout(State.GATES, 0, id="abc123")))
    assert store.rollout("abc").id == "abc123"


def test_a_move_decided_on_an_old_version_is_refused_and_nothing_of_it_is_written(store):
    rollout = a_rollout(State.GATES, 0, champion="a")
    store.commit(Commit((), inserted=rollout, snapshot=FIRST, champion=(POINT, "a")))
    moved = replace(rollout, state=State.SHADOW, stage=1, version=2, reason="first")
    store.commit(Commit((a_record("first"),), moved=(moved,)))
    late = replace(moved, reason="second")
    evidence = evidence_at(T0)
    with pytest.raises(ConflictError, match="version"):
        store.commit(Commit((a_record("second"),), None, (late,), CANARY, (POINT, "b"), evidence))
    assert store.rollout("r1") == moved
    assert store.snapshot(POINT) == FIRST
    assert dict(store.champions()) == {POINT: "a"}
    assert [entry.record.key for entry in store.entries()] == ["first"]
    with pytest.raises(NotFoundError):
        store.evidence(evidence.digest)


def test_a_move_of_an_unknown_rollout_is_refused(store):
    with pytest.raises((ConflictError, NotFoundError)):
        store.commit(Commit((), moved=(a_rollout(),)))
    assert store.rollouts() == []


def test_a_decision_point_has_one_active_rollout(store):
    store.commit(Commit((), inserted=a_rollout(State.GATES, 0)))
    with pytest.raises(ConflictError, match=POINT):
        store.commit(Commit((a_record(),), inserted=a_rollout(State.GATES, 0, id="r2")))
    assert [r.id for r in store.rollouts()] == ["r1"]
    assert store.entries() == []
    store.commit(Commit((), inserted=a_rollout(State.GATES, 0, id="r3", decision_point="elsewhere")))
    store.commit(Commit((), moved=(a_rollout(State.REJECTED, 0, version=2),)))
    store.commit(Commit((), inserted=a_rollout(State.GATES, 0, id="r2")))
    assert [r.id for r in store.rollouts(POINT)] == ["r1", "r2"]


def test_the_same_rollout_starts_once(store):
    store.commit(Commit((), inserted=a_rollout(State.REJECTED, 0)))
    with pytest.raises(ConflictError):
        store.commit(Commit((), inserted=a_rollout(State.GATES, 0)))


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_snapshot_has_the_number_after_the_present_one(store, number):
    for snapshot in (FIRST, CANARY):
        store.commit(Commit((), snapshot=snapshot))
    with pytest.raises(ConflictError, match="2 is present"):
        store.commit(Commit((a_record(),), snapshot=replace(CANARY, number=number)))
    assert store.snapshot(POINT) == CANARY
    assert store.entries() == []


def test_a_lease_is_renewed_on_the_present_number_only_and_never_shortened(store):
    for snapshot in (FIRST, CANARY):
        store.commit(Commit((), snapshot=snapshot))
    longer = replace(CANARY, lease_until=T0 + 20 * HOUR)
    assert store.renew(longer)
    assert store.snapshot(POINT) == longer
    assert store.renew(CANARY)
    assert store.snapshot(POINT) == longer
    ended = replace(FIRST, number=3)
    store.commit(Commit((), snapshot=ended))
    assert not store.renew(replace(longer, lease_until=T0 + 99 * HOUR))
    assert store.snapshot(POINT) == ended


def test_a_signature_is_kept_beside_its_snapshot_and_renewed_with_the_lease(store):
    store.commit(Commit((), snapshot=replace(CANARY, number=1, signature="k:first")))
    assert store.snapshot(POINT).signature == "k:first"
    store.renew(replace(CANARY, number=1, lease_until=T0 + 20 * HOUR, signature="k:second"))
    assert store.snapshot(POINT).signature == "k:second"


def test_of_two_who_change_a_batch_output_one_is_refused(store):
    output = BatchOutput("sha256:o", POINT, "lake/o.parquet", 1, {"a": 9, "b": 1}, ("crm", "billing"), T0, "nightly")
    store.commit(Commit((), outputs=(output,)))
    doubted = output.marked(Standing.SUSPECT, "one")
    store.commit(Commit((), outputs=(doubted,)))
    with pytest.raises(ConflictError):
        store.commit(Commit((), outputs=(output.marked(Standing.INVALIDATED, "other"),)))
    assert store.output("sha256:o") == store.outputs()[0] == doubted
    assert store.outputs("elsewhere") == []


def test_renewing_a_lease_changes_nothing_else(store):
    store.commit(Commit((), snapshot=replace(CANARY, number=1)))
    store.renew(replace(CANARY, number=1, slots=9_999, lease_until=T0 + 20 * HOUR))
    assert store.snapshot(POINT).slots == 500


def test_an_act_done_again_is_written_once(store):
    store.append([a_record("a"), a_record("b"), a_record("a")])
    store.append([a_record("b", at=T0 + HOUR), a_record("c")])
    store.commit(Commit((a_record("a"), a_record("d"))))
    assert [entry.record.key for entry in store.entries()] == ["a", "b", "c", "d"]
    assert verify(store.entries()) == 4


def test_the_ledger_of_one_rollout_is_a_part_of_the_whole(store):
    store.append([a_record("a"), a_record("b", rollout_id=None), a_record("c", rollout_id="r2")])
    assert [e.number for e in store.entries("r2")] == [3]
    assert [e.number for e in store.entries()] == [1, 2, 3]


def in_threads(*acts):
    """Return what each act returned or raised, all begun at the same moment in threads of their own."""
    barrier = threading.Barrier(len(acts))

    def run(act):
        barrier.wait()
        try:
            return act()
        except Exception as error:  # noqa: BLE001 what a thread raises is what the test asserts on
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


def test_eight_writers_at_once_make_one_chain_without_a_gap(sql):
    def writer(name):
        def act():
            for n in range(10):
                sql.append([a_record(f"{name}/{n}"), a_record(f"shared/{n}")])

        return act

    assert in_threads(*(writer(name) for name in range(8))) == [None] * 8
    entries = sql.entries()
    assert verify(entries) == 90
    assert len({entry.record.key for entry in entries}) == 90


@pytest.fixture
def worlds(tmp_path, sql):
    """Return two control planes with connections of their own on one database."""
    other = SqlStore(sql.engine.url.render_as_string(hide_password=False))
    yield World(tmp_path / "files", sql), World(tmp_path / "files", other)
    other.close()


def test_of_two_starts_at_once_one_wins_and_the_other_is_told(worlds):
    one, other = worlds
    got = in_threads(lambda: one.start(request="one"), lambda: other.start(request="other"))
    (refused,) = [each for each in got if isinstance(each, Exception)]
    assert isinstance(refused, ConflictError)
    assert POINT in str(refused)
    (rollout,) = one.store.rollouts()
    assert rollout in got
    assert [e.record.rollout_id for e in one.store.entries() if e.record.kind == "rollout.started"] == [rollout.id]


def test_the_same_start_twice_at_once_opens_one_rollout(worlds):
    one, other = worlds
    got = in_threads(one.start, other.start)
    assert len(one.store.rollouts()) == 1
    assert all(isinstance(each, ConflictError) or each == one.store.rollouts()[0] for each in got)


def test_of_two_watches_at_once_one_rolls_back_and_neither_breaks(worlds):
    one, _ = worlds
    rollout, now = one.advance_to(State.CANARY)
    now += HOUR
    one.router.refresh(now=now)
    for world in worlds:
        world.evidence.says = evidence_at(now, ratio=3.0)
    got = in_threads(*(lambda w=world: watch(w.ports, now=now) for world in worlds))
    assert all(isinstance(each, list) for each in got)
    assert one.store.rollout(rollout.id).state is State.ROLLING_BACK
    decided = [e.record.body["to"] for e in one.store.entries() if e.record.kind == "rollout.decided"]
    assert decided.count("rolling back") == 1
    assert one.store.snapshot(POINT).slots == 0
    verify(one.store.entries())


def test_two_watches_that_correct_the_same_share_do_not_break_each_other(worlds):
    one, _ = worlds
    _, now = one.advance_to(State.CANARY)
    present = one.store.snapshot(POINT)
    one.store.commit(Commit((), snapshot=replace(present, number=present.number + 1, slots=7)))
    got = in_threads(*(lambda w=world: watch(w.ports, now=now) for world in worlds))
    assert all(isinstance(each, list) for each in got)
    assert one.store.snapshot(POINT).slots == 500
    assert one.store.snapshot(POINT).number == present.number + 2


def test_a_rollback_of_the_champion_ends_its_challenger_in_every_store(store, tmp_path):
    world = World(tmp_path / "files", store)
    promoted, now = world.advance_to(State.CHAMPION)
    second = world.start(world.register(a_release("second", world.challenger)), request="second", now=now)
    for _ in range(3):
        now += DAY
        world.router.refresh(now=now)
        second = world.step(second, now).rollout
    assert (second.state, world.share) == (State.CANARY, 0.05)
    roll_back_decision_point(world.ports, POINT, reason="second is bad", actor="on-call", now=now)
    assert world.store.rollout(second.id).state is State.ROLLING_BACK
    # Asked again, the decision point's rollback is the one on its way; the champion itself is taken out by name.
    again = roll_back_decision_point(world.ports, POINT, reason="again", actor="on-call", now=now)
    assert again.id == second.id
    kill(world.ports, promoted.challenger, reason="first too", actor="on-call", now=now)
    assert world.store.rollout(promoted.id).state is State.ROLLING_BACK
    assert dict(store.champions()) == {POINT: world.champion}
    for _ in range(2):
        watch(world.ports, now=now)
        assert world.store.snapshot(POINT).fallback == world.champion
        world.router.refresh(now=now)
    assert {world.store.rollout(r.id).state for r in (promoted, second)} == {State.ROLLED_BACK}
    verify(store.entries())


def test_a_start_cannot_slip_between_a_demotion_and_its_end(store, tmp_path):
    world = World(tmp_path / "files", store)
    _, now = world.advance_to(State.CHAMPION)
    second = world.register(a_release("second", world.challenger))
    stale = world.start(second, request="stale", now=now)
    store.commit(Commit((), moved=(replace(stale, version=2, state=State.REJECTED),)))
    roll_back_decision_point(world.ports, POINT, reason="bad", actor="on-call", now=now)
    with pytest.raises(ConflictError):
        store.commit(Commit((), inserted=replace(stale, id="late")))


def test_a_champion_cannot_change_under_a_rollout_that_was_not_told(store, tmp_path):
    world = World(tmp_path / "files", store)
    rollout, _ = world.advance_to(State.CANARY)
    with pytest.raises(ConflictError, match=rollout.id):
        store.commit(Commit((), champion=(POINT, "another")))
    assert dict(store.champions()) == {POINT: world.champion}


@pytest.mark.parametrize("statement", ["UPDATE", "DELETE"])
def test_an_edit_or_deletion_in_the_database_is_found(sql, statement):
    sql.append([a_record(str(n)) for n in range(5)])
    with sql.engine.begin() as connection:
        where = LEDGER.c.number == 3
        edit = sa.delete(LEDGER) if statement == "DELETE" else sa.update(LEDGER).values(actor="somebody else")
        connection.execute(edit.where(where))
    with pytest.raises(TamperedError, match="ledger entry"):
        verify(sql.entries())


@pytest.mark.parametrize("body", ["{}", "[]", "no json", '{"number": 1}'])
def test_a_snapshot_that_was_changed_in_the_database_is_taken_by_no_router(sql, body):
    sql.commit(Commit((), snapshot=FIRST))
    router = InProcessRouter("router", sql, POINT)
    router.refresh(now=T0)
    with sql.engine.begin() as connection:
        connection.execute(sa.insert(SNAPSHOTS).values(decision_point=POINT, number=2, body=body))
    with pytest.raises(TamperedError, match="snapshot 2"):
        sql.snapshot(POINT)
    assert not router.refresh(now=T0)
    assert router.snapshot == FIRST


def test_tables_that_exist_are_left_as_they_are(sql):
    sql.append([a_record()])
    sql.create_tables()
    assert verify(sql.entries()) == 1
    assert set(sa.inspect(sql.engine).get_table_names()) == set(METADATA.tables)


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://user:secret@127.0.0.1:1/none", "sqlite:////nowhere/at/all.sqlite"]
)
def test_a_database_that_does_not_answer_is_unavailable_and_its_password_stays_secret(url):
    store = SqlStore(url)
    asks = [
        store.champions,
        store.create_tables,
        lambda: store.append([a_record()]),
        lambda: store.commit(Commit((a_record(),))),
        lambda: store.beat("sweep", now=T0),
    ]
    for ask in asks:
        with pytest.raises(UnavailableError, match="did not answer") as raised:
            ask()
        assert "secret" not in str(raised.value)


def test_evidence_of_nothing_is_stored_like_any_other(store):
    store.commit(Commit((), evidence=Evidence()))
    assert digest_of(store.evidence(Evidence().digest)) == Evidence().digest


def a_gate_answer(verdict=Verdict.PASS, **changes):
    finding = replace(a_finding(Question.CONTRACT, verdict), subject="semantics · delay", is_waivable=True)
    return replace(GateAnswer("r1", "semantics", T0, digest_of("inputs"), (finding,)), **changes)


def test_an_answer_of_a_gate_replaces_the_one_before_and_is_recorded_with_it(store):
    store.add_gate_answer(a_gate_answer(Verdict.INCONCLUSIVE), [a_record()])
    answer = a_gate_answer(at=T0 + HOUR)
    store.add_gate_answer(answer, [a_record("other")])
    other = a_gate_answer(gate="latency")
    store.add_gate_answer(other, [])
    store.add_gate_answer(a_gate_answer(rollout_id="r2"), [])
    assert store.gate_answers("r1") == {"latency": other, "semantics": answer}
    assert [entry.record.key for entry in store.entries("r1")] == ["k", "other"]
    assert store.gate_answers("unknown") == {}


def test_an_answer_is_found_by_its_inputs_the_newest_first_and_never_an_error(store):
    inputs = digest_of("inputs")
    assert store.answered_before(inputs) is None
    store.add_gate_answer(a_gate_answer(Verdict.ERROR), [])
    assert store.answered_before(inputs) is None
    store.add_gate_answer(a_gate_answer(Verdict.FAIL, rollout_id="r2"), [])
    newest = a_gate_answer(rollout_id="r3", at=T0 + HOUR)
    store.add_gate_answer(newest, [])
    assert store.answered_before(inputs) == newest
    assert store.answered_before(digest_of("others")) is None


def test_the_digest_of_an_answer_is_the_same_however_it_was_kept(store):
    answer = a_gate_answer()
    answer = replace(answer, findings=(replace(answer.findings[0], numbers={"ratio": 0.83, "n": 3, "none": None}),))
    store.add_gate_answer(answer, [])
    assert store.gate_answers("r1")["semantics"].digest == answer.digest
