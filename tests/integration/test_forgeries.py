"""Every way in which the ledger could be forged on a real database, and that it is found."""

import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from builders import DAY, HOUR, POINT, T0, World, a_plan
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatrial.adapters.anchors import MemoryAnchor
from seatrial.adapters.ledger_tables import CHECKPOINTS, LEDGER, LEDGER_HEAD, LEDGER_TEXTS
from seatrial.adapters.sql import DECISION_POINTS, EVIDENCE, PLANS, ROLLOUTS, SNAPSHOTS, SqlStore
from seatrial.checkpoints import Checkpoint, VerifierKey, signed_note
from seatrial.control.auditing import Proof, audit
from seatrial.control.checkpointing import checkpoint, erase
from seatrial.control.exporting import exported
from seatrial.errors import TamperedError
from seatrial.ledger import GENESIS, Record, chain
from seatrial.merkle import leaf_of, root
from seatrial.ports import Commit, Notary
from seatrial.rollout import State
from seatrial.units import canonical, digest_of

ORIGIN = "ships.example/ledger"
KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
_SPEC = importlib.util.spec_from_file_location(
    "verify_ledger", Path(__file__).parents[2] / "verifier" / "verify_ledger.py"
)
VERIFIER = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(VERIFIER)


def a_verifier_key(private, **validity):
    return VerifierKey(ORIGIN, private.public_key().public_bytes_raw(), **validity)


class Ledger:
    """A control plane on PostgreSQL whose champion was promoted, with checkpoints at an anchor."""

    def __init__(self, world, anchor, now):
        self.world, self.anchor, self.now = world, anchor, now
        self.engine = world.store.engine
        self.ports = self.with_keys(KEY, [a_verifier_key(KEY)])

    def with_keys(self, private, keys):
        return replace(self.world.ports, notary=Notary(ORIGIN, tuple(keys), private, (self.anchor,)))

    def run(self, *statements):
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(statement)

    def kinds(self):
        return {fault.kind for fault in audit(self.ports).faults}

    def rewrite(self, change=lambda records: records):
        """Compute the whole chain anew over changed records, as somebody who owns the database can."""
        entries = self.world.store.entries()
        records = change([entry.record for entry in entries])
        salts = ["00"] * len(records)
        forged, previous = [], GENESIS
        for number, (record, salt) in enumerate(zip(records, salts, strict=True), 1):
            forged.append(chain(record, number=number, previous=previous, salt=salt))
            previous = forged[-1].hash
        self.run(sa.delete(LEDGER), sa.delete(LEDGER_TEXTS), sa.update(LEDGER_HEAD).values(number=0, hash=GENESIS))
        store = self.world.store
        with self.engine.begin() as connection:
            from seatrial.adapters import ledger_tables  # noqa: PLC0415 only a forger writes like this

            ledger_tables.append(connection, records, new_salt=lambda: "00")
        assert store.head() == (len(records), previous)

    def verified(self, folder):
        """Return what the single-file verifier says of an export, with keys and anchors that the auditor kept."""
        for name, content in exported(self.ports).items():
            (folder / name).write_text(content, encoding="utf-8")
        kept = folder / "kept.jsonl"
        kept.write_text("".join(f"{json.dumps({'note': note})}\n" for note in self.anchor.notes()), encoding="utf-8")
        (folder / "kept.txt").write_text("".join(f"{key.line()}\n" for key in self.ports.notary.keys))
        return VERIFIER.main([str(folder), "--keys", str(folder / "kept.txt"), "--anchors", str(kept)])


@pytest.fixture(scope="module")
def promoted(postgres, tmp_path_factory):
    """Return a template: name of a database with a promoted champion, notes at its anchor, and the time."""
    postgres.create_databases(["promoted"])
    store = SqlStore(postgres.url("promoted", driver="psycopg"))
    store.create_tables()
    folder = tmp_path_factory.mktemp("files")
    world = World(folder, store)
    anchor = MemoryAnchor()
    notary = Notary(ORIGIN, (a_verifier_key(KEY),), KEY, (anchor,))
    world.ports = replace(world.ports, notary=notary)
    _, at = world.advance_to(State.CANARY)
    checkpoint(world.ports, now=at)
    rollout = world.store.rollouts()[0]
    now = at
    while world.store.rollout(rollout.id).state is not State.CHAMPION:
        now += DAY
        world.router.refresh(now=now)
        present = world.store.rollout(rollout.id)
        choice = "approve" if present.state is State.AWAITING_APPROVAL else None
        from seatrial.rollout import Choice  # noqa: PLC0415 used here alone

        world.step(present, now, Choice(choice) if choice else None)
    checkpoint(world.ports, now=now)
    store.close()
    return "promoted", list(anchor.kept), now, folder


