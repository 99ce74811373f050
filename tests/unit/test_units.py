import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.units import (
    SLOTS,
    canonical,
    digest_bytes,
    digest_of,
    format_duration,
    format_time,
    parse_duration,
    parse_share,
    parse_time,
    require_aware,
    require_digest,
    share_to_slots,
    short,
)


@given(st.integers(0, SLOTS))
def test_every_slot_is_a_share_and_every_share_a_slot(slots):
    assert share_to_slots(slots / SLOTS) == slots
    assert share_to_slots(parse_share(slots / SLOTS)) == slots


@pytest.mark.parametrize("share", [-0.0001, 1.0001, 5.0, math.nan, math.inf, -math.inf, 0.00005, 1 / 3])
def test_a_share_that_is_no_whole_number_of_slots_in_zero_to_one_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        share_to_slots(share)
    with pytest.raises(ValueError, match="share"):
        parse_share(share)


@pytest.mark.parametrize("text", ["5", "five %", "", "-5 %", "101 %", "0.001 %", "nan %", None, True, [], "5 % "[::-1]])
def test_a_text_that_names_no_share_is_refused(text):
    with pytest.raises(ValueError, match="share"):
        parse_share(text)


@pytest.mark.parametrize(("text", "share"), [("5 %", 0.05), ("2.5%", 0.025), (" 100 % ", 1.0), (0, 0.0), (0.05, 0.05)])
def test_a_share_is_read_from_percent_or_fraction(text, share):
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["36", "h", "-1 h", "1 month", "1 h 30 min", "", 36, None, math.nan])
def test_a_duration_without_a_known_unit_is_refused(text):
    with pytest.raises(ValueError, match="expected a duration with its unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=59), "59 s"),
        (timedelta(hours=36), "1 d 12 h"),
        (timedelta(days=1, seconds=1), "1 d 1 s"),
        (-timedelta(minutes=5), "-5 min"),
        (timedelta(days=2, hours=3, minutes=4), "2 d 3 h"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(duration, text):
    assert format_duration(duration) == text


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1)), st.integers(-720, 720))  # noqa: DTZ001 the zone is drawn apart
def test_a_time_survives_being_written_and_read(naive, offset_min):
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    assert parse_time(format_time(moment)) == moment


@given(st.lists(st.datetimes(timezones=st.just(UTC)), min_size=2, max_size=2))
def test_written_times_sort_as_the_times_do(times):
    earlier, later = sorted(times)
    assert format_time(earlier) <= format_time(later)


def test_a_time_without_a_zone_is_refused():
    naive = datetime(2013, 6, 1)  # noqa: DTZ001 what is refused
    for refuse in (require_aware, format_time):
        with pytest.raises(ValueError, match="has no zone"):
            refuse(naive)
    with pytest.raises(ValueError, match="has no zone"):
        parse_time("2013-06-01T00:00:00")


@pytest.mark.parametrize("value", [math.nan, math.inf, {"deep": [{"value": -math.inf}]}])
def test_no_digest_is_made_of_what_is_not_a_number(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical(value)


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=6), st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_keys(mapping, rng):
    items = list(mapping.items())
    rng.shuffle(items)
    assert digest_of(dict(items)) == digest_of(mapping)


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 64])
def test_what_is_no_digest_is_refused(text):
    with pytest.raises(ValueError, match="expected a digest"):
        require_digest(text)


def test_a_digest_is_the_sha256_of_the_content():
    # FIPS 180-4, example of the message "abc"
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert require_digest(digest_bytes(b"abc")) == f"sha256:{known}"
    assert short(digest_bytes(b"abc")) == "ba7816bf8f01"
