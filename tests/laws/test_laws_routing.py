from math import sqrt

import pyarrow as pa
from builders import HOUR, POINT, T0
from hypothesis import given
from hypothesis import strategies as st

from seatrial.adapters.batch_assignment import assign_all
from seatrial.evidence import Arm
from seatrial.routing import Kill, KillMode, KillScope, Pin, RoutingSnapshot, ShadowBudget, assign
from seatrial.routing.compiled import compiled
from seatrial.units import SLOTS

TEXT = st.text(max_size=12)
TIMES = st.datetimes().map(lambda naive: naive.replace(tzinfo=T0.tzinfo))


def canary(slots, salt="salt"):
    return RoutingSnapshot(
        POINT, 1, "champion", "champion", "challenger", slots=slots, salt=salt, lease_until=T0 + HOUR
    )


@given(TEXT, TEXT, st.integers(0, SLOTS), st.integers(0, SLOTS))
def test_raising_the_share_never_moves_a_unit_away_from_the_challenger(salt, unit, one, other):
    smaller, larger = sorted([one, other])
    if assign(canary(smaller, salt), unit, {}, now=T0).arm is Arm.CHALLENGER:
        assert assign(canary(larger, salt), unit, {}, now=T0).arm is Arm.CHALLENGER


@given(TEXT, TEXT)
def test_no_share_reaches_nobody_and_the_whole_share_everybody(salt, unit):
    assert assign(canary(0, salt), unit, {}, now=T0).arm is Arm.CHAMPION
    assert assign(canary(SLOTS, salt), unit, {}, now=T0).arm is Arm.CHALLENGER


@given(TEXT, st.integers(1, SLOTS), TIMES)
def test_the_lease_alone_decides_when_a_challenger_stops(unit, slots, now):
    got = assign(canary(slots), unit, {}, now=now)
    if now >= T0 + HOUR:
        assert (got.release_id, got.share) == ("champion", 0.0)
    else:
        assert got.share == slots / SLOTS


def test_the_challengers_part_is_its_share():
    units = 20_000
    for seed in range(3):
        for share in (0.01, 0.05, 0.2, 0.5, 0.95):
            snapshot = canary(round(share * SLOTS), salt=f"{seed}/")
            got = sum(assign(snapshot, f"u{n}", {}, now=T0).arm is Arm.CHALLENGER for n in range(units))
            # Five standard deviations: 15 cases raise a false alarm once in 100,000 hash functions.
            assert abs(got - share * units) < 5 * sqrt(units * share * (1 - share))


def test_two_salts_draw_independent_units():
    units = [f"u{n}" for n in range(40_000)]
    one, other = (
        {u for u in units if assign(canary(2_000, salt), u, {}, now=T0).arm is Arm.CHALLENGER}
        for salt in ("r1/", "r2/")
    )
    expected = 0.04 * len(units)
    assert abs(len(one & other) - expected) < 5 * sqrt(expected * 0.96)


@st.composite
def snapshots(draw):
    challenger = draw(st.none() | TEXT)
    slots = draw(st.integers(0, SLOTS)) if challenger is not None else 0
    lease = draw(TIMES) if slots else draw(st.none() | TIMES)
    return RoutingSnapshot(
        draw(TEXT),
        draw(st.integers(0, 2**31)),
        champion=draw(TEXT),
        fallback=draw(TEXT),
        challenger=challenger,
        rollout_id=draw(st.none() | TEXT),
        segment=draw(st.none() | TEXT),
        when=draw(st.dictionaries(TEXT, st.lists(TEXT, min_size=1, max_size=3).map(tuple), max_size=3)),
        slots=slots,
        shadow=challenger is not None and draw(st.booleans()),
        stage=draw(st.integers(0, 20)),
        salt=draw(TEXT),
        lease_until=lease,
    )


@given(snapshots())
def test_a_snapshot_survives_being_written_and_read(snapshot):
    again = RoutingSnapshot.of_document(snapshot.document())
    assert again == snapshot
    assert again.digest == snapshot.digest


@given(snapshots(), snapshots())
def test_of_two_snapshots_at_most_one_is_newer(one, other):
    assert not (one.is_newer_than(other) and other.is_newer_than(one))


RULES = st.dictionaries(
    st.sampled_from(["carrier", "origin"]),
    st.lists(st.sampled_from("ABC"), min_size=1, max_size=2, unique=True).map(tuple),
    max_size=2,
)
RELEASES = st.sampled_from(["a", "b", "c"])


@st.composite
def ordered(draw):
    """A snapshot under which every way of being assigned is likely."""
    slots = draw(st.sampled_from([0, 1, 5_000, SLOTS]))
    pins = draw(st.lists(st.builds(Pin, RELEASES, st.just("p"), st.just("r"), TIMES, TEXT), max_size=2, unique_by=id))
    scopes = [
        Kill("k1", KillScope.RELEASE, KillMode.PREVIOUS_RELEASE, "p", "r", T0, "b", to="a"),
        Kill("k2", KillScope.SEGMENT, KillMode.PERSON, "p", "r", T0, "s", {"carrier": ("A",)}),
        Kill("k3", KillScope.DECISION_POINT, KillMode.REFUSE, "p", "r", T0, is_drill=True),
    ]
    return RoutingSnapshot(
        POINT,
        draw(st.integers(1, 99)),
        champion=draw(RELEASES),
        fallback=draw(RELEASES),
        challenger=draw(RELEASES),
        when=draw(RULES),
        slots=slots,
        shadow=draw(st.booleans()),
        salt=draw(TEXT),
        lease_until=draw(TIMES),
        pins=() if len({pin.unit_key for pin in pins}) < len(pins) else tuple(pins),
        kills=tuple(draw(st.lists(st.sampled_from(scopes), max_size=2, unique_by=lambda kill: kill.id))),
        budget=draw(st.none() | st.just(ShadowBudget(sampling=5_000))),
    )


@given(ordered(), TEXT, st.dictionaries(st.sampled_from(["carrier", "origin"]), st.sampled_from("ABC")), TIMES)
def test_a_compiled_snapshot_assigns_as_the_snapshot_does(snapshot, unit, attributes, now):
    for key in {unit, *(pin.unit_key for pin in snapshot.pins)}:
        assert compiled(snapshot)(key, attributes, now) == assign(snapshot, key, attributes, now=now)


UNITS = st.lists(st.tuples(TEXT, st.none() | st.sampled_from("ABC"), st.none() | st.sampled_from("ABC")), max_size=30)


@given(ordered(), UNITS, TIMES, st.booleans())
def test_many_units_are_assigned_as_each_one_is(snapshot, units, now, is_chunked):
    pinned = [(pin.unit_key, "A", None) for pin in snapshot.pins]
    keys, carriers, origins = zip(*units, *pinned, strict=True) if units or pinned else ((), (), ())
    columns = {
        "unit_key": pa.array(keys, pa.string()),
        "carrier": pa.array(carriers, pa.string()).dictionary_encode(),
        "origin": pa.array(origins, pa.large_string()),
    }
    table = pa.table(columns)
    if is_chunked and len(table) > 1:
        table = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    found = assign_all(snapshot, table, unit_key="unit_key", now=now)
    for row in found.to_pylist():
        known = {name: row[name] for name in ("carrier", "origin") if row[name] is not None}
        one = assign(snapshot, row["unit_key"], known, now=now)
        assert row["release_id"] == (None if one.kill else one.release_id)
        assert (row["arm"], row["share"], row["snapshot_no"]) == (one.arm.value, one.share, one.snapshot_no)
