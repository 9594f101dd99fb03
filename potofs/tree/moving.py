"""What renaming means: which kind of entry may become which other, in one table."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from potofs.errors import AlreadyExists, InvalidMessage, NotFound, NotPermitted
from potofs.journal import copying
from potofs.journal.journal import DialogueJournal
from potofs.tree import drafts
from potofs.tree.nodes import Kind, Node
from potofs.tree.restoring import Restoring
from potofs.tree.scratch import ScratchFiles

#: The name of an archive that is to be called by the time.
BY_TIME: Final = ""


class Moves:
    """Renaming in one mount. Everything is done, or nothing and an error says why."""

    def __init__(self, journal: DialogueJournal, scratch: ScratchFiles, restoring: Restoring) -> None:
        self._journal, self._scratch, self._restoring = journal, scratch, restoring
        self._backend = journal.backend
        self._moves: dict[tuple[Kind, Kind], Callable[[Node, Node, bool], Node]] = {
            (Kind.CURRENT, Kind.ARCHIVE): self._archive,
            (Kind.ARCHIVE, Kind.CURRENT): self._restore,
            (Kind.ARCHIVE, Kind.ARCHIVE): self._rename_archive,
            (Kind.SCRATCH, Kind.SCRATCH): self._rename_scratch,
            (Kind.SCRATCH, Kind.CURRENT): self._copy_conversation,
            (Kind.SCRATCH, Kind.ARCHIVE): self._copy_conversation,
            (Kind.SCRATCH, Kind.REJECTED_FILE): self._copy_rejected,
            (Kind.SCRATCH, Kind.METADATA): self._copy_profile,
        }

    def move(self, source: Node, target: Node, *, replace: bool) -> Node:
        """Renames an entry that is there and returns what it is then; `replace`: something may be there already.

        An archive called `BY_TIME` gets the time for a name. Raises NotPermitted for what can become no other,
        AlreadyExists, NotFound, and what storing raises.
        """
        move = self._moves.get((source.kind, target.kind))
        if move is None:
            raise NotPermitted(f"{source} cannot become {target}")
        if source.user != target.user:
            raise NotPermitted(f"what is of user {source.user!r} cannot become of {target.user!r}")
        return move(source, target, replace)

    def _archive(self, source: Node, target: Node, replace: bool) -> Node:
        name = self._journal.archive_conversation(source.user, target.name or None)
        return target._replace(name=name)

    def _restore(self, source: Node, target: Node, replace: bool) -> Node:
        self._backend.restore(source.user, source.name, swap=replace)
        return target

    def _rename_archive(self, source: Node, target: Node, replace: bool) -> Node:
        _must_have_a_name(target)
        if source != target:
            self._backend.rename_archive(source.user, source.name, target.name)
        return target

    def _rename_scratch(self, source: Node, target: Node, replace: bool) -> Node:
        if not replace:
            with suppress(NotFound):
                self._scratch.get(target)
                raise AlreadyExists(f"{target} is there already")
        self._scratch.rename(source, target)
        return target

    def _copy_conversation(self, source: Node, target: Node, replace: bool) -> Node:
        archive = None
        if target.kind is Kind.ARCHIVE:
            _must_have_a_name(target)
            archive = target.name
        if not replace:
            with suppress(NotFound):
                self._backend.stat(target.user, archive)
                raise AlreadyExists(f"{target} is there already")
        if archive is None:
            self._restoring.copied(target.user)
        with self._scratch.get(source).storing() as (data, mtime_ns):
            copying.restore(self._backend, target.user, archive, data, mtime_ns)
        self._scratch.remove(source)
        return target

    def _copy_rejected(self, source: Node, target: Node, replace: bool) -> Node:
        with self._scratch.get(source).storing() as (data, mtime_ns):
            if not data:
                raise InvalidMessage("these are no bytes at all")
            try:
                self._backend.set_aside(target.user, data, target.name, mtime_ns=mtime_ns)
            except AlreadyExists:
                if replace:
                    raise NotPermitted(f"{target} stays as it is") from None
                raise
        self._restoring.remove_rejected(target.user)
        self._scratch.remove(source)
        return target

    def _copy_profile(self, source: Node, target: Node, replace: bool) -> Node:
        if not (replace or self._restoring.is_profile_away(target.user)):
            raise AlreadyExists(f"{target} is there already")
        with self._scratch.get(source).storing() as (data, mtime_ns):
            drafts.store_profile(self._backend, target.user, data, mtime_ns)
        self._restoring.profile_written(target.user)
        self._scratch.remove(source)
        return target


def _must_have_a_name(archive: Node) -> None:
    if archive.name == BY_TIME:
        raise NotPermitted("an archive cannot be called current.yaml: that is the running conversation")
