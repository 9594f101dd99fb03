"""What a check finds in a root beside the records, and that mending it drops nothing."""

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs.backends.base import Fence, Finding
from potofs.backends.filesystem import files, gzipped
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.errors import Fenced, Unsupported
from tests.backends.kit import joined, open_filesystem, record, records, stored

#: Enough of them that a sidecar is kept.
MANY = records(0, 600)
LONG = joined(records(0, 200))


def findings(backend: FilesystemBackend, *, repair: bool = False) -> list[Finding]:
    """All that a check of the whole place finds."""
    users = sorted(backend.users())
    found = [finding for user in users for finding in backend.check(user, repair=repair)]
    return found + list(backend.check(None, repair=repair))


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file, and when it or its folder was changed."""
    return {
        str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns) for path in root.rglob("*")
    }


@pytest.fixture
def backend(tmp_path: Path) -> FilesystemBackend:
    """A journal with a long running conversation, archives in both forms, and bytes set aside."""
    backend = open_filesystem(tmp_path, archiveThreshold="0", maxConversationLength="0", fsync="never")
    backend.create_user("noah", b"profile")
    backend.append("mia", MANY)
    backend.put_archive("mia", "plain", joined(records(600, 610)), 7)
    backend.put_archive("mia", "packed", LONG, 5)
    assert backend.compress("mia", "packed") > 0
    backend.set_aside("mia", b"refused")
    backend.totals()
    return backend


@pytest.fixture
def mia(users: Path) -> Path:
    return users / "mia"


def archived(mia: Path) -> Path:
    return mia / "dialogs/archived"


def test_nothing_is_wrong_with_a_journal_in_use(backend: FilesystemBackend) -> None:
    assert findings(backend) == []
    backend.archive("mia", "long")
    backend.restore("mia", "packed")
    backend.rename_archive("mia", "plain", "simple")
    backend.append("mia", [record("later")])
    backend.compress("mia", "long")
    backend.set_times("mia", "simple", 99)
    backend.append("new", records(0, 2))
    assert findings(backend) == []
    assert findings(backend, repair=True) == []


def test_a_copy_of_the_folder_that_is_put_back_is_healthy(backend: FilesystemBackend, tmp_path: Path) -> None:
    """Its files have other inode numbers than its indexes know of."""
    backend.close()
    shutil.copytree(tmp_path / "journal", tmp_path / "there/journal")
    copy = open_filesystem(tmp_path / "there", archiveThreshold="0", maxConversationLength="0", fsync="never")
    assert copy.stat("mia").id != backend.stat("mia").id
    assert findings(copy) == []
    assert copy.append("mia", MANY).stored == 0
    assert findings(copy) == []


def leave_scratch(mia: Path) -> None:
    (archived(mia) / ".99.0123abcd.new").write_bytes(b"half an arch")


def leave_scratch_in_a_backup_too(mia: Path) -> None:
    """One by hard links, as of `cp -al`."""
    leave_scratch(mia)
    os.link(archived(mia) / ".99.0123abcd.new", mia.parents[2] / "backup")


def leave_it_beside_its_name(mia: Path) -> None:
    os.link(archived(mia) / "plain.yaml", archived(mia) / ".99.0123abcd.new")


def leave_a_copy(mia: Path) -> None:
    (archived(mia) / ".99.0123abcd.new").write_bytes((archived(mia) / "plain.yaml").read_bytes())


def leave_a_packed_copy(mia: Path) -> None:
    (archived(mia) / ".99.0123abcd.new").write_bytes(gzip.compress(joined(records(600, 610))))


def leave_one_half_packed(mia: Path) -> None:
    """As compressing leaves it when it is killed before it comes to the header."""
    path = archived(mia) / ".99.0123abcd.new"
    plain = archived(mia) / "plain.yaml"
    with files.FileReader(str(plain)) as reader, path.open("wb") as made:
        gzipped.write(reader, plain.stat().st_size, made.fileno(), bytes(8))
    data = path.read_bytes()
    head = gzipped.FIXED + gzipped.ENTRY.size
    path.write_bytes(bytes(head) + data[head : (head + len(data)) // 2])


def leave_nothing_in_it(mia: Path) -> None:
    (mia / ".99.0123abcd.new").write_bytes(b"")


def leave_both_forms(mia: Path) -> None:
    (archived(mia) / "packed.yaml").write_bytes(LONG)
    os.utime(archived(mia) / "packed.yaml", ns=(5, 5))


def leave_two_that_differ(mia: Path) -> None:
    (archived(mia) / "packed.yaml").write_bytes(joined(records(0, 3)))


def leave_what_is_no_gzip(mia: Path) -> None:
    (archived(mia) / "other.yaml.gz").write_bytes(b"no gzip at all")


def orphan_a_number(mia: Path) -> None:
    (archived(mia) / ".0123456789abcdef.id").write_bytes(b"")


def orphan_a_number_with_bytes(mia: Path) -> None:
    (archived(mia) / ".0123456789abcdef.id").write_bytes(joined(records(700, 701)))


def of_another(mia: Path) -> None:
    path = mia / ".current.idx"
    data = bytearray(path.read_bytes())
    data[4] ^= 1
    path.write_bytes(data)


def cut_the_sidecar(mia: Path) -> None:
    path = mia / ".current.idx"
    path.write_bytes(path.read_bytes() + b"pfi1")


def damage_the_archive_index(mia: Path) -> None:
    path = mia / ".archives"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def lose_the_archive_index(mia: Path) -> None:
    (mia / ".archives").unlink()


def append_behind_its_back(mia: Path) -> None:
    with (mia / "dialogs/current.yaml").open("ab") as file:
        file.write(joined(records(900, 903)))


def lose_the_count(mia: Path) -> None:
    os.truncate(mia / ".lock", 0)


#: What is done, what the findings speak of, and whether bytes are set aside that are nowhere else.
FAULTS: dict[str, tuple[Callable[[Path], None], str, str, bool]] = {
    "a file of a killed process": (leave_scratch, "archived/.99.0123abcd.new", "nowhere else", True),
    "a file of a killed process that a backup has": (
        leave_scratch_in_a_backup_too,
        "archived/.99.0123abcd.new",
        "nowhere else",
        True,
    ),
    "a file that got its name": (leave_it_beside_its_name, "archived/.99.0123abcd.new", "was killed", False),
    "a copy of a killed process": (leave_a_copy, "archived/.99.0123abcd.new", "was killed", False),
    "a packed copy of a killed process": (leave_a_packed_copy, "archived/.99.0123abcd.new", "was killed", False),
    "a half packed copy of a killed process": (
        leave_one_half_packed,
        "archived/.99.0123abcd.new",
        "was killed",
        False,
    ),
    "an empty file of a killed process": (leave_nothing_in_it, ".99.0123abcd.new", "was killed", False),
    "both forms of an archive": (leave_both_forms, "archived/packed.yaml.gz", "in both forms", False),
    "two archives of one name": (leave_two_that_differ, "archived/packed.yaml.gz", "something else", True),
    "no gzip": (leave_what_is_no_gzip, "archived/other.yaml.gz", "no gzip", True),
    "a number of nothing": (orphan_a_number, "archived/.0123456789abcdef.id", "no archive", False),
    "a number with bytes": (orphan_a_number_with_bytes, "archived/.0123456789abcdef.id", "nowhere else", True),
    "a sidecar of another": (of_another, ".current.idx", "no conversation", False),
    "a cut sidecar": (cut_the_sidecar, ".current.idx", "cut off", False),
    "a damaged index of archives": (damage_the_archive_index, ".archives", "damaged", False),
    "no index of archives": (lose_the_archive_index, ".archives", "missing", False),
    "what nobody counted": (append_behind_its_back, ".lock", "not counted since", False),
    "a lost count": (lose_the_count, ".lock", "never counted", False),
}


@pytest.mark.parametrize(("fault", "place", "what", "kept"), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_is_found_left_alone_and_mended(
    backend: FilesystemBackend,
    tmp_path: Path,
    mia: Path,
    fault: Callable[[Path], None],
    place: str,
    what: str,
    kept: bool,
) -> None:
    fault(mia)
    backend.close()
    backend = open_filesystem(tmp_path, archiveThreshold="0", maxConversationLength="0", fsync="never")
    before, asides = tree(tmp_path), len(backend.set_asides("mia"))
    found = findings(backend)
    assert place in [one.place for one in found], found
    assert any(what in one.what for one in found), found
    assert {one.user for one in found} <= {"mia", None}
    assert not any(one.repaired for one in found)
    assert tree(tmp_path) == before

    assert all(one.repaired for one in findings(backend, repair=True))
    assert findings(backend) == []
    assert len(backend.set_asides("mia")) == asides + kept
    assert stored(backend, "mia").startswith(joined(MANY))
    assert stored(backend, "mia", "plain") == joined(records(600, 610))
    assert stored(backend, "mia", "packed") in {LONG, joined(records(0, 3))}
    totals = backend.totals()
    assert totals.messages == len(MANY) + 10 + (3 if fault is append_behind_its_back else 0) + (
        3 if fault is leave_two_that_differ else 200
    )
    assert totals.archives == 2


def test_what_is_set_aside_is_what_was_in_the_way(backend: FilesystemBackend, mia: Path) -> None:
    packed = (archived(mia) / "packed.yaml.gz").read_bytes()
    leave_two_that_differ(mia)
    findings(backend, repair=True)
    asides = []
    for aside in backend.set_asides("mia"):
        with backend.open_set_aside("mia", aside.name) as reader:
            asides.append(reader.read_all())
    assert packed in asides


def test_what_a_running_process_uses_is_left_to_it(backend: FilesystemBackend, mia: Path) -> None:
    with files.scratch(str(archived(mia))) as (_, path):
        assert findings(backend, repair=True) == []
        assert os.path.exists(path)


def test_wrong_sums_are_found_and_counted_anew(backend: FilesystemBackend, users: Path) -> None:
    backend.append("eve", records(0, 2))
    right = backend.totals()
    shutil.rmtree(users / "eve")
    (found,) = findings(backend)
    assert (found.user, found.place) == (None, "system/totals")
    assert "sums" in found.what
    assert findings(backend, repair=True) == [found._replace(repaired=True)]
    assert findings(backend) == []
    assert backend.totals()[:4] == (right.users - 1, right.conversations - 1, right.archives, right.messages - 2)


def test_a_read_only_root_can_be_checked(backend: FilesystemBackend, tmp_path: Path, mia: Path) -> None:
    leave_both_forms(mia)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        assert "archived/packed.yaml.gz" in [found.place for found in findings(backend)]
    finally:
        for path in [tmp_path, *tmp_path.rglob("*")]:
            path.chmod(0o700)


def test_where_programs_write_that_take_no_lock_nothing_of_theirs_is_taken_for_wrong(
    tmp_path: Path, backend: FilesystemBackend, mia: Path
) -> None:
    append_behind_its_back(mia)
    shared = open_filesystem(tmp_path, foreignWriters="true")
    assert list(shared.check("mia", repair=False)) == []


# Writing a conversation anew


def test_other_bytes_take_the_place_of_a_conversations(backend: FilesystemBackend) -> None:
    for archive in (None, "plain", "packed"):
        before = backend.stat("mia", archive)
        with backend.open("mia", archive) as reader:
            old = reader.read_all()
            assert backend.rewrite("mia", archive, before, joined(records(3, 5)))
            assert reader.read(0, len(old)) == old, "whoever reads it goes on"
        after = backend.stat("mia", archive)
        assert stored(backend, "mia", archive) == joined(records(3, 5))
        assert after.mtime_ns == before.mtime_ns
        assert after.id != before.id
        assert backend.totals().messages == sum(
            stored(backend, "mia", name).count(b"role: ") for name in (None, "plain", "packed")
        )
        assert findings(backend) == []
    assert backend.append("mia", records(3, 6)).stored == 1


def test_only_what_was_seen_is_replaced(backend: FilesystemBackend) -> None:
    seen = backend.stat("mia")
    backend.append("mia", [record("later")])
    before = stored(backend, "mia")
    assert not backend.rewrite("mia", None, seen, b"other")
    backend.archive("mia", "long")
    backend.append("mia", records(700, 705))
    assert not backend.rewrite("mia", None, seen, b"other")
    assert stored(backend, "mia", "long") == before


def test_a_fence_and_programs_without_the_lock_keep_it_from_being_replaced(
    backend: FilesystemBackend, tmp_path: Path
) -> None:
    shared = open_filesystem(tmp_path, foreignWriters="true")
    with pytest.raises(Unsupported, match="foreignWriters"):
        shared.rewrite("mia", None, shared.stat("mia"), b"other")
    backend.set_fence(Fence("frozen", 1))
    with pytest.raises(Fenced):
        backend.rewrite("mia", None, backend.stat("mia"), b"other")
    assert stored(backend, "mia") == joined(MANY)
