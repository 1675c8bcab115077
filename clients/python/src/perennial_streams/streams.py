"""Streams as async generators that resume by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Any, Generic, TypeVar, cast


from .calls import Channels, Responses
from .errors import ClientClosedError, PerennialError
from .kinds import Kind
from .options import StreamOptions, split
from .position import CaughtUp, Position, Skipped
from .stores import FileStore, Store
from .unary import TIMEOUT, unary
from .v1 import messages_pb2

ItemT = TypeVar("ItemT")
EventT = TypeVar("EventT")

# How long the last commit of a stream with `commit_every` may take.
LAST_COMMIT_LIMIT = 2.0

COMMIT = "/perennial.v1.MessageService/CommitCursor"


class AsyncStream(Generic[ItemT, EventT]):
    """One stream, read once: `async for item in stream`.

    A lost connection, a restarted server and a silent one are not visible: the stream continues after the last item
    that it handed out. It ends when the server ends it with OK, or with an error that cannot pass. An item is *done*
    when the loop asks for the next one.

    To leave the loop early and end the call at once, use `async with stream:` or call `aclose()`. Cancelling the task
    ends the call, too.
    """

    def __init__(self, channels: Channels, kind: Kind, request: Any, options: StreamOptions) -> None:
        self._channels = channels
        self._options = split(kind, request, options)
        o = self._options
        self._position = Position(kind, request, o.store, o.save_every, o.is_tracked)
        self._responses: Responses | None = None
        self._is_closed = False
        self._committed: str | None = None
        self._committed_at = time.monotonic()
        self._saving: asyncio.Future[None] | None = None

    @property
    def state(self) -> str | None:
        """Where the stream continues, as text: after the item that it handed out last.

        Save it together with the result of that item, and pass it as `state` to continue. It is None before the first
        response. A stream that has neither a `store` nor the option `state` has no state until its first response is
        done.
        """
        return self._position.state()

    @property
    def skipped_ticks(self) -> int:
        """How many numbers of a countdown were due and were not delivered."""
        return self._position.skipped_ticks

    def __aiter__(self) -> AsyncGenerator[ItemT, None]:
        return cast(AsyncGenerator[ItemT, None], self._values(events=False))

    def with_events(self) -> AsyncIterator[ItemT | EventT | CaughtUp | Skipped]:
        """Iterates over the items and what happens between them, in order.

        Events are the messages of `proto/`: an event that this version does not know has no field set, and an unknown
        value of an enum is its number.
        """
        return cast("AsyncIterator[ItemT | EventT | CaughtUp | Skipped]", self._values(events=True))

    async def _values(self, *, events: bool) -> AsyncGenerator[Any, None]:
        if self._responses is not None:
            raise ClientClosedError("a stream is read once; make another one")
        position = self._position
        if position.store is not None and (text := await _result(position.store.load)) is not None:
            position.restore(text)
        elif self._options.state is not None:
            position.restore(self._options.state)
        o = self._options
        self._responses = responses = Responses(
            self._channels, position, timeout=o.timeout, connect_timeout=o.connect_timeout, max_outage=o.max_outage
        )
        if self._is_closed:
            return
        of_item = item_type(position.kind)
        is_saved_by_item = position.store is not None
        is_failing = True
        try:
            while True:
                is_first = position.is_first
                response = await responses.next()
                if response is None:
                    is_failing = False
                    return
                items = position.received(response)
                if is_first:
                    await responses.end_call()
                if not events:
                    if response.events and (gap := position.gap()) is not None:
                        raise gap
                    for item in items:
                        position.hand = item
                        yield item
                        if is_saved_by_item:
                            position.finish_item()
                            await self._save(is_last=item is items[-1])
                else:
                    for value in position.values(items):
                        if not isinstance(value, of_item):
                            yield value
                            continue
                        position.hand = value
                        yield value
                        if is_saved_by_item:
                            position.finish_item()
                            await self._save(is_last=value is items[-1])
                position.finish_response()
                await self._save()
                if position.is_over:
                    is_failing = False
                    return
                if o.commit_every is not None and time.monotonic() - self._committed_at >= o.commit_every:
                    await self.commit()
        finally:
            responses.close()
            await responses.aclose()
            await self._save(force=True)
            await self._commit_at_end(is_failing=is_failing)

    async def _commit_at_end(self, *, is_failing: bool) -> None:
        cursor = self._position.cursor
        # The caller may have committed the item in hand, which is not done otherwise.
        if self._options.commit_every is None or self._committed in (cursor, self._position.done_cursor()):
            return
        # An error that is on its way must not wait for this one, or be replaced by it.
        with contextlib.suppress(*(PerennialError,) if is_failing else ()):
            await self._commit(str(cursor), timeout=LAST_COMMIT_LIMIT)

    async def _save(self, *, is_last: bool = False, force: bool = False) -> None:
        # After the last item of a response, its cursor is saved instead.
        if is_last:
            return
        if self._saving is not None:
            # It was interrupted. Two saves at once could end in the wrong order.
            await asyncio.shield(self._saving)
        if (text := self._position.to_save(force=force)) is not None:
            self._saving = asyncio.ensure_future(self._save_text(text))
            await asyncio.shield(self._saving)
        self._saving = None

    async def _save_text(self, text: str) -> None:
        store = cast(Store, self._position.store)
        if isinstance(store, FileStore):
            await asyncio.to_thread(store.save, text)
        else:
            await _result(store.save, text)
        self._position.saved(text)

    async def commit(self) -> None:
        """Commits, for a stream with `consumer`, that everything is processed up to the item that was handed out last.

        A commit can only name the end of a response. Items of a response that is not complete come again after a crash;
        `max_batch=1` makes each message a response.
        """
        if not self._position._request.HasField("consumer"):
            raise ValueError("commit needs a stream with a consumer: messages(…, consumer=…)")
        cursor = self._position.done_cursor()
        if cursor is None or cursor == self._committed:
            return
        await self._commit(cursor)

    async def _commit(self, cursor: str, timeout: float = TIMEOUT) -> None:
        request = messages_pb2.CommitCursorRequest(consumer=self._position._request.consumer, cursor=cursor)
        await unary(
            self._channels, COMMIT, request, messages_pb2.CommitCursorResponse, repeats=True, timeout=timeout
        )
        self._committed, self._committed_at = cursor, time.monotonic()

    async def aclose(self) -> None:
        """Ends the stream at once, also while another task waits for its next item."""
        await self._close(is_failing=False)

    async def _close(self, *, is_failing: bool) -> None:
        self._is_closed = True
        if self._responses is not None:
            self._responses.close()
        await self._save(force=True)
        await self._commit_at_end(is_failing=is_failing)

    async def __aenter__(self) -> AsyncStream[ItemT, EventT]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(is_failing=error is not None)


def item_type(kind: Kind) -> type:
    """The type of the items of a stream."""
    item: type = getattr(kind.response(), kind.items).add().__class__
    return item


async def _result(function: Any, *arguments: Any) -> Any:
    """The result of a function of the caller, which may be async."""
    result = function(*arguments)
    return await result if inspect.isawaitable(result) else result


