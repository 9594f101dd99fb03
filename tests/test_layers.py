"""Imports go one way, and each layer keeps to what it may know of."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "potofs"

#: From top to bottom: each may import what stands in its own row and below.
LAYERS = (
    {"testing"},
    {"cli", "__main__"},
    {"mount"},
    {"fuse"},
    {"tree"},
    {"aio"},
    {"journal"},
    {"backends"},
    {"config", "names", "temporary", "times"},
    {"errors"},
)
#: The libraries that only some layers know of.
KEPT_TO = {
    "anyio": {"aio"},
    "asyncio": {"aio"},
    "sniffio": {"aio"},
    "click": {"cli"},
    "pyfuse3": {"fuse", "mount"},
    "trio": {"fuse", "mount"},
    "yaml": {"journal", "mount"},
    "fcntl": {"backends", "mount"},
    "prometheus_client": {"fuse"},
    "redis": {"backends"},
    "hypothesis": {"testing"},
    "pytest": {"testing"},
}
#: What may be known of backends above them: what one is, and how it is opened.
ABSTRACT = {"potofs.backends.base", "potofs.backends.waiting", "potofs.backends.registry"}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it; `from potofs import names` is potofs.names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole module"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner) else node.module


def is_module(name: str) -> bool:
    path = PACKAGE.parent / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def level(room: str) -> int:
    (found,) = [number for number, rooms in enumerate(LAYERS) if room in rooms]
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_a_module_imports_only_its_own_layer_and_those_below(path: Path) -> None:
    room = room_of(module_of(path))
    wrong = [name for name in imports(path) if name.startswith("potofs.") and level(room_of(name)) < level(room)]
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_a_module_uses_only_the_libraries_of_its_layer(path: Path) -> None:
    room = room_of(module_of(path))
    wrong = [name for name in imports(path) if room not in KEPT_TO.get(name.split(".")[0], {room})]
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_no_layer_above_the_backends_knows_a_particular_one(path: Path) -> None:
    if room_of(module_of(path)) == "backends":
        return
    wrong = [name for name in imports(path) if name.startswith("potofs.backends") and name not in ABSTRACT]
    assert wrong == []


def test_every_module_has_a_layer_and_says_what_it_is_for() -> None:
    for path in MODULES:
        level(room_of(module_of(path)))
        assert path.read_text().strip() == "" or ast.get_docstring(ast.parse(path.read_text())), path


def test_the_library_can_be_used_without_what_only_a_mount_needs() -> None:
    """Neither an event loop nor the kernel's side nor tests are imported by a program that only keeps a journal."""
    import subprocess
    import sys

    code = "import sys, potofs; print(sorted({'anyio', 'trio', 'pyfuse3', 'click', 'pytest'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
