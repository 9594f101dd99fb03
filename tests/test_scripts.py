"""What the scripts promise: they make what is missing, once, and say what only somebody else can do.

They run in a copy of the checkout's scripts, on a PATH where everything that would change the machine or reach a
network is a stand-in that writes down how it was called.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.mounts import PATIENCE, wait_until

REPOSITORY = Path(__file__).parents[1]

#: What the scripts may use of any system; of a ready checkout only the first two.
TOOLS = [
    "bash",
    "readlink",
    "awk",
    "cat",
    "cp",
    "env",
    "flock",
    "id",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "sed",
    "sort",
    "stat",
]

#: Stands in for a Python, for pip and for all that a virtual environment has. It does what it is asked for as far as
#: the scripts can see.
PYTHON = """#!/bin/sh
case $0 in */shellcheck) name=shellcheck ;; *) name=python ;; esac
printf '%s\\n' "$name $*" >>"$BASE/calls"
case $* in
    *os.path.realpath*) printf '%s\\n' "$0" ;;
    '-I -m venv '*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    '-m pip '*)
        case $PIP in
            fail) echo 'no index can be reached' >&2 && exit 1 ;;
            wait) : >"$BASE/waiting" && read -r _ <"$BASE/go" ;;
        esac
        cp "$0" "${0%/*}/potofs" && printf '#!%s\\n' "$0" >"${0%/*}/potofs"
        cp "$0" "${0%/*}/shellcheck"
        ;;
    */.venv/bin/potofs*) shift && printf '<%s>' "$@" && exit "$CODE" ;;
    "-m $BROKEN"*) exit 1 ;;
esac
"""

#: How every script is checked.
SHELLCHECK = (
    "shellcheck -x .ci/run scripts/potofs scripts/test scripts/check scripts/bench scripts/soak scripts/lib/setup.sh"
)

#: Any other program that is only noted down.
PROGRAM = """#!/bin/sh
printf '%s\\n' "${0##*/} $*" >>"$BASE/calls"
"""

#: Knows all packages as installed but for the words of $MISSING.
DPKG_QUERY = """#!/bin/sh
shift 3
for package; do
    case " $MISSING " in *' all '* | *" $package "*) ;; *) echo installed ;; esac
done
"""

#: Finds a Python to install; what it knows of packages is for $LISTS to say: true or false.
APT_CACHE = """#!/bin/sh
case $1 in
    search) echo 'python3.12 - Interactive high-level object-oriented language' ;;
    show) $LISTS ;;
