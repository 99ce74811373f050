import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import POINT, T0, World, a_release

from seatrial.adapters.batch_outputs import described
from seatrial.adapters.sql import SqlStore
from seatrial.cli import main
from seatrial.control.ending import kill
from seatrial.control.outputting import mark, register_output
from seatrial.errors import InvalidDocumentError, NotFoundError, RefusedError, UnavailableError
from seatrial.outputs import MOVES, BatchOutput, Standing
from seatrial.rollout import State


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def an_output(world, **changes):
    rows = {world.champion: 900, world.challenger: 100}
    output = BatchOutput("sha256:o1", POINT, "lake/scores.parquet", 1, rows, ("crm",), T0, "nightly")
    return replace(output, **changes)


def registered(world, **changes):
    return register_output(world.ports, an_output(world, **changes), now=T0, actor="nightly")


def kinds(world):
    return [entry.record.kind for entry in world.store.entries() if entry.record.kind.startswith("output.")]


def test_an_output_is_registered_once(world):
    assert registered(world) == registered(world, location="elsewhere") == world.store.output("o1")
    assert kinds(world) == ["output.registered"]


def test_taking_a_release_out_makes_what_it_decided_suspect_in_the_same_move(world):
    rollout, now = world.advance_to(State.CANARY)
    registered(world)
    registered(world, id="sha256:o2", rows={world.champion: 5})
    kill(world.ports, world.challenger, reason="wrong since noon", actor="oncall", now=now)
    doubted, other = world.store.outputs(POINT)
    assert (doubted.standing, doubted.version) == (Standing.SUSPECT, 2)
    assert doubted.reason.endswith("was taken out: oncall: wrong since noon")
    assert other.standing is Standing.VALID
    (entry,) = [e for e in world.store.entries(rollout.id) if e.record.kind == "output.marked"]
    assert entry.record.body["standing"] == "suspect"


def test_an_output_that_comes_after_the_rollback_is_suspect_from_the_start(world):
    _, now = world.advance_to(State.CANARY)
    kill(world.ports, world.challenger, reason="wrong", actor="oncall", now=now)
    assert registered(world).standing is Standing.SUSPECT


def test_what_a_person_settled_is_not_doubted_again(world):
    _, now = world.advance_to(State.CANARY)
    registered(world)
    mark(world.ports, "o1", Standing.INVALIDATED, reason="sent again", now=now, actor="dana")
    kill(world.ports, world.challenger, reason="wrong", actor="oncall", now=now)
    assert world.store.output("o1").standing is Standing.INVALIDATED


@pytest.mark.parametrize("first", Standing)
@pytest.mark.parametrize("then", Standing)
def test_an_output_takes_only_the_standings_of_the_table(world, first, then):
    output = an_output(world, standing=first)
    if then in MOVES[first]:
        assert output.marked(then, "why") == replace(output, standing=then, reason="why", version=2)
    else:
        with pytest.raises(RefusedError, match=f"{then} cannot follow {first}"):
            output.marked(then, "why")


def test_marking_again_changes_nothing(world):
    registered(world)
    once = mark(world.ports, "o1", Standing.SUSPECT, reason="odd", now=T0, actor="dana")
    assert mark(world.ports, "o1", Standing.SUSPECT, reason="odd", now=T0, actor="yusuf") == once
    assert kinds(world) == ["output.registered", "output.marked"]


def test_an_output_names_releases_and_a_snapshot_of_its_decision_point(world):
    with pytest.raises(NotFoundError):
        registered(world, rows={"sha256:none": 1})
    for number in (0, 2):
        with pytest.raises(RefusedError, match="expected 1 to 1"):
            registered(world, snapshot_no=number)
    elsewhere = world.register(a_release(release={"name": "other", "version": "1", "decision_point": "elsewhere"}))
    with pytest.raises(RefusedError, match="decides for 'elsewhere'"):
        registered(world, rows={elsewhere: 1})
    assert world.store.outputs() == []


def written(path, releases, numbers):
    pq.write_table(
        pa.table({"unit_key": [*map(str, range(len(releases)))], "release_id": releases, "snapshot_no": numbers}), path
    )
    return path


def read(path):
    return described(path, decision_point=POINT, consumers=("crm",), now=T0, actor="nightly")


def test_a_file_says_who_decided_its_rows(tmp_path):
    output = read(written(tmp_path / "a.parquet", ["a", "b", "a"], [7, 7, 7]))
    assert (output.rows, output.snapshot_no) == ({"a": 2, "b": 1}, 7)
    assert output.id == read(tmp_path / "a.parquet").id != read(written(tmp_path / "b.parquet", ["a"], [7])).id


@pytest.mark.parametrize(
    ("releases", "numbers", "places"),
    [
        (["a", None], [7, 8], 2),
        (["a", None], [7, 7], 1),
        (["a", "b"], [7, 8], 1),
        (["a", "b"], [7, None], 1),
        (pa.array([], pa.string()), pa.array([], pa.int64()), 2),
    ],
)
def test_a_file_that_does_not_say_it_of_every_row_is_refused_with_all_problems(tmp_path, releases, numbers, places):
    with pytest.raises(InvalidDocumentError) as caught:
        read(written(tmp_path / "a.parquet", releases, numbers))
    assert len(caught.value.problems) == places


def test_a_file_without_the_columns_or_that_is_none_is_refused(tmp_path):
    pq.write_table(pa.table({"unit_key": ["a"]}), tmp_path / "a.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    for name in ("a.parquet", "torn.parquet"):
        with pytest.raises(InvalidDocumentError):
            read(tmp_path / name)
    with pytest.raises(UnavailableError):
        read(tmp_path / "none.parquet")


def test_the_commands_register_list_and_mark(tmp_path, capsys):
    store = SqlStore(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.create_tables()
    world = World(tmp_path, store)
    settings = tmp_path / "seatrial.yaml"
    settings.write_text(
        f"database: sqlite:///{tmp_path / 'store.sqlite'}\nlogs: logs\napprovers: {{dana: [risk-owner]}}\n"
    )
    file = written(tmp_path / "scores.parquet", [world.champion] * 2, [1, 1])
    common = ["--settings", str(settings), "--json"]
    assert main(["outputs", "list", *common]) == 0
    assert json.loads(capsys.readouterr().out) == {"outputs": []}
    words = ["outputs", "register", str(file), "--decision-point", POINT, "--for", "crm", "--as", "ada"]
    assert main([*words, *common]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["standing"], made["rows"], made["consumers"]) == ("valid", {world.champion: 2}, ["crm"])
    assert (
        main(["outputs", "mark", made["id"][7:15], "invalidated", "--reason", "sent twice", "--as", "dana", *common])
        == 0
    )
    capsys.readouterr()
    assert main(["outputs", "list", POINT, "--settings", str(settings)]) == 0
    assert "invalidated" in capsys.readouterr().out
    store.close()
