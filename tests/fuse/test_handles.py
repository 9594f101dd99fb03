"""What is open, while it is opened and closed."""

import sys
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from potofs.errors import Stale
from potofs.fuse.directories import DirectoryHandle
from potofs.fuse.files import ConversationFile, DraftFile
from potofs.fuse.handles import Handles
from potofs.fuse.workers import Workers
from potofs.tree.attributes import Attributes
from potofs.tree.nodes import Kind, Node

Nothing = cast(Any, None)
WORKERS = Workers(1.0)
MIAS = Node(Kind.CURRENT, "mia")


class Asked(ConversationFile):
    """One that counts how often it is asked what it knows."""

    asked = 0

    def __init__(self, inode: int) -> None:
        super().__init__(Nothing, WORKERS, MIAS, inode, None, None, None)

    def attributes(self) -> Attributes:
        type(self).asked += 1
        return Attributes(self.inode, 0, 0, 0, 0)


def draft(inode: int) -> DraftFile:
    return DraftFile(Nothing, WORKERS, MIAS, inode, cast(Any, SimpleNamespace()), may_write=True, appends=False)


def test_what_is_open_can_be_counted_and_asked_in_any_thread_while_files_come_and_go() -> None:
    handles = Handles()
    for inode in range(3000):
        handles.add(draft(inode))
    done = threading.Event()
    failed: list[Exception] = []

    def ask() -> None:
        try:
            while not done.is_set():
                assert len(handles.files()) >= 3000
                assert handles.directories() == 0
                handles.attributes(3000)
                handles.show(3000, Nothing)
        except Exception as error:
            failed.append(error)

    # So often that they come between one another wherever they can.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    asking = threading.Thread(target=ask)
    try:
        asking.start()
        for _ in range(20_000):
            handles.remove(handles.add(Asked(3000)))
    finally:
        done.set()
        asking.join()
        sys.setswitchinterval(interval)
    assert failed == []


def test_only_who_has_a_number_open_is_asked_of_it() -> None:
    handles = Handles()
    Asked.asked = 0
    numbers = [handles.add(Asked(inode)) for inode in range(100)]
    attributes = handles.attributes(7)
    assert attributes is not None
    assert attributes.inode == 7
    assert Asked.asked == 1
    handles.remove(numbers[7])
    assert handles.attributes(7) is None
    assert Asked.asked == 1


def test_where_a_file_is_written_is_found_by_its_number_and_by_its_handle() -> None:
    handles = Handles()
    one, other, elsewhere = draft(7), draft(7), draft(8)
    numbers = [handles.add(file) for file in (one, other, elsewhere)]
    handles.add(Asked(7))
    assert handles.drafts(7, None) == [one, other]
    assert handles.drafts(7, numbers[1]) == [other]
    assert handles.drafts(7, numbers[2]) == []
    handles.remove(numbers[0])
    assert handles.drafts(7, None) == [other]


def test_what_is_not_open_is_stale() -> None:
    handles = Handles()
    directory = handles.add(DirectoryHandle(Nothing, MIAS))
    file = handles.add(draft(7))
    assert handles.directories() == 1
    with pytest.raises(Stale, match="file"):
        handles.file(directory)
    with pytest.raises(Stale, match="directory"):
        handles.directory(file)
    handles.remove(directory)
    handles.remove(file)
    for number in (directory, file):
        with pytest.raises(Stale):
            handles.remove(number)
    assert (handles.directories(), handles.files()) == (0, [])
