"""Times as the journal writes them: ISO 8601 in UTC with milliseconds, as JavaScript's toISOString does."""

import contextlib
import re
import time
from datetime import UTC, datetime, timedelta

# A date and time as RFC 3339 and YAML 1.1 write it: seconds, fraction and zone may be missing.
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt \t]\s*(\d\d:\d\d)(:\d\d)?([.,]\d+)?(?:\s*([Zz]|[+-]\d\d(?::?\d\d)?))?)?", re.ASCII
)

_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)


def now() -> str:
    """The present time, `2024-01-15T10:30:00.000Z`."""
    return iso(time.time_ns())


def iso(nanoseconds: int) -> str:
    """A time in nanoseconds since 1970 as ISO 8601 with milliseconds, rounded down."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    # Not strftime, which writes the year 999 without its zero.
    return f"{moment.isoformat()}.{rest // 1_000_000:03d}Z"


def compact(nanoseconds: int) -> str:
    """The same without what a file name had better not have: `20240115T103000.000Z`."""
    return iso(nanoseconds).replace("-", "").replace(":", "")


def nanoseconds(timestamp: str) -> int | None:
    """The time that a message's timestamp names, in nanoseconds since 1970; None if it names none.

    Taken are the forms of RFC 3339 and of YAML 1.1, a bare date included; without a zone it is UTC.
    """
    if len(timestamp) == 24 and timestamp[4:20:3] == "--T::." and timestamp[23] == "Z":
        # The journal's own form, which Python reads by itself.
        with contextlib.suppress(ValueError):
            return (datetime.fromisoformat(timestamp) - _EPOCH) // _MICROSECOND * 1000
    found = _TIMESTAMP.fullmatch(timestamp)
    if found is None:
        return None
    date, minutes, seconds, fraction, zone = found.groups()
    text = f"{date}T{minutes or '00:00'}{seconds or ':00'}"
    if zone and zone not in "Zz":
        hours, rest = zone[:3], zone[3:].lstrip(":")
        text += f"{hours}:{rest or '00'}"
    try:
        moment = datetime.fromisoformat(text)
        # A time that is outside the years 1 to 9999 in UTC could not be written down again.
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        # Whole seconds and nanoseconds apart: a float would lose the last digits.
        whole = int(moment.timestamp())
    except (ValueError, OverflowError):
        return None
    return whole * 1_000_000_000 + int((fraction or ".0")[1:10].ljust(9, "0"))
