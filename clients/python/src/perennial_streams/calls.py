"""Calls over channels that are renewed: how long to wait between attempts, and when an attempt is lost."""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import grpc
import grpc.aio

from .connection import Server
from .errors import CallError, ClientClosedError, from_rpc

MIN_WAIT, MAX_WAIT = 0.1, 2.0
HEARTBEAT = 15.0
# A stream that misses this number of heartbeats is lost; a busy machine may pause for MIN_SILENCE.
MISSED_HEARTBEATS, MIN_SILENCE = 3, 5.0
# How long an attempt may take to connect.
CONNECT_LIMIT = 10.0
# How often a connection learns why it is not there, while a call waits for it. gRPC's core tries again meanwhile: this is
# short enough that a server that is not trusted sees at most three handshakes.
_TRUST_CHECK = 0.2
_CLOSE_SECONDS = 0.02
_ANY_METHOD = "/grpc.health.v1.Health/Check"


class Backoff:
    """Waits with full jitter, so that the readers of a restarted server do not all return at once."""

    def __init__(self) -> None:
        self._attempt = 0

    def reset(self) -> None:
        self._attempt = 0

    def next(self, error: CallError) -> float:
        """The seconds to wait after this error."""
        wait = random.uniform(0, min(MAX_WAIT, MIN_WAIT * 2.0 ** min(self._attempt, 10)))
        self._attempt += 1
        return max(wait, error.retry_delay or 0.0)


class _Connection:
    """A channel and the number of its calls. One that was replaced is closed after its last call."""

    def __init__(self, server: Server) -> None:
        self.channel = server.channel()
        self.calls = 0
        self.is_replaced = False
        # Those of the calls that wait for a connection.
        self._waiting: set[Watchdog] = set()
        self._trust: asyncio.Task[None] | None = None

    def watch_trust(self, watchdog: Watchdog) -> None:
        """Gives a call that waits for a connection up when client and server do not trust each other."""
        self._waiting.add(watchdog)
        watchdog.leave = lambda: self._leave(watchdog)
        if self._trust is None:
            self._trust = asyncio.create_task(self._watch_trust())

    def _leave(self, watchdog: Watchdog) -> None:
        self._waiting.discard(watchdog)
        if not self._waiting and self._trust is not None:
            self._trust.cancel()
            self._trust = None

    async def _watch_trust(self) -> None:
        # A call that waits does not report why there is no connection. Another one, which does not wait, fails at once
        # and does.
        while True:
            await asyncio.sleep(_TRUST_CHECK)
            if self.channel.get_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                continue
            try:
                call = self.channel.unary_unary(_ANY_METHOD, request_serializer=bytes, response_deserializer=bytes)
                await call(b"", timeout=_TRUST_CHECK)
            except grpc.aio.AioRpcError as failed:
                error = from_rpc(failed.code(), failed.details(), ())
                if error.is_distrust:
                    for watchdog in self._waiting:
                        watchdog.refuse(error)


class User(Protocol):
    """A stream or a publisher, which ends when its client is closed."""

    def client_closed(self) -> None: ...


