"""The README is true: its commands print what it says, and everything that there is stands in it."""

import errno
import inspect
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import anyio
import click
import msgspec
import pytest

from potofs import ChatMessage, CleanupOptions, CleanupResult, DialogueJournal, errors
from potofs import __all__ as offered
from potofs.backends import registry
from potofs.cli import helper
from potofs.cli.commands import potofs
from potofs.config import FilesystemSettings, MemorySettings, RedisSettings, Settings, Where
from potofs.fuse import errnos
from potofs.fuse.operations import Operations
from potofs.journal import reading
from potofs.journal.health import Health
from potofs.journal.journal import open_journal
from potofs.journal.message import ROLES
from potofs.journal.models import DialogueJournalStats
from potofs.journal.tally import Taken
from potofs.mount import options, owners, running
from potofs.mount.mountpoints import FILESYSTEM_TYPE
from potofs.mount.overview import State
from potofs.testing import BackendConformance
from potofs.tree import nodes
from potofs.tree.system import Figures
from potofs.tree.tree import Tree
from tests.mounts import abandon
from tests.soak.__main__ import SCENARIOS

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text()


class Step(NamedTuple):
    """A command of a console block, and what it prints; … stands for anything."""

    command: str
    expected: str


def steps(text: str) -> Iterator[Step]:
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = piece.splitlines(keepends=True)
            command = lines.pop(0)
            while lines and re.match(r"> ?", lines[0]):
                command += re.sub(r"^> ?", "", lines.pop(0))
            yield Step(command, "".join(lines))


