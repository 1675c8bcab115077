"""The asyncio client."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any

from typing_extensions import Unpack

from . import files, kinds
from .calls import Channels
from .connection import Token, server
from .options import CountdownOptions, LinesOptions, MessagesOptions, Seconds, set_field
from .publisher import AsyncPublisher
from .streams import AsyncStream
from .unary import unary
from .v1 import countdown_pb2 as c
from .v1 import lines_pb2 as l
from .v1 import messages_pb2 as m

_COUNTDOWNS = "/perennial.v1.CountdownService/"
_LINES = "/perennial.v1.LineService/"
_MESSAGES = "/perennial.v1.MessageService/"


class AsyncClient:
    """A client of one server. All its streams and calls share a connection. Use it in one event loop.

    `address` is `http://host:port` for plain text, `https://host:port` for TLS, or `unix:/path`; unset, it is the
    environment variable PERENNIAL_SERVER, or http://127.0.0.1:50051. `ca`, `cert` and `key` are PEM, as bytes or as
    paths; without `ca`, the authorities of the system are trusted. `token` is a token or a function that returns one;
    `token_file` is read at each attempt; unset, the environment variable PERENNIAL_TOKEN is used. A token is never sent
    in plain text over a network.
    """

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
        self._channels = Channels(server(address, ca=ca, cert=cert, key=key, token=token, token_file=token_file))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every stream and call, and closes the connection."""
        await self._channels.close()

    # Streams

    def countdown(
        self, start: int | None = None, **options: Unpack[CountdownOptions]
    ) -> AsyncStream[c.Tick, c.CountdownStreamEvent]:
        """The numbers start, start − 1, … 0, one per second; or down to `until_time`; or of the shared countdown `name`."""
        request = c.CountdownRequest() if start is None else c.CountdownRequest(start=start)
        return AsyncStream(self._channels, kinds.COUNTDOWN, request, options)

    def read_lines(self, path: str, **options: Unpack[LinesOptions]) -> AsyncStream[l.Line, l.LineStreamEvent]:
        """The lines of a file, from any place in it; with `follow`, also those that are written to it from then on."""
        return AsyncStream(self._channels, kinds.LINES, l.ReadLinesRequest(path=path), options)

    def watch_files(
        self, *globs: str, **options: Unpack[files.FilesOptions]
    ) -> AsyncGenerator[l.WatchFilesResponse, None]:
        """The files that match globs, as `logs/**/*.log`: those that are there, and then those that appear and go.

        It yields responses. After a lost connection it continues by itself; where files came or went meanwhile, a
        response has an event `relisted`: forget the files, because all come again. `aclose()` ends the call at once.
        """
        return files.watch(self._channels, globs, options)

    def messages(
        self, *topics: str, **options: Unpack[MessagesOptions]
    ) -> AsyncStream[m.StoredMessage, m.MessageStreamEvent]:
        """The messages of topics, from any place in their history, and then those that are published."""
        return AsyncStream(self._channels, kinds.MESSAGES, m.MessagesRequest(topics=topics), options)

    # Countdowns

    async def create_countdown(
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
        """Creates a shared countdown. With a `request_id`, the call is repeated after a lost connection."""
        request = c.CreateCountdownRequest(name=name, on_end=on_end)
        for field, value in {
            "duration": duration, "until_time": until_time, "start": start, "to": to, "step": step,
            "interval": interval, "request_id": request_id,
        }.items():  # fmt: skip
            set_field("create_countdown", request, field, value)
        answer = await self._call(
            _COUNTDOWNS + "CreateCountdown", request, c.CreateCountdownResponse, repeats=request_id is not None
        )
        return self._countdown(answer)

    async def pause_countdown(self, name: str, *, version: int | None = None) -> c.Countdown:
        """Pauses a shared countdown."""
        request = c.PauseCountdownRequest(name=name, version=version)
        return self._countdown(await self._call(_COUNTDOWNS + "PauseCountdown", request, c.PauseCountdownResponse))

    async def resume_countdown(self, name: str, *, version: int | None = None) -> c.Countdown:
        """Resumes a paused countdown."""
        request = c.ResumeCountdownRequest(name=name, version=version)
        return self._countdown(await self._call(_COUNTDOWNS + "ResumeCountdown", request, c.ResumeCountdownResponse))

    async def extend_countdown(self, name: str, by: Seconds, *, version: int | None = None) -> c.Countdown:
        """Moves the end of a shared countdown, later or, if `by` is negative, earlier."""
        request = c.ExtendCountdownRequest(name=name, version=version)
        set_field("extend_countdown", request, "by", by)
        return self._countdown(await self._call(_COUNTDOWNS + "ExtendCountdown", request, c.ExtendCountdownResponse))

    async def cancel_countdown(self, name: str, *, version: int | None = None) -> c.Countdown:
        """Cancels a shared countdown for good."""
        request = c.CancelCountdownRequest(name=name, version=version)
        return self._countdown(await self._call(_COUNTDOWNS + "CancelCountdown", request, c.CancelCountdownResponse))

    async def get_countdown(self, name: str) -> c.Countdown:
        """The state of a shared countdown."""
        request = c.GetCountdownRequest(name=name)
        return self._countdown(
            await self._call(_COUNTDOWNS + "GetCountdown", request, c.GetCountdownResponse, repeats=True)
        )

    async def delete_countdown(self, name: str, *, version: int | None = None) -> None:
        """Deletes a shared countdown in any state."""
        request = c.DeleteCountdownRequest(name=name, version=version)
        await self._call(_COUNTDOWNS + "DeleteCountdown", request, c.DeleteCountdownResponse)

    async def list_countdowns(self) -> AsyncIterator[c.Countdown]:
        """The shared countdowns, sorted by name."""
        request = c.ListCountdownsRequest()
        async for page in self._pages(_COUNTDOWNS + "ListCountdowns", request, c.ListCountdownsResponse):
            for countdown in page.countdowns:
                yield countdown

    # Files

    async def list_files(self, path: str = "") -> AsyncIterator[l.FileInfo]:
        """The files that can be read, below a root or a directory, or all."""
        async for page in self._pages(_LINES + "ListFiles", l.ListFilesRequest(path=path), l.ListFilesResponse):
            for file in page.files:
                yield file

    # Messages

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
    ) -> m.PublishResponse:
        """Publishes one message. With a `message_id`, the call is repeated after a lost connection. See `publisher`."""
        request = new_message(topic, content, key, headers, message_id, expected_sequence, ttl)
        answer: m.PublishResponse = await self._call(
            _MESSAGES + "Publish", request, m.PublishResponse, repeats=message_id is not None
        )
        return answer

    async def publish_batch(self, messages: Iterable[m.PublishRequest]) -> m.PublishBatchResponse:
        """Publishes several messages, all or none. If each has a `message_id`, the call is repeated as `publish` is."""
        request = m.PublishBatchRequest(messages=messages)
        repeats = all(message.HasField("message_id") for message in request.messages)
        answer: m.PublishBatchResponse = await self._call(
            _MESSAGES + "PublishBatch", request, m.PublishBatchResponse, repeats=repeats
        )
        return answer

    def publisher(
        self,
        *,
        max_messages: int = 8_192,
        max_bytes: int = 16 * 1024 * 1024,
        dedupe_window: float = 120.0,
        connect_timeout: float = 10.0,
    ) -> AsyncPublisher:
        """A flow of messages, published in order: `async with client.publisher() as publisher`.

        It fails if the server cannot be reached for `connect_timeout` seconds after the first message. A server that it
        has reached is tried again without limit. `dedupe_window` is how many seconds the server knows the ids of messages.
        """
        return AsyncPublisher(
            self._channels,
            max_messages=max_messages,
            max_bytes=max_bytes,
            dedupe_window=dedupe_window,
            connect_timeout=connect_timeout,
        )

    async def list_topics(self, pattern: str = "") -> AsyncIterator[m.TopicInfo]:
        """The topics that match, sorted by name."""
        async for page in self._pages(_MESSAGES + "ListTopics", m.ListTopicsRequest(pattern=pattern), m.ListTopicsResponse):
            for topic in page.topics:
                yield topic

    async def purge_topic(self, topic: str, *, until_sequence: int | None = None) -> int:
        """Removes the messages of a topic for good, and returns their number."""
        request = m.PurgeTopicRequest(topic=topic, until_sequence=until_sequence)
        return int((await self._call(_MESSAGES + "PurgeTopic", request, m.PurgeTopicResponse)).message_count)

    async def commit_cursor(self, consumer: str, cursor: str, *, rewind: bool = False) -> m.CommitCursorResponse:
        """Commits a cursor for a consumer. A stream with `consumer` has `commit()`."""
        request = m.CommitCursorRequest(consumer=consumer, cursor=cursor, rewind=rewind)
        answer: m.CommitCursorResponse = await self._call(
            _MESSAGES + "CommitCursor", request, m.CommitCursorResponse, repeats=not rewind
        )
        return answer

    async def set_consumer(self, consumer: str, **start: Any) -> m.ConsumerInfo:
        """Sets a consumer to `earliest`, `from_now`, `from_sequence` or `from_time`."""
        request = m.SetConsumerRequest(consumer=consumer)
        for field, value in start.items():
            set_field("set_consumer", request, field, value)
        answer: m.SetConsumerResponse = await self._call(_MESSAGES + "SetConsumer", request, m.SetConsumerResponse)
        return answer.consumer

    async def list_consumers(self, consumer: str | None = None) -> AsyncIterator[m.ConsumerInfo]:
        """The consumers, sorted by name, or the one with this name."""
        request = m.ListConsumersRequest(consumer=consumer)
        async for page in self._pages(_MESSAGES + "ListConsumers", request, m.ListConsumersResponse):
            for info in page.consumers:
                yield info

    async def delete_consumer(self, consumer: str) -> None:
        """Deletes a consumer."""
        request = m.DeleteConsumerRequest(consumer=consumer)
        await self._call(_MESSAGES + "DeleteConsumer", request, m.DeleteConsumerResponse)

    # How they are called

    async def _call(self, method: str, request: Any, response: Any, *, repeats: bool = False) -> Any:
        return await unary(self._channels, method, request, response, repeats=repeats)

    async def _pages(self, method: str, request: Any, response: Any) -> AsyncIterator[Any]:
        while True:
            page = await self._call(method, request, response, repeats=True)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @staticmethod
    def _countdown(answer: Any) -> c.Countdown:
        countdown: c.Countdown = answer.countdown
        return countdown


def new_message(
    topic: str,
    content: str | bytes,
    key: str | None,
    headers: Mapping[str, str] | None,
    message_id: str | None,
    expected_sequence: int | None,
    ttl: Seconds | None,
) -> m.PublishRequest:
    """A message to publish. Text is published as text, and bytes as data."""
    request = m.PublishRequest(
        topic=topic, key=key, headers=headers, message_id=message_id, expected_sequence=expected_sequence
    )
    if isinstance(content, str):
        request.text = content
    else:
        request.data = content
    set_field("publish", request, "ttl", ttl)
    return request