class Channels:
    """The channel of a client. All its calls share one connection, until a stream finds it silent."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._current: _Connection | None = None
        self._all: set[_Connection] = set()
        self.is_closed = False
        self._users: weakref.WeakSet[User] = weakref.WeakSet()

    def add(self, user: User) -> None:
        """Adds a user that learns when the client is closed."""
        self._users.add(user)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[_Connection]:
        if self.is_closed:
            raise ClientClosedError("the client is closed")
        connection = self._current
        if connection is None:
            connection = self._current = _Connection(self.server)
            self._all.add(connection)
        connection.calls += 1
        try:
            yield connection
        finally:
            connection.calls -= 1
            if connection.is_replaced and connection.calls == 0:
                self._all.discard(connection)
                await connection.channel.close()

    def replace(self, connection: _Connection) -> None:
        """Uses another connection for the next calls: this one may be half-open. Its other calls are left alone."""
        connection.is_replaced = True
        if self._current is connection:
            self._current = None

    async def close(self) -> None:
        self.is_closed = True
        for user in list(self._users):
            user.client_closed()
        self._current = None
        for connection in list(self._all):
            await connection.channel.close()
        self._all.clear()
        # A connection is closed after the last completion of a call, which needs the loop. grpcio does not say when that was.
        await asyncio.sleep(_CLOSE_SECONDS)


class Watchdog:
    """Cancels a call that is silent for too long. It counts only while the client waits for a response."""

    def __init__(self, cancel: Callable[[], object], silence: float, first: float) -> None:
        self.has_fired, self.why = False, ""
        # An error that ends the stream.
        self.error: CallError | None = None
        # Called when the call waits for a connection no more.
        self.leave: Callable[[], None] | None = None
        self._cancel = cancel
        self._silence = silence
        # For the first response.
        self._limit = first
        self._since = time.monotonic()
        self._is_waiting = True
        self._is_due: Callable[[], bool] = lambda: True
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._limit, self._check)

    def wait(self) -> None:
        self._since, self._is_waiting = time.monotonic(), True

    def wait_if(self, is_due: Callable[[], bool]) -> None:
        """Waits; but only the time after an answer was due counts."""
        self.wait()
        self._is_due = is_due

    def arrived(self) -> None:
        self._is_waiting, self._limit = False, self._silence
        self._leave_trust()

    def _check(self) -> None:
        if not self._is_due():
            self._since = time.monotonic()
        left = self._since + self._limit - time.monotonic() if self._is_waiting else self._limit
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
            return
        self.fire()

    def fire(self, why: str = "") -> None:
        """Gives the call up, for want of a response or because of something else."""
        self.has_fired, self.why = True, why
        self._cancel()

    def refuse(self, error: CallError) -> None:
        """Gives the call up with this error, after which there is no other attempt."""
        self.error = error
        self.fire()

    def _leave_trust(self) -> None:
        if self.leave is not None:
            self.leave()
            self.leave = None

    def stop(self) -> None:
        self._timer.cancel()
        self._leave_trust()
        # They keep the call, and with it the connection.
        self._cancel, self._is_due = lambda: None, lambda: True


def lost(error: BaseException, watchdog: Watchdog, silence: float) -> CallError | None:
    """The error of an attempt, or None if it is not one of the call."""
    if watchdog.error is not None:
        return watchdog.error
    if watchdog.has_fired:
        text = watchdog.why or f"nothing arrived for {silence:g} s, not even a heartbeat"
        return CallError(grpc.StatusCode.UNAVAILABLE, text, retryable=True)
    if isinstance(error, grpc.aio.AioRpcError):
        return from_rpc(error.code(), error.details(), tuple(error.trailing_metadata() or ()))
    return None


class Requests(Protocol):
    """What is asked for next."""

    @property
    def kind(self) -> Method: ...

    @property
    def is_complete(self) -> bool: ...

    def request(self) -> Any: ...


class Method(Protocol):
    """How a stream is called."""

    @property
    def method(self) -> str: ...

    @property
    def request(self) -> Any: ...

    @property
    def response(self) -> Any: ...


class Responses:
    """The responses of one stream, over as many calls as it takes."""

    def __init__(
        self,
        channels: Channels,
        position: Requests,
        *,
        timeout: float | None,
        connect_timeout: float,
        max_outage: float | None,
    ) -> None:
        self._channels = channels
        self._position = position
        request = position.request()
        heartbeat = request.heartbeat.ToNanoseconds() / 1e9 if request.HasField("heartbeat") else HEARTBEAT
        self._silence = max(heartbeat * MISSED_HEARTBEATS, MIN_SILENCE)
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._connect_timeout, self._max_outage = connect_timeout, max_outage
        # The time since when the stream is without a response.
        self._out_since = time.monotonic()
        self._has_begun = self._has_failed = False
        self._is_own_close = False
        self._backoff = Backoff()
        self._call: Any = None
        self._closed = asyncio.Event()
        self._attempt: Any = None
        channels.add(self)

    def client_closed(self) -> None:
        self._end()

    def close(self) -> None:
        """Ends the stream. The server gets to know at once."""
        self._is_own_close = True
        self._end()

    def _end(self) -> None:
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    async def aclose(self) -> None:
        self.close()
        if self._attempt is not None:
            attempt, self._attempt = self._attempt, None
            await attempt.aclose()

    async def next(self) -> Any:
        """The next response, or None at the end of the stream."""
        while True:
            if self._closed.is_set():
                if self._is_own_close:
                    return None
                raise ClientClosedError("the client was closed while the stream was read")
            if self._attempt is None:
                if self._position.is_complete:
                    return None
                if not self._has_failed:
                    # The time before is that of the caller.
                    self._out_since = time.monotonic()
                self._attempt = self._one_call()
            try:
                response = await self._attempt.__anext__()
            except StopAsyncIteration:
                self._attempt = None
                if self._closed.is_set():
                    continue
                return None
            except CallError as error:
                self._attempt = None
                if self._closed.is_set():
                    continue
                if self._position.is_complete:
                    return None
                self._has_failed = True
                await self._wait_out(error)
                continue
            except BaseException:
                self._attempt = None
                raise
            self._backoff.reset()
            self._has_begun, self._has_failed = True, False
            return response

    async def end_call(self) -> None:
        """Ends the call; the next response is of another one."""
        if self._attempt is not None:
            attempt, self._attempt = self._attempt, None
            await attempt.aclose()

    async def _one_call(self) -> AsyncIterator[Any]:
        kind = self._position.kind
        async with self._channels.use() as connection:
            method = connection.channel.unary_stream(
                kind.method,
                request_serializer=kind.request.SerializeToString,
                response_deserializer=kind.response.FromString,
            )
            left = None if self._deadline is None else self._deadline - time.monotonic()
            if left is not None and left <= 0:
                raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline of the stream has passed")
            call = self._call = method(
                self._position.request(),
                metadata=self._channels.server.metadata(),
                timeout=left,
                # Before the first response, a server that cannot be reached is reported at once.
                wait_for_ready=self._has_begun,
            )
            first = self._silence + CONNECT_LIMIT
            if (limit := self._limit()) is not None:
                first = max(0.0, min(first, self._out_since + limit - time.monotonic()))
            watchdog = Watchdog(call.cancel, self._silence, first)
            if self._has_begun:
                connection.watch_trust(watchdog)
            try:
                while True:
                    watchdog.wait()
                    response = await call.read()
                    watchdog.arrived()
                    if response is grpc.aio.EOF:
                        return
                    self._out_since = time.monotonic()
                    yield response
                    self._out_since = time.monotonic()
            except (asyncio.CancelledError, grpc.aio.AioRpcError) as error:
                if self._closed.is_set():
                    return
                failed = lost(error, watchdog, self._silence)
                if failed is None:
                    raise
                if watchdog.has_fired:
                    self._channels.replace(connection)
                raise failed from None
            finally:
                watchdog.stop()
                call.cancel()
                self._call = None

    def _limit(self) -> float | None:
        """How long the stream may be without a response."""
        return self._max_outage if self._has_begun else self._connect_timeout

    async def _wait_out(self, error: CallError) -> None:
        """Waits before the next attempt, or raises the error if there should be no other one."""
        if not error.is_retryable:
            raise error
        wait = self._backoff.next(error)
        now = time.monotonic()
        limit = self._limit()
        if limit is not None and now + wait > self._out_since + limit:
            raise error
        if self._deadline is not None and now + wait >= self._deadline:
            wait = max(0.0, self._deadline - now)
        try:
            await asyncio.wait_for(self._closed.wait(), wait)
        except asyncio.TimeoutError:
            return
