"""Looks how busy a mount is: a program of its own, run by its path with a mountpoint and a pause in seconds.

If the mount hangs, the kernel lets nobody end this process before the mount answers; so whoever wants to know starts
one, and does not wait for it any longer than it likes. It imports nothing of potofs, to be there at once.

It prints a line of JSON: the errno that it met or 0, and `[seconds, text]` for each time that it read the metrics.
"""

import errno
import json
import sys
import time

#: Where a mount says how it is.
METRICS = "system/metrics.prom"


def looked_at(mountpoint: str, pause: float) -> dict[str, object]:
    """What it prints: two looks in a row, so that one knows what a look costs, and one after the pause."""
    samples: list[tuple[float, str]] = []
    try:
        for wait in (0.0, 0.0, pause):
            time.sleep(wait)
            with open(f"{mountpoint}/{METRICS}", encoding="utf-8", errors="replace") as file:
                samples.append((time.monotonic(), file.read()))
    except OSError as error:
        return {"errno": error.errno or errno.EIO, "samples": samples}
    return {"errno": 0, "samples": samples}


if __name__ == "__main__":
    print(json.dumps(looked_at(sys.argv[1], float(sys.argv[2]))))  # noqa: T201  (this is its answer)