STEPS = list(steps(README))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder in which the commands can be run as they stand there."""
    (tmp_path / "scripts").symlink_to(CHECKOUT / "scripts")
    yield tmp_path
    for mountpoint in (tmp_path / "mnt", tmp_path / "other"):
        abandon(mountpoint)
        # A log is kept, on purpose; these are ours.
        Path(running.log_file(str(mountpoint))).unlink(missing_ok=True)


def test_the_commands_print_what_the_readme_says(place: Path) -> None:
    mark = "<<<end of a command>>>"
    # One shell for all, as its reader has: what one command sets, the next finds.
    script = "".join(f"{step.command}echo '{mark}'\n" for step in STEPS)
    done = subprocess.run(
        ["bash"],
        input=f"exec 2>&1\n{script}",
        stdout=subprocess.PIPE,
        text=True,
        cwd=place,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=True,
        timeout=100,
    )
    printed = done.stdout.split(f"{mark}\n")[:-1]
    assert len(printed) == len(STEPS) > 20
    for step, output in zip(STEPS, printed, strict=True):
        pattern = ".*".join(map(re.escape, step.expected.split("…")))
        assert re.fullmatch(pattern, output), f"$ {step.command}{output}"


def test_its_first_commands_are_five() -> None:
    first = re.search(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert first is not None
    assert first[1].count("$ ") == 5


def test_its_python_runs(place: Path) -> None:
    library, asynchronous, backend, conformance = re.findall(
        r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
    )
    found: dict[str, Any] = {"print": lambda *_: None}
    for code in (library, asynchronous, backend, conformance):
        exec(code.replace("/var/lib/poto", f"{place}/journal"), found)
    anyio.run(found["answer"])
    # Archived, and restored again.
    current = (place / "journal/users/mia/dialogs/current.yaml").read_text()
    assert re.findall("content: (.*)", current) == ["Where is my order?", "It left us this morning."]
    assert issubclass(found["TestShelf"], BackendConformance)
    # As the fixture gives it: a folder for one test, and nothing is left anywhere else.
    books = str(place / "books")
    shelf = found["ShelfBackend"](Where("shelf", books, {"archiveThreshold": "1"}), reading.marks)
    shelf.prepare(create=True)
    with DialogueJournal(shelf) as journal:
        journal.add_message("mia", ChatMessage("user", "Hello"))
        assert len(journal.get_archived_conversations("mia")) == 1
    assert (place / "books/users/mia").is_dir()
    assert {path.name for path in place.iterdir()} == {"scripts", "journal", "books"}


COMMANDS: dict[str, click.Command] = {
    "potofs": potofs,
    **{name: command for name, command in potofs.commands.items() if not command.hidden},
}


@pytest.mark.parametrize(("name", "command"), COMMANDS.items(), ids=COMMANDS)
def test_every_command_and_option_is_in_it(name: str, command: click.Command) -> None:
    assert f"| `{name} " in README or f"| `{name}`" in README
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            for option in parameter.opts:
                assert re.search(rf"\| `(?:-h`, `)?{option}[ `]", README), option


def test_no_option_is_in_it_that_does_not_exist() -> None:
    existing = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}
    existing |= {"--help", "--keep", "--rounds", "--seconds", "--fix"}
    ours = "\n".join(line for line in README.splitlines() if "rsync" not in line)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours)) - existing == set()


@pytest.mark.parametrize("settings", [FilesystemSettings, MemorySettings, RedisSettings])
def test_every_setting_is_in_it_with_its_default(settings: type[Settings]) -> None:
    for field in msgspec.structs.fields(settings):
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        assert re.search(rf"\| `{field.encode_name}` \| `?{default}`? \|", README), field.encode_name


def test_every_scheme_of_a_backend_is_in_it() -> None:
    for scheme in registry.SCHEMES:
        assert f"`{scheme}:" in README, scheme


def test_every_mount_option_of_ours_is_in_it() -> None:
    table = README.split("| mount option |")[1].split("\n\n")[0]
    for name in [*options._FLAGS, *options._VALUES, *options._OF_KERNEL, *options._NEVER]:
        assert re.search(rf"`{name}[`=]", table), name


def test_what_it_says_an_owner_map_is_can_be_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "owners.yaml").write_text(text.replace(" mia ", " root "))
    assert set(owners.read(str(tmp_path / "owners.yaml"), None).by_user) == {"mia", "a/b"}


def test_what_it_says_of_mount_and_systemd_is_so() -> None:
    unit = (CHECKOUT / "scripts/systemd/potofs@.service").read_text()
    for name in ("/usr/local/bin/potofs", "POTOFS_BACKEND", "POTOFS_OPTIONS", "Type=notify", "/etc/potofs/"):
        assert name in unit, name
        assert name in README, name
    assert f"/sbin/{helper.NAME}" in README
    assert FILESYSTEM_TYPE in README
    for state in get_args(State):
        assert f"`{state}`" in README, state


def test_every_exit_code_is_in_it() -> None:
    source = (CHECKOUT / "potofs/cli/exits.py").read_text()
    codes = {"0", "2", *re.findall(r"^[A-Z_]+ = (\d+)$", source, re.MULTILINE)}
    table = README.split("| exit code |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| (\d+) \|", table, re.MULTILINE)) == codes


def test_every_name_of_the_tree_is_in_it() -> None:
    for names in nodes.FIXED.values():
        for name in names:
            assert re.search(rf"[`/]{re.escape(name)}[`/]", README), name


def test_every_metric_is_in_it() -> None:
    stats = DialogueJournalStats(
        total_users=1,
        total_messages=1,
        total_archived_conversations=1,
        average_messages_per_user=1,
        storage_usage=1,
        oldest_message="2024-01-15T10:30:00.000Z",
        newest_message="2024-01-15T10:30:00.000Z",
        backend="memory",
        last_cleanup="2024-01-15T10:30:00.000Z",
    )
    with open_journal("memory:") as journal:
        tree = Tree(journal)
        Operations(tree)
        assert tree.system.metrics is not None
        text = tree.system.metrics(Figures(Taken(0, 0, 0), stats)).decode()
    found = re.findall("^# TYPE ([a-z_]+)", text, re.MULTILINE)
    assert len(found) > 10
    for name in found:
        assert re.search(rf"`{name}[`{{]", README), name


def test_every_health_check_is_in_it() -> None:
    with open_journal("memory:") as journal:
        report = Health(journal.backend).report()
    for name, check in report.items():
        if isinstance(check, dict):
            assert f"| `{name}` |" in README, name


def test_every_scenario_of_hard_use_is_in_it() -> None:
    paragraph = README.split("`./scripts/soak` uses")[1].split("\n\n")[0]
    for name in SCENARIOS:
        assert f"`{name}`" in paragraph, name


OPERATIONS = [
    name for name, member in vars(DialogueJournal).items() if inspect.isfunction(member) and not name.startswith("_")
]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_in_it_with_its_parameters(name: str) -> None:
    parameters = list(inspect.signature(getattr(DialogueJournal, name)).parameters.values())[1:]
    written = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in written:
            written.append("*")
        default = "…" if callable(parameter.default) else parameter.default
        written.append(parameter.name if parameter.default is parameter.empty else f"{parameter.name}={default}")
    assert re.search(rf"^\| .*`{re.escape(name)}\({re.escape(', '.join(written))}\)`.* \|", README, re.MULTILINE)


def test_every_error_is_in_it_with_its_errno() -> None:
    table = README.split("| error | when |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\w*) *\|$", table, re.MULTILINE))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PotofsError)]
    assert set(rows) == {kind.__name__ for kind in kinds}
    for kind in kinds:
        name = rows[kind.__name__]
        number = next((number for row, number in errnos.ERRNOS if issubclass(kind, row)), None)
        assert (getattr(errno, name) if name else None) == number, kind


def test_every_errno_that_else_may_come_is_one_that_comes_in_a_test() -> None:
    table = README.split("| errno | when |")[1].split("\n\n")[0]
    names = {name for row in re.findall(r"^\| ([A-Z, ]+) \|", table, re.MULTILINE) for name in row.split(", ")}
    tests = "".join(path.read_text() for path in (CHECKOUT / "tests").glob("*/*.py"))
    # EAGAIN never comes.
    assert {name for name in names - {"EAGAIN"} if not re.search(rf"\berrno\.{name}\b|\"{name}\"", tests)} == set()
    assert {"ENOTCONN", "ECONNABORTED"} < names


def test_every_option_and_figure_of_a_clean_up_is_in_it() -> None:
    for field in msgspec.structs.fields(CleanupOptions):
        assert f"| `{field.name}` | {field.default} |" in README, field.name
    paragraph = README.split("`CleanupResult` has")[1].split("\n\n")[0]
    for field in msgspec.structs.fields(CleanupResult):
        assert f"`{field.name}`" in paragraph, field.name


def test_what_else_the_package_offers_is_in_it() -> None:
    for name in offered:
        assert re.search(rf"\b{name}\b", README), name


def test_every_role_is_in_it() -> None:
    for role in ROLES:
        assert f"`{role}`" in README