@pytest.fixture
def ledger(promoted, postgres):
    template, kept, now, folder = promoted
    name = f"forged_{id(object()):x}"
    admin = sa.create_engine(postgres.url("postgres", driver="psycopg"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    store = SqlStore(postgres.url(name, driver="psycopg"))
    world = World.__new__(World)
    template_world = World(folder)
    world.__dict__.update(template_world.__dict__)
    world.store = store
    world.ports = replace(template_world.ports, store=store)
    yield Ledger(world, MemoryAnchor(kept=list(kept)), now)
    store.close()
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


def number_of(ledger, kind, at=0):
    return [e.number for e in ledger.world.store.entries() if e.record.kind == kind][at]


def test_a_ledger_that_nobody_touched_is_proven_by_both_verifiers(ledger, tmp_path):
    found = audit(ledger.ports)
    assert (found.proof, found.faults, found.gaps) == (Proof.PROVEN, (), ())
    assert found.anchored == found.entries > 10
    assert ledger.verified(tmp_path) == VERIFIER.PROVEN


def edit(ledger):
    ledger.run(sa.update(LEDGER).where(LEDGER.c.number == 5).values(actor="somebody else"))


def edit_of_words(ledger):
    number = number_of(ledger, "rollout.decided", -1)
    ledger.run(sa.update(LEDGER_TEXTS).where(LEDGER_TEXTS.c.number == number).values(texts='{"reason":"other"}'))


def delete_in_the_middle(ledger):
    ledger.run(sa.delete(LEDGER).where(LEDGER.c.number == 5))


def reorder(ledger):
    for was, becomes in ((5, -5), (6, 5), (-5, 6)):
        ledger.run(sa.update(LEDGER).where(LEDGER.c.number == was).values(number=becomes))


def duplicate(ledger):
    with ledger.engine.begin() as connection:
        row = connection.execute(sa.select(LEDGER).where(LEDGER.c.number == 5)).mappings().one()
        head = connection.execute(sa.select(LEDGER_HEAD)).one()
        copy = {**row, "number": head.number + 1, "key": f"{row['key']}/again", "previous": head.hash}
        connection.execute(sa.insert(LEDGER).values(copy))


def truncate_tail(ledger):
    """Cut the end off, and make the head agree."""
    entries = ledger.world.store.entries()
    kept = entries[-3]
    ledger.run(
        sa.delete(LEDGER).where(LEDGER.c.number > kept.number),
        sa.update(LEDGER_HEAD).values(number=kept.number, hash=kept.hash),
    )


def truncate_tail_and_checkpoints(ledger):
    truncate_tail(ledger)
    size, _ = ledger.world.store.head()
    ledger.run(sa.delete(CHECKPOINTS).where(CHECKPOINTS.c.size > size))


def back_dated_insert(ledger):
    """Put an entry into the past, and compute everything behind it anew."""
    invented = Record(T0 + HOUR, "gate.waived", "dana", POINT, None, "invented", {"reason": "always was"})
    ledger.rewrite(lambda records: [*records[:4], invented, *records[4:]])


def back_dated_append(ledger):
    invented = Record(T0 + HOUR, "gate.waived", "dana", POINT, None, "invented", {"reason": "always was"})
    ledger.world.store.append([invented])


def rewrite_everything(ledger):
    """Change a name, and compute the chain anew from the beginning."""
    ledger.rewrite(lambda records: [replace(r, actor="nobody") if r.actor == "test" else r for r in records])


def fork(ledger):
    """Show one ledger to the auditor, and keep another one."""
    size = audit(ledger.ports).entries
    ledger.anchor.kept.append(signed_note(Checkpoint(ORIGIN, size, root([b"other"]), ledger.now), KEY))


def rotation_by_a_stranger(ledger):
    leaves = [leaf_of(each) for each in ledger.world.store.hashes()]
    ledger.anchor.kept.append(signed_note(Checkpoint(ORIGIN, len(leaves), root(leaves), ledger.now), OTHER))


def a_clock_ahead(ledger):
    ahead = Record(ledger.now + 9 * DAY, "gate.waived", "dana", POINT, None, "ahead", {})
    ledger.world.store.append([ahead])
    checkpoint(ledger.ports, now=ledger.now + HOUR)


def erased_without_a_record(ledger):
    ledger.run(sa.delete(LEDGER_TEXTS).where(LEDGER_TEXTS.c.number == number_of(ledger, "rollout.decided")))


@pytest.mark.parametrize(
    ("forge", "kind"),
    [
        (edit, "chain"),
        (edit_of_words, "chain"),
        (delete_in_the_middle, "chain"),
        (reorder, "chain"),
        (duplicate, "chain"),
        (truncate_tail, "truncated"),
        (truncate_tail_and_checkpoints, "truncated"),
        (back_dated_insert, "rewritten"),
        (back_dated_append, "back-dated"),
        (rewrite_everything, "rewritten"),
        (fork, "fork"),
        (rotation_by_a_stranger, "checkpoint"),
        (a_clock_ahead, "clock"),
        (erased_without_a_record, "erased"),
    ],
)
def test_a_forgery_of_the_ledger_is_found_by_both_verifiers(ledger, forge, kind, tmp_path):
    forge(ledger)
    assert kind in ledger.kinds()
    assert ledger.verified(tmp_path) == VERIFIER.TAMPERED


def changed(ledger, number, change):
    """Rewrite the chain with the body of one entry changed: nothing but what records say of one another is left."""
    ledger.rewrite(
        lambda records: [
            replace(r, body=change(json.loads(json.dumps(dict(r.body))))) if at == number else r
            for at, r in enumerate(records, 1)
        ]
    )


def approval_of_another_release(ledger):
    number = next(e.number for e in ledger.world.store.entries() if "answer" in e.record.body)
    changed(ledger, number, lambda b: {**b, "answer": {**b["answer"], "evidence_digest": digest_of("another release")}})


def approval_of_stale_evidence(ledger):
    moves = [e for e in ledger.world.store.entries() if e.record.kind == "rollout.decided"]
    approved = next(e for e in moves if "answer" in e.record.body)
    stale = next(e.record.body["evidence_digest"] for e in moves if e.record.body["evidence_digest"])
    changed(ledger, approved.number, lambda b: {**b, "answer": {**b["answer"], "evidence_digest": stale}})


def approval_by_the_author(ledger):
    number = next(e.number for e in ledger.world.store.entries() if "answer" in e.record.body)
    changed(ledger, number, lambda b: {**b, "answer": {**b["answer"], "by": "author"}})


def another_plan_after_results(ledger):
    number = number_of(ledger, "rollout.decided", 2)
    other = a_plan(lease="13 h")
    ledger.world.store.add_plan(other, now=T0)
    changed(ledger, number, lambda b: {**b, "plan_id": other.id})


def plan_edited_in_place(ledger):
    body = a_plan(lease="13 h").model_dump_json()
    ledger.run(sa.update(PLANS).values(body=body))


def evidence_edited_in_place(ledger):
    ledger.run(sa.update(EVIDENCE).values(body=canonical({"newest": None}).decode()))


def a_stage_skipped(ledger):
    number = number_of(ledger, "rollout.decided", 1)
    changed(ledger, number, lambda b: {**b, "to": "champion"})


@pytest.mark.parametrize(
    ("forge", "kind"),
    [
        (approval_of_another_release, "approval"),
        (approval_of_stale_evidence, "approval"),
        (approval_by_the_author, "approval"),
        (another_plan_after_results, "changed plan"),
        (plan_edited_in_place, "changed plan"),
        (evidence_edited_in_place, "evidence"),
        (a_stage_skipped, "transition"),
    ],
)
def test_records_that_contradict_one_another_are_found_although_the_chain_is_whole(ledger, forge, kind):
    forge(ledger)
    # Not even a checkpoint helps the forger's victim here.
    alone = replace(ledger.ports, notary=None)
    assert kind in {fault.kind for fault in audit(alone).faults}


def snapshot_slipped_in(ledger):
    present = ledger.world.store.snapshot(POINT)
    ledger.world.store.commit(Commit((), snapshot=replace(present, number=present.number + 1)))


def snapshot_edited(ledger):
    present = ledger.world.store.snapshot(POINT)
    body = canonical(replace(present, slots=7).document()).decode()
    ledger.run(sa.update(SNAPSHOTS).where(SNAPSHOTS.c.number == present.number).values(body=body))


def snapshot_deleted(ledger):
    ledger.run(sa.delete(SNAPSHOTS).where(SNAPSHOTS.c.number == 1))


def champion_exchanged(ledger):
    ledger.run(sa.update(DECISION_POINTS).values(champion=ledger.world.champion))


def rollout_moved_by_hand(ledger):
    ledger.run(sa.update(ROLLOUTS).values(state="retired", version=99))


@pytest.mark.parametrize(
    "act", [snapshot_slipped_in, snapshot_edited, snapshot_deleted, champion_exchanged, rollout_moved_by_hand]
)
def test_an_act_without_its_record_is_found_as_outside_the_process(ledger, act):
    act(ledger)
    assert ledger.kinds() == {"outside"}


def test_an_erased_text_leaves_a_ledger_that_both_verifiers_prove(ledger, tmp_path):
    number = next(e.number for e in ledger.world.store.entries() if "answer" in e.record.body)
    for _ in range(2):
        erase(ledger.ports, [number], reason="request 17", actor="dana", now=ledger.now)
    checkpoint(ledger.ports, now=ledger.now)
    assert audit(ledger.ports).proof is Proof.PROVEN
    assert ledger.verified(tmp_path) == VERIFIER.PROVEN
    assert "read it" not in (tmp_path / "ledger.jsonl").read_text()
    assert "read it" not in ledger.world.store.rollouts()[0].reason
    with ledger.engine.connect() as connection:
        assert connection.scalar(sa.select(LEDGER_TEXTS.c.texts).where(LEDGER_TEXTS.c.number == number)) is None


def test_a_changed_history_is_not_signed(ledger):
    rewrite_everything(ledger)
    ledger.world.store.append([Record(ledger.now, "gate.waived", "dana", POINT, None, "new", {})])
    before = ledger.world.store.checkpoints()
    with pytest.raises(TamperedError, match="does not begin with"):
        checkpoint(ledger.ports, now=ledger.now)
    assert ledger.world.store.checkpoints() == before


def test_a_key_that_was_rotated_leaves_everything_proven_and_signs_nothing_any_more(ledger, tmp_path):
    end = ledger.now + HOUR
    keys = [a_verifier_key(KEY, until=end), a_verifier_key(OTHER, since=end)]
    ledger.world.store.append([Record(end, "gate.waived", "dana", POINT, None, "new", {})])
    with pytest.raises(TamperedError, match="outside the time"):
        checkpoint(ledger.with_keys(KEY, keys), now=end)
    ledger.ports = ledger.with_keys(OTHER, keys)
    assert checkpoint(ledger.ports, now=end).size == ledger.world.store.head()[0]
    assert audit(ledger.ports).proof is Proof.PROVEN
    assert ledger.verified(tmp_path) == VERIFIER.PROVEN


def test_two_who_write_and_sign_at_once_make_one_ledger_and_no_fork(ledger):
    def write_and_sign(name):
        for n in range(5):
            ledger.world.store.append(
                [Record(ledger.now, "test.noted", name, POINT, None, f"{name}/{n}", {"reason": "x"})]
            )
            checkpoint(ledger.ports, now=ledger.now)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write_and_sign, ["one", "other"]))
    checkpoint(ledger.ports, now=ledger.now)
    assert audit(ledger.ports).proof is Proof.PROVEN


def test_an_anchor_that_does_not_answer_is_a_gap_and_no_proof(ledger):
    class Silent:
        name = "silent"

        def notes(self):
            from seatrial.errors import UnavailableError  # noqa: PLC0415 used here alone

            raise UnavailableError("anchor silent: no answer")

    notary = replace(ledger.ports.notary, anchors=(Silent(), ledger.anchor))
    found = audit(replace(ledger.ports, notary=notary))
    assert found.proof is Proof.UNPROVEN
    assert [gap.kind for gap in found.gaps] == ["unanswered"]
    assert audit(replace(ledger.ports, notary=None)).proof is Proof.UNPROVEN
