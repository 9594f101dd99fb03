"""What all parts of the suite start from: the fixtures, and what becomes of a behaviour that a backend lacks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from typing import Any, TypeVar

import pytest

from potofs.backends.base import Backend, Capability
from potofs.errors import Unsupported

#: Opens a backend, ready to be used, at the same place each time it is called: another server's. Settings are strings
#: by the names of the configuration file.
OpenBackend = Callable[..., Backend]

#: Opens two servers' backends at the same place, with the same settings.
OpenServers = Callable[..., tuple[Backend, Backend]]

SuiteType = TypeVar("SuiteType", bound="Suite")


class Suite:
    """A part of the suite; each of its tests begins at an empty place."""

    #: What the backend says that it can do.
    capabilities: frozenset[Capability]

    @pytest.fixture
    def open_backend(self) -> OpenBackend:
        """Where the backend under test comes from: the one fixture that whoever uses the suite has to write."""
        raise NotImplementedError("define a fixture `open_backend` in this class, as potofs.testing shows")

    @pytest.fixture
    def opened(self, open_backend: OpenBackend) -> Iterator[OpenBackend]:
        """The same, and what it opened is closed in the end."""
        with ExitStack() as stack:

            def opened(**settings: str) -> Backend:
                backend = open_backend(**settings)
                stack.callback(backend.close)
                return backend

            yield opened

    @pytest.fixture(autouse=True)
    def backend(self, opened: OpenBackend) -> Backend:
        """One with the settings that it has by itself."""
        backend = opened()
        self.capabilities = backend.capabilities
        return backend

    @pytest.fixture
    def servers(self, opened: OpenBackend) -> OpenServers:
        """Two servers; where a place cannot be shared because nothing outlives the backend, both are the same."""

        def servers(**settings: str) -> tuple[Backend, Backend]:
            one = opened(**settings)
            return one, opened(**settings) if Capability.PERSISTENCE in one.capabilities else one

        return servers


def needs(capability: Capability) -> Callable[[type[SuiteType]], type[SuiteType]]:
    """Says of a class that its tests need a capability.

    Where the backend lacks it, each of them has to come to its end at Unsupported, with no archive made by then.
    """

    def mark(suite: type[SuiteType]) -> type[SuiteType]:
        for name, test in list(vars(suite).items()):
            if name.startswith("test_"):
                setattr(suite, name, _or_unsupported(capability, test))
        return suite

    return mark


def _or_unsupported(capability: Capability, test: Callable[..., None]) -> Callable[..., None]:
    @wraps(test)
    def run(self: Suite, **fixtures: Any) -> None:
        if capability in self.capabilities:
            test(self, **fixtures)
            return
        with pytest.raises(Unsupported):
            test(self, **fixtures)

    return run
