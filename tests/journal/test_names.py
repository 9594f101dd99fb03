"""Names: one spelling each, and none that leads out of its folder."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from potofs import names
from potofs.errors import InvalidName, NameTooLong
from tests.journal.test_record_properties import quick

ids = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.lists(
        st.sampled_from(["/", "%", ".", "..", "%2F", "%2f", "\0", "\x1f", "\x7f", "\x85", "a", "é", "👋"]), min_size=1
    )
    .map("".join)
    .filter(lambda text: len(text.encode()) < 60),
)


@quick
@given(ids)
def test_every_id_comes_back_from_its_name(text: str) -> None:
    assert names.decode(names.encode(text)) == text


@quick
@given(ids)
def test_a_name_leads_nowhere_and_hides_nowhere(text: str) -> None:
    name = names.encode(text)
    assert re.search("[/\x00-\x1f\x7f-\x9f]", name) is None
    assert not name.startswith(".")


@quick
@given(ids | st.text(max_size=20))
def test_a_name_that_is_taken_is_the_only_spelling_of_its_id(name: str) -> None:
    try:
        text = names.decode(name)
    except InvalidName:
        return
    assert names.encode(text) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("alice@example.org", "alice@example.org"),
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("a.b", "a.b"),
        ("100%", "100%25"),
        ("tab\t\0", "tab%09%00"),
        ("\x85", "%C2%85"),
        ("日本語 👋", "日本語 👋"),
    ],
)
def test_names_are_spelled_as_described(text: str, name: str) -> None:
    assert names.encode(text) == name
    assert names.decode(name) == text


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "a/b", "%", "%2", "%41", "a%2fb", "%FF", "%C2", "a\nb", "\ud800"]
)
def test_another_spelling_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        names.decode(name)


@pytest.mark.parametrize("text", ["", "\ud800", "a\udfff"])
def test_what_no_name_can_hold_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        names.encode(text)


def test_a_name_has_at_most_255_bytes() -> None:
    assert names.encode("é" * 127 + "a") == "é" * 127 + "a"
    for text in ("a" * 256, "é" * 128, "/" * 86):
        with pytest.raises(NameTooLong):
            names.encode(text)
    with pytest.raises(NameTooLong):
        names.decode("a" * 256)


@quick
@given(ids)
def test_an_archive_comes_back_from_its_file_name(archive: str) -> None:
    assume(archive != "current")
    file_name = names.archive_file(archive)
    assert file_name.endswith(".yaml")
    assert names.archive_name(file_name) == archive


def test_an_archive_leaves_room_for_its_compressed_form() -> None:
    assert len(names.archive_file("a" * 247)) == 252
    with pytest.raises(NameTooLong):
        names.archive_file("a" * 248)
    with pytest.raises(NameTooLong):
        names.archive_name("a" * 248 + ".yaml")


def test_no_archive_is_called_current() -> None:
    with pytest.raises(InvalidName, match="running conversation"):
        names.archive_file("current")
    with pytest.raises(InvalidName, match="running conversation"):
        names.archive_name("current.yaml")


@pytest.mark.parametrize("file_name", ["refund", "refund.yml", ".yaml", "a.yaml.gz", ".a.yaml"])
def test_another_file_is_no_archive(file_name: str) -> None:
    with pytest.raises(InvalidName):
        names.archive_name(file_name)


def test_a_taken_name_gets_the_first_free_number() -> None:
    assert names.first_free("a", set().__contains__) == "a"
    assert names.first_free("a", {"a"}.__contains__) == "a-2"
    assert names.first_free("a", {"a", "a-2", "a-4"}.__contains__) == "a-3"
