import hashlib
import json
import shutil
from itertools import pairwise

import pyarrow.parquet as pq
import pytest
from builders import DAY, POINT, T0, a_plan
from log_builders import ClockAt, a_label, a_row, all_bytes, cut_off_at, files, rows_of, write

from seatrial.adapters import log_erasure
from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.log_erasure import Request, erase
from seatrial.adapters.log_files import digest_file, present_files
from seatrial.adapters.log_keeping import clear_expired, compact, partitions, unfinished
from seatrial.adapters.logs import LogWriter
from seatrial.adapters.memory import MemoryStore
from seatrial.errors import RefusedError, TamperedError, UnavailableError
from seatrial.ports import Scope

NOW = T0 + 3 * DAY
KEY = "card-4711"
SALT = bytes(range(32))
SCOPE = Scope(POINT, "r1", "champion", "challenger", T0)


def fill(root):
    """Write three days in which the unit decides five times, once with a copy, once badly; with its labels."""
    for day in range(3):
        for batch in range(2):
            at = 24 * day + batch
            mine = a_row(at, unit_key=KEY, decision_id=f"mine-{at}", arm="challenger", feature_digest="sha256:mine")
            others = [a_row(at, decision_id=f"other-{at}-{n}", unit_key=f"u{at}-{n}") for n in range(3)]
            rows = [mine, *others] if at != 24 else others
            copies = [{**mine, "arm": "shadow", "action_taken": None}] if at == 1 else []
            labels = [a_label(at, decision_id=row["decision_id"]) for row in rows]
            write(root, [*rows, *copies], labels, clock=ClockAt(NOW))
    bad = [
        a_row(60, unit_key=KEY, decision_id="mine-bad", share=2.0),
        a_row(61, unit_key="u61", origin=[KEY]),
        a_row(62, share=3.0),
    ]
    write(root, bad, [a_label(60, decision_id="mine-bad"), a_label(48, decision_id="mine-48", value="x")])


def do(root, store=None, *, key=KEY, salt=SALT, reason="request 118", with_attributes=False, now=NOW):
    request = Request(key, reason, "ada", with_attributes)
    append = (store or MemoryStore()).append
    return erase(root, request, append, salt=salt, now=now)


def traces(root):
    """Return which texts of the unit are anywhere below the logs."""
    everything = (
        all_bytes(root) + repr([rows_of(root, kind) for kind in ("decisions", "labels", "quarantine")]).encode()
    )
    return [text for text in (KEY, "mine-", "sha256:mine") if text.encode() in everything]


def test_nothing_of_the_unit_is_left_in_any_file(tmp_path):
    fill(tmp_path)
    assert traces(tmp_path) == [KEY, "mine-", "sha256:mine"]
    do(tmp_path)
    assert traces(tmp_path) == []
    assert unfinished(tmp_path) == []


def test_all_its_rows_get_one_token_and_every_other_row_stays(tmp_path):
    fill(tmp_path)
    before = rows_of(tmp_path)
    do(tmp_path)
    after = rows_of(tmp_path)
    assert [row for row in after if row["unit_key"].startswith("u")] == [r for r in before if r["unit_key"] != KEY]
    mine = [row for row in after if not row["unit_key"].startswith("u")]
    (token,) = {row["unit_key"] for row in mine}
    assert token.startswith("erased-")
    assert {row["feature_digest"] for row in mine} == {"erased"}
    assert {row["origin"] for row in mine} == {"EWR"}
    kept = [name for name in before[0] if name not in ("unit_key", "feature_digest", "decision_id")]

    def other_columns(rows):
        return sorted([repr([row[name] for name in kept]) for row in rows])

    assert other_columns(mine) == other_columns(row for row in before if row["unit_key"] == KEY)


def test_labels_and_copies_stay_with_their_decision(tmp_path):
    fill(tmp_path)
    do(tmp_path)
    decisions = {row["decision_id"] for row in rows_of(tmp_path)}
    labels = {row["decision_id"] for row in rows_of(tmp_path, "labels")}
    # The label of the decision that was turned away never had one.
    assert len(labels - decisions) == 1
    assert decisions <= labels
    arms = [row["arm"] for row in rows_of(tmp_path)]
    assert (len(decisions), arms.count("shadow")) == (len(arms) - 1, 1)


