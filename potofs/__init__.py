"""potofs: a dialogue journal, as a Python library and as a mounted tree of YAML files."""

from potofs.errors import PotofsError
from potofs.journal.journal import DialogueJournal, open_journal
from potofs.journal.message import ChatMessage

__version__ = "0.1.0"
__all__ = ["ChatMessage", "DialogueJournal", "PotofsError", "open_journal"]
