"""Backend URLs and settings."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potofs import config
from potofs.config import ArchivingSettings, FilesystemSettings, RedisSettings, Where, parse
from potofs.errors import ConfigError


def test_a_url_has_a_backend_a_place_and_options() -> None:
    assert parse("file:///var/lib/poto") == Where("file", "/var/lib/poto")
    assert parse("file:///var/lib/poto?archiveThreshold=500&fsync=close") == Where(
        "file", "/var/lib/poto", {"archiveThreshold": "500", "fsync": "close"}
    )
    assert parse("shelf://host:1/a/b?x=") == Where("shelf", "host:1/a/b", {"x": ""})


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("file:///a%20b%3Fc%23d%25", "/a b?c#d%"),
        ("file:///a/../b//c/", "/b/c"),
        ("file:///caf%C3%A9", "/café"),
        ("file:///caf%E9", os.fsdecode(b"/caf\xe9")),
        ("FILE:///a", "/a"),
    ],
)
def test_a_path_is_decoded_and_made_plain(url: str, place: str) -> None:
    assert parse(url) == Where("file", place)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/var/lib/poto", "write file:///var/lib/poto, or give --root DIR"),
        ("", "is not a backend URL"),
        ("file://var/lib/poto", "three slashes"),
        ("file:poto", "three slashes"),
        ("file://", "three slashes"),
        ("file:///a#b", "written %23"),
        ("file:///a#", "written %23"),
        ("file:///a%00b", "NUL"),
        ("file:///a?fsync", "name=value"),
        ("file:///a?fsync=close&&", "name=value"),
        ("file:///a?fsync=close&fsync=close", "fsync is given twice"),
        ("redis://h?prefix=a&db=1&prefix=b", "prefix is given twice"),
        ("redis://h?prefix=a&keyPrefix=b", "prefix is short for keyPrefix"),
        ("shelf://[::1", "is not a backend URL"),
        ("shelf://℀", "is not a backend URL"),
    ],
)
def test_what_is_no_backend_url_is_refused_with_the_way_out(url: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(url)
    assert reason in str(caught.value)
    assert repr(url) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_url_is_no_folder() -> None:
    with pytest.raises(ConfigError, match="is a URL and no folder: give it with --backend") as refused:
        config.root("redis://:secret@host/0")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["file:///", "file:////", "file:///.", "file:///a/..", "file:///%2F"])
def test_the_root_of_the_system_is_no_place_for_a_journal(url: str) -> None:
    made: list[Callable[[], Where]] = [lambda: parse(url), lambda: config.root("/"), lambda: Where("file", "/")]
    for make in made:
        with pytest.raises(ConfigError, match="no journal is put into the root of the system: name a folder"):
            make()


def test_a_secret_is_shown_at_no_depth() -> None:
    options = {
        "keyPrefix": "a:",
        "servers": [{"host": "h", "pwd": "s3cret"}, "redis://:s3cret@h", ["x://h?token=s3cret&a=b"]],
        "tls": {"verify": True, "privateKey": "s3cret", "inner": {"dsn": "s3cret"}},
        "auth": ["mia", "s3cret"],
    }
    assert config.redacted(options) == {
        "keyPrefix": "a:",
        "servers": [{"host": "h", "pwd": "***"}, "redis://:***@h", ["x://h?token=***&a=b"]],
        "tls": {"verify": True, "privateKey": "***", "inner": {"dsn": "***"}},
        "auth": "***",
    }


def test_a_secret_option_is_in_no_error() -> None:
    with pytest.raises(ConfigError) as refused:
        parse("my+db://h?access_token=s3cret&db=1&db=2")
    assert "s3cret" not in str(refused.value)


def test_a_password_is_in_no_error() -> None:
    for url in ("redis://:secret@h?db=1&db=2", "redis://mia:sec:re@t@h#1", "rediss://mia:secret@h?x"):
        with pytest.raises(ConfigError) as caught:
            parse(url)
        assert re.search("sec|t@", str(caught.value)) is None
        assert ":***@h" in str(caught.value)
    # What another package makes of its place, nobody here knows.
    assert str(parse("shelf://mia:secret@h/a")) == "shelf://mia:***@h/a"


def test_a_directory_is_a_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.root("journal") == Where("file", f"{tmp_path}/journal")
    assert config.root(config.DEFAULT_ROOT) == Where("file", f"{tmp_path}/data/dialogues")


_paths = (
    st.binary(min_size=1)
    .filter(lambda path: b"\0" not in path)
    .map(lambda path: os.fsdecode(b"/" + path))
    .filter(lambda path: os.path.abspath(path).strip("/"))
)
_options = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text("aé&=?#%+ \n;/"))


@given(_paths, _options)
def test_a_place_of_files_is_read_back_from_its_url(path: str, options: dict[str, str]) -> None:
    where = Where("file", os.path.abspath(path), options)
    assert where.url.isascii()
    assert parse(where.url) == where


@given(st.text(st.characters(exclude_categories=["Cs"])), _options)
def test_any_place_is_read_back_from_its_url(place: str, options: dict[str, str]) -> None:
    where = Where("shelf", place, options)
    assert parse(where.url) == where


@given(st.text())
def test_no_text_brings_anything_but_a_place_or_a_config_error(text: str) -> None:
    for url in (text, f"file://{text}", f"file:///{text}", f"shelf://{text}"):
        try:
            where = parse(url)
        except ConfigError:
            continue
        assert parse(where.url) == where


def test_a_place_is_shown_without_its_options() -> None:
    assert str(Where("file", "/a b", {"fsync": "never"})) == "file:///a%20b"


@pytest.mark.parametrize("url", ["memory:", "redis://", "file:///a", "redis://host:6379/0", "shelf:"])
def test_a_place_is_shown_as_it_was_given(url: str) -> None:
    assert str(parse(url)) == parse(url).url == url
    assert parse(parse(f"{url}?a=b").url) == parse(f"{url}?a=b")


@pytest.mark.parametrize("place", ["mia:s3cret@host/a", ":s3cret@host", "mia:s3@cret@host:1,host:2/x"])
@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "shelf"])
def test_a_password_is_not_shown_whosever_backend_it_is_for(scheme: str, place: str) -> None:
    shown = str(Where(scheme, place))
    assert "cret" not in shown
    assert ":***@host" in shown


# Settings


def test_the_defaults_are_the_documents() -> None:
    settings = Where("file", "/a").settings(FilesystemSettings)
    assert settings == FilesystemSettings(
        archive_threshold=100, max_conversation_length=1000, lock_timeout_ms=5000, fsync="always"
    )
    assert settings.archive_at == 100


def test_settings_have_the_names_of_the_configuration_file() -> None:
    options = {"archiveThreshold": "5", "maxConversationLength": "7", "lockTimeoutMs": "9", "fsync": "never"}
    assert Where("file", "/a", options).settings(FilesystemSettings) == FilesystemSettings(
        archive_threshold=5, max_conversation_length=7, lock_timeout_ms=9, fsync="never"
    )


@pytest.mark.parametrize(
    ("threshold", "length", "archive_at"), [(100, 1000, 100), (100, 50, 50), (0, 50, 50), (100, 0, 100), (0, 0, 0)]
)
def test_the_smaller_limit_archives_and_0_is_none(threshold: int, length: int, archive_at: int) -> None:
    assert ArchivingSettings(archive_threshold=threshold, max_conversation_length=length).archive_at == archive_at


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("archiveThreshold", "many"),
        ("archiveThreshold", ""),
        ("archiveThreshold", "-1"),
        ("maxConversationLength", "1.5"),
        ("lockTimeoutMs", "-5"),
        ("fsync", "sometimes"),
        ("archive_threshold", "5"),
        ("keyPrefix", "x"),
        ("foreignWriters", "maybe"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_naming_it_and_all_there_are(option: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Where("file", "/a", {option: value}).settings(FilesystemSettings)
    for name in (option, "archiveThreshold", "maxConversationLength", "lockTimeoutMs", "fsync", "file:///a"):
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert f"file:///a: {option}: " in str(caught.value)
    assert "$" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"archiveThreshold": "many"}, "archiveThreshold: expected a whole number, got 'many'; "),
        ({"archiveThreshold": "1.5"}, "archiveThreshold: expected a whole number, got '1.5'; "),
        ({"archiveThreshold": "1e3"}, "archiveThreshold: expected a whole number, got '1e3'; "),
        ({"lockTimeoutMs": "5.0"}, "lockTimeoutMs: expected a whole number, got '5.0'; "),
        ({"fsync": "close", "archiveThreshold": "-1"}, "archiveThreshold: expected 0 or more, got -1; "),
        ({"fsync": "now"}, "fsync: expected always or close or never, got 'now'; "),
        ({"foreignWriters": "maybe"}, "foreignWriters: expected true or false, got 'maybe'; "),
        ({"archiveTreshold": "5"}, "archiveTreshold: there is no such setting, did you mean archiveThreshold?; "),
        ({"archive_threshold": "5"}, "archive_threshold: there is no such setting, did you mean archiveThreshold?; "),
        ({"xyz": "5"}, "xyz: there is no such setting; "),
    ],
)
def test_a_wrong_setting_is_told_in_its_users_words(options: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Where("file", "/a", options).settings(FilesystemSettings)
    assert str(caught.value).startswith(f"file:///a: {reason}the settings are ")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"timeoutMs": "0"}, "timeoutMs: expected 1 or more, got 0; "),
        (
            {"keyPrefix": "{a}"},
            "keyPrefix: expected text without braces, by which a cluster places keys, got '{a}'",
        ),
    ],
)
def test_a_wrong_setting_of_redis_is_told_likewise(options: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Where("redis", "host", options).settings(RedisSettings)
    assert str(caught.value).startswith(f"redis://host: {reason}")