def test_a_look_counts_the_same_before_and_after(tmp_path):
    fill(tmp_path)
    look = ParquetLogs(tmp_path).look
    before = look(a_plan(), SCOPE, now=NOW)
    do(tmp_path)
    assert look(a_plan(), SCOPE, now=NOW) == before
    assert before.cells


def test_of_a_row_in_quarantine_its_reason_and_time_stay_and_nothing_that_came_in(tmp_path):
    fill(tmp_path)
    before = rows_of(tmp_path, "quarantine")
    do(tmp_path)
    after = rows_of(tmp_path, "quarantine")
    reasons = ["origin.wrong_type", "share.out_of_range", "share.out_of_range", "value.wrong_type"]
    assert sorted(row["reason"] for row in after) == sorted(row["reason"] for row in before) == reasons
    erased = [row for row in after if row["detail"] == "erased"]
    assert len(erased) == 3
    assert {tuple(json.loads(row["row"])) for row in erased} == {("unit_key",)}
    (whole,) = [row for row in after if row["detail"] != "erased"]
    assert whole in before


def test_attributes_are_blanked_only_when_asked_for(tmp_path):
    fill(tmp_path)
    do(tmp_path, with_attributes=True)
    assert {row["origin"] for row in rows_of(tmp_path) if row["unit_key"].startswith("erased")} == {"erased"}
    assert {row["origin"] for row in rows_of(tmp_path) if row["unit_key"].startswith("u")} == {"EWR"}


def test_files_that_do_not_name_the_unit_are_not_touched(tmp_path):
    fill(tmp_path)
    write(tmp_path, [a_row(5)], [a_label(5)])
    before = {path.name: path.stat().st_ino for path in [*files(tmp_path), *files(tmp_path, "labels")]}
    named = [
        path.name for path in files(tmp_path) if KEY in pq.read_table(path, partitioning=None)["unit_key"].to_pylist()
    ]
    do(tmp_path)
    after = {path.name: path.stat().st_ino for path in [*files(tmp_path), *files(tmp_path, "labels")]}
    assert not set(named) & set(after)
    assert len([name for name in before if after.get(name) == before[name]]) == 4


def test_the_ledger_tells_files_by_digest_who_and_why_and_nothing_to_know_the_unit_by(tmp_path):
    fill(tmp_path)
    digests = {
        path.relative_to(tmp_path).as_posix(): digest_file(path)
        for kind in ("decisions", "labels")
        for path in files(tmp_path, kind)
    }
    store = MemoryStore()
    done = do(tmp_path, store)
    (record,) = [entry.record for entry in store.entries()]
    assert (record.kind, record.actor, record.body["reason"]) == ("logs.erased", "ada", "request 118")
    assert (record.body["files"], record.body["rows"]) == (done.files, done.rows)
    for entry in record.body["rewritten"]:
        assert entry["before"] == digests.get(entry["before_file"], entry["before"])
        path = (tmp_path / entry["before_file"]).with_name(entry["after_file"])
        assert entry["after"] == digest_file(path)
    text = json.dumps(record.document())
    (token,) = {row["unit_key"] for row in rows_of(tmp_path) if row["unit_key"].startswith("erased")}
    for secret in (
        KEY,
        token,
        SALT.hex(),
        *(hashlib.new(name, KEY.encode()).hexdigest() for name in ("sha256", "md5")),
    ):
        assert secret not in text
        assert secret[:16] not in text


def test_another_salt_gives_another_token(tmp_path):
    tokens = []
    for salt in (SALT, bytes(32)):
        root = tmp_path / str(salt[1])
        fill(root)
        do(root, salt=salt)
        tokens += {row["unit_key"] for row in rows_of(root) if row["unit_key"].startswith("erased")}
    assert len(set(tokens)) == 2


