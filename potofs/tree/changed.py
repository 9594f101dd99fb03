"""Which entries of the tree look different after a change that the backend tells of."""

from collections.abc import Iterator
from typing import NamedTuple

from potofs.backends.base import Notice
from potofs.tree import nodes
from potofs.tree.nodes import Kind, Node


class Outdated(NamedTuple):
    """Something that nobody may remember any longer."""

    directory: Node
    #: The name in it that is gone or means another entry; None: the directory's own attributes.
    name: str | None = None


def outdated(notice: Notice) -> Iterator[Outdated]:
    """What is not as it was, whether anybody remembers it or not."""
    if notice.is_new:
        yield Outdated(Node(Kind.USERS))
    for kind in (Kind.USER, Kind.DIALOGS, Kind.ARCHIVED):
        yield Outdated(Node(kind, notice.user))
    for parent_kind, kind, gone in (
        (Kind.ARCHIVED, Kind.ARCHIVE, notice.archives_gone),
        (Kind.REJECTED, Kind.REJECTED_FILE, notice.set_asides_gone),
    ):
        parent = Node(parent_kind, notice.user)
        for name in gone:
            yield Outdated(parent, nodes.name_of(parent, Node(kind, notice.user, name)))


def outdated_of(node: Node) -> Outdated | None:
    """The same of one entry, if anything may have changed; None of one that nobody remembers, or that stays."""
    if node.kind.is_fresh:
        return None
    if node.kind.is_directory:
        return Outdated(node)
    parent = {Kind.ARCHIVE: Kind.ARCHIVED, Kind.REJECTED_FILE: Kind.REJECTED}.get(node.kind)
    if parent is None:
        return None
    directory = Node(parent, node.user)
    return Outdated(directory, nodes.name_of(directory, node))
