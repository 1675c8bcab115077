"""A flow of messages over as many calls as it takes: in order, bounded, each stored once."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from .calls import CONNECT_LIMIT, Backoff, Channels, Watchdog, lost
from .errors import CallError, ClientClosedError, OutcomeUnknownError, ProtocolError, from_publish
from .options import Seconds
from .v1 import messages_pb2 as m

_METHOD = "/perennial.v1.MessageService/PublishStream"
# Of a request: far below the server's limits, so that the first answers need not wait for the last message.
_REQUEST_MESSAGES, _REQUEST_BYTES = 1_024, 256 * 1024
# While answers are outstanding.
_SILENCE = 30.0
# A message that was sent again may arrive until its call is given up, which is so long before the server forgets its id.
_LAST = 10.0
# A message is not sent again when the server forgets its id within this time.
_MARGIN = _SILENCE + _LAST
_CLOSE_LIMIT = 2.0


class _Message:
    """A message without an answer."""

    __slots__ = ("bytes", "first_call", "receipt", "request", "sent_at")

    def __init__(self, request: m.PublishRequest, receipt: asyncio.Future[m.PublishResponse]) -> None:
        self.request = request
        self.bytes = request.ByteSize()
        self.receipt = receipt
        # When it was first sent, and the number of that call.
        self.sent_at: float | None = None
        self.first_call = -1


async def _accepted(call: Any) -> None:
    """Waits until the server has accepted a call, or raises its error."""
    # `wait_for_connection` alone waits for ever if the call is cancelled before.
    ended = asyncio.Event()
    call.add_done_callback(lambda _: ended.set())
    waiting = [asyncio.ensure_future(call.wait_for_connection()), asyncio.ensure_future(ended.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if waiting[0].done():
            await waiting[0]
        else:
            # This raises the error of the call.
            await call.read()
    finally:
        for one in waiting:
            one.cancel()


class _IdsWatchdog:
    """Ends a call before the server forgets the id of a message that was sent again and has no answer.

    Answers to messages before it may still come, so silence does not end the call.
    """

    def __init__(self, known_for: Callable[[], float | None], end: Callable[[str], object]) -> None:
        self._known_for, self._end = known_for, end
        self._timer: asyncio.TimerHandle | None = None
        self._check()

    def _check(self) -> None:
        self._timer, left = None, self._known_for()
        if left is None:
            # Messages that are sent again are sent at the begin of a call.
            return
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._check)
        else:
            self._end("a message that was sent again has no answer, and the server may forget its id soon")

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _ids_known_for(oldest: _Message | None, sent: int, call: int, window: float, now: float) -> float | None:
    """The seconds until the server may forget the id of a message that a call sent again. None: it sends none again.

    Nothing that is sent from now on is so old that its time is shorter than that of an answer.
    """
    if oldest is None or oldest.sent_at is None:
        return None
    if sent == 0:
        return _SILENCE
    return None if oldest.first_call == call else oldest.sent_at + window - _LAST - now


class AsyncPublisher:
    """Publishes messages in order, each with an id that it keeps over lost connections, so that it is stored once.

    `publish` waits while too many messages are unanswered, and returns a future: the receipt. A message that the server
    refuses fails its receipt, and the flow goes on. Leave the block of `async with` to wait for all receipts.
    """

    def __init__(
        self, channels: Channels, *, max_messages: int, max_bytes: int, dedupe_window: float, connect_timeout: float
    ) -> None:
        self._channels = channels
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._dedupe_window = dedupe_window
        self._connect_timeout = connect_timeout
        # When it began to connect, until a server has accepted a call of this flow.
        self._out_since: float | None = None
        self._has_begun = False
        self._flow = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        self._number = 0
        # In order: first those that were sent on the open call, then the others.
        self._unanswered: deque[_Message] = deque()
        self._sent = 0
        # The number of the open call. The requests of an older one may still run.
        self._call = 0
        self._bytes = 0
        self._room = asyncio.Condition()
        self._wake = asyncio.Event()
        self._is_closed = False
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._watchdog: Watchdog | None = None
        channels.add(self)

    def client_closed(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._is_closed = True

    async def publish(
        self,
        topic: str,
        content: str | bytes = "",
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
        expected_sequence: int | None = None,
        ttl: Seconds | None = None,
    ) -> asyncio.Future[m.PublishResponse]:
        """Takes a message, and returns its receipt. `await` the receipt to know that the message is on disk."""
        from .client import new_message

        return await self.send(new_message(topic, content, key, headers, message_id, expected_sequence, ttl))

    async def send(self, request: m.PublishRequest) -> asyncio.Future[m.PublishResponse]:
        """Takes a copy of a message, as the request of Publish. See `publish`."""
        while not self._has_room() and self._error is None and not self._is_closed:
            async with self._room:
                await self._room.wait()
        if self._error is not None:
            raise self._error
        if self._is_closed:
            raise ClientClosedError("the publisher is closed")
        self._number += 1
        copy = m.PublishRequest()
        copy.CopyFrom(request)
        if not copy.HasField("message_id"):
            copy.message_id = f"{self._flow}-{self._number}"
        message = _Message(copy, asyncio.get_running_loop().create_future())
        self._unanswered.append(message)
        self._bytes += message.bytes
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return message.receipt

    def _has_room(self) -> bool:
        return len(self._unanswered) < self._max_messages and self._bytes < self._max_bytes

    async def flush(self) -> None:
        """Waits until every message has its receipt, or raises the error that ended the flow."""
        while self._unanswered and self._error is None:
            async with self._room:
                await self._room.wait()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Waits for every receipt, and ends the flow."""
        if self._is_closed:
            return
        try:
            await self.flush()
        finally:
            await self._stop()

    async def _stop(self) -> None:
        self._is_closed = True
        self._wake.set()
        if self._task is not None:
            done, _ = await asyncio.wait([self._task], timeout=0 if self._unanswered else _CLOSE_LIMIT)
            if not done:
                self._task.cancel()
                await asyncio.wait([self._task])
        await self._fail(ClientClosedError("the publisher was closed before the message was answered"))

    async def __aenter__(self) -> AsyncPublisher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        else:
            await self._stop()

    # The flow

    async def _run(self) -> None:
        backoff = Backoff()
        try:
            while True:
                try:
                    await self._one_call(backoff)
                except CallError as error:
                    wait = backoff.next(error)
                    left = self._time_to_connect()
                    if not error.is_retryable or (left is not None and wait >= left):
                        raise
                    await asyncio.sleep(wait)
                while not self._unanswered:
                    if self._is_closed:
                        return
                    self._wake.clear()
                    await self._wake.wait()
        except asyncio.CancelledError:
            await self._fail(ClientClosedError("the publisher was closed before the message was answered"))
            raise
        except BaseException as error:
            await self._fail(error)

    def _time_to_connect(self) -> float | None:
        """The seconds that are left for the first call, or None after a server has accepted one."""
        if self._has_begun:
            return None
        self._out_since = self._out_since or time.monotonic()
        return max(0.0, self._out_since + self._connect_timeout - time.monotonic())

    async def _one_call(self, backoff: Backoff) -> None:
        left = self._time_to_connect()
        async with self._channels.use() as connection:
            method = connection.channel.stream_stream(
                _METHOD,
                request_serializer=m.PublishStreamRequest.SerializeToString,
                response_deserializer=m.PublishStreamResponse.FromString,
            )
            is_connected = asyncio.Event()
            call = method(
                self._requests(self._call, is_connected),
                metadata=self._channels.server.metadata(),
                # At first, a server that cannot be reached is reported at once.
                wait_for_ready=self._has_begun,
            )
            first = _SILENCE + CONNECT_LIMIT if left is None else min(_SILENCE + CONNECT_LIMIT, left)
            watchdog = self._watchdog = Watchdog(call.cancel, _SILENCE, first)
            ids = _IdsWatchdog(self._ids_known_for, watchdog.fire)
            if self._has_begun:
                connection.watch_trust(watchdog)
            try:
                await _accepted(call)
                self._has_begun = True
                watchdog.arrived()
                # Not before: the library would keep messages while it connects, which may take long.
                is_connected.set()
                while True:
                    # Without a message to answer, the server has nothing to say.
                    watchdog.wait_if(lambda: self._sent > 0)
                    answer: Any = await call.read()
                    watchdog.arrived()
                    if answer is grpc.aio.EOF:
                        break
                    backoff.reset()
                    await self._answered(answer.results)
            except (asyncio.CancelledError, grpc.aio.AioRpcError) as error:
                failed = lost(error, watchdog, _SILENCE)
                if failed is None:
                    raise
                if watchdog.has_fired:
                    self._channels.replace(connection)
                raise failed from None
            finally:
                watchdog.stop()
                ids.stop()
                call.cancel()
                # The generator of its requests must take no more.
                self._call += 1
                self._sent = 0
        if self._unanswered:
            raise CallError(grpc.StatusCode.UNAVAILABLE, "the flow ended before all messages were answered", retryable=True)

    def _ids_known_for(self) -> float | None:
        oldest = self._unanswered[0] if self._unanswered else None
        return _ids_known_for(oldest, self._sent, self._call, self._dedupe_window, time.monotonic())

    async def _requests(self, call: int, is_connected: asyncio.Event) -> AsyncIterator[m.PublishStreamRequest]:
        """The unanswered messages, and those that are still to come."""
        await is_connected.wait()
        while call == self._call:
            request, size, has_given_up = m.PublishStreamRequest(), 0, False
            now = time.monotonic()
            if self._sent == 0 and self._watchdog is not None:
                # An answer is due from now on.
                self._watchdog.wait()
            while self._sent < len(self._unanswered) and len(request.messages) < _REQUEST_MESSAGES:
                message = self._unanswered[self._sent]
                if message.sent_at is not None and now - message.sent_at > self._dedupe_window - _MARGIN:
                    # Here, and not once for each call: a call may take messages for minutes.
                    self._give_up(message)
                    has_given_up = True
                    continue
                if request.messages and size + message.bytes > _REQUEST_BYTES:
                    break
                request.messages.append(message.request)
                size += message.bytes
                if message.sent_at is None:
                    message.sent_at, message.first_call = now, call
                self._sent += 1
            if has_given_up:
                async with self._room:
                    self._room.notify_all()
            if request.messages:
                yield request
            elif has_given_up:
                # A message may have come meanwhile.
                continue
            elif self._is_closed:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _answered(self, results: Any) -> None:
        if len(results) > self._sent:
            raise ProtocolError("the server answered messages that it did not get")
        for result in results:
            message = self._unanswered.popleft()
            self._sent -= 1
            self._bytes -= message.bytes
            if message.receipt.done():
                continue
            if result.HasField("published"):
                message.receipt.set_result(result.published)
            else:
                message.receipt.set_exception(from_publish(result.error))
        async with self._room:
            self._room.notify_all()

    def _give_up(self, message: _Message) -> None:
        """Fails the next message. It was sent so long ago that the server may not recognize its id."""
        del self._unanswered[self._sent]
        self._bytes -= message.bytes
        if not message.receipt.done():
            text = f"no answer came within the window of the server for ids, {self._dedupe_window:g} s"
            message.receipt.set_exception(OutcomeUnknownError(text))

    async def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        while self._unanswered:
            message = self._unanswered.popleft()
            if not message.receipt.done():
                message.receipt.set_exception(error)
                # The caller may not look at every receipt.
                message.receipt.exception()
        self._bytes = self._sent = 0
        async with self._room:
            self._room.notify_all()