def test_a_reason_that_names_the_unit_is_refused_before_anything_is_written(tmp_path):
    fill(tmp_path)
    for request in ({"reason": f"asked by {KEY}."}, {"key": ""}):
        with pytest.raises(RefusedError):
            do(tmp_path, **request)
    assert not (tmp_path / ".erasing").exists()
    do(tmp_path, key="118", reason="request 1180")


def test_a_unit_that_nobody_logged_is_recorded_nowhere(tmp_path):
    fill(tmp_path)
    store = MemoryStore()
    assert do(tmp_path, store, key="card-1").files == 0
    assert list(store.entries()) == []
    assert do(tmp_path / "nowhere", store).files == 0


def test_again_changes_nothing(tmp_path):
    fill(tmp_path)
    store = MemoryStore()
    do(tmp_path, store)
    before = all_bytes(tmp_path)
    assert do(tmp_path, store, salt=bytes(32)).files == 0
    assert all_bytes(tmp_path) == before
    assert len(store.entries()) == 1


def test_cut_off_anywhere_and_repeated_it_comes_to_the_same_end(tmp_path, monkeypatch):
    filled, straight, told = tmp_path / "filled", tmp_path / "straight", MemoryStore()
    fill(filled)
    shutil.copytree(filled, straight)
    do(straight, told)
    end = [rows_of(straight, kind) for kind in ("decisions", "labels", "quarantine")]
    for changes in range(300):
        root, store = tmp_path / str(changes), MemoryStore()
        shutil.copytree(filled, root)
        was_cut = cut_off_at(monkeypatch, changes, lambda root=root, store=store: do(root, store))
        # Another salt is drawn each time; the one that was begun with goes on.
        do(root, store, salt=SALT if changes == 0 else bytes(32))
        assert traces(root) == []
        assert [rows_of(root, kind) for kind in ("decisions", "labels", "quarantine")] == end
        assert unfinished(root) == []
        assert [dict(e.record.body) for e in store.entries()] == [dict(e.record.body) for e in told.entries()]
        if not was_cut:
            break
    assert changes > 20


def test_two_cuts_in_the_middle_come_to_the_same_end(tmp_path, monkeypatch):
    filled, straight = tmp_path / "filled", tmp_path / "straight"
    fill(filled)
    shutil.copytree(filled, straight)
    do(straight)
    for first, second in pairwise(range(2, 20, 3)):
        root = tmp_path / f"{first}"
        shutil.copytree(filled, root)
        assert cut_off_at(monkeypatch, first, lambda root=root: do(root))
        cut_off_at(monkeypatch, second, lambda root=root: do(root))
        do(root)
        assert rows_of(root) == rows_of(straight)
        assert traces(root) == []


def test_a_note_that_was_cut_off_half_way_is_no_note(tmp_path, monkeypatch):
    fill(tmp_path)
    cut_off_at(monkeypatch, 6, lambda: do(tmp_path))
    (state,) = (tmp_path / ".erasing").iterdir()
    with state.open("ab") as file:
        file.write(b'{"file": "labels/deci')
    cut_off_at(monkeypatch, 3, lambda: do(tmp_path))
    do(tmp_path)
    assert traces(tmp_path) == []


def test_a_ledger_that_is_down_leaves_the_erasure_open_and_again_records_it(tmp_path):
    fill(tmp_path)

    def down(_records):
        raise UnavailableError("the database did not answer")

    with pytest.raises(UnavailableError):
        erase(tmp_path, Request(KEY, "request 118", "ada", with_attributes=False), down, salt=SALT, now=NOW)
    assert len(unfinished(tmp_path)) == 1
    assert traces(tmp_path) == []
    store = MemoryStore()
    assert do(tmp_path, store, salt=bytes(32)).files > 0
    assert len(store.entries()) == 1
    assert unfinished(tmp_path) == []


def test_another_unit_and_other_options_wait_for_the_end_of_an_unfinished_erasure(tmp_path, monkeypatch):
    fill(tmp_path)
    cut_off_at(monkeypatch, 6, lambda: do(tmp_path))
    (left,) = unfinished(tmp_path)
    for other in ({"key": "u0-1"}, {"with_attributes": True}):
        with pytest.raises(RefusedError, match=f"unfinished erasure {left}"):
            do(tmp_path, salt=bytes(32), **other)
    do(tmp_path, salt=bytes(32))
    assert do(tmp_path, key="u0-1", salt=bytes(32)).files == 2


