"""What only the memory backend does: it forgets, and it is nobody else's."""

import pytest

from potofs import ChatMessage, open_journal
from potofs.backends.base import RECORD_END, Backend
from potofs.backends.memory import MemoryBackend
from potofs.config import Where
from potofs.errors import ConfigError, NotFound
from potofs.journal import reading
from tests.backends.kit import joined, records, said, stored


def memory(**options: str) -> Backend:
    return MemoryBackend(Where("memory", "", options), reading.marks)


def test_a_conversation_that_is_too_long_forgets_its_oldest_messages() -> None:
    backend = memory(maxConversationLength="8")
    for one in records(0, 8):
        backend.append("mia", [one])
    assert stored(backend, "mia") == joined(records(0, 8)), "as long as it may be"
    assert backend.append("mia", records(8, 9)) == (1, None)
    assert stored(backend, "mia") == joined(records(3, 9)), "three quarters are left"
    assert backend.totals().messages == 6
    assert backend.totals().first_ns == records(3, 4)[0].mark.time_ns


def test_a_batch_longer_than_a_conversation_may_be_leaves_its_end() -> None:
    backend = memory(maxConversationLength="4")
    assert backend.append("mia", records(0, 20)).stored == 20
    assert stored(backend, "mia") == joined(records(17, 20))


def test_what_is_left_is_a_new_generation_and_whoever_reads_the_old_one_goes_on() -> None:
    backend = memory(maxConversationLength="4")
    backend.append("mia", records(0, 4))
    before = backend.stat("mia")
    with backend.open("mia") as old:
        backend.append("mia", records(4, 5))
        backend.append("mia", records(5, 6))
        assert old.read_all() == joined(records(0, 5))
        assert old.stat().id == before.id != backend.stat("mia").id
    with backend.open("mia") as new:
        assert new.read_all() == joined(records(2, 6))
        assert new.stat() == backend.stat("mia")


def test_whoever_forgets_has_changed_what_is_known_of_the_user() -> None:
    """The figures are others, and no conversation that is left says so."""
    backend = memory(maxConversationLength="4")
    backend.create_user("mia", b"profile")
    backend.append("mia", records(0, 4))
    backend.put_profile("mia", b"profile", 7)
    backend.append("mia", records(4, 5))
    assert backend.profile_changed("mia") > 10**18
    backend.put_profile("mia", b"profile", 7)
    backend.append("mia", records(5, 6))
    assert backend.profile_changed("mia") == 7, "nothing had to be forgotten"
    backend.clear("mia")
    assert backend.profile_changed("mia") > 10**18
    assert backend.read_profile("mia") == b"profile"


def test_a_copy_that_goes_on_is_forgotten_by_the_next_append_and_not_before() -> None:
    backend = memory(maxConversationLength="4")
    backend.append("mia", records(0, 3))
    assert backend.extend("mia", backend.stat("mia"), joined(records(3, 8)), 7)
    assert stored(backend, "mia") == joined(records(0, 8))
    backend.append("mia", records(8, 9))
    assert stored(backend, "mia") == joined(records(6, 9))


def test_a_second_try_of_what_is_left_is_known() -> None:
    backend = memory(maxConversationLength="8")
    backend.append("mia", records(0, 9))
    assert backend.append("mia", records(3, 9)).stored == 0
    assert stored(backend, "mia") == joined(records(3, 9))


def test_nothing_is_forgotten_where_nothing_can_be_cut_off() -> None:
    """Another program's records end in a way that only a reader of YAML knows."""
    backend = memory(maxConversationLength="2")
    foreign = b"--- {role: user, content: a, timestamp: 2024-01-15}\n...\n" * 5
    backend.put_current("mia", foreign, 1)
    number = backend.stat("mia").id
    backend.append("mia", records(0, 1))
    assert stored(backend, "mia") == foreign + RECORD_END[1:] + joined(records(0, 1))
    assert backend.stat("mia").id == number
    backend.append("mia", records(1, 3))
    assert said(stored(backend, "mia")) == ["message 1", "message 2"]


def test_a_length_of_0_is_no_limit_and_100_is_the_limit_by_itself() -> None:
    for backend, left in ((memory(maxConversationLength="0"), 500), (memory(), 75)):
        backend.append("mia", records(0, 500))
        assert stored(backend, "mia") == joined(records(500 - left, 500))


def test_what_is_refused_is_kept_behind_a_fence_too() -> None:
    backend = memory()
    backend.set_fence(backend.fence()._replace(state="frozen"))
    name = backend.set_aside("mia", b"refused")
    with backend.open_set_aside("mia", name) as reader:
        assert reader.read_all() == b"refused"


def test_a_journal_is_opened_by_its_url_and_every_one_is_another() -> None:
    with open_journal("memory:") as one, open_journal("memory:?maxConversationLength=2") as other:
        one.add_message("mia", ChatMessage("user", "hello"))
        assert list(other.users()) == []
        other.add_messages("mia", [ChatMessage("user", text) for text in "abc"])
        assert [message.content for message in other.get_conversation("mia")] == ["b", "c"]
        assert [message.content for message in one.get_conversation("mia")] == ["hello"]
        with pytest.raises(NotFound):
            one.read_bytes("mia", "refund")


@pytest.mark.parametrize("url", ["memory:place", "memory:///place", "memory://place"])
def test_memory_has_no_place(url: str) -> None:
    with pytest.raises(ConfigError, match="memory has no place, write memory: alone"):
        open_journal(url)


@pytest.mark.parametrize("option", ["archiveThreshold=5", "retentionDays=1", "maxConversationLength=-1"])
def test_what_memory_cannot_be_told_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=option.partition("=")[0]):
        open_journal(f"memory:?{option}")
