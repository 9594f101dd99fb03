"""The whole suite, put together: a behaviour is a test in the class of its theme."""

from potofs.testing.appending import Appending, AppendingAtOnce, Retrying
from potofs.testing.archiving import Archiving, ArchivingByItself, Clearing, RetryingAfterArchiving
from potofs.testing.checking import Checking, Rewriting
from potofs.testing.compressing import Compressing
from potofs.testing.copying import Copying, Extending
from potofs.testing.fencing import Fencing, FencingArchives, FencingCompression
from potofs.testing.model import Modelled
from potofs.testing.place import Counting, CountingArchives, CountingCompressed, Logging, Place
from potofs.testing.restoring import Renaming, Restoring
from potofs.testing.setting_aside import SettingAside
from potofs.testing.users import Users


class BackendConformance(
    Appending,
    AppendingAtOnce,
    Retrying,
    Users,
    Copying,
    Extending,
    SettingAside,
    Clearing,
    Archiving,
    RetryingAfterArchiving,
    ArchivingByItself,
    Restoring,
    Renaming,
    Compressing,
    Place,
    Logging,
    Counting,
    CountingArchives,
    CountingCompressed,
    Fencing,
    FencingArchives,
    FencingCompression,
    Checking,
    Rewriting,
    Modelled,
):
    """All that a backend has to do; whoever derives a test class from it writes the fixture `open_backend`."""
