from dataclasses import asdict, replace

import pytest
import sqlalchemy as sa
from builders import HOUR, POINT, T0

from seatrial.adapters.ledger_tables import LEDGER, LEDGER_HEAD
from seatrial.adapters.memory import MemoryStore
from seatrial.adapters.sql import SqlStore
from seatrial.errors import TamperedError
from seatrial.ledger import ERASED, GENESIS, WITHHELD, Record, chain, faults, verify, withheld
from seatrial.statements import release_of, statement
from seatrial.units import canonical, digest_of


def a_record(n):
    return Record(T0 + n * HOUR, "rollout.decided", "test", POINT, "r1", f"k{n}", {"n": n, "to": ["canary"]})


@pytest.fixture(params=["memory", "sql"])
def entries(request, tmp_path):
    if request.param == "memory":
        store = MemoryStore()
        store.append([a_record(n) for n in range(6)])
        yield list(store.entries())
        return
    store = SqlStore(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.create_tables()
    store.append([a_record(n) for n in range(6)])
    yield list(store.entries())
    store.close()


def test_a_chain_that_nobody_touched_has_as_many_entries_as_acts(entries):
    assert verify(entries) == 6
    assert verify([]) == 0
    assert entries[0].previous == GENESIS


CHANGES = {
    "at": T0,
    "kind": "rollout.started",
    "actor": "somebody else",
    "decision_point": "elsewhere",
    "rollout_id": None,
    "key": "k99",
    "body": {"n": 3, "to": ["champion"]},
}


def tampered(entries, at):
    """Return an assertion that the first entry that does not fit is the one at position `at`."""
    with pytest.raises(TamperedError, match=f"recorded as entry {at + 1};"):
        verify(entries)


@pytest.mark.parametrize("key", CHANGES)
def test_an_edit_of_any_part_of_a_record_is_found(entries, key):
    entries[3] = replace(entries[3], record=replace(entries[3].record, **{key: CHANGES[key]}))
    tampered(entries, 3)


@pytest.mark.parametrize("change", [{"number": 5}, {"previous": GENESIS}, {"hash": digest_of("x")}])
def test_an_edit_of_a_link_is_found(entries, change):
    entries[3] = replace(entries[3], **change)
    tampered(entries, 3)


def test_a_forged_entry_with_a_right_hash_of_its_own_breaks_the_next_link(entries):
    forged = replace(entries[3].record, actor="somebody else")
    entries[3] = chain(forged, number=4, previous=entries[2].hash)
    tampered(entries, 4)


@pytest.mark.parametrize("at", range(5))
def test_a_deletion_anywhere_but_at_the_end_is_found(entries, at):
    del entries[at]
    tampered(entries, at)


def test_a_deletion_at_the_end_leaves_a_shorter_chain_that_says_how_short(entries):
    assert verify(entries[:-1]) == 5


def test_two_entries_in_the_other_order_are_found(entries):
    entries[2], entries[3] = entries[3], entries[2]
    tampered(entries, 2)


def test_an_entry_twice_is_found(entries):
    entries.insert(3, entries[2])
    tampered(entries, 3)


def test_an_entry_that_was_put_in_is_found(entries):
    entries.insert(3, chain(a_record(99), number=4, previous=entries[2].hash))
    tampered(entries, 4)


def test_the_same_record_at_another_place_has_another_hash():
    one = chain(a_record(1), number=1, previous=GENESIS)
    assert one.hash == chain(a_record(1), number=1, previous=GENESIS).hash
    assert one.hash != chain(a_record(1), number=2, previous=GENESIS).hash
    assert one.hash != chain(a_record(1), number=1, previous=one.hash).hash


def worded(n, **body):
    words = {"reason": "asked by mail", "answer": {"by": "dana", "reason": "Ms Roe called"}, **body}
    return replace(a_record(n), body={"n": n, **words})


@pytest.fixture(params=["memory", "sql"])
def spoken(request, tmp_path):
    """Return a store whose three entries hold texts in somebody's own words."""
    store = MemoryStore() if request.param == "memory" else SqlStore(f"sqlite:///{tmp_path / 'store.sqlite'}")
    if isinstance(store, SqlStore):
        store.create_tables()
    store.append([worded(n) for n in range(3)])
    yield store
    if isinstance(store, SqlStore):
        store.close()


def test_own_words_are_read_as_they_were_written_and_stand_outside_the_chain(spoken):
    entries = list(spoken.entries())
    assert [entry.record for entry in entries] == [worded(n) for n in range(3)]
    assert verify(entries) == 3
    assert len({entry.seal.salt for entry in entries}) == 3
    assert withheld(entries[0].record)[0].body["answer"] == {"by": "dana", "reason": WITHHELD}


def test_an_erased_text_is_gone_for_ever_and_the_ledger_still_verifies(spoken):
    spoken.erase([2], [], [a_record(9)])
    entries = list(spoken.entries())
    assert entries[1].record.body == {"n": 1, "reason": ERASED, "answer": {"by": "dana", "reason": ERASED}}
    assert [entry.is_erased for entry in entries] == [False, True, False, False]
    assert verify(entries) == 4


@pytest.mark.parametrize("is_erased", [False, True])
def test_an_edit_of_what_the_chain_covers_is_found_whether_the_text_is_there_or_not(spoken, is_erased):
    if is_erased:
        spoken.erase([2], [], [a_record(9)])
    entries = list(spoken.entries())
    entries[1] = replace(entries[1], record=replace(entries[1].record, body={**entries[1].record.body, "n": 9}))
    tampered(entries, 1)


def test_a_text_that_was_edited_or_taken_from_another_entry_is_found(spoken):
    entries = list(spoken.entries())
    forged = replace(entries[1], record=worded(1, reason="asked by phone"))
    tampered([entries[0], forged, entries[2]], 1)
    tampered([entries[0], replace(entries[1], seal=entries[2].seal), entries[2]], 1)
    tampered([entries[0], replace(entries[1], seal=None), entries[2]], 1)


def test_two_entries_with_the_same_words_have_different_digests(spoken):
    digests = {entry.seal.digest for entry in spoken.entries()}
    assert len(digests) == 3


def test_a_reason_that_looks_like_the_mark_of_a_withheld_one_stays_itself(spoken):
    spoken.append([worded(7, reason=WITHHELD)])
    assert spoken.entries()[-1].record.body["reason"] == WITHHELD
    assert verify(spoken.entries()) == 4


def test_every_fault_is_named_and_what_is_right_is_not(entries):
    entries[1] = replace(entries[1], record=replace(entries[1].record, actor="somebody else"))
    entries[4] = replace(entries[4], record=replace(entries[4].record, actor="somebody else"))
    assert [fault.partition(":")[0] for fault in faults(entries)] == [
        "ledger entry 2 (rollout.decided)",
        "ledger entry 5 (rollout.decided)",
    ]


def test_an_entry_from_before_texts_stood_outside_is_valid_beside_newer_ones():
    old = chain(worded(0), number=1, previous=GENESIS)
    new = chain(worded(1), number=2, previous=old.hash, salt="salt")
    assert old.seal is None
    assert verify([old, new]) == 2


def test_a_ledger_of_an_earlier_version_gets_its_column_and_stays_as_it_is(tmp_path):
    store = SqlStore(f"sqlite:///{tmp_path / 'old.sqlite'}")
    store.create_tables()
    old = chain(worded(0), number=1, previous=GENESIS)
    with store.engine.begin() as connection:
        values = {**asdict(old.record), "body": canonical(dict(old.record.body)).decode()}
        row = {**values, "number": 1, "previous": old.previous, "hash": old.hash}
        connection.execute(sa.insert(LEDGER).values(row))
        connection.execute(sa.update(LEDGER_HEAD).values(number=1, hash=old.hash))
        connection.exec_driver_sql("ALTER TABLE ledger DROP COLUMN withheld")
    for _ in range(2):
        store.create_tables()
    store.append([worded(1)])
    assert verify(store.entries()) == 2
    assert store.entries()[0] == old
    store.close()


def test_a_statement_is_about_the_release_that_the_entry_names(spoken):
    release = digest_of("release")
    record = replace(worded(4), body={"challenger": release, "reason": "Ms Roe called"})
    spoken.append([record])
    said = statement(spoken.entries()[-1])
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["subject"] == [{"name": "release", "digest": {"sha256": release.removeprefix("sha256:")}}]
    assert said["predicateType"] == "urn:seatrial:predicate:rollout.decided:v1"
    assert "Ms Roe" not in str(said)
    assert said["predicate"]["withheld"] == spoken.entries()[-1].seal.digest


def test_a_statement_about_no_release_is_about_its_own_entry(spoken):
    entry = spoken.entries()[0]
    assert statement(entry)["subject"][0]["digest"] == {"sha256": entry.hash.removeprefix("sha256:")}
    assert release_of(entry) is None
