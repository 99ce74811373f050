"""Values that cannot be wrong: shares, digests, aware times, durations."""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

#: Slots that a unit key can hash to; a share is a whole number of them (0.01 % each).
SLOTS = 10_000

_DURATION = re.compile(r"(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>s|min|h|d|w)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_PERCENT = re.compile(r"(?P<value>\d+(?:\.\d+)?)\s*%")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def share_to_slots(share: float) -> int:
    """Return the number of slots of `share`, a fraction in [0, 1] in whole hundredths of a percent.

    >>> share_to_slots(0.05)
    500
    """
    if not (math.isfinite(share) and 0.0 <= share <= 1.0):
        raise ValueError(f"share {share!r}: a share is a fraction from 0 to 1")
    slots = round(share * SLOTS)
    if not math.isclose(slots, share * SLOTS, abs_tol=1e-6):
        raise ValueError(f"share {share!r}: finer than 0.01 %, which is one slot of {SLOTS}")
    return slots


def parse_share(text: object) -> float:
    """Return the fraction that `text` names: ``"5 %"``, or a number from 0 to 1.

    >>> parse_share("2.5 %")
    0.025
    """
    if isinstance(text, str) and (match := _PERCENT.fullmatch(text.strip())):
        share = float(match["value"]) / 100.0
    elif isinstance(text, (int, float)) and not isinstance(text, bool):
        share = float(text)
    else:
        raise ValueError(f'found {text!r}, expected a share such as "5 %" or 0.05')
    slots = share_to_slots(share) if math.isfinite(share) and 0.0 <= share <= 1.0 else None
    if slots is None:
        raise ValueError(f"found {text!r}, expected a share from 0 % to 100 %")
    return slots / SLOTS


def parse_duration(text: object) -> timedelta:
    """Return the duration that `text` names: ``"90 s"``, ``"15 min"``, ``"6 h"``, ``"2 d"``, ``"3 w"``.

    >>> parse_duration("36 h")
    datetime.timedelta(days=1, seconds=43200)
    """
    if isinstance(text, timedelta):
        return text
    if isinstance(text, str) and (match := _DURATION.fullmatch(text.strip())):
        return timedelta(seconds=float(match["value"]) * _SECONDS[match["unit"]])
    raise ValueError(f'found {text!r}, expected a duration with its unit, such as "36 h" (s, min, h, d, w)')


def format_duration(duration: timedelta) -> str:
    """Return `duration` in its two largest units.

    >>> format_duration(timedelta(hours=36))
    '1 d 12 h'
    """
    seconds = int(duration.total_seconds())
    if seconds < 0:
        return f"-{format_duration(-duration)}"
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def require_aware(moment: datetime) -> datetime:
    """Return `moment` in UTC, or refuse it when it has no time zone."""
    if moment.tzinfo is None:
        raise ValueError(f"time {moment.isoformat()} has no zone; give an aware time, for example with +00:00")
    return moment.astimezone(UTC)


def format_time(moment: datetime) -> str:
    """Return `moment` as ISO 8601 in UTC with microseconds, which sorts as text.

    >>> format_time(datetime(2013, 6, 1, tzinfo=UTC))
    '2013-06-01T00:00:00.000000Z'
    """
    return f"{require_aware(moment).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def parse_time(text: str) -> datetime:
    """Return the aware time written by `format_time`, or any ISO 8601 time with a zone."""
    return require_aware(datetime.fromisoformat(text))


def canonical(value: Any) -> bytes:
    """Return the one JSON text of `value`: sorted keys, no spaces, no NaN.

    >>> canonical({"b": 1, "a": [None, "x"]})
    b'{"a":[null,"x"],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_bytes(content: bytes) -> str:
    """Return ``sha256:`` and 64 hexadecimal digits of `content`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest_of(value: Any) -> str:
    """Return the digest of the canonical form of `value`."""
    return digest_bytes(canonical(value))


def require_digest(text: str) -> str:
    """Return `text` when it is a digest as `digest_bytes` writes it."""
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"found {text!r}, expected a digest: sha256: and 64 hexadecimal digits")
    return text


def short(digest: str) -> str:
    """Return the first twelve hexadecimal digits of `digest`, for people."""
    return digest.removeprefix("sha256:")[:12]


def plain_name(name: str) -> str:
    """Return `name` as a settings file would write it, so that "Ada Marin" is ada-marin.

    >>> plain_name("Ada Marin")
    'ada-marin'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")
