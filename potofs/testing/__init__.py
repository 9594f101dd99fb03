"""The conformance suite of all backends, ours and plug-ins: what a backend does, as tests that state it in a sentence.

A plug-in's author writes one fixture, which opens the same place each time it is called, as another server would, and
gets the whole suite:

    import pytest
    from potofs import open_journal
    from potofs.config import Where
    from potofs.testing import BackendConformance

    class TestShelf(BackendConformance):
        @pytest.fixture
        def open_backend(self, tmp_path):
            return lambda **settings: open_journal(Where("shelf", str(tmp_path), settings)).backend

The place is empty at the beginning of each test, and settings are strings by the names of the configuration file
(`archiveThreshold`, `maxConversationLength`). Which behaviours a backend has follows from its `capabilities`: where it
lacks one, the suite asserts that what needs it is refused as Unsupported, so nothing is skipped. A backend without
PERSISTENCE may open an empty place each time.

Needs pytest and hypothesis: `pip install 'potofs[testing]'`.
"""

import pkgutil

try:
    import hypothesis  # noqa: F401
    import pytest
except ImportError as error:
    raise ImportError(
        f"potofs.testing needs {error.name}, which is not installed: pip install 'potofs[testing]'", name=error.name
    ) from error

# Before the modules are imported: an assert of theirs then shows what it compared.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from potofs.testing.conformance import BackendConformance  # noqa: E402
from potofs.testing.suite import OpenBackend  # noqa: E402

__all__ = ["BackendConformance", "OpenBackend"]