def test_the_state_names_the_unit_to_nobody_who_has_not_its_salt_and_no_other_user_reads_it(tmp_path, monkeypatch):
    fill(tmp_path)
    cut_off_at(monkeypatch, 6, lambda: do(tmp_path))
    (state,) = (tmp_path / ".erasing").iterdir()
    assert KEY not in state.read_text()
    assert state.parent.stat().st_mode & 0o077 == 0


def test_a_file_that_the_erasure_wrote_and_that_is_gone_is_not_passed_over(tmp_path, monkeypatch):
    fill(tmp_path)
    erased = log_erasure._finish  # noqa: SLF001 the moment between the last file and the record

    def lose(*args, **options):
        next(path for path in files(tmp_path) if path.name.startswith("compact-")).unlink()
        return erased(*args, **options)

    monkeypatch.setattr(log_erasure, "_finish", lose)
    with pytest.raises(TamperedError, match="not there"):
        do(tmp_path)


def test_leftovers_that_nobody_reads_are_taken_along(tmp_path):
    fill(tmp_path)
    folder = partitions(tmp_path)[0].folder
    out = folder.with_name(".expired-date=2012-01-01")
    out.mkdir()
    (out / "part-a.parquet").write_bytes(KEY.encode())
    old = {path.name: path.read_bytes() for path in present_files(folder)}
    compact(partitions(tmp_path)[0])
    for name, content in old.items():
        (folder / name).write_bytes(content)
    (folder / ".part-x.parquet.1-0.partial").write_bytes(KEY.encode())
    do(tmp_path)
    assert traces(tmp_path) == []
    assert clear_expired(tmp_path) == 0


def test_a_compacted_file_is_erased_and_still_stands_for_what_it_replaced(tmp_path):
    fill(tmp_path)
    batch = files(tmp_path)[0]
    content = batch.read_bytes()
    for partition in partitions(tmp_path):
        compact(partition)
    do(tmp_path)
    before = rows_of(tmp_path)
    batch.write_bytes(content)
    assert rows_of(tmp_path) == before
    do(tmp_path)
    assert traces(tmp_path) == []


def test_a_unit_that_is_still_logged_is_refused_and_can_be_finished_later(tmp_path):
    fill(tmp_path)
    count = iter(range(100, 200))

    def logging(paths):
        at = next(count)
        write(tmp_path, [a_row(at, unit_key=KEY, decision_id=f"mine-{at}")])
        yield from paths

    request = Request(KEY, "request 118", "ada", with_attributes=False)
    with pytest.raises(RefusedError, match="still logs it"):
        erase(tmp_path, request, MemoryStore().append, salt=SALT, now=NOW, progress=logging)
    do(tmp_path)
    assert traces(tmp_path) == []
    assert len({row["unit_key"] for row in rows_of(tmp_path) if row["unit_key"].startswith("erased")}) == 1


def test_a_row_with_a_wrong_id_does_not_take_another_units_labels(tmp_path):
    fill(tmp_path)
    write(tmp_path, [a_row(70, unit_key=KEY, decision_id="other-0-1", share=2.0)])
    before = [row for row in rows_of(tmp_path, "labels") if row["decision_id"] == "other-0-1"]
    do(tmp_path)
    assert [row for row in rows_of(tmp_path, "labels") if row["decision_id"] == "other-0-1"] == before


def test_another_decision_point_with_the_same_ids_keeps_them(tmp_path):
    fill(tmp_path)
    writer = LogWriter(tmp_path, "elsewhere", ("origin",))
    writer.decision(a_row(1, decision_id="mine-1", decision_point="elsewhere"))
    writer.label(a_label(1, decision_id="mine-1"))
    writer.flush()
    do(tmp_path)
    for kind in ("decisions", "labels"):
        assert [row["decision_id"] for row in rows_of(tmp_path, kind)].count("mine-1") == 1
