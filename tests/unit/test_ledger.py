from dataclasses import replace

import pytest
from builders import HOUR, POINT, T0

from seatrial.adapters.memory import MemoryStore
from seatrial.adapters.sql import SqlStore
from seatrial.errors import TamperedError
from seatrial.ledger import GENESIS, Record, chain, verify
from seatrial.units import digest_of


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
