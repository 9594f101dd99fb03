"""A damaged archive on files, as programs meet it: what is whole, and then an error."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from potofs import open_journal
from potofs.journal.journal import DialogueJournal
from tests.backends.kit import joined, records

DATA = joined(records(0, 50))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[DialogueJournal]:
    """With an archive of 50 messages that another program compressed, and whose checksum is wrong."""
    with open_journal(f"file://{tmp_path}/journal") as journal:
        journal.ensure_user("mia")
        packed = bytearray(gzip.compress(DATA))
        packed[-6] ^= 1
        (tmp_path / "journal/users/mia/dialogs/archived/refund.yaml.gz").write_bytes(packed)
        yield journal


def test_its_messages_are_read_before_the_error(journal: DialogueJournal) -> None:
    read: list[object] = []
    wrong = r"archived/refund\.yaml of user 'mia' is damaged: `potofs fsck --repair`"
    with pytest.raises(OSError, match=wrong):
        read.extend(iter(journal.read_conversation("mia", "refund")))
    assert len(read) == 50
    pieces: list[bytes] = []
    with pytest.raises(OSError, match=wrong):
        pieces.extend(iter(journal.read_pieces("mia", "refund")))
    assert b"".join(pieces) == DATA
    with pytest.raises(OSError, match=wrong):
        journal.read_bytes("mia", "refund")


def test_its_messages_are_counted(journal: DialogueJournal) -> None:
    (archive,) = journal.get_archived_conversations("mia")
    assert archive.message_count == 50
    assert archive.size == len(DATA) + 1


@pytest.mark.expects_warning("put the file itself in its place")
def test_a_link_is_named_with_a_way_out_and_the_others_are_counted(tmp_path: Path) -> None:
    with open_journal(f"file://{tmp_path}/journal") as journal:
        for user in ("mia", "noah"):
            journal.backend.append(user, records(0, 3))
        current = tmp_path / "journal/users/mia/dialogs/current.yaml"
        (tmp_path / "elsewhere.yaml").write_bytes(joined(records(0, 9)))
        current.unlink()
        current.symlink_to(tmp_path / "elsewhere.yaml")
    with open_journal(f"file://{tmp_path}/journal") as journal:
        assert journal.get_stats().total_users == 2
        list(journal.fsck(repair=True))
        assert journal.get_stats().total_messages == 3
        with pytest.raises(OSError, match="symbolic link, and none is followed: put the file itself in its place"):
            journal.read_bytes("mia")
