"""Every error that potofs raises has its errno, and nothing else leaves a handler."""

import errno
import logging
from collections.abc import Iterator

import pyfuse3
import pytest
import trio

from potofs import errors
from potofs.fuse.activity import Activity
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
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
        (FileNotFoundError(errno.ENOENT, "gone"), errno.ENOENT),
    ],
)
def test_an_error_is_answered_with_its_errno(error: Exception, number: int) -> None:
    assert answer(error) == number


@pytest.mark.expects_warning("x$")
def test_a_deadline_that_passed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(errors.DeadlineExceeded("x")) == errno.ETIMEDOUT
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.expects_warning("unexpected error")
def test_an_error_that_nobody_expected_is_logged_with_its_traceback_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert answer(ZeroDivisionError("oops")) == errno.EIO
    assert errno_of(OSError("no number")) == errno.EIO
    assert all(record.exc_info for record in caplog.records)
    assert len(caplog.records) == 2
