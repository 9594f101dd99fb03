"""The whole suite, put together: a behaviour is a test in the class of its theme."""

from potofs.testing.appending import Appending, AppendingAtOnce, Retrying
from potofs.testing.archiving import Archiving, ArchivingByItself, Clearing, RetryingAfterArchiving
from potofs.testing.compressing import Compressing
from potofs.testing.fencing import Fencing, FencingArchives, FencingCompression
from potofs.testing.model import Modelled
from potofs.testing.place import Counting, CountingArchives, CountingCompressed, Place
from potofs.testing.restoring import Renaming, Restoring
from potofs.testing.users import Copying, SettingAside, Users


class BackendConformance(
    Appending,
    AppendingAtOnce,
    Retrying,
    Users,
    Copying,
    SettingAside,
    Clearing,
    Archiving,
    RetryingAfterArchiving,
    ArchivingByItself,
    Restoring,
    Renaming,
    Compressing,
    Place,
    Counting,
    CountingArchives,
    CountingCompressed,
    Fencing,
    FencingArchives,
    FencingCompression,
    Modelled,
):
    """All that a backend has to do; whoever derives a test class from it writes the fixture `open_backend`."""
