"""What `mounts` prints: a table for people, or JSON for programs."""

import json
from datetime import datetime

from potofs import times
from potofs.mount.overview import Overview, overviews

_COLUMNS = ("MOUNTPOINT", "BACKEND", "STATE", "PID", "SINCE", "REQ/S", "OPEN")
# Numbers are set flush right.
_NUMBERS = frozenset({"PID", "REQ/S", "OPEN"})


def as_table() -> str:
    """A line for each mount, below a line of names."""
    rows = [_COLUMNS, *map(_row, overviews())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = (
        "  ".join(
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(_COLUMNS, row, widths, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def as_json() -> str:
    """A list with an object for each mount; null is what nobody tells."""
    return json.dumps(
        [
            {
                "mountpoint": mount.mountpoint,
                "backend": mount.backend,
                "state": mount.state,
                "pid": mount.pid,
                "since": None if mount.since is None else times.iso(int(mount.since * 1e9)),
                "requestsPerSecond": None if mount.requests_per_second is None else round(mount.requests_per_second, 1),
                "openFiles": mount.open_files,
            }
            for mount in overviews()
        ],
        indent=2,
    )


def _row(mount: Overview) -> tuple[str, ...]:
    since = None if mount.since is None else datetime.fromtimestamp(mount.since).astimezone().strftime("%F %T")
    rate = None if mount.requests_per_second is None else f"{mount.requests_per_second:.1f}"
    cells = (mount.mountpoint, mount.backend, mount.state, mount.pid, since, rate, mount.open_files)
    # Whatever a name holds, it is one line.
    return tuple("-" if cell is None else one_line(str(cell)) for cell in cells)


def one_line(text: str) -> str:
    """Text without what would break a line of a table or a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
