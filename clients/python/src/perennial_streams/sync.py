"""The client for threads: the asyncio client, run by one thread in the background.

A stream crosses to that thread once for each response, not for each item.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from typing_extensions import Unpack

from . import files, kinds
from .calls import Channels, Responses
from .client import AsyncClient
from .connection import Token
from .errors import ClientClosedError, PerennialError
from .kinds import Kind
from .options import CountdownOptions, LinesOptions, MessagesOptions, Seconds, StreamOptions, split
from .position import CaughtUp, Position, Skipped
from .publisher import AsyncPublisher
from .streams import COMMIT, LAST_COMMIT_LIMIT, EventT, ItemT, item_type
from .unary import TIMEOUT, unary
from .v1 import countdown_pb2 as c
from .v1 import lines_pb2 as l
from .v1 import messages_pb2 as m

T = TypeVar("T")


class _Runner:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="perennial", daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        if self._loop.is_closed():
            coroutine.close()
            raise ClientClosedError("the client is closed")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = self.start(coroutine)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClientClosedError("the client is closed") from None
        except BaseException:
            # Also after Ctrl-C: the call must not stay.
            future.cancel()
            raise

    def soon(self, function: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def end(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Starts the end of something. It has ended when the runner has."""
        if self._loop.is_closed():
            coroutine.close()
        else:
            asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> None:
        if not self._loop.is_closed():
            self.run(self._end_tasks())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    @staticmethod
    async def _end_tasks() -> None:
        """Ends the tasks that other threads may still wait for."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # grpcio prints a traceback for each completion of a call that comes after the end of its loop.
        await asyncio.sleep(0.02)


class Stream(Generic[ItemT, EventT]):
    """One stream, read once: `for item in stream`. See `AsyncStream`, which behaves in the same way."""

    def __init__(self, client: Client, kind: Kind, request: Any, options: StreamOptions) -> None:
        self._client = client
        self._request = request
        self._options = o = split(kind, request, options)
        self._position = Position(kind, request, o.store, o.save_every, o.is_tracked)
        self._responses: Responses | None = None
        self._is_closed = False
        self._saving = threading.Lock()
        self._committed: str | None = None
        self._committed_at = time.monotonic()

    @property
    def state(self) -> str | None:
        """Where the stream continues, as text: after the item that it handed out last. See `AsyncStream.state`."""
        return self._position.state()

    @property
    def skipped_ticks(self) -> int:
        """How many numbers of a countdown were due and were not delivered."""
        return self._position.skipped_ticks

    def __iter__(self) -> Iterator[ItemT]:
        return cast(Iterator[ItemT], self._values(events=False))

    def with_events(self) -> Iterator[ItemT | EventT | CaughtUp | Skipped]:
        """Iterates over the items and what happens between them, in order. See `AsyncStream.with_events`."""
        return cast("Iterator[ItemT | EventT | CaughtUp | Skipped]", self._values(events=True))

    def _values(self, *, events: bool) -> Iterator[Any]:
        if self._responses is not None:
            raise ClientClosedError("a stream is read once; make another one")
        position, o = self._position, self._options
        if position.store is not None and (text := position.store.load()) is not None:
            position.restore(text)
        elif o.state is not None:
            position.restore(o.state)
        self._responses = responses = Responses(
            self._client._channels, position,
            timeout=o.timeout, connect_timeout=o.connect_timeout, max_outage=o.max_outage,
        )  # fmt: skip
        item = item_type(position.kind)
        run = self._client._runner.run
        is_failing = True
        try:
            while not self._is_closed:
                is_first = position.is_first
                response = run(responses.next())
                if response is None:
                    is_failing = False
                    return
                items = position.received(response)
                if is_first:
                    run(responses.end_call())
                if not events and response.events and (gap := position.gap()) is not None:
                    raise gap
                for value in position.values(items) if events else items:
                    if events and not isinstance(value, item):
                        yield value
                        continue
                    position.hand = value
                    yield value
                    if position.store is not None:
                        position.finish_item()
                        if value is not items[-1]:
                            self._save()
                position.finish_response()
                self._save()
                if position.is_over:
                    is_failing = False
                    return
                if o.commit_every is not None and time.monotonic() - self._committed_at >= o.commit_every:
                    self.commit()
        finally:
            # Its call, the timer of that, and its share of the connection end, too.
            self._client._runner.end(responses.aclose())
            self._save(force=True)
            self._commit_at_end(is_failing=is_failing)

    def _commit_at_end(self, *, is_failing: bool) -> None:
        cursor = self._position.cursor
        # The caller may have committed the item in hand, which is not done otherwise.
        if self._options.commit_every is None or self._committed in (cursor, self._position.done_cursor()):
            return
        # An error that is on its way must not wait for this one, or be replaced by it.
        with contextlib.suppress(*(PerennialError,) if is_failing else ()):
            self._commit(str(cursor), timeout=LAST_COMMIT_LIMIT)

    def _save(self, *, force: bool = False) -> None:
        # `close` may be called by another thread than the one that reads.
        with self._saving:
            if self._position.store is not None and (text := self._position.to_save(force=force)) is not None:
                self._position.store.save(text)
                self._position.saved(text)

    def commit(self) -> None:
        """Commits, for a stream with `consumer`, what was handed out. See `AsyncStream.commit`."""
        if not self._request.HasField("consumer"):
            raise ValueError("commit needs a stream with a consumer: messages(…, consumer=…)")
        cursor = self._position.done_cursor()
        if cursor is not None and cursor != self._committed:
            self._commit(cursor)

    def _commit(self, cursor: str, timeout: float = TIMEOUT) -> None:
        request = m.CommitCursorRequest(consumer=self._request.consumer, cursor=cursor)
        call = unary(self._client._channels, COMMIT, request, m.CommitCursorResponse, repeats=True, timeout=timeout)
        self._client._runner.run(call)
        self._committed, self._committed_at = cursor, time.monotonic()

    def close(self) -> None:
        """Ends the stream at once, also while another thread waits for its next item."""
        self._close(is_failing=False)

    def _close(self, *, is_failing: bool) -> None:
        self._is_closed = True
        if self._responses is not None:
            self._client._runner.soon(self._responses.close)
        self._save(force=True)
        self._commit_at_end(is_failing=is_failing)

    def __enter__(self) -> Stream[ItemT, EventT]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(is_failing=error is not None)


class Publisher:
    """Publishes messages in order, each stored once. See `AsyncPublisher`, which behaves in the same way."""

    def __init__(self, runner: _Runner, flow: AsyncPublisher) -> None:
        self._runner, self._flow = runner, flow

    def publish(
        self,
        topic: str,
        content: str | bytes = "",
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
        expected_sequence: int | None = None,
        ttl: Seconds | None = None,
    ) -> concurrent.futures.Future[m.PublishResponse]:
        """Takes a message, and returns its receipt. `result()` of the receipt returns when the message is on disk."""
        receipt: concurrent.futures.Future[m.PublishResponse] = concurrent.futures.Future()

        async def take() -> None:
            answer = await self._flow.publish(
                topic, content, key=key, headers=headers, message_id=message_id,
                expected_sequence=expected_sequence, ttl=ttl,
            )  # fmt: skip
            answer.add_done_callback(pass_on)

        def pass_on(answer: asyncio.Future[m.PublishResponse]) -> None:
            if error := answer.exception():
                receipt.set_exception(error)
            else:
                receipt.set_result(answer.result())

        self._runner.run(take())
        return receipt

    def flush(self) -> None:
        """Waits until every message has its receipt, or raises the error that ended the flow."""
        self._runner.run(self._flow.flush())

    def close(self) -> None:
        """Waits for every receipt, and ends the flow."""
        self._runner.run(self._flow.close())

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._flow.__aexit__(kind, error, trace))


class Client:
    """A client of one server, for threads. See `AsyncClient`, which takes the same arguments and has the same calls."""

    def __init__(
        self,
        address: str | None = None,
        *,
        ca: bytes | str | os.PathLike[str] | None = None,
        cert: bytes | str | os.PathLike[str] | None = None,
        key: bytes | str | os.PathLike[str] | None = None,
        token: Token | None = None,
        token_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._client = AsyncClient(address, ca=ca, cert=cert, key=key, token=token, token_file=token_file)
        self._runner = _Runner()

    @property
    def _channels(self) -> Channels:
        return self._client._channels

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every stream and call, and closes the connection."""
        self._runner.run(self._client.close())
        self._runner.stop()

    def countdown(
        self, start: int | None = None, **options: Unpack[CountdownOptions]
    ) -> Stream[c.Tick, c.CountdownStreamEvent]:
        """See `AsyncClient.countdown`."""
        request = c.CountdownRequest() if start is None else c.CountdownRequest(start=start)
        return Stream(self, kinds.COUNTDOWN, request, options)

    def read_lines(self, path: str, **options: Unpack[LinesOptions]) -> Stream[l.Line, l.LineStreamEvent]:
        """See `AsyncClient.read_lines`."""
        return Stream(self, kinds.LINES, l.ReadLinesRequest(path=path), options)

    def messages(self, *topics: str, **options: Unpack[MessagesOptions]) -> Stream[m.StoredMessage, m.MessageStreamEvent]:
        """See `AsyncClient.messages`."""
        return Stream(self, kinds.MESSAGES, m.MessagesRequest(topics=topics), options)

    def create_countdown(
        self,
        name: str,
        *,
        duration: Seconds | None = None,
        until_time: datetime | None = None,
        start: int | None = None,
        to: int | None = None,
        step: int | None = None,
        interval: Seconds | None = None,
        on_end: c.EndMessage | None = None,
        request_id: str | None = None,
    ) -> c.Countdown:
        """See `AsyncClient.create_countdown`."""
        call = self._client.create_countdown(
            name, duration=duration, until_time=until_time, start=start, to=to, step=step, interval=interval,
            on_end=on_end, request_id=request_id,
        )  # fmt: skip
        return self._runner.run(call)

    def pause_countdown(self, name: str, *, version: int | None = None) -> c.Countdown:
        """See `AsyncClient.pause_countdown`."""
        return self._runner.run(self._client.pause_countdown(name, version=version))

    def resume_countdown(self, name: str, *, version: int | None = None) -> c.Countdown:
        """See `AsyncClient.resume_countdown`."""
        return self._runner.run(self._client.resume_countdown(name, version=version))

    def extend_countdown(self, name: str, by: Seconds, *, version: int | None = None) -> c.Countdown:
        """See `AsyncClient.extend_countdown`."""
        return self._runner.run(self._client.extend_countdown(name, by, version=version))

    def cancel_countdown(self, name: str, *, version: int | None = None) -> c.Countdown:
        """See `AsyncClient.cancel_countdown`."""
        return self._runner.run(self._client.cancel_countdown(name, version=version))

    def get_countdown(self, name: str) -> c.Countdown:
        """See `AsyncClient.get_countdown`."""
        return self._runner.run(self._client.get_countdown(name))

    def delete_countdown(self, name: str, *, version: int | None = None) -> None:
        """See `AsyncClient.delete_countdown`."""
        self._runner.run(self._client.delete_countdown(name, version=version))

    def list_countdowns(self) -> Iterator[c.Countdown]:
        """See `AsyncClient.list_countdowns`."""
        return self._each(self._client.list_countdowns())

    def watch_files(self, *globs: str, **options: Unpack[files.FilesOptions]) -> Iterator[l.WatchFilesResponse]:
        """See `AsyncClient.watch_files`. Leaving the loop ends the call."""
        responses = self._client.watch_files(*globs, **options)
        try:
            yield from self._each(responses)
        finally:
            self._runner.end(responses.aclose())

    def list_files(self, path: str = "") -> Iterator[l.FileInfo]:
        """See `AsyncClient.list_files`."""
        return self._each(self._client.list_files(path))

    def publish(
        self,
        topic: str,
        content: str | bytes = "",
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
        expected_sequence: int | None = None,
        ttl: Seconds | None = None,
    ) -> m.PublishResponse:
        """See `AsyncClient.publish`."""
        call = self._client.publish(
            topic, content, key=key, headers=headers, message_id=message_id, expected_sequence=expected_sequence, ttl=ttl
        )
        return self._runner.run(call)

    def publish_batch(self, messages: Iterable[m.PublishRequest]) -> m.PublishBatchResponse:
        """See `AsyncClient.publish_batch`."""
        return self._runner.run(self._client.publish_batch(messages))

    def publisher(
        self,
        *,
        max_messages: int = 8_192,
        max_bytes: int = 16 * 1024 * 1024,
        dedupe_window: float = 120.0,
        connect_timeout: float = 10.0,
    ) -> Publisher:
        """See `AsyncClient.publisher`."""

        async def make() -> AsyncPublisher:
            return self._client.publisher(
                max_messages=max_messages,
                max_bytes=max_bytes,
                dedupe_window=dedupe_window,
                connect_timeout=connect_timeout,
            )

        return Publisher(self._runner, self._runner.run(make()))

    def list_topics(self, pattern: str = "") -> Iterator[m.TopicInfo]:
        """See `AsyncClient.list_topics`."""
        return self._each(self._client.list_topics(pattern))

    def purge_topic(self, topic: str, *, until_sequence: int | None = None) -> int:
        """See `AsyncClient.purge_topic`."""
        return self._runner.run(self._client.purge_topic(topic, until_sequence=until_sequence))

    def commit_cursor(self, consumer: str, cursor: str, *, rewind: bool = False) -> m.CommitCursorResponse:
        """See `AsyncClient.commit_cursor`."""
        return self._runner.run(self._client.commit_cursor(consumer, cursor, rewind=rewind))

    def set_consumer(self, consumer: str, **start: Any) -> m.ConsumerInfo:
        """See `AsyncClient.set_consumer`."""
        return self._runner.run(self._client.set_consumer(consumer, **start))

    def list_consumers(self, consumer: str | None = None) -> Iterator[m.ConsumerInfo]:
        """See `AsyncClient.list_consumers`."""
        return self._each(self._client.list_consumers(consumer))

    def delete_consumer(self, consumer: str) -> None:
        """See `AsyncClient.delete_consumer`."""
        self._runner.run(self._client.delete_consumer(consumer))

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> list[T]:
            async for item in items:
                return [item]
            return []

        while item := self._runner.run(following()):
            yield item[0]
