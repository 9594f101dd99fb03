"""What a directory lists: names, and what is shown of many of them at once."""

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from potofs.backends.base import Archived, Backend, Capability
from potofs.errors import Damaged, NotFound, PotofsError, Stale
from potofs.tree import nodes
from potofs.tree.attributes import Entry, sizeless, stored
from potofs.tree.nodes import Kind, Node
from potofs.tree.system import SystemFiles

# What is wrong with one entry, and not with what it lies in.
_OF_ONE = frozenset({errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENOTDIR})

# What a backend has under a name of its own.
_STORED = frozenset({Kind.ARCHIVE, Kind.REJECTED_FILE})

#: What a name is, or why that cannot be told.
Told = Entry | PotofsError | OSError


class Listing:
    """The directories of one tree. Thread-safe."""

    def __init__(
        self,
        backend: Backend,
        system: SystemFiles,
        scratch: Callable[[Node], Iterable[str]],
        metadata_changed: Callable[[str], int],
        lookup: Callable[[Node, str], Entry],
        users_changed: Callable[[], int],
    ) -> None:
        """`scratch`: the names of scratch files in a directory; `metadata_changed`: 0 if there is no metadata.yaml;
        `users_changed`: of users/, as it was known last.
        """
        self._backend, self._system, self._scratch, self._lookup = backend, system, scratch, lookup
        self._metadata_changed, self._users_changed = metadata_changed, users_changed
        # How to tell the entries of a directory without looking each of them up.
        self._known: dict[Kind, Callable[[Node, Sequence[str]], dict[str, Told]]] = {
            Kind.ROOT: self._of_root,
            Kind.USERS: self._users,
            Kind.USER: self._of_user,
            Kind.DIALOGS: self._of_user,
            Kind.ARCHIVED: self._stored,
            Kind.REJECTED: self._stored,
            Kind.SYSTEM: self._of_journal,
            Kind.CONFIG: self._of_journal,
        }

    def names(self, parent: Node) -> Iterator[str]:
        """The names in a directory; what comes or goes meanwhile may be among them or not.

        Sorted, but for users, who are as many as they like: those come one after the other, in no order.
        """
        if parent.kind in nodes.FIXED:
            return iter(sorted([*nodes.FIXED[parent.kind], *self._scratch(parent)]))
        encode = nodes.FAMILIES[parent.kind].encode
        if parent.kind is Kind.USERS:
            return map(encode, self._backend.users())
        found = [*(encode(one.name) for one in self._all(parent)), *self._scratch(parent)]
        if not found and not self._backend.has_user(parent.user):
            raise _gone(parent)
        return iter(sorted(found))

    def entries(self, parent: Node, names: Sequence[str]) -> list[Told]:
        """What names of a directory are, in their order.

        Asked for all at once where there is a way. What takes time to find out is shown as it was known last: the
        kernel remembers none of that, and asks again before anybody sees it.

        Raises what is wrong with more than one of them: a listing that lacks what is there would be taken for a whole
        one, and what it lacks would be removed from copies.
        """
        known: dict[str, Told] = {}
        if parent.kind in self._known:
            # Of what is damaged it is not said which: they are asked for one by one.
            with suppress(Damaged):
                known = self._known[parent.kind](parent, names)
        return [known.get(name) or self._looked_up(parent, name) for name in names]

    def _looked_up(self, parent: Node, name: str) -> Told:
        try:
            return self._lookup(parent, name)
        except (NotFound, Damaged, Stale) as error:
            return error
        except OSError as error:
            if error.errno in _OF_ONE:
                return error
            raise

    def _of_root(self, parent: Node, names: Sequence[str]) -> dict[str, Told]:
        # Without asking the backend: whoever wants to know why it does not answer begins here.
        users = Node(Kind.USERS)
        known = self._of_journal(parent, [name for name in names if name != nodes.name_of(parent, users)])
        return {**known, nodes.name_of(parent, users): Entry(users, sizeless(users, self._users_changed()))}

    def _users(self, _: Node, names: Sequence[str]) -> dict[str, Told]:
        users = list(map(nodes.FAMILIES[Kind.USERS].decode, names))
        return {
            name: self._directory(Node(Kind.USER, user), changed)
            for name, user, changed in zip(names, users, self._backend.changes_of(users), strict=True)
        }

    def _of_user(self, parent: Node, names: Sequence[str]) -> dict[str, Told]:
        (changed,) = self._backend.changes_of([parent.user])
        if changed is None:
            raise _gone(parent)
        known: dict[str, Told] = {}
        for name in names:
            node = nodes.child(parent, name)
            if node is None:
                continue
            if node.kind is Kind.METADATA:
                metadata_changed = self._metadata_changed(node.user)
                if metadata_changed:
                    known[name] = Entry(node, sizeless(node, metadata_changed))
                else:
                    known[name] = NotFound(f"nothing is known of user {node.user!r} yet")
            elif node.kind is Kind.DIALOGS or (
                node.kind is Kind.ARCHIVED and Capability.ARCHIVAL in self._backend.capabilities
            ):
                known[name] = self._directory(node, changed)
        return known

    def _stored(self, parent: Node, names: Sequence[str]) -> dict[str, Told]:
        # No others: a directory is listed in pieces, and whoever reads all of it for each takes hours.
        found = [(name, node) for name in names if (node := nodes.child(parent, name)) and node.kind in _STORED]
        ask = self._backend.stats_of if parent.kind is Kind.ARCHIVED else self._backend.stats_of_set_asides
        stats = ask(parent.user, [node.name for _, node in found])
        return {name: Entry(node, stored(node, stat)) for (name, node), stat in zip(found, stats, strict=True) if stat}

    def _of_journal(self, parent: Node, names: Sequence[str]) -> dict[str, Told]:
        found = ((name, nodes.child(parent, name)) for name in names)
        return {name: Entry(node, self._system.listed(node)) for name, node in found if node is not None}

    def _all(self, parent: Node) -> list[Archived]:
        """The archives of a user, or what was rejected of one."""
        if parent.kind is Kind.ARCHIVED:
            return self._backend.archives(parent.user)
        return self._backend.set_asides(parent.user)

    @staticmethod
    def _directory(node: Node, changed: int | None) -> Told:
        return _gone(node) if changed is None else Entry(node, sizeless(node, changed))


def _gone(node: Node) -> NotFound:
    """That a user is not there, any more: an empty listing would say that there is nothing to be copied."""
    return NotFound(f"there is no user {node.user!r}")
