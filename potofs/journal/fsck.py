"""Checking a journal, and mending it: nothing that was stored is dropped.

The backend checks what it keeps beside the bytes; here, conversation by conversation, the records are looked at. What
is no message is set aside (`rejected/`), in one piece for each conversation and before anything is taken away, and all
around it stays byte for byte. Which bytes those are, and which records only stand together, `mending` says.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

from potofs.backends.base import Backend, Finding, Reader, conversation_file
from potofs.errors import (
    Damaged,
    DeadlineExceeded,
    Fenced,
    NotFound,
    PotofsError,
    Stale,
    Unreachable,
    Unsupported,
    reason,
)
from potofs.journal import mending, metadata, ranges
from potofs.journal.mending import Apart
from potofs.journal.reading import Damage

# What is stored of a user beside conversations, as the mount calls it.
_PROFILE = "metadata.yaml"
# How often a conversation is read again that was appended to before it was mended.
_TRIES = 10


def check(
    backend: Backend,
    users: Iterable[str] | None = None,
    *,
    repair: bool = False,
    on_user: Callable[[str], object] = lambda _: None,
) -> Iterator[Finding]:
    """What is wrong, user by user; then, unless only some `users` are asked for, with the journal as a whole.

    `on_user` is told of each user that is done. Changes may go on meanwhile. Raises Fenced if it is to `repair` while
    nothing may be changed, OSError.
    """
    if repair:
        backend.fence().check()
    for user in _listed(backend) if users is None else users:
        if isinstance(user, Finding):
            yield user
            continue
        yield from _as_far_as_it_goes(backend, user, _user(backend, user, repair))
        on_user(user)
    if users is None:
        yield from _as_far_as_it_goes(backend, None, backend.check(None, repair=repair))


def _listed(backend: Backend) -> Iterator[str | Finding]:
    """The users, as far as they can be listed; who cannot be is found by the check of the journal as a whole."""
    try:
        yield from backend.users()
    except Damaged as error:
        yield Finding(None, "users", f"not all can be listed: {reason(error)}")


def _as_far_as_it_goes(backend: Backend, user: str | None, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The same, and what keeps one user from being checked does not keep the others from it."""
    try:
        yield from findings
    except (PotofsError, OSError) as error:
        # A server that does not answer would keep all of them.
        if isinstance(error, Fenced | Unreachable) or (backend.blocks and isinstance(error, DeadlineExceeded)):
            raise
        yield Finding(user, "conversations" if user else "the journal", f"not checked to the end: {reason(error)}")


def _user(backend: Backend, user: str, repair: bool) -> Iterator[Finding]:
    yield from backend.check(user, repair=repair)
    # The running one first: archived meanwhile, it is found under its name; the other way round it might be missed.
    yield from _conversation(backend, user, None, repair)
    for archive in backend.archives(user):
        yield from _conversation(backend, user, archive.name, repair)
    # Now that conversations are mended, which say when the user came.
    yield from _profile(backend, user, repair)


def _profile(backend: Backend, user: str, repair: bool) -> Iterator[Finding]:
    try:
        profile = backend.read_profile(user)
    except OSError as error:
        yield Finding(user, _PROFILE, f"cannot be read: {reason(error)}")
        return
    if what := metadata.damage(profile):
        why_not = _mend_profile(backend, user, profile) if repair else ""
        yield Finding(user, _PROFILE, what + why_not, repair and not why_not)


def _mend_profile(backend: Backend, user: str, profile: bytes) -> str:
    """Mends what is stored of a user and returns an empty text, or why that cannot be."""
    try:
        instead = metadata.mended(backend, user, profile)
    except OSError as error:
        return f"; not mended, for a conversation cannot be read: {reason(error)}"
    why_not = _put_instead(backend, user, profile, lambda: backend.rewrite_profile(user, instead, was=profile))
    return "; it has become another meanwhile, so look again" if why_not is None else why_not


def _conversation(backend: Backend, user: str, archive: str | None, repair: bool) -> Iterator[Finding]:
    # What is described is mended, too: it is taken apart once.
    apart = cache(mending.take_apart)
    for last_try in (*[False] * (_TRIES - 1), True):
        try:
            with backend.open(user, archive) as reader:
                size = reader.stat().size
                damages = [
                    (entry, _described(entry, apart(reader.read(entry.offset, entry.length))))
                    for entry in ranges.entries(reader)
                    if isinstance(entry, Damage)
                ]
                if damages and damages[-1][0].torn and reader.stat().size != size:
                    why_not = None  # The end of what is just being appended is no damage, though it may look so.
                else:
                    why_not = _mend(backend, user, archive, reader, apart) if damages and repair else ""
        except NotFound:
            return
        except Stale:
            continue  # Mended by somebody else just now.
        except (Damaged, OSError) as error:
            yield Finding(user, conversation_file(archive), f"cannot be read: {reason(error)}")
            return
        if why_not is None:
            if not last_try:
                continue
            why_not = "; it is being appended to all the time, so look again later"
        for damage, what in damages:
            mended = repair and not why_not
            yield Finding(user, conversation_file(archive), what + why_not, mended, damage.offset, damage.length)
        return


def _described(damage: Damage, apart: Apart) -> str:
    if count := len(apart.records):
        if apart.glued:
            messages = "a message whose terminator is" if count == 1 else f"{count} messages whose terminators are"
            return f"{damage.length} bytes with {messages} glued on to the last value: {damage.reason}"
        return f"{damage.length} bytes with {count} messages and no --- between them: {damage.reason}"
    if damage.torn:
        return f"a torn tail of {damage.length} bytes: {damage.reason}"
    return f"{damage.length} bytes that are no message: {damage.reason}"


def _mend(
    backend: Backend, user: str, archive: str | None, reader: Reader, apart: Callable[[bytes], Apart]
) -> str | None:
    """Mends a conversation and returns an empty text, or why that cannot be; None if it has changed meanwhile."""
    seen = reader.stat()
    data = reader.read(0, seen.size)
    if len(data) < seen.size:
        return None
    mended = mending.mend(data, apart)
    if mended is None:
        return "; not mended, for what is around it would not read as before"
    rewrite = partial(backend.rewrite, user, archive, seen, mended.data, was=data)
    return _put_instead(backend, user, mended.aside, rewrite)


def _put_instead(backend: Backend, user: str, aside: bytes, rewrite: Callable[[], bool]) -> str | None:
    """Sets bytes aside, and then something in their place; returns as `_mend` does."""
    name = backend.set_aside(user, aside)
    # On any other error it stays: whether this was done may be unknown, and what is there twice can be removed.
    try:
        if rewrite():
            return ""
    except NotFound:
        pass
    except Unsupported as error:
        backend.remove_set_aside(user, name)
        return f"; not mended: {error}"
    # It is all still there.
    backend.remove_set_aside(user, name)
    return None
