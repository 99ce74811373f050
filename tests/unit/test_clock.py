from datetime import UTC, timedelta, timezone

import pytest
from builders import HOUR, T0

from seatrial.adapters.clock import ReplayClock, WallClock
from seatrial.errors import UnavailableError


def test_the_walls_time_is_aware():
    assert WallClock().now().tzinfo is UTC


def test_a_replays_time_is_what_it_was_advanced_to(tmp_path):
    writer, reader = ReplayClock(tmp_path / "now"), ReplayClock(tmp_path / "now")
    for moment in (T0, T0 + HOUR, (T0 + 2 * HOUR).astimezone(timezone(timedelta(hours=5)))):
        writer.advance(moment)
        assert reader.now() == moment
        assert reader.now().tzinfo is UTC
    assert [path.name for path in tmp_path.iterdir()] == ["now"]


@pytest.mark.parametrize("content", [None, "", "soon", "2013-06-01T00:00:00", "é"])
def test_a_replay_that_has_not_begun_has_no_time(tmp_path, content):
    path = tmp_path / "now"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UnavailableError, match="start the replay first"):
        ReplayClock(path).now()


def test_a_time_without_a_zone_is_refused_and_the_old_one_stays(tmp_path):
    clock = ReplayClock(tmp_path / "now")
    clock.advance(T0)
    with pytest.raises(ValueError, match="has no zone"):
        clock.advance(T0.replace(tzinfo=None))
    assert clock.now() == T0