esac
"""


class Checkout:
    """A copy of the scripts, and what surrounds them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "checkout"
        self.programs = base / "bin"
        self.programs.mkdir(parents=True)
        for name in TOOLS:
            (self.programs / name).symlink_to(shutil.which(name) or f"{name} is not on PATH")
        self.stub("python-of-choice", PYTHON)
        self.stub("fusermount3", PROGRAM)
        self.stub("sudo", PROGRAM)
        self.stub("apt-get", PROGRAM)
        self.stub("apt-cache", APT_CACHE)
        self.stub("dpkg-query", DPKG_QUERY)
        for folder in ("scripts", ".ci"):
            shutil.copytree(REPOSITORY / folder, self.root / folder)
        (self.root / "pyproject.toml").write_text('[project]\nname = "potofs"\n')
        os.mkfifo(base / "go")
        if os.geteuid() == 0:
            for path in [base, *base.rglob("*")]:
                os.chown(path, 65534, 65534, follow_symlinks=False)

    def stub(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def start(
        self, script: str | Path, *arguments: str, root: bool = False, cwd: Path | None = None, **variables: str
    ) -> "subprocess.Popen[str]":
        """Starts a script as an ordinary user, or as the user who runs the tests if that shall be root."""
        ordinary = os.geteuid() == 0 and not root
        return subprocess.Popen(
            [self.root / script, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd or self.base,
            env=self._environment(variables),
            start_new_session=True,
            user=65534 if ordinary else None,
            group=65534 if ordinary else None,
            extra_groups=[] if ordinary else None,
        )

    def run(
        self, script: str | Path, *arguments: str, root: bool = False, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """The exit code of a script, its standard output and error."""
        process = self.start(script, *arguments, root=root, cwd=cwd, **variables)
        output, errors = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def made_ready(self) -> "Checkout":
        """The same, after a first start."""
        done = self.run("scripts/potofs")
        assert done.returncode == 0, done.stderr
        self.calls()
        return self

    def calls(self) -> list[str]:
        """How the stand-ins were called since this was last asked, without the questions about a Python."""
        path = self.base / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in lines if re.match(r"(python (-I -m|-m)|shellcheck|apt-get|sudo|fusermount3) ", line)]

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        defaults = {"CODE": "0", "PIP": "", "BROKEN": "nothing", "MISSING": "", "LISTS": "true"}
        fixed = {"PATH": str(self.programs), "BASE": str(self.base), "HOME": str(self.base), "LC_ALL": "C.UTF-8"}
        return {**defaults, "POTOFS_PYTHON": "python-of-choice", **fixed, **variables}


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    """A checkout in which no script ran yet, where an ordinary user can reach it."""
    with tempfile.TemporaryDirectory(prefix="potofs-scripts-") as folder:
        yield Checkout(Path(folder))


# ---- Starting potofs


def test_a_first_start_makes_the_environment_and_runs_potofs(checkout: Checkout) -> None:
    done = checkout.run("scripts/potofs", "show", "mia")
    venv = checkout.root / ".venv"
    assert (done.returncode, done.stdout) == (0, "<show><mia>")
    assert done.stderr == f"potofs: making {venv} (this takes a minute or so)\n"
    assert checkout.calls() == [
        f"python -I -m venv {venv}",
        "python -m pip --quiet --no-input install -e .[redis]",
    ]


def test_a_ready_checkout_starts_nothing_but_potofs(checkout: Checkout) -> None:
    checkout.made_ready()
    for program in checkout.programs.iterdir():
        if program.name not in {*TOOLS[:2], "fusermount3", "python-of-choice"}:
            program.unlink()
    done = checkout.run("scripts/potofs", "users")
    assert (done.returncode, done.stdout, done.stderr) == (0, "<users>", "")
    assert checkout.calls() == []


def test_a_ready_checkout_need_not_be_writable(checkout: Checkout) -> None:
    checkout.made_ready()
    checkout.root.chmod(0o555)
    done = checkout.run("scripts/potofs", "users")
    assert (done.returncode, done.stdout, done.stderr) == (0, "<users>", "")


def test_arguments_reach_potofs_unchanged(checkout: Checkout) -> None:
    arguments = ["a b", "", "*", "$HOME", "'", '"', "line\nline", "-x", "--"]
    assert checkout.made_ready().run("scripts/potofs", *arguments).stdout == "".join(f"<{a}>" for a in arguments)


@pytest.mark.parametrize("code", ["1", "2", "130"])
def test_the_exit_code_of_potofs_comes_through(checkout: Checkout, code: str) -> None:
    assert checkout.made_ready().run("scripts/potofs", CODE=code).returncode == int(code)


def test_the_script_may_be_called_through_links_from_anywhere(checkout: Checkout) -> None:
    checkout.made_ready()
    (checkout.base / "link").symlink_to("checkout/scripts/potofs")
    (checkout.programs / "potofs").symlink_to("../link")
    assert checkout.run(checkout.programs / "potofs", "users", cwd=Path("/")).stdout == "<users>"
    assert checkout.calls() == []


def test_a_checkout_may_have_any_path(checkout: Checkout) -> None:
    checkout.root = checkout.root.rename(checkout.base / 'it\'s "the" $ROOT; of\\all *')
    for _ in range(2):
        assert checkout.run("scripts/potofs", "users").stdout == "<users>"


# ---- When the environment does not fit any more


def test_a_moved_checkout_is_made_anew(checkout: Checkout) -> None:
    checkout.made_ready()
    checkout.root = checkout.root.rename(checkout.base / "moved")
    assert checkout.run("scripts/potofs", "users").stdout == "<users>"
    assert checkout.calls()[0] == f"python -I -m venv {checkout.root}/.venv"
    assert checkout.run("scripts/potofs", "users").stderr == ""


def test_a_changed_project_file_brings_the_environment_up_to_date(checkout: Checkout) -> None:
    checkout.made_ready()
    with (checkout.root / "pyproject.toml").open("a") as project:
        project.write('dependencies = ["another"]\n')
    done = checkout.run("scripts/potofs", "users")
    assert (done.stdout, done.stderr) == ("<users>", f"potofs: bringing {checkout.root}/.venv up to date\n")
    assert checkout.calls() == ["python -m pip --quiet --no-input install -e .[redis]"]
    assert checkout.run("scripts/potofs", "users").stderr == ""


def test_what_one_script_installed_another_keeps(checkout: Checkout) -> None:
    assert checkout.run("scripts/check").returncode == 0
    checkout.calls()
    assert checkout.run("scripts/potofs", "users").stderr == ""
    (checkout.root / "pyproject.toml").write_text('[project]\nname = "changed"\n')
    checkout.run("scripts/potofs", "users")
    assert checkout.calls()[-1] == "python -m pip --quiet --no-input install -e .[redis] --group=check --group=test"


def test_another_python_makes_the_environment_anew(checkout: Checkout) -> None:
    checkout.made_ready()
    checkout.stub("another-python", PYTHON)
    checkout.run("scripts/potofs", POTOFS_PYTHON="another-python")
    assert checkout.calls()[0] == f"python -I -m venv {checkout.root}/.venv"
    assert checkout.run("scripts/potofs", POTOFS_PYTHON="another-python").stderr == ""


def test_a_python_that_is_none_is_refused(checkout: Checkout) -> None:
    done = checkout.run("scripts/potofs", POTOFS_PYTHON="fusermount3")
    assert done.returncode == 1
    assert done.stderr == "potofs: POTOFS_PYTHON=fusermount3 is not a Python 3.11 or later\n"


# ---- When a set-up does not come to its end


def test_a_failed_installation_is_reported_and_the_next_start_repairs_it(checkout: Checkout) -> None:
    done = checkout.run("scripts/potofs", "users", PIP="fail")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[1:] == [
        "no index can be reached",
        f"potofs: could not install potofs into {checkout.root}/.venv (see above); the next start tries again",
    ]
    assert checkout.run("scripts/potofs", "users").stdout == "<users>"


def test_a_set_up_that_was_killed_is_done_again(checkout: Checkout) -> None:
    with checkout.start("scripts/potofs", "users", PIP="wait") as killed:
        wait_until((checkout.base / "waiting").exists, "pip runs")
        os.killpg(killed.pid, signal.SIGKILL)
    done = checkout.run("scripts/potofs", "users")
    assert (done.returncode, done.stdout) == (0, "<users>")
    assert checkout.run("scripts/potofs", "users").stderr == ""


def test_of_two_first_starts_at_once_one_waits_for_the_other(checkout: Checkout) -> None:
    with checkout.start("scripts/potofs", "first", PIP="wait") as first:
        wait_until((checkout.base / "waiting").exists, "pip runs")
        with checkout.start("scripts/potofs", "second") as second:
            assert second.stderr is not None
            assert second.stderr.readline() == f"potofs: waiting for another set-up of {checkout.root}\n"
            (checkout.base / "go").write_text("\n")
            assert first.communicate(timeout=PATIENCE)[0] == "<first>"
            assert second.communicate(timeout=PATIENCE)[0] == "<second>"
    assert len([call for call in checkout.calls() if " -m venv " in call]) == 1


# ---- What only somebody else can do


def test_a_user_without_root_is_told_the_command_that_installs_what_is_missing(checkout: Checkout) -> None:
    done = checkout.run("scripts/potofs", "users", POTOFS_PYTHON="", MISSING="all")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"potofs: needs packages that only root can install; run this as root, then start again: sudo apt-get install "
        r"(python3\.\d+) \1-venv \1-dev fuse3 libfuse3-dev pkg-config gcc libc6-dev\n",
        done.stderr,
    )
    assert checkout.calls() == []


def test_the_command_fetches_the_lists_of_packages_where_they_are_missing(checkout: Checkout) -> None:
    done = checkout.run("scripts/potofs", MISSING="gcc libc6-dev", LISTS="false")
    assert done.returncode == 1
    assert done.stderr.endswith(": sudo apt-get update && sudo apt-get install gcc libc6-dev\n")


def test_a_ready_checkout_whose_packages_were_removed_says_so(checkout: Checkout) -> None:
    checkout.made_ready()
    (checkout.programs / "fusermount3").unlink()
    done = checkout.run("scripts/potofs", MISSING="fuse3")
    assert done.returncode == 1
    assert done.stderr.endswith(": sudo apt-get install fuse3\n")


def test_the_tests_need_more_packages_than_potofs(checkout: Checkout) -> None:
    done = checkout.run("scripts/test", MISSING="fio openssl redis-server redis-tools rsync stress-ng npm")
    assert done.returncode == 1
    assert done.stderr.endswith(": sudo apt-get install fio openssl redis-server redis-tools rsync stress-ng npm\n")


def test_hard_use_needs_a_redis_server_and_rsync(checkout: Checkout) -> None:
    done = checkout.run("scripts/soak", MISSING="redis-server rsync")
    assert done.returncode == 1
    assert done.stderr.endswith(": sudo apt-get install redis-server rsync\n")
    checkout.stub("redis-server", PROGRAM)
    checkout.stub("rsync", PROGRAM)
    assert checkout.run("scripts/soak", "kills", "--rounds", "3").returncode == 0
    assert "python -m tests.soak kills --rounds 3" in checkout.calls()


if os.geteuid() == 0:  # what no ordinary user can see

    def test_root_gets_what_is_missing_installed(checkout: Checkout) -> None:
        done = checkout.run("scripts/potofs", "users", root=True, MISSING="fuse3 gcc")
        assert (done.returncode, done.stdout) == (0, "<users>")
        assert done.stderr.startswith("potofs: installing fuse3 gcc\n")
        (installation,) = [call for call in checkout.calls() if call.startswith("apt-get ")]
        assert re.fullmatch(r"apt-get .*-y .*install fuse3 gcc", installation)


def test_without_apt_it_says_what_is_missing(checkout: Checkout) -> None:
    for name in ("apt-get", "fusermount3"):
        (checkout.programs / name).unlink()
    done = checkout.run("scripts/potofs")
    assert done.returncode == 1
    assert done.stderr == (
        "potofs: needs what is missing here, install it and start again:"
        " fusermount3, cc, pkg-config, libfuse 3 with its header files\n"
    )


def test_a_checkout_that_is_not_ready_and_not_writable_says_who_can_mend_it(checkout: Checkout) -> None:
    checkout.root.chmod(0o555)
    done = checkout.run("scripts/potofs", "users")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"potofs: {checkout.root}/.venv is missing or out of date, and this user cannot write it; run this as"
        f" {checkout.root.owner()}, with {checkout.root} writable, then start again: {checkout.root}/scripts/potofs\n"
    )
    assert checkout.calls() == []


