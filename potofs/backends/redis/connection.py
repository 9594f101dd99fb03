"""The way to the server or servers: connections, deadlines, and what is tried again.

redis-py would repeat a command whose reply was lost, writes too, and so store a record twice. Here it repeats nothing:
`Link.run` does, and gives a script of the journal the same arguments again, by which the script knows it. redis-py is
typed loosely; what it returns is Any within this file and in the lines that take it apart.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import redis

from potofs.backends.redis import clients, failures, patience
from potofs.backends.redis.address import address
from potofs.backends.redis.scripts import Script
from potofs.backends.redis.silence import Silences
from potofs.backends.waiting import insists, is_whole, left_of
from potofs.config import RedisSettings, Where
from potofs.errors import Damaged, DeadlineExceeded, NotReplicated, PotofsError, Unreachable

Result = TypeVar("Result")
#: A key or an argument of a command.
Argument = str | bytes | int

# A connection that was cut is tried again so often, after these pauses (seconds): a server that was restarted is there.
_PAUSES = (0.0, 0.05, 0.2)
# While waiting for a server to become ready (seconds).
_PATIENCE = 0.05
# What is kept, of a cluster's deadline, for asking where its masters are, if one has not answered (part of it).
_LOOK = 1 / 10


class _Silent(DeadlineExceeded):
    """A server answers nobody, so it was not asked: nothing was sent."""


class _Gone(Unreachable):
    """Likewise, of one that cannot be reached."""


#: What `Link.run` raises without having sent anything.
NOT_ASKED = (_Silent, _Gone)


class Link:
    """Connections to one journal's servers; thread-safe. No connection is made before the first command.

    Every method raises DeadlineExceeded, Unreachable, Damaged for a key of another type, or OSError with ENOSPC, EROFS,
    EACCES or EIO. `type_of` says what a key has to be.
    """

    def __init__(self, where: Where, settings: RedisSettings, type_of: Callable[[str], str | None]) -> None:
        self._address = address(where, settings)
        self._server = str(where)
        #: The number of the database.
        self.db = self._address.db
        #: The deadline of a command (seconds).
        self.timeout = settings.timeout_ms / 1000
        self._kept = self.timeout * _LOOK if self._address.kind == "cluster" else 0.0
        self._replicas = settings.wait_replicas
        self._fails_over = self._address.kind != "server"
        self._type_of = type_of
        self._guard = threading.Lock()
        self._client: Any = None
        #: Whether NOT_ASKED is raised.
        self.hurries = False
        # When a server answered last, and when a connection was refused or cut (seconds, monotonic).
        self._answered = self._refused = 0.0
        # When it was asked where a cluster's masters are, for one of them was silent.
        self._looked = 0.0
        self._silences = Silences(self._is_silent, self.timeout, self._look_around)

    def run(self, do: Callable[[Any], Result], keys: Iterable[Argument] | None) -> Result:
        """What a function makes of a redis-py client; called again, within the deadline, if the connection was cut.

        So it has to do the same when it is done twice. If it `hurries`, and this thread does not insist, raises soon
        what others were told who have waited in vain (NOT_ASKED), as long as a server is silent that has one of the
        `keys` that it asks for; None: it asks all servers.
        """
        begun = time.monotonic()
        deadline = begun + left_of(self.timeout)
        is_refused = self._answered < self._refused and begun < self._refused + self.timeout
        hurries = self.hurries and not insists()
        if hurries and self._silences and (why := self._silences.why(self._servers(keys))) is not None:
            raise _not_asked(why)
        # Once more at least, for a connection that was kept may have been cut by the last one's end.
        pauses = _PAUSES[:1] if hurries and is_refused else _PAUSES
        for attempt in itertools.count():
            try:
                with patience.within(deadline - time.monotonic(), kept=self._kept):
                    result = do(self._connected())
            except failures.THEIRS as error:
                if failures.passes(error, fails_over=self._fails_over):
                    pause = _PATIENCE
                elif failures.is_cut(error) and attempt < len(pauses):
                    pause = pauses[attempt]
                else:
                    pause = None
                now = time.monotonic()
                if pause is None or now + pause > deadline:
                    told = failures.translated(error, self._server, deadline - begun)
                    if now + (pause or 0.0) >= deadline - self._kept:
                        if self.hurries and is_whole(deadline - begun, self.timeout):
                            self._silences.begin(self._servers(keys), told)
                    elif failures.is_cut(error) and self._answered < begun:
                        self._refused = now
                    raise told from None
                time.sleep(pause)
            else:
                self._answered = time.monotonic()
                if self._silences:
                    self._silences.end(self._servers(keys))
                return result
        raise AssertionError("it counts for ever")

    def _servers(self, keys: Iterable[Argument] | None) -> dict[str, str | None]:
        """The servers that are asked for such keys; none that have a name as long as it is not known who they are."""
        return clients.servers(self._client, None if keys is None else map(str, keys))

    def _is_silent(self, server: str, key: str | None, seconds: float) -> bool:
        # A client that was never made asks whoever wants it.
        client = self._client
        return client is not None and clients.is_silent(client, server, key, seconds, fails_over=self._fails_over)

    def _look_around(self) -> None:
        """Has a cluster asked where its masters are, once a deadline at most."""
        client = self._client
        if client is not None and time.monotonic() > self._looked + self.timeout:
            self._looked = time.monotonic()
            clients.look_again(client, self.timeout)

    def command(self, *arguments: Argument) -> Any:
        """The answer to one command that may be repeated: one that reads, or that leaves the same when done twice."""

        def do(client: Any) -> Any:
            try:
                return client.execute_command(*arguments)
            except redis.ResponseError as error:
                if failures.is_of_type(error):
                    raise self._mistyped(arguments[1]) from None
                raise

        return self.run(do, arguments[1:2])

    def batch(self, commands: Sequence[tuple[Argument, ...]], *, lenient: bool = False) -> list[Any]:
        """The answers to such commands, sent together; they may be of several shards.

        `lenient`: what is said of a key of another type is a Damaged among the answers.
        """

        def do(client: Any) -> list[Any]:
            pipeline = client.pipeline(transaction=False) if self._address.kind != "cluster" else client.pipeline()
            with pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = pipeline.execute(raise_on_error=False)
            for at, answer in enumerate(answers):
                if isinstance(answer, redis.ResponseError) and failures.is_of_type(answer):
                    answers[at] = self._mistyped(commands[at][1])
                if isinstance(answers[at], Exception) and not (lenient and isinstance(answers[at], Damaged)):
                    raise answers[at]
            return answers

        return self.run(do, [command[1] for command in commands])

    def script(
        self, script: Script, keys: Sequence[Argument], arguments: Sequence[Argument]
    ) -> tuple[list[bytes], bool]:
        """What a script answers that may be repeated with the same arguments, and whether it was repeated."""
        tries = 0

        def evaluated(client: Any, command: str, what: str) -> list[bytes]:
            answer: list[bytes]
            try:
                answer = client.execute_command(command, what, len(keys), *keys, *arguments)
            except redis.ResponseError as error:
                if failures.is_of_type(error):
                    # Redis does not say which.
                    types = [(key, client.type(key).decode()) for key in keys]
                    wrong = [key for key, kind in types if kind not in ("none", self._type_of(str(key)))]
                    raise self._mistyped(*wrong) from None
                raise
            return answer

        def do(client: Any) -> list[bytes]:
            nonlocal tries
            tries += 1
            answer: list[bytes]
            try:
                answer = evaluated(client, "EVALSHA", script.digest)
            except redis.exceptions.NoScriptError:
                # A new server, or one that was restarted; it knows the script from now on.
                answer = evaluated(client, "EVAL", script.text)
            return answer

        return self.run(do, keys[:1]), tries > 1

    def replicas_have(self, key: str, answers: Sequence[str], token: bytes) -> bool:
        """Whether as many replicas as were asked for have the change of a key's shard that was answered with a token.

        False if the master that is asked does not know that change, or is none any more: another one took its place,
        and whether that has the change only the script can tell, given again. `answers`: where tokens are noted.
        Raises NotReplicated if the replicas do not have it in time.
        """
        if not self._replicas:
            return True
        try:
            client = self._connected()
            if self._address.kind == "cluster":
                client = client.get_redis_connection(client.get_node_from_key(key))
            with patience.within(left_of(self.timeout)), client.pipeline(transaction=False) as pipeline:
                # One connection, so one master, whose replicas these are.
                for one in answers:
                    pipeline.execute_command("HEXISTS", one, token)
                # WAIT speaks of what its own connection has written: this comes after all that is to be waited for.
                pipeline.execute_command("HINCRBY", key, "awaited", 1)
                pipeline.execute_command("WAIT", self._replicas, max(1, int(left_of(self.timeout) * 500)))
                *known, _, have = pipeline.execute()
        except failures.THEIRS as error:
            if failures.is_cut(error) or failures.is_of_no_master(error, fails_over=self._fails_over):
                return False
            raise failures.translated(error, self._server, self.timeout) from None
        if not any(known):
            return False
        if have < self._replicas:
            raise NotReplicated(f"{self._server}: stored, but {have} of {self._replicas} replicas have it in time")
        return True

    @contextmanager
    def subscription(self, channel: str) -> Iterator[Any]:
        """A subscription of redis-py to a channel, on a connection of its own; asked for in one thread.

        Whichever server of a cluster it is made to: what is published on one, all of them tell.
        """

        def subscribed(client: Any) -> Any:
            if self._address.kind == "cluster":
                client = client.get_redis_connection(client.get_random_node())
            subscription = client.pubsub()
            try:
                subscription.subscribe(channel)
            except BaseException:
                subscription.close()
                raise
            return subscription

        with closing(self.run(subscribed, ())) as subscription:
            try:
                yield subscription
            except failures.THEIRS as error:
                raise failures.translated(error, self._server, self.timeout) from None

    def on_each(self, do: Callable[[Any], Result]) -> list[Result]:
        """What a function makes of a client of each master."""
        return self.run(lambda client: [do(master) for master in clients.masters(client)], None)

    def _mistyped(self, *keys: Argument) -> Damaged:
        names = [str(key) for key in keys]
        said = " and ".join(f"{name} is not a {self._type_of(name)}" for name in names) or "a key has another type"
        return Damaged(f"{self._server}: {said}: somebody else wrote it; run `potofs fsck --repair`")

    def _connected(self) -> Any:
        """The client; made when it is first wanted, since one of a cluster asks the cluster at once."""
        if self._client is None:
            if not self._guard.acquire(timeout=max(0.0, min(self.timeout, patience.left()))):
                raise redis.TimeoutError("another thread still asks where the masters are")
            try:
                if self._client is None:
                    self._client = clients.client(self._address, self.timeout)
            finally:
                self._guard.release()
        return self._client

    def close(self) -> None:
        """Ends the connections."""
        self._silences.close()
        client, self._client = self._client, None
        if client is not None:
            clients.close(client)


def _not_asked(why: PotofsError | OSError) -> PotofsError | OSError:
    if isinstance(why, DeadlineExceeded):
        return _Silent(f"{why}, nor since")
    return _Gone(*why.args) if isinstance(why, Unreachable) else type(why)(*why.args)
