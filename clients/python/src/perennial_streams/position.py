"""Where a stream is: what was handed out, what is done, and what is asked for next. It does no input or output."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .errors import GapError, ProtocolError, StateError
from .kinds import Kind, Replay
from .state import State
from .stores import Store


@dataclass(frozen=True)
class Skipped:
    """Numbers of a countdown that were due and are not delivered."""

    count: int


@dataclass(frozen=True)
class CaughtUp:
    """Nothing older is left: from here on the stream is live."""


class Position:
    """The position of one stream."""

    def __init__(self, kind: Kind, request: Any, store: Store | None, save_every: float, is_tracked: bool) -> None:
        self.kind = kind
        self._is_tracked = is_tracked
        self._request = request
        self._limit: int | None = request.limit if request.HasField("limit") else None
        # After the last response that is done.
        self.cursor: str | None = request.cursor if request.HasField("cursor") else None
        # After the last response that arrived.
        self._received: str | None = self.cursor
        self._replay: Replay | None = None
        self._response: Any = None
        # The item that the caller has; the ones before are done. And the key of the last one that is done since `cursor`.
        self.hand: Any = None
        self._after: dict[str, int] = {}
        self._is_live = self._is_cut = False
        # The server does not know the limit, so that the stream has no end of its own.
        self._is_own_limit = False
        self.skipped_ticks = 0
        self.store = store
        self._save_every = save_every
        self._saved: str | None = None
        self._saved_at = 0.0

    def restore(self, text: str) -> None:
        state = State.from_text(text, self.kind.name)
        self.cursor = self._received = state.cursor
        if state.after:
            try:
                self._after = {name: state.after[name] for name in _NEEDED[self.kind.name]} | dict(state.after)
                self._replay = self.kind.replay(self._after, self._request)
            except KeyError as error:
                raise StateError(f"the state is damaged: it has no {error}") from error

    # What is asked for.

    def request(self) -> Any:
        """The request of the next attempt."""
        request = self.kind.request()
        request.CopyFrom(self._request)
        if self._received is not None:
            request.cursor = self._received
        self._is_own_limit = False
        if self.is_first:
            request.max_batch = request.limit = 1
        elif self._limit is not None:
            self._is_own_limit = self._replay is not None
            if not self._is_own_limit:
                request.limit = self._limit
            else:
                # The items that come again would count.
                request.ClearField("limit")
        return request

    @property
    def is_first(self) -> bool:
        """Whether the next call is for the first response alone.

        Nothing before the first response could be continued, so if the caller keeps the state, that response has one
        item at most, and the next call continues after it.
        """
        return self._is_tracked and self._received is None

    @property
    def is_complete(self) -> bool:
        """The caller got the number of items that it asked for."""
        return self._limit == 0

    @property
    def is_over(self) -> bool:
        """The caller got the number of items that it asked for, and the server does not know that number."""
        return self.is_complete and self._is_own_limit

    # What arrives.

    def received(self, response: Any) -> Any:
        """Takes a response, and returns the items to hand out."""
        if not response.cursor:
            raise ProtocolError("the server sent a response without a cursor")
        self._response, self.hand = response, None
        self._received = response.cursor
        items = getattr(response, self.kind.items)
        if self._replay is not None:
            items = self._replay.filter(response)
        if self.kind.name == "countdown":
            self.skipped_ticks += response.skipped_ticks
        if self._limit is not None:
            self._is_cut = len(items) > self._limit
            if self._is_cut:
                items = items[: self._limit]
            self._limit -= len(items)
        return items

    def gap(self) -> GapError | None:
        """The first gap in the events of the response."""
        for event in self._response.events:
            if event.WhichOneof("event") == "gap":
                return GapError(event.gap)
        return None

    def values(self, items: Any) -> Iterator[Any]:
        """The events and items of the response in order, and whether it has caught up."""
        response = self._response
        if self.kind.name == "countdown" and response.skipped_ticks:
            yield Skipped(response.skipped_ticks)
        yield from response.events
        yield from items
        is_live = getattr(response, "caught_up", False)
        if is_live and not self._is_live:
            yield CaughtUp()
        self._is_live = is_live

    # What was handed out, and what is done.

    def finish_item(self) -> None:
        """The item in the hand of the caller is done."""
        if self.hand is not None:
            self._after = self._key()
            self.hand = None

    def finish_response(self) -> None:
        """Every item of the response is done."""
        self.finish_item()
        if self._is_cut:
            return
        self.cursor = self._response.cursor
        self._after = dict(self._pending_key())
        if not self._after:
            self._replay = None

    def state(self) -> str | None:
        """The state with the item in the hand of the caller."""
        if self.hand is not None and self._is_last(self.hand):
            return State(self.kind.name, self._response.cursor, self._pending_key()).to_text()
        if self.cursor is None:
            return None
        after = self._after if self.hand is None else self._key()
        return State(self.kind.name, self.cursor, after).to_text()

    def _key(self) -> dict[str, int]:
        """The key of the item in the hand of the caller.

        While the key of a state is pending, that stays: the items before it are of an older file, and come again after a
        crash. The key of such an item would give up the lines that were handed out before.
        """
        if self._replay is not None and self._replay.is_pending:
            return self._after
        return self.kind.key(self._response, self.hand)

    def _pending_key(self) -> dict[str, int]:
        """The key that is still pending after the response."""
        return self._replay.key if self._replay is not None and self._replay.is_pending else {}

    def _is_last(self, item: Any) -> bool:
        """Whether the response is done with this item."""
        return not self._is_cut and item is getattr(self._response, self.kind.items)[-1]

    def done_cursor(self) -> str | None:
        """The cursor to commit: that of the response, if the caller has its last item, or else the one before it."""
        if self.hand is not None and self._is_last(self.hand):
            return str(self._response.cursor)
        return self.cursor

    def to_save(self, *, force: bool = False) -> str | None:
        """The state of what is done, if it is time to save it."""
        if self.store is None or self.cursor is None:
            return None
        now = time.monotonic()
        every = self._save_every
        if every == 0 and self._response is not None and not getattr(self._response, self.kind.items):
            every = 1.0  # A heartbeat only moves the cursor.
        if not force and every and self._saved is not None and now - self._saved_at < every:
            return None
        text = State(self.kind.name, self.cursor, self._after).to_text()
        if text == self._saved:
            return None
        return text

    def saved(self, text: str) -> None:
        """The store has this state."""
        self._saved, self._saved_at = text, time.monotonic()


_NEEDED = {
    "messages": ("sequence", "publish_time"),
    "lines": ("switches", "offset"),
    "countdown": ("remaining",),
}
