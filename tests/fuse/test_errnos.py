"""Every error that potofs raises has its errno, and nothing else leaves a handler."""

import errno
import logging
from collections.abc import Iterator

import pyfuse3
import pytest
import trio

from potofs import errors
from potofs.fuse.activity import Activity
from potofs.fuse.complaints import Complaints
from potofs.fuse.errnos import ERRNOS, answered, errno_of


def kinds(base: type[errors.PotofsError] = errors.PotofsError) -> Iterator[type[errors.PotofsError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from kinds(kind)


def answer(error: BaseException) -> int:
    """What the kernel is told when a handler raises an error."""

    class Handlers:
        activity = Activity()
        complaints = Complaints()

        @answered
        async def handler(self) -> None:
            raise error

    with pytest.raises(pyfuse3.FUSEError) as told:
        trio.run(Handlers().handler)
    (failures,) = [one.failures for one in Handlers.activity.operations.values()]
    assert failures == {told.value.errno: 1}
    return told.value.errno


def test_every_kind_of_error_has_a_row() -> None:
    # A mount is not made with a wrong configuration.
    missing = [kind for kind in kinds() if not any(issubclass(kind, row) for row, _ in ERRNOS)]
    assert missing == [errors.ConfigError]


def test_no_row_is_hidden_behind_a_more_general_one() -> None:
    for position, (kind, _) in enumerate(ERRNOS):
        assert not any(issubclass(kind, earlier) for earlier, _ in ERRNOS[:position])


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (errors.InvalidMessage("x"), errno.EINVAL),
        (errors.MessageTooLarge("x"), errno.EFBIG),
        (errors.NotFound("x"), errno.ENOENT),
        (errors.InvalidName("x"), errno.EPERM),
        (errors.Stale("x"), errno.ESTALE),
        (IsADirectoryError(errno.EISDIR, "no file"), errno.EISDIR),
        (FileNotFoundError(errno.ENOENT, "gone"), errno.ENOENT),
    ],
)
def test_an_error_is_answered_with_its_errno(error: Exception, number: int) -> None:
    assert answer(error) == number


@pytest.mark.expects_warning("x$")
def test_a_deadline_that_passed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(errors.DeadlineExceeded("x")) == errno.ETIMEDOUT
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.expects_warning("^handler: ")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "maxmemory"), "maxmemory"),
        (OSError(errno.ENODEV, "the journal's folder is gone", "/srv/poto"), "/srv/poto: the journal's folder is gone"),
        (PermissionError(errno.EACCES, "redis does not let its user do this"), "redis does not let its user do this"),
        (OSError(errno.EROFS, "a read-only replica"), "a read-only replica"),
        (OSError(errno.EMFILE, "too many open files"), "too many open files"),
        (OSError(errno.EIO, "the disk failed"), "the disk failed"),
        (errors.Unreachable("down"), "down"),
        (errors.Damaged("no list"), "no list"),
    ],
)
def test_what_is_wrong_with_the_place_is_logged(
    error: errors.PotofsError | OSError, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    number = answer(error)
    assert not isinstance(error, OSError) or number == error.errno
    assert [record.getMessage() for record in caplog.records] == [f"handler: {said}"]


@pytest.mark.expects_warning("^write: ")
def test_an_outage_is_one_thing_to_tell_and_what_was_left_out_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    complaints = Complaints(lambda: now)
    for _ in range(1000):
        complaints.tell("write", errno.ENOSPC, "full")
    complaints.tell("write", errno.EACCES, "not allowed")
    for number in range(1000):
        complaints.tell("write", errno.ENOSPC, f"user {number}: full")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["write: full", "write: not allowed", *(f"write: user {number}: full" for number in range(9))]
    caplog.clear()
    now = 61.0
    for _ in range(2):
        complaints.tell("write", errno.ENOSPC, "full")
        complaints.tell("write", errno.EACCES, "not allowed")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["write: full (and 1990 more with ENOSPC before)", "write: not allowed"]


@pytest.mark.expects_warning("unexpected error")
def test_an_error_that_nobody_expected_is_logged_with_its_traceback_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert answer(ZeroDivisionError("oops")) == errno.EIO
    assert errno_of(OSError("no number")) == errno.EIO
    assert all(record.exc_info for record in caplog.records)
    assert len(caplog.records) == 2
