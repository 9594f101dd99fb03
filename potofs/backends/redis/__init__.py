"""Conversations in Redis: one server, what Sentinel says is the master, or a cluster."""

from potofs.errors import ConfigError

try:
    import redis as _redis  # noqa: F401
except ModuleNotFoundError:
    # Here, so that whatever of this package is asked for first says so, and not with a traceback.
    raise ConfigError("the Redis backend needs the package redis: pip install 'potofs[redis]'") from None
