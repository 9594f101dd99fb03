"""potofs: a dialogue journal, as a Python library and as a mounted tree of YAML files."""

from potofs.backends.base import Capability
from potofs.errors import PotofsError
from potofs.journal.journal import DialogueJournal, open_journal
from potofs.journal.message import ChatMessage
from potofs.journal.models import (
    ArchivedConversation,
    CleanupOptions,
    CleanupResult,
    DialogueJournalStats,
    PotoUser,
)

__version__ = "0.1.0"
__all__ = [
    "ArchivedConversation",
    "Capability",
    "ChatMessage",
    "CleanupOptions",
    "CleanupResult",
    "DialogueJournal",
    "DialogueJournalStats",
    "PotoUser",
    "PotofsError",
    "open_journal",
]