# ---- Checks


def test_the_checks_change_nothing_unless_asked(checkout: Checkout) -> None:
    assert checkout.run("scripts/check").returncode == 0
    assert [call for call in checkout.calls() if "-m pip" not in call and "-m venv" not in call] == [
        "python -m ruff check",
        "python -m ruff format --check",
        "python -m mypy",
        "python -m pytest -q tests/test_layers.py",
        SHELLCHECK,
    ]
    assert checkout.run("scripts/check", "--fix").returncode == 0
    assert checkout.calls()[:2] == ["python -m ruff check --fix", "python -m ruff format"]


def test_a_failed_check_keeps_no_other_from_running(checkout: Checkout) -> None:
    done = checkout.run("scripts/check", BROKEN="mypy")
    assert done.returncode == 1
    assert done.stderr.endswith("check: failed: mypy\n")
    assert checkout.calls()[-1] == SHELLCHECK


@pytest.mark.parametrize("arguments", [["--mend"], ["--fix", "--fix"], ["potofs"]])
def test_arguments_that_check_does_not_know_are_refused(checkout: Checkout, arguments: list[str]) -> None:
    done = checkout.run("scripts/check", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "check: usage: scripts/check [--fix]\n")
    assert checkout.calls() == []


@pytest.mark.parametrize(("check", "test", "both"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_ci_runs_the_tests_last_and_after_failed_checks_too(
    checkout: Checkout, check: int, test: int, both: int
) -> None:
    (checkout.root / "scripts/check").write_text(f"#!/bin/sh\necho check\nexit {check}\n")
    (checkout.root / "scripts/test").write_text(f"#!/bin/sh\necho test\nexit {test}\n")
    done = checkout.run(".ci/run")
    assert (done.returncode, done.stdout) == (both, "check\ntest\n")
