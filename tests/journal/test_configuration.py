"""The configuration in force has the document's shape, every setting, and no secret."""

from pathlib import Path

import msgspec
import yaml

from potofs import open_journal
from potofs.backends import registry
from potofs.backends.base import Backend, Scan
from potofs.backends.memory import MemoryBackend
from potofs.config import FilesystemSettings, Where, parse
from potofs.journal import configuration, reading


def test_every_setting_is_in_it_with_its_value(root: Path) -> None:
    with open_journal(f"file://{root}?archiveThreshold=7&fsync=never") as journal:
        text = configuration.render(journal.backend)
    found = yaml.safe_load(text)["dialogueJournal"]
    assert found["backend"] == "filesystem"
    names = {field.encode_name for field in msgspec.structs.fields(FilesystemSettings)}
    assert set(found["filesystem"]) == {"root", *names}
    assert found["filesystem"]["root"] == str(root)
    assert (found["filesystem"]["archiveThreshold"], found["filesystem"]["retentionDays"]) == (7, 365)
    assert found["cleanup"] == {"maxAgeHours": 168, "maxInactiveHours": 720, "dryRun": False}


def test_the_database_is_the_one_in_use_wherever_it_was_said() -> None:
    for url in ("redis://:s3cret@127.0.0.1:17777/3", "redis://127.0.0.1?db=3", "redis+unix:///run/redis.sock?db=3"):
        # Nothing is asked of the server for it.
        text = configuration.render(registry.open_backend(parse(url), reading.marks)).decode()
        assert "\n    db: 3\n" in text, url
        assert "s3cret" not in text


def test_memory_has_no_place() -> None:
    with open_journal("memory:") as journal:
        text = configuration.render(journal.backend).decode()
    assert text.startswith('dialogueJournal:\n  backend: "memory"\n  memory:\n    maxConversationLength: 100\n')


def of_plug_in(url: str) -> str:
    """What is shown of another package's backend, whose settings only it knows."""
    where = parse(url)

    class Shelf(MemoryBackend):
        name = "shelf"

        def __init__(self, where: Where, scan: Scan) -> None:
            super().__init__(Where("memory", ""), scan)
            self.where, self.configured = where, None

    backend: Backend = Shelf(where, lambda _: ())
    return configuration.render(backend).decode()


def test_no_secret_is_in_it() -> None:
    text = of_plug_in(
        "shelf://mia:s3cret@host/a?password=s3cret&apiKey=s3cret&authToken=s3cret&dsn=shelf://x:s3cret@y/&keyPrefix=a:"
    )
    assert "s3cret" not in text
    assert 'url: "shelf://mia:***@host/a"' in text
    assert 'keyPrefix: "a:"' in text
    assert 'dsn: "***"' in text
    text = of_plug_in("shelf://host/a?pwd=s3cret&auth=s3cret&db_key=s3cret&author=mia&replica=shelf://x:s3cret@y/")
    assert "s3cret" not in text
    assert 'author: "mia"' in text
    assert 'replica: "shelf://x:***@y/"' in text


def test_a_path_that_is_no_text_is_shown_all_the_same(tmp_path: Path) -> None:
    with open_journal(f"file://{tmp_path}/caf%E9") as journal:
        assert "caf" in configuration.render(journal.backend).decode()
