"""What most tests start from: a journal on files, a mount of it, conversations to try things on.

A warning that potofs logs and the test did not expect fails the test, and so does a daemon, a mount or a file that it
leaves behind.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import settings

from potofs import DialogueJournal, open_journal
from tests import samples
from tests.mounts import Mount, mounted

# How long an example takes is nothing that a test is about; a busy machine is.
settings.register_profile("untimed", settings.get_profile(settings.get_current_profile_name()), deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a journal; not made yet."""
    return tmp_path / "journal"


@pytest.fixture
def journal(root: Path) -> Iterator[DialogueJournal]:
    """An empty journal on files, as a library."""
    with open_journal(f"file://{root}") as journal:
        yield journal


@pytest.fixture
def mount_at(tmp_path: Path) -> Iterator[Callable[..., Mount]]:
    """Mounts a root or a backend URL, as often as it is called, and takes it all away afterwards."""
    with ExitStack() as stack:
        numbers = count()

        def mount_at(where: Path | str, *options: str) -> Mount:
            return stack.enter_context(mounted(where, tmp_path / f"mnt{next(numbers)}", *options))

        yield mount_at


@pytest.fixture
def mount(root: Path, mount_at: Callable[..., Mount]) -> Mount:
    """A mount of the journal in `root`."""
    return mount_at(root)


@pytest.fixture(scope="session")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of conversations as `potofs import` takes it: real ones where there are some, else made ones."""
    if samples.REAL.exists():
        return samples.REAL
    path = tmp_path_factory.mktemp("samples") / "conversations.jsonl"
    samples.write(path)
    return path


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails the session if a daemon's log or word stays where the system keeps such files."""
    yield
    ours = quote(str(tmp_path_factory.getbasetemp()).strip("/"), safe="")
    files = [path for folder in ("/run/potofs", "/var/log/potofs") for path in Path(folder).glob(f"*{ours}*")]
    assert files == []


@pytest.fixture(autouse=True)
def no_unexpected_warning(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test during which potofs warned of something that no `expects_warning` marker speaks of."""
    yield
    expected = [re.compile(marker.args[0]) for marker in request.node.iter_markers("expects_warning")]
    logged = [
        record.getMessage()
        for when in ("setup", "call")
        for record in caplog.get_records(when)
        if record.levelno >= logging.WARNING and record.name.startswith("potofs")
    ]
    assert [text for text in logged if not any(pattern.search(text) for pattern in expected)] == []
