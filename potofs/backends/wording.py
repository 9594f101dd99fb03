"""What whoever asks for something is told, the same by every backend."""

from potofs.errors import AlreadyExists, NotFound, Stale


def not_found(user: str, archive: str | None) -> NotFound:
    what = "running conversation" if archive is None else f"archive {archive!r}"
    return NotFound(f"user {user!r} has no {what}")


def gone_on(user: str) -> Stale:
    return Stale(f"user {user!r} has gone on with the conversation")


def taken(user: str, name: str) -> AlreadyExists:
    return AlreadyExists(f"user {user!r} has an archive {name!r} already; nothing is replaced, take another name")


def no_user(user: str) -> NotFound:
    return NotFound(f"there is no user {user!r}")


def taken_aside(user: str, name: str) -> AlreadyExists:
    return AlreadyExists(f"something of user {user!r} was set aside as {name!r} already; nothing is replaced")


def nothing_aside(user: str, name: str) -> NotFound:
    return NotFound(f"nothing of user {user!r} was set aside as {name!r}")
