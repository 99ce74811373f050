import io
import subprocess

import pytest
from builders import DAY, T0

from seatrial.adapters.anchors import BucketAnchor, FileAnchor, GitAnchor, MemoryAnchor
from seatrial.errors import UnavailableError


class LockedBucket:
    """A bucket in memory whose objects nobody overwrites, shaped as boto3's client; pages of two names."""

    def __init__(self):
        self.objects, self.wanted = {}, []

    def put_object(self, **wanted):
        if wanted["Key"] in self.objects:
            raise PermissionError("PreconditionFailed")
        self.objects[wanted["Key"]] = wanted["Body"]
        self.wanted.append(wanted)
        return {}

    def get_object(self, **wanted):
        return {"Body": io.BytesIO(self.objects[wanted["Key"]])}

    def list_objects_v2(self, **wanted):
        names = sorted(name for name in self.objects if name.startswith(wanted["Prefix"]))
        at = int(wanted.get("ContinuationToken", 0))
        page = {"Contents": [{"Key": name} for name in names[at : at + 2]], "IsTruncated": len(names) > at + 2}
        return {**page, "NextContinuationToken": str(at + 2)}


@pytest.fixture(params=["file", "git", "bucket", "memory"])
def anchor(request, tmp_path):
    return {
        "file": lambda: FileAnchor(tmp_path / "below" / "anchor.jsonl"),
        "git": lambda: GitAnchor(tmp_path / "anchor"),
        "bucket": lambda: BucketAnchor(LockedBucket(), "audit", lambda: T0 + 3_650 * DAY),
        "memory": MemoryAnchor,
    }[request.param]()


def test_an_anchor_keeps_every_note_once_in_order(anchor):
    assert list(anchor.notes()) == []
    for size in (5, 70, 800):
        for _ in range(2):
            anchor.publish(size, f"note of {size}\nwith — a line\n")
    assert list(anchor.notes()) == [f"note of {size}\nwith — a line\n" for size in (5, 70, 800)]


def test_a_second_note_of_one_size_never_takes_the_place_of_the_first(anchor):
    anchor.publish(5, "first\n")
    if isinstance(anchor, BucketAnchor):
        with pytest.raises(UnavailableError, match="PreconditionFailed"):
            anchor.publish(5, "second\n")
        assert list(anchor.notes()) == ["first\n"]
        return
    anchor.publish(5, "second\n")
    assert list(anchor.notes()) == ["first\n", "second\n"]


def test_a_line_that_a_crash_cut_off_hides_no_other(tmp_path):
    anchor = FileAnchor(tmp_path / "anchor.jsonl")
    anchor.publish(5, "first\n")
    with anchor.path.open("a") as file:
        file.write('{"size": 6, "no\n[]\n')
    anchor.publish(7, "third\n")
    assert list(anchor.notes()) == ["first\n", "third\n"]


def test_a_note_that_a_later_commit_takes_away_is_still_there(tmp_path):
    anchor = GitAnchor(tmp_path / "anchor")
    anchor.publish(5, "first\n")
    identity = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    for words in (["rm", "-q", "000000000005.txt"], ["commit", "-q", "-m", "gone"]):
        subprocess.run(["git", "-C", str(anchor.path), *identity, *words], check=True)
    assert list(anchor.notes()) == ["first\n"]


def test_a_note_in_a_bucket_is_locked_until_its_time_is_over():
    bucket = LockedBucket()
    BucketAnchor(bucket, "audit", lambda: T0 + DAY).publish(5, "first\n")
    (wanted,) = bucket.wanted
    assert (wanted["ObjectLockMode"], wanted["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", T0 + DAY)


def test_a_place_that_cannot_be_used_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("")
    for anchor in (FileAnchor(tmp_path / "file" / "anchor"), GitAnchor(tmp_path / "file" / "anchor")):
        with pytest.raises(UnavailableError, match="anchor"):
            anchor.publish(5, "first\n")
