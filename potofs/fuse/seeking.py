"""As what a process has looked up what it opens or moves, and whether it has to look again.

The kernel asks to open a number, and the name by which it was found may be another's by now: it remembers names of
archives for a second. Told that it is stale, it looks the name up once more, and only once. And what is moved it goes
on to remember for the rest of that second, under a name that is to be remembered for no time at all.
"""

from collections import OrderedDict
from typing import TypeVar

from potofs.errors import Stale
from potofs.fuse.recent import Recent
from potofs.tree.nodes import Kind, Node

Noted = TypeVar("Noted")
Said = TypeVar("Said")

# Processes of which it is known what they looked up last, or are about to restore.
_PROCESSES = 4096


class Seekers:
    """Processes (or threads) that look conversations up. 0 are all those of other pid namespaces: nobody is known."""

    def __init__(self) -> None:
        # The conversation that one has looked up last, as long as it has looked up nothing else, and as which.
        self._sought: OrderedDict[int, tuple[int, Kind]] = OrderedDict()
        # Who was told to look again, and has opened or missed nothing since.
        self._sent_back = Recent()
        # Who was, and missed the running conversation: the program was told so, or it goes on, for it may begin one.
        self._missed = Recent()
        # Names, each in a folder, that are being restored; and who was told to look them up again for that, and comes
        # back however long that takes.
        self._restored: OrderedDict[tuple[int, bytes], None] = OrderedDict()
        self._restorers: OrderedDict[tuple[int, int, bytes], None] = OrderedDict()

    def looked_up(self, process: int, inode: int, node: Node) -> None:
        """One has looked an entry up: what it does next is about that, if it is a conversation."""
        self._sought.pop(process, None)
        if node.kind in {Kind.CURRENT, Kind.ARCHIVE} and process:
            _note(self._sought, process, (inode, node.kind))

    def missed(self, process: int, kind: Kind, folder: int, name: bytes) -> None:
        """What one has looked up in a folder of a kind is not there, or is made anew."""
        self._restorers.pop((process, folder, name), None)
        self._restored.pop((folder, name), None)
        if self._sent_back.take(process) and kind is Kind.DIALOGS:
            self._missed.note(process)

    def restores(self, process: int, folder: int, name: bytes) -> None:
        """One makes an archive the running conversation; raises Stale, once, to have its name looked up again."""
        restorer = process, folder, name
        if not process or restorer in self._restorers:
            self._restorers.pop(restorer, None)
            return
        _note(self._restorers, restorer, None)
        _note(self._restored, (folder, name), None)
        raise Stale(f"{name!r} may be remembered as an archive's")

    def restored(self, folder: int, name: bytes) -> None:
        """It was made that, or could not be."""
        self._restored.pop((folder, name), None)

    def is_restored(self, folder: int, name: bytes) -> bool:
        """Whether somebody is about to: the kernel is to remember the name no longer."""
        return (folder, name) in self._restored

    def opens(self, process: int, inode: int) -> "Seeker":
        """One opens a number: what is known of that, for this once."""
        sought, kind = self._sought.pop(process, (None, None))
        return Seeker(
            self._sent_back, process, kind if sought == inode else None, has_missed=self._missed.take(process)
        )


class Seeker:
    """Who opens a number."""

    def __init__(self, sent_back: Recent, process: int, sought_as: Kind | None, *, has_missed: bool) -> None:
        self._all_sent_back, self._process = sent_back, process
        #: As what it has looked the number up, if nothing else since; None if that is not known.
        self.sought_as = sought_as
        self._is_back = sent_back.take(process)
        self._has_missed = has_missed

    @property
    def has_looked_again(self) -> bool:
        """Whether it was told to, and this is what it found."""
        return self._is_back and self.sought_as is not None

    @property
    def may_look_again(self) -> bool:
        """Whether it was not told to yet. Whoever opens by /proc/self/fd looks nothing up, then either."""
        return not self._is_back and self._process != 0

    @property
    def may_have_found_another(self) -> bool:
        """Whether it may open a name that the kernel remembers, though it has just looked another one up."""
        return self.may_look_again and not self._has_missed

    def means(self, kind: Kind) -> bool:
        """Whether it opens what it has looked up as that, or nobody can know."""
        return self.sought_as is kind or (self.sought_as is None and not self.may_look_again)

    def sent_back(self, why: str) -> Stale:
        """What it is told to have it look again."""
        if not self._is_back:
            self._all_sent_back.note(self._process)
        return Stale(why)


def _note(noted: OrderedDict[Noted, Said], one: Noted, said: Said) -> None:
    """Notes something of one; those that were noted longest ago are forgotten if there are too many."""
    noted[one] = said
    if len(noted) > _PROCESSES:
        noted.popitem(last=False)
