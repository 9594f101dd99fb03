"""Looks how a mount is: a program of its own, run by its path with a mountpoint and, to see how busy it is, a pause in
seconds.

If the mount hangs, the kernel lets nobody end this process before the mount answers; so whoever wants to know starts
one, and does not wait for it any longer than it likes. It imports nothing of potofs, to be there at once.

It prints lines of JSON: first the errno that it met or 0, where the mount alone has to answer and not its backend;
then, if there is a pause, `[seconds, text]` for each time that it read the metrics, all in one list.
"""

import json
import os
import sys
import time

#: What every mount knows by itself.
SIGN = "system"
#: Where a mount says how it is.
METRICS = "system/metrics.prom"
#: So long the same metrics are shown to everybody, at most, and a little (seconds).
APART = 0.25

# More than any mount has to tell (bytes): what is mounted there may be anything.
_MOST = 1 << 18


def met(mountpoint: str) -> int:
    """The errno of a mount that does not answer as it should, or 0."""
    try:
        # The kernel passes that on, whatever it remembers.
        os.close(os.open(f"{mountpoint}/{SIGN}", os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        return error.errno or 5
    return 0


def looked_at(mountpoint: str, pause: float) -> list[tuple[float, str]]:
    """Three looks, the second soon after the first: so one knows what a look costs."""
    samples: list[tuple[float, str]] = []
    try:
        for wait in (0.0, APART, pause):
            time.sleep(wait)
            # Without waiting at the other end of a pipe.
            descriptor = os.open(f"{mountpoint}/{METRICS}", os.O_RDONLY | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                samples.append((time.monotonic(), file.read(_MOST).decode(errors="replace")))
    except OSError:
        # Whether it answers is told already.
        pass
    return samples


if __name__ == "__main__":
    print(json.dumps(met(sys.argv[1])), flush=True)  # noqa: T201  (these are its answers)
    if len(sys.argv) > 2:
        print(json.dumps(looked_at(sys.argv[1], float(sys.argv[2]))))  # noqa: T201
